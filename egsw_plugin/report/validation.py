"""Reads what verl writes to `trainer.validation_data_dir`: one file a step, `{step}.jsonl`, one line a response.

verl 0.9.1 writes input, output, gts, score, step, what the reward function returned (acc, pred, ...), and
uid, which is the prompt's id, the session's number and the output's number: `3f2b..._0_0`. It does not write the
data set; a reward function that returns `data_source` puts it there. A session is one response; of a session with
several outputs the last one counts, as in verl's own metrics.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .estimates import majority_success
from .metrics import finite_number, some, step_number

_NO_ANSWER = {"", "[INVALID]"}  # the second is what verl's math_dapo writes


@dataclass(frozen=True)
class Evaluation:
    """Counts of one data set at one step, each array [prompts]."""

    data_set: str
    step: int
    correct: np.ndarray
    samples: np.ndarray
    majority: np.ndarray | None  # success of the majority answer of the first `usual` responses; None without answers
    judged_by: str  # the fields that decided success

    @property
    def usual(self) -> int:
        """The number of responses that most prompts have."""
        return _usual(self.samples)


def _usual(samples: np.ndarray) -> int:
    return int(np.bincount(samples).argmax())


@dataclass
class Dumps:
    """Validations ordered by data set and step, what was left out of them, and what had to be guessed."""

    evaluations: list[Evaluation] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    first: list["Response"] = field(default_factory=list)  # all of the first and of the last step, if they differ
    last: list["Response"] = field(default_factory=list)


@dataclass(frozen=True)
class Response:
    """One response of a validation."""

    step: int
    data_set: str | None
    prompt: str | None  # uid without session and output; None where the dump has no uid
    session: int
    output: int
    key: str  # of the prompt: its text, with the ground truth
    right: bool
    judged_by: str
    answer: str | None
    well_formed: bool  # an answer was stated, in the form asked for if the reward function says so (format)
    asked: str
    truth: str  # the right answer as the data have it; "" for none
    text: str


def read_dumps(folder: Path, data_sets: list[str], expected: bool = True) -> Dumps:
    """All validations of a folder.

    Responses with equal prompt text and ground truth are of one prompt, also where the data hold it several times.

    Args:
        folder: holds `{step}.jsonl`; need not exist.
        expected: say so if there are none.
        data_sets: names that the run's metrics have, for dumps that do not name the data set.
    """
    dumps = Dumps()
    files = sorted(folder.glob("*.jsonl"), key=_file_order)
    if not files and expected:
        dumps.left_out.append(f"validation results: there is no {folder / '*.jsonl'}")
    by_step: dict[int, list[Response]] = {}
    for path in files:
        for step, responses in _read_file(path, dumps).items():
            if step in by_step:
                dumps.left_out.append(f"{path.name}: {len(responses)} row(s) of step {step}, which another file has")
            else:
                by_step[step] = responses
    found = [evaluation for step in by_step for evaluation in _evaluate(step, by_step[step], data_sets, dumps)]
    dumps.evaluations = sorted(found, key=lambda e: (e.data_set, e.step))
    if len(by_step) > 1:
        dumps.first, dumps.last = by_step[min(by_step)], by_step[max(by_step)]
    dumps.left_out, dumps.notes = list(dict.fromkeys(dumps.left_out)), list(dict.fromkeys(dumps.notes))
    return dumps


def _file_order(path: Path) -> tuple:
    """`{step}.jsonl` by step, before any other name."""
    plain = path.stem.isascii() and path.stem.isdigit()
    return (not plain, int(path.stem[:18]) if plain else 0, path.name)


def _read_file(path: Path, dumps: Dumps) -> dict[int, list[Response]]:
    """The responses of one file by step, each once."""
    other_name, number, _ = _file_order(path)
    unused: dict[str, list[int]] = defaultdict(list)
    kept: dict[object, Response] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line_number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    response = _parse(line, None if other_name else number)
                except _Unusable as reason:
                    unused[str(reason)].append(line_number)
                    continue
                key = (response.step, response.prompt, response.session) if response.prompt else line_number
                if key in kept and response.output == kept[key].output:
                    unused["repeated row(s), the last one is used"].append(line_number)
                if key not in kept or response.output >= kept[key].output:
                    kept[key] = response
    except OSError as error:
        dumps.left_out.append(f"{path.name}: cannot be read ({error.strerror})")
    else:
        if not kept and not unused:
            dumps.left_out.append(f"{path.name}: empty")
    dumps.left_out += [f"{path.name}: {len(lines)} {reason}: line {some(lines)}" for reason, lines in unused.items()]
    by_step: dict[int, list[Response]] = defaultdict(list)
    for response in kept.values():
        by_step[response.step].append(response)
    return by_step


class _Unusable(Exception):
    """Why a line cannot be used."""


def _parse(line: str, step: int | None) -> Response:
    try:
        return _response(json.loads(line), step)
    except (ValueError, RecursionError) as error:
        raise _Unusable("damaged line(s)") from error


def _response(row: object, step: int | None) -> Response:
    if not isinstance(row, dict):
        raise _Unusable("damaged line(s)")
    if (step := step_number(row.get("step"), step)) is None:
        raise _Unusable("row(s) without a step")
    judged_by = "score" if row.get("acc") is None else "acc"
    value = finite_number(row.get(judged_by))
    if value is None:
        raise _Unusable("row(s) without a finite acc or score")
    if row.get("uid") is None and row.get("input") is None:
        raise _Unusable("row(s) with neither uid nor input")
    source = row.get("data_source")
    prompt, session, output = _split_uid(row.get("uid"))
    text = row.get("input") if row.get("input") is not None else prompt or row["uid"]
    answer, form = _answer(row.get("pred")), finite_number(row.get("format"))
    return Response(
        step,
        None if source is None else str(source).encode("utf-8", "replace").decode(),  # half a surrogate pair
        prompt,
        session,
        output,
        key=json.dumps([text, row.get("gts")]),
        right=value > 0.5,
        judged_by=judged_by,
        answer=answer,
        well_formed=answer is not None if form is None else form > 0.5,
        asked=str(text),
        truth="" if row.get("gts") is None else str(row["gts"]),
        text=str(row.get("output") or ""),
    )


def _split_uid(uid: object) -> tuple[str | None, int, int]:
    """Prompt, session and output.

    >>> _split_uid("ab_c_3_1"), _split_uid("abc"), _split_uid(None)
    (('ab_c', 3, 1), (None, 0, 0), (None, 0, 0))
    """
    parts = str(uid).rsplit("_", 2)
    if len(parts) == 3 and all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts[1:]):
        return parts[0], int(parts[1]), int(parts[2])
    return None, 0, 0


def _answer(pred: object) -> str | None:
    if pred is None:
        return None
    text = pred.strip() if isinstance(pred, str) else json.dumps(pred)
    return None if text in _NO_ANSWER else text


def _vote(response: Response) -> str | None:
    """The answer as maj@k counts it: one that is right may be written in many ways and is one answer all the same."""
    return (
        "right" if response.right and response.answer is not None else response.answer and f"wrong: {response.answer}"
    )


def _evaluate(step: int, responses: list[Response], data_sets: list[str], dumps: Dumps) -> list[Evaluation]:
    name = _default_name(responses, data_sets, dumps)
    by_data_set: dict[str, list[Response]] = defaultdict(list)
    for response in responses:
        by_data_set[response.data_set or name].append(response)
    return [_count(data_set, step, rows, dumps) for data_set, rows in by_data_set.items()]


def _default_name(responses: list[Response], data_sets: list[str], dumps: Dumps) -> str:
    """The data set of responses that do not name it."""
    if all(response.data_set for response in responses):
        return ""
    if len(data_sets) == 1:
        return data_sets[0]
    if not data_sets:
        dumps.left_out.append("the data set's name: neither the dump nor metrics.jsonl has it")
        return "(unnamed)"
    dumps.left_out.append(
        f"results for each of {', '.join(data_sets)}: the dump does not say which response is of which data set; "
        "let the reward function return data_source"
    )
    return " + ".join(data_sets)


def _count(data_set: str, step: int, responses: list[Response], dumps: Dumps) -> Evaluation:
    first_text: dict[str, str] = {}  # later sessions of a prompt may have edited its text
    prompts: dict[str, list[Response]] = defaultdict(list)
    for response in responses:
        text = first_text.setdefault(response.prompt, response.key) if response.prompt else response.key
        prompts[text].append(response)
    if len(first_text) > len(set(first_text.values())):
        dumps.notes.append(
            f"{data_set}: {len(first_text)} rows of the data hold {len(set(first_text.values()))} different prompts; "
            "responses to equal prompts are counted together"
        )
    samples = np.array([len(rows) for rows in prompts.values()])
    n = _usual(samples)
    if fewer := int((samples < n).sum()):
        dumps.left_out.append(
            f"{data_set}, step {step}: Pass@k and maj@k of prompts with fewer than k responses "
            f"({fewer} of {len(samples)} prompts have fewer than {n})"
        )
    majority = None
    if any(response.answer is not None for response in responses):
        if more := int((samples > n).sum()):
            dumps.left_out.append(
                f"{data_set}, step {step}: from maj@{n}, responses beyond a prompt's first {n} "
                f"({more} of {len(samples)} prompts have more)"
            )
        voting = [rows[:n] for rows in prompts.values()]
        majority = np.array([majority_success([_vote(r) for r in rows], [r.right for r in rows]) for rows in voting])
    else:
        dumps.left_out.append(
            f"{data_set}: maj@k, the dump has no answers (field pred, if the reward function returns it)"
        )
    return Evaluation(
        data_set,
        step,
        correct=np.array([sum(r.right for r in rows) for rows in prompts.values()]),
        samples=samples,
        majority=majority,
        judged_by=" and ".join(sorted({r.judged_by for r in responses})),
    )
