"""An upper clip that follows the entropy (MAI-Thinking-1)."""

from __future__ import annotations

import dataclasses

import torch

from ..controllers import Step
from ..fields import Field
from ..options import Options, documented, option
from ..options.checks import in_range
from .interface import Batch, Change, Requirements, Transform

RISING = Step(target=0.3, initial=0.0, delta=0.25, min=0.0, max=2.5)


@documented
@dataclasses.dataclass(frozen=True)
class AdaptiveClipOptions(Options):
    """Options of the adaptive upper clip (MAI-Thinking-1), section ``algorithm.credit.adaptive_clip``."""

    epsilon: float = option(
        0.6,
        in_range(0, 1, inclusive=False),
        "the ratio's lower bound is 1 - epsilon, and the upper one at least 1 / (1 - epsilon)",
        "e",
        "0.6",
    )
    k: float = option(
        RISING,
        in_range(0, 1e3, inclusive=True),
        "what is added to the upper bound. The report averages the entropy with importance weights whose form "
        "was not to be had: here it is the old policy's plain mean",
        "k",
        "+-0.25 a step within [0, 2.5], target 0.3",
        controllers=(RISING,),
    )


class AdaptiveClip(Transform[AdaptiveClipOptions]):
    """Raises the ratio's upper bound while the entropy is too low, and lowers it otherwise.

    The advantages stay as they are.

    Metrics: `k/mean`, its value in this step; `k_target/mean`, the entropy that it steers to (nats); `upper/mean`, the
    ratio's upper bound.
    """

    name = "adaptive_clip"
    options_type = AdaptiveClipOptions
    title = "adaptive upper clip"
    source = "MAI-Thinking-1 (report)"
    formula = "clip(r, 1 - e, 1 / (1 - e) + k);  k <- clip(k + delta if H < target else k - delta, 0, k_max)"
    favours = "while the entropy is low, tokens of successes that have become more likely: rare ones most"
    cost = "two numbers a response to the loss"
    status = "loop, hand-worked numbers, invariances"

    def requirements(self, options: AdaptiveClipOptions) -> Requirements:
        """A policy loss that takes bounds."""
        return Requirements(
            fields={Field.CLIP_LOW: "epsilon", Field.CLIP_HIGH: "k"},
            direction=1,
            off_policy="the bounds of the clip have no effect",
        )

    def apply(self, options: AdaptiveClipOptions, batch: Batch) -> Change:
        """Publish the bounds."""
        upper = 1 / (1 - options.epsilon) + options.k
        one = torch.ones(len(batch.outcome), 1, device=batch.outcome.device)
        fields = {Field.CLIP_LOW: one * options.epsilon, Field.CLIP_HIGH: one * (upper - 1)}
        return Change(batch.advantages, fields, metrics={"upper/mean": upper})
