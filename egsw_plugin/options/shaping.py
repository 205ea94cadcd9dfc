"""Options of GTPO and GRPO-S, and what they have in common."""

from __future__ import annotations

import dataclasses
import math

from .checks import entropy_range, field_name, finite, flag, in_range, one_of, zero_or_magnitude
from .declare import Options, documented, option

COEFFICIENT = zero_or_magnitude(1e-15, 1e15)  # float32 then holds every reward, and 1 / its standard deviation
NORM_SCOPE = (
    one_of("group", "batch"),
    "what shares a mean and a deviation: the entries of a `group`, or of the `batch`",
)


@documented
@dataclasses.dataclass(frozen=True)
class OverlongOptions(Options):
    """The length penalty GROP (arXiv 2508.04349, App. D), section ``overlong`` of GTPO and GRPO-S."""

    enable: bool = option(False, flag, "add the length penalty GROP to r+ and r-, before normalisation", paper="App. D")
    gamma1: float = option(
        0.75,
        in_range(0.5, 1, inclusive=False),
        "share of successes from which a group is easy (hard: 1 - gamma1 or less); > 0.5 and < 1",
        "gamma_1",
        "not public",
    )


@dataclasses.dataclass(frozen=True)
class ShapingOptions(Options):
    """What both have in common; an entry of R+ and R- is a token of GTPO, a response of GRPO-S."""

    norm_set: str = option(
        "all_with_zeros",
        one_of("all_with_zeros", "own_set", "joint", "none"),
        "what mean and standard deviation of R+ and R- run over. `all_with_zeros`: all entries of both polarities, "
        "those of the other polarity as zeros; `own_set`: entries of the own polarity, which loses the sign of the "
        "reward; `joint`: one mean and one deviation over r+ and r- together; `none`: no centring, no scaling",
        paper="contradictory; v5 2.4.2 and App. B.3: all_with_zeros",
    )
    norm_scope: str = option("group", *NORM_SCOPE, paper="group")
    entropy_scope: str = option(
        "group",
        one_of("group", "batch"),
        "the responses k that the sums of entropies run over, and that d_t and h_t (n and m) count",
        paper="formula: group; v5, Discussion: batch",
    )
    failure: str = option(
        "shaped",
        one_of("shaped", "zero", "unbased"),
        "r- of a failure. `shaped`: the formula; `zero`: 0, and one normalisation of r+ over all entries; `unbased`: "
        "no base, and the inverse-entropy share with coefficient 1",
        paper="shaped; zero and unbased: two forms of August 2025",
    )
    mean: str = option(
        "arithmetic",
        one_of("arithmetic", "geometric"),
        "what an entropy is relative to: the arithmetic or the geometric mean over the set k",
        paper="arithmetic; v6 App. C: geometric",
    )
    entropy_clip: tuple[float, float] | None = option(
        None,
        entropy_range,
        "null, or [low, high] in nats that H is clamped to before use",
        paper='"clipped at 0.2 and 0.28", which are ratio clips',
    )
    std: str = option(
        "population",
        one_of("population", "sample"),
        "divide the sum of squares by N (`population`) or N - 1 (`sample`)",
    )
    eps: float = option(
        1e-6, in_range(0, math.inf, inclusive=True), "added to the standard deviation; >= 0. Where both are 0, so is A"
    )
    entropy_floor: float = option(
        1e-6,
        in_range(1e-30, 1e3, inclusive=True),
        "lower bound of H (nats) in 1/H, >= 1e-30; where no H is above it, all share equally",
    )
    success: str = option(
        "score",
        field_name,
        "what decides success: the `score` (sum of the token-level scores, before the KL penalty), or the name of a "
        "field of reward_extra_info such as `acc`, which a length penalty in the reward leaves alone",
        "r",
        "binary reward",
    )
    threshold: float = option(0.5, finite, "a response whose score (or field) is above it is a success")
    unmixed: str = option(
        "drop",
        one_of("drop", "keep"),
        "groups without a success or without a failure. `drop`: advantage 0, and out of all sums and statistics; "
        "`keep`: literal, tiny differences of entropy then get unit variance",
    )
    overlong: OverlongOptions = dataclasses.field(default_factory=OverlongOptions, metadata={"check": OverlongOptions})

    def cautions(self) -> list[str]:
        """Readings of the paper that lose something."""
        found = []
        if self.norm_set == "own_set" and self.failure == "zero":
            found.append("failure=zero normalises r+ once over all responses, so norm_set=own_set changes nothing")
        elif self.norm_set == "own_set":
            found.append(
                "norm_set=own_set centres each polarity on itself: successes no longer have higher advantages than "
                "failures, and the sign of the reward is lost"
            )
        if self.norm_set == "none" and (self.std != "population" or self.eps != 1e-6):
            found.append("norm_set=none divides by no standard deviation, so std and eps have no effect")
        if not self.overlong.enable and self.overlong != OverlongOptions():
            found.append("overlong.gamma1 has no effect without overlong.enable=True")
        if self.unmixed == "keep":
            found.append(
                "unmixed=keep normalises groups without a success or without a failure too: tiny differences of "
                "entropy can get unit variance there"
            )
        return found


@documented
@dataclasses.dataclass(frozen=True)
class GTPOOptions(ShapingOptions):
    """Options of GTPO (arXiv 2508.04349), section ``algorithm.gtpo``.

    >>> GTPOOptions().describe()
    'alpha1=1.0 alpha2=0.1 norm_scope=batch norm_set=all_with_zeros entropy_scope=group ...'
    """

    alpha1: float = option(1.0, COEFFICIENT, "reward of a success before its bonus", "alpha_1", "1 (0.9 tried)")
    alpha2: float = option(
        0.1, COEFFICIENT, "weight of the entropy; alpha1 + alpha2 need not be 1", "alpha_2", "0.1 (0.2 tried)"
    )
    norm_scope: str = option("batch", *NORM_SCOPE, paper="batch")


@documented
@dataclasses.dataclass(frozen=True)
class GRPOSOptions(ShapingOptions):
    """Options of GRPO-S (arXiv 2508.04349), section ``algorithm.grpo_s``.

    >>> GRPOSOptions().describe()
    'beta1=1.0 beta2=0.1 norm_set=all_with_zeros norm_scope=group entropy_scope=group ...'
    """

    beta1: float = option(1.0, COEFFICIENT, "reward of a success before its bonus", "beta_1", "1 (0.9 tried)")
    beta2: float = option(
        0.1, COEFFICIENT, "weight of the mean entropy; beta1 + beta2 need not be 1", "beta_2", "0.1 (0.2 tried)"
    )
