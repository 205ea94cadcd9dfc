r"""Kinds of faults that public bug reports brought to light, each as a table of right and wrong pairs, and properties.

Dressing a number in any of the ways that models use must not change its verdict; changing a digit always must. Maps to
egsw_plugin/rewards/{answers,equivalence,math}.py. Not exercised: the grading processes (test_rewards.py).
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egsw_plugin.rewards import answers
from egsw_plugin.rewards.equivalence import equivalent
from egsw_plugin.rewards.math import accuracy, dapo, multiple_choice

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
]
DELIMITERS = [
    (r"\bigl(3,\tfrac{\pi}{2}\bigr)", r"(3,\frac{\pi}{2})", RIGHT),
    (r"\big(3,\tfrac{\pi}{3}\big)", r"(3,\frac{\pi}{2})", WRONG),
    (r"\frac12\bigl(1+\sqrt5\bigr)", r"\frac{1+\sqrt5}{2}", RIGHT),
    (r"\Bigg[0, 1\Bigg)", r"[0,1)", RIGHT),
    (r"(3,4)", r"\Bigl( 3, 4 \Bigr)", RIGHT),
    (r"\bigl|-3\bigr|", "3", RIGHT),
    (r"\bigcup", "1", WRONG),
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
    (r"\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", RIGHT),
    (r"\begin{pmatrix}1 & 2 \\ 3 & 5\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", WRONG),
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
    ("Answer: The correct option is B", None),  # a sentence, of which nobody says where its letter is
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
]


@pytest.mark.parametrize("response,letter", LETTERS)
def test_letters(response, letter):
    assert [truth for truth in "ABCD" if multiple_choice("g", response, truth)["acc"]] == ([letter] if letter else [])


GOLDS = ["#### 18", "2 * 9 = 18\n#### 18", "Answer: 18", r"\[18\]", r"\(18\)", "**18**", "$$18$$", "The answer is 18"]


@pytest.mark.parametrize("truth", GOLDS)
def test_truths_that_are_dressed(truth):
    assert accuracy("d", box("18"), truth)["acc"] == RIGHT
    assert accuracy("d", box("19"), truth)["acc"] == WRONG


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
]
numbers = st.integers(-99999, 99999).map(str) | st.decimals(-999, 999, places=2).map(str)


@settings(deadline=None, max_examples=300)
@given(numbers, st.sampled_from(DRESSES), st.data())
def test_dressing_a_number_changes_nothing_and_changing_a_digit_does(number, dress, data):
    assert accuracy("d", dress % number, number)["acc"] == RIGHT
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
