"""Keys of ours that stand where nobody reads them, in the whole of verl's configuration.

A key that verl's own configuration does not have was added by the user. If its path names a member of ours and an
option of it, or an option of a member that takes part, it was meant for us, and is refused with the key that was meant.
Other packages have keys of their own: what only may be ours is warned of.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from ..errors import MemberError, OptionError
from ..methods import LOSSES, MEMBERS
from ..methods.chain import check_keys, check_options
from ..methods.places import (
    CHAIN,
    CREDIT,
    ESTIMATOR,
    LOSS_MODE,
    OWN,
    Guess,
    Place,
    best,
    either,
    guesses,
    leaves,
    whose,
)
from ..options import show
from ..options.spelling import alike, close
from .configuration import Sections, is_set, select

SECTIONS = ("egsw", "gtpo", "grpo_s")  # which members have directly under `algorithm`
OURS = (*SECTIONS, "credit", "record")
POLICY_LOSS = ("actor_rollout_ref", "actor", "policy_loss")
NEAR = 0.8  # likeness from which a misspelt option is taken for one of ours where options of ours are looked for
FREE = ("kwargs", "override")  # sections with such a name are read by others, and may hold anything
GROUPS = ("method", "machine", "sampling")  # of recipes/: a choice that hydra does not find becomes a key
SEARCH = "hydra.searchpath=[pkg://egsw_plugin.recipes]"
CUSTOM = ("data", "reward")  # here the user's own classes read keys of their own


@dataclass(frozen=True)
class Added:
    """A key that verl's configuration does not have, with all that is below it."""

    place: tuple[str, ...]
    key: str
    value: Any

    @property
    def path(self) -> tuple[str, ...]:
        """The key with where it stands."""
        return (*self.place, self.key)

    @property
    def name(self) -> str:
        """The same as text."""
        return ".".join(self.path)


def check(config: Any, chosen: Collection[str]) -> None:
    """Refuse a key that was meant for us and that nobody reads. chosen: names of the members that take part.

    Raises:
        OptionError: with the key, its value and what to set instead.
    """
    plain = _plain(config)
    _check_own_sections(config, chosen)
    for added in _added(plain):
        if added.place == ("algorithm",) and added.key in OURS:
            continue
        if fix := _unfound_method(added, config) or _refusal(added, chosen, plain):
            raise OptionError(added.name, added.value, fix)


def warnings(config: Any, chosen: Collection[str]) -> Iterator[str]:
    """Keys that may have been meant for us."""
    for added in _added(_plain(config)):
        if (added.place == ("algorithm",) and added.key in OURS) or _free(added.path):
            continue
        meant = ""
        for path, _ in leaves(added.value, added.path):
            found = [guess for guess in guesses(path, chosen) if guess.likeness == 1]
            if added.place[:1] in [(name,) for name in CUSTOM]:
                found = [guess for guess in found if guess.chosen]
            if found and (len(path) == len(added.path) or _like_verls(added)):
                meant = whose(best(found), chosen)
        if not meant and added.path in [(name,) for name in GROUPS] and not isinstance(added.value, Mapping):
            meant = SEARCH
        if not meant and added.key in OURS:
            meant = f"algorithm.{added.key}"
        if not meant and added.place == ("algorithm",):
            meant = _near_section(added.key)
        if meant:
            yield f"{added.name} is read by nobody here; if {meant} is meant, set that"


def _unfound_method(added: Added, config: Any) -> str:
    """What to do about a method that was chosen and that hydra did not find: it warns, and makes a key of it.

    A key of this name that stands for nothing, or says what runs, may be the user's own.
    """
    file = Path(__file__).parents[1] / "recipes" / "method" / f"{added.value}.yaml"
    if added.path != ("method",) or not re.fullmatch(r"\w+", str(added.value)) or not file.is_file():
        return ""
    recipe = OmegaConf.create(yaml.safe_load(file.read_text("utf-8")))
    for key in (ESTIMATOR, LOSS_MODE):
        ours, theirs = (select(each, key) for each in (recipe, config))
        if ours not in (None, theirs):
            return (
                f"nobody reads this key, and {key} is {theirs}, where that recipe has {ours}: give the launch "
                f"'{SEARCH}' and +method={added.value}, or take the key out"
            )
    return ""


def _check_own_sections(config: Any, chosen: Collection[str]) -> None:
    """Refuse options that do not exist in sections of ours, those of members that take no part included."""
    algorithm = Sections(config.algorithm)
    credit = algorithm.get("credit") or {}
    if isinstance(credit, Mapping):
        check_keys(credit, chosen)
    else:
        credit = {}
    sections = [(name, f"algorithm.{name}", algorithm.get(name)) for name in SECTIONS]
    sections += [(name, f"{CREDIT}.{name}", values) for name, values in credit.items() if name not in OWN]
    for name, key, values in sections:
        if not isinstance(values, Mapping):
            continue
        for registry in (MEMBERS, LOSSES):
            try:
                member = registry.called(name)
            except MemberError:
                continue
            if member is not None:
                check_options(member, key, values, chosen)
                break  # a policy loss of the same name has no options of its own


def _refusal(added: Added, chosen: Collection[str], plain: Mapping) -> str:
    """What to do about a key that was plainly meant for us; nothing for any other."""
    settings, likely = [], []
    for path, value in leaves(added.value, added.path):
        own = path[len(added.place) :]
        found = [guess for guess in guesses(path, chosen) if _plainly(guess, added, own, chosen)]
        if not found:
            break
        first = best(found)
        likely += [place for place in first if place not in likely]
        if first[0].use and first[0].group not in chosen and first[0].use not in settings:
            settings.append(first[0].use)
        if not first[0].section:
            plus = "" if is_set(plain, first[0].key) else "+"
            settings.append(f"{plus}{first[0].key}={_written(value)}")
    else:
        return _words(added, likely, chosen) + (f" Set {' '.join(settings)}" if settings else "")
    named = added.key in SECTIONS or (added.key in chosen and added.place in ((), ("algorithm",), POLICY_LOSS))
    if named and not _free(added.path):
        return f"these options belong under {_section(added.key)}"
    return ""


def _words(added: Added, likely: list[Place], chosen: Collection[str]) -> str:
    keys, groups = [place.key for place in likely], {place.group for place in likely}
    if groups.isdisjoint(chosen) and not any(alike(part, group) for part in added.path for group in groups):
        nested = isinstance(added.value, Mapping) and any(
            alike(part, g) for p, _ in leaves(added.value) for part in p for g in groups
        )
        if not nested:
            return f"nobody reads this here; that is {whose(likely, chosen)}."
    if isinstance(added.value, Mapping) and len(groups) == 1:
        (group,) = groups
        if alike(added.key, group) == 1:
            return f"these options belong under {_section(group)}."
        if added.key == "credit":
            return "these options belong under algorithm.credit."
        if alike(added.key, group):
            return f"did you mean {_section(group)}?"
        parents = {key.rpartition(".")[0] for key in keys}
        if len(parents) == 1 and (parent := parents.pop()).rpartition(".")[2] == added.key:
            return f"did you mean {parent}?"
    return f"did you mean {either(keys)}?"


def _section(group: str) -> str:
    """The key of a member's options, or of a section that is no member's."""
    for registry in (MEMBERS, LOSSES):
        with suppress(MemberError):
            if (member := registry.called(group)) is not None:
                return member.section
    return f"algorithm.{group}"


def _plainly(guess: Guess, added: Added, own: tuple[str, ...], chosen: Collection[str]) -> bool:
    """Whether a path in an added section means this option, and can hardly mean anything of anybody else's."""
    place = guess.place
    named = max((alike(part, place.group) for part in own[:-1]), default=0.0)
    if _free(added.path):
        return place.group in SECTIONS and named == guess.likeness == 1
    if named == 1:
        return True
    if named or own[-1].startswith(f"{place.group}_"):
        return guess.likeness >= NEAR
    if CHAIN in own[:-1]:  # our own name in place of a member's
        return True
    if added.place[:1] in [(name,) for name in CUSTOM]:
        return False
    sub_section = len(own) > 1 and tuple(place.key.split(".")[-len(own) :]) == own  # overlong.enable
    if len(own) > 1 and not sub_section and not _like_verls(added):
        return False
    if guess.chosen:
        near = added.place in ((), ("algorithm",), POLICY_LOSS) and guess.likeness >= NEAR
        return near or guess.likeness == 1
    # Of a member that takes no part: where its name is one that others hardly have.
    distinct = "_" in place.name or place.name[-1].isdigit() or place.name == "transforms"
    return bool(chosen) and (distinct or sub_section)


def _like_verls(added: Added) -> bool:
    """Whether an added section's name is a misspelt or shortened one of verl's: algo, actor, policy_loss."""
    names = [*_known(), *(key for section in _known().values() if isinstance(section, Mapping) for key in section)]
    return isinstance(added.value, Mapping) and bool(close(added.key, [*names, POLICY_LOSS[-1], "algo"]))


def _near_section(key: str) -> str:
    """The section of ours whose name a key under `algorithm` looks like."""
    near = close(key, [*SECTIONS, "credit", *MEMBERS])
    return _section(near[0]) if near else ""


def _free(path: tuple[str, ...]) -> bool:
    return any(word in part for part in path for word in FREE)


def _written(value: Any) -> str:
    """A value as an override has it."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return show(value)


# ------------------------------------------------------------------------------------------------ what verl itself has


def _plain(config: Any) -> Mapping[str, Any]:
    """A configuration as nested dictionaries, as it was written."""
    return OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else {}


def _added(plain: Mapping[str, Any]) -> Iterator[Added]:
    """The highest keys that verl's configuration does not have."""
    known = _known()
    if known:
        yield from _beyond(plain, known, ())


def _beyond(section: Mapping, known: Mapping, place: tuple[str, ...]) -> Iterator[Added]:
    fields: Collection[str] | None = None
    for key, value in section.items():
        if key in known:
            if isinstance(value, Mapping) and isinstance(known[key], Mapping):
                yield from _beyond(value, known[key], (*place, str(key)))
            continue
        if fields is None:
            fields = _fields_of(known.get("_target_"))
        if key not in fields:
            yield Added(place, str(key), value)


@functools.cache
def _known() -> dict[str, Any]:
    """The keys of verl's own configurations, one tree for all engines; verl ships them written out."""
    from verl.trainer import config

    tree: dict[str, Any] = {}
    for file in sorted(Path(config.__file__).parent.glob("_generated_*.yaml")):
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        _merge(tree, yaml.load(file.read_text(encoding="utf-8"), loader))
    return tree


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        elif not isinstance(tree.get(key), dict):
            tree[key] = dict(value) if isinstance(value, Mapping) else value


@functools.cache
def _fields_of(target: str | None) -> Collection[str]:
    """The fields of verl's class for a section, which its YAML need not all name."""
    if not target:
        return ()
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name).__dataclass_fields__
    except (ImportError, AttributeError):
        return ()
