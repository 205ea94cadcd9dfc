"""What a user may set: one frozen dataclass a method, parsed and validated here and nowhere else.

A field is declared with `option`, which carries its documentation and its check; `parse` turns a section of verl's
configuration (``algorithm.egsw``) into the dataclass, or raises `OptionError` with the key, the value and the fix.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .errors import OptionError

T = TypeVar("T")


def option(default: Any, check: Callable[[Any], Any], doc: str) -> Any:
    """Declare a field: `check` returns the typed value, or raises `ValueError` with what would be right."""
    return dataclasses.field(default=default, metadata={"check": check, "doc": doc})


def one_of(*choices: str) -> Callable[[Any], str]:
    """Accept one of `choices`.

    >>> one_of("step", "trajectory")("steps")
    Traceback (most recent call last):
    ValueError: use one of step, trajectory (did you mean 'step'?)
    """

    def check(value: Any) -> str:
        if value in choices and isinstance(value, str):
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


def estimator_name(value: Any) -> str:
    """Accept a name; whether verl has an estimator of that name is for the adapter to say."""
    if not isinstance(value, str) or not value:
        raise ValueError("use the name of an advantage estimator registered in verl, such as grpo")
    return str(value)


def parse(options_type: type[T], section: Mapping[str, Any] | None, prefix: str) -> T:
    """Build `options_type` from a mapping; `None` or an empty mapping gives the defaults.

    Raises `OptionError` for an unknown key and for a value that its field's check refuses.

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
        try:
            values[key] = fields[key].metadata["check"](value)
        except ValueError as error:
            raise OptionError(name, value, str(error)) from None
    return options_type(**values)


@dataclasses.dataclass(frozen=True)
class EGSWOptions:
    """Options of EGSW (arXiv 2503.22456), section ``algorithm.egsw``.

    The paper does not publish its values of alpha and P and calls the method sensitive to them: the defaults of
    `alpha` and `temperature` are ours.

    >>> EGSWOptions().describe()
    'base=grpo alpha=0.5 temperature=1.0 granularity=step scope=group denominator=alive ...'
    """

    base: str = option("grpo", estimator_name, "estimator registered in verl that supplies the advantage A")
    alpha: float = option(0.5, finite, "alpha: weight of the entropy (nats) in the logit; any finite number")
    temperature: float = option(1.0, positive, "P: temperature of the softmax over responses; > 0")
    granularity: str = option(
        "step",
        one_of("step", "trajectory"),
        "step: one logit a policy token; trajectory: one logit a response, A_i + alpha * mean_t H",
    )
    scope: str = option("group", one_of("group", "batch"), "the responses that the softmax runs over")
    denominator: str = option(
        "alive",
        one_of("alive", "all"),
        "alive: a response takes part up to its last policy token; all: it stays in the sum with H = 0 and its own A, "
        "which must be constant over the response. No difference with granularity=trajectory",
    )
    normalize: str = option(
        "mean_one",
        one_of("mean_one", "sum_one"),
        "mean_one: weights times the number of responses in the denominator, so that a uniform weight is 1; "
        "sum_one: the literal formula, which divides the step size by about the group size",
    )
    entropy: str = option(
        "full", one_of("full", "surprisal"), "full: over the vocabulary; surprisal: -old_log_prob of the sampled token"
    )
    channel: str = option(
        "advantage",
        one_of("advantage", "loss"),
        "advantage: weights fold into the advantages; loss: advantages stay the base's and policy loss egsw "
        "(actor_rollout_ref.actor.policy_loss.loss_mode=egsw) multiplies the weights in",
    )

    def describe(self) -> str:
        """All options on one line, for the start-up message."""
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in dataclasses.fields(self))
