"""Names that a misspelt one may have meant."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable

LIKE = 0.7  # difflib's ratio from which two names are like each other


@functools.lru_cache(maxsize=4096)
def alike(name: object, other: str) -> float:
    """How much a name is like another: 1 the same, above 0.9 but for its case or one slip of a key, 0 not.

    >>> alike("alpha", "alpha"), alike("Alpha", "alpha"), alike("alhpa", "alpha"), alike("rho", "alpha")
    (1.0, 0.98, 0.95, 0.0)
    """
    if name == other:
        return 1.0
    one, two = str(name).lower().replace("-", "_"), other.lower()
    if one == two:
        return 0.98
    if len(one) > 1 < len(two) and _one_slip(one, two):
        return 0.95
    matcher = difflib.SequenceMatcher(None, one, two)
    if matcher.real_quick_ratio() < LIKE or matcher.quick_ratio() < LIKE or (ratio := matcher.ratio()) < LIKE:
        return 0.0
    return 0.9 * ratio


def close(name: object, names: Iterable[str]) -> list[str]:
    """The names that `name` is most like, all those that are equally so; none if it is like none of them.

    >>> close("temprature", ["alpha", "temperature"]), close("alpha3", ["alpha1", "alpha2"]), close("x", ["alpha"])
    (['temperature'], ['alpha1', 'alpha2'], [])
    """
    likeness = {other: alike(name, other) for other in names}
    best = max(likeness.values(), default=0.0)
    return [other for other, much in likeness.items() if much == best] if best else []


def question(names: Iterable[str]) -> str:
    """What to ask a user who may have meant one of these.

    >>> question(["alpha1", "alpha2"])
    "did you mean 'alpha1' or 'alpha2'?"
    """
    return f"did you mean {' or '.join(map(repr, names))}?"


def _one_slip(one: str, two: str) -> bool:
    """Whether one letter more, less or other, or two that changed places, is all the difference."""
    start = 0
    while start < min(len(one), len(two)) and one[start] == two[start]:
        start += 1
    one, two = one[start:], two[start:]
    while one and two and one[-1] == two[-1]:
        one, two = one[:-1], two[:-1]
    return max(len(one), len(two)) <= 1 or (len(one) == 2 and one == two[::-1])
