"""Tables as Markdown."""

from collections.abc import Iterable, Sequence


def table(titles: Sequence[object], rows: Iterable[Sequence[object]], rule: str | None = None) -> str:
    """A table, one line a row.

    Args:
        titles: Of the columns.
        rows: Their cells.
        rule: The line below the titles, which aligns the columns; by default the first left and the others right.

    >>> print(table(["cell", "success"], [["egsw", 0.5], ["a|b", ""]]))
    | cell | success |
    |---|---:|
    | egsw | 0.5 |
    | a\\|b |  |
    """
    head, *lines = (f"| {' | '.join(map(cell, row))} |" for row in (titles, *rows))
    return "\n".join([head, rule or "|---|" + "---:|" * (len(titles) - 1), *lines])


def cell(value: object) -> str:
    """Text that ends neither a cell nor a line."""
    return " ".join(str(value).splitlines()).replace("|", "\\|")
