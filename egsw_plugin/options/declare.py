"""How options are declared and parsed: a frozen dataclass a section, whose fields carry documentation and a check.

`parse` turns a section of verl's configuration (``algorithm.egsw``) into the dataclass, or raises `OptionError` with
the key, the value and the fix.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from ..errors import OptionError

T = TypeVar("T")


def option(default: Any, check: Callable[[Any], Any], doc: str, symbol: str = "", paper: str = "") -> Any:
    """Declare a field.

    check: returns the typed value, or raises `ValueError` with what would be right. symbol and paper: the paper's name
    and value, where it has them. A sub-section is a field whose check is its class of options.
    """
    return dataclasses.field(default=default, metadata={"check": check, "doc": doc, "symbol": symbol, "paper": paper})


def documented(options_type: type[T]) -> type[T]:
    """Append what the fields' declarations say to the docstring of a class of options."""
    lines = [options_type.__doc__.rstrip(), "", "    Options:"]
    for key, default, metadata in walk(options_type):
        notes = [metadata["symbol"] and f"{metadata['symbol']} in the paper", f"default {show(default)}"]
        notes.append(metadata["paper"] and f"paper: {metadata['paper']}")
        lines.append(f"        {key}: {metadata['doc']} ({'; '.join(filter(None, notes))})")
    options_type.__doc__ = "\n".join([*lines, "    "])
    return options_type


def walk(options_type: type, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Key, default and declaration of every option, those of sub-sections included."""
    for field in _fields(options_type):
        if dataclasses.is_dataclass(field.metadata["check"]):
            yield from walk(field.metadata["check"], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.default, field.metadata


def _fields(options_type: type) -> list[dataclasses.Field]:
    """A class's own fields before those that it inherits."""
    place = {name: i for i, name in enumerate(options_type.__annotations__)}
    return sorted(dataclasses.fields(options_type), key=lambda field: place.get(field.name, len(place)))


def show(value: Any) -> str:
    """A value as it is written in a configuration.

    >>> show(None), show(False), show((0.2, 0.28)), show("group")
    ('null', 'false', '[0.2,0.28]', 'group')
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"[{','.join(map(show, value))}]" if isinstance(value, tuple) else str(value)


def parse(options_type: type[T], section: Mapping[str, Any] | None, prefix: str) -> T:
    """Build `options_type` from a mapping; `None` or an empty mapping gives the defaults.

    Raises `OptionError` for an unknown key and for a value that its field's check refuses.

    >>> from egsw_plugin.options import EGSWOptions
    >>> parse(EGSWOptions, {"alpha": 0.1}, "algorithm.egsw").alpha
    0.1
    >>> parse(EGSWOptions, {"alhpa": 0.1}, "algorithm.egsw")
    Traceback (most recent call last):
    egsw_plugin.errors.OptionError: algorithm.egsw.alhpa=0.1: there is no such option; did you mean 'alpha'?
    """
    if section is None:
        section = {}
    if not isinstance(section, Mapping):
        raise OptionError(prefix, section, f"use a section of options, such as {prefix}.alpha=0.5")
    fields = {field.name: field for field in dataclasses.fields(options_type)}
    values = {}
    for key, value in section.items():
        name = f"{prefix}.{key}"
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            fix = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(fields)}"
            raise OptionError(name, value, f"there is no such option; {fix}")
        check = fields[key].metadata["check"]
        if dataclasses.is_dataclass(check):
            values[key] = parse(check, value, name)
            continue
        try:
            values[key] = check(value)
        except ValueError as error:
            raise OptionError(name, value, str(error)) from None
    return options_type(**values)


class Options:
    """What all classes of options can do."""

    def describe(self) -> str:
        """All options on one line, for the start-up message."""
        return " ".join(f"{key}={show(value)}" for key, value in self._items())

    def cautions(self) -> list[str]:
        """What a user should be told about a combination that can be run all the same."""
        return []

    def _items(self) -> Iterator[tuple[str, Any]]:
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if isinstance(value, Options):
                yield from ((f"{field.name}.{key}", inner) for key, inner in value._items())
            else:
                yield field.name, value


def page(name: str, options_type: type[Options]) -> str:
    """The options of method `name` as a section of Markdown with a table: paper against default."""
    title = options_type.__doc__.split("\n", 1)[0].split(",")[0].removeprefix("Options of ")
    return f"## {title}: `algorithm.{name}`\n\n{_table(options_type)}"


def _table(options_type: type[Options]) -> str:
    lines = ["| option (paper's symbol) | default | paper | meaning, unit, range |", "|---|---|---|---|"]
    for key, default, metadata in walk(options_type):
        name = f"`{key}`" + (f" ({metadata['symbol']})" if metadata["symbol"] else "")
        lines.append(
            f"| {name} | `{show(default)}` | {metadata['paper']} | {metadata['doc'].replace('|', chr(92) + '|')} |"
        )
    return "\n".join(lines)
