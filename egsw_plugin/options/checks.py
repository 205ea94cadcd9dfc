"""What a value may be: each check returns the typed value, or raises `ValueError` with what would be right.

A plain function will do. A `Check` says as well which values to try an option with.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from .spelling import close, question

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Check(Generic[T_co]):
    """A check with values to try an option with.

    samples: ordinary ones, and ones at the ends of its range. choices: those that there are, of one of a few.
    """

    samples: tuple[Sequence[Any], Sequence[Any]]
    choices: tuple[str, ...] | None

    def __init__(
        self,
        accept: Callable[[Any], T_co],
        ordinary: Sequence[Any],
        extreme: Sequence[Any] = (),
        choices: tuple[str, ...] | None = None,
    ):
        functools.update_wrapper(self, accept)
        self.accept, self.samples, self.choices = accept, (ordinary, extreme), choices

    def __call__(self, value: Any) -> T_co:
        return self.accept(value)


def sampled(ordinary: Sequence[Any], extreme: Sequence[Any] = ()) -> Callable[[Callable[[Any], T_co]], Check[T_co]]:
    """Make a function a check with these samples."""
    return lambda accept: Check(accept, ordinary, extreme)


def one_of(*choices: str) -> Check[str]:
    """Accept one of `choices`.

    >>> one_of("step", "trajectory")("steps")
    Traceback (most recent call last):
    ValueError: use one of step, trajectory (did you mean 'step'?)
    """

    def check(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return str(value)
        near = close(str(value), choices)
        hint = f" ({question(near)})" if near else ""
        raise ValueError(f"use one of {', '.join(choices)}{hint}")

    return Check(check, list(choices), choices=choices)


@sampled([0.0, 0.5, -1.5], [1e-300, 1e20, -1e300, sys.float_info.max])
def finite(value: Any) -> float:
    """Accept a finite number."""
    if isinstance(value, str):
        raise ValueError("use a finite number, not text")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("use a finite number")
    if not -sys.float_info.max <= value <= sys.float_info.max:
        raise ValueError("use a finite number")
    return float(value)


@sampled([1.0, 0.3, 2.5], [5e-324, 1e-30, 1e30, sys.float_info.max])
def positive(value: Any) -> float:
    """Accept a finite number above zero."""
    try:
        number = finite(value)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise ValueError("use a finite number > 0")
    return number


def in_range(low: float, high: float, inclusive: bool) -> Check[float]:
    """Accept a number between two bounds, which belong to the range or not.

    >>> in_range(0.5, 1, inclusive=False)(1)
    Traceback (most recent call last):
    ValueError: use a number > 0.5 and < 1
    """
    signs = (">=", "<=") if inclusive else (">", "<")
    bounds = [f"{sign} {bound:g}" for sign, bound in zip(signs, (low, high), strict=True) if abs(bound) != math.inf]
    text = f"use a number {' and '.join(bounds)}"

    def check(value: Any) -> float:
        try:
            number = finite(value)
        except ValueError:
            raise ValueError(text) from None
        if not (low <= number <= high if inclusive else low < number < high):
            raise ValueError(text)
        return number

    least, greatest = max(low, -1e3), min(high, 1e3)
    inner = [least + part * (greatest - least) for part in (0.25, 0.5, 0.8)]
    return Check(check, inner, [bound for bound in (low, high) if inclusive and abs(bound) != math.inf])


def zero_or_magnitude(least: float, greatest: float) -> Check[float]:
    """Accept 0, or a number of either sign that is this far from 0.

    >>> zero_or_magnitude(1e-15, 1e15)(-2)
    -2.0
    >>> zero_or_magnitude(1e-15, 1e15)(1e-50)
    Traceback (most recent call last):
    ValueError: use 0, or a number of either sign between 1e-15 and 1e+15
    """

    def check(value: Any) -> float:
        text = f"use 0, or a number of either sign between {least:g} and {greatest:g}"
        try:
            number = finite(value)
        except ValueError:
            raise ValueError(text) from None
        if number and not least <= abs(number) <= greatest:
            raise ValueError(text)
        return number

    return Check(check, [0.0, 0.1, -0.3], [least, -greatest])


def optional(inner: Check[T]) -> Check[T | None]:
    """Accept null, or what `inner` accepts.

    >>> optional(positive)(None)
    >>> optional(positive)(0)
    Traceback (most recent call last):
    ValueError: use null, or a finite number > 0
    """

    def check(value: Any) -> T | None:
        if value is None:
            return None
        try:
            return inner(value)
        except ValueError as error:
            raise ValueError(f"use null, or {str(error).removeprefix('use ')}") from None

    ordinary, extreme = inner.samples
    return Check(check, [None, *ordinary], extreme)


def or_auto(inner: Check[T]) -> Check[T | str]:
    """Accept `auto`, or what `inner` accepts.

    >>> or_auto(positive)("auto")
    'auto'
    >>> or_auto(positive)("aut")
    Traceback (most recent call last):
    ValueError: use auto, or a finite number > 0
    """

    def check(value: Any) -> T | str:
        if isinstance(value, str) and value == "auto":
            return "auto"
        try:
            return inner(value)
        except ValueError as error:
            raise ValueError(f"use auto, or {str(error).removeprefix('use ')}") from None

    ordinary, extreme = inner.samples
    return Check(check, ["auto", *ordinary], extreme)


def whole(low: int, high: int) -> Check[int]:
    """Accept a whole number between two bounds, which belong to the range.

    >>> whole(0, 9)(0.5)
    Traceback (most recent call last):
    ValueError: use a whole number from 0 to 9
    """

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"use a whole number from {low} to {high}")
        return int(value)

    return Check(check, [low, min(low + 7, high)], [high])


@sampled([False, True])
def flag(value: Any) -> bool:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise ValueError("use true or false")
    return value


@sampled([None, [0.2, 0.9]], [[0, 5e-324], [0, 1e3], [1e-30, 2e-30], [999, 1e3]])
def entropy_range(value: Any) -> tuple[float, float] | None:
    """Accept null, or two numbers of nats in order.

    >>> entropy_range([0.2, 0.28])
    (0.2, 0.28)
    """
    if value is None:
        return None
    try:
        # A string, a set or a mapping would unpack too, into something that nobody meant.
        low, high = (finite(bound) for bound in value) if isinstance(value, Sequence) else (1.0, 0.0)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1e3:
        raise ValueError("use null, or two entropies in nats, [low, high] with 0 <= low < high <= 1000")
    return low, high


@sampled(["score"])
def field_name(value: Any) -> str:
    """Accept the name of a field."""
    if not isinstance(value, str) or not value:
        raise ValueError("use score, or the name of a field of reward_extra_info such as acc")
    return str(value)


@sampled(["grpo", "rloo"])
def estimator_name(value: Any) -> str:
    """Accept a name; whether verl has an estimator of that name is for the adapter to say."""
    if not isinstance(value, str) or not value:
        raise ValueError("use the name of an advantage estimator registered in verl, such as grpo")
    return str(value)
