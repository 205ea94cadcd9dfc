"""What the plugin tells the user while verl runs: lines that begin with ``[egsw]``."""

_warned: set[str] = set()


def say(message: str) -> None:
    """Print one line; Ray carries it from any actor to the driver's terminal."""
    print(f"[egsw] {message}", flush=True)


def warn_once(message: str) -> None:
    """Print a warning, the first time in this process."""
    if message not in _warned:
        _warned.add(message)
        say(f"warning: {message}")
