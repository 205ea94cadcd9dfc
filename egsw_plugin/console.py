"""What the plugin tells the user; while verl runs, lines that begin with ``[egsw]``."""

_warned: set[str] = set()


def say(message: str) -> None:
    """Print one line; Ray carries it from any actor to the driver's terminal."""
    print(f"[egsw] {message}", flush=True)


def one_line(text: str) -> str:
    r"""A text that may quote a file or a model, as one line on which no terminal acts: the rest is escaped.

    >>> print(one_line("a\x1b[2Jb\u202ec \u00e9" + chr(10) + "lem"))
    a\x1b[2Jb\u202ec é\nlem
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def warn_once(message: str) -> None:
    """Print a warning, the first time in this process."""
    if message not in _warned:
        _warned.add(message)
        say(f"warning: {message}")
