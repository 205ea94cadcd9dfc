r"""The task of the study: put operators between the given digits, in their order, so that the last digit of the result
is the target. Every step of working is written down, and a line that misses the target may be followed by another try.

The result after each operator is kept modulo 10 and there is no precedence, so a try is a chain of small steps:

>>> question([4, 7, 2, 9])
'4 7 2=9'
>>> found = "4+7=1-2=9?9"  # after the "?" the target again: is it reached?
>>> compute_score("", found, "4 7 2=9")
{'score': 1.0, 'acc': 1.0}
>>> compute_score("", "4*7=8*2=6?9\n" + found, "4 7 2=9")["score"]  # the last line counts
1.0
>>> compute_score("", "4+7=9-2=9?9", "4 7 2=9")["score"]  # a step is wrong
0.0
"""

import random
import re
from typing import Any

DATA_SOURCE = "egsw_plugin/target"
MIN_DIGITS, MAX_DIGITS = 3, 4
MAX_RESPONSE = 96  # tokens: six tries at the longest problems
OPERATORS = "+-*"
_TRY = re.compile(r"\d(?:[-+*]\d=\d)+\?\d", re.ASCII)


def problems(rng: random.Random, count: int) -> list[list[int]]:
    """``count`` lists of digits and, last, a target that some choice of operators reaches."""
    made = []
    for _ in range(count):
        digits = [rng.randint(1, 9) for _ in range(rng.randint(MIN_DIGITS, MAX_DIGITS))]
        made.append([*digits, _attempt(rng, digits)[1]])
    return made


def question(problem: list[int]) -> str:
    """What the user asks."""
    *digits, target = problem
    return f"{' '.join(map(str, digits))}={target}"


truth = question  # the reward needs the whole problem, since many answers are right


def demonstration(rng: random.Random, problem: list[int], hurry: float, boxed: bool = False) -> str:
    """Tries with random operators until one reaches the target, or until one gives up, with probability ``hurry``.

    Raises:
        ValueError: ``boxed``; the answer is a line of working, which no box holds.
    """
    if boxed:
        raise ValueError("the target task has no boxed form; choose the task addition")
    *digits, target = problem
    tries = []
    while True:
        line, result = _attempt(rng, digits)
        tries.append(f"{line}?{target}")
        text = "\n".join(tries)
        # Another try adds a line break, the "?", the target and, in the end, the token that ends the response.
        if result == target or rng.random() < hurry or len(text) + len(line) + 4 > MAX_RESPONSE:
            return text


def compute_score(
    data_source: Any, solution_str: Any, ground_truth: Any, extra_info: Any = None, **kwargs: Any
) -> dict[str, float]:
    """verl's reward function: 1 if the last line is a right chain from the digits to the target, else 0."""
    line = str(solution_str).replace("<|im_end|>", "").strip().rsplit("\n", 1)[-1]
    digits, target = str(ground_truth).split("=")
    score = float(_TRY.fullmatch(line) is not None and _is_right(line, digits.split(), target))
    return {"score": score, "acc": score}


def _attempt(rng: random.Random, digits: list[int]) -> tuple[str, int]:
    """A line of working with random operators, and its result."""
    result, line = digits[0], str(digits[0])
    for digit in digits[1:]:
        operator = rng.choice(OPERATORS)
        result = _apply(result, operator, digit)
        line += f"{operator}{digit}={result}"
    return line, result


def _apply(left: int, operator: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator] % 10


def _is_right(line: str, digits: list[str], target: str) -> bool:
    """Whether a well-formed line uses the digits, computes each step rightly and ends at the target, twice."""
    chain, restated = line.split("?")
    result, used = chain[0], [chain[0]]
    for i in range(1, len(chain), 4):
        operator, digit, _, following = tuple(chain[i : i + 4])
        if str(_apply(int(result), operator, int(digit))) != following:
            return False
        result = following
        used.append(digit)
    return used == digits and result == restated == target
