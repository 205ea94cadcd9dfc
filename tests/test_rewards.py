r"""Reward functions: verdicts against what a person reads, and hostile text where verl calls them.

A wrong verdict teaches a model the wrong thing and shows nowhere; a reward function that hangs or raises costs a whole
run. Maps to egsw_plugin/rewards. `CASES` hold what a reader would say; where the library differs they are in
`KNOWN_LIMITS`. Not exercised: a full training run, and machines where the kernel's memory killer is at work.
"""

import asyncio
import contextlib
import multiprocessing
import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grading_faults
import numpy as np
import psutil
import pytest
import torch
from hydra import compose, initialize_config_module
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager

from egsw_plugin.errors import DataError, GraderError, OptionError
from egsw_plugin.rewards import answers, equivalence, grader, limits
from egsw_plugin.rewards.math import accuracy, accuracy_and_format, dapo, multiple_choice

ROOT = Path(__file__).parents[1]
RIGHT, WRONG = True, False
PATIENCE = 60  # seconds: none of this takes a tenth of it, on a machine that does nothing else

CASES = [
    # integers, and where the answer is
    (r"\boxed{42}", "42", RIGHT),
    (r"So it is $\boxed{42}$.", "42", RIGHT),
    (r"$$\boxed{42.}$$", "42", RIGHT),
    (r"\boxed{42}", "43", WRONG),
    (r"\boxed{042}", "42", RIGHT),
    (r"\boxed{100000000000000000001}", "100000000000000000000", WRONG),
    (r"\fbox{5}", "5", RIGHT),
    (r"\boxed {5}", "5", RIGHT),
    (r"\boxed{5}", r"\boxed{5}", RIGHT),
    (r"\boxed{5}", "$5$", RIGHT),
    (r"\boxed{5}", 5, RIGHT),
    (r"\boxed{5}", np.int64(5), RIGHT),
    (r"\boxed{0.5}", 0.5, RIGHT),
    ("", "5", WRONG),
    ("   \n", "5", WRONG),
    (r"\boxed{}", "5", WRONG),
    ("5", "5", WRONG),  # nothing says that this is the answer
    ("I'd answer that in 2 steps", "2", WRONG),
    # negative numbers
    (r"\boxed{-7}", "-7", RIGHT),
    (r"\boxed{−7}", "-7", RIGHT),  # the Unicode minus
    (r"\boxed{7}", "-7", WRONG),
    (r"\boxed{-7}", "7", WRONG),
    (r"\boxed{0}", "-0", RIGHT),
    (r"\boxed{3-4}", "-1", RIGHT),
    # fractions and decimals
    (r"\boxed{\frac{2}{4}}", r"\frac{1}{2}", RIGHT),
    (r"\boxed{\dfrac{1}{2}}", r"\frac12", RIGHT),
    (r"\boxed{\tfrac12}", "1/2", RIGHT),
    (r"\boxed{1\frac{1}{2}}", r"\frac32", RIGHT),
    (r"\boxed{-\frac{3}{4}}", "-0.75", RIGHT),
    (r"\boxed{\frac{-3}{4}}", "-3/4", RIGHT),
    (r"\boxed{\frac{3}{-4}}", "-3/4", RIGHT),
    (r"\boxed{\frac{4}{3}}", r"\frac{3}{4}", WRONG),
    (r"\boxed{.5}", "0.5", RIGHT),
    (r"\boxed{0.50}", "0.5", RIGHT),
    (r"\boxed{3.0}", "3", RIGHT),
    (r"\boxed{1.0000001}", "1", WRONG),
    (r"\boxed{2.999999}", "3", WRONG),
    (r"\boxed{\frac{1}{3}}", "0.33", WRONG),
    (r"\boxed{0.333}", r"\frac13", WRONG),
    (r"\boxed{\frac{0}{5}}", "0", RIGHT),
    (r"\boxed{\frac{1}{0}}", "0", WRONG),
    (r"\boxed{1.2\times10^{3}}", "1200", RIGHT),
    # per cent
    (r"\boxed{50\%}", "0.5", RIGHT),
    (r"\boxed{50\%}", r"50\%", RIGHT),
    (r"\boxed{50\%}", "50", RIGHT),  # "what percentage": the unit is in the question
    (r"\boxed{12.5\%}", r"\frac18", RIGHT),
    (r"\boxed{50 \text{ percent}}", r"50\%", RIGHT),
    (r"\boxed{5\%}", r"50\%", WRONG),
    # thousands
    (r"\boxed{1,000}", "1000", RIGHT),
    (r"\boxed{1,234,567}", "1234567", RIGHT),
    (r"\boxed{10{,}000}", "10000", RIGHT),
    (r"\boxed{1\,000\,000}", "1000000", RIGHT),
    (r"\boxed{1\,000}", "0", WRONG),
    (r"\boxed{1000}", "1{,}000", RIGHT),
    (r"\boxed{1.000}", "1000", WRONG),
    # units
    (r"\boxed{5 \text{ cm}^2}", "5", RIGHT),
    (r"\boxed{5\,\mathrm{m/s}}", "5", RIGHT),
    (r"\boxed{5}", r"5\text{ cm}", RIGHT),
    (r"\boxed{6 \text{ cm}}", r"5\text{ cm}", WRONG),
    (r"\boxed{34 \text{ people}}", "34", RIGHT),
    (r"\boxed{90^\circ}", "90", RIGHT),
    (r"\boxed{90}", r"90^{\circ}", RIGHT),
    (r"\boxed{\$5.00}", "5", RIGHT),
    (r"\boxed{5 \text{ dollars}}", r"\$5", RIGHT),
    # roots, powers, pi
    (r"\boxed{\sqrt{12}}", r"2\sqrt{3}", RIGHT),
    (r"\boxed{\sqrt2}", r"\sqrt{2}", RIGHT),
    (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{\sqrt{2}}{2}", RIGHT),
    (r"\boxed{\sqrt[3]{8}}", "2", RIGHT),
    (r"\boxed{2\sqrt{3}}", "2", WRONG),
    (r"\boxed{2^{10}}", "1024", RIGHT),
    (r"\boxed{2^{-1}}", "0.5", RIGHT),
    (r"\boxed{\pi/2}", r"\frac{\pi}{2}", RIGHT),
    (r"\boxed{6.28}", r"2\pi", WRONG),
    (r"\boxed{\frac{22}{7}}", r"\pi", WRONG),
    (r"\boxed{10!}", "3628800", RIGHT),
    (r"\boxed{\binom{5}{2}}", "10", RIGHT),
    (r"\boxed{\log_2 8}", "3", RIGHT),
    # expressions and equations
    (r"\boxed{x^2+2x+1}", "(x+1)^2", RIGHT),
    (r"\boxed{(x-1)(x+1)}", "x^2-1", RIGHT),
    (r"\boxed{x^2+1}", "x^2-1", WRONG),
    (r"\boxed{y+1}", "x+1", WRONG),
    (r"\boxed{|x|}", "x", WRONG),
    (r"\boxed{\frac{x}{y}}", "x/y", RIGHT),
    (r"\boxed{x=3}", "3", RIGHT),
    (r"\boxed{3}", "x=3", RIGHT),
    (r"\boxed{x=3}", "4", WRONG),
    (r"\boxed{2x+1=y}", "y=2x+1", RIGHT),
    (r"\boxed{y=2x}", "y=2x+1", WRONG),
    (r"\boxed{x=2, y=3}", "x=2,y=3", RIGHT),
    (r"\boxed{3-4i}", "3+4i", WRONG),
    (r"\boxed{4i+3}", "3+4i", RIGHT),
    # sets, points, intervals, inequalities
    (r"\boxed{\{1,2\}}", r"\{2,1\}", RIGHT),
    (r"\boxed{1, 2}", "2, 1", RIGHT),
    (r"\boxed{1 \text{ and } 2}", "1, 2", RIGHT),
    (r"\boxed{\{1,2,3\}}", r"\{1,2\}", WRONG),
    (r"\boxed{1,2,3,4}", "3", WRONG),  # a list of guesses
    (r"\boxed{\pm 2}", "2,-2", RIGHT),
    (r"\boxed{2}", r"\pm 2", WRONG),
    (r"\boxed{(1,2)}", "(1,2)", RIGHT),
    (r"\boxed{(1,2)}", "(2,1)", WRONG),
    (r"\boxed{\left(3,\frac{\pi}{2}\right)}", r"(3,\pi/2)", RIGHT),
    (r"\boxed{[0,1)}", "[0,1)", RIGHT),
    (r"\boxed{[0,1]}", "[0,1)", WRONG),
    (r"\boxed{(1,\infty)\cup(-\infty,0)}", r"(-\infty,0)\cup(1,\infty)", RIGHT),
    (r"\boxed{x \in [0,1]}", "[0,1]", RIGHT),
    (r"\boxed{2<x}", "x>2", RIGHT),
    (r"\boxed{x \ge 2}", "x>2", WRONG),
    (r"\boxed{\emptyset}", r"\emptyset", RIGHT),
    (r"\boxed{-\infty}", r"\infty", WRONG),
    # matrices
    (r"\boxed{\begin{pmatrix}1&2\\3&4\end{pmatrix}}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", RIGHT),
    (r"\boxed{\begin{pmatrix}1&2\\3&5\end{pmatrix}}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", WRONG),
    (r"\boxed{\begin{pmatrix}\frac12\\0\end{pmatrix}}", r"\begin{pmatrix}0.5\\0\end{pmatrix}", RIGHT),
    # text
    (r"\boxed{\text{Evelyn}}", "Evelyn", RIGHT),
    (r"\boxed{Evelyn}", r"\text{Evelyn}", RIGHT),
    (r"\boxed{\text{Carla}}", r"\text{Evelyn}", WRONG),
    (r"\boxed{\text{no}}", r"\text{yes}", WRONG),
    (r"\boxed{\text{(C)}}", "C", RIGHT),
    (r"\boxed{three}", "3", WRONG),
    # several boxes, nested ones, unfinished ones
    (r"\boxed{1}, then \boxed{2}", "2", RIGHT),
    (r"\boxed{1}, then \boxed{2}", "1", WRONG),
    (r"\boxed{1} $\boxed{2}$", "1,2", WRONG),
    (r"$\boxed{1}$ and $\boxed{2}$", "1,2", RIGHT),
    (r"\boxed{1} or \boxed{2}", "1", WRONG),
    (r"\boxed{3} no: \boxed{\text{none}}", "3", WRONG),
    (r"\boxed{\boxed{5}}", "5", RIGHT),
    (r"\boxed{x=\boxed{5}}", "5", RIGHT),
    (r"\boxed{5}, which I check: \boxed{", "5", WRONG),
    (r"\boxed{5", "5", WRONG),
    (r"\boxed{\frac{1}{2", "1/2", WRONG),
    (r"\boxed{\frac{1}}", "1", WRONG),
    # stated without a box
    ("The answer is 42.", "42", RIGHT),
    ("The answer is 43, not 42", "43", RIGHT),
    ("The answer is 43, not 42", "42", WRONG),
    ("The answer is 42 because 6*7=42.", "42", RIGHT),
    ("The answer is 12. I checked it.", "12", RIGHT),
    ("The answer is 7. No, the answer is 8.", "8", RIGHT),
    ("The answer is 7. No, the answer is 8.", "7", WRONG),
    (r"The final answer is: $\frac{1}{2}$.", "1/2", RIGHT),
    ("**Answer:** 5", "5", RIGHT),
    ("Answer:\n34", "34", RIGHT),
    ("Answer: 34 people", "34", RIGHT),
    ("Answer: 1,000", "1000", RIGHT),
    ("Answer: (1, 2)", "(1,2)", RIGHT),
    ("Answer: x = 5", "5", RIGHT),
    ("Answer: 50%", "1/2", RIGHT),
    (r"Answer: \(\frac{3}{4}\)", "0.75", RIGHT),
    (r"Answer: 2\sqrt{3}", r"\sqrt{12}", RIGHT),
    (r"Answer: 2\sqrt{3}", "2", WRONG),
    ("Answer: 5 or 6", "5", WRONG),
    ("Answer: $5$ or $6$", "5", WRONG),
    (r"\boxed{3}. Or rather, the answer is 4", "3", RIGHT),  # a box is what was asked for
    # thoughts
    (r"<think>\boxed{3}</think>\boxed{4}", "4", RIGHT),
    (r"<think>\boxed{4}</think>I do not know", "4", WRONG),
    # numbers side by side: a factor or no answer, never a sum
    (r"\boxed{5(7)}", "35", RIGHT),
    (r"\boxed{5(7)}", "12", WRONG),
    (r"\boxed{(5)(7)}", "35", RIGHT),
    (r"\boxed{(5)(7)}", "12", WRONG),
    (r"\boxed{5[7]}", "12", WRONG),
    (r"\boxed{5\left(7\right)}", "12", WRONG),
    (r"\boxed{5\;7}", "12", WRONG),
    (r"\boxed{4 2}", "6", WRONG),
    (r"\boxed{4 2}", "42", WRONG),
    (r"\boxed{1 1 1 1}", "4", WRONG),
    ("Answer: 40 2", "42", WRONG),
    ("Answer: $40 2$", "42", WRONG),
    (r"\boxed{2\frac{3}{4}}", "2.75", RIGHT),
    (r"\boxed{f(2)=5}", "5", RIGHT),
    (r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", RIGHT),
    # numbers said to be equal
    (r"\boxed{1=2=3=4=5}", "5", WRONG),
    (r"\boxed{x=1=2=3}", "3", WRONG),
    (r"\boxed{x=y=3}", "3", RIGHT),
    (r"\boxed{\frac{1}{2}=0.5}", "0.5", RIGHT),
    # length
    ("step " * 200_000 + r"\boxed{7}", "7", RIGHT),
    (r"\boxed{7}" + "x" * 1_000_000, "7", WRONG),  # nobody ends an answer with a megabyte
    (r"\boxed{" + "1+" * 20 + "1}", "21", RIGHT),
    (r"\boxed{" + "(" * 8 + "1" + ")" * 8 + "}", "1", RIGHT),
]

# What a person would say otherwise, with what is given: a change here is news from math-verify.
KNOWN_LIMITS = [
    (r"\boxed{1,2,3,\ldots}", "1,2,3", RIGHT),
    (r"\boxed{x=3, y=4}", "(3,4)", RIGHT),  # names are dropped, and a list is compared with a tuple
    (r"\boxed{(2,1)}", "x=1,y=2", RIGHT),  # and a list has no order
    (r"\boxed{1+1=3}", "3", RIGHT),  # of an equation, the right side counts
    (r"\boxed 5", "5", WRONG),  # a box without braces
    (r"\boxed{2+3\cdot 4}", "14", RIGHT),  # nothing asks for the value to be worked out
    (r"\boxed{e^{i\pi}}", "-1", WRONG),  # i is a variable beside pi
    (r"\boxed{leynEv}", "Evelyn", RIGHT),  # words outside \text are products of letters
    (r"\boxed{2.9999999}", "3.0", RIGHT),  # six decimals decide where one of both has a point
    (r"\boxed{10\%}", "10", RIGHT),  # so that "what percentage" may be answered either way
]

SLOW = r"\boxed{9^{9^{9^{9}}}}"
HOSTILE = {
    "tower in Python": "Answer: 9**9**9**9",
    "square roots": r"\boxed{" + r"\sqrt{" * 500 + "1" + "}" * 500 + "}",
    "boxes": r"\boxed{" * 100_000,
    "closed boxes": r"\boxed{" * 400 + "1" + "}" * 400,
    "braces": "{" * 1_000_000,
    "many boxes": r"\boxed{1} and " * 300,
    "megabyte": "x" * 5_000_000,
    "megabyte in a box": r"\boxed{" + "1+" * 1_000_000 + "1}",
    "NUL": "\\boxed{4\x002}",
    "surrogate": "\\boxed{\ud800}",
    "surrogate stated": "Answer: \udfff 5",
    "digits": r"\boxed{" + "9" * 4000 + "}",
    "unfinished": r"\boxed{\begin{pmatrix}1&2}",
    "backslashes": "\\" * 4096,
    "backslashes in a box": r"\boxed{" + "\\" * 101 + "}",
    "markers": "answer:" * 600,
    "dollars": "answer: " + "$" * 4000,
    "formulas": "answer: " + "$1$ and " * 300,
    "tags": "<think>" * 100_000,
    "closing tags": "</think>" * 100_000,
    "code": "Answer: __import__('os').abort()",
    "emoji": r"\boxed{" + "🙂" * 500 + "}",
    "None": None,
}
FUNCTIONS = [accuracy, accuracy_and_format, dapo, multiple_choice]


def ground_truth(function):
    return "A" if function is multiple_choice else "42"


def workers(parent=None):
    found = psutil.Process(parent).children(recursive=True)
    return [child for child in found if "spawn_main" in " ".join(child.cmdline())]


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return value


def shown(text):
    return repr(text)[-60:]


# --- verdicts


def numbers_of(result):
    """A verdict without what the report reads of it."""
    assert isinstance(result["pred"], str) and isinstance(result["data_source"], str)
    return {name: value for name, value in result.items() if name not in ("pred", "data_source")}


@pytest.mark.parametrize("response,truth,right", CASES, ids=shown)
def test_verdict(response, truth, right):
    assert numbers_of(accuracy("data", response, truth)) == {"score": right, "acc": right, "ungraded": 0.0}


@pytest.mark.parametrize("response,truth,given", KNOWN_LIMITS, ids=shown)
def test_known_limits(response, truth, given):
    assert accuracy("data", response, truth)["acc"] == given


def test_a_percent_sign_is_read_whatever_antlr_is_installed():
    assert equivalence.equivalent(r"\boxed{50\%}", r"\boxed{\frac{1}{2}}")


@pytest.mark.parametrize(
    "response,acc",
    [
        ("6*7=42\nAnswer: 42", 1),
        ("6*7=42\nAnswer: $42$", 1),
        (r"Answer: \boxed{42}", 1),
        (r"It is \boxed{42}.", 1),
        ("Answer: 41\nThe answer is 42", 0),
        ("Answer: 41\nWait.\nAnswer: 42", 1),
        ("Answer: 42\nWait.\nAnswer: 41", 0),
        (r"First \boxed{42}." + "\nAnswer: 41", 0),  # what the prompt asks for goes before a box
        ("The answer is 42", 0),  # the prompt asks for "Answer:"
        ("42", 0),
        ("", 0),
    ],
)
def test_dapo(response, acc):
    assert numbers_of(dapo("math_dapo", response, "42")) == {"score": 2 * acc - 1, "acc": acc, "ungraded": 0.0}


@pytest.mark.parametrize(
    "response,letter",
    [
        ("Answer: C", "C"),
        ("**Answer: C**", "C"),
        ("Answer: (C)", "C"),
        ("Answer: $C$", "C"),
        ("Answer: c", "C"),
        ("Answer: C) 10^-4 eV", "C"),
        ("Answer: C. Because A is too small", "C"),
        ("The correct answer is (C).", "C"),
        ("The correct answer is option C", "C"),
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{C}}", "C"),
        (r"\boxed{\textbf{(C)}}", "C"),
        (r"$\boxed{\mathrm{C}}$", "C"),
        (r"\boxed{C. 10^{-4}\text{ eV}}", "C"),
        ("Answer: A\nAnswer: B", "B"),
        (r"\boxed{A} no, \boxed{D}", "D"),
        (r"Answer: A, in a box: \boxed{B}", "B"),
        ("<think>Answer: A</think>Answer: B", "B"),
        ("Answer: A or B", None),
        ("Answer: A, B", None),
        ("Answer: A or maybe B", None),
        ("Answer: A? B? C? D?", None),
        ("Answer: A thing", None),
        (r"\boxed{A B C D}", None),
        (r"\boxed{A|B|C|D}", None),
        (r"\boxed{(A)(B)(C)(D)}", None),
        (r"\boxed{A) B) C) D)}", None),
        (r"\boxed{A \cup B}", None),
        (r"\boxed{A = B}", None),
        (r"\boxed{A then B}", None),
        (r"\boxed{A} or \boxed{B}", None),
        (r"\boxed{ABCD}", None),
        ("Answer: E", None),
        ("Answer: Carbon", None),
        ("answer: a good question", None),
        ("Answer: C's value", None),
        (r"\boxed{7}", None),
        ("C", None),
        ("", None),
    ],
)
def test_multiple_choice(response, letter):
    right = [truth for truth in "ABCD" if multiple_choice("gpqa", response, truth)["acc"]]
    assert right == ([letter] if letter else [])


@pytest.mark.parametrize("truth", ["C", "c", "(C)", " C. "])
def test_the_letter_of_the_data_set(truth):
    assert numbers_of(multiple_choice("gpqa", "Answer: C", truth)) == {"score": 1.0, "acc": 1.0, "ungraded": 0.0}


# --- format


@pytest.mark.parametrize(
    "response,follows",
    [
        ("<think>6*7</think>42", True),
        ("<think>\nline\nline\n</think>\n\n42\n", True),
        ("\n<think>6*7</think>42", True),
        ("<think>6*7</think>", False),
        ("<think>6*7</think> \n", False),
        ("<think> </think>42", False),
        ("<think></think>42", False),
        ("42<think>6*7</think>", False),
        ("Well, <think>6*7</think>42", False),
        ("<think>6*7</think>42<think>6*7</think>42", False),
        ("<think><think>6*7</think></think>42", False),
        ("<think>6*7 42", False),
        ("6*7</think>42", False),
        ("</think>6*7<think>42", False),
        ("<Think>6*7</Think>42", False),
        ("42", False),
        ("", False),
    ],
)
def test_format(response, follows):
    assert answers.follows_format(response) == follows


def test_format_where_the_prompt_ends_with_the_opening_tag():
    assert answers.follows_format("6*7</think>42", think_in_prompt=True)
    assert not answers.follows_format("<think>6*7</think>42", think_in_prompt=True)
    result = accuracy_and_format("data", r"6*7</think>\boxed{42}", "42", think_in_prompt=True)
    assert result["format"] == 1.0


@pytest.mark.parametrize(
    "response,acc,form,score",
    [
        (r"<think>6*7</think>\boxed{42}", 1.0, 1.0, 1.0),
        (r"\boxed{42}", 1.0, 0.0, 0.9),
        (r"<think>6*7</think>\boxed{41}", 0.0, 1.0, 0.1),
        (r"\boxed{41}", 0.0, 0.0, 0.0),
        (r"<think>\boxed{42}</think>So.", 0.0, 1.0, 0.1),
    ],
)
def test_accuracy_and_format_are_told_apart(response, acc, form, score):
    result = accuracy_and_format("data", response, "42")
    assert numbers_of(result) == {"score": pytest.approx(score), "acc": acc, "format": form, "ungraded": 0.0}
    weighted = accuracy_and_format("data", response, "42", accuracy_weight=2, format_weight=0.5)
    assert weighted["score"] == 2 * acc + 0.5 * form
    assert (weighted["acc"], weighted["format"]) == (acc, form)


# --- data sets and options


@pytest.mark.parametrize("truth", [None, "", "  ", "$$", r"\boxed{}", float("nan"), True, [], ["42"], {"answer": "42"}])
@pytest.mark.parametrize("function", [accuracy, accuracy_and_format, dapo])
def test_a_record_without_an_answer_is_refused(function, truth):
    with pytest.raises(DataError, match=r"data_source='set', extra_info.index=17: ground_truth=.*correct the data set"):
        function("set", r"\boxed{42}", truth, {"index": 17})


@pytest.mark.parametrize("truth", [None, "", "E", "42", 2, "AB"])
def test_a_record_without_a_letter_is_refused(truth):
    with pytest.raises(DataError, match="no letter of A to D"):
        multiple_choice("gpqa", "Answer: A", truth)


@pytest.mark.parametrize(
    "function,options,message",
    [
        (accuracy_and_format, {"fromat_weight": 0.2}, "fromat_weight=0.2: did you mean 'format_weight'"),
        (accuracy_and_format, {"format_weight": -0.1}, "format_weight=-0.1: use a finite number >= 0"),
        (accuracy_and_format, {"accuracy_weight": "1"}, "accuracy_weight='1': use a finite number"),
        (accuracy_and_format, {"accuracy_weight": float("nan")}, "accuracy_weight=nan"),
        (accuracy, {"time_limit": 0}, "time_limit=0: use a finite number > 0"),
        (accuracy, {"weight": 1}, "weight=1: the options are time_limit"),
        (multiple_choice, {"time_limit": 1}, "time_limit=1: the options are none"),
    ],
)
def test_options_that_cannot_work_are_refused(function, options, message):
    with pytest.raises(OptionError, match=message):
        function("data", "Answer: A", ground_truth(function), **options)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_verl_passes_beside_a_reward_model_is_taken(function):
    assert function("data", "", ground_truth(function), None, reward_router_address="a", reward_model_tokenizer=None)


# --- hostile text


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_gets_a_zero_and_the_same_fields(function, name):
    usual = function("data", "Answer: A", ground_truth(function))
    result = function("data", HOSTILE[name], ground_truth(function))
    assert result.keys() == usual.keys()
    assert all(type(value) is float for value in numbers_of(result).values())
    assert result["acc"] == 0.0


@pytest.mark.parametrize(
    "response",
    [SLOW, r"\boxed{99999999!}", r"\boxed{" + "(" * 2000 + "1" + ")" * 2000 + "}", r"\boxed{\prod_{k=1}^{10^{9}} k}"],
    ids=["tower", "factorial", "nesting", "product"],
)
def test_the_time_limit_holds(response, caplog):
    accuracy("data", r"\boxed{42}", "42")  # so that the start of the processes does not count
    start = time.monotonic()
    result = accuracy("data", response, "42", time_limit=1)
    assert time.monotonic() - start < PATIENCE
    assert numbers_of(result) == {"score": 0.0, "acc": 0.0, "ungraded": 1.0}
    assert "took longer than 1 s and counts as wrong" in caplog.text
    assert accuracy("data", r"\boxed{42}", "42")["acc"] == 1.0


def test_grading_processes_have_limited_memory():
    accuracy("data", r"\boxed{42}", "42")
    for worker in workers():  # one that has just started has no limit yet
        wait_for(lambda worker=worker: 0 < worker.rlimit(resource.RLIMIT_AS)[0] < 4 * limits.MEMORY)
    future = grader._pool.current().schedule(bytearray, args=(4 * limits.MEMORY,))
    with pytest.raises(MemoryError):
        future.result(timeout=PATIENCE)
    assert accuracy("data", r"\boxed{42}", "42")["acc"] == 1.0


@pytest.mark.parametrize(
    "fault,error", [(grading_faults.recurse, "RecursionError"), (grading_faults.exhaust, "MemoryError")]
)
def test_a_comparison_that_raises_counts_as_wrong(fault, error, monkeypatch, caplog):
    accuracy("data", r"\boxed{42}", "42")
    pool = grader._pool.current()
    monkeypatch.setattr(grader, "_compare", fault)
    assert numbers_of(accuracy("data", r"\boxed{42}", "42")) == {"score": 0.0, "acc": 0.0, "ungraded": 1.0}
    assert f"made the comparison fail with {error}" in caplog.text
    assert grader._pool.current() is pool


# --- threads and processes


def test_many_threads():
    def judge(number):
        return accuracy("data", rf"\boxed{{\frac{{{number}}}{{7}}}}", r"\frac{30}{7}")["acc"]

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(judge, range(100))) == [float(number == 30) for number in range(100)]
    assert len(workers()) <= grader.PROCESSES


def _judge_in_child(queue):
    queue.put([accuracy("data", rf"\boxed{{{number}}}", "3")["acc"] for number in range(5)])


def test_two_processes():
    accuracy("data", r"\boxed{42}", "42")  # so that a forked child inherits a pool that is in use
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_judge_in_child, args=(queue,)) for _ in range(2)]
    for child in children:
        child.start()
    try:
        assert [queue.get(timeout=PATIENCE) for _ in children] == [[0, 0, 0, 1, 0]] * 2
        for child in children:
            child.join(timeout=PATIENCE)
            assert child.exitcode == 0
    finally:
        for child in children:
            child.kill()


def test_idle_processes_that_are_killed_are_replaced():
    accuracy("data", r"\boxed{42}", "42")
    for worker in workers():
        worker.kill()
    assert [accuracy("data", rf"\boxed{{{number}}}", "3")["acc"] for number in range(5)] == [0, 0, 0, 1, 0]


def test_a_process_killed_at_work_is_replaced_and_the_work_done_again():
    accuracy("data", r"\boxed{42}", "42")
    results = []
    thread = threading.Thread(target=lambda: results.append(accuracy("data", SLOW, "42", time_limit=4)))
    thread.start()

    def at_work():
        return [worker for worker in workers() if worker.cpu_percent(0.1) > 20]

    wait_for(at_work)[0].kill()
    thread.join(PATIENCE)
    assert [numbers_of(result) for result in results] == [{"score": 0.0, "acc": 0.0, "ungraded": 1.0}]
    assert accuracy("data", r"\boxed{42}", "42")["acc"] == 1.0


def test_an_answer_that_kills_its_process_counts_as_wrong(monkeypatch):
    accuracy("data", r"\boxed{42}", "42")
    monkeypatch.setattr(grader, "_compare", grading_faults.kill)
    with contextlib.suppress(GraderError):  # if every time its death was seen before the news that it had begun
        result = accuracy("data", r"\boxed{42}", "42")
        assert numbers_of(result) == {"score": 0.0, "acc": 0.0, "ungraded": 1.0}
    monkeypatch.undo()
    assert accuracy("data", r"\boxed{42}", "42")["acc"] == 1.0


def test_processes_that_cannot_start_are_an_error_and_not_a_zero(monkeypatch):
    monkeypatch.setattr(grader, "_pool", grader.Pool(grading_faults.fail_to_start))
    with pytest.raises(GraderError, match="do not start"):
        accuracy("data", r"\boxed{42}", "42")


@pytest.mark.parametrize("end", ["return", "sys.exit(3)", "os._exit(4)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_process_is_left_behind(end, tmp_path):
    """However the grading process's parent ends, and although a comparison without end is running."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys, threading, time
            import psutil
            from egsw_plugin.rewards.math import accuracy

            def main():
                accuracy("data", "Answer: 42", "42")
                threading.Thread(target=accuracy, args=("data", {SLOW!r}, "42"), daemon=True,
                                 kwargs={{"time_limit": 2}}).start()
                time.sleep(0.5)
                print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
                {end}

            if __name__ == "__main__":
                main()
            """
        )
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    pids = [int(pid) for pid in run.stdout.readline().split()]
    run.stdout.close()
    assert len(pids) > grader.PROCESSES  # and multiprocessing's resource tracker
    run.wait(PATIENCE)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))


# --- as verl calls it


def configuration(*overrides):
    path = "reward.custom_reward_function.path=pkg://egsw_plugin.rewards.math"
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[path, *overrides])


def snippets():
    """Every list of overrides in the documentation."""
    page = (ROOT / "docs" / "rewards.md").read_text()
    blocks = [block for block in page.split("\n\n") if "custom_reward_function.name=" in block]
    return [[word for word in block.split() if word != "\\"] for block in blocks]


NAME = "reward.custom_reward_function.name="
KWARGS = "+reward.custom_reward_function.reward_kwargs."


@pytest.mark.parametrize("function", FUNCTIONS)
def test_verl_loads_each_function(function):
    compute_score = get_custom_reward_fn(configuration(NAME + function.__name__))
    result = compute_score(
        data_source="data", solution_str="Answer: C", ground_truth="C", extra_info={"num_turns": None}
    )
    assert result["acc"] == 1.0


def test_verl_passes_options():
    config = configuration(NAME + "accuracy_and_format", KWARGS + "format_weight=0.25", KWARGS + "think_in_prompt=true")
    compute_score = get_custom_reward_fn(config)
    result = compute_score(data_source="data", solution_str="6*7</think>Answer: 41", ground_truth="42", extra_info={})
    assert numbers_of(result) == {"score": 0.25, "acc": 0.0, "format": 1.0, "ungraded": 0.0}


def test_the_documented_overrides_load():
    assert len(snippets()) >= 2
    for overrides in snippets():
        assert get_custom_reward_fn(configuration(*overrides)) is not None


class Characters:
    """A tokenizer whose tokens are characters."""

    def decode(self, ids, skip_special_tokens):
        return "".join(map(chr, ids.tolist()))


def sample(response, truth):
    ids = torch.tensor([[ord(character) for character in response]])
    tensors = {
        "prompts": ids[:, :1],
        "responses": ids,
        "attention_mask": torch.ones(1, 1 + ids.shape[1], dtype=torch.int64),
    }
    others = {"data_source": "data", "reward_model": {"ground_truth": truth}, "extra_info": {"index": 0}}
    arrays = {name: np.array([value], dtype=object) for name, value in others.items()}
    return DataProto(batch=TensorDict(tensors, batch_size=1), non_tensor_batch=arrays)


def judged_by_verl(overrides, *samples):
    async def judge():
        manager = load_reward_manager(configuration(*overrides), Characters())
        manager.loop = asyncio.get_running_loop()
        return await asyncio.gather(*(manager.run_single(one) for one in samples))

    return asyncio.run(judge())


def test_verls_reward_loop_calls_it_in_threads():
    samples = [sample(rf"<think>?</think>\boxed{{{number}}}", "7") for number in range(20)]
    results = judged_by_verl([NAME + "accuracy_and_format"], *samples)
    for number, result in enumerate(results):
        acc = float(number == 7)
        assert result["reward_score"] == pytest.approx(0.9 * acc + 0.1)
        assert result["reward_extra_info"]["acc"] == acc


def test_verls_dapo_manager_adds_the_penalty_on_length():
    overrides = next(overrides for overrides in snippets() if NAME + "dapo" in overrides)
    lengths = [o for o in overrides if "max_resp_len" not in o and "overlong_buffer_cfg.len" not in o]
    lengths += ["+reward.reward_kwargs.max_resp_len=100", "+reward.reward_kwargs.overlong_buffer_cfg.len=50"]
    short, long = judged_by_verl(lengths, sample("Answer: 42", "42"), sample("." * 65 + "Answer: 42", "42"))
    assert short["reward_score"] == 1.0
    assert long["reward_score"] == pytest.approx(0.5)  # 75 characters are half the buffer
    assert short["reward_extra_info"]["acc"] == long["reward_extra_info"]["acc"] == 1.0
