r"""The tiny task: add two to five numbers as running sums, one addition a line; the reward reads the last line.

>>> print(worked_solution([3, 8, 9]))
3+8=11
11+9=20
#20
>>> print(worked_solution([3, 8, 9], boxed=True))
3+8=11
11+9=20
\boxed{20}
>>> compute_score("tiny", worked_solution([3, 8, 9]), "20")
{'score': 1.0, 'acc': 1.0}
"""

import random
import re
from itertools import accumulate, pairwise
from typing import Any

DATA_SOURCE = "egsw_plugin/tiny"
MIN_TERMS, MAX_TERMS, MAX_NUMBER = 2, 5, 9
MAX_RESPONSE = 64  # tokens
_ANSWER = re.compile(r"#(\d{1,9})|\\boxed\{(\d{1,9})\}", re.ASCII)


def problems(rng: random.Random, count: int) -> list[list[int]]:
    """``count`` lists of numbers to add; the number of terms is uniform."""
    return [[rng.randint(1, MAX_NUMBER) for _ in range(rng.randint(MIN_TERMS, MAX_TERMS))] for _ in range(count)]


def question(numbers: list[int]) -> str:
    """What the user asks."""
    return "+".join(map(str, numbers))


def truth(numbers: list[int]) -> str:
    """What the reward compares the answer with."""
    return str(sum(numbers))


def worked_solution(numbers: list[int], boxed: bool = False) -> str:
    """A correct response: the running sums and the answer, boxed as the recipes' reward functions read it if asked."""
    sums = list(accumulate(numbers))
    steps = [f"{a}+{n}={b}" for (a, b), n in zip(pairwise(sums), numbers[1:], strict=True)]
    return "\n".join([*steps, rf"\boxed{{{sums[-1]}}}" if boxed else f"#{sums[-1]}"])


def demonstration(rng: random.Random, numbers: list[int], hurry: float, boxed: bool = False) -> str:
    """A worked solution that, before each addition, gives up with probability ``hurry`` and answers the sum so far."""
    done = 1
    while done < len(numbers) and rng.random() >= hurry:
        done += 1
    return worked_solution(numbers[:done], boxed)


def compute_score(
    data_source: Any, solution_str: Any, ground_truth: Any, extra_info: Any = None, **kwargs: Any
) -> dict[str, float]:
    """verl's reward function: 1 if the last line is the right answer after "#" or boxed, 0 for any other text."""
    lines = str(solution_str).replace("<|im_end|>", "").strip().rsplit("\n", 1)
    answer = _ANSWER.fullmatch(lines[-1])
    score = float(answer is not None and answer[1 if answer[1] else 2] == str(ground_truth))
    return {"score": score, "acc": score}
