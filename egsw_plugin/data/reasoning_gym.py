"""What ``egsw-plugin data reasoning-gym`` does: problems of reasoning-gym's tasks as train.parquet and test.parquet."""

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..console import refuse
from ..errors import DataError, OptionError
from ..rewards import gym_tasks
from ..strict_yaml import read_yaml
from .examples import Examples, read_examples
from .generate import Problem, Task, draw
from .prompts import Style
from .writer import SCHEMA, data_file

NAME = "reasoning-gym"
_EXTRA = SCHEMA.field("extra_info").type
_MORE = [pa.field(name, pa.string()) for name in ("entry", "options", "form")]
# The columns of the other data sets; extra_info has what the reward function needs beside what those have.
GYM_SCHEMA = SCHEMA.set(SCHEMA.get_field_index("extra_info"), pa.field("extra_info", pa.struct([*_EXTRA, *_MORE])))


@dataclasses.dataclass(frozen=True)
class Asking:
    """How a prompt asks for the answer: its text, and the form in which the reward function then looks first."""

    style: Style
    form: str


def _after(text: str, form: str) -> Asking:
    return Asking(Style(after=f"\n{text}"), form)


# In the user's message, which every chat template has, and which leaves a template's own system message alone.
STYLES: dict[str, Asking] = {
    "brief": _after("Think briefly, then end with: The answer is X.", "stated"),
    "steps": _after("Solve it step by step. Then end with: The answer is X.", "stated"),
    "answer": _after("Reply with nothing but: The answer is X.", "stated"),
    "boxed": _after(r"Reason step by step, and put your final answer within \boxed{}.", "boxed"),
    "tags": _after("Reason step by step, then give the answer alone between <answer> and </answer>.", "tags"),
    "none": Asking(Style(), ""),
}


def run(
    texts: list[str], out: Path, size: int, test_size: int, seed: int, style: str | None, examples: Path | None = None
) -> int:
    """Writes ``out/train.parquet`` and ``out/test.parquet``; one line on standard output, or on standard error.

    Args:
        texts: Tasks, ``NAME`` or ``NAME:key=value,...``.
        out: The folder to write to.
        size, test_size: Problems to train on and held out, as equally many of each task as can be.
        seed: The same arguments give the same bytes.
        style: One of `STYLES`; None for brief, or with examples for what they show.
        examples: A file of worked examples, see `read_examples`.

    Returns:
        The exit code: 0, 1 if the data cannot be made, 2 if the arguments make no sense, 130 after Ctrl-C.
    """
    try:
        tasks = [read_task(text) for text in texts]
        if style is not None and style not in STYLES:
            raise OptionError("--prompt", style, f"use {', '.join(STYLES)}")
        shown = Examples() if examples is None else read_examples(examples, [task.name for task in tasks])
        asking = Asking(Style(), shown.form()) if examples and style is None else STYLES[style or "brief"]
        for name, number in (("--size", size), ("--test-size", test_size)):
            if number < len(tasks):
                raise OptionError(name, number, f"use at least one for each of the {len(tasks)} tasks")
    except (OptionError, ModuleNotFoundError) as error:
        return refuse("data", f"{NAME}: {error}", 2)
    print(f"{NAME}: making {size} + {test_size} problems of {', '.join(task.name for task in tasks)}", flush=True)
    try:
        line = write(tasks, out, size, test_size, seed, asking, shown)
    except (DataError, OptionError) as error:
        return refuse("data", f"{NAME}: {error}", 1)
    except KeyboardInterrupt:
        return refuse("data", f"{NAME}: interrupted, nothing written", 130)
    print(f"{NAME}: {line}", flush=True)
    return 0


def read_task(text: str) -> Task:
    """A task from what the user wrote; its options are checked.

    Raises:
        OptionError: The text is of another form, or there is no such task, option or value.

    >>> read_task("chain_sum:min_terms=2,max_terms=3").options
    {'min_terms': 2, 'max_terms': 3}
    >>> dict(read_task('basic_arithmetic:operators=["+","-"],whitespace=no_space').options)
    {'operators': ['+', '-'], 'whitespace': 'no_space'}
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in _parts(rest) if rest else []:
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key or key in options:
            raise OptionError("--tasks", text, "write NAME:key=value,key=value, each key once")
        options[key] = _value(text, value)
    gym_tasks.make(name, options)
    return Task(name, options, text)


def _parts(text: str) -> list[str]:
    """Split at the commas outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(character, 0)
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _value(task: str, text: str) -> Any:
    try:
        value = json.loads(json.dumps(read_yaml(text), default=str))  # dates as text
    except (ValueError, TypeError, RecursionError) as error:
        raise OptionError("--tasks", task, f"{text!r:.80} is no YAML value; put quotes around signs") from error
    if type(value) is int and not re.fullmatch(r"\s*[-+]?(0|[1-9]\d*)\s*", text):
        raise OptionError("--tasks", task, f"YAML reads {text!r} as {value}; write it so, or as text in quotes")
    return value


def write(
    tasks: list[Task], out: Path, size: int, test_size: int, seed: int, asking: Asking, shown: Examples | None = None
) -> str:
    """Writes both files: the same bytes for the same arguments, versions of reasoning-gym and of pyarrow.

    Returns:
        One line that says what was written.

    Raises:
        DataError: A task has too few different problems, its generator fails, or a file cannot be written.
    """
    shown = shown or Examples()
    shares = [(_share(size, len(tasks), i), _share(test_size, len(tasks), i)) for i in range(len(tasks))]
    files = {split: out / f"{split}.parquet" for split in ("train", "test")}
    # opened first, so that a folder that cannot be written to shows at once
    with data_file(files["train"]) as train_file, data_file(files["test"]) as test_file:
        # as many more as may be among the examples, and are left out
        counts = [train + test for train, test in shares]
        more = [len(shown.turns.get(task.name, ())) for task in tasks]
        drawn = draw(tasks, [count + extra for count, extra in zip(counts, more, strict=True)], seed)
        drawn = [
            [problem for problem in problems if not shown.has(task.name, problem.question)][:count]
            for task, problems, count in zip(tasks, drawn, counts, strict=True)
        ]
        shown.check_omitted([problem.question for problems in drawn for problem in problems])
        rng = random.Random(f"{NAME} {seed}")
        train: list[tuple[Task, Problem]] = []
        test: list[tuple[Task, Problem]] = []
        for task, problems, (_, held_out) in zip(tasks, drawn, shares, strict=True):
            rng.shuffle(problems)  # a generator may make one kind after the other
            test += [(task, problem) for problem in problems[:held_out]]
            train += [(task, problem) for problem in problems[held_out:]]
        for split, chosen, file in (("train", train, train_file), ("test", test, test_file)):
            rng.shuffle(chosen)
            rows = [_row(split, index, *item, asking, shown) for index, item in enumerate(chosen)]
            pq.write_table(pa.Table.from_pylist(rows, GYM_SCHEMA), file, compression="zstd")
    return f"{len(train)} rows in {files['train']}, {len(test)} in {files['test']}, no problem in both"


def _share(number: int, of: int, index: int) -> int:
    """Of ``number`` things for ``of`` takers, those for the taker ``index``."""
    return number // of + (index < number % of)


def _row(split: str, index: int, task: Task, problem: Problem, asking: Asking, shown: Examples) -> dict:
    return {
        "data_source": gym_tasks.SOURCE + task.name,
        "prompt": shown.messages(task.name, problem.question, asking.style),
        "ability": "reasoning",
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {
            "split": split,
            "index": index,
            "id": "",
            "subject": problem.category,
            "level": "",
            "entry": problem.entry,
            "options": json.dumps(task.options),
            "form": asking.form,
        },
    }
