r"""Numbers, units, sets and relations in the many ways that models write them, each with a right and a wrong neighbour.

A line of `BOXED` is what stands in the box, "==" or "!=", and the truth. Maps to egsw_plugin/rewards/{dress,forms,
quantities,equivalence}.py. Not exercised: the grading processes (test_rewards.py).
"""

import itertools

import pytest

from egsw_plugin.rewards.forms import usual
from egsw_plugin.rewards.math import accuracy, dapo

pytestmark = pytest.mark.usefixtures("graded_in_this_process")

RIGHT, WRONG = True, False


BOXED = r"""
3>|x|>1 == 1<|x|<3
3>|x|>1 != 1<|x|<4
3^{-61} != \frac{1}{3^{60}}
1-\left(\frac{1}{6}\right)^{50} != 1-\left(\frac{1}{6}\right)^{49}
1 != 1-\left(\frac{1}{6}\right)^{49}
\frac{1}{51!} != \frac{1}{52!}
10^{-20} i != 10^{-21} i
x^2+10^{-20} != x^2+10^{-21}
10^{-20}<x<1 != 10^{-21}<x<1
\sin(10^{-20}) != \sin(10^{-21})
0.00000000000000000002 != 10^{-20}
\{x=10^{-30}, y=1\} != \{x=10^{-31}, y=1\}
10^{-30},10^{-31} != 10^{-30},10^{-32}
0.0000002 != 10^{-7}
2.7\times10^{-7}\text{ C} != 3\times 10^{-7}
0.0000003 != 0.0000004
\frac{\sqrt{5}-1}{2} == 2\sin 18^\circ
\cos(36^\circ) == \frac{1+\sqrt5}{4}
\left\langle 1, 2 \right\rangle == (1,2)
\left]0,1\right[ == (0,1)
\left.x\right|_{0}^{1} != 1
\bigl(\begin{smallmatrix}1\\2\end{smallmatrix}\bigr) == \begin{pmatrix}1\\2\end{pmatrix}
7_200 == 7200
1,23,456 == 123456
\text{USD }7200 == 7200
\text{Rs. }7200 == 7200
₹7200 == 7200
\text{\$}18 == 18
25\phantom{0} == 25
\phantom{-}25 == 25
25\hfill == 25
25\nobreakspace == 25
90 °C == 90
90℃ == 90
90^{\text{o}} == 90
90^o == 90
30^\circ != 60
60\frac{\text{km}}{\text{h}} == 60
\SI{9.8}{m/s} == 9.8
\qty{9.8}{\metre} == 9.8
\num{12345} == 12345
5\,\Omega == 5
\text{204 cm} == 204
\text{The answer is }204 == 204
\text{Answer: }204 == 204
\colorbox{yellow}{204} == 204
\framebox{204} == 204
\mathcal{204} == 204
204\tag{1} == 204
204\qquad\blacksquare == 204
\text{approximately }204 == 204
\sim 204 == 204
\simeq204 == 204
\pu{204 cm} == 204
3 1/2 cups == 3.5
10 \frac{1}{2}\% == 10.5
3 1/2 != 3/2
⅛ == 0.125
2⅝ == 2.625
5⅗ == 5.6
6.02x10^23 == 6.02\times10^{23}
6.02 x 10^23 == 6.02\times10^{23}
6.02*10**23 == 6.02\times10^{23}
6.02\cdot10^{23} == 602\times10^{21}
60.2 \times 10^{22} == 6.02\times10^{23}
6.02\text{ x }10^{23} == 6.02\times10^{23}
6.02 \text{E}23 == 6.02\times10^{23}
6.02\mathrm{e}23 == 6.02\times10^{23}
10^-3 == 0.001
3×10⁸ m/s == 3\times10^8
1.5e2 N == 150
1’000’000 == 1000000
1_000_000 == 1000000
1\_000\_000 == 1000000
1.000.000 == 1000000
10,00,000 == 1000000
1.000,5 == 1000.5
3,14 != 3.14
3{,}14 == 3.14
0{,}5 == 0.5
1,000, 2,000 == 1000,2000
1,000 and 2,000 == 1000,2000
1,000 \text{ or } 2,000 == 1000,2000
\{1,000; 2,000\} == \{1000,2000\}
(1,000, 2,000) == (1000,2000)
1,000\pi == 1000\pi
\frac{1,000}{3} == \frac{1000}{3}
1,000/3 == 1000/3
1,000 - 1 == 999
1,000\% == 1000
12,34 != 1234
1,000 < x == x>1000
2,025,079 != 2,025,078
1 000,00 == 1000
1 000.50 == 1000.5
3{:}30 == 3:30
\text{3:30 PM} == 3:30
3:30 != 3:31
4\text{ to }5 == 4:5
30^{\circ}30' == 30.5
30^\circ 15' != 30
2\text{ h }30\text{ min} != 2
2\text{ hours and }30\text{ minutes} != 2
5\text{ feet }3\text{ inches} != 5
5 km/h == 5
5 m/s^2 == 5
5 m^2 == 5
5 cm² == 5
5 dollars == 5
6 apples != 5
5 USD == 5
5 people == 5
5x != 5
5 \text{ and } 6 != 5
5 million == 5000000
5\text{ million} == 5000000
5\text{ million} != 5
5\text{ thousand} != 5
2 dozen != 2
2 dozen == 24
5\text{ billion} == 5000000000
1.5 \text{ million} == 1500000
\$1.5\text{ million} == 1500000
x ∈ (−∞, 3] == (-\infty,3]
[0,1] \text{ or } [2,3] == [0,1]\cup[2,3]
\{x : x>3\} == x>3
\{x \mid x > 3\} == (3,\infty)
2\le x\le 5 == [2,5]
2 < x \le 5 != 2\le x\le5
x\ge 2 \text{ and } x \le 5 == 2\le x\le5
5\ge x\ge 2 == 2\le x\le5
x<-1\text{ or }x>1 == (-\infty,-1)\cup(1,\infty)
\varnothing == \emptyset
x=\frac{1\pm\sqrt5}{2} == \frac{1+\sqrt5}{2},\frac{1-\sqrt5}{2}
\langle1,2,3\rangle == (1,2,3)
(x, y) = (2, 1) != (1,2)
\begin{pmatrix}1&2\\4&3\end{pmatrix} != \begin{pmatrix}1&2\\3&4\end{pmatrix}
\begin{Bmatrix}1\\2\end{Bmatrix} == \begin{pmatrix}1\\2\end{pmatrix}
[[1,2],[3,4]] == \begin{pmatrix}1&2\\3&4\end{pmatrix}
[[1,2],[3,5]] != [[1,2],[3,4]]
\begin{cases}x=1\\y=2\end{cases} == x=1,y=2
5=x == 5
x \to 5 == 5
n\equiv 5\pmod 7 == 5\pmod7
5 \pmod{7} == 5
f(x) = 2x + 2 != 2x+1
\text{Area} = 25\text{ cm}^2 == 25
\text{Area}=26 != 25
3x+4=19 != x=5
\lg 100 == 2
\tan^{-1}(1) == \frac\pi4
\arctan 1 == \frac\pi4
2+3\mathrm i == 2+3i
C(10,3) != 120
No != \text{Yes}
\text{Monday.} == Monday
x>3 == (3,\infty)
x>3 != (2,\infty)
2<x<5 == (2,5)
x>3 != 3
12.5\% == 12.5
12.5 == 12.5\%
\frac{1}{2}\% == 0.5
33\frac{1}{3}\% == \frac13
33\frac13\% == \frac{100}{3}
16\frac{2}{3}\% == 16\frac23
(\pm1,2) == (1,2),(-1,2)
\{x \mid x>3\} == x>3
\{x : 2\le x<5\} == [2,5)
17 (mod 20) == 17
2\sqrt{3}\text{ or approximately }3.46 == 2\sqrt3
2\sqrt{3}\ (\approx 3.46) == 2\sqrt3
2\sqrt{3}\ (\text{approximately }3.46) == 2\sqrt3
5 apples and 6 pears != 5
5 \text{ apples and }6\text{ pears} == 5,6
5 to 6 != 5
5 times x != 5
5 squared != 5
5 squared units != 5
about 5 or so != 5
5 except != 5
not 5 apples != 5
5 is the number != 5
5 without != 5
1,000 != 100
5 cm^2 == 5
5m^2 == 5
5 N == 5
5 A == 5
2C == 2
3:30 AM != 3:30 PM
3:30:15 != 3:30
3.30 != 3:30
x\equiv 5 \pmod 7 == 5
12\pmod 7 != 5 \pmod 7
2.5 million == 2500000
2.5\text{ million dollars} == 2500000
\$2.5 million == 2500000
3 hundred == 300
3 thousand 5 hundred != 3500
12 dozen == 144
2 dozen eggs == 24
\text{about }5 == 5
\text{at least }5 != 5
\text{minus }5 != -5
\text{x}=5=6 != 5
]0,1[ == (0,1)
]0,1] == (0,1]
5\ge x>2 == 2<x\le5
5\ge x>2 != 2\le x\le5
x>2,x<5 == 2<x<5
x<5 \text{ and } x>2 == 2<x<5
x<2 \text{ or } x>5 == (-\infty,2)\cup(5,\infty)
x \leq -1 \text{ or } x \geq 3 == (-\infty,-1]\cup[3,\infty)
\sin 30^\circ == 0.5
\sin(30^{\circ}) == 0.5
\cos60^\circ == \frac12
2\sin 45^\circ == \sqrt2
\tan^2 60^\circ == 3
10^-3 == 10^{-3}
x^-1 == \frac1x
2^-x == 2^{-x}
x**2 == x^2
2**10 == 1024
\frac\pi4 == \frac{\pi}{4}
\frac\pi{4} == \frac{\pi}{4}
\frac 3 4 == 0.75
\frac{a+1}b == \frac{a+1}{b}
x₁=3 == 3
\begin{pmatrix}1,000\\2\end{pmatrix} == \begin{pmatrix}1000\\2\end{pmatrix}
\infty != \$18.90
-\infty != 12.5\%
\infty+1 != 1.5\pi
e^{\infty} != 6.02\times10^{23}
5.0 != \infty
\infty == \infty
5 ln 2 != 5
2(sqrt(3)-1) != 2
2(sqrt(3)-1) == 2(\sqrt3-1)
5 trillion == 5000000000000
10 choose 3 != 10
4 factorial != 4
5 divided by 2 != 5
2 cos x != 2
3 halves != 3
5 xy == 5xy
1/2 bh != 1/2
2(xy+1) == 2(xy+1)
5(7) == 35
34_5 != 34_6
1=2=3 != 3
\$18.90 == 18.90
\mathbf{v}=\begin{pmatrix}1\\2\end{pmatrix} == \begin{pmatrix}1\\2\end{pmatrix}
\mathbf{v}=\begin{pmatrix}1\\3\end{pmatrix} != \begin{pmatrix}1\\2\end{pmatrix}
\mathbf{v}=\begin{pmatrix}1\\2\end{pmatrix} == (1,2)
\frac{1}{5}\begin{pmatrix}1\\-18\end{pmatrix} == \begin{pmatrix}1/5\\-18/5\end{pmatrix}
\frac{1}{5}\begin{pmatrix}1\\-17\end{pmatrix} != \begin{pmatrix}1/5\\-18/5\end{pmatrix}
-\begin{pmatrix}1\\2\end{pmatrix} == \begin{pmatrix}-1\\-2\end{pmatrix}
\begin{pmatrix}1\\2\end{pmatrix}+t\begin{pmatrix}3\\4\end{pmatrix} == \begin{pmatrix}1+3t\\2+4t\end{pmatrix}
\{1,2\} != \begin{pmatrix}1\\2\end{pmatrix}
1,2 == \begin{pmatrix}1\\2\end{pmatrix}
\begin{pmatrix}1\\[4pt]2\end{pmatrix} == \begin{pmatrix}1\\2\end{pmatrix}
\begin{pmatrix}1\\[4pt]3\end{pmatrix} != \begin{pmatrix}1\\2\end{pmatrix}
18.90\$ == 18.90
18.90\$ == \$18.90
18.91\$ != 18.90
\text{\$18.90} == 18.90
1, 10, 100 == 1,10,100
1, 10, 101 != 1,10,100
0.125, 8 == 0.125,8
3\times10^8 m/s == 3\times10^8
3\times10^9 m/s != 3\times10^8
(100,201) != (100, 200)
100,200,300 != 100, 200, 300
"""


def pairs():
    for line in BOXED.strip().splitlines():
        answer, sign, truth = next(line.rpartition(f" {sign} ") for sign in ("==", "!=") if f" {sign} " in line)
        yield answer, truth, sign.strip() == "=="


@pytest.mark.parametrize("answer,truth,right", list(pairs()))
def test_boxed(answer, truth, right):
    assert accuracy("d", rf"So it is \boxed{{{answer}}}.", truth)["acc"] == right
    if right:
        assert accuracy("d", rf"So it is \boxed{{{truth}}}.", answer)["acc"] == right, "the other way round"


# What is read otherwise where it is stated: the mark of an answer, and words behind a number are a clause.
NOT_STATED = {r"\text{Answer: }204", "5 except", "5 is the number", "5 without"}


FORMULAS = 2 * (r"Answer: \(%s\)",) + 2 * ("Answer: $%s$, as shown.",)  # by turns, neighbours in the same


@pytest.mark.parametrize(
    "pair,formula", [*zip((pair for pair in pairs() if pair[0] not in NOT_STATED), itertools.cycle(FORMULAS))]
)
def test_stated(pair, formula):
    answer, truth, right = pair
    for wrapper in ("Answer: %s", formula):
        assert dapo("d", wrapper % answer, truth)["acc"] == right, wrapper


@pytest.mark.parametrize("latex", [r"f(x)=\begin{cases}1&x>2\\0&x>5\end{cases}", "x>2 | 5>x"])
def test_two_bounds_apart_are_no_chain(latex):
    assert usual(latex) == latex


RESPONSES = [
    (r"\boxed{204\ \ }", "204", RIGHT),
    (r"\boxed{204 \ }", "204", RIGHT),
    ("The answer is **17**, not **18**.", "18", WRONG),
    ("The answer is 17! Great.", "17", RIGHT),
    ("The answer is minus 17.", "-17", RIGHT),
    ("The answer is negative 17.", "-17", RIGHT),
    ("The answer is seventeen.", "17", WRONG),
    ("The answer is 1.7e1.", "17", RIGHT),
    ("The answer is 17 m^2.", "17", RIGHT),
    ("The answer is 17°C.", "17", RIGHT),
    ("The answer is $\\frac{1}{2}$ (or 0.5).", "0.5", RIGHT),
    ("The answer is 1/2 (50%).", "0.5", RIGHT),
    ("The answer is roughly 3.14.", "3.14", RIGHT),
    ("Answer: <17>", "17", RIGHT),
    ("Answer: «17»", "17", RIGHT),
    ("Answer： 17", "17", RIGHT),
    ("The answer is 17. The answer is correct.", "17", WRONG),
    ("The answer is 2**17.", "131072", RIGHT),
    ("The answer is 17 hours and 30 minutes.", "17", WRONG),
    ("The answer is 3:30 PM.", "3:30", RIGHT),
    ("The answer is 4:5.", "5:4", WRONG),
    ("The answer is 17 (mod 20).", "17", RIGHT),
    ("\\(\\boxed{3}\\) and \\(\\boxed{4}\\)", "3,4", RIGHT),
    ("\\[\\boxed{3}\\] or \\[\\boxed{4}\\]", "3,4", RIGHT),
    ("<think>a</think><answer>3</answer>", "3", WRONG),
    ("<answer>The answer is 3</answer>", "3", RIGHT),
    ("<answer>The answer is 3.</answer>", "3", RIGHT),
    ("<answer>Answer: 3</answer>", "3", RIGHT),
    ("The answer is 3.<|im_end|>", "3", RIGHT),
    ("The answer is 3<|im_end|>", "3", RIGHT),
    ("The answer is 3</s>", "3", RIGHT),
    ("The answer is 3<|endoftext|>", "3", RIGHT),
    ("\\boxed{\\begin{array}{c}3\\end{array}}", "3", RIGHT),
    ("\\boxed{\\[3\\]}", "3", RIGHT),
    ("\\boxed{**3**}", "3", RIGHT),
    ("\\boxed{`3`}", "3", RIGHT),
    ("\\boxed{*3*}", "3", RIGHT),
    ("\\boxed{3:}", "3", RIGHT),
    ("\\boxed{3?}", "3", RIGHT),
    ("\\boxed{３}", "3", RIGHT),
    ("\\boxed{𝟑}", "3", RIGHT),
    ("\\boxed{3。}", "3", RIGHT),
    ("\\boxed{3 \\& 4}", "3,4", RIGHT),
    ("\\boxed{3\\text{ (or }4)}", "3", WRONG),
    ("\\boxed{\\neq 3}", "3", WRONG),
    ("\\boxed{\\text{not }3}", "3", WRONG),
    ("\\boxed{3\\cdots}", "3", WRONG),
    ("Answer: 17 \\boxed{18}", "17", WRONG),
    ("Answer:\n$\n17\n$", "17", RIGHT),
    ("Answer: 1.7 x 10^1", "17", RIGHT),
    ("Answer: 17\nAnswer: $Answer", "17", WRONG),
]


@pytest.mark.parametrize("response,truth,right", RESPONSES)
def test_responses(response, truth, right):
    function = dapo if response.startswith("Answer") else accuracy
    assert function("d", response, truth)["acc"] == right


@pytest.mark.parametrize(
    "truth",
    [
        "A: 18",
        "<answer>18</answer>",
        "18 dollars",
        "18 cm^2",
        "18 km/h",
        "#### 18 dollars",
        "18。",
        "１８",
        "### 18",
        "Answer\n18",
    ],
)
def test_truths(truth):
    assert accuracy("d", r"\boxed{18}", truth)["acc"] == RIGHT
    assert accuracy("d", r"\boxed{19}", truth)["acc"] == WRONG


@pytest.mark.parametrize("truth", ["Therefore 18", "eighteen (18)", "see page 18"])
def test_truths_with_words_that_say_something_are_not_failed_silently(truth):
    assert accuracy("d", r"\boxed{18}", truth)["ungraded"] == 1
