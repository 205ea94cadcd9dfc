"""+1 for a success and -1 for a failure, without a baseline: the base of W-REINFORCE (arXiv 2506.01347)."""

from __future__ import annotations

import dataclasses

import torch

from ..options import Options, documented, option
from .interface import GRADED, SUCCESS, THRESHOLD, Base, Batch, Change, Requirements, Success


@documented
@dataclasses.dataclass(frozen=True)
class SuccessSignOptions(Options):
    """Options of the sign of success (arXiv 2506.01347), section ``algorithm.credit.success_sign``."""

    success: str = option(*SUCCESS)
    threshold: float = option(*THRESHOLD)


class SuccessSign(Base[SuccessSignOptions]):
    """Gives every token of a success the advantage 1 and every token of a failure -1.

    Without a baseline, groups without a success or without a failure have advantages, too.

    Metrics: `success/mean`, the share of responses that are successes.
    """

    name = "success_sign"
    options_type = SuccessSignOptions
    source = "arXiv 2506.01347"
    formula = "+1 on successes, -1 on failures"
    favours = "none: all tokens of a response are alike"
    cost = "none to speak of"
    status = "loop, hand-worked numbers, invariances"

    def requirements(self, options: SuccessSignOptions) -> Requirements:
        """What decides success."""
        success = Success.of(options.success, options.threshold)
        return Requirements(success=success, settings=() if success.field else (GRADED,))

    def advantages(self, options: SuccessSignOptions, batch: Batch) -> Change:
        """The sign of success."""
        there = batch.rows.count > 0
        sign = torch.where(batch.success, 1.0, -1.0).to(batch.outcome.dtype)
        number = float(there.sum())
        share = float((batch.success & there).sum()) / number if number else 0.0
        return Change(sign.unsqueeze(1), metrics={"success/mean": share})
