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
    """A check that says what it accepts, and which values to try an option with.

    accept: returns the typed value or raises `ValueError`, whose text, if any, follows "use VALUES" in the message.
    values: what is accepted, in words; "" if `accept` says so itself. samples: ordinary values, and ones at the ends of
    the range. choices: those that there are, of one of a few.
    """

    samples: tuple[Sequence[Any], Sequence[Any]]
    choices: tuple[str, ...] | None

    def __init__(
        self,
        accept: Callable[[Any], T_co],
        values: str,
        ordinary: Sequence[Any],
        extreme: Sequence[Any] = (),
        choices: tuple[str, ...] | None = None,
    ):
        functools.update_wrapper(self, accept)
        self.accept, self.values, self.samples, self.choices = accept, values, (ordinary, extreme), choices

    def __call__(self, value: Any) -> T_co:
        try:
            return self.accept(value)
        except ValueError as error:
            if not self.values:
                raise
            more = str(error)
            more = f"; {more}" if more and not more.startswith((" (", ", ")) else more
            raise ValueError(f"use {self.values}{more}") from None


def sampled(
    ordinary: Sequence[Any], extreme: Sequence[Any] = (), values: str = ""
) -> Callable[[Callable[[Any], T_co]], Check[T_co]]:
    """Make a function a check with these samples, that accepts these values."""
    return lambda accept: Check(accept, values, ordinary, extreme)


def one_of(*choices: str) -> Check[str]:
    """Accept one of `choices`.

    >>> one_of("step", "trajectory")("steps")
    Traceback (most recent call last):
    ValueError: use one of step, trajectory (did you mean 'step'?)
    """

    def accept(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return str(value)
        near = close(str(value), choices)
        raise ValueError(f" ({question(near)})" if near else "")

    return Check(accept, f"one of {', '.join(choices)}", list(choices), choices=choices)


def _number(value: Any) -> float:
    """A finite number that is given as one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(", not text" if isinstance(value, str) else "")
    if not -sys.float_info.max <= value <= sys.float_info.max:
        raise ValueError
    return float(value)


finite = Check(_number, "a finite number", [0.0, 0.5, -1.5], [1e-300, 1e20, -1e300, sys.float_info.max])


def in_range(low: float, high: float, inclusive: bool | str) -> Check[float]:
    """Accept a number between two bounds, which belong to the range or not.

    inclusive: whether they do; "low" or "high" if only that one does.

    >>> in_range(0.5, 1, inclusive=False)(1)
    Traceback (most recent call last):
    ValueError: use a number > 0.5 and < 1
    """
    with_low, with_high = inclusive in (True, "low"), inclusive in (True, "high")
    bounds = ((">=" if with_low else ">", low), ("<=" if with_high else "<", high))
    text = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if abs(bound) != math.inf)

    def accept(value: Any) -> float:
        number = _number(value)
        if not low <= number <= high or (number == low and not with_low) or (number == high and not with_high):
            raise ValueError
        return number

    least, greatest = max(low, -1e3), min(high, 1e3)
    inner = [least + part * (greatest - least) for part in (0.25, 0.5, 0.8)]
    ends = [bound for bound, within in ((low, with_low), (high, with_high)) if within and abs(bound) != math.inf]
    return Check(accept, f"a number {text}", inner, ends)


positive = Check(
    in_range(0, math.inf, inclusive=False).accept,
    "a finite number > 0",
    [1.0, 0.3, 2.5],
    [5e-324, 1e-30, 1e30, sys.float_info.max],
)


def zero_or_magnitude(least: float, greatest: float) -> Check[float]:
    """Accept 0, or a number of either sign that is this far from 0.

    >>> zero_or_magnitude(1e-15, 1e15)(-2)
    -2.0
    >>> zero_or_magnitude(1e-15, 1e15)(1e-50)
    Traceback (most recent call last):
    ValueError: use 0, or a number of either sign between 1e-15 and 1e+15
    """

    def accept(value: Any) -> float:
        number = _number(value)
        if number and not least <= abs(number) <= greatest:
            raise ValueError
        return number

    values = f"0, or a number of either sign between {least:g} and {greatest:g}"
    return Check(accept, values, [0.0, 0.1, -0.3], [least, -greatest])


def optional(inner: Check[T]) -> Check[T | None]:
    """Accept null, or what `inner` accepts.

    >>> optional(positive)(None)
    >>> optional(positive)(0)
    Traceback (most recent call last):
    ValueError: use null, or a finite number > 0
    """
    return _or("null", None, inner)


def or_auto(inner: Check[T]) -> Check[T | str]:
    """Accept `auto`, or what `inner` accepts.

    >>> or_auto(positive)("auto")
    'auto'
    >>> or_auto(positive)("aut")
    Traceback (most recent call last):
    ValueError: use auto, or a finite number > 0
    """
    return _or("auto", "auto", inner)


def _or(name: str, other: Any, inner: Check[Any]) -> Check[Any]:
    """Accept one value more."""

    def accept(value: Any) -> Any:
        if isinstance(value, str) and isinstance(other, str):
            if value != other:
                raise ValueError
            return other
        if value is other:
            return other
        if inner.values:
            return inner.accept(value)
        try:
            return inner(value)
        except ValueError as error:
            raise ValueError(f"use {name}, or {str(error).removeprefix('use ')}") from None

    ordinary, extreme = inner.samples
    return Check(accept, f"{name}, or {inner.values}" if inner.values else "", [other, *ordinary], extreme)


def whole(low: int, high: int) -> Check[int]:
    """Accept a whole number between two bounds, which belong to the range.

    >>> whole(0, 9)(0.5)
    Traceback (most recent call last):
    ValueError: use a whole number from 0 to 9
    """

    def accept(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return int(value)

    return Check(accept, f"a whole number from {low} to {high}", [low, min(low + 7, high)], [high])


@sampled([False, True], values="true or false")
def flag(value: Any) -> bool:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise ValueError
    return value


@sampled(
    [None, [0.2, 0.9]],
    [[0, 5e-324], [0, 1e3], [1e-30, 2e-30], [999, 1e3]],
    values="null, or two entropies in nats, [low, high] with 0 <= low < high <= 1000",
)
def entropy_range(value: Any) -> tuple[float, float] | None:
    """Accept null, or two numbers of nats in order.

    >>> entropy_range([0.2, 0.28])
    (0.2, 0.28)
    """
    if value is None:
        return None
    # A string, a set or a mapping would unpack too, into something that nobody meant.
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError
    low, high = map(_number, value)
    if not 0 <= low < high <= 1e3:
        raise ValueError
    return low, high


@sampled(["score"], values="score, or the name of a field of reward_extra_info such as acc")
def field_name(value: Any) -> str:
    """Accept the name of a field."""
    return _name(value)


@sampled(["grpo", "rloo"], values="the name of an advantage estimator registered in verl, such as grpo")
def estimator_name(value: Any) -> str:
    """Accept a name; whether verl has an estimator of that name is for the adapter to say."""
    return _name(value)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return str(value)
