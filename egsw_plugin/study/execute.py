"""Runs what a study lacks, one run at a time, with a record of each; the same command goes on where it was ended."""

from __future__ import annotations

import fcntl
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from .. import runner
from ..records.store import FOLDER as RECORDED
from ..report.metrics import Metrics, metrics_of, some
from ..report.summary import format_seconds
from .grid import Cell, Grid
from .inputs import FILES, read_inputs
from .measures import success_by_step
from .record import Record, by_cell, machine, read_lines, read_records, run_name, versions, write_record

_TRIES = 2
_LIBRARIES = ("verl", "vllm", "torch", "transformers")
_STATE = "study.json"  # in the folder of a run that has no record yet: its settings, the seconds spent on it
_STOPPED = (129, 130, 143)  # exit codes after SIGHUP, Ctrl-C, SIGTERM
# Variables that would change the runs.
_NOT_THE_USERS = ("QUICK", "ASSETS", "LOGGER", "MACHINE", "NNODES", "NGPUS_PER_NODE", "TIME_LIMIT")


class StudyError(ValueError):
    """A study that cannot go on; says why and what to do."""


def execute(grid: Grid, runs: list[tuple[Cell, int]], out: Path) -> int:
    """Runs each of `runs` that has no record in `out`/runs yet; returns an exit code.

    Args:
        grid: with launcher, steps, time limit and the overrides of all runs.
        runs: (cell, seed), in order.
        out: folder of the study: `runs` for the records, `work` for what verl writes.

    Raises:
        StudyError: another study is running in `out`, or a record there was made with other settings.
    """
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        records = read_records(out / "runs")
        check_records(grid, records)
        names = {record.name for record in records}
        missing = [(cell, seed) for cell, seed in runs if run_name(cell.name, seed) not in names]
        done = len(runs) - len(missing)
        print(f"study: {len(runs)} runs, {done} of them done; records in {out / 'runs'}", flush=True)
        times: list[float] = []
        for number, (cell, seed) in enumerate(missing, start=done + 1):
            left = f", {format_seconds(fmean(times) * (len(runs) - number + 1))} left" if times else ""
            print(f"\nrun {number} of {len(runs)}: {run_name(cell.name, seed)}{left}", flush=True)
            code, seconds = _run(grid, cell, seed, out)
            if code:
                print("study: stopped; the same command goes on from here", flush=True)
                return code
            times.append(seconds)
            check_records(grid, read_records(out / "runs"))
        print(f"\nstudy: all {len(runs)} runs are done", flush=True)
        return 0


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One study at a time in a folder; the lock goes with the process, however it ends."""
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(f"another study is running in {out}; wait for it, or choose another --out") from None
        yield


def check_records(grid: Grid, records: list[Record]) -> None:
    """Refuses records that this grid did not make, so that no table mixes settings.

    Raises:
        StudyError: names the record, what it was made with, and what the grid has; or two records of a cell whose
            configurations differ, or of a seed whose start models, data or libraries do.
    """
    for record in records:
        if (cell := grid.cells.get(record.cell)) is None:
            raise StudyError(f"the record {record.name} is of a cell that the grid does not have; move it elsewhere")
        found = (record.method, record.overrides, record.steps)
        wanted = (cell.method, cell.overrides + grid.overrides, grid.steps)
        if found != wanted:
            raise StudyError(
                f"the record {record.name} was made with method, overrides and steps {found}, not with {wanted}; "
                "choose another folder, or move the record elsewhere to run it again"
            )
        if lack := _lacks(record.metrics, record.steps):
            raise StudyError(f"the record {record.name} is not whole: {lack}; move it elsewhere to run it again")
    for members in by_cell(records).values():
        _check_equal(members, "configuration", [record.configuration for record in members])
    for seed in {record.seed for record in records}:
        members = [record for record in records if record.seed == seed]
        for name in FILES:
            _check_equal(members, name, [record.inputs.get(name) for record in members])
        for name in _LIBRARIES:
            _check_equal(members, f"version of {name}", [record.versions.get(name) for record in members])


def _check_equal(records: list[Record], what: str, values: Sequence[object]) -> None:
    other = values[0]
    for record, mine in zip(records, values, strict=True):
        if mine == other:
            continue
        if isinstance(mine, dict) and isinstance(other, dict):
            mine, other = ({k: v for k, v in a.items() if b.get(k) != v} for a, b in ((mine, other), (other, mine)))
        raise StudyError(
            f"the records {records[0].name} and {record.name} differ in their {what}, {other} and {mine}, so their "
            "runs do not compare; choose another folder, or move one of them elsewhere to run it again"
        )


def _run(grid: Grid, cell: Cell, seed: int, out: Path) -> tuple[int, float]:
    """Runs one run to its end and writes its record; exit code and seconds."""
    name = run_name(cell.name, seed)
    folder = out / "work" / name
    overrides = cell.overrides + grid.overrides
    settings = {"METHOD": cell.method, "SEED": str(seed), "RUN_NAME": name, "STEPS": str(grid.steps)}
    settings |= {"PYTHON": sys.executable} | ({"QUICK": "1"} if grid.quick else {})
    command = ["env", *(word for variable in _NOT_THE_USERS for word in ("-u", variable))]
    command += [*(f"{k}={v}" for k, v in settings.items()), "bash", str(grid.launcher.resolve()), *overrides]
    if left := runner.end_left_behind(folder):
        print(f"study: ended {left} processes that an earlier attempt at {name} had left", flush=True)
    code = 0
    for attempt in range(1, _TRIES + 1):
        seconds, earlier = _begin(folder, command)
        if (missing := _missing(folder, grid.steps)) is None:
            break
        saved = runner.saved_step(folder)
        began = time.monotonic()
        code = runner.run(command, folder, steps=grid.steps, time_limit=grid.time_limit)
        seconds = round(seconds + time.monotonic() - began, 1)
        made_from = list(read_inputs(folder))
        _write_state(folder, command, seconds, made_from)
        if code in _STOPPED:
            return code, seconds
        if earlier not in (None, made_from):
            missing = "its configuration, start model or data are not those of the attempt that it went on from"
            _set_aside(folder, missing)
            continue
        if (missing := _missing(folder, grid.steps)) is None:
            break  # also if it failed after its last step
        print(f"study: {name}, try {attempt} of {_TRIES}: exit code {code}, {missing}", flush=True)
        if 0 < runner.saved_step(folder) == saved and attempt < _TRIES:
            _set_aside(folder, "no step forward from its checkpoint")
    if missing is not None:
        print(f"study: {name} failed; its log: {folder / 'train.log'}", flush=True)
        return code or 1, seconds
    lines = read_lines(folder)
    configuration, digests = read_inputs(folder)
    if not configuration:
        print(f"study: {name} has no hydra/.hydra/config.yaml, so that changed settings go unnoticed", flush=True)
    write_record(
        Record(
            cell=cell.name,
            seed=seed,
            method=cell.method,
            overrides=overrides,
            steps=grid.steps,
            seconds=seconds,
            machine=machine(),
            versions=versions(),
            configuration=configuration,
            inputs=digests,
            lines=lines,
        ),
        out / "runs",
    )
    (folder / _STATE).unlink()  # the folder is done with: a run of this name begins anew
    _keep_recorded_steps(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return 0, seconds


def _keep_recorded_steps(folder: Path) -> None:
    """Moves them out of the checkpoints, which go."""
    recorded, kept = folder / "checkpoints" / RECORDED, folder / RECORDED
    if recorded.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        recorded.rename(kept)


def _begin(folder: Path, command: list[str]) -> tuple[float, list | None]:
    """Makes the folder, or leaves it if it can be gone on with; seconds spent on what is kept, and its inputs."""
    seconds, made_from = 0.0, None
    try:
        state = json.loads((folder / _STATE).read_text())
    except (OSError, ValueError):
        state = None
    if folder.exists():
        steps = {row["step"] for row in metrics_of(read_lines(folder)).training}
        if not isinstance(state, dict) or state.get("command") != command:
            _set_aside(folder, "of a run that is done, or was started with other settings")
        elif not steps.issuperset(range(1, runner.saved_step(folder) + 1)):
            _set_aside(folder, "the metrics lack a step before its checkpoint")
        elif runner.saved_step(folder):
            seconds = float(state.get("seconds", 0))
            made_from = state.get("made_from") or list(read_inputs(folder))  # none if the study itself was killed
    _write_state(folder, command, seconds, made_from)
    return seconds, made_from


def _write_state(folder: Path, command: list[str], seconds: float, made_from: list | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{_STATE}"
    scratch.write_text(json.dumps({"command": command, "seconds": seconds, "made_from": made_from}))
    scratch.replace(folder / _STATE)


def _set_aside(folder: Path, why: str) -> None:
    """Renames the folder of a run, which then begins anew."""
    number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}.old{n}").exists())
    print(f"study: {folder} becomes {folder.name}.old{number}: {why}", flush=True)
    folder.rename(folder.with_name(f"{folder.name}.old{number}"))


def _missing(folder: Path, steps: int) -> str | None:
    """What the metrics of a run lack to be complete, if anything."""
    if not folder.exists():
        return "no metrics"
    return _lacks(metrics_of(read_lines(folder)), steps)


def _lacks(metrics: Metrics, steps: int) -> str | None:
    if damaged := [note for note in metrics.left_out if "damaged" in note]:
        return damaged[0]
    logged = [row["step"] for row in metrics.training]
    if absent := sorted(set(range(1, steps + 1)) - set(logged)):
        return f"no metrics of step {some(absent)}"
    if len(logged) > steps:
        return f"metrics of {len(logged)} steps instead of {steps}"
    if steps not in success_by_step(metrics):
        return "no validation after the last step (val-core/*/acc/mean@N; does trainer.test_freq ask for one?)"
    return None
