"""GRPO-S (arXiv 2508.04349): a reward a response, shaped by its mean entropy, as a base."""

from __future__ import annotations

import dataclasses

from ..kernels.grpo_s import grpo_s
from ..options import documented, option
from .interface import Objective
from .shaped import CLIP, COEFFICIENT, PAPER, ShapedBase, ShapingOptions


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


class GRPOS(ShapedBase[GRPOSOptions]):
    """Rewards each response by success and by its mean entropy among its group's, and normalises by polarity.

    See docs/gtpo.md.
    """

    name = "grpo_s"
    options_type = GRPOSOptions
    section = "algorithm.grpo_s"
    title = "GRPO-S"
    formula = (
        "beta1 + beta2 * Hm * n / sum Hm on successes, -beta1 - beta2 * (1/Hm) * m / sum 1/Hm on failures, normalised"
    )
    favours = "uncertain responses among successes get more reward; certain ones among failures get more blame"
    kernel = grpo_s
    coefficients = ("beta1", "beta2")
    per_token = False
    objective = Objective(("grpo_s", "grpo_s_geometric"), "seq-mean-token-mean", PAPER, CLIP)
