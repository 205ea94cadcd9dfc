"""Gradients of clipped tokens kept, with weights of their own (CE-GPPO, arXiv 2509.20712)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from ..kernels.policy_loss import dual_clipped, token_mean
from ..options import Options, documented, option
from ..options.checks import in_range
from .interface import PolicyLoss, Requirements
from .rules import DUAL_CLIP, PER_TOKEN, Rule, Tokens, anchor_field, weight_field

BETA = in_range(0, 1e3, inclusive=True)


@documented
@dataclasses.dataclass(frozen=True)
class CEGPPOOptions(Options):
    """Options of CE-GPPO (arXiv 2509.20712), section ``algorithm.credit.ce_gppo``."""

    beta1: float = option(
        0.75,
        BETA,
        "weight of the gradient where r < 1 - low and A < 0 (0.25 by default in the authors' code)",
        "beta_1",
        "0.75 (7B), 0.5 (1.5B)",
    )
    beta2: float = option(1.0, BETA, "weight of the gradient where r > 1 + high and A > 0", "beta_2", "1")
    dual_clip: float | None = option(10.0, *DUAL_CLIP, paper="10")


class CEGPPO(PolicyLoss[CEGPPOOptions]):
    """The clipped objective of each token, in which clipped tokens keep a gradient of bounded size.

    Where PPO clips, value and gradient are beta times those of a token at the bound. With both betas 0 it has PPO's
    gradient, and another value.

    Metrics: `actor/ce_gppo_low/mean`, `actor/ce_gppo_high/mean`, the share of tokens that keep a gradient below and
    above the bounds.
    """

    name = "ce_gppo"
    options_type = CEGPPOOptions
    title = "CE-GPPO"
    source = "arXiv 2509.20712"
    formula = "-beta1 (1 - low) (r / sg r) A below the bounds, -beta2 (1 + high) (r / sg r) A above them, else -r A"
    favours = "above the bound rare tokens of successes, below it certain ones of failures"
    identity = {"beta1": 0.0, "beta2": 0.0, "dual_clip": None}
    cost = "none to speak of"
    status = "loop, finite differences, invariances"
    reads = PER_TOKEN

    def requirements(self, options: CEGPPOOptions) -> Requirements:
        """Ratios other than 1."""
        return Requirements(off_policy="no token is outside the bounds")

    def rule(self, options: CEGPPOOptions) -> Rule:
        """PPO's, with other branches."""
        surrogate = _gradient_preserving(options)
        return Rule(surrogate=surrogate, factor=weight_field, addend=anchor_field, metrics=_shares)


def _below(tokens: Tokens) -> torch.Tensor:
    return (tokens.ratio < 1 - tokens.low) & (tokens.advantages < 0)


def _above(tokens: Tokens) -> torch.Tensor:
    return (tokens.ratio > 1 + tokens.high) & (tokens.advantages > 0)


def _gradient_preserving(options: CEGPPOOptions) -> Callable[[Tokens], tuple[torch.Tensor, torch.Tensor]]:
    def surrogate(tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        below, above = _below(tokens), _above(tokens)
        bound = tokens.ratio / tokens.ratio.detach()  # 1, with the gradient of log r
        kept = torch.where(above, options.beta2 * (1 + tokens.high) * bound, tokens.ratio)
        losses = -tokens.advantages * torch.where(below, options.beta1 * (1 - tokens.low) * bound, kept)
        if options.dual_clip is not None:
            losses = dual_clipped(losses, tokens.advantages, options.dual_clip)
        return losses, below | above

    return surrogate


def _shares(tokens: Tokens) -> dict[str, float]:
    return {
        "actor/ce_gppo_low/mean": token_mean(_below(tokens), tokens.mask),
        "actor/ce_gppo_high/mean": token_mean(_above(tokens), tokens.mask),
    }
