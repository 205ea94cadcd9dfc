"""An entropy bonus in the loss whose coefficient follows the entropy (Skywork-OR1, arXiv 2505.22312; TRL)."""

from __future__ import annotations

import dataclasses

import torch

from ..controllers import PositiveScale, Step
from ..fields import Field
from ..options import Options, documented, option
from ..options.checks import in_range
from .interface import Batch, Change, Requirements, Transform

SKYWORK = Step(target=0.2, initial=0.0, delta=1e-4, min=0.0, max=0.005, gate="now")
DOUBLING = PositiveScale(target=0.2, initial=1e-3, min=1e-5, max=0.1)


@documented
@dataclasses.dataclass(frozen=True)
class AdaptiveEntropyOptions(Options):
    """Options of the adaptive entropy coefficient (arXiv 2505.22312), section ``algorithm.credit.adaptive_entropy``."""

    coefficient: float = option(
        SKYWORK,
        in_range(0, 1e3, inclusive=True),
        "coefficient of minus the current entropy (nats) in the loss. The default is Skywork's rule (whose code "
        "measures the surprisal); TRL's is {controller: step, delta: 0.005, max: 1.0, comparison: at_most, gate: last}",
        "c",
        "0 at first, +-1e-4 a step within [0, 0.005], target 0.2, in effect only below the target",
        controllers=(SKYWORK, DOUBLING),
    )


class AdaptiveEntropy(Transform[AdaptiveEntropyOptions]):
    """Adds a bonus for the current policy's entropy to the loss, with a coefficient that follows the entropy.

    The advantages stay as they are. The loss of a micro-batch becomes loss - c * (mean current entropy, with gradient),
    averaged over the batch like the policy loss. Needs actor_rollout_ref.actor.calculate_entropy=True.

    Metrics: `coefficient/mean`, its value in this step; `coefficient_target/mean`, the entropy that it steers to
    (nats).
    """

    name = "adaptive_entropy"
    options_type = AdaptiveEntropyOptions
    title = "adaptive entropy coefficient"
    source = "arXiv 2505.22312"
    formula = "loss - c * mean H;  c <- clip(c + delta if H < target else c - delta), counted only while H < target"
    favours = "uncertainty itself, at every token alike"
    identity = {"coefficient": 0.0}
    cost = "the entropy in the actor's update"
    status = "loop, hand-worked numbers, invariances, a killed and resumed run"

    def requirements(self, options: AdaptiveEntropyOptions) -> Requirements:
        """A field that verl's loss must be able to use."""
        return Requirements(fields={Field.ENTROPY_COEF: "coefficient"}, direction=1)

    def apply(self, options: AdaptiveEntropyOptions, batch: Batch) -> Change:
        """Publish the coefficient."""
        rows = len(batch.outcome)
        coefficient = torch.full((rows, 1), options.coefficient, dtype=torch.float32, device=batch.outcome.device)
        return Change(batch.advantages, {Field.ENTROPY_COEF: coefficient}, metrics={})
