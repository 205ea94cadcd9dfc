"""Advantages weighed by how the policy moves on the tokens that follow (FIPO, arXiv 2603.19835)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch

from ..kernels.policy_loss import discounted_future, token_mean
from ..options import Options, documented, option
from ..options.checks import flag, in_range
from .interface import PolicyLoss, Requirements
from .rules import DUAL_CLIP, PER_TOKEN, Rule, Tokens, anchor_field, clipped, weight_field, with_dual_clip

RATIO = in_range(1, 1e6, inclusive=False)
SAFE = (0.8, 1.0)  # what the factor of a token of failures is held within where its ratio is large


@documented
@dataclasses.dataclass(frozen=True)
class FIPOOptions(Options):
    """Options of FIPO (arXiv 2603.19835), section ``algorithm.credit.fipo``."""

    decay: float = option(
        32.0,
        in_range(0, 1e9, inclusive=False),
        "after how many tokens a log-ratio counts half (128 by default in the authors' code)",
        "tau",
        "32",
    )
    clip: float = option(0.2, in_range(0, 1, inclusive=True), "the factor lies within 1 - clip, 1 + clip", "e_f", "0.2")
    high_only: bool = option(
        False, flag, "`true`: the factor lies within 1, 1 + clip", paper="true for 32B, false for 7B"
    )
    safety: float = option(
        10.0,
        RATIO,
        "where A < 0 and the ratio is above this, the factor is held within 0.8, 1 (4 by default in the authors' "
        "code and in ms-swift)",
        "s",
        "10",
    )
    largest_ratio: float = option(
        10.0, RATIO, "tokens whose ratio is above this are left out of the sums of log-ratios", "c", "10"
    )
    drop: bool = option(
        True,
        flag,
        "responses with more than one token that is held by the dual clip have no loss (ms-swift: false); they stay in "
        "the denominator",
        paper="true",
    )
    dual_clip: float | None = option(10.0, *DUAL_CLIP, paper="10")

    def cautions(self) -> list[str]:
        """What `drop` looks at."""
        return ["drop has no effect with dual_clip=null"] if self.drop and self.dual_clip is None else []


class FIPO(PolicyLoss[FIPOOptions]):
    """The clipped objective of each token times a factor: how much more likely the tokens that follow have become.

    Distances are counted in places of the response, tool tokens included. No gradient goes through the factor.

    Metrics: `actor/fipo_factor/mean`; `actor/fipo_at_cap/mean`, the share of tokens whose factor is at a bound;
    `actor/fipo_dropped/mean`, the share of tokens in dropped responses.
    """

    name = "fipo"
    options_type = FIPOOptions
    title = "FIPO"
    source = "arXiv 2603.19835"
    formula = (
        "f * min(r A, clip(r) A),  f = clip(exp F, 1 - e_f, 1 + e_f),  F[t] = sum_{k>=t} 2^((t - k) / tau) log r[k]"
    )
    favours = "tokens after which the policy has become more sure of what it wrote"
    identity = {"clip": 0.0, "drop": False, "dual_clip": None}
    cost = "one scan over the micro-batch, linear in its length"
    status = "loop, finite differences, invariances, a run"
    reads = PER_TOKEN

    def requirements(self, options: FIPOOptions) -> Requirements:
        """Ratios other than 1."""
        return Requirements(off_policy="every log-ratio is 0, so that the factor is 1")

    def rule(self, options: FIPOOptions) -> Rule:
        """PPO's, times the factor."""
        surrogate = clipped if options.dual_clip is None else with_dual_clip(options.dual_clip)
        influence = functools.cache(functools.partial(_influence, options))  # factor and metrics: one scan
        factor, metrics = _factor(options, influence), _metrics(options, influence)
        return Rule(surrogate=surrogate, factor=factor, addend=_anchor(options), metrics=metrics)


def _influence(options: FIPOOptions, tokens: Tokens) -> torch.Tensor:
    """The factor before responses are dropped, [R, T]."""
    ratio, log_ratio = tokens.ratio.detach(), tokens.log_ratio.detach()
    counted = torch.where(ratio <= options.largest_ratio, log_ratio, 0.0)
    future = discounted_future(counted, 2.0 ** (-1.0 / options.decay))
    factor = future.clamp(-50, 50).exp().clamp(1.0 if options.high_only else 1 - options.clip, 1 + options.clip)
    unsafe = (tokens.advantages < 0) & (ratio > options.safety)
    return torch.where(unsafe, factor.clamp(*SAFE), factor).to(ratio.dtype)


def _dropped(options: FIPOOptions, tokens: Tokens) -> torch.Tensor:
    """Which responses have more than one token that the dual clip holds, bool [R, 1]."""
    if not options.drop or options.dual_clip is None:
        return torch.zeros_like(tokens.mask[:, :1])
    held = (tokens.advantages < 0) & (tokens.ratio > options.dual_clip) & tokens.mask
    return held.sum(1, keepdim=True) > 1


def _factor(options: FIPOOptions, influence: Callable[[Tokens], torch.Tensor]) -> Callable[[Tokens], torch.Tensor]:
    def factor(tokens: Tokens) -> torch.Tensor:
        own, weight = influence(tokens).masked_fill(_dropped(options, tokens), 0), weight_field(tokens)
        return own if weight is None else own * weight

    return factor


def _anchor(options: FIPOOptions) -> Callable[[Tokens], torch.Tensor | None]:
    def addend(tokens: Tokens) -> torch.Tensor | None:
        anchor = anchor_field(tokens)
        return None if anchor is None else anchor.masked_fill(_dropped(options, tokens), 0)

    return addend


def _metrics(options: FIPOOptions, influence: Callable[[Tokens], torch.Tensor]) -> Callable[[Tokens], dict[str, float]]:
    def metrics(tokens: Tokens) -> dict[str, float]:
        factor = influence(tokens)
        low = 1.0 if options.high_only else 1 - options.clip
        at_cap = (factor <= low) | (factor >= 1 + options.clip)
        return {
            "actor/fipo_factor/mean": token_mean(factor, tokens.mask, empty=1.0),
            "actor/fipo_at_cap/mean": token_mean(at_cap, tokens.mask),
            "actor/fipo_dropped/mean": token_mean(_dropped(options, tokens).expand_as(tokens.mask), tokens.mask),
        }

    return metrics
