"""Puts tables into a page between marks, so that the words around them are written by hand and the numbers are not."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"(<!-- table: ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, tables: dict[str, str]) -> str:
    r"""The page with each `<!-- table: NAME -->` ... `<!-- end -->` holding that table.

    Raises:
        ValueError: the page has no such mark, or names a table that is not there.

    >>> print(fill("Seen:\n<!-- table: a -->\nold\n<!-- end -->\n", {"a": "| 1 |\n"}))
    Seen:
    <!-- table: a -->
    <BLANKLINE>
    | 1 |
    <BLANKLINE>
    <!-- end -->
    <BLANKLINE>
    """
    named = [match[2] for match in _BLOCK.finditer(page)]
    if len(named) != len(re.findall("<!-- *table", page)) or len(named) != page.count("<!-- end -->"):
        raise ValueError("every <!-- table: NAME --> needs an <!-- end --> of its own, each on a line")
    if not named:
        raise ValueError("the page has no <!-- table: NAME --> ... <!-- end -->; there are " + ", ".join(tables))
    for name in named:
        if name not in tables:
            raise ValueError(f"table: {name}: there is no such table; there are {', '.join(tables)}")
    return _BLOCK.sub(lambda match: f"{match[1]}\n{tables[match[2]]}\n{match[3]}", page)


def figures_of(page: str) -> set[str]:
    """The file names of the pictures that a page shows.

    >>> sorted(figures_of("![One](study/a.png) and ![](b.png), [no picture](c.png)"))
    ['a.png', 'b.png']
    """
    return {Path(place).name for place in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)}


def whole_page(tables: dict[str, str], figures: list[Path]) -> str:
    """A page with every table and figure, for a study that has no words of its own."""
    parts = [f"## {name}\n\n{text}" for name, text in tables.items()]
    return "\n".join(["# Study\n", *parts, *(f"![{figure.stem}]({figure.name})\n" for figure in figures)])
