"""Runs what a study lacks, one run at a time, with a record of each; the same command goes on where it was ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from .. import runner
from ..report.summary import format_seconds
from .grid import Cell, Grid
from .record import SUFFIX, Record, machine, read_lines, read_record, run_name, versions, write_record

_TRIES = 2  # the second one goes on from the checkpoint of the first
_SECONDS = "seconds.txt"
_STOPPED = range(129, 160)  # exit codes of a run that a signal ended


class StudyError(RuntimeError):
    """A study that cannot go on; says why and what to do."""


def execute(
    grid: Grid,
    runs: list[tuple[Cell, int]],
    out: Path,
    start: Callable[..., int] = runner.run,
) -> int:
    """Runs each of `runs` that has no record in `out`/runs yet; returns an exit code.

    Args:
        grid: with launcher, steps, time limit and the overrides of all runs.
        runs: (cell, seed), in order.
        out: folder of the study: `runs` for the records, `work` for what verl writes.
        start: starts a run as `runner.run` does.

    Raises:
        StudyError: another study is running in `out`, or a record there was made with other settings.
    """
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        missing = [(cell, seed) for cell, seed in runs if not _is_done(grid, cell, seed, out)]
        print(
            f"study: {len(runs)} runs, {len(runs) - len(missing)} of them done; records in {out / 'runs'}", flush=True
        )
        times: list[float] = []
        for number, (cell, seed) in enumerate(missing, start=len(runs) - len(missing) + 1):
            left = f", {format_seconds(fmean(times) * (len(runs) - number + 1))} left" if times else ""
            print(f"\nrun {number} of {len(runs)}: {run_name(cell.name, seed)}{left}", flush=True)
            code, seconds = _run(grid, cell, seed, out, start)
            if code:
                print("study: stopped; the same command goes on from here", flush=True)
                return code
            times.append(seconds)
        print(f"\nstudy: all {len(runs)} runs are done", flush=True)
        return 0


@contextmanager
def _alone(out: Path):
    """One study at a time in a folder; the lock goes with the process, however it ends."""
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(f"another study is running in {out}; wait for it, or choose another --out") from None
        yield


def _is_done(grid: Grid, cell: Cell, seed: int, out: Path) -> bool:
    path = out / "runs" / (run_name(cell.name, seed) + SUFFIX)
    if not path.exists():
        return False
    record = read_record(path)
    found = (record.method, record.overrides, record.steps)
    wanted = (cell.method, cell.overrides + grid.overrides, grid.steps)
    if found != wanted:
        raise StudyError(
            f"{path} was made with (method, overrides, steps) {found}, the grid has {wanted}; "
            "choose another --out, or delete the record to run it again"
        )
    return True


def _run(grid: Grid, cell: Cell, seed: int, out: Path, start) -> tuple[int, float]:
    """Runs one run to its end and writes its record; exit code and seconds."""
    name = run_name(cell.name, seed)
    folder = out / "work" / name
    settings = {"METHOD": cell.method, "SEED": str(seed), "NAME": name, "STEPS": str(grid.steps)}
    settings["PYTHON"] = os.environ.get("PYTHON", sys.executable)
    settings |= {"QUICK": "1"} if grid.quick else {}
    command = ["env", *(f"{k}={v}" for k, v in settings.items()), "bash", str(grid.launcher.resolve())]
    command += [*cell.overrides, *grid.overrides]
    code = 0
    for attempt in range(_TRIES):
        if attempt:
            print(f"study: {name} failed with exit code {code}; once more, from its last checkpoint", flush=True)
        began = time.monotonic()
        code = start(command, folder, steps=grid.steps, time_limit=grid.time_limit)
        seconds = _spent(folder, time.monotonic() - began)
        if code == 0 or code in _STOPPED:
            break
    if code:
        if code not in _STOPPED:
            print(f"study: {name} failed {_TRIES} times; its log: {folder / 'train.log'}", flush=True)
        return code, seconds
    lines = read_lines(folder)
    record = Record(
        cell.name, seed, cell.method, cell.overrides + grid.overrides, grid.steps, seconds, machine(), versions(), lines
    )
    if len(record.metrics.training) != grid.steps:
        print(f"study: {folder} has metrics of {len(record.metrics.training)} of {grid.steps} steps", flush=True)
        return 1, seconds
    write_record(record, out / "runs")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / _SECONDS).unlink()
    return 0, seconds


def _spent(folder: Path, seconds: float) -> float:
    """Seconds that all attempts at a run took together; kept in a file, since an attempt may end the command too."""
    path = folder / _SECONDS
    total = round(seconds + (float(path.read_text()) if path.exists() else 0.0), 1)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{total}\n")
    return total
