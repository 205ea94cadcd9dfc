r"""The reward function for reasoning-gym's tasks, as verl calls it.

    reward.custom_reward_function.path=pkg://egsw_plugin.rewards.reasoning_gym
    reward.custom_reward_function.name=reasoning_gym

The data is what ``egsw-plugin data reasoning-gym`` writes: ``extra_info`` has the whole problem, for the library's own
graders. It returns the same fields for every sample, see `reasoning_gym`.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..errors import DataError, OptionError
from . import gym_tasks
from .grader import Pool
from .math import MAX_PRED, TIME_LIMIT, check_options
from .readings import FORMS, is_number, readings, stated_answer


def reasoning_gym(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping | None = None,
    *,
    partial: bool = False,
    time_limit: float = TIME_LIMIT,
    **passed_by_verl: Any,
) -> dict[str, Any]:
    r"""1 if reasoning-gym's grader gives the stated answer full marks, else 0.

    The answer is looked for in the form that the prompt asks for, then in the others: ``<answer>X</answer>``,
    ``\boxed{X}``, "The answer is X". It is graded as it stands and without what stands around it; the best mark counts.

    Args:
        data_source: "reasoning_gym/" and the task's name.
        solution_str: The response; of what follows ``</think>``, the last 8192 characters are read.
        ground_truth: Not used: the answer is in the entry.
        extra_info: ``entry`` and ``options`` are the problem and its task's configuration, ``form`` is how the prompt
            wants the answer to be stated ("" for no matter how).
        partial: Make ``score`` the grader's own mark, 0 to 1; some graders give some for a near miss, or for trying.
        time_limit: Seconds that grading may take; later the answer counts as wrong.

    Returns:
        ``score``; ``acc``, 1 for full marks; ``format``, 1 if an answer is stated in the form asked for; ``ungraded``,
        1 if grading ran late or died; ``pred``, the answer as it was read; ``data_source``.

    Raises:
        DataError: The record is not of this kind.
        OptionError: An option is unknown or out of range.

    >>> entry = gym_tasks.encode({"question": "4 + 3?", "answer": "7", "metadata": {}})
    >>> info = {"entry": entry, "options": "{}", "form": "stated"}
    >>> reasoning_gym("reasoning_gym/chain_sum", "4 + 3 is 7. The answer is 4 + 3 = 7.", "7", info)
    {'score': 1.0, 'acc': 1.0, 'format': 1.0, 'ungraded': 0.0, 'pred': '7', 'data_source': 'reasoning_gym/chain_sum'}
    """
    check_options(passed_by_verl, reasoning_gym, time_limit=time_limit)
    if not isinstance(partial, bool):
        raise OptionError("reward.custom_reward_function.reward_kwargs.partial", partial, "use true or false")
    name, options, entry, form = _record(data_source, extra_info)
    truth = _truth(data_source, entry)
    response = solution_str if isinstance(solution_str, str) else ""
    lines = truth is None or "\n" in truth
    stated = {kind: stated_answer(response, kind, lines) for kind in (form, "tags", "boxed", "stated") if kind}
    given = next((kind for kind, statement in stated.items() if statement is not None), None)
    statement = (stated[given] if given else None) or ""
    mark, pred = 0.0, ""
    if statement.strip():
        read = readings(statement, number=truth is not None and is_number(truth))
        pred = read[-1]
        if gym_tasks.is_simple(name):
            mark = gym_tasks.value(name, options, entry, read)
        else:
            mark = _pool.run(gym_tasks.value_within, name, options, entry, read, seconds=float(time_limit))
    acc = float(mark == 1.0)
    return {
        "score": (mark or 0.0) if partial else acc,
        "acc": acc,
        "format": float(bool(statement.strip()) and form in ("", given)),
        "ungraded": float(mark is None),
        "pred": pred[:MAX_PRED],
        "data_source": str(data_source),
    }


def _record(data_source: Any, extra_info: Any) -> tuple[str, str, str, str]:
    """Task, options, entry and form."""
    source = str(data_source)
    info = extra_info if isinstance(extra_info, Mapping) else {}
    options, entry, form = info.get("options"), info.get("entry"), info.get("form")
    problem = None
    if not source.startswith(gym_tasks.SOURCE):
        problem = f"is no task of reasoning-gym (those begin with {gym_tasks.SOURCE})"
    elif not isinstance(entry, str) or not isinstance(options, str):
        problem = "has no texts extra_info.entry and extra_info.options"
    elif form not in (*FORMS, ""):
        problem = f"has extra_info.form={form!r}, which is none of {', '.join(FORMS)} or empty"
    if problem:
        where = f"data_source={source!r}, extra_info.index={info.get('index')!r}"
        raise DataError(f"{where} {problem}; write the data with `egsw-plugin data reasoning-gym`")
    return source.removeprefix(gym_tasks.SOURCE), str(options), str(entry), str(form)


@lru_cache(maxsize=1024)  # a group of responses shares its entry
def _truth(data_source: str, entry: str) -> str | None:
    """The library's answer; None for the tasks whose grader needs none."""
    name = data_source.removeprefix(gym_tasks.SOURCE)
    try:
        truth = gym_tasks.decode(entry)["answer"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"data_source={data_source!r}: extra_info.entry is no entry of a task: {error}") from error
    if name not in gym_tasks.names():
        raise DataError(f"data_source={data_source!r}: reasoning-gym has no such task")
    return None if truth is None else str(truth)


_pool = Pool(gym_tasks.prepare)
