"""What is kept of a finished run: its settings, the machine, and verl's metrics of every step, in one small file."""

from __future__ import annotations

import gzip
import json
import math
import os
import platform
import zlib
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..report.metrics import Metrics, metrics_of, parts_of
from ..versions import installed
from ..writing import replacing

SUFFIX = ".json.gz"
_PACKAGES = ("egsw-plugin", "verl", "vllm", "torch", "ray", "transformers")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run; `lines` are those of verl's metrics file, as verl wrote them."""

    cell: str
    seed: int
    method: str
    overrides: tuple[str, ...]
    steps: int
    seconds: float  # from start to end, start-up included, of the attempts that the metrics are from
    machine: str
    versions: dict[str, str]
    configuration: dict[str, object]  # as verl composed it, without what names the run
    inputs: dict[str, str]  # digests of sources, start model and data
    lines: tuple[str, ...]
    launcher: str = ""  # its file's name; older records have none

    @property
    def name(self) -> str:
        return run_name(self.cell, self.seed)

    @cached_property
    def metrics(self) -> Metrics:
        """The rows of training and validation."""
        return metrics_of(self.lines)


# Of what type each field is in a file.
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("cell", "method", "machine", "launcher"), (str,)),
    **dict.fromkeys(("seed", "steps"), (int,)),
    **dict.fromkeys(("versions", "configuration", "inputs"), (dict,)),
    **dict.fromkeys(("overrides", "lines"), (tuple,)),
    "seconds": (int, float),
}


def run_name(cell: str, seed: int) -> str:
    """The name of a run's folder and record.

    >>> run_name("egsw", 2)
    'egsw-seed2'
    """
    return f"{cell}-seed{seed}"


def read_lines(folder: Path) -> tuple[str, ...]:
    """The lines of a run's metrics, of all parts if it was resumed."""
    texts = (part.read_text(encoding="utf-8") for part in parts_of(folder / "metrics.jsonl") if part.exists())
    return tuple(line for text in texts for line in text.splitlines() if line.strip())


def write_finished_run(record: FinishedRun, folder: Path) -> Path:
    """Writes the record; a file that is there is a complete one, and equal records are equal bytes."""
    path = folder / (record.name + SUFFIX)
    text = json.dumps(asdict(record), indent=0)
    with replacing(path) as file:
        file.write(gzip.compress(text.encode(), mtime=0))
    return path


def read_finished_run(path: Path) -> FinishedRun:
    """Reads what `write_finished_run` wrote.

    Raises:
        ValueError: the file is damaged or something else.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        record = FinishedRun(**fields)
        if wrong := [name for name, kind in _KINDS.items() if type(getattr(record, name)) not in kind]:
            raise ValueError(f"its {wrong[0]} is {getattr(record, wrong[0])!r:.60}")
        if (
            record.seed < 1
            or not math.isfinite(record.seconds)
            or not all(isinstance(line, str) for line in record.lines)
        ):
            raise ValueError("its seed, seconds or lines are none")
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no record of a run that this version reads ({error}); move it elsewhere and run the study again"
        ) from None
    if path.name != record.name + SUFFIX:
        raise ValueError(f"{path} holds the run {record.name}; a record has the name of its run")
    return record


def read_finished_runs(folder: Path) -> list[FinishedRun]:
    """All records of a folder, by cell and seed."""
    records = [read_finished_run(path) for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(".")]
    return sorted(records, key=lambda record: (record.cell, record.seed))


def by_cell(records: list[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """The records of each cell; an empty list for a cell that has none."""
    cells: dict[str, list[FinishedRun]] = defaultdict(list)
    for record in records:
        cells[record.cell].append(record)
    return cells


def machine() -> str:
    """The processor, its cores and the memory of this machine.

    >>> " GiB" in machine()
    True
    """
    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def versions() -> dict[str, str]:
    """The versions of what a run depends on most."""
    return {"python": platform.python_version(), **{name: installed(name) or "absent" for name in _PACKAGES}}
