"""GTPO (arXiv 2508.04349): token rewards shaped by entropy, as a base."""

from __future__ import annotations

import dataclasses

from ..kernels.gtpo import gtpo
from ..options import documented, option
from .interface import Objective
from .shaped import CLIP, COEFFICIENT, NORM_SCOPE, PAPER, ShapedBase, ShapingOptions


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


class GTPO(ShapedBase[GTPOOptions]):
    """Rewards each token by success and by its entropy among the tokens at its position, and normalises by polarity.

    See docs/gtpo.md. Not the methods of the same name of arXiv 2508.03772 and 2511.14846.
    """

    name = "gtpo"
    options_type = GTPOOptions
    section = "algorithm.gtpo"
    title = "GTPO"
    formula = (
        "alpha1 + alpha2 * H * d / sum H on successes, -alpha1 - alpha2 * (1/H) * h / sum 1/H on failures, normalised"
    )
    kernel = gtpo
    coefficients = ("alpha1", "alpha2")
    per_token = True
    objective = Objective(("gtpo",), "token-mean", PAPER, CLIP)
