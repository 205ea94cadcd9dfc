r"""Reward functions for mathematics and multiple choice, as verl calls them.

    reward.custom_reward_function.path=pkg://egsw_plugin.rewards.math
    reward.custom_reward_function.name=accuracy_and_format

All return the same fields for every sample: ``score`` is the reward, ``acc`` says whether the answer is right and knows
nothing of format or weights; ``pred`` (the answer as it was read, "" for none) and ``data_source`` are for the report
on verl's validation dumps.

>>> accuracy("any/data", r"So it is \boxed{\frac{1}{2}}.", "0.5")
{'score': 1.0, 'acc': 1.0, 'ungraded': 0.0, 'pred': '\\frac{1}{2}', 'data_source': 'any/data'}
"""

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

from ..errors import DataError, OptionError
from ..options.spelling import close, question
from . import answers
from .grader import grade
from .quantities import alike, same_time

TIME_LIMIT = 10.0  # seconds
MAX_PRED = 200  # characters of an answer kept for the report
_PASSED_BY_VERL = {"reward_router_address", "reward_model_tokenizer"}


def accuracy(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping | None = None,
    *,
    time_limit: float = TIME_LIMIT,
    **passed_by_verl: Any,
) -> dict[str, Any]:
    r"""1 if the final answer equals the ground truth mathematically, else 0.

    The answer is the last ``\boxed{}``, without one what the last "answer is" or "Answer:" states; a number that is not
    marked as the answer is none.

    Args:
        data_source, extra_info: Name the record in an error.
        solution_str: The response; of what follows ``</think>``, the last 4096 characters are read.
        ground_truth: LaTeX or plain text, in a box or not, or a number.
        time_limit: Seconds a comparison may take; later it counts as wrong.

    Returns:
        ``score``, ``acc``, ``pred``, ``data_source``, and ``ungraded``: 1 if the comparison ran late or failed.

    Raises:
        DataError: The ground truth is missing, empty or of another type.
        OptionError: An option is unknown or out of range.

    >>> accuracy("any/data", "The answer is 41.", "42")["acc"]
    0.0
    """
    check_options(passed_by_verl, accuracy, time_limit=time_limit)
    truth = _truth(ground_truth, data_source, extra_info)
    text = answers.final_part(_text(solution_str))
    box = answers.boxed(text)
    verdict = _grade(box, None if box is not None else answers.stated(text), truth, time_limit)
    return {"score": verdict["acc"], **verdict, "data_source": str(data_source)}


def accuracy_and_format(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping | None = None,
    *,
    accuracy_weight: float = 0.9,
    format_weight: float = 0.1,
    think_in_prompt: bool = False,
    time_limit: float = TIME_LIMIT,
    **passed_by_verl: Any,
) -> dict[str, Any]:
    r"""``accuracy_weight`` if the answer is right, plus ``format_weight`` if the response is a thought and an answer.

    EGSW's paper (arXiv 2503.22456) rewards both; its weights are not public. The defaults are those of verl's geo3k
    reward.

    Args:
        data_source, solution_str, ground_truth, extra_info, time_limit: As in `accuracy`.
        accuracy_weight, format_weight: Finite numbers >= 0.
        think_in_prompt: The chat template ends the prompt with ``<think>``, so responses begin with the thought.

    Returns:
        As `accuracy`, and ``format``: 1 for ``<think>...</think>`` and an answer, see `answers.follows_format`.

    Raises:
        DataError, OptionError: As in `accuracy`.

    >>> reward = accuracy_and_format("any/data", r"<think>6*7</think>\boxed{41}", "42")
    >>> reward["score"], reward["acc"], reward["format"]
    (0.1, 0.0, 1.0)
    """
    weights = {"accuracy_weight": accuracy_weight, "format_weight": format_weight}
    check_options(passed_by_verl, accuracy_and_format, time_limit=time_limit, **weights)
    thought = "<think>" if think_in_prompt else ""
    response = thought + _text(solution_str)
    verdict = accuracy(data_source, response, ground_truth, extra_info, time_limit=time_limit)
    form = float(answers.follows_format(_text(solution_str), think_in_prompt))
    return {**verdict, "score": accuracy_weight * verdict["acc"] + format_weight * form, "format": form}


def dapo(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping | None = None,
    *,
    time_limit: float = TIME_LIMIT,
    **passed_by_verl: Any,
) -> dict[str, Any]:
    r"""+1 if the final answer equals the ground truth, else -1: DAPO's score (arXiv 2503.14476).

    The answer is what the last "Answer:" states, as DAPO-Math-17k's prompt asks for; without one, the last
    ``\boxed{}``. The penalty on overlong responses is that of verl's reward manager ``dapo``, see ``docs/rewards.md``.

    Args:
        data_source, solution_str, ground_truth, extra_info, time_limit: As in `accuracy`.

    Returns:
        As `accuracy`; ``acc`` is 0 or 1.

    Raises:
        DataError, OptionError: As in `accuracy`.

    >>> reward = dapo("math_dapo", "6*7 = 42\nAnswer: 41", "42")
    >>> reward["score"], reward["acc"]
    (-1.0, 0.0)
    """
    check_options(passed_by_verl, dapo, time_limit=time_limit)
    truth = _truth(ground_truth, data_source, extra_info)
    text = answers.final_part(_text(solution_str))
    verdict = _grade(answers.boxed(text), answers.stated(text, colon=True), truth, time_limit)
    return {"score": 2 * verdict["acc"] - 1, **verdict, "data_source": str(data_source)}


def multiple_choice(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping | None = None,
    **passed_by_verl: Any,
) -> dict[str, Any]:
    r"""1 if the final answer is the right letter of A to D, else 0 (GPQA).

    The letter is in the last ``\boxed{}``, without one in what the last "answer is" or "Answer:" states. Two letters
    are no answer.

    Args:
        data_source, extra_info: Name the record in an error.
        solution_str: The response, read as in `accuracy`.
        ground_truth: The letter.

    Returns:
        ``score``, ``acc``, ``pred``, ``data_source``, and ``ungraded``, which is 0.

    Raises:
        DataError: The ground truth is no letter of A to D.
        OptionError: An option is unknown.

    >>> multiple_choice("gpqa", "Answer: (C) 10 eV", "C")
    {'score': 1.0, 'acc': 1.0, 'ungraded': 0.0, 'pred': 'C', 'data_source': 'gpqa'}
    """
    check_options(passed_by_verl, multiple_choice)
    truth = ground_truth.strip(" ().").upper() if isinstance(ground_truth, str) else ""
    if truth not in ("A", "B", "C", "D"):
        raise _broken(f"ground_truth={ground_truth!r} is no letter of A to D", data_source, extra_info)
    text = answers.final_part(_text(solution_str))
    box = answers.boxed(text)
    letter = answers.letter(answers.stated(text) if box is None else box)
    acc = float(letter == truth)
    return {"score": acc, "acc": acc, "ungraded": 0.0, "pred": letter or "", "data_source": str(data_source)}


def _grade(box: str | None, statement: str | None, truth: str, time_limit: float) -> dict[str, Any]:
    """acc, ungraded and pred; the statement goes first where there is one."""
    if statement is not None:
        answer = answers.as_latex(statement)
    elif box:
        answer = answers.in_box(box)
    else:
        return {"acc": 0.0, "ungraded": 0.0, "pred": ""}
    pred = answers.shown(answer)
    answer, truth = alike(answer, truth)
    same = True if _same_words(pred, answers.shown(truth)) else same_time(answer, truth)
    if same is not None:
        verdict: bool | None = same
    elif answers.several(answers.shown(truth)):  # a truth of numbers side by side is a list, and so is its answer
        verdict = grade(answers.listed(answer), answers.listed(truth), float(time_limit))
    else:
        verdict = False if answers.several(pred) else grade(answer, truth, float(time_limit))
    return {"acc": float(verdict is True), "ungraded": float(verdict is None), "pred": pred[:MAX_PRED]}


_WORDS = re.compile(r"(?:\\text\s*\{)?\s*([A-Za-z]{4}[A-Za-z0-9 ]*?|yes|no|Yes|No|YES|NO)\s*\}?")


def _same_words(answer: str, truth: str) -> bool:
    """Whether both are the same words, whatever their case; short ones may be products of variables."""
    if not (answer[:1].isalpha() or answer[:5] == "\\text"):
        return False
    words = [_WORDS.fullmatch(text) for text in (answer, truth)]
    return all(words) and len({found[1].casefold() for found in words if found}) == 1


def _text(response: Any) -> str:
    return response if isinstance(response, str) else ""


def _truth(ground_truth: Any, data_source: str, extra_info: Mapping | None) -> str:
    """The ground truth as a box; a record without one would be a wrong answer for ever, so it is refused."""
    number = isinstance(ground_truth, numbers.Real) and not isinstance(ground_truth, bool)
    text = str(ground_truth).strip() if isinstance(ground_truth, str) or number else ""
    box = answers.boxed(text)
    text = answers.gold(text) if box is None else box
    if not text.strip("$ .") or (number and not math.isfinite(ground_truth)):
        raise _broken(f"ground_truth={ground_truth!r} is no answer", data_source, extra_info)
    return answers.in_box(text)


def _broken(problem: str, data_source: str, extra_info: Mapping | None) -> DataError:
    index = extra_info.get("index") if isinstance(extra_info, Mapping) else None
    return DataError(f"data_source={data_source!r}, extra_info.index={index!r}: {problem}; correct the data set")


def check_options(passed_by_verl: Mapping, function: Any, **values: Any) -> None:
    """Refuses what is no option of a reward function, and values that are no number >= 0; a time limit is above 0.

    Args:
        passed_by_verl: The keyword arguments that the function has no name for.
        function: The reward function.
        values: Of its options that are numbers.

    Raises:
        OptionError: Names it.
    """
    known = sorted(function.__kwdefaults__ or ())
    for name in passed_by_verl.keys() - _PASSED_BY_VERL:
        near = close(name, known)
        fix = question(near) if near else f"the options are {', '.join(known) or 'none'}"
        raise OptionError(f"reward.custom_reward_function.reward_kwargs.{name}", passed_by_verl[name], fix)
    for name, value in values.items():
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < 0 or (name == "time_limit" and value == 0):
            fix = "use a finite number > 0" if name == "time_limit" else "use a finite number >= 0"
            raise OptionError(f"reward.custom_reward_function.reward_kwargs.{name}", value, fix)
