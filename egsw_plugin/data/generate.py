"""Draws distinct problems from reasoning-gym's generators, in an interpreter of its own.

Some generators use Python's global random numbers, or take words from a set, whose order depends on the interpreter's
hash seed. So `draw` starts an interpreter with a fixed one, and seeds the global generators before each problem.
"""

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import DataError
from ..rewards import gym_tasks

_CHUNK = 100  # problems of one data set of the library; the next have another seed


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of reasoning-gym with options of its configuration; ``text`` is how the user named it."""

    name: str
    options: Mapping[str, Any]
    text: str


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question, the right answer ("" for tasks whose grader needs none), and the entry that the grader reads."""

    question: str
    answer: str
    category: str
    entry: str


def draw(tasks: list[Task], counts: list[int], seed: int) -> list[list[Problem]]:
    """``counts[i]`` problems of ``tasks[i]``; no question comes twice.

    Args:
        tasks: The tasks.
        counts: How many of each.
        seed: The same seed gives the same problems, in any process and on any day.

    Raises:
        DataError: A task has not so many different problems, or its generator fails.
    """
    request = {"tasks": [dataclasses.asdict(task) for task in tasks], "counts": counts, "seed": seed}
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONUTF8": "1"},
            preexec_fn=_left_to_the_parent,
        )
    except OSError as error:
        raise DataError(f"cannot start {sys.executable}: {error.strerror or error}") from error
    if child.returncode:
        raise DataError(f"the generators' interpreter ended with {child.returncode}; what it wrote above says why")
    reply = json.loads(child.stdout)
    if "error" in reply:
        raise DataError(reply["error"])
    return [[Problem(*problem) for problem in problems] for problems in reply["problems"]]


def _left_to_the_parent() -> None:
    """Ctrl-C is for the parent alone, which then ends the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw(tasks: list[Task], counts: list[int], seed: int) -> list[list[Problem]]:
    from tqdm import tqdm

    seen: set[str] = set()
    drawn = []
    with tqdm(total=sum(counts), desc="problems", disable=None) as bar:
        for task, count in zip(tasks, counts, strict=True):
            found: list[Problem] = []
            missed = 0
            for problem in _stream(task, seed):
                if problem is None or problem.question in seen:
                    missed += 1
                    # a problem of n equally frequent ones stays unseen for 10 n draws once in e^10 times
                    if missed > 10 * len(found) + 500:
                        raise DataError(
                            f"{task.text} has {len(found)} different problems, not {count}; ask for fewer, or make the "
                            "task larger by its options"
                        )
                    continue
                missed = 0
                seen.add(problem.question)
                found.append(problem)
                bar.update()
                if len(found) == count:
                    break
            drawn.append(found)
    return drawn


def _stream(task: Task, seed: int) -> Iterator[Problem | None]:
    """Problems without end; None for one that the generator does not have."""
    import numpy as np

    chunk = 0
    while True:
        place = f"{task.name} {json.dumps(dict(task.options), sort_keys=True)} {seed} {chunk}"
        begin = int.from_bytes(hashlib.sha256(place.encode()).digest()[:4], "big") >> 1  # numpy's seeds end at 2**32
        chunk += 1
        dataset = gym_tasks.make(task.name, task.options, _CHUNK, begin)
        for index in range(_CHUNK):
            random.seed(begin + index)
            np.random.seed(begin + index)
            try:
                entry = dataset[index]
            except IndexError:  # how a generator says that it has no more
                yield None
                continue
            except Exception as error:
                words = (str(error) or "no reason given").splitlines()[0]
                raise DataError(f"{task.text}: its generator fails: {type(error).__name__}: {words}") from error
            if task.name == "time_intervals" and entry["metadata"]["task_type"].startswith("time"):
                for end in ("start_time", "end_time"):  # of the day on which it was made; no grader reads it
                    entry["metadata"][end] = entry["metadata"][end].partition(" ")[2]
            answer = "" if entry["answer"] is None else str(entry["answer"])
            yield Problem(entry["question"], answer, dataset.category, gym_tasks.encode(entry))


def main() -> None:
    """Reads a request of `draw` from standard input and writes the reply to standard output."""
    request = json.loads(sys.stdin.read())
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # some generators print
    warnings.simplefilter("ignore")
    try:
        tasks = [Task(**task) for task in request["tasks"]]
        drawn = _draw(tasks, request["counts"], request["seed"])
        message: dict[str, Any] = {
            "problems": [[dataclasses.astuple(problem) for problem in problems] for problems in drawn]
        }
    except DataError as error:
        message = {"error": str(error)}
    with reply:
        json.dump(message, reply)


if __name__ == "__main__":
    main()
