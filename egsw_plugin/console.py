"""What the plugin tells the user; while verl runs, lines that begin with ``[egsw]``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_warned: set[str] = set()
_MUTED: ContextVar[bool] = ContextVar("egsw_plugin_muted", default=False)


@contextmanager
def muted() -> Iterator[None]:
    """Warn of nothing meanwhile: for what is tried on numbers that are not the user's."""
    token = _MUTED.set(True)
    try:
        yield
    finally:
        _MUTED.reset(token)


def say(message: str) -> None:
    """Print one line; Ray carries it from any actor to the driver's terminal."""
    print(f"[egsw] {message}", flush=True)


def one_line(text: str) -> str:
    r"""A text that may quote a file or a model, as one line on which no terminal acts: the rest is escaped.

    >>> print(one_line("a\x1b[2Jb\u202ec \u00e9" + chr(10) + "lem"))
    a\x1b[2Jb\u202ec é\nlem
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def refuse(command: str, why: object, code: int) -> int:
    """Say in one line on standard error why a command ("" for any) of ``egsw-plugin`` fails; returns its exit code.

    That nobody reads what it prints is no fault: such an error goes on to `cli.main`.
    """
    if isinstance(why, BrokenPipeError):
        raise why
    print(one_line(f"egsw-plugin {command}".rstrip() + f": {why}"), file=sys.stderr)
    return code


def warn_once(message: str, key: str | None = None) -> None:
    """Print a warning, the first time in this process; `key` is what it is about, where its numbers may change."""
    if (key or message) not in _warned and not _MUTED.get():
        _warned.add(key or message)
        say(f"warning: {message}")
