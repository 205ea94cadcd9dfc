"""The pages that members write themselves: their options, and the family's table with a section for each.

python -m egsw_plugin.methods.pages docs     (make pages) rewrites what stands below MARK in docs/*.md
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import markdown
from ..controllers import RULES
from ..options import page, show, table
from . import LOSSES, MEMBERS, named
from .interface import Base, Member, PolicyLoss

MARK = "<!-- `make pages` writes what follows, from the members' own declarations. -->"
_EXAMPLE = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)  # for Markdown, >>> is a quotation


def members(names: Iterable[str] | None = None) -> Iterator[Member[Any]]:
    """The members of these names, in whichever table; by default this package's own, bases and transforms first.

    Raises:
        MemberError: one cannot be imported.
    """
    if names is None:
        yield from (MEMBERS[name] for name in MEMBERS.own)
        yield from (LOSSES[name] for name in LOSSES.own)
        return
    for name in names:
        yield from named(name)


def kind(member: Member[Any]) -> str:
    """What a member is, in a word or two."""
    return "policy loss" if isinstance(member, PolicyLoss) else "base" if isinstance(member, Base) else "transform"


def options_page(chosen: Iterable[Member[Any]]) -> str:
    """The options of members as sections of Markdown; a policy loss without options is left out."""
    sections = []
    for member in chosen:
        if isinstance(member, PolicyLoss) and not dataclasses.fields(member.options_type):
            continue
        sections.append(page(_title(member), member.section, member.options_type))
    return "\n\n".join(sections)


def controllers_page() -> str:
    """What a controller in place of a number may be given."""
    return "\n\n".join(f"## Controller `{rule.controller}`\n\n{table(rule)}" for rule in RULES)


def family_page(chosen: Iterable[Member[Any]]) -> str:
    """The family as a table, and a section for each member: what its docstring says."""
    chosen = list(chosen)
    columns = [
        "member",
        "kind",
        "what it does",
        "which tokens it favours",
        "source",
        "without effect",
        "cost",
        "how tested",
    ]
    rows = [
        [
            f"[`{member.name}`](#{_anchor(member)})",
            kind(member),
            _first_line(member),
            member.favours,
            member.source,
            _identity(member),
            member.cost,
            member.status,
        ]
        for member in chosen
    ]
    overview = markdown.table(columns, rows, f"|{'---|' * len(columns)}")
    return "\n\n".join([overview, *map(_section, chosen)])


def _title(member: Member[Any]) -> str:
    title = member.title or member.name
    return f"{title} ({member.source})" if member.source else title


def _heading(member: Member[Any]) -> str:
    return f"{kind(member)} `{member.name}`"


def _anchor(member: Member[Any]) -> str:
    return _heading(member).replace("`", "").replace(" ", "-")


def _first_line(member: Member[Any]) -> str:
    return (inspect.getdoc(type(member)) or "").split("\n", 1)[0]


def _identity(member: Member[Any]) -> str:
    """The options under which a member leaves the base as it is."""
    if member.identity is None:
        return ""
    return " ".join(f"`{key}={show(value)}`" for key, value in member.identity.items())


def _section(member: Member[Any]) -> str:
    doc = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", inspect.getdoc(type(member)) or "")
    options = f"Options: `{member.section}`" if dataclasses.fields(member.options_type) else "No options"
    return f"### {_heading(member)}\n\n{doc}\n\n    {member.formula}\n\n{options}."


def _rewrite(path: Path, text: str) -> None:
    head = path.read_text(encoding="utf-8").partition(MARK)[0]
    path.write_text(f"{head}{MARK}\n\n{text}\n", encoding="utf-8")


def main(folder: Path) -> None:
    """Rewrite the pages in `folder`."""
    _rewrite(folder / "options.md", f"{options_page(members())}\n\n{controllers_page()}")
    _rewrite(folder / "family.md", family_page(members()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
