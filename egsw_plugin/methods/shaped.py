"""GTPO and GRPO-S (arXiv 2508.04349): rewards shaped by entropy, in place of a base estimator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import diagnostics
from ..errors import TensorError
from ..kernels.grpo_s import grpo_s
from ..kernels.gtpo import gtpo
from ..kernels.normalization import Normalization
from ..kernels.shaped import Shaped
from ..kernels.shaping import Shaping
from ..options import GRPOSOptions, GTPOOptions, ShapingOptions
from .base import Batch, Outcome, Success

LARGEST = 1e38  # float32 holds it


@dataclass(frozen=True)
class ShapedMethod:
    """A kernel of shaped rewards under a name; `coefficients` are the names of its two reward coefficients."""

    name: str
    options_type: type[ShapingOptions]
    kernel: Callable[..., Shaped]
    coefficients: tuple[str, str]

    def base(self, options: ShapingOptions) -> None:
        """None: the reward is binary success, and nothing else is weighted."""

    def needs(self, options: ShapingOptions) -> tuple[str, ...]:
        """The entropy of the old policy."""
        return ("entropy",)

    def success(self, options: ShapingOptions) -> Success:
        """As the options say."""
        return Success(None if options.success == "score" else options.success, options.threshold)

    def apply(self, options: ShapingOptions, batch: Batch) -> Outcome:
        """Shape, normalise, and measure."""
        base, weight = (getattr(options, name) for name in self.coefficients)
        # failure: zero leaves one set of rewards, which is normalised as one.
        one_set = options.failure == "zero" and options.norm_set != "none"
        result = self.kernel(
            batch.tensors["entropy"],
            batch.rows,
            batch.group_ids,
            batch.success,
            Shaping(base, weight, options.failure, options.mean, options.entropy_floor, options.entropy_clip),
            Normalization("joint" if one_set else options.norm_set, options.std, options.eps),
            entropy_scope=options.entropy_scope,
            norm_scope=options.norm_scope,
            unmixed=options.unmixed,
            gamma1=options.overlong.gamma1 if options.overlong.enable else None,
        )
        # Normalised, they are bounded by the number of entries; else a weight of the geometric mean has no bound.
        greatest = abs(base) + max(abs(weight), 1.0) * result.tally.weight_max
        if options.norm_set == "none" and greatest > LARGEST:
            raise TensorError(
                f"algorithm.{self.name}.norm_set=none: an entropy weighs {result.tally.weight_max:.3g} times the mean, "
                f"which gives a reward of up to {greatest:.3g}; raise algorithm.{self.name}.entropy_floor, or normalise"
            )
        return Outcome(result.values, None, diagnostics.shaped_metrics(self.name, result, batch))


GTPO = ShapedMethod("gtpo", GTPOOptions, gtpo, ("alpha1", "alpha2"))
GRPO_S = ShapedMethod("grpo_s", GRPOSOptions, grpo_s, ("beta1", "beta2"))
