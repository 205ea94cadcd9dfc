"""What ``egsw-plugin data`` does."""

from pathlib import Path

from ..console import one_line, refuse
from ..errors import DataError
from .sources import SOURCES
from .writer import write


def run(name: str, out: Path, origin: str | None, style: str | None, rows: int | str | None) -> int:
    """Writes one data set, or all; one line each on standard output, or on standard error if it fails.

    Args:
        name: A name in ``SOURCES``, or "all", which goes on after a data set that fails.
        out: The folder to write to.
        origin: Where to load from instead of the data set's hub id; not with "all".
        style: The prompt style; None for each data set's own.
        rows: The number of rows expected, "any", or None for the data set's own number.

    Returns:
        The exit code: 0, 1 if a data set failed, 2 if the arguments make no sense, 130 after Ctrl-C.
    """
    names = list(SOURCES) if name == "all" else [name]
    if name != "all" and name not in SOURCES:
        return refuse("data", f"no data set {name!r}; use {', '.join(SOURCES)} or all", 2)
    if name == "all" and (origin is not None or isinstance(rows, int)):
        return refuse("data", "--source and --rows N are for one data set, not for all", 2)
    if origin is not None and not origin.strip():
        return refuse("data", "--source is empty; name a hub id, a file or a folder, or leave it out", 2)
    sources = [SOURCES[name] for name in names]
    for source in sources:
        if style is not None and style not in source.styles:
            why = f"{source.name} has no prompt style {style!r}; use {', '.join(source.styles)}"
            return refuse("data", why, 2)
    code = 0
    for source in sources:
        expected = source.rows if rows is None else rows if isinstance(rows, int) else None
        print(one_line(f"{source.name}: loading {origin or source.hub}"), flush=True)
        try:
            print(one_line(write(source, out, origin, style, expected)), flush=True)
        except DataError as error:
            code = refuse("data", f"{source.name}: {error}", 1)
        except KeyboardInterrupt:
            return refuse("data", f"{source.name}: interrupted, nothing written", 130)
    return code
