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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from .. import runner
from ..records.store import FOLDER as RECORDED
from ..report.metrics import Metrics, metrics_of, some
from ..report.summary import format_seconds
from ..writing import replacing
from .grid import Cell, Grid
from .inputs import FILES, SOURCES, read_inputs, sources
from .measures import success_by_step
from .record import (
    FinishedRun,
    by_cell,
    machine,
    read_finished_runs,
    read_lines,
    run_name,
    versions,
    write_finished_run,
)

_TRIES = 2
_LIBRARIES = ("verl", "vllm", "torch", "transformers")
_STATE = "study.json"  # in the folder of a run that has no record yet: what it was started with, the seconds spent
_STOPPED = (129, 130, 143)  # exit codes after SIGHUP, Ctrl-C, SIGTERM
# Variables that would change the runs.
_NOT_THE_USERS = (
    *("QUICK", "ASSETS", "LOGGER", "MACHINE", "NNODES", "NGPUS_PER_NODE", "TIME_LIMIT"),
    *("MODEL_PATH", "TRAIN_FILES", "VAL_FILES", "EXAMPLES", "STUDY_CONFIG"),
)


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
        records = read_finished_runs(out / "runs")
        check_records(grid, records)
        names = {record.name for record in records}
        missing = [(cell, seed) for cell, seed in runs if run_name(cell.name, seed) not in names]
        done = len(runs) - len(missing)
        print(f"study: {done} of {len(runs)} runs done; records in {out / 'runs'}", flush=True)
        times: list[float] = []
        for number, (cell, seed) in enumerate(missing, start=done + 1):
            left = f", {format_seconds(fmean(times) * (len(runs) - number + 1))} left" if times else ""
            print(f"\nrun {number} of {len(runs)}: {run_name(cell.name, seed)}{left}", flush=True)
            code, seconds = _run(grid, cell, seed, out)
            if code:
                print("study: stopped; the same command goes on from here", flush=True)
                return code
            times.append(seconds)
            check_records(grid, read_finished_runs(out / "runs"))
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


def check_records(grid: Grid, records: list[FinishedRun]) -> None:
    """Refuses records that this grid did not make, so that no table mixes settings.

    Raises:
        StudyError: names the record, what it was made with, and what the grid has; or two records of a cell whose
            configurations differ, or of a seed whose start models, data or libraries do.
    """
    for record in records:
        if (cell := grid.cells.get(record.cell)) is None:
            raise StudyError(f"the record {record.name} is of a cell that the grid does not have; move it elsewhere")
        if record.launcher not in ("", grid.launcher.name):
            raise StudyError(
                f"the record {record.name} was made by {record.launcher}, not by {grid.launcher.name}, so it is of "
                "another study; choose another folder, or move the record elsewhere"
            )
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


def _check_equal(records: list[FinishedRun], what: str, values: Sequence[object]) -> None:
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
    code, log = 0, folder
    for attempt in range(1, _TRIES + 1):
        state = _begin(folder, command, grid.steps)
        if (missing := _missing(folder, grid.steps)) is None:
            break
        saved = runner.saved_step(folder)
        began = time.monotonic()
        code = runner.run(command, folder, steps=grid.steps, time_limit=grid.time_limit)
        log, earlier = folder, state.made_from
        made_from = list(read_inputs(folder))
        state = replace(state, seconds=round(state.seconds + time.monotonic() - began, 1), made_from=made_from)
        state.write(folder)
        if code in _STOPPED:
            return code, state.seconds
        if earlier not in (None, made_from):
            missing = "its configuration, start model or data are not those of the attempt that it went on from"
            log = _set_aside(folder, missing)
            continue
        if (missing := _missing(folder, grid.steps)) is None:
            break  # also if it failed after its last step
        print(f"study: {name}, try {attempt} of {_TRIES}: exit code {code}, {missing}", flush=True)
        if 0 < runner.saved_step(folder) == saved and attempt < _TRIES:
            _set_aside(folder, "no step forward from its checkpoint")
    if missing is not None:
        print(f"study: {name} failed; its log: {log / 'train.log'}", flush=True)
        return code or 1, state.seconds
    if sources() != state.sources:
        print(f"study: this package's sources changed while {name} ran; its record has those at its start", flush=True)
    lines = read_lines(folder)
    configuration, digests = read_inputs(folder)
    if not configuration:
        print(f"study: {name} has no hydra/.hydra/config.yaml, so that changed settings go unnoticed", flush=True)
    write_finished_run(
        FinishedRun(
            cell=cell.name,
            seed=seed,
            method=cell.method,
            overrides=overrides,
            steps=grid.steps,
            seconds=state.seconds,
            machine=machine(),
            versions=versions(),
            configuration=configuration,
            inputs={SOURCES: state.sources, **digests},
            lines=lines,
            launcher=grid.launcher.name,
        ),
        out / "runs",
    )
    (folder / _STATE).unlink()  # the folder is done with: a run of this name begins anew
    _keep_recorded_steps(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return 0, state.seconds


def _keep_recorded_steps(folder: Path) -> None:
    """Moves them out of the checkpoints, which go."""
    recorded, kept = folder / "checkpoints" / RECORDED, folder / RECORDED
    if recorded.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        recorded.rename(kept)


@dataclass(frozen=True)
class _State:
    """Of a run that has no record yet."""

    command: list[str]
    sources: str  # digest of this package's sources when it began
    seconds: float = 0.0  # of the attempts that are kept
    made_from: list | None = None  # configuration and digests of an attempt that was ended

    def write(self, folder: Path) -> None:
        with replacing(folder / _STATE) as file:
            file.write(json.dumps(asdict(self)).encode())


def _begin(folder: Path, command: list[str], steps: int) -> _State:
    """Makes the folder, or leaves it if it can be gone on with."""
    state = _State(command, sources())
    earlier: _State | None = None
    other = "of a run that is done, or was started with other settings"
    try:
        earlier = _State(**json.loads((folder / _STATE).read_text()))
    except TypeError:  # it lacks what is noted now
        other = "of a run that was started by an older version of this package"
    except (OSError, ValueError):
        pass
    if folder.exists():
        saved = runner.saved_step(folder)
        logged = {row["step"] for row in metrics_of(read_lines(folder)).training}
        if earlier is None or _set_by(earlier.command) != _set_by(command):
            _set_aside(folder, other)
        elif not logged.issuperset(range(1, saved + 1)):
            _set_aside(folder, "the metrics lack a step before its checkpoint")
        elif saved and earlier.sources != state.sources and _missing(folder, steps):
            _set_aside(folder, "this package's sources changed since it was ended")
        elif saved:
            made_from = earlier.made_from or list(read_inputs(folder))  # none if the study itself was killed
            state = replace(earlier, made_from=made_from)
    state.write(folder)
    return state


def _set_by(command: list[str]) -> list[str]:
    """What a command sets: without the variables that it unsets, of which another version of this package knows others.

    >>> _set_by(["env", "-u", "QUICK", "-u", "ASSETS", "SEED=1", "bash", "run.sh"])
    ['env', 'SEED=1', 'bash', 'run.sh']
    """
    words = iter(command)
    return [word for word in words if not (word == "-u" and next(words))]


def _set_aside(folder: Path, why: str) -> Path:
    """Renames the folder of a run, which then begins anew; its new name."""
    number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}.old{n}").exists())
    other = folder.with_name(f"{folder.name}.old{number}")
    print(f"study: {folder} becomes {other.name}: {why}", flush=True)
    return folder.rename(other)


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
