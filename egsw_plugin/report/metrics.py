"""Reads the file verl's file logger writes: one `{"step": 3, "data": {name: value}}` a line."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from glob import escape
from itertools import chain, islice, pairwise
from pathlib import Path

REWARD = "critic/score/mean"
ENTROPY = "actor/entropy"
LENGTH = "response_length/mean"
EFFECTIVE_SHARE = "/effective_share/mean"
CHANGED = "/changed/mean"
OF_WEIGHTS = (EFFECTIVE_SHARE, "/weight/max", "/weight/min")
MIXED = "/mixed_groups/mean"
GRADIENT = "actor/grad_norm"
STEP_TIME = "timing_s/step"
_LARGEST = 1e100  # more is damage, and sums of it overflow
_VALIDATION = re.compile(r"val-core/(.+)/[^/]+/(?:mean|maj|best)@\d+(?:/\w+)?")


@dataclass
class Metrics:
    """Rows `{"step": 3, name: value}` in the order of steps, and what was left out of them."""

    training: list[dict] = field(default_factory=list)
    validation: list[dict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def parse_row(line: str) -> dict:
    """One line of the file as a flat row; only finite numbers are kept (verl writes null for NaN), and what a method
    says of its weights only where they change something: groups without advantages, or coefficients of 0, use none.

    Raises:
        ValueError: the line is damaged or is not a row of metrics.

    >>> parse_row('{"step": 3, "data": {"critic/score/mean": 0.5, "actor/entropy": null}}')
    {'step': 3, 'critic/score/mean': 0.5}
    """
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("data"), dict):
        raise ValueError("not a row of metrics")
    if (step := step_number(record.get("step"))) is None:
        raise ValueError("not a row of metrics")
    values = {k: v for k, v in record["data"].items() if k != "step" and finite_number(v) is not None}
    for member in [
        name.removesuffix(CHANGED) for name, value in values.items() if name.endswith(CHANGED) and not value
    ]:
        # Of a step without mixed groups 0 once stood for none; with unmixed=keep weights act there.
        if values.get(member + MIXED) != 0 or not values.get(member + EFFECTIVE_SHARE):
            for name in OF_WEIGHTS:
                values.pop(member + name, None)
    return {"step": step, **values}


def finite_number(value: object) -> float | None:
    """The value as a float if it is a finite number of at most 1e100, else None.

    >>> finite_number(True), finite_number(float("nan")), finite_number("1"), finite_number(10**400)
    (1.0, None, None, None)
    """
    return float(value) if isinstance(value, (int, float)) and abs(value) <= _LARGEST else None  # NaN is not <=


def step_number(value: object, default: int | None = None) -> int | None:
    """The value if it can be the number of a step, else the default.

    >>> step_number(3), step_number(True), step_number("3", 7)
    (3, None, 7)
    """
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else default


def is_training(row: dict) -> bool:
    """Whether the row is of a training step; validation before or between steps has rows of its own.

    >>> is_training({"step": 0, "val-core/math/reward/mean@1": 0.5})
    False
    """
    return any(name.startswith(("critic/", "actor/", "training/")) for name in row)


def find_metric(row: dict, suffix: str) -> float | None:
    """The value of that name, else the first whose name ends in it: every method has its own prefix."""
    if suffix in row:
        return row[suffix]
    return next((value for name, value in row.items() if name.endswith(suffix)), None)


def data_sets(rows: list[dict]) -> list[str]:
    """The data sets that the names of verl's validation metrics hold, sorted.

    >>> data_sets([{"step": 0, "val-core/math/500/acc/best@4/mean": 0.5, "val-aux/num_turns/mean": 2.0}])
    ['math/500']
    """
    return sorted({match[1] for row in rows for name in row if (match := _VALIDATION.fullmatch(name))})


def read_metrics(path: Path) -> Metrics:
    """All rows of a metrics file; of rows for the same step (a resumed run repeats some) the last one.

    What the launchers set aside when a run went on, metrics.1.jsonl and so on beside metrics.jsonl, comes first. A file
    that cannot be read has no rows; `left_out` says why.
    """
    path = Path(path)
    parts = parts_of(path)
    try:
        texts = [part.read_text(encoding="utf-8", errors="replace").split("\n") for part in parts]
    except FileNotFoundError:
        return Metrics(left_out=[f"training metrics and curves: there is no {path}"])
    except OSError as error:
        return Metrics(left_out=[f"training metrics and curves: {path} cannot be read ({error.strerror})"])
    places = [
        f"{part.name}:{number}" if len(parts) > 1 else str(number)
        for part, lines in zip(parts, texts, strict=True)
        for number in range(1, len(lines) + 1)
    ]
    metrics = metrics_of(list(chain.from_iterable(texts)), places)
    if not metrics.training and not metrics.validation and not metrics.left_out:
        metrics.left_out.append(f"training metrics and curves: {path} is empty")
    return metrics


def parts_of(path: Path) -> list[Path]:
    """The metrics file and, before it, what the launchers set aside of it when the run went on."""
    earlier = [p for p in path.parent.glob(f"{escape(path.stem)}.*{path.suffix}") if p.suffixes[0][1:].isdecimal()]
    parts = sorted(earlier, key=lambda p: int(p.suffixes[0][1:]))
    return parts + ([path] if path.exists() or not parts else [])  # a run that went on may have died at once


def metrics_of(lines: Sequence[str], places: Sequence[str] | None = None) -> Metrics:
    """The rows that the lines of metrics files hold, those of earlier files first; `places` name them in messages."""
    training: dict[int, dict] = {}
    validation: dict[int, dict] = {}
    damaged, repeated = [], []
    for place, line in zip(places or range(1, len(lines) + 1), lines, strict=True):
        if not line.strip():
            continue
        try:
            row = parse_row(line)
        except (ValueError, RecursionError):
            damaged.append(place)
            continue
        rows = training if is_training(row) else validation
        if row["step"] in rows:
            repeated.append(row["step"])
        rows[row["step"]] = row
    left_out = []
    if damaged:
        left_out.append(f"{len(damaged)} damaged line(s) of the metrics: line {some(damaged)}")
    if repeated:
        left_out.append(f"{len(repeated)} row(s) of the metrics, repeated later: step {some(repeated)}")
    metrics = Metrics(_ordered(training), _ordered(validation), left_out)
    left_out += _gaps(metrics.training)
    return metrics


def _gaps(rows: list[dict]) -> list[str]:
    """Steps that have no row, and steps without a metric that others have: it is missing, or not a finite number."""
    notes = []
    absent = [range(before["step"] + 1, after["step"]) for before, after in pairwise(rows)]
    if count := sum(map(len, absent)):
        notes.append(
            f"{count} training step(s) without a row in the metrics: step {some(chain.from_iterable(absent))} "
            "(a run that dies after saving a step and before logging it goes on with the next one)"
        )
    for name in (REWARD, LENGTH, ENTROPY, GRADIENT):
        steps = [row["step"] for row in rows if find_metric(row, name) is None]
        if steps and len(steps) < len(rows):
            notes.append(f"{name.strip('/')}: no finite number at {len(steps)} step(s): step {some(steps)}")
    return notes


def _ordered(rows: dict[int, dict]) -> list[dict]:
    return [rows[step] for step in sorted(rows)]


def some(numbers: Iterable[object], most: int = 5) -> str:
    """The first few numbers, for a message.

    >>> some([1, 2, 3], most=2)
    '1, 2, ...'
    """
    numbers = list(islice(numbers, most + 1))
    return ", ".join(map(str, numbers[:most])) + (", ..." if len(numbers) > most else "")
