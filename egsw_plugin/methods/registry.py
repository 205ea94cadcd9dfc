"""Where a member is: in our own list, behind another package's entry point, or in a file.

Names are known without an import; a member is imported when it is asked for. One that cannot be, a stranger's most of
all, is reported with whose it is, and takes nothing else down.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import MemberError
from ..options.declare import Options, show

if TYPE_CHECKING:
    from .interface import Member

M = TypeVar("M", bound="Member[Any]")

FILE_SEPARATOR = ".py:"
_CHECKS = {int: "whole(LOW, HIGH)", float: "finite", bool: "flag"}  # types are no checks: what to use instead


class Registry(Mapping[str, M], Generic[M]):
    """Members by name.

    Iterating gives our own names and those of entry points; `registry[name]` imports the member, and takes a file's
    (PATH.py:OBJECT) as well. taken: names of verl's own, which no entry point gets.
    """

    def __init__(self, group: str, own: Mapping[str, str], taken: Collection[str] = ()):
        self.group, self.own, self.taken = group, dict(own), set(taken)
        self._loaded: dict[str, M] = {}

    def take(self, names: Collection[str]) -> None:
        """Leave out entry points of these names, too: those of the verl that runs."""
        self.taken |= set(names)
        self.__dict__.pop("strangers", None)  # found anew

    @cached_property
    def strangers(self) -> dict[str, importlib.metadata.EntryPoint]:
        """Entry points of other packages, by name; ours, verl's, and the first of two that share a name go before."""
        found: dict[str, importlib.metadata.EntryPoint] = {}
        for point in importlib.metadata.entry_points(group=self.group):
            if point.name not in self.own and point.name not in self.taken:
                found.setdefault(point.name, point)
        return found

    def conflicts(self) -> list[str]:
        """Entry points that are left out because their name is taken."""
        points = list(importlib.metadata.entry_points(group=self.group))
        return [
            f"{point.name} of {_package(point)} ({self.group}) is left out: the name is taken by "
            f"{self.whose(point.name)}"
            for point in points
            if point.name not in self.strangers or self.strangers[point.name] != point
        ]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self.strangers

    def __len__(self) -> int:
        return len(self.own) + len(self.strangers)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.own or name in self.strangers or is_file(name))

    def __getitem__(self, name: str) -> M:
        """The member.

        Raises:
            KeyError: there is none of that name.
            MemberError: it cannot be imported, or is no member; says whose it is.
        """
        if name not in self:
            raise KeyError(name)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def called(self, name: str) -> M | None:
        """The member that calls itself so, one of a file if it has been loaded; None where there is none.

        Raises:
            MemberError: as `registry[name]`.
        """
        if name in self:
            return self[name]
        # The latest of two files: an earlier one is of another configuration, or is refused.
        return next((member for member in reversed(self._loaded.values()) if member.name == name), None)

    def names(self) -> list[str]:
        """The names that options may stand under: ours, those of entry points, and those of files loaded so far."""
        return list(dict.fromkeys([*self, *(member.name for member in self._loaded.values())]))

    def whose(self, name: str) -> str:
        """What a user should know about where a member comes from.

        >>> from egsw_plugin.methods import MEMBERS
        >>> MEMBERS.whose("egsw"), MEMBERS.whose("/home/me/mine.py:Mine")
        ('egsw-plugin', 'file /home/me/mine.py')
        """
        if name in self.own:
            return "egsw-plugin"
        if name in self.strangers:
            point = self.strangers[name]
            return f"{_package(point)} ({self.group}: {point.name} = {point.value})"
        if name in self.taken:
            return "verl"
        return f"file {split_file(name)[0]}"

    def broken(self) -> dict[str, str]:
        """The members that cannot be imported, with the reason."""
        reasons = {}
        for name in self:
            try:
                self[name]
            except MemberError as error:
                reasons[name] = str(error)
        return reasons

    def _load(self, name: str) -> M:
        try:
            found = _found(self.own.get(name) or (self.strangers[name].value if name in self.strangers else name))
            member: M = found() if isinstance(found, type) else found
            self._check(name, member)
            return member
        except MemberError:
            raise
        except (Exception, SystemExit) as error:  # a stranger's module may raise anything
            message = f"{type(error).__name__}: {error}"
            raise MemberError(f"{name} of {self.whose(name)} cannot be loaded: {message}") from error

    def _check(self, name: str, member: object) -> None:
        """Refuse an object that is no member of this registry's kind, or has another name than it is listed under."""
        from .interface import Base, PolicyLoss, Transform

        kinds = (PolicyLoss,) if self.group.endswith("losses") else (Base, Transform)
        if not isinstance(member, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise MemberError(f"{name} of {self.whose(name)} is a {type(member).__name__}; it must be a {wanted}")
        refuse_unfit(member, f"{name} of {self.whose(name)}")
        own = member.name
        if not is_file(name) and own != name:
            raise MemberError(f"{name} of {self.whose(name)} calls itself {own!r}; the two must be the same")
        if is_file(name) and (own in self or own in self.taken):
            raise MemberError(f"{name} calls itself {own!r}, which is the name of a member of {self.whose(own)}")


def refuse_unfit(member: Member[Any], said: str) -> None:
    """Refuse a member with a name or options that cannot serve; said: what to call it.

    Raises:
        MemberError: with the fix.
    """
    from .places import OWN

    name = getattr(member, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise MemberError(f"{said} has the name {name!r}; it must be an identifier")
    if name in OWN:
        raise MemberError(
            f"{said} has the name {name!r}; algorithm.credit.{name} is no member's options: use another name"
        )
    options = member.options_type
    if not (isinstance(options, type) and issubclass(options, Options)):
        raise MemberError(f"{said} has options_type={options!r}; it must be a class of Options")
    for key, field in _declared(options):
        if "check" not in field.metadata:
            fix = f"declare it as {field.name}: ... = option(DEFAULT, CHECK, MEANING)"
            raise MemberError(f"{said}: its option {key} has no check; {fix}")
        check = field.metadata["check"]
        if isinstance(check, type) and check in _CHECKS:
            raise MemberError(
                f"{said}: its option {key} has the check {check.__name__}, which changes a wrong value in place of "
                f"refusing it; use {_CHECKS[check]} of egsw_plugin.options.checks"
            )
        if not hasattr(field.default, "reaches"):  # a controller, whose bounds `option` has tried
            try:
                check(field.default)
            except (TypeError, ValueError) as error:
                raise MemberError(f"{said}: its option {key} has the default {show(field.default)}; {error}") from None


def _declared(options_type: type[Options], prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """The field of every option, those of sub-sections included, whether it was declared well or not."""
    for field in dataclasses.fields(options_type):
        check = field.metadata.get("check")
        if isinstance(check, type) and issubclass(check, Options):
            yield from _declared(check, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def _package(point: importlib.metadata.EntryPoint) -> str:
    return f"package {point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def is_file(name: str) -> bool:
    """Whether a name is PATH.py:OBJECT.

    >>> is_file("/home/me/mine.py:Mine"), is_file("egsw"), is_file("mine.py:")
    (True, False, False)
    """
    path, separator, attribute = name.rpartition(FILE_SEPARATOR)
    return bool(path and separator and attribute.isidentifier())


def split_file(name: str) -> tuple[Path, str]:
    """The path and the object's name of PATH.py:OBJECT."""
    path, _, attribute = name.rpartition(FILE_SEPARATOR)
    return Path(f"{path}.py"), attribute


def _found(reference: str) -> Any:
    """The object of MODULE:OBJECT or PATH.py:OBJECT."""
    if not is_file(reference):
        module, _, attribute = reference.partition(":")
        return getattr(importlib.import_module(module), attribute)
    path, attribute = split_file(reference)
    if not path.is_file():
        raise MemberError(f"{reference}: there is no file {path.absolute()} on this machine")
    return getattr(_module_of(path), attribute)


def _module_of(path: Path) -> ModuleType:
    """The module of a file of Python."""
    # One module a file: two members of a file share what they define there.
    name = "egsw_plugin_file_" + "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in str(path.resolve()))
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise MemberError(f"{path}: Python cannot load such a file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look for it
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
