"""A transform of one's own: tokens late in a response count less. See docs/extending.md."""

import dataclasses

import torch

from egsw_plugin.methods.interface import Batch, Change, Requirements, Transform
from egsw_plugin.options import Options, option
from egsw_plugin.options.checks import in_range


@dataclasses.dataclass(frozen=True)
class LateTokensOptions(Options):
    """Options of late_tokens, section algorithm.credit.late_tokens."""

    decay: float = option(0.99, in_range(0.1, 1, inclusive=True), "factor from one policy token to the next")


class LateTokens(Transform[LateTokensOptions]):
    """Multiplies the advantage of a response's n-th policy token by decay ** n."""

    name = "late_tokens"
    options_type = LateTokensOptions
    formula = "A * decay ** n"
    favours = "early tokens"
    identity = {"decay": 1.0}

    def requirements(self, options: LateTokensOptions) -> Requirements:
        """Tokens of one response differ."""
        return Requirements(per_token=True)

    def apply(self, options: LateTokensOptions, batch: Batch) -> Change:
        """Weigh by place."""
        place = batch.mask.cumsum(1) - 1
        return Change(batch.advantages * torch.pow(options.decay, place))
