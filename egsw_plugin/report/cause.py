"""Why a verl run failed, found in its log: by an exception, or by what a process says that dies without one."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Ray's prefixes, with the name that an actor gives itself, and those of torch.distributed and torchrun.
_SOURCE = re.compile(
    r"\(((?:[^\s()]+(?:\([^()]*\))? )?pid=\d+(?:, ip=[^)]*)?|"
    r"(?:raylet|autoscaler|gcs_server)(?: \+\w+)?(?:, ip=[^)]*)?)\) ?|"
    r"\[((?:rank|default)\d+)\]: ?"
)
_VLLM_PREFIX = re.compile(
    r"(?:ERROR|WARNING|INFO) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]+\] ?"
    r"(?=Traceback|\s|The above|During handling|\w+(?:\.\w+)*\.[A-Z]\w+: |[\w.]+(?:Error|Exception)\b)"
)
_RAY_DEDUP = re.compile(r" \[repeated \d+x across cluster\].*$")
_FRAME = re.compile(r'\s+File "([^"]+)", line (\d+)(?:, in (.+))?$')
_LIBRARY = re.compile(r"  (?:ray/|hydra/_internal/|.*/lib/python3\.\d+/)")  # frames that tell a reader nothing
_FAULT_FRAME = re.compile(r'\s+File "([^"]+)", line (\d+) in (.+)$')
_CARETS = re.compile(r"[\s~^]+$")
# The class, which a module's name may stand before; few have a small letter first, as socket.gaierror.
_EXCEPTION = re.compile(
    r"(?!(?:WARNING|INFO|ERROR|NOTE|Note|Warning)\b)"
    r"((?:(?:\w+|<locals>)\.)*[A-Z]\w*|(?:\w+\.)+[a-z]\w*(?=: ))(?:\([\w., ]*\))?(?::\s|:?$)"
)
# The same where other lines stood between the frames and it, or where there are no frames.
_SURE_EXCEPTION = re.compile(r"(?:(?:\w+|<locals>)\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)(?:: |:?$)")
_BARE_EXCEPTION = re.compile(r"(?:\w+\.)+[A-Z]\w*(?:Error|Exception): ")
_GROUP = re.compile(r" +\| ?")  # before each line of an ExceptionGroup
_TORN = 50  # lines of its own that a process may print within a traceback
# What begins a traceback of an exception that ended nothing.
_IGNORED = re.compile(
    r"Exception ignored (?:in|while)|Error in atexit|Exception in thread|--- Logging error ---|"
    r"(?:Task|Future) exception was never retrieved|Error in sys\.excepthook"
)
_STALLED = re.compile(r": ended: for STALL_LIMIT=\d")  # a launcher of ours
_PROGRESS = re.compile(r"step:\d+ - ")  # verl's line after a step: what was said before it ended nothing
_RAY_HEADER = re.compile(r"(?:ray\.exceptions\.RayTaskError(?:\([\w., ]*\))?: )?ray::\S+")
_CHAIN = re.compile(r"The above exception was the direct cause|During handling of the above exception")
_NOT_A_MESSAGE = re.compile(
    r"(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\b|\d{4}-\d\d-\d\d|\[|Traceback|Training Progress|step:\d|"
    r"Error executing job|Set the environment variable HYDRA|The above exception|During handling|Exception ignored|"
    r"wandb:|make(?:\[\d+\])?: |srun: |bash: |Call stack:|\S+\.sh: line |/\S+:\d+: \w*Warning|\([\w.+ ]+\) "
)
_MESSAGE = 12  # lines of a message
_GLOG = re.compile(r"\[\d{4}-\d\d-\d\d [\d:,]+ [A-Z] \d+ \d+\] (?:\([\w-]+\) )?[\w.]+:\d+: ?")
_SAYS_NOTHING = re.compile(r"\s*(?:class_name|name|repr|namespace|pid|ip|node_ip|\w+_id):\s|[=-]+$|\s*$")
_COMPILER = re.compile(r"fatal error: |\berror: |cannot find -l")
_PLUGIN_ERROR = re.compile(r"egsw_plugin\.(?:\w+\.)*[A-Z]\w*: ")
_HYDRA_BEGIN = re.compile(
    r"(?:In '.*': )?Could not (?:override|find|load)|Error merging override|Cannot find primary config"
)
_HYDRA_END = "Set the environment variable HYDRA_FULL_ERROR"
_WORKER_DEATH = re.compile(
    r"A worker died or was killed|killed due to (?:the node running low on memory|memory pressure)"
)
# What a process says that dies without an exception of Python: its own last words, C's, CUDA's, NCCL's, a shell's, the
# kernel's and a scheduler's.
_NATIVE = re.compile(  # at the beginning of a line
    r"\*\*\* SIG(?!TERM)[A-Z]+ \(?.*received|Fatal Python error: |terminate called |Unhandled exception: |LLVM ERROR: |"
    r"(?:free|malloc|realloc|munmap_chunk)\(\): |double free or corruption|corrupted (?:size|double-linked)|"
    r"\*\*\* stack smashing detected|pure virtual method called|thread '.*' panicked at |"
    r"\[\d{4}-\d\d-\d\d [\d:,]+ [CF] \d+ \d+\] |F\d{4,8} [\d:.]+ |"
    r"(?:Segmentation fault|Bus error|Aborted|Illegal instruction|Killed)\b(?: *\(core dumped\))?$|"
    r"(?:zsh: )?killed\b|slurmstepd: error: .*(?:CANCELLED|[Kk]illed|oom)|"
    r"srun: error: .*(?:Out Of Memory|Killed|Segmentation fault|Aborted)|libgomp: Thread creation failed"
)
_NATIVE_WITHIN = re.compile(
    r"\bAssertion [`'].*[`'] failed|\bWatchdog caught collective operation timeout|\bCheck failed: |"
    r": line \d+: +\d+ (?:Killed|Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception)|"
    r"\bOut of memory: Killed process|\boom[-_]kill event|\binvoked oom-killer|pthread_create failed|"
    r"symbol lookup error: "
)
_WATCHDOG = re.compile(r"Watchdog caught collective operation timeout")  # another process's fault, mostly
# The machine ran out of something: whatever else the log says comes of that.
_EXHAUSTED = re.compile(
    r"No space left on device|Disk quota exceeded|OutOfDiskError|killed due to memory pressure|"
    r"killed due to the node running low on memory|Out of memory: Killed process|\boom[-_]kill event|OOM[ -]Killed|"
    r"out of shared memory|insufficient shared memory"
)

# What the rest of the job says after something else has gone wrong: by class, and by what it says.
_CONSEQUENCE = re.compile(
    r"(?:[\w.]+\.)?(?:ActorDiedError|ActorUnavailableError|WorkerCrashedError|RayActorError|EngineDeadError|"
    r"KeyboardInterrupt|EngineGenerateError|ChildFailedError|LocalRayletDiedError|NodeDiedError|"
    r"BrokenProcessPool|OwnerDiedError|ObjectLostError|TaskCancelledError)\b|SystemExit(?:: -?\d+)?$|"
    r".*(?:no materializable trajectories|EngineCore encountered an issue|Engine core initialization failed|"
    r"Engine core proc|WorkerProc initialization|Worker failed with error|ncclRemoteError|after shutdown|"
    r"DataLoader worker \(pid.*\) (?:exited unexpectedly|is killed by signal))",
    re.DOTALL,
)
# The same, but if nothing died it may be what went wrong itself.
_WEAK_CONSEQUENCE = re.compile(
    r"(?:[\w.]+\.)?(?:CancelledError|CalledProcessError|BrokenPipeError|GetTimeoutError|ConnectionResetError|"
    r"ConnectionRefusedError|EOFError|ServerDisconnectedError)\b|"
    r".*(?:CalledProcessError|[Bb]roken pipe|[Cc]onnection (?:closed|reset) by|Connection was likely closed|"
    r"closed by remote peer|communicator was aborted|remote process exited|recvValue failed|Socket closed|"
    r"Session was reset|failed to connect to all addresses)",
    re.DOTALL,
)
_NCCL = re.compile(r"nccl\w+: |Last error:|socket\w+: ")
_ENGINE = re.compile(r"EngineDead|Engine ?[Cc]ore")
_ENGINE_SOURCE = re.compile(r"EngineCore|Worker_|VllmWorker")


@dataclass
class Cause:
    """What to show: `kind` is plugin, config, traceback, worker, native or tail; `lines` are ready to print."""

    kind: str
    lines: list[str]


@dataclass
class _Error:
    start: int
    end: int  # the line of its class
    message: list[str]
    frames: list[list[str]] = field(default_factory=list)
    earlier: "_Error | None" = None  # the exception this one was raised from
    ignored: bool = False  # it was printed, and ended nothing
    bare: bool = False  # without frames: Ray prints equal lines of several processes once

    def chain(self) -> list["_Error"]:
        return [self, *(self.earlier.chain() if self.earlier else [])]

    def says(self, pattern: str) -> bool:
        return re.match(pattern, self.message[0]) is not None


def clean(line: str) -> str:
    """The text of a log line, without colours, progress-bar overwrites and Ray's `(Name pid=1)` prefixes."""
    return _split(line)[1]


def _split(line: str) -> tuple[str, str]:
    line = _ANSI.sub("", line).rstrip("\r\n")
    source = ""
    while match := _SOURCE.match(line):
        source += (match[1] or match[2]) + " "
        line = line[match.end() :]
    line = line.rsplit("\r", 1)[-1]
    return source.strip(), _RAY_DEDUP.sub("", _VLLM_PREFIX.sub("", line)).rstrip()


class _Parser:
    """Collects the exceptions of one process: lines of several processes are interleaved in the log."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.errors: list[_Error] = []
        self.frames: list[list[str]] = []
        self.start = self.last = 0
        self.torn = 0  # lines since the last frame that belong to no traceback
        self.in_ray_header = self.chained = self.in_message = self.ignored = self.in_logging = False

    def feed(self, number: int, line: str) -> None:
        line = _GROUP.sub("", line)
        if _IGNORED.match(line):
            self.ignored, self.in_message, self.in_logging = True, False, line.startswith("--- Logging")
        if self.in_logging and self.errors and self.errors[-1].ignored and not self.frames:
            self.in_logging = not line.startswith("Arguments:")  # the stack of the call that logged
        elif match := _FRAME.match(line):
            self.start = self.start if self.frames and not self.torn else number
            self.frames.append([_place(*match.groups())])
            self.in_message, self.torn = False, 0
        elif _RAY_HEADER.match(line):  # the frames so far only called ray.get; those of the remote task follow
            self.frames, self.in_ray_header, self.in_message, self.start, self.torn = [], True, False, number, 0
        elif (self.frames or self.in_ray_header) and line[:1].isspace():
            if self.frames and len(self.frames[-1]) == 1 and not _CARETS.match(line):
                self.frames[-1].append("    " + line.strip())
        elif _PLUGIN_ERROR.match(line) or (
            (self.frames or self.in_ray_header) and (_SURE_EXCEPTION if self.torn else _EXCEPTION).match(line)
        ):
            self._close(number, line)
        elif self.in_message and self._goes_on(number, line):
            self.errors[-1].message.append(line.rstrip())
            self.last = number
        elif "pid=" in self.source and not self.frames and _BARE_EXCEPTION.match(line):
            self._close(number, line)
            self.errors[-1].bare = True
        else:
            self.in_message = False
            self.torn += bool(self.frames)
            if "Traceback" in line or self.torn > _TORN or "pid=" not in self.source:
                self.frames, self.in_ray_header, self.torn = [], False, 0
            self.chained = self.chained if not line.strip() or "Traceback" in line else bool(_CHAIN.match(line))

    def _goes_on(self, number: int, line: str) -> bool:
        if "pid=" in self.source and number > self.last + 1:  # Ray prints what a process says at once in one piece
            return False
        message = self.errors[-1].message
        if "ChildFailedError" in message[0]:  # torchrun's table
            return len(message) < 40 and "Traceback" not in line
        empty = len(message) == 1 and message[0].endswith(":")
        return len(message) < _MESSAGE and bool(line.strip() or empty) and not _NOT_A_MESSAGE.match(line)

    def _close(self, number: int, line: str) -> None:
        earlier = self.errors.pop() if self.chained and self.errors else None
        start = earlier.start if earlier else (self.start if self.frames or self.in_ray_header else number)
        ignored = self.ignored or (bool(self.frames) and self.frames[-1][0].endswith(" in __del__"))
        self.errors.append(_Error(start, number, [line], self.frames, earlier, ignored))
        self.frames, self.in_ray_header, self.chained, self.in_message = [], False, False, True
        self.ignored, self.torn, self.last = False, 0, number


def _place(path: str, line: str, function: str | None) -> str:
    path = path.rsplit("site-packages/", 1)[-1]
    return f"  {path}:{line}" + (f" in {function}" if function else "")


def find_cause(log: str, limit: int = 15) -> Cause:
    """The cause of a failed run, in at most `limit` lines: what the first of `_RULES` finds that finds one."""
    said = _Log(log.split("\n"))
    cause = next(cause for rule in _RULES if (cause := rule(said)))
    return Cause(cause.kind, [_shorten(line) for line in cause.lines[:limit]])


class _Log:
    """What a log says behind the last step, after which it ended.

    A line is its number. errors: that count, in order. real: those that are no consequence of others. last: the one
    that ended the driver. doomed: real ones of processes that died. natives: last words without an exception. deaths:
    what Ray says of dead workers. shells: lines of no process of Ray's, where the driver has no exception.
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = [_split(line) for line in lines]
        self.sources = [source for source, _ in self.lines]
        parsers: dict[str, _Parser] = {}
        for number, (source, line) in enumerate(self.lines):
            parsers.setdefault(source, _Parser(source)).feed(number, line)
        printed = sorted((e for p in parsers.values() for e in p.errors), key=lambda e: e.start)
        self.alive = max((n for n, (_, line) in enumerate(self.lines) if _PROGRESS.match(line)), default=-1)
        self.dead = _dead(printed, self.lines)
        self._spoke_last = {source: n for n, (source, line) in enumerate(self.lines) if line.strip()}
        self.errors = [e for e in printed if self._counts(e) and not e.ignored]
        if not self.errors and self.alive < 0:
            self.errors = printed
        self.real = [e for e in self.errors if not e.bare and not _is_consequence(e)]
        self.last = next((e for e in reversed(self.errors) if not self.sources[e.end] and not e.bare), None)
        self.doomed = [e for e in self.errors if self.died(e.end) and not _is_consequence(e)]
        natives = self.after(_is_native)
        # An exception may be what a timeout waited for.
        self.natives = [n for n in natives if not (self.real and _WATCHDOG.search(self.lines[n][1]))]
        self.deaths = self.after(_WORKER_DEATH.search)
        self.shells = [n for n in self.after(bool) if self.last is None and not self.sources[n]]

    def after(self, is_one: Callable[[str], object]) -> list[int]:
        return [n for n in range(self.alive + 1, len(self.lines)) if is_one(self.lines[n][1])]

    def died(self, number: int) -> bool:
        """Whether the process that said this line is said to have died."""
        source = self.sources[number]
        engine = "engine" in self.dead and bool(_ENGINE_SOURCE.search(source))
        return engine or bool(self.dead & set(re.findall(r"pid=(\d+)", source)))

    def _counts(self, error: _Error) -> bool:
        # Ray prints the lines of several processes out of order: the last words of one that died count before the step.
        ended = error.end + len(error.message) > self._spoke_last[self.sources[error.end]]
        return error.end > self.alive or (self.died(error.end) and ended)


def _own_refusal(log: _Log) -> Cause | None:
    links = (link for e in log.errors for link in e.chain())
    return next((Cause("plugin", _show(link)) for link in links if link.says(_PLUGIN_ERROR.pattern)), None)


def _configuration(log: _Log) -> Cause | None:
    if message := _hydra_message(log.lines):
        return Cause("config", message)
    return next((Cause("config", _show(e)) for e in log.errors if e.says(r"(?:omegaconf|hydra)\.")), None)


def _full_disk_or_memory(log: _Log) -> Cause | None:
    # A report of the raylet may come late, and the exception that others made of a full disk earlier.
    for link in (link for e in log.errors for link in e.chain()):
        if _EXHAUSTED.search(link.message[0]):
            return Cause("traceback", _show(link))
    told = sorted({*log.natives, *log.deaths, *log.shells})
    lines = (log.lines[n][1] for n in told if _EXHAUSTED.search(log.lines[n][1]))
    return next((Cause("worker", _show_death(line, log.sources)) for line in lines), None)


def _stalled(log: _Log) -> Cause | None:
    """A run that hung is ended by its launcher, so that what says so comes of that."""
    said = [log.lines[n][1] for n in log.after(_STALLED.search)]
    before = _show(log.real[-1], log.lines) if log.real else []
    return Cause("native", said[:1] + before) if said else None


def _end_of_the_driver(log: _Log) -> Cause | None:
    last = log.last
    nothing_died = not (log.dead or log.deaths or log.natives)
    if last is None or not (last in log.real or (nothing_died and _is_weak(last))):
        return None
    device = [n for n in log.natives if n < last.end and "block: [" in log.lines[n][1]]
    if device and re.search("CUDA error|device-side", " ".join(last.message)):
        return Cause("native", _show_native(device[0], log.lines))
    earlier = _earlier(log) if last not in log.real else []
    return Cause("traceback", _show(_as_first_said(last, log.errors), log.lines, earlier))


def _end_of_a_worker(log: _Log) -> Cause | None:
    """Last words without an exception or, if it came first, the exception of the process that died."""
    fatal = log.doomed[-1] if log.doomed else log.real[0] if log.real and not log.dead else None
    words = [n for n in log.natives if log.died(n)] or log.natives
    if log.last is None and (own := [n for n in log.natives if not log.sources[n]]):
        fatal, words = None, own  # a shell's or the kernel's word on the driver
    if words and not (fatal and fatal.start < words[0]):
        return Cause("native", _show_native(words[0], log.lines))
    if fatal and (log.doomed or not log.deaths or log.deaths[0] >= fatal.start):
        end = [log.lines[n][1] for n in log.shells if n > fatal.end][-1:]
        return Cause("traceback", _show(fatal, log.lines, [f"The log ends with: {line}" for line in end]))
    return None


def _death_or_consequence(log: _Log) -> Cause | None:
    more = _earlier(log)
    for n in reversed(log.after(re.compile(r"(?:ERROR|CRITICAL)\b").match)):
        if log.sources[n] and (log.died(n) or not log.dead):
            more.insert(0, f"Before that, {log.sources[n]} said: {log.lines[n][1]}")
            break
    if log.deaths:
        return Cause("worker", _show_death(log.lines[log.deaths[0]][1], log.sources) + more)
    if log.errors:
        return Cause("traceback", _show(log.last or log.errors[0], log.lines, more))
    return None


def _end_of_the_log(log: _Log) -> Cause:
    return Cause("tail", [line for _, line in log.lines if line.strip()][-10:])


_RULES: tuple[Callable[[_Log], Cause | None], ...] = (
    _own_refusal,
    _configuration,
    _full_disk_or_memory,
    _stalled,
    _end_of_the_driver,
    _end_of_a_worker,
    _death_or_consequence,
    _end_of_the_log,
)


def _is_weak(error: _Error) -> bool:
    return bool(_WEAK_CONSEQUENCE.match(_judged(error))) and not _CONSEQUENCE.match(_judged(error))


def _is_consequence(error: _Error) -> bool:
    return bool(_WEAK_CONSEQUENCE.match(_judged(error)) or _CONSEQUENCE.match(_judged(error)))


def _judged(error: _Error) -> str:
    """The first line, and what NCCL says below: anything else there may have been printed by chance."""
    return " ".join([error.message[0], *filter(_NCCL.match, error.message[1:])])


def _is_native(line: str) -> bool:
    if _PROGRESS.match(line):
        return False
    return bool(_NATIVE.match(line) or _NATIVE.match(_GLOG.sub("", line)) or _NATIVE_WITHIN.search(line))


def _dead(errors: list[_Error], lines: list[tuple[str, str]]) -> set[str]:
    """The process ids that Ray or the raylet says to have died, and "engine" for vLLM's."""
    said = [line for e in errors if _is_consequence(e) for line in e.message]
    dead = {pid for line in said for pid in re.findall(r"^\s*pid: (\d+)", line)}
    dead |= {pid for _, line in lines if _WORKER_DEATH.search(line) for pid in re.findall(r"Worker PID: (\d+)", line)}
    return dead | ({"engine"} if any(_ENGINE.search(line) for line in said) else set())


def _as_first_said(last: _Error, found: list[_Error]) -> _Error:
    """The driver's exception, where another process raised it: with that one's frames."""
    root = last.chain()[-1].message[0]
    return next((e for e in found if root in (link.message[0] for link in e.chain())), last)


def _earlier(log: _Log) -> list[str]:
    """An error of another process, which may be the cause or have been caught: nobody says."""
    said = log.real[-1:]
    return [f"Before that, {log.sources[e.end] or 'the driver'} said: {' '.join(e.message[:2])}" for e in said]


def _show_native(number: int, lines: list[tuple[str, str]]) -> list[str]:
    """The last words of a process, what they say of the reason and the place, and which process it was."""
    source = lines[number][0]
    own = [_GLOG.sub("", line) for other, line in lines[number + 1 :] if other == source]
    said, shown = _GLOG.sub("", lines[number][1]), []
    if " panicked at " in said:
        shown += own[:1]
    for place, line in enumerate(own[:60]):
        what = re.match(r"\s*what\(\):\s+(.*)", line)
        if what:
            shown.append(f"what(): {what[1]}")
        elif line.startswith("PC: @"):
            shown.append(line)
        elif re.match(r"(?:Current thread|Thread|Stack) .*\(most recent call first\)", line):
            frames = [f"  {_place(*m.groups())}" for m in map(_FAULT_FRAME.match, own[place + 1 : place + 20]) if m]
            shown += [frame for frame in frames if not _LIBRARY.match(frame)][:3]
            break
    return [said, *dict.fromkeys(shown), *([f"The process was {source}."] if "pid=" in source else [])]


def _show_death(line: str, sources: list[str]) -> list[str]:
    """Ray's sentence about a dead worker without its identifiers, and which of verl's processes it was."""
    pid = re.search(r"Worker PID: (\d+)", line)
    name = pid and next((s for s in sources if s.endswith(f" pid={pid.group(1)}")), None)
    sentence = re.sub(r" To troubleshoot.*?(?=Worker exit type|$)", " ", _GLOG.sub("", line))
    sentence = re.sub(r"^.*? -- (?=A worker died)| at node \(ID: [^)]*\)| To see more information.*", "", sentence)
    return [sentence] + ([f"The process was {name}."] if name else [])


def _hydra_message(lines: list[tuple[str, str]]) -> list[str]:
    """The paragraph hydra prints instead of a traceback when it cannot build the configuration."""
    texts = [line for _, line in lines]
    job = next((n for n, line in enumerate(texts) if line.startswith("Error executing job")), None)
    if job is not None:  # the configuration was built; hydra itself may still say why in a paragraph and without frames
        said = list(itertools.takewhile(str.strip, texts[job + 1 :]))
        own = said and not re.match(r"Traceback|ray\.|\s", said[0]) and any(_HYDRA_END in line for line in texts[job:])
        return said[:8] if own and not any(map(_FRAME.match, said)) else []
    end = next((n for n, line in enumerate(texts) if line.startswith(_HYDRA_END)), 0)
    while end and not texts[end - 1].strip():
        end -= 1
    start = end
    while start and texts[start - 1].strip() and not _NOT_A_MESSAGE.match(texts[start - 1]):
        start -= 1
    if any(_FRAME.match(line) for line in texts[start:end]):
        return []
    head = next((n for n in range(max(0, end - 40), end) if _HYDRA_BEGIN.match(texts[n])), None)
    if head is not None:  # a list of what there is may stand below, behind a blank line
        return [line for line in texts[head:end] if line.strip()][:8]
    return texts[start:end][-8:]


def _show(error: _Error, lines: Sequence[tuple[str, str]] = (), more: Sequence[str] = ()) -> list[str]:
    """The message, what it was raised from if that says more, `more`, and the three innermost frames."""
    # An identifier more or less says nothing; Ray's sentence on why an actor died stands behind five of them.
    message = [error.message[0], *(line for line in error.message[1:] if not _SAYS_NOTHING.match(line))]
    if error.says(r"\S*ChildFailedError"):  # torchrun's table
        message = message[:1] + [line for line in message if re.match(r"\s*(?:exitcode|traceback) *:", line)]
    if message[0].endswith(":") and len(message) > 5:  # code, and then what is wrong with it
        message = [*message[:2], "...", *message[-2:]]
    message = message[:5]
    raised_from: list[str] = []
    for link in error.chain()[1:]:
        text = link.message[0].partition(": ")[2]
        if text and text not in " ".join([*error.message, *raised_from]):
            raised_from.append(f"raised from {link.message[0]}")
    if error.says(r"\S*CalledProcessError|.*CalledProcessError: "):  # what the compiler said before
        source = lines[error.end][0] if lines else ""
        said = [line for other, line in lines[: error.start] if other == source and _COMPILER.search(line)]
        raised_from += said[-1:]
    frames = [frame for frame in error.frames if not _LIBRARY.match(frame[0])] or error.frames
    return message + raised_from[:3] + list(more) + [line for frame in frames[-3:] for line in frame]


def _shorten(line: str, width: int = 500) -> str:
    return line if len(line) <= width else f"{line[: width - 153]}...{line[-150:]}"
