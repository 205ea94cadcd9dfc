"""How options are declared and parsed: a frozen dataclass a section, whose fields carry documentation and a check.

`parse` turns a section of verl's configuration (``algorithm.egsw``) into the dataclass, or raises `OptionError` with
the key, the value and the fix.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .. import markdown
from ..errors import OptionError
from .spelling import close, question

if TYPE_CHECKING:
    from ..controllers import Controller

T = TypeVar("T", bound="Options")


def option(
    default: Any,
    check: Callable[[Any], Any],
    doc: str,
    symbol: str = "",
    paper: str = "",
    controllers: Sequence[Any] = (),
) -> Any:
    """Declare a field.

    check: returns the typed value, or raises `ValueError` with what would be right. symbol and paper: the paper's name
    and value, where it has them. controllers: rules of `egsw_plugin.controllers` that may move the value, with their
    settings for this option; its type is `float` all the same, since a member is given the number of the step. A
    sub-section is a field whose check is its class of options, none of which controllers may move.
    """
    for name, field in getattr(check, "__dataclass_fields__", {}).items():
        if field.metadata.get("controllers"):
            fix = "an option of a sub-section cannot have controllers; declare it beside the sub-section"
            raise OptionError(f"{check.__name__}.{name}", show(field.metadata["controllers"]), fix)
    if hasattr(default, "reaches"):
        _refuse_out_of_range(default, check, "default")
    metadata = {"check": check, "doc": doc, "symbol": symbol, "paper": paper, "controllers": tuple(controllers)}
    return dataclasses.field(default=default, metadata=metadata)


def documented(options_type: type[T]) -> type[T]:
    """Append what the fields' declarations say to the docstring of a class of options."""
    lines = [(options_type.__doc__ or "").rstrip(), "", "    Options:"]
    for key, default, metadata in walk(options_type):
        notes = [metadata["symbol"] and f"{metadata['symbol']} in the paper", f"default {show(default)}"]
        notes.append(metadata["paper"] and f"paper: {metadata['paper']}")
        notes.append(values(metadata["check"]))
        lines.append(f"        {key}: {metadata['doc']} ({'; '.join(filter(None, notes))})")
    options_type.__doc__ = "\n".join([*lines, "    "])
    return options_type


def walk(options_type: type[Options], prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Key, default and declaration of every option, those of sub-sections included; `OptionError` for one without."""
    for field in _fields(options_type):
        if "check" not in field.metadata:
            fix = f"declare it as {field.name}: ... = option(DEFAULT, CHECK, MEANING)"
            raise OptionError(f"{options_type.__name__}.{field.name}", field.default, fix)
        if (part := _sub_section(field)) is not None:
            yield from walk(part, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.default, field.metadata


def _fields(options_type: type[Options]) -> list[dataclasses.Field[Any]]:
    """A class's own fields before those that it inherits."""
    place = {name: i for i, name in enumerate(options_type.__annotations__)}
    return sorted(dataclasses.fields(options_type), key=lambda field: place.get(field.name, len(place)))


def _sub_section(field: dataclasses.Field[Any]) -> type[Options] | None:
    """The class of options that a field is a sub-section of."""
    check = field.metadata["check"]
    return check if isinstance(check, type) and issubclass(check, Options) else None


def values(check: Callable[[Any], Any]) -> str:
    """What a check accepts, in words; "" for a plain function, which cannot say.

    >>> from egsw_plugin.options.checks import in_range, one_of
    >>> values(in_range(0, 1, inclusive=False)), values(one_of("group", "batch"))
    ('a number > 0 and < 1', 'group, batch')
    """
    return ", ".join(getattr(check, "choices", None) or ()) or getattr(check, "values", "")


def show(value: Any) -> str:
    """A value as it is written in a configuration.

    >>> show(None), show(False), show((0.2, 0.28)), show("group")
    ('null', 'false', '[0.2,0.28]', 'group')
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"[{','.join(map(show, value))}]" if isinstance(value, tuple) else str(value)


def parse(options_type: type[T], section: Mapping[str, Any] | None, prefix: str, start: T | None = None) -> T:
    """Build `options_type` from a mapping; `None` or an empty mapping gives the defaults, or those of `start`.

    Raises `OptionError` for an unknown key and for a value that its field's check refuses.

    >>> from egsw_plugin.controllers import Step
    >>> parse(Step, {"delta": 0.1}, "algorithm.credit.x").delta
    0.1
    >>> parse(Step, {"delat": 0.1}, "algorithm.credit.x")
    Traceback (most recent call last):
    egsw_plugin.errors.OptionError: algorithm.credit.x.delat=0.1: there is no such option; did you mean 'delta'?
    """
    if section is None:
        section = {}
    if not isinstance(section, Mapping):
        raise OptionError(
            prefix, section, f"use a section of options, such as {prefix}.{_example(options_type, section)}"
        )
    fields = {field.name: field for field in dataclasses.fields(options_type)}
    values: dict[str, Any] = {}
    for key, value in section.items():
        name = f"{prefix}.{key}"
        if key not in fields:
            near = close(key, fields)
            fix = question(near) if near else f"the options are {', '.join(fields)}"
            if not fields:
                fix = "it has no options"
            raise OptionError(name, value, f"there is no such option; {fix}")
        check, controllers = fields[key].metadata["check"], fields[key].metadata.get("controllers")
        if (part := _sub_section(fields[key])) is not None:
            values[key] = parse(part, value, name)
        elif controllers and isinstance(value, Mapping):
            values[key] = _parse_controller(value, name, fields[key])
        else:
            try:
                values[key] = check(value)
            except (TypeError, ValueError) as error:
                raise OptionError(name, value, str(error)) from None
    return options_type(**values) if start is None else dataclasses.replace(start, **values)


def _example(options_type: type[Options], value: Any) -> str:
    """An option with a value that it may have: the one that was given, where it fits."""
    for key, default, metadata in walk(options_type):
        with suppress(TypeError, ValueError):
            if type(value) is type(default) and metadata["check"](value) == value:
                return f"{key}={show(value)}"
    return next((f"{key}={show(default)}" for key, default, _ in walk(options_type)), "NAME=VALUE")


def _parse_controller(section: Mapping[str, Any], prefix: str, field: dataclasses.Field[Any]) -> Controller:
    """A rule that moves the value of `field`, in whose range its bounds and its first value must be."""
    rules: dict[str, Controller] = {rule.controller: rule for rule in field.metadata["controllers"]}
    section = dict(section)
    default: Any = field.default
    only = next(iter(rules)) if len(rules) == 1 else None
    kind = section.pop("controller", default.controller if hasattr(default, "controller") else only)
    if not isinstance(kind, str) or kind not in rules:
        raise OptionError(f"{prefix}.controller", kind, f"use one of {', '.join(rules)}")
    start: Controller = default if getattr(default, "controller", None) == kind else rules[kind]
    if start.initial is None and not hasattr(default, "controller"):
        start = dataclasses.replace(start, initial=default)
    rule = parse(type(start), section, prefix, start)
    if rule.initial is None:
        raise OptionError(f"{prefix}.initial", None, "set the first value")
    _refuse_out_of_range(rule, field.metadata["check"], prefix)
    for key, fix in rule.refusals():
        raise OptionError(f"{prefix}.{key}", getattr(rule, key), fix)
    return rule


def _refuse_out_of_range(rule: Controller, check: Callable[[Any], Any], prefix: str) -> None:
    """Refuse a rule that could give its option a value that the option's check refuses."""
    for key, reached, why in rule.reaches():
        try:
            check(reached)
        except (TypeError, ValueError) as error:
            raise OptionError(f"{prefix}.{key}", getattr(rule, key), f"{why}{error}") from None


class Options:
    """What all classes of options can do; each is a dataclass."""

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def describe(self) -> str:
        """All options on one line, for the start-up message."""
        return " ".join(f"{key}={show(value)}" for key, value in self._items())

    def cautions(self) -> list[str]:
        """What a user should be told about a combination that can be run all the same."""
        return []

    def refusals(self) -> list[tuple[str, str]]:
        """Combinations that cannot work: the option that is wrong, and the fix."""
        return []

    def _items(self) -> Iterator[tuple[str, Any]]:
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if isinstance(value, Options) and _sub_section(field) is not None:
                yield from ((f"{field.name}.{key}", inner) for key, inner in value._items())
            else:
                yield field.name, value


@dataclasses.dataclass(frozen=True)
class NoOptions(Options):
    """The options of a member that has none."""


def encode(options: Options) -> list[float]:
    """Options as numbers, by which those of a policy loss travel to the workers; `decode` is the inverse.

    A choice becomes its place among the choices, true and false 1 and 0, null NaN.

    Raises:
        OptionError: an option that is none of these and no number.
    """
    numbers = []
    for field in dataclasses.fields(options):
        value, choices = getattr(options, field.name), getattr(field.metadata["check"], "choices", None)
        if choices is not None:
            numbers.append(float(choices.index(value)))
        elif value is None:
            numbers.append(math.nan)
        elif isinstance(value, bool | int | float):
            numbers.append(float(value))
        else:
            fix = "options of a policy loss are numbers, true, false, null, or one_of a few names; declare it as one"
            raise OptionError(field.name, value, fix)
    return numbers


def decode(options_type: type[T], numbers: Sequence[float]) -> T:
    """Options from the numbers that `encode` made of them, of the types that their checks give.

    >>> from egsw_plugin.controllers import Step
    >>> decode(Step, encode(Step(delta=0.1, target=0.2))) == Step(delta=0.1, target=0.2)
    True
    """
    values: dict[str, Any] = {}
    for field, number in zip(dataclasses.fields(options_type), numbers, strict=True):
        choices = getattr(field.metadata["check"], "choices", None)
        if choices is not None:
            values[field.name] = choices[int(number)]
        elif math.isnan(number):
            values[field.name] = None
        else:
            values[field.name] = bool(number) if isinstance(field.default, bool) else _typed(field, number)
    return options_type(**values)


def _typed(field: dataclasses.Field[Any], number: float) -> Any:
    """An int where the field's check gives one: `range` takes no float."""
    if number.is_integer():
        with suppress(ValueError, TypeError):
            if (value := field.metadata["check"](int(number))) == number:
                return value
    return number


def page(title: str, key: str, options_type: type[Options]) -> str:
    """The options under `key` as a section of Markdown with a table: paper against default."""
    return f"## {title}: `{key}`\n\n{table(options_type)}"


def table(options_type: type[Options]) -> str:
    """A Markdown table of the options."""
    if not dataclasses.fields(options_type):
        return "It has no options."
    rows = []
    for key, default, metadata in walk(options_type):
        name = f"`{key}`" + (f" ({metadata['symbol']})" if metadata["symbol"] else "")
        doc = metadata["doc"]
        if rules := metadata.get("controllers"):
            doc += f". A controller may move it: {', '.join(f'`{rule}`' for rule in rules)}"
        rows.append([name, f"`{show(default)}`", metadata["paper"], values(metadata["check"]), doc])
    titles = ["option (paper's symbol)", "default", "paper", "values", "meaning, unit"]
    return markdown.table(titles, rows, "|---|---|---|---|---|")
