"""What the plugin tells the user; while verl runs, lines that begin with ``[egsw]``."""

_warned: set[str] = set()


def say(message: str) -> None:
    """Print one line; Ray carries it from any actor to the driver's terminal."""
    print(f"[egsw] {message}", flush=True)


def one_line(text: str) -> str:
    """A message that may quote a file, as one line that any terminal takes.

    >>> one_line("no field problem; it has prob" + chr(10) + "lem")
    'no field problem; it has prob\\\\nlem'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def warn_once(message: str) -> None:
    """Print a warning, the first time in this process."""
    if message not in _warned:
        _warned.add(message)
        say(f"warning: {message}")
