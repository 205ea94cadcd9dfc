"""What GTPO and GRPO-S (arXiv 2508.04349) have in common: rewards shaped by entropy, as a base."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, TypeVar

from .. import measure
from ..errors import TensorError
from ..kernels.groups import mixed_groups
from ..kernels.normalization import Normalization
from ..kernels.shaping import Shaped, Shaping
from ..options import Options, documented, option
from ..options.checks import entropy_range, flag, in_range, one_of, zero_or_magnitude
from .interface import GRADED, SUCCESS, THRESHOLD, Base, Batch, Change, Objective, Requirements, Setting, Success

LARGEST = 1e38  # float32 holds it
PAPER = "arXiv 2508.04349"
CLIP = (0.2, 0.28)  # of the paper's ratio, below and above 1

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
        "share of successes from which a group is easy (hard: 1 - gamma1 or less)",
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
        "what H is clamped to before use",
        paper='"clipped at 0.2 and 0.28", which are ratio clips',
    )
    std: str = option(
        "population",
        one_of("population", "sample"),
        "divide the sum of squares by N (`population`) or N - 1 (`sample`)",
    )
    eps: float = option(
        1e-6, in_range(0, math.inf, inclusive=True), "added to the standard deviation. Where both are 0, so is A"
    )
    entropy_floor: float = option(
        1e-6,
        in_range(1e-30, 1e3, inclusive=True),
        "lower bound of H (nats) in 1/H; where no H is above it, all share equally",
    )
    success: str = option(*SUCCESS)
    threshold: float = option(*THRESHOLD)
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


S = TypeVar("S", bound=ShapingOptions)

# The reward is binary success: nothing else that is in it reaches the advantages.
SETTINGS = (
    Setting(
        "algorithm.use_kl_in_reward",
        True,
        "algorithm.use_kl_in_reward=True: {name} judges success before the KL penalty and uses nothing else of the "
        "reward, so the penalty has no effect; a KL loss (actor_rollout_ref.actor.use_kl_loss=True) has one, but is "
        "not in the paper",
    ),
    Setting(
        "algorithm.norm_adv_by_std_in_grpo",
        False,
        "algorithm.norm_adv_by_std_in_grpo=False has no effect on {name}; see {section}.norm_set",
        default=True,
    ),
)


def _length_penalty(success: Success) -> Setting:
    """What becomes of DAPO's length penalty in the score."""
    effect = "does not reach the advantages, which know success alone"
    if success.field is None:
        effect = (
            "is part of the score, so that a long correct response can count as a failure; set {section}.success=acc "
            "to judge by correctness alone"
        )
    return Setting(
        "reward.reward_kwargs.overlong_buffer_cfg.enable",
        True,
        f"reward.reward_kwargs.overlong_buffer_cfg: with {{name}} this length penalty {effect}; the paper's own is "
        "{section}.overlong.enable=True",
    )


class ShapedBase(Base[S]):
    """A kernel of shaped rewards.

    Attributes:
        coefficients: names of its two reward coefficients.
        per_token: whether tokens of one response get rewards of their own.
    """

    kernel: ClassVar[Callable[..., Shaped]]
    coefficients: ClassVar[tuple[str, str]]
    per_token: ClassVar[bool]
    objective: ClassVar[Objective]

    source = PAPER
    favours = "uncertain tokens of successes get more reward; certain ones of failures get more blame"
    cost = "one pass over the batch"

    def requirements(self, options: S) -> Requirements:
        """The entropy, responses to compare, and the paper's objective."""
        alone = "a group of one response is never mixed: every advantage would be 0; set 2 or more"
        success = Success.of(options.success, options.threshold)
        return Requirements(
            tensors=("entropy",),
            success=success,
            responses=(2, alone) if options.unmixed == "drop" else (1, ""),
            per_token=self.per_token,
            direction=1,
            objective=self.objective,
            settings=(*SETTINGS, _length_penalty(success), *([GRADED] if success.field is None else [])),
        )

    def advantages(self, options: S, batch: Batch) -> Change:
        """Shape, normalise, and measure."""
        level, weight = (getattr(options, name) for name in self.coefficients)
        # failure: zero leaves one set of rewards, which is normalised as one.
        one_set = options.failure == "zero" and options.norm_set != "none"
        result = type(self).kernel(
            batch.tensors["entropy"],
            batch.rows,
            batch.group_ids,
            batch.success,
            Shaping(level, weight, options.failure, options.mean, options.entropy_floor, options.entropy_clip),
            Normalization("joint" if one_set else options.norm_set, options.std, options.eps),
            entropy_scope=options.entropy_scope,
            norm_scope=options.norm_scope,
            unmixed=options.unmixed,
            gamma1=options.overlong.gamma1 if options.overlong.enable else None,
        )
        # Normalised, they are bounded by the number of entries; else a weight of the geometric mean has no bound.
        greatest = abs(level) + max(abs(weight), 1.0) * result.tally.weight_max
        if options.norm_set == "none" and greatest > LARGEST:
            raise TensorError(
                f"{self.section}.norm_set=none: an entropy weighs {result.tally.weight_max:.3g} times the mean, which "
                f"gives a reward of up to {greatest:.3g}; raise {self.section}.entropy_floor, or normalise"
            )
        metrics = self._metrics(result, batch)
        return Change(result.values, metrics=metrics, masked=True, entropy_total=result.tally.entropy_total)

    def _metrics(self, result: Shaped, batch: Batch) -> dict[str, float]:
        """Those of `measure.weighting`, where a mixed group holds a success and a failure, and

        - entropy_shift/mean: how far the entropy moves the advantages, the sum over policy tokens of |A - B| over that
          of |A| or |B|, whichever is larger, where B is A with equal entropies.
        - entropy_clipped/mean: share of the policy tokens whose entropy `entropy_clip` changes.
        - overlong/mean: share of the responses that take part which the length penalty GROP touches.
        """
        size = max(result.size.sum(), result.equal.sum())
        mixed = mixed_groups(batch.group_ids, batch.success, batch.rows.count > 0)
        return measure.weighting(result, batch, mixed, measure.outcome_sign(batch)) | {
            "entropy_shift/mean": measure.ratio(result.moved.sum(), size),
            "entropy_clipped/mean": measure.ratio(result.clipped.sum(), batch.rows.count.sum()),
            "overlong/mean": measure.ratio(result.penalised.sum(), result.taking_part.sum()),
        }
