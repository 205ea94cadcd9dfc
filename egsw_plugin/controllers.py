"""Entropy controllers: values of options that move from trainer step to trainer step, towards an entropy.

A controller measures the mean entropy of the batch's policy tokens in every advantage step, and moves its value once a
trainer step, however many advantage steps (mini-batches) that has. The state is plain numbers, saved beside verl's
checkpoint: a resumed run goes on as one that never stopped.

    value[s + 1] = move(value[s], whether the mean entropy of step s is below the target)
"""

from __future__ import annotations

import abc
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from .errors import OptionError
from .options.checks import finite, in_range, one_of, optional, positive, sampled
from .options.declare import Options, documented, option, show
from .writing import replacing

SCHEMA = 1  # of the file
FILE = "egsw_plugin.json"  # in verl's folder of a checkpoint


@sampled([0.2, 1.0, "initial"], [0.0, 1e3], values="an entropy in nats >= 0, or initial: that of the run's first step")
def target_entropy(value: Any) -> float | str:
    """Accept a number of nats, or `initial`."""
    if isinstance(value, str) and value != "initial":
        raise ValueError
    return "initial" if isinstance(value, str) else in_range(0, math.inf, inclusive=True).accept(value)


@dataclasses.dataclass(frozen=True)
class State:
    """A controller between two advantage steps.

    value: of the option in trainer step `step`. target: nats, None until the run's first step has given it. last: mean
    entropy of the trainer step before, or None. total, count: sum of the entropies that step `step` has measured so
    far, and over how many tokens.
    """

    value: float
    target: float | None
    last: float | None = None
    step: int = 0
    total: float = 0.0
    count: float = 0.0


@dataclasses.dataclass(frozen=True)
class Controller(Options, abc.ABC):
    """What both rules have in common."""

    controller: ClassVar[str]  # its name in a configuration
    bounds: ClassVar[tuple[str, ...]] = ("min", "max")

    target: float | str = option(
        "initial", target_entropy, "entropy to steer to, nats; `initial`: that of the first step"
    )
    initial: float | None = option(None, optional(finite), "first value; null: the option's own default")
    min: float = option(0.0, finite, "least value")
    max: float = option(1.0, finite, "greatest value")
    measure: str = option(
        "entropy",
        one_of("entropy", "surprisal"),
        "what is measured over the policy tokens: the old policy's `entropy`, or its `surprisal` -old_log_prob, whose "
        "expectation it is",
    )
    comparison: str = option(
        "below",
        one_of("below", "at_most"),
        "the entropy is too low where it is `below` the target, or `at_most` the target",
    )
    gate: str = option(
        "open",
        one_of("open", "now", "last"),
        "`open`: the value counts in every step; `now`: it is 0 in a step whose entropy is not too low; `last`: it is "
        "0 in a step before which the entropy was not too low, and in the first",
    )

    def start(self) -> State:
        """The state before the first step."""
        return State(self.first, None if isinstance(self.target, str) else self.target)

    @property
    def first(self) -> float:
        """The first value, which a rule has that was read from a configuration.

        Raises:
            OptionError: it has none.
        """
        if self.initial is None:
            raise OptionError("initial", None, "set the first value")
        return self.initial

    def reaches(self) -> Iterator[tuple[str, float | None, str]]:
        """The edges of what the option will be, which must be in its range: the setting that gives each, the value, and
        how it comes about."""
        yield from ((key, getattr(self, key), "") for key in ("initial", *self.bounds))
        if self.gate != "open":
            yield "gate", 0.0, "this gate sets the option to 0 in some steps; use open, or an option that may be 0: "

    @abc.abstractmethod
    def move(self, value: float, low: bool) -> float:
        """The next value, given whether the entropy is too low."""

    def too_low(self, measured: float | None, target: float | None) -> bool:
        """Whether an entropy (nats) is too low."""
        if measured is None or target is None:
            return False
        return measured < target or (self.comparison == "at_most" and measured == target)

    def __str__(self) -> str:
        items = [f"controller: {self.controller}", *(f"{key}: {show(value)}" for key, value in self._items())]
        return f"{{{', '.join(items)}}}"

    def _items(self) -> Iterator[tuple[str, Any]]:
        """Those that say something: what is as for every controller is left out."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default or field.name in ("target", "min", "max"):
                yield field.name, value


@documented
@dataclasses.dataclass(frozen=True)
class Step(Controller):
    """Controller `step`: up by delta while the entropy is too low, down by delta otherwise, within [min, max].

    Source: arXiv 2505.22312 (Skywork-OR1), section 5; TRL compares with `at_most` and gates by `last`.

    >>> rule = Step(delta=0.5, initial=1.0, max=2.0, target=0.3)
    >>> rule.move(1.0, low=True), rule.move(2.0, low=True), rule.move(0.25, low=False)
    (1.5, 2.0, 0.0)
    """

    controller: ClassVar[str] = "step"

    delta: float = option(
        0.01, finite, "what is added while the entropy is too low; below 0 for a value that lowers it"
    )

    def move(self, value: float, low: bool) -> float:
        """One step up or down."""
        return min(max(value + (self.delta if low else -self.delta), self.min), self.max)

    def refusals(self) -> list[tuple[str, str]]:
        """Bounds that hold no value."""
        if not self.min <= self.first <= self.max:
            return [("initial", f"use a number from min ({show(self.min)}) to max ({show(self.max)})")]
        return []


@documented
@dataclasses.dataclass(frozen=True)
class Scale(Controller):
    """Controller `scale`: while the entropy is too low a value above 0 is multiplied by factor and one below 0 divided,
    and the other way round otherwise; its magnitude stays in [min, max], and it changes its sign where it would be
    divided at min.

    Source: arXiv 2603.11682 (REPO), which halves and doubles; the order at the smallest value is our reading.

    >>> rule = Scale(initial=0.02, min=0.01, max=0.05, target=0.3)
    >>> rule.move(0.02, low=True), rule.move(0.04, low=True), rule.move(0.01, low=False), rule.move(-0.01, low=True)
    (0.04, 0.05, -0.01, 0.01)
    """

    controller: ClassVar[str] = "scale"

    factor: float = option(2.0, in_range(1, math.inf, inclusive=False), "what the value is multiplied or divided by")
    min: float = option(1e-4, positive, "least magnitude")
    max: float = option(1.0, positive, "greatest magnitude")

    def reaches(self) -> Iterator[tuple[str, float | None, str]]:
        """Those of the other sign, too."""
        yield from super().reaches()
        for key in ("min", "max"):
            why = f"scale changes the value's sign, to -{key}; declare PositiveScale for an option that keeps it: "
            yield key, -getattr(self, key), why

    def move(self, value: float, low: bool) -> float:
        """Larger, smaller, or of the other sign."""
        size = abs(value)
        if low == (value > 0):
            return math.copysign(min(size * self.factor, self.max), value)
        if size <= self.min:
            return -math.copysign(self.min, value)
        return math.copysign(max(size / self.factor, self.min), value)

    def refusals(self) -> list[tuple[str, str]]:
        """Bounds that hold no value."""
        if not self.min <= abs(self.first) <= self.max:
            fix = (
                f"use a number of either sign whose magnitude is from min ({show(self.min)}) to max ({show(self.max)})"
            )
            return [("initial", fix)]
        return []


@documented
@dataclasses.dataclass(frozen=True)
class PositiveScale(Scale):
    """Controller `scale` of an option that is above 0: where its value would be divided at min, it stays there.

    >>> rule = PositiveScale(initial=0.02, min=0.01, max=0.05, target=0.3)
    >>> rule.move(0.04, low=True), rule.move(0.02, low=False), rule.move(0.01, low=False), rule.move(0.01, low=True)
    (0.05, 0.01, 0.01, 0.02)
    """

    def reaches(self) -> Iterator[tuple[str, float | None, str]]:
        """None of the other sign."""
        yield from Controller.reaches(self)

    def move(self, value: float, low: bool) -> float:
        """Larger or smaller."""
        return max(super().move(value, low), self.min)


RULES = (Step, Scale)


def update(rule: Controller, state: State, measured: float | None, step: int) -> State:
    """The state in which trainer step `step` begins, after a step whose mean entropy was `measured` (nats; None if that
    step had no token). Where the target is the initial entropy, the first measurement is it, and moves nothing.

    >>> update(Step(initial=0.0, delta=0.1, target=0.2), State(0.0, 0.2, step=1), 0.1, 2)
    State(value=0.1, target=0.2, last=0.1, step=2, total=0.0, count=0.0)
    """
    if measured is None:
        return State(state.value, state.target, state.last, step)
    if state.target is None:
        return State(state.value, measured, measured, step)
    return State(rule.move(state.value, rule.too_low(measured, state.target)), state.target, measured, step)


def observe(rule: Controller, state: State, total: float, count: float, step: int) -> State:
    """Take in an advantage step of trainer step `step`: the sum of its tokens' entropies (nats) and their number. The
    first one of a trainer step ends the one before."""
    if step != state.step and state.step:
        state = update(rule, state, state.total / state.count if state.count else None, step)
    return dataclasses.replace(state, step=step, total=state.total + total, count=state.count + count)


def value_of(rule: Controller, state: State, measured: float | None) -> float:
    """What the option is in an advantage step that measured this entropy (nats): the value, or 0 by the gate."""
    entropy = {"open": None, "now": measured, "last": state.last}[rule.gate]
    return state.value if rule.gate == "open" or rule.too_low(entropy, state.target) else 0.0


class Controllers:
    """The controllers of a run by name, MEMBER.OPTION, and their states."""

    def __init__(self, rules: Mapping[str, Controller]):
        self.rules = dict(rules)
        self.states = {name: rule.start() for name, rule in self.rules.items()}

    def step(self, measured: Mapping[str, tuple[float, float]], step: int, frozen: bool = False) -> dict[str, float]:
        """The options' values in an advantage step of trainer step `step`.

        measured: sum over the policy tokens (nats), and their number, for each `measure` that a controller has. frozen:
        no update follows, so that the entropy cannot answer to a value, and none may move by it.
        """
        values = {}
        for name, rule in self.rules.items():
            total, count = measured[rule.measure]
            if not frozen:
                self.states[name] = observe(rule, self.states[name], total, count, step)
            values[name] = value_of(rule, self.states[name], total / count if count else None)
        return values

    def save(self, folder: Path) -> None:
        """Write the states into the folder of a checkpoint, whole or not at all; of targets the measured ones."""
        states = {name: dataclasses.asdict(state) for name, state in self.states.items()}
        for name, rule in self.rules.items():
            if not isinstance(rule.target, str):
                states[name]["target"] = None
        text = json.dumps({"schema": SCHEMA, "controllers": states}, indent=2, allow_nan=False)
        with replacing(folder / FILE) as file:
            file.write(f"{text}\n".encode())

    def load(self, folder: Path) -> bool:
        """Take the states of a checkpoint; False if it has none. A target in nats is this configuration's; `initial`,
        where the checkpoint's was in nats, is the entropy of the checkpoint's step.

        Raises:
            OptionError: the file is of other controllers, of another version, or damaged; or a value is out of bounds.
        """
        path = folder / FILE
        if not path.exists():
            return False
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            schema, states = content["schema"], content["controllers"]
            found = {name: _state(state) for name, state in states.items()} if schema == SCHEMA else {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise OptionError(
                "checkpoint", str(path), f"damaged ({type(error).__name__}: {error}); {_OTHER}"
            ) from error
        if schema != SCHEMA:
            raise OptionError(
                "checkpoint", str(path), f"its schema is {schema!r}, this version's is {SCHEMA}; {_OTHER}"
            )
        if set(found) != set(self.rules):
            names = ", ".join(sorted(found)) or "no controller"
            own = ", ".join(sorted(self.rules)) or "none"
            raise OptionError(
                "checkpoint", str(path), f"it has the state of {names}, this configuration {own}; {_OTHER}"
            )
        for name, rule in self.rules.items():
            value = found[name].value
            if dataclasses.replace(rule, initial=value).refusals():
                fix = f"its {name} is {value}, which min and max do not allow here; widen them, or {_OTHER}"
                raise OptionError("checkpoint", str(path), fix)
            if not isinstance(rule.target, str):
                found[name] = dataclasses.replace(found[name], target=rule.target)
        self.states = found
        return True


_OTHER = "resume with the configuration that saved it, or start anew (trainer.resume_mode=disable, another folder)"


def _state(numbers: Mapping[str, Any]) -> State:
    """A state from a file, refusing what is no number."""
    state = State(**numbers)
    for name in ("value", "step", "total", "count"):
        finite(getattr(state, name))
    for name in ("target", "last"):
        optional(finite)(getattr(state, name))
    return dataclasses.replace(state, step=int(state.step))
