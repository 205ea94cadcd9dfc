"""All that a user may set here, by its whole key, and which of it a key meant that is none of them. No verl, no ray."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import MemberError
from ..options import walk
from ..options.spelling import alike, question
from . import LOSSES, MEMBERS

if TYPE_CHECKING:
    from .interface import Member
    from .registry import Registry

ESTIMATOR = "algorithm.adv_estimator"
LOSS_MODE = "actor_rollout_ref.actor.policy_loss.loss_mode"
CREDIT = "algorithm.credit"
CHAIN = "egsw_plugin"  # the estimator that reads algorithm.credit.transforms
# The tables of members, and the setting by which a run takes one.
SETTINGS: tuple[tuple[Registry[Any], str], ...] = ((MEMBERS, ESTIMATOR), (LOSSES, LOSS_MODE))
OWN = ("base", "transforms")  # keys of algorithm.credit that are no member's
RECORD = ("every", "groups")  # keys of algorithm.record


@dataclass(frozen=True)
class Place:
    """An option or a sub-section of options.

    key: whole. group: the member whose it is, or credit or record. use: the setting that has it read.
    """

    key: str
    group: str
    use: str = ""
    section: bool = False

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition(".")[2]


@dataclass(frozen=True)
class Guess:
    """A place that a key may have meant: how like their names are, how much the key names its group, and whether that
    takes part in the run."""

    place: Place
    likeness: float
    named: float
    chosen: bool


@functools.lru_cache
def places() -> tuple[Place, ...]:
    """Everything that a user may set, but for members of other packages and of files."""
    own = [_options(registry[name], setting) for registry, setting in SETTINGS for name in registry.own]
    return (
        *itertools.chain.from_iterable(own),
        *(Place(f"{CREDIT}.{key}", "credit", f"{ESTIMATOR}={CHAIN}") for key in OWN),
        *(Place(f"algorithm.record.{key}", "record") for key in RECORD),
    )


def _others(chosen: Collection[str]) -> Iterator[Place]:
    """The options of members of these names that are not our own."""
    for registry, setting in SETTINGS:
        for name in sorted(set(chosen) - set(registry.own)):
            with suppress(MemberError):
                if (member := registry.called(name)) is not None:
                    yield from _options(member, setting)


def _options(member: Member[Any], setting: str) -> Iterator[Place]:
    use, seen = f"{setting}={member.name}", set()
    for path, *_ in walk(member.options_type):
        parts = path.split(".")
        for end in range(1, len(parts)):
            if (part := ".".join(parts[:end])) not in seen:
                seen.add(part)
                yield Place(f"{member.section}.{part}", member.name, use, section=True)
        yield Place(f"{member.section}.{path}", member.name, use)


def guesses(parts: Sequence[str], chosen: Collection[str] = ()) -> list[Guess]:
    """What a key may have meant, the likeliest first: an option of the group that it names, then one of a member that
    takes part, then anybody's of exactly this name.

    >>> [guess.place.key for guess in guesses(["egsw", "alhpa"])]
    ['algorithm.egsw.alpha']
    >>> [guess.place.key for guess in guesses(["algorithm", "egsw", "gamma1"], ["egsw"])]
    ['algorithm.gtpo.overlong.gamma1', 'algorithm.grpo_s.overlong.gamma1']
    """
    *before, last = map(str, parts)
    found = []
    for place in (*places(), *_others(chosen)):
        stem = f"{place.group}_"
        if last.startswith(stem) and (likeness := alike(last.removeprefix(stem), place.name)):
            named = 1.0  # egsw_alpha
        else:
            likeness = alike(last, place.name)
            named = max((alike(part, place.group) for part in before), default=0.0) if likeness else 0.0
        guess = Guess(place, likeness, named, place.group in chosen)
        if likeness == 1 or (likeness and (named or guess.chosen)):
            found.append(guess)
    return sorted(found, key=_rank)


def _rank(guess: Guess) -> tuple[float, float, float]:
    return (-guess.named, -guess.chosen, -guess.likeness)


def best(found: Sequence[Guess]) -> list[Place]:
    """The places of the first guess, and of those that are as good as it."""
    return [guess.place for guess in found if _rank(guess) == _rank(found[0])]


def either(keys: Sequence[str]) -> str:
    """Keys as a choice.

    >>> either(["a"]), either(["a", "b", "c"])
    ('a', 'a, b or c')
    """
    *some, last = keys
    return f"{', '.join(some)} or {last}" if some else last


def whose(found: Sequence[Place], chosen: Collection[str] = ()) -> str:
    """Places, and the setting that has each read where its member takes no part."""
    uses = list(dict.fromkeys(place.use for place in found if place.use and place.group not in chosen))
    return either([place.key for place in found]) + (f" (with {either(uses)})" if uses else "")


def leaves(value: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of nested mappings, with the path of each.

    >>> list(leaves({"a": {"b": 1}, "c": 2}))
    [(('a', 'b'), 1), (('c',), 2)]
    """
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*before, str(key)))
    else:
        yield before, value


def unknown_option(
    member_name: str, section: str, own: Collection[str], key: str, value: Any, chosen: Collection[str] = ()
) -> str:
    """What to do about an option that a member's section has and the member has not.

    >>> unknown_option("gtpo", "algorithm.gtpo", ["alpha1", "alpha2"], "alpha3", 1.0)
    "there is no such option; did you mean 'alpha1' or 'alpha2'?"
    """
    path, _ = next(leaves(value, (key,)))
    found = guesses([*section.split("."), *path], {*chosen, member_name})
    mine = [guess for guess in found if guess.place.key.startswith(f"{section}.")]
    near = [place.key.removeprefix(f"{section}.") for place in best(mine)] if mine else []
    others = [
        guess.place
        for guess in found
        if guess.likeness == 1 and guess.place.group != member_name and not (mine and mine[0].likeness == 1)
    ]
    if others:
        named = best([guess for guess in found if guess.place in others])
        also = f"; of its own, {either(near)} is near" if near else f"; its own are {', '.join(own)}" if own else ""
        return f"{member_name} has no such option; that is {whose(named, chosen)}{also}"
    if near:
        return f"there is no such option; {question(near)}"
    return f"there is no such option; {'the options are ' + ', '.join(own) if own else 'it has none'}"
