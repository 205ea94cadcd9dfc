"""What a value may be: each check returns the typed value, or raises `ValueError` with what would be right."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any


def one_of(*choices: str) -> Callable[[Any], str]:
    """Accept one of `choices`.

    >>> one_of("step", "trajectory")("steps")
    Traceback (most recent call last):
    ValueError: use one of step, trajectory (did you mean 'step'?)
    """

    def check(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return str(value)
        near = difflib.get_close_matches(str(value), choices, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"use one of {', '.join(choices)}{hint}")

    return check


def finite(value: Any) -> float:
    """Accept a finite number."""
    if isinstance(value, str):
        raise ValueError("use a finite number, not text")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("use a finite number")
    if not -sys.float_info.max <= value <= sys.float_info.max:
        raise ValueError("use a finite number")
    return float(value)


def positive(value: Any) -> float:
    """Accept a finite number above zero."""
    try:
        number = finite(value)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise ValueError("use a finite number > 0")
    return number


def in_range(low: float, high: float, inclusive: bool) -> Callable[[Any], float]:
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

    return check


def zero_or_magnitude(least: float, greatest: float) -> Callable[[Any], float]:
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

    return check


def flag(value: Any) -> bool:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise ValueError("use true or false")
    return value


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


def field_name(value: Any) -> str:
    """Accept the name of a field."""
    if not isinstance(value, str) or not value:
        raise ValueError("use score, or the name of a field of reward_extra_info such as acc")
    return str(value)


def estimator_name(value: Any) -> str:
    """Accept a name; whether verl has an estimator of that name is for the adapter to say."""
    if not isinstance(value, str) or not value:
        raise ValueError("use the name of an advantage estimator registered in verl, such as grpo")
    return str(value)
