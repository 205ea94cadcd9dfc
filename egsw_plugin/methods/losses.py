"""The policy losses that are rows of one table: what each is made of, what it reads, and whose objective it is."""

from __future__ import annotations

import dataclasses

from ..fields import Field
from ..kernels.policy_loss import token_mean
from ..options import NoOptions, Options, documented, option
from .grpo_s import GRPOS
from .gtpo import GTPO
from .interface import PolicyLoss, Requirements
from .rules import DUAL_CLIP, PER_TOKEN, Rule, Tokens, anchor_field, clipped, mean_ratio, weight_field, with_dual_clip
from .shaped import PAPER


class GTPOLoss(PolicyLoss[NoOptions]):
    """The clipped objective of each token, without a dual clip."""

    name = "gtpo"
    source = PAPER
    formula = "min(r A, clip(r, 1 - low, 1 + high) A),  r = pi / pi_old of the token"

    def requirements(self, options: NoOptions) -> Requirements:
        """The paper's aggregation."""
        return Requirements(objective=GTPO.objective)

    def rule(self, options: NoOptions) -> Rule:
        """PPO's."""
        return Rule()


class EGSWLoss(PolicyLoss[NoOptions]):
    """The clipped objective of each token times its EGSW weight, without a dual clip."""

    name = "egsw"
    source = "arXiv 2503.22456"
    formula = "w * min(r A, clip(r, 1 - low, 1 + high) A)"
    reads = frozenset({Field.WEIGHT})
    needs = {Field.WEIGHT: "algorithm.adv_estimator=egsw and algorithm.egsw.channel=loss"}

    def rule(self, options: NoOptions) -> Rule:
        """PPO's, times the weights."""
        return Rule(factor=weight_field, metrics=_weighted)


class GRPOSLoss(PolicyLoss[NoOptions]):
    """The clipped objective of each response, its ratio the mean of its tokens'.

    Each row is a response; where advantages differ from token to token, each takes the response's ratio.
    """

    name = "grpo_s"
    source = PAPER
    formula = "min(r A, clip(r, 1 - low, 1 + high) A),  r = mean over the response of pi / pi_old"
    sequence_ratio = True
    averages_credit = True
    mean = "arithmetic"

    def requirements(self, options: NoOptions) -> Requirements:
        """The paper's aggregation."""
        return Requirements(objective=GRPOS.objective)

    def rule(self, options: NoOptions) -> Rule:
        """PPO's, over the response's ratio."""
        return Rule(ratio=mean_ratio(self.mean), metrics=_sequence_ratio)


class GeometricGRPOSLoss(GRPOSLoss):
    """The clipped objective of each response, its ratio the geometric mean of its tokens'."""

    name = "grpo_s_geometric"
    formula = "min(r A, clip(r, 1 - low, 1 + high) A),  r = exp(mean over the response of log pi / pi_old)"
    mean = "geometric"


@documented
@dataclasses.dataclass(frozen=True)
class GenericOptions(Options):
    """Options of the policy loss egsw_plugin, section ``algorithm.credit.egsw_plugin``."""

    dual_clip: float | None = option(None, *DUAL_CLIP)


class GenericLoss(PolicyLoss[GenericOptions]):
    """The clipped objective of each token, with whatever clip bounds, weights and anchors transforms have published.

    Without them it is PPO's, without a dual clip unless one is asked for.
    """

    name = "egsw_plugin"
    options_type = GenericOptions
    source = "arXiv 1707.06347, Eq 7"
    formula = "w * min(r A, clip(r, 1 - low, 1 + high) A) - anchor * |log r|"
    reads = PER_TOKEN

    def rule(self, options: GenericOptions) -> Rule:
        """PPO's, with fields."""
        surrogate = clipped if options.dual_clip is None else with_dual_clip(options.dual_clip)
        return Rule(surrogate=surrogate, factor=weight_field, addend=anchor_field)


def _weighted(tokens: Tokens) -> dict[str, float]:
    """Share of the tokens whose weight is not 1."""
    weight = tokens.fields[Field.WEIGHT].to(tokens.ratio.device)
    return {"actor/egsw_weighted/mean": token_mean(weight.ne(1), tokens.mask)}


def _sequence_ratio(tokens: Tokens) -> dict[str, float]:
    """The ratio of a response, mean over tokens."""
    return {"actor/grpo_s_ratio/mean": token_mean(tokens.ratio.expand_as(tokens.mask), tokens.mask, empty=1.0)}
