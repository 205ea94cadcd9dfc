"""Why a verl run failed, found in its log: by an exception, or by what a process says that dies without one."""

import re
from collections import defaultdict
from dataclasses import dataclass, field

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SOURCE = re.compile(r"\(((?:[\w.:<>-]+ )?pid=\d+(?:, ip=[^)]*)?|raylet|autoscaler|gcs_server)\) ?")
_VLLM_PREFIX = re.compile(
    r"(?:ERROR|WARNING|INFO) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]+\] ?(?=Traceback|\s|[\w.]+(?:Error|Exception)\b)"
)
_RAY_DEDUP = re.compile(r" \[repeated \d+x across cluster\].*$")
_FRAME = re.compile(r'\s+File "([^"]+)", line (\d+)(?:, in (.+))?$')
_LIBRARY = re.compile(r"  (?:ray/|hydra/_internal/|.*/lib/python3\.\d+/)")  # frames that tell a reader nothing
_FAULT_FRAME = re.compile(r'\s+File "([^"]+)", line (\d+) in (.+)$')
_CARETS = re.compile(r"[\s~^]+$")
_EXCEPTION = re.compile(r"((?:\w+\.)*[A-Z]\w*)(?:\([\w., ]*\))?(?::\s|:?$)")
_RAY_HEADER = re.compile(r"(?:ray\.exceptions\.RayTaskError(?:\([\w., ]*\))?: )?ray::\S+")
_CHAIN = re.compile(r"The above exception was the direct cause|During handling of the above exception")
_NOT_A_MESSAGE = re.compile(
    r"(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\b|\d{4}-\d\d-\d\d|\[|Traceback|Training Progress|step:\d|"
    r"Error executing job|Set the environment variable HYDRA|The above exception|During handling"
)
_GLOG = re.compile(r"\[\d{4}-\d\d-\d\d [\d:,]+ [A-Z] \d+ \d+\] (?:\([\w-]+\) )?[\w.]+:\d+: ?")
_IDENTIFIER = re.compile(r"\s*(?:class_name|name|repr|namespace|pid|ip|node_ip|\w+_id):\s")
_PLUGIN_ERROR = re.compile(r"egsw_plugin\.[\w.]+: ")
_HYDRA_BEGIN = re.compile(r"(?:In '.*': )?Could not (?:override|find|load)|Error merging override")
_HYDRA_END = "Set the environment variable HYDRA_FULL_ERROR"
_WORKER_DEATH = re.compile(
    r"A worker died or was killed|killed due to (?:the node running low on memory|memory pressure)"
)
# What a process says that dies without an exception of Python: its own last words, C's, CUDA's, NCCL's, a shell's, the
# kernel's and a scheduler's.
_NATIVE = re.compile(
    r"\*\*\* SIG[A-Z]+ \(?.*received|Fatal Python error: |terminate called |Unhandled exception: |LLVM ERROR: |"
    r"(?:free|malloc|realloc|munmap_chunk)\(\): |double free or corruption|corrupted (?:size|double-linked)|"
    r"\*\*\* stack smashing detected|.*\bAssertion [`'].*' failed|.*\bAssertion `.*` failed|"
    r".*\bWatchdog caught collective operation timeout|.*\bCheck failed: |"
    r"(?:Segmentation fault|Bus error|Aborted|Illegal instruction|Killed)\b(?: *\(core dumped\))?$|"
    r".*: line \d+: +\d+ (?:Killed|Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception)|"
    r"slurmstepd: error: |.*\bOut of memory: Killed process|.*\boom[-_]kill(?:er)?\b|"
    r".*pthread_create failed|libgomp: |.*symbol lookup error: "
)
# The machine ran out of something: whatever else the log says comes of that.
_EXHAUSTED = re.compile(
    r"No space left on device|Disk quota exceeded|OutOfDiskError|killed due to memory pressure|"
    r"killed due to the node running low on memory|Out of memory: Killed process|\boom[-_]kill|OOM[ -]Killed"
)

# What the rest of the job says after something else has gone wrong.
_CONSEQUENCES = re.compile(
    r"no materializable trajectories|ActorDiedError|ActorUnavailableError|WorkerCrashedError|RayActorError|"
    r"EngineDeadError|EngineCore encountered an issue|KeyboardInterrupt|SystemExit|CancelledError|"
    r"CalledProcessError|BrokenPipeError|Engine core initialization failed|Engine core proc|WorkerProc initialization|"
    r"EngineGenerateError|ChildFailedError|LocalRayletDiedError|NodeDiedError|BrokenProcessPool|GetTimeoutError|"
    r"ConnectionResetError|ConnectionRefusedError|EOFError|[Cc]onnection (?:closed|reset) by peer|[Bb]roken pipe|"
    r"ncclRemoteError|remote process exited|recvValue failed|Socket closed|after shutdown|"
    r"DataLoader worker \(pid.*\) (?:exited unexpectedly|is killed by signal)|"
    r"Session was reset|failed to connect to all addresses"
)


@dataclass
class Cause:
    """What to show: `kind` is plugin, config, traceback, worker, native or tail; `lines` are ready to print."""

    kind: str
    lines: list[str]


@dataclass
class _Error:
    start: int
    message: list[str]
    frames: list[list[str]] = field(default_factory=list)
    earlier: "_Error | None" = None  # the exception this one was raised from

    def chain(self) -> list["_Error"]:
        return [self, *(self.earlier.chain() if self.earlier else [])]

    def says(self, pattern: str) -> bool:
        return re.match(pattern, self.message[0]) is not None


def clean(line: str) -> str:
    """The text of a log line, without colours, progress-bar overwrites and Ray's `(Name pid=1)` prefixes."""
    return _split(line)[1]


def _split(line: str) -> tuple[str, str]:
    line = _ANSI.sub("", line).rstrip("\r\n").rsplit("\r", 1)[-1]
    source = ""
    while match := _SOURCE.match(line):
        source += match.group(1) + " "
        line = line[match.end() :]
    return source.strip(), _RAY_DEDUP.sub("", _VLLM_PREFIX.sub("", line)).rstrip()


class _Parser:
    """Collects the exceptions of one process: lines of several processes are interleaved in the log."""

    def __init__(self) -> None:
        self.errors: list[_Error] = []
        self.frames: list[list[str]] = []
        self.start = 0
        self.in_ray_header = self.chained = self.in_message = False

    def feed(self, number: int, line: str) -> None:
        if match := _FRAME.match(line):
            self.start = self.start if self.frames else number
            self.frames.append([_place(*match.groups())])
            self.in_message = False
        elif _RAY_HEADER.match(line):  # the frames so far only called ray.get; those of the remote task follow
            self.frames, self.in_ray_header, self.in_message, self.start = [], True, False, number
        elif (self.frames or self.in_ray_header) and line[:1].isspace():
            if self.frames and len(self.frames[-1]) == 1 and not _CARETS.match(line):
                self.frames[-1].append("    " + line.strip())
        elif _PLUGIN_ERROR.match(line) or ((self.frames or self.in_ray_header) and _EXCEPTION.match(line)):
            self._close(number, line)
        elif self.in_message and line.strip() and not _NOT_A_MESSAGE.match(line):
            self.errors[-1].message.append(line.rstrip())
        else:
            self.frames, self.in_ray_header, self.in_message = [], False, False
            self.chained = self.chained if not line.strip() or "Traceback" in line else bool(_CHAIN.match(line))

    def _close(self, number: int, line: str) -> None:
        earlier = self.errors.pop() if self.chained and self.errors else None
        start = earlier.start if earlier else (self.start if self.frames or self.in_ray_header else number)
        self.errors.append(_Error(start, [line], self.frames, earlier))
        self.frames, self.in_ray_header, self.chained, self.in_message = [], False, False, True


def _place(path: str, line: str, function: str | None) -> str:
    path = path.rsplit("site-packages/", 1)[-1]
    return f"  {path}:{line}" + (f" in {function}" if function else "")


def find_cause(log: str, limit: int = 15) -> Cause:
    """The cause of a failed run, in at most `limit` lines: see `_choose` for the order of preference."""
    lines = [_split(line) for line in log.split("\n")]
    parsers: dict[str, _Parser] = defaultdict(_Parser)
    for number, (source, line) in enumerate(lines):
        parsers[source].feed(number, line)
    errors = sorted((e for p in parsers.values() for e in p.errors), key=lambda e: e.start)
    cause = _choose(errors, lines)
    return Cause(cause.kind, [_shorten(line) for line in cause.lines[:limit]])


def _choose(errors: list[_Error], lines: list[tuple[str, str]]) -> Cause:
    """Our own error; a configuration error; a full disk or memory; the error that ended the run, or a process's last
    words before it; the death of a worker; a consequence; the log's end."""
    for error in (link for e in errors for link in e.chain()):
        if error.says(_PLUGIN_ERROR.pattern):
            return Cause("plugin", _show(error))
    if message := _hydra_message(lines):
        return Cause("config", message)
    for error in errors:
        if error.says(r"(?:omegaconf|hydra)\."):
            return Cause("config", _show(error))
    sources = [source for source, _ in lines]
    real = [e for e in errors if not _CONSEQUENCES.search(" ".join(e.message))]
    natives = [n for n, (_, line) in enumerate(lines) if _NATIVE.match(_GLOG.sub("", line))]
    deaths = [n for n, (_, line) in enumerate(lines) if _WORKER_DEATH.search(line)]
    # A report of the raylet may come late, and the exception that others made of a full disk earlier.
    exhausted = [link for e in errors for link in e.chain() if _EXHAUSTED.search(" ".join(link.message))]
    if exhausted:
        return Cause("traceback", _show(exhausted[0]))
    if found := [n for n in sorted({*natives, *deaths}) if _EXHAUSTED.search(lines[n][1])]:
        return Cause("worker", _show_death(lines[found[0]][1], sources))
    if natives and not (real and _fatal(real, errors, sources).start < natives[0]):
        return Cause("native", _show_native(natives[0], lines))
    if deaths and (not real or deaths[0] < real[0].start):
        return Cause("worker", _show_death(lines[deaths[0]][1], sources))
    if errors:
        return Cause("traceback", _show(_fatal(real, errors, sources) if real else errors[0]))
    return Cause("tail", [line for _, line in lines if line.strip()][-10:])


def _fatal(real: list[_Error], errors: list[_Error], sources: list[str]) -> _Error:
    """The exception that ended the run: the driver's last, where it is no consequence, as it was first said; else the
    first of all, since what was caught earlier is not known."""
    last = next((e for e in reversed(errors) if not sources[e.start]), None)
    if last is None or last not in real:
        return real[0]
    root = last.chain()[-1].message[0]
    return next((e for e in real if root in (link.message[0] for link in e.chain())), last)


def _show_native(number: int, lines: list[tuple[str, str]]) -> list[str]:
    """The last words of a process, what they say of the reason and the place, and which process it was."""
    source = lines[number][0]
    own = [_GLOG.sub("", line) for other, line in lines[number + 1 :] if other == source]
    said, shown = _GLOG.sub("", lines[number][1]), []
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
    if any(line.startswith("Error executing job") for line in texts):  # the configuration was built
        return []
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


def _show(error: _Error) -> list[str]:
    """The message, what it was raised from if that says more, and the three innermost frames."""
    # An identifier more or less says nothing; Ray's sentence on why an actor died stands behind five of them.
    message = [error.message[0], *(line for line in error.message[1:] if not _IDENTIFIER.match(line))][:5]
    root = error.chain()[-1]
    text = root.message[0].partition(": ")[2]
    raised_from = [f"raised from {root.message[0]}"] if text and text not in " ".join(error.message) else []
    frames = [frame for frame in error.frames if not _LIBRARY.match(frame[0])] or error.frames
    return message + raised_from + [line for frame in frames[-3:] for line in frame]


def _shorten(line: str, width: int = 500) -> str:
    return line if len(line) <= width else line[: width - 3] + "..."
