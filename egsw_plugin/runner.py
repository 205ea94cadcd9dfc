"""Runs a training launcher and shows what happens: start-up stages, one line a step, and the cause of a failure."""

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from .report.cause import clean, find_cause
from .report.metrics import CHANGED, ENTROPY, LENGTH, REWARD, find_metric, is_training, parse_row
from .report.metrics import EFFECTIVE_SHARE as SHARE
from .report.summary import format_seconds
from .report.write import OUTPUTS as REPORT_OUTPUTS

TIME_LIMIT_EXIT = 124
OUTPUTS = ("metrics.jsonl", "train.log", "validation", "checkpoints", "tensorboard", *REPORT_OUTPUTS)
MORE_OUTPUTS = ("metrics.*.jsonl", "inspect*.html")  # earlier parts; pages of the run and as other methods
COMMAND = "command.txt"
VARIABLES = ("METHOD", "ADV", "SEED", "MODEL_PATH", "TRAIN_FILES", "VAL_FILES", "EXAMPLES", "MACHINE", "STUDY_CONFIG")
PLACES = ("DATA_DIR", "ASSETS")  # folders, from which launchers derive the others

# A line of verl's log -> what it is busy with from there on.
STAGES = [
    (re.compile(r"Platform override|site-packages/verl/|\[validate_config\]"), "starting verl"),
    (re.compile(r"ray init kwargs:"), "starting Ray"),
    (re.compile(r"Started a local Ray instance|Connected to Ray cluster"), "starting the trainer"),
    (re.compile(r"create worker group"), "loading the actor"),
    (re.compile(r"actor and ref model engine initialized"), "starting the rollout engine (vLLM)"),
    (re.compile(r"all initialize finished"), "first rollout"),
]
_PROGRESS = re.compile(r"Training Progress:.*?\| *\d+/(\d+) \[")
_LAUNCHER_NOISE = re.compile(r"Traceback|\s|.*(?:Warning|WARNING|INFO|Error)\b")
_POLL = 0.2
# How the processes of a run are called that verl does not notice the end of, and of the one that waits for them.
ENGINE, TRAINER = b"VLLM::EngineCore", b"ray::TaskRunner"
ENGINE_POLL, ENGINE_GRACE = 5.0, 60.0  # seconds; the second is verl's, to end by itself
DAEMONS_GRACE, END_GRACE = 10.0, 5.0  # seconds: Ray's daemons', to notice that a run is done; after each signal
_MARK = "EGSW_RUN_MARK"
_LOG_TAIL = 32 << 20  # the cause of a failure is near the end even of a very long log


class _Stopped(Exception):
    """A signal to stop."""


class _EngineDied(Exception):
    """A rollout engine is gone, and the trainer that it worked for goes on waiting."""


class _Engines:
    """The rollout engines of a run on this machine: a trainer waits for ever for one that was killed.

    Only an engine beside whose end its own trainer lives on is missed: a launcher may run one training after another.
    """

    def __init__(self, mark: str):
        self._mark, self._next = mark, 0.0
        self._trainers: dict[int, set[int]] = {}  # of each engine, the trainers that were seen beside it
        self._missed: dict[int, float] = {}  # engine -> since when

    def check(self) -> None:
        """Raises `_EngineDied` some time after the end of an engine; looks at most every few seconds."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + ENGINE_POLL
        titles = {pid: _title(pid) for pid in _marked(self._mark)}
        trainers = {pid for pid, title in titles.items() if title.startswith(TRAINER)}
        engines = {pid for pid, title in titles.items() if title.startswith(ENGINE)}
        for engine in engines:
            self._trainers.setdefault(engine, set()).update(trainers)
        for engine in self._trainers.keys() - engines:
            if not self._trainers[engine] & trainers:
                self._missed.pop(engine, None)
            elif now - self._missed.setdefault(engine, now) >= ENGINE_GRACE:
                raise _EngineDied(
                    f"the rollout engine (process {engine}, {ENGINE.decode()}) died, and verl waits for it"
                )


class _Tail:
    """The complete lines added to a file since the last look; the file may not exist yet."""

    def __init__(self, path: Path):
        self.path, self.offset, self.partial = path, 0, b""

    def lines(self) -> list[str]:
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self.offset:  # started anew
                    self.offset, self.partial = 0, b""
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self.offset += len(data)
        *complete, self.partial = (self.partial + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in complete]


class _Screen:
    """Turns log lines and metric rows into what a person reads."""

    def __init__(self, steps: int | None):
        self.began = time.monotonic()
        self.total = steps
        self.announced: int | None = None
        self.stage, self.next_stage = "preparing", 0
        self.step, self.validations = 0, 0
        self.shown: set[str] = set()
        self.times: deque[tuple[int, float]] = deque(maxlen=6)
        self.say("starting the launcher")

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        print(f"[{self.elapsed():4.0f} s] {text}", flush=True)

    def log_line(self, raw: str) -> None:
        line = clean(raw)
        if "[egsw]" in line:
            self.once(line[line.index("[egsw]") :])
        for number in range(self.next_stage, len(STAGES)):
            pattern, stage = STAGES[number]
            if pattern.search(line):
                self.stage, self.next_stage = stage, number + 1
                self.say(stage)
                return
        if match := _PROGRESS.search(line):
            self.announced = int(match.group(1))
        if self.next_stage == 0 and "[egsw]" not in line and 0 < len(line) <= 120 and not _LAUNCHER_NOISE.match(line):
            print(f"         {line}", flush=True)

    def once(self, text: str) -> None:
        if text not in self.shown:
            self.shown.add(text)
            print(text, flush=True)

    def metrics_line(self, line: str) -> None:
        try:
            row = parse_row(line)
        except (ValueError, RecursionError):
            return
        trained = is_training(row)
        if trained:
            self.step = row["step"]
            self.times.append((self.step, time.monotonic()))
            self.stage = f"training, after step {self.step}"
            print(self.step_line(row), flush=True)
        if validated := _validation(row):
            print(f"validation  {validated}", flush=True)
        if validated or not trained:
            self.validations += 1

    def step_line(self, row: dict) -> str:
        total = self.total or self.announced
        parts = [f"step {self.step:{len(str(total))}}/{total}" if total else f"step {self.step}"]
        for label, name, digits in (("reward", REWARD, 3), ("entropy", ENTROPY, 3), ("length", LENGTH, 1)):
            if name in row:
                parts.append(f"{label} {row[name]:.{digits}f}")
        for label, name in (("changed", CHANGED), ("effective share", SHARE)):  # that the method acts
            if (value := find_metric(row, name)) is not None:
                parts.append(f"{label} {value:.2f}")
        (first, since), (last, now) = self.times[0], self.times[-1]
        if total and last > first and last < total:  # needs two steps: the first one pays for warming up
            parts.append(f"{format_seconds((total - last) * (now - since) / (last - first))} left")
        return "  ".join(parts)

    def missing_steps(self) -> str | None:
        """What is wrong with the number of steps of a run that ended well, if anything."""
        total = self.total or self.announced
        if self.validations and not self.step and not total:
            return None  # trainer.val_only: verl announces no steps
        if self.step == 0:
            return 'no training step was logged (is "file" among verl\'s trainer.logger?)'
        if total and self.step < total:
            return f"the last step logged is {self.step} of {total}"
        return None


def _validation(row: dict) -> str:
    """What a row says about a validation: one or two numbers, or the mean over more data sets than that.

    >>> _validation({"val-core/a/acc/mean@2": 0.5, "val-core/a/acc/best@2/mean": 0.6, "val-aux/a/score/mean@2": 0.5})
    'val-core/a/acc/mean@2 0.500'
    """
    values = {name: value for name, value in row.items() if name.startswith("val-core/")}
    values = {name: value for name, value in values.items() if "/mean@" in name} or values
    if len(values) > 2:
        return f"{fmean(values.values()):.3f}, mean of {len(values)} data sets"
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())


def run(command: list[str], out: Path, steps: int | None = None, time_limit: float | None = None) -> int:
    """Runs `command` to its end and returns an exit code: its own, 124 for the time limit, 130 for Ctrl-C.

    Args:
        command: the launcher; its environment gets OUT and VERL_FILE_LOGGER_PATH (`out`/metrics.jsonl).
        out: folder of the outputs; those of an earlier run are moved to `out`/previous, or kept beside the new ones
            if it has a checkpoint to go on from.
        steps: training steps expected; by default what verl's progress bar announces.
        time_limit: seconds.

    A run whose last checkpoint has `steps` steps is left as it is (exit code 2 if another command made it). One whose
    rollout engine dies without its trainer is ended a minute later (exit code 1).
    """
    out = Path(out).resolve()
    if steps and (saved := saved_step(out)) >= steps:
        if (made_by := _read(out / COMMAND)) and not _alike(made_by, _command_line(command)):
            print(
                f"{out} holds another run of {saved} steps, made by:\n  {made_by}\nChoose another folder.", flush=True
            )
            return 2
        print(f"{out} holds a run that has done its {saved} steps: nothing to do. More steps go on from there; another")
        print("folder, or this one removed, begins anew.", flush=True)
        return 0
    _set_aside(out)
    if not saved_step(out):  # else it is the one that goes on, or the launcher refuses it
        (out / COMMAND).write_text(_command_line(command), encoding="utf-8")
    mark = uuid.uuid4().hex  # in the environment of every descendant, also of those that left our session
    segments = _shared_memory()
    screen = _Screen(steps)
    problem: str | None = "interrupted"
    with _signals_raise():
        try:
            child = _start(command, out, mark)
        except OSError as error:
            print(f"cannot start {command[0]}: {error.strerror}", flush=True)
            return 127
        try:
            code = _watch(child, screen, out, time_limit, _Engines(mark))
            problem = _problem(code, screen, time_limit)
            if problem:
                _explain(problem, screen, out)
            else:
                reached = f"step {screen.step} reached" if screen.step else "validated"
                screen.say(f"done: {reached} in {format_seconds(screen.elapsed())}")
                _wait_until_gone(child, mark, DAEMONS_GRACE)
        except _EngineDied as died:
            _explain(str(died), screen, out)
            return 1
        except (KeyboardInterrupt, _Stopped) as stop:
            number = stop.args[0] if isinstance(stop, _Stopped) else signal.SIGINT
            screen.say(f"stopped by {signal.Signals(number).name} (last stage: {screen.stage}); ending the run")
            return 128 + number
        finally:
            _end(child, mark)
            _release(_shared_memory() - segments)
    if code is None:
        return TIME_LIMIT_EXIT
    return 128 - code if code < 0 else code or int(bool(problem))


def _command_line(command: list[str]) -> str:
    """What a run is made by: the command, behind the variables of the launchers that say what is trained."""
    variables = [f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)]
    variables += [f"{name}={os.environ.get(name, '')}" for name in PLACES if _may_read(command, name)]
    return shlex.join([*variables, *command])


def _may_read(command: list[str], name: str) -> bool:
    """Whether a launcher may depend on a folder: those of `recipes` name it then; of others nothing is known."""
    if name == "DATA_DIR" and os.environ.get("TRAIN_FILES") and os.environ.get("VAL_FILES"):
        return False
    scripts = [Path(word) for word in command if word.endswith(".sh")]
    texts = [path.read_text("utf-8", "replace") for path in scripts if path.is_file()]
    ours = [text for text in texts if "/launch.sh" in text]
    return not ours or any(name in text for text in ours)


def _alike(one: str, other: str) -> bool:
    """Whether two command lines make the same run, as far as is known: one may lack a folder that the other names."""
    rests, places = [], []
    for words in (shlex.split(one), shlex.split(other)):
        pairs = [word.partition("=") for word in words]
        rests.append([pair for pair in pairs if pair[0] not in PLACES])
        places.append({name: value and os.path.realpath(value) for name, _, value in pairs if name in PLACES})
    both = places[0].keys() & places[1].keys()
    return rests[0] == rests[1] and all(places[0][name] == places[1][name] for name in both)


def _read(path: Path) -> str:
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8")
    return ""


def saved_step(out: Path) -> int:
    """The step of a run's last checkpoint; 0 without one."""
    try:
        return int((out / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    except (OSError, ValueError):
        return 0


def end_left_behind(out: Path) -> int:
    """Kills what a run in `out` left when `run` itself was killed; how many processes. Needs /proc."""
    place, mark = f"OUT={Path(out).resolve()}".encode(), f"{_MARK}=".encode()
    ended, deadline = set(), time.monotonic() + 10.0
    while time.monotonic() < deadline:
        found = {
            pid
            for pid, variables in _environments()
            if place in variables and any(v.startswith(mark) for v in variables)
        }
        if not found:
            break
        ended |= found
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    return len(ended)


def _start(command: list[str], out: Path, mark: str) -> subprocess.Popen:
    environment = {**os.environ, "OUT": str(out), "VERL_FILE_LOGGER_PATH": str(out / "metrics.jsonl"), _MARK: mark}
    environment["PYTHONUNBUFFERED"] = "1"  # or the stages show late
    with open(out / "train.log", "wb") as log:  # a file and not a pipe: nothing blocks or is lost if we go first
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _watch(
    child: subprocess.Popen, screen: _Screen, out: Path, time_limit: float | None, engines: _Engines
) -> int | None:
    """Shows what happens until the child ends; its exit code, or None if the time limit came first.

    Raises:
        _EngineDied: From `engines`.
    """
    log, metrics = _Tail(out / "train.log"), _Tail(out / "metrics.jsonl")
    while True:
        code = child.poll()  # before reading, so that the last lines are read too
        for line in log.lines():
            screen.log_line(line)
        for line in metrics.lines():
            screen.metrics_line(line)
        if code is not None or (time_limit is not None and screen.elapsed() > time_limit):
            return code
        engines.check()
        time.sleep(_POLL)


def _problem(code: int | None, screen: _Screen, time_limit: float | None) -> str | None:
    if code is None:
        return f"the time limit of {time_limit:g} s passed"
    if code < 0:
        known = -code in {int(one) for one in signal.Signals}  # those for real time have no name
        return f"the launcher was killed by {signal.Signals(-code).name if known else f'signal {-code}'}"
    if code == TIME_LIMIT_EXIT:
        return "exit code 124, as of a limit inside the launcher (a recipe's: TIME_LIMIT or STALL_LIMIT, seconds)"
    if code - 128 in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        number = signal.Signals(code - 128)
        memory = ", as the kernel does when memory runs out" if number == signal.SIGKILL else ""
        return f"exit code {code}: a process of the launcher was killed by {number.name}{memory}"
    return f"exit code {code}" if code else screen.missing_steps()


def _explain(problem: str, screen: _Screen, out: Path) -> None:
    """Prints the cause; before the processes are ended, which leaves tracebacks of its own in the log."""
    cause = find_cause(_read_end(out / "train.log"), limit=12)
    print(f"\nFAILED after {format_seconds(screen.elapsed())}: {problem} (last stage: {screen.stage})")
    print("The log ends with:" if cause.kind == "tail" else "Cause, from the log:")
    print("\n".join("  " + line for line in cause.lines))
    print(f"full log: {out / 'train.log'}", flush=True)


def _read_end(path: Path) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_TAIL))
        return file.read().decode("utf-8", "replace")


def _set_aside(out: Path) -> None:
    """Moves the outputs of an earlier run to `out`/previous, replacing those that are there.

    A run with a checkpoint may be resumed: its metrics and log stay, as metrics.1.jsonl and train.1.log and so on.
    """
    out.mkdir(parents=True, exist_ok=True)
    if saved_step(out):
        for name in ("metrics.jsonl", "train.log"):
            if (out / name).exists():
                stem, suffix = name.split(".")
                part = next(n for n in itertools.count(1) if not (out / f"{stem}.{n}.{suffix}").exists())
                (out / name).rename(out / f"{stem}.{part}.{suffix}")
        return
    previous = out / "previous"
    for name in [*OUTPUTS, *(path.name for pattern in MORE_OUTPUTS for path in out.glob(pattern))]:
        if (out / name).exists():
            previous.mkdir(exist_ok=True)
            if (previous / name).is_dir():  # a folder replaces an empty folder only
                shutil.rmtree(previous / name)
            (out / name).replace(previous / name)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP end the run as Ctrl-C does: the child has a session of its own and would go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: Any, _frame: Any) -> None:
        raise _Stopped(number)

    # What was ignored from the start stays so: nohup means to outlive the terminal.
    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(child: subprocess.Popen, mark: str) -> None:
    """Ends every process of the run: asks twice, then kills, Ray's daemons included."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if child.poll() is not None and not _marked(mark):
                return
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)
            _wait_until_gone(child, mark, END_GRACE)
    except (KeyboardInterrupt, _Stopped):
        pass  # asked again: no more waiting
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        for pid in _marked(mark):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        child.wait()


def _wait_until_gone(child: subprocess.Popen, mark: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (child.poll() is None or _marked(mark)):
        time.sleep(0.1)


def _shared_memory() -> set[Path]:
    """The user's segments of Python's shared memory (vLLM's are), none where there is no /dev/shm."""
    segments = set()
    for path in Path("/dev/shm").glob("psm_*"):
        with suppress(OSError):
            if path.stat().st_uid == os.getuid():
                segments.add(path)
    return segments


def _release(segments: set[Path]) -> None:
    """Removes the segments that no process has mapped: their owners were killed, and nobody else would."""
    if not segments:
        return
    mapped: set[str] = set()
    for entry in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            mapped.update(
                line.split(maxsplit=5)[5] for line in entry.read_text().splitlines() if "/dev/shm/psm_" in line
            )
    for path in segments - {Path(name) for name in mapped}:
        with suppress(OSError):
            path.unlink()


def _marked(mark: str) -> list[int]:
    """Processes with the run's mark in their environment; none where there is no /proc."""
    return [pid for pid, variables in _environments() if f"{_MARK}={mark}".encode() in variables]


def _title(pid: int) -> bytes:
    """What a process calls itself; nothing where it has ended, though its parent has not asked yet."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    """The number and the environment variables of every process that may be read."""
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            yield int(entry.parent.name), entry.read_bytes().split(b"\0")
