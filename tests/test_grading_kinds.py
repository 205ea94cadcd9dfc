r"""Kinds of faults that public bug reports brought to light, each as a table of right and wrong pairs, and properties.

Dressing a number in any of the ways that models use must not change its verdict; changing a digit always must. Maps to
egsw_plugin/rewards/{answers,equivalence,math}.py. Not exercised: the grading processes (test_rewards.py).
"""

import time

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from egsw_plugin.rewards import answers
from egsw_plugin.rewards.equivalence import equivalent
from egsw_plugin.rewards.math import accuracy, accuracy_and_format, dapo, multiple_choice

pytestmark = pytest.mark.usefixtures("graded_in_this_process")

RIGHT, WRONG = True, False


def box(text):
    return rf"So it is \boxed{{{text}}}."


TINY = [  # an absolute tolerance calls everything tiny equal
    (r"10^{-21}", r"10^{-20}", WRONG),
    (r"10^{-20}", r"10^{-20}", RIGHT),
    (r"-10^{-99}", r"\frac{1}{2^{99}}", WRONG),
    (r"2^{-99}", r"\frac{1}{2^{99}}", RIGHT),
    (r"1-\frac{1}{2^{98}}", r"1-\frac{1}{2^{99}}", WRONG),
    (r"1-2^{-99}", r"1-\frac{1}{2^{99}}", RIGHT),
    (r"1.05\times 10^{-34}", r"6.63\times 10^{-34}", WRONG),
    (r"6.63\times 10^{-34}", r"6.63\times 10^{-34}", RIGHT),
    (r"66.3\times 10^{-35}", r"6.63\times 10^{-34}", RIGHT),
    (r"0", r"10^{-30}", WRONG),
    (r"10^{-30}", r"0", WRONG),
    (r"x=10^{-30}", r"x=10^{-31}", WRONG),
    (r"(1, 10^{-30})", r"(1, 10^{-31})", WRONG),
    (r"(1, 10^{-30})", r"(1, 10^{-30})", RIGHT),
    (r"\sqrt{2}+10^{-25}", r"\sqrt{2}", WRONG),
    (r"\sqrt{8}", r"2\sqrt{2}", RIGHT),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", RIGHT),
    (r"0.5", r"\frac12", RIGHT),
    (r"0.1", r"\frac{1}{10}", RIGHT),
    (r"50\%", "50", RIGHT),
    (r"1.6e-19", r"1.6\times 10^{-19}", RIGHT),
    (r"1.6e-18", r"1.6\times 10^{-19}", WRONG),
    (r"6.02\cdot 10^{23}", r"6.02\times 10^{23}", RIGHT),
    (r"6.03\times 10^{23}", r"6.02\times 10^{23}", WRONG),
    (r"e^{-50}", r"e^{-51}", WRONG),
    (r"\frac{1}{100!}", r"\frac{1}{99!}", WRONG),
    (r"\{10^{-30}\}", r"\{10^{-31}\}", WRONG),
    (r"\{2, 10^{-30}\}", r"\{10^{-30}, 2\}", RIGHT),
    (r"[0,10^{-30}]", r"[0,10^{-31}]", WRONG),
    (r"[0,10^{-30}]", r"[0,10^{-30}]", RIGHT),
    (r"x<10^{-20}", r"x<10^{-21}", WRONG),
    (r"x<10^{-20}", r"x<10^{-20}", RIGHT),
    (r"\begin{pmatrix}10^{-30}\\1\end{pmatrix}", r"\begin{pmatrix}10^{-31}\\1\end{pmatrix}", WRONG),
    (r"2^{100}+1", "2^{100}", WRONG),
    (r"0.999999999999999999", "1", WRONG),
    (r"\log_2(8)", "3", RIGHT),
    (r"0.1\overline{6}", r"\frac16", RIGHT),
    (r"0.\overline{3}", r"\frac13", RIGHT),
    (r"0.\overline{3}", r"0.3", WRONG),
]
DELIMITERS = [
    (r"\bigl(3,\tfrac{\pi}{2}\bigr)", r"(3,\frac{\pi}{2})", RIGHT),
    (r"\big(3,\tfrac{\pi}{3}\big)", r"(3,\frac{\pi}{2})", WRONG),
    (r"\frac12\bigl(1+\sqrt5\bigr)", r"\frac{1+\sqrt5}{2}", RIGHT),
    (r"\Bigg[0, 1\Bigg)", r"[0,1)", RIGHT),
    (r"(3,4)", r"\Bigl( 3, 4 \Bigr)", RIGHT),
    (r"\bigl|-3\bigr|", "3", RIGHT),
    (r"\bigcup", "1", WRONG),
    (r"2\Biggl(\frac12\Biggr)", "1", RIGHT),
    (r"2\left(\frac12\right)", "1", RIGHT),
    (r"\left\lbrace 1,2\right\rbrace", r"\{1,2\}", RIGHT),
    (r"\lbrace 1,3\rbrace", r"\{1,2\}", WRONG),
    (r"\Bigl\lfloor \frac{7}{2}\Bigr\rfloor", "3", RIGHT),
    (r"\bigl\lvert -5\bigr\rvert", "5", RIGHT),
    (r"\left.\frac{1}{2}\right.", r"\frac12", RIGHT),
    (r"(-\infty,\bigl.3\bigr]", r"(-\infty,3]", RIGHT),
    (r"\mathopen{}\left(1,2\right)\mathclose{}", "(1,2)", RIGHT),
    (r"\bigl(x+1\bigr)\bigl(x-1\bigr)", "x^2-1", RIGHT),
    (r"\big(1,2\big)\cup\big(3,4\big)", r"(1,2)\cup(3,4)", RIGHT),
]
SPACES = [
    (r"204\,", "204", RIGHT),
    (r"204", r"204\,", RIGHT),
    (r"\;204\ ", "204", RIGHT),
    (r"42\ ", "42", RIGHT),
    (r"42\quad", "42", RIGHT),
    (r"6.5~\mathrm{m}", "6.5", RIGHT),
    (r"6.5\:\text{m}", "6.5", RIGHT),
    (r"6.4~\mathrm{m}", "6.5", WRONG),
    (r"10{,}\!000", "10000", RIGHT),
    (r"1\,000", "1000", RIGHT),
    (r"1,\ 2", "1, 2", RIGHT),
    ("12 345", "12345", RIGHT),
    ("12~345", "12345", RIGHT),
    ("12\u202f345", "12345", RIGHT),
    ("1 234 568", "1234567", WRONG),
    ("\u200b204\u00a0", "204", RIGHT),
    (r"204\hspace{1cm}", "204", RIGHT),
    (r"\mathstrut 204\\", "204", RIGHT),
    (r"90\degree", "90", RIGHT),
    ("90°", "90", RIGHT),
    ("80°", "90", WRONG),
    (r"3\,\textup{kg}", "3", RIGHT),
    (r"3\,\operatorname{kg}", "3", RIGHT),
    (r"3\,\mathrm{m\,s^{-1}}", "3", RIGHT),
    (r"\operatorname{arctan}(1)", r"\frac{\pi}{4}", RIGHT),
    (r"\displaystyle\nicefrac{1}{2}", "0.5", RIGHT),
    (r"\mathbf{\frac{1}{2}}", "0.5", RIGHT),
    (r"\textcolor{red}{204}", "204", RIGHT),
    (r"\underline{204}", "204", RIGHT),
    (r"\large 204", "204", RIGHT),
    (r"\begin{aligned}x&=204\end{aligned}", "204", RIGHT),
    (r"\approx 204", "204", RIGHT),
    ("=204;", "204", RIGHT),
    ("½", "0.5", RIGHT),
    ("3×10⁸", r"3\times 10^8", RIGHT),
    ("3×10⁷", r"3\times 10^8", WRONG),
    ("√2", r"\sqrt{2}", RIGHT),
    ("√(3)", r"\sqrt{2}", WRONG),
    ("(–3, 2)", "(-3,2)", RIGHT),
    ("x²+1", "x^2+1", RIGHT),
    ("3 1/2", "3.5", RIGHT),
    ("2 3/4", "2.75", RIGHT),
    ("1 000", "1000", RIGHT),
    ("1.5e3", "1500", RIGHT),
    ("3 1/2", "1.5", WRONG),
    ("2e^3", "2e^3", RIGHT),
    (r"\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", RIGHT),
    (r"\begin{pmatrix}1 & 2 \\ 3 & 5\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", WRONG),
]


MORE = [  # a last letter, both signs, vectors, bases, braces, sets and pairs, lists, words, repeating decimals
    ("a + b + c", "a+b+c", RIGHT),
    ("c + x^2", "x^2 + c", RIGHT),
    ("a + b - c", "a + b + c", WRONG),
    ("2 + c", "2 + d", WRONG),
    ("a - c", "a - m", WRONG),
    (r"\pi r^2 h", r"\pi r^2", WRONG),
    (r"2\pi r h", r"2\pi rh", RIGHT),
    ("a b c", "abc", RIGHT),
    ("2a b", "2", WRONG),
    ("a^2 b^2 - c", "(ab)^2-c", RIGHT),
    ("5 m", "5", RIGHT),
    ("x = 5 m", "5", RIGHT),
    (r"\frac{1}{2} m", r"\frac12", RIGHT),
    (r"\{-2,1-\sqrt5,1+\sqrt5\}", r"\{1\pm\sqrt{5},-2\}", RIGHT),
    (r"-2, 1+\sqrt5, 1-\sqrt5", r"\{1\pm\sqrt{5},-2\}", RIGHT),
    (r"\{0,\pm1\}", r"\{0,1,-1\}", RIGHT),
    (r"\{\pm1,3\}", r"\{-1,1,3\}", RIGHT),
    (r"\{\pm1,3\}", r"\{1,3\}", WRONG),
    (r"1\pm\sqrt5", r"1+\sqrt5,1-\sqrt5", RIGHT),
    (r"x=\pm 2", "2,-2", RIGHT),
    (r"(\pm 1, 2)", "(1,2),(-1,2)", RIGHT),
    ("11111111100", r"11,\! 111,\! 111,\! 100", RIGHT),
    ("11,111,111,100", r"11,\! 111,\! 111,\! 100", RIGHT),
    ("11111111101", r"11,\! 111,\! 111,\! 100", WRONG),
    (r"(-\tfrac13,\tfrac23,\tfrac53)", r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}", RIGHT),
    ("(-1,2)", r"\begin{pmatrix}-1\\2\end{pmatrix}", RIGHT),
    (r"\langle 1,2\rangle", r"\begin{pmatrix}1\\2\end{pmatrix}", RIGHT),
    ("(2,-1)", r"\begin{pmatrix}-1\\2\end{pmatrix}", WRONG),
    ("(-1,3)", r"\begin{pmatrix}-1\\2\end{pmatrix}", WRONG),
    (r"\begin{pmatrix}-1\\2\end{pmatrix}", "(-1,2)", RIGHT),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "(1,2,3,4)", WRONG),
    ("[-1,2]", r"\begin{pmatrix}-1\\2\end{pmatrix}", WRONG),
    (r"4210_{\text{five}}", "4210_5", RIGHT),
    ("(4210)_5", "4210_5", RIGHT),
    ("4210_5", "(4210)_5", RIGHT),
    ("2516_8", r"2516_{\text{eight}}", RIGHT),
    ("2517_8", r"2516_{\text{eight}}", WRONG),
    ("4210_6", "4210_5", WRONG),
    ("A_{11}", "A_{12}", WRONG),
    ("11_2", "3_4", RIGHT),
    (r"\mathbf{(2,3)}", "(2,3)", RIGHT),
    (r"\boldsymbol{(1,2)}", "(1,2)", RIGHT),
    ("{(1,2)}", "(1,2)", RIGHT),
    (r"{\{1,2\}}", r"\{1,2\}", RIGHT),
    (r"\mathbf{[0,1]}", "[0,1]", RIGHT),
    (r"\{1,2\}", "(1,2)", WRONG),
    ("1,2", "(1,2)", RIGHT),
    ("(1,2)", r"\{1,2\}", WRONG),
    (r"1,2,3 \text{, and } 4", "1,2,3,4", RIGHT),
    ("1,2,3,4", r"1,2,3 \text{, and } 4", RIGHT),
    ("North", "north", RIGHT),
    (r"\text{True}", "true", RIGHT),
    ("YES", "yes", RIGHT),
    ("south", "north", WRONG),
    ("June 20", r"\text{June 20}", RIGHT),
    (r"0.\bar{3}", r"\frac13", RIGHT),
    (r"0.\dot{3}", r"\frac13", RIGHT),
    ("0,001", "1", WRONG),
    ("1,000", "1000", RIGHT),
]


@pytest.mark.parametrize("answer,truth,right", [*TINY, *DELIMITERS, *SPACES])
def test_boxed_answers(answer, truth, right):
    assert equivalent(answers.in_box(answer), answers.in_box(answers.gold(truth))) == right


STATED = [
    ("The answer is **204**.", "204", RIGHT),
    ("**Answer:** **204**.", "204", RIGHT),
    ("The answer is `204`.", "204", RIGHT),
    ("Answer: **204**!", "204", RIGHT),
    ("The answer is *204*, as asked.", "204", RIGHT),
    ("The answer is __204__.", "204", RIGHT),
    ("The **answer is 204**.", "204", RIGHT),
    ("The answer is **$204$**.", "204", RIGHT),
    ("The answer is **205**.", "204", WRONG),
    ("__Answer:__ 204", "204", RIGHT),
    ("_Answer:_ **204**", "204", RIGHT),
    ("### Final Answer: 204", "204", RIGHT),
    ("> **Answer:** 204", "204", RIGHT),
    ("Answer: “204”.", "204", RIGHT),
    ("Answer: ~~203~~ 204", "204", RIGHT),
    ("The answer is <b>204</b>.", "204", RIGHT),
    ("The answer is 204 ✅", "204", RIGHT),
    ("The answer is 204 (exactly).", "204", RIGHT),
    ("The answer is **204** (two hundred four).", "204", RIGHT),
    ("So the answer is therefore 204.", "204", RIGHT),
    ("The answer is equal to 204.", "204", RIGHT),
    ("The answer is 2.04e2", "204", RIGHT),
    ("The answer is €204.", "204", RIGHT),
    ("The answer is pi/2.", r"\frac{\pi}{2}", RIGHT),
    ("Answer: 12 345", "12345", RIGHT),
    ("Answer: 2 pi", r"2\pi", RIGHT),
    ("Answer: 12 346", "12345", WRONG),
    ("The answer is **2**04.", "204", WRONG),
    ("The answer is not 204.", "204", WRONG),
    ("The answer is 203 or 204.", "204", WRONG),
    ("The answer is between 200 and 208.", "204", WRONG),
    ("Answer: 204 and 205", "204", WRONG),
    ("Answer: `2040`", "204", WRONG),
    ("Answer:\n- 204", "204", RIGHT),
    ("The answer is\n\n> 204", "204", RIGHT),
    ("Answer:\n```\n204\n```", "204", RIGHT),
    ("Answer:\n```\n205\n```", "204", WRONG),
    ("Answer:\n\\begin{align*}\n204\n\\end{align*}", "204", RIGHT),
    ("Answer:\n\\[\n\\begin{aligned}\nx &= 204\n\\end{aligned}\n\\]", "204", RIGHT),
    ("The answer is:\n\\[\n204.\n\\]", "204", RIGHT),
    ("Answer:\r\n\\[\r\n204\r\n\\]", "204", RIGHT),
    ("Answer:\n$$204$$ or $$205$$", "204", WRONG),
    ("Answer: 5!", "120", RIGHT),
    ("Answer: 2*3", "6", RIGHT),
    ("The answer is $x_1 + x_2$.", "x_1+x_2", RIGHT),
    ("The answer is:\n$$\n204\n$$", "204", RIGHT),
    ("Answer:\n\\[\n204\n\\]\nThat is all.", "204", RIGHT),
    ("**Answer:**\n\n\\[ \\frac{1}{2}\n\\]", "0.5", RIGHT),
    ("The answer is:\n$$\n205\n$$", "204", WRONG),
    ("Answer:\n\\[\n\\boxed{204}\n\\]", "204", RIGHT),
    ("Answer:\n\\[\n\\boxed{205}\n\\]", "204", WRONG),
]


@pytest.mark.parametrize("response,truth,right", STATED)
def test_stated_answers(response, truth, right):
    assert accuracy("d", response, truth)["acc"] == right
    if "nswer:" in response:
        assert dapo("d", response, truth)["acc"] == right


LETTERS = [
    ("Answer: C) A = quinone, B = lactate", "C"),
    ("The answer is B. A is wrong.", "B"),
    ("Answer: (A) triphenylene", "A"),
    ("Answer: A) a base", "A"),
    ("Answer: (D) It depends on A and B", "D"),
    ("Answer: Option B", "B"),
    ("Answer: option (B)", "B"),
    (r"\boxed{\text{Option B}}", "B"),
    (r"\boxed{\text{(C) } 5\text{ eV}}", "C"),
    ("Answer: The correct option is B", "B"),
    ("Answer: I think it is C", "C"),
    ("Answer: It's C.", "C"),
    ("Answer: A (text)", "A"),
    ("Answer: A, as B is wrong", "A"),
    ("Answer: A; B is wrong", "A"),
    ("Answer: A as well as B", None),
    ("Answer: C (not D)", "C"),
    ("Answer: C rather than D", "C"),
    ("Answer: not C", None),
    ('Answer: "A"', "A"),
    ("Answer: `(B)`", "B"),
    ("Answer: **A) text**", "A"),
    ("Answer: A: text", "A"),
    ("Answer: C) Both A and B", "C"),
    ("Answer: B) A", "B"),
    (r"\boxed{\text{Answer: A}}", "A"),
    (r"\boxed{\text{The answer is A}}", "A"),
    (r"\boxed{\;A\;}", "A"),
    (r"\boxed{\textit{A}}", "A"),
    (r"\boxed{\bf A}", "A"),
    (r"\boxed{\textbf{(A)}\ 5}", "A"),
    (r"\boxed{\text{A and C}}", None),
    (r"\boxed{A}, \boxed{B}", None),
    ("Answer: D|E", None),
    ("Answer: D vs E", None),
    ("Answer: D, possibly E", None),
    ("Answer: D (or E)", None),
    ("Answer: E or A", None),
    ("Answer: either A or B", None),
    ("Answer: Carbon", None),
    ("Answer: Choice C, because D is too large", "C"),
    ("Answer: D/H", None),
    ("Answer: D or E", None),
    (r"\boxed{D, E}", None),
    ("Answer: (A) and (B)", None),
    ("Answer: (A)(B)", None),
    ("Answer: A) or C)", None),
    ("Answer: A, then B", None),
    ("Answer: A thing", None),
    ("Answer: E", None),
    ("Answer: <B>", "B"),
    ("Answer: b. 12", "B"),
    ("Answer: C — A and B are wrong", "C"),
    ("Answer: C (A and B are wrong)", "C"),
    ("The answer is C, not A or B.", "C"),
    ("The answer is not A but B.", "B"),
    ("Answer: I would go with C", "C"),
    ("Answer: I choose C", "C"),
    ("Answer: I'd say C", "C"),
    ("Answer: C, I think", "C"),
    ("Answer: C, I", None),
    ("Answer: C and D are right", None),
    ("Answer: C, D", None),
    ("Answer: not A", None),
    ("Answer: not A or B", None),
    ("Answer: I would go with C or D", None),
]


@pytest.mark.parametrize("response,letter", LETTERS)
def test_letters(response, letter):
    assert [truth for truth in "ABCD" if multiple_choice("g", response, truth)["acc"]] == ([letter] if letter else [])


# Not settled by anybody else: a box that holds nothing is none, and so is one in a thought that never ends.
DECIDED = [
    (r"So \boxed{12}. (As asked, in \boxed{}.)", "12", RIGHT),
    (r"The answer is 12, in \boxed{ }.", "12", RIGHT),
    (r"\boxed{}", "12", WRONG),
    (r"<think>maybe \boxed{4} but", "4", WRONG),
    (r"<think>no</think>So <think>maybe \boxed{4}", "4", WRONG),
    (r"<think>4?</think>\boxed{4}", "4", RIGHT),
    (r"\boxed{5 4.6}", "5 4.6", RIGHT),
    (r"\boxed{5, 4.6}", "5 4.6", RIGHT),
    (r"\boxed{5 4.7}", "5 4.6", WRONG),
    (r"\boxed{5}", "5 4.6", WRONG),
    (r"\boxed{4 2}", "6", WRONG),
]


BESIDE_A_FORMULA = [  # the rest of the number, or a word that makes another of it; boxes with signs and names
    (r"The answer is $\{1\pm\sqrt{5},-2\}$.", r"\{1\pm\sqrt{5},-2\}", RIGHT),
    ("The answer is -$3$.", "3", WRONG),
    ("The answer is -$3$.", "-3", RIGHT),
    ("The answer is negative $3$.", "3", WRONG),
    ("The answer is negative $3$.", "-3", RIGHT),
    ("Answer: not $113$", "113", WRONG),
    ("Answer: at least $113$", "113", WRONG),
    ("Answer: 112, $113$", "113", WRONG),
    ("Answer: $113$ or 114", "113", WRONG),
    ("Answer: 5 $113$ 7", "113", WRONG),
    ("The answer is 2 times $3$", "3", WRONG),
    ("The answer is twice $3$", "3", WRONG),
    ("The answer is half of $3$", "3", WRONG),
    ("The answer is the square root of $3$", "3", WRONG),
    ("The answer is $3$ squared", "3", WRONG),
    ("The answer is $3$ plus $5$", "3", WRONG),
    ("The answer is $3$ or more", "3", WRONG),
    ("The answer is $3$, 4 or 5", "3", WRONG),
    ("The answer is not $3$ but $4$", "3", WRONG),
    ("The answer is between $3$ and $5$", "3,5", WRONG),
    (r"The answer is 12$\pi$.", r"12\pi", RIGHT),
    (r"The answer is 5$\sqrt{2}$", r"5\sqrt2", RIGHT),
    ("Final Answer: 12 cm$^2$", "12", RIGHT),
    (r"Answer: 12 $\text{cm}$", "12", RIGHT),
    ("The answer is $3$.", "3", RIGHT),
    ("The answer is $x=3$, since it is.", "3", RIGHT),
    ("The answer is approximately $3.5$", "3.5", RIGHT),
    ("The answer is $3$ and $4$", "3,4", RIGHT),
    ("The answer is $3$ or $4$", "3,4", RIGHT),
    ("The answer is $5$ apples", "5", RIGHT),
    ("The answer is the number $113$.", "113", RIGHT),
    (r"$-\boxed{3}$", "3", WRONG),
    (r"$-\boxed{3}$", "-3", RIGHT),
    (r"$x=\boxed{3}$ or $x=\boxed{4}$", "4", WRONG),
    (r"$x=\boxed{3}$ or $x=\boxed{4}$", "3,4", RIGHT),
    (r"x=\boxed{3}, y=\boxed{4}", "3,4", RIGHT),
    (r"So 5-\boxed{3}", "3", RIGHT),
    ("Answer: 113\nAnswer: ", "113", RIGHT),
    ("Answer: 113\nAnswer: 5", "113", WRONG),
    ("The answer is: the side of the square is $4$.", "4", RIGHT),
    ("The answer is that he won $5$ times.", "5", RIGHT),
    ("Answer: the number of times he won is $5$", "5", RIGHT),
    ("Answer: the greater number is $7$", "7", RIGHT),
    ("Answer: half of the class, that is $12$ children", "12", RIGHT),
    ("Answer: the square of $3$", "3", WRONG),
    ("Answer: $3$ to $5$", "3", WRONG),
    ("Answer: $1$, $2$, and $3$.", "1,2", WRONG),
    ("Answer: $1$, $2$, and $3$.", "1,2,3", RIGHT),
    ("Answer: $1$, $2$ and $3$, as shown.", "1,2,3", RIGHT),
    (r"Answer: \(x=3\), \(y=4\)", "3,4", RIGHT),
    ("Answer: $5$/$6$", "5", WRONG),
    ("Answer: $5$/$6$", "5/6", RIGHT),
    (r"Answer: $2\sqrt3$ + 1", r"2\sqrt3", WRONG),
    (r"Answer: $2\sqrt3$ + 1", r"2\sqrt3+1", RIGHT),
    ("Answer: x < $5$", "5", WRONG),
    ("Answer: √$5$", "5", WRONG),
    ("Answer: $3$:$4$", "3:4", RIGHT),
    (r"Answer: $50$\%", "1/2", RIGHT),
    ("Answer: $x$ = $5$", "5", RIGHT),
    ("Answer: $5$, where $x=2$", "5", RIGHT),
    ("Answer: $5$: $2+3 = 5$", "5", RIGHT),
    ("Answer: $5$ - as shown", "5", RIGHT),
    ("Answer: five ($5$)", "5", RIGHT),
    ("Answer: $5$ (five apples)", "5", RIGHT),
    ("Answer: -> $5$", "5", RIGHT),
    (r"Answer: $\sqrt{10}$ ≈ 3.16", r"\sqrt{10}", RIGHT),
    ("Answer: 5 million people, since", "5000000", RIGHT),
    ("Answer: 7 by symmetry", "7", RIGHT),
    ("Answer: 5, not 6", "5", RIGHT),
    ("Answer: 5 (since 2+3=5)", "5", RIGHT),
    ("Answer: 5 base pairs", "5", RIGHT),
    ("Answer: 12(twelve)", "12", RIGHT),
    ("Answer: 12(ab)", "12", WRONG),
    ("Answer: 3 PM", "3", RIGHT),
    ("Answer: 3 TV sets", "3", RIGHT),
    ("Answer: 8 my friend", "8", RIGHT),
    ("Answer: 25 cu ft", "25", RIGHT),
    ("Answer: 3 gyms, as shown", "3", RIGHT),
    (r"Answer: $25$ \%", "0.25", RIGHT),
    ("Answer: $50$ %", "0.5", RIGHT),
    ("Answer: $50$ %", "0.6", WRONG),
    ("Answer: $-50$ %", "1/2", WRONG),
    ("Answer: $50$ percent", "1/2", RIGHT),
    ("Answer: $50$ percent", "1/5", WRONG),
    ("Answer: $12.5$ percent", "1/8", RIGHT),
    ("Answer: $20$ percent of the total", "0.2", RIGHT),
    ("Answer: $x = 50$ percent", "1/2", RIGHT),
    ("Answer: $50$ percentage points", "1/2", WRONG),
]

NAMED = [  # a formula that has a value, behind "=" or a colon
    ("$f(3)$ = 10.", "10"),
    ("$AB$ = 10", "10"),
    (r"\(AB\) = 10", "10"),
    ("$AB$: $10$", "10"),
    (r"$\theta$ = 30", "30"),
    (r"$\angle ABC$ = 60 degrees", "60"),
    ("$S_{10}$ = 55", "55"),
    ("$x+y$ = 12", "12"),
    ("$x+y$ = 12", "x+y=12"),
    ("$P(A)$ = 1/2", "1/2"),
    ("$n^2$ = 49", "49"),
    ("$n^2$ = 49", "n^2=49"),
    ("$|AB|$ = 5 cm", "5"),
    (r"$\overline{AB}$ = 5", "5"),
    (r"$\text{Area}$ = 25", "25"),
    ("$V$: 5", "5"),
    ("$V$ : 5", "5"),
    ("$x$ = 5, since it is", "5"),
    ("$x$ = 5 because $k=2$", "5"),
    ("$x$ = $5$, since", "5"),
    ("$x$ = 5 or 6", "5,6"),
    (r"$x$ = 50\%", "1/2"),
    ("$x$ = 50 percent", "1/2"),
    ("$f(x)$ = $x+1$", "x+1"),
    ("$x$ = $y$ = 7", "7"),
    ("$x$ = -5", "-5"),
    ("$x$ = -$5$", "-5"),
    (r"$AB$ = 5$\sqrt{3}$", r"5\sqrt3"),
    (r"$x$ = 3 + $\sqrt{2}$", r"3+\sqrt2"),
    ("$x$ = 5, $y$ = 7", "5,7"),
    ("the solution is $x$ = $5$ and $y$ = $7$.", "5,7"),
    ("$x$ = $5$, $6$, and $7$.", "5,6,7"),
    ("$x$ = $5$ or $6$", "5,6"),
    (r"$x$ = 5 ± 2", "7,3"),
    ("$(x,y)$ = (1,2)", "(1,2)"),
    ("$(x,y)$ = $(1,2)$ and $(3,4)$", "(1,2),(3,4)"),
    ("$t$ = 2 hours and 30 minutes", "2.5"),
    ("$x$ = $5$ million", "5000000"),
    ("$m:n$ = $3:4$", "3:4"),
    (r"$\angle A$ = $60^\circ$", "60"),
    (r"$\lfloor x\rfloor$ = 7", "7"),
]


@pytest.mark.parametrize("said,truth", NAMED)
def test_the_value_of_a_named_formula(said, truth):
    assert accuracy("d", f"The answer is {said}", truth)["acc"] == RIGHT
    for other in (f"-({truth})" if "=" not in truth else "x+y=13", "3", f"{truth},1", "48/7", "z"):
        assert accuracy("d", f"The answer is {said}", other)["acc"] == WRONG, other


@pytest.mark.parametrize(
    "said,truth,right",
    [
        (r"$2\pi$ = 6.28", r"2\pi", RIGHT),  # a number is no name
        ("$3$ = 4", "4", WRONG),
        ("at least $x$ = 5", "5", WRONG),
        ("$x$ = 5 or 6", "5", WRONG),
        ("$x$ = 5 or $6$", "6", WRONG),
        ("$x$ = 5 and $y=6$", "6", WRONG),
        ("$x$ = 5, $y$ = 6", "5", WRONG),
        ("$x$ = $5$ or more", "5", WRONG),
        ("$x$ = $5$ to $6$", "5", WRONG),
        ("$x$ = between 5 and 6", "6", WRONG),
        ("$x$ : $y$", "y", WRONG),
        ("$10$, and $n$ must be odd", "10", RIGHT),
        ("$10$, and $n$ must be odd", "n", WRONG),
        ("$n = 4$, and $m$ is even", "4", RIGHT),
        ("$5$, and $6$ is not a solution", "5", RIGHT),
        ("$5$, and $6$ is not a solution", "6", WRONG),
        ("$5$, and $6$ is not a solution", "5,6", WRONG),
        (r"$60^\circ$, or $\frac{\pi}{3}$ radians", "60", RIGHT),
        (r"$180^\circ$, or $\pi$ radians", "180", RIGHT),
        (r"$180^\circ$, or $\pi$ radians", "90", WRONG),
        (r"$2\pi$, or $6.28$.", r"2\pi", RIGHT),
        (r"$2\pi$, or $6.28$.", r"\pi", WRONG),
        (r"$2\pi$, or $9.99$.", r"2\pi", WRONG),
        (r"$\sqrt{2}$, or $3.5$.", r"\sqrt{2}", WRONG),
        (r"$\frac{\sqrt{2}}{2}$, or $0.707$.", r"\frac{\sqrt2}{2}", RIGHT),
        ("$1$, and $2$ satisfy the equation.", "1,2", RIGHT),
        ("$1$, and $2$ satisfy the equation.", "1", WRONG),
        ("$x=1$, and $x=2$ satisfy it.", "1", WRONG),
        ("$x=1$, or $x=2$ otherwise.", "1", WRONG),
        ("$3$, or $5$ apples.", "3", WRONG),
        ("$3$, and $4$ cm.", "3,4", RIGHT),
        ("$10$ - $x$ is the rest", "10", WRONG),
        (r"$0$, and $\pi$ are the solutions.", r"0,\pi", RIGHT),
        (r"$0$, and $\pi$ are the solutions.", "0", WRONG),
        ("$a$, and $b$ are the roots.", "a,b", RIGHT),
        ("$a$, and $b$ are the roots.", "a", WRONG),
        ("$-i$, and $i$ is the other.", "-i", WRONG),
        (r"$\frac{1+\sqrt{5}}{2}$, or $1.618$.", r"\frac{1+\sqrt5}{2}", RIGHT),
        (r"$\ln 2$, or $0.693$.", r"\ln 2", RIGHT),
        (r"$x = 2\pi$, or $6.28$.", r"2\pi", RIGHT),
        (r"$x = 2\pi$, or $6.38$.", r"2\pi", WRONG),
        (r"$36\pi \text{ cm}^2$, or $113.1$.", r"36\pi", RIGHT),
        ("$10$, and $n$ divides 20.", "10", RIGHT),
        ("$12$, and $x_1$ must be odd", "12", RIGHT),
        ("$3$, and $x=-3$ is extraneous.", "3", RIGHT),
        ("$42$, and $n=6$ gives the maximum.", "42", RIGHT),
        (r"$\frac{\pi}{6}$, or $30$ degrees.", r"\frac{\pi}{6}", RIGHT),
        (r"$180^\circ$, or $\pi$ rad.", "180", RIGHT),
        (r"$\frac{3}{4}$, or $75\%$ of the class.", r"\frac34", RIGHT),
        (r"$\frac{3}{4}$, or $75\%$ of the class.", "75", WRONG),
        ("$3$, or $4.5$.", "3", WRONG),
        (r"$\frac12$, or $0.6$", "0.5", WRONG),
        (r"$\frac12$, or $0.5$", "0.5", RIGHT),
        ("$x=1$, or $x=2$.", "1,2", RIGHT),
        ("$x=1$, or $x=2$.", "1", WRONG),
        ("$3$, and $4$", "3,4", RIGHT),
        ("$3$, and $4$", "3", WRONG),
        ("$3$, and $4$ respectively", "3,4", RIGHT),
        ("$3$, and $4$ are the solutions", "3", WRONG),
        ("$3$, $4$, and $5$ are solutions", "3,4,5", RIGHT),
        ("$7$ - $x$ must be odd", "7", RIGHT),
        ("$7$ - $x$ must be odd", "x", WRONG),
        ("$7$ - $x$", "7-x", RIGHT),
        ("$7$ - $x$", "7", WRONG),
        ("$7$ - $5$", "7", WRONG),
    ],
)
def test_a_clause_behind_a_formula_is_no_part_of_it(said, truth, right):
    assert accuracy("d", f"The answer is {said}", truth)["acc"] == right


UNITS = "kWh rpm bpm fps dB hp ppm ha wks dl cl hl lbf"


@pytest.mark.parametrize("unit", UNITS.split())
def test_short_units_mean_nothing(unit):
    assert dapo("d", f"Answer: 5 {unit}", "5")["acc"] == RIGHT
    assert dapo("d", f"Answer: 6 {unit}", "5")["acc"] == WRONG
    assert dapo("d", f"Answer: 5 {unit}", "-5")["acc"] == WRONG


@pytest.mark.parametrize("product", ["ac", "ct", "px", "ns", "pp"])
def test_two_letters_that_may_be_variables_are_a_product(product):
    assert dapo("d", f"Answer: 4 {product}", f"4{product}")["acc"] == RIGHT
    assert dapo("d", f"Answer: 4 {product}", "4")["acc"] == WRONG


@pytest.mark.parametrize("answer,truth,right", MORE)
def test_more_boxed_answers(answer, truth, right):
    assert accuracy("data", box(answer), truth)["acc"] == right


@pytest.mark.parametrize("response,truth,right", BESIDE_A_FORMULA)
def test_what_stands_beside_a_formula_or_a_box(response, truth, right):
    grade = dapo if response.startswith("Answer") else accuracy
    assert grade("data", response, truth)["acc"] == right


@pytest.mark.parametrize(
    "response,letter",
    [
        ("Answer: B (5 A)", "B"),
        ("Answer: C (25 C)", "C"),
        ("Answer: B. Or C.", None),
        ("Answer: B. Also C.", None),
        ("Answer: B. Alternatively, C.", None),
        ("Answer: B. Or so I think.", "B"),
        ("Answer: B. Maybe it is C", None),
        ("Answer: B. Also the product A is stable.", "B"),
    ],
)
def test_a_second_letter_behind_the_stop(response, letter):
    assert answers.letter(answers.stated(response)) == letter


@pytest.mark.parametrize("run", [" ", "~", "$", ":", "* ", " $", "\n", "}", "_"])
@pytest.mark.parametrize("form", ["Answer: 5 {}!", r"\boxed{{5{} x}}", r"\boxed{{1}}{}x\boxed{{2}}", "Answer: {}"])
def test_a_long_run_of_anything_takes_no_longer_than_its_length(form, run):
    """The text is read in the reward's own process, where nothing ends what takes long."""

    def seconds(length):
        response = form.format(run * length)
        times = []
        for _ in range(5):
            answers.in_box.cache_clear()
            begun = time.thread_time()  # what else the machine does is not counted
            for grade in (accuracy, dapo):
                grade("data", response, "7")
            multiple_choice("data", response, "C")
            times.append(time.thread_time() - begun)
        return min(times)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("egsw_plugin.rewards.math.grade", lambda *given: False)
        # Eight times the length, which a search that is quadratic pays for 64 times.
        assert seconds(3600 // len(run)) < 32 * max(seconds(450 // len(run)), 2e-4)


@pytest.mark.parametrize("response,truth,right", DECIDED)
def test_what_is_decided(response, truth, right):
    assert accuracy("d", response, truth)["acc"] == right


def test_a_thought_that_the_prompt_begins_must_end():
    assert accuracy_and_format("d", r"maybe \boxed{4}", "4", think_in_prompt=True)["acc"] == WRONG
    assert accuracy_and_format("d", r"maybe</think>\boxed{4}", "4", think_in_prompt=True)["score"] == 1
    assert accuracy_and_format("d", r"maybe \boxed{4}", "4")["acc"] == RIGHT


def test_a_truth_that_cannot_be_read_is_no_silent_failure():
    """Its own text is right; of anything else there is no telling."""
    assert accuracy("d", box("18"), "<<3*6=18>>")["ungraded"] == 1
    assert accuracy("d", box("18"), "17")["ungraded"] == 0
    assert accuracy("d", box(r"\text{south}"), "north")["ungraded"] == 0


def test_functions_of_one_batch_share_their_fields():
    fields = [set(function("d", r"\boxed{A}", "A")) for function in (accuracy, dapo, multiple_choice)]
    assert fields[0] == fields[1] == fields[2] == set(accuracy_and_format("d", r"\boxed{A}", "A")) - {"format"}


GOLDS = ["#### 18", "2 * 9 = 18\n#### 18", "Answer: 18", r"\[18\]", r"\(18\)", "**18**", "$$18$$", "The answer is 18"]
GOLDS += [
    "So the answer is **18**.",
    "Ans. 18",
    "Solution: 18",
    "#### $18",
    "18;",
    "= 18",
    "18°",
    "18 (eighteen)",
    "18.0 (eighteen point zero)",
    "x = 18 (eighteen)",
    "18(eighteen)",
    "18(Eighteen)",
    "1.8e1",
]
GOLDS += [
    r"\large 18",
    r"\begin{align*}18\end{align*}",
    "\u200b18",
    "`18`",
    r"$\boxed{18}$",
    "18.0",
    r"18\text{ cm}^2",
    "$18$.",
]


@pytest.mark.parametrize("truth", GOLDS)
def test_truths_that_are_dressed(truth):
    assert accuracy("d", box("18"), truth)["acc"] == RIGHT
    assert accuracy("d", box("19"), truth)["acc"] == WRONG


@pytest.mark.parametrize(
    "truth,part", [("2(x-y)", "2"), ("x^2(y-z)", "x^2"), ("5(abc)", "5"), ("2 (x - y)", "2"), ("5(ten x)", "5")]
)
def test_a_bracket_behind_a_truths_number_is_a_factor(truth, part):
    assert accuracy("d", box(part), truth)["acc"] == WRONG
    assert accuracy("d", box(truth), truth)["acc"] == RIGHT


@pytest.mark.parametrize(
    "truth", ["18", "-3.5", r"\frac{1}{2}", "x^2+1", "(1,2)", r"\{1,2\}", "north", r"\text{Yes}", "2_3", "a*b", "x > 3"]
)
def test_truths_equal_themselves(truth):
    assert equivalent(answers.in_box(truth), answers.in_box(answers.gold(truth)))
    assert accuracy("d", box(truth), truth)["acc"] == RIGHT


DRESSES = [
    r"\boxed{%s}",
    r"$\boxed{%s}$.",
    r"\boxed{%s\,}",
    r"\boxed{\ %s~}",
    r"\boxed{%s\text{ cm}}",
    r"\boxed{%s~\mathrm{m}}",
    r"\boxed{\bigl(%s\bigr)}",
    r"\[\boxed{%s}\]",
    "The answer is %s.",
    "The answer is **%s**.",
    "**Answer:** %s",
    "Answer: **%s**!",
    "Answer: `%s`.",
    "The answer is: $%s$.",
    "The answer is\n$$\n%s\n$$",
    "Answer:\n\\[\n%s\n\\]",
    "<think>7</think>The answer is *%s*.",
    r"\boxed{\text{%s}}",
    r"\boxed{\mathrm{%s}}",
    r"\boxed{\mathbf{%s}}",
    r"\boxed{\displaystyle %s}",
    r"\boxed{\textcolor{blue}{%s}}",
    r"\boxed{\underline{%s}}",
    r"\boxed{\left(%s\right)}",
    r"\boxed{\Bigl( %s \Bigr)}",
    r"\boxed{x = %s}",
    r"\boxed{= %s}",
    r"\boxed{%s.}",
    r"\boxed{%s\quad}",
    r"\boxed{%s\,\text{km/h}}",
    r"\boxed{%s\ \mathrm{m\,s^{-1}}}",
    r"\[\begin{aligned} \boxed{%s} \end{aligned}\]",
    "The answer is \\(%s\\).",
    "The answer is `%s`",
    "The answer is therefore %s.",
    "Answer: __%s__",
    "Answer: %s, as asked.",
    "Answer: “%s”",
    "Answer:\n```\n%s\n```",
    "### Answer\n\nThe answer is <b>%s</b>.",
    "Final Answer: The final answer is $%s$. I hope it is correct.",
    "So \\boxed{%s}. (As asked, in \\boxed{}.)",
]
numbers = st.integers(-99999, 99999).map(str) | st.decimals(-999, 999, places=2).map(str)


def written_otherwise(number, commas):
    """The same number with its thousands apart, zeros behind it, or as a fraction."""
    sign, size = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, _, places = size.partition(".")
    apart = f"{int(whole):,}"
    if len(whole) > 3:
        yield from (
            sign + apart.replace(",", mark) + (places and f".{places}") for mark in ("{,}", r"\,", *","[:commas])
        )
    yield f"{number}0" if places else f"{number}.0"
    yield rf"{sign}\frac{{{int(whole + places)}}}{{{10 ** len(places)}}}" if places else f"{sign}{int(whole) * 2}/2"


@settings(deadline=None, max_examples=100, phases=[Phase.generate])
@given(numbers, st.sampled_from(DRESSES), st.data())
def test_dressing_a_number_changes_nothing_and_changing_a_digit_does(number, dress, data):
    assert accuracy("d", dress % number, number)["acc"] == RIGHT
    for other in written_otherwise(number, commas="(" not in dress):  # (1,000) is a pair
        assert accuracy("d", dress % other, number)["acc"] == RIGHT, other
    place = data.draw(st.sampled_from([i for i, digit in enumerate(number) if digit.isdigit()]))
    digit = data.draw(st.sampled_from([one for one in "0123456789" if one != number[place]]))
    changed = number[:place] + digit + number[place + 1 :]
    if float(changed) != float(number):
        assert accuracy("d", dress % changed, number)["acc"] == WRONG


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="*_`!.$\\[](){}answeris:ABCDE 12\n#", max_size=60))
def test_any_text_is_read(text):
    answers.letter(text), answers.gold(text), answers.unmarked(text), answers.spaced(text)
    statement = answers.stated("Answer:" + text)
    assert statement is None or isinstance(answers.as_latex(statement), str)
