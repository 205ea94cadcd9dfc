"""Why a verl run failed, found in its log."""

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
_CARETS = re.compile(r"[\s~^]+$")
_EXCEPTION = re.compile(r"((?:\w+\.)*[A-Z]\w*)(?:\([\w., ]*\))?(?::\s|:?$)")
_RAY_HEADER = re.compile(r"(?:ray\.exceptions\.RayTaskError(?:\([\w., ]*\))?: )?ray::\S+")
_CHAIN = re.compile(r"The above exception was the direct cause|During handling of the above exception")
_NOT_A_MESSAGE = re.compile(
    r"(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\b|\d{4}-\d\d-\d\d|\[|Traceback|Training Progress|step:\d|"
    r"Error executing job|Set the environment variable HYDRA|The above exception|During handling"
)
_IDENTIFIER = re.compile(r"\s*(?:class_name|name|repr|namespace|pid|ip|node_ip|\w+_id):\s")
_PLUGIN_ERROR = re.compile(r"egsw_plugin\.[\w.]+: ")
_HYDRA_END = "Set the environment variable HYDRA_FULL_ERROR"
_WORKER_DEATH = re.compile(
    r"A worker died or was killed|killed due to (?:the node running low on memory|memory pressure)"
)

# What the rest of the job says after something else has gone wrong.
_CONSEQUENCES = re.compile(
    r"no materializable trajectories|ActorDiedError|ActorUnavailableError|WorkerCrashedError|RayActorError|"
    r"EngineDeadError|EngineCore encountered an issue|KeyboardInterrupt|SystemExit|CancelledError|"
    r"CalledProcessError|BrokenPipeError"
)


@dataclass
class Cause:
    """What to show: `kind` is plugin, config, traceback, worker or tail; `lines` are ready to print."""

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
    """Our own error; a configuration error; the first error or death of a worker; a consequence; the log's end."""
    for error in (link for e in errors for link in e.chain()):
        if error.says(_PLUGIN_ERROR.pattern):
            return Cause("plugin", _show(error))
    if message := _hydra_message(lines):
        return Cause("config", message)
    for error in errors:
        if error.says(r"(?:omegaconf|hydra)\."):
            return Cause("config", _show(error))
    real = [e for e in errors if not _CONSEQUENCES.search(" ".join(e.message))]
    deaths = [n for n, (source, line) in enumerate(lines) if source == "raylet" and _WORKER_DEATH.search(line)]
    if deaths and (not real or deaths[0] < real[0].start):
        return Cause("worker", _show_death(lines[deaths[0]][1], [source for source, _ in lines]))
    if errors:
        return Cause("traceback", _show((real or errors)[0]))
    return Cause("tail", [line for _, line in lines if line.strip()][-10:])


def _show_death(line: str, sources: list[str]) -> list[str]:
    """Ray's sentence about a dead worker without its identifiers, and which of verl's processes it was."""
    pid = re.search(r"Worker PID: (\d+)", line)
    name = pid and next((s for s in sources if s.endswith(f" pid={pid.group(1)}")), None)
    sentence = re.sub(r" To troubleshoot.*?(?=Worker exit type|$)", " ", line)
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
    first = next((n for n in range(start, end) if texts[n].startswith("Could not override")), start)
    return [] if any(_FRAME.match(line) for line in texts[start:end]) else texts[first:end][-8:]


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
