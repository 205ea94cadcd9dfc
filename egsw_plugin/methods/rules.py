"""A policy loss as a composition of small functions, each with its own equation, on a micro-batch of R rows, T tokens.

    loss[t] = factor[t] * surrogate(ratio[t], A[t], bounds[t]) + addend[t]

Aggregation over the batch is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from ..fields import Field
from ..kernels.policy_loss import clipped_surrogate, dual_clipped, sequence_ratio, token_log_ratio, token_mean
from ..options.checks import in_range, optional


@dataclass(frozen=True, eq=False)
class Tokens:
    """What the functions of a rule see, [R, T] unless said otherwise; equal to itself alone, so that it can be a key.

    log_ratio: log pi / pi_old of each token, with gradient, 0 outside the mask. ratio: [R, T], or [R, 1] of a response.
    advantages: 0 outside the mask. mask: bool. low, high: the ratio's bounds are 1 - low and 1 + high, numbers or
    tensors. fields: those that the policy loss reads and that arrived.
    """

    log_ratio: torch.Tensor
    ratio: torch.Tensor
    advantages: torch.Tensor
    mask: torch.Tensor
    low: float | torch.Tensor
    high: float | torch.Tensor
    fields: Mapping[Field, torch.Tensor] = field(default_factory=dict)


def token_ratio(log_ratio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """pi / pi_old of each token, [R, T]."""
    return log_ratio.exp()


def mean_ratio(mean: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The ratio of each response, [R, 1]: see `sequence_ratio`."""
    return lambda log_ratio, mask: sequence_ratio(log_ratio, mask, mean)


def clipped(tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(r A, clip(r) A), and whether the clipped branch was taken: see `clipped_surrogate`."""
    return clipped_surrogate(tokens.ratio, tokens.advantages, tokens.low, tokens.high)


# What `option` takes after the default of the option `dual_clip`: see `with_dual_clip`.
DUAL_CLIP = (
    optional(in_range(1, 1e6, inclusive=False)),
    "what the loss of a token with A < 0 is held at, times |A| (verl's vanilla: 3)",
    "c",
)


def with_dual_clip(limit: float) -> Callable[[Tokens], tuple[torch.Tensor, torch.Tensor]]:
    """`clipped`, held at limit * |A| where A < 0: see `dual_clipped`."""

    def surrogate(tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        losses, taken = clipped(tokens)
        return dual_clipped(losses, tokens.advantages, limit), taken

    return surrogate


def weight_field(tokens: Tokens) -> torch.Tensor | None:
    """The weights that a transform published, on the device of the loss."""
    weight = tokens.fields.get(Field.WEIGHT)
    return None if weight is None else weight.to(tokens.ratio.device)


def anchor_field(tokens: Tokens) -> torch.Tensor | None:
    """coefficient * |log pi - log pi_old| of each token, with the coefficients that a transform published.

    Source: arXiv 2505.22617, KL-Cov.
    """
    anchor = tokens.fields.get(Field.ANCHOR)
    return None if anchor is None else anchor.to(tokens.ratio.device) * tokens.log_ratio.abs()


# What a policy loss that is composed with `weight_field` and `anchor_field` reads; `token_losses` takes the bounds.
PER_TOKEN = frozenset({Field.WEIGHT, Field.CLIP_LOW, Field.CLIP_HIGH, Field.ANCHOR})


def nothing(tokens: Tokens) -> None:
    """No factor, or no addend."""


def no_metrics(tokens: Tokens) -> dict[str, float]:
    """No metrics beside those of every policy loss."""
    return {}


@dataclass(frozen=True)
class Rule:
    """The functions that make a policy loss; the default is PPO's clipped objective of each token, no dual clip.

    ratio: from log-ratios [R, T] and mask. surrogate: losses [R, T] and which are clipped. factor, addend: [R, T] or
    None; a factor has no gradient through it unless its function wants one. metrics: by whole name (actor/...).
    """

    ratio: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = token_ratio
    surrogate: Callable[[Tokens], tuple[torch.Tensor, torch.Tensor]] = clipped
    factor: Callable[[Tokens], torch.Tensor | None] = nothing
    addend: Callable[[Tokens], torch.Tensor | None] = nothing
    metrics: Callable[[Tokens], dict[str, float]] = no_metrics


@dataclass(frozen=True)
class Losses:
    """The loss of each token [R, T], 0 outside the mask, and metrics as verl's own policy losses have them."""

    values: torch.Tensor
    metrics: dict[str, float]


def token_losses(
    rule: Rule,
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    low: float,
    high: float,
    fields: Mapping[Field, torch.Tensor] | None = None,
    correction: torch.Tensor | None = None,
) -> Losses:
    """The loss of each token of a micro-batch.

    Args:
        log_prob: of the current policy, with gradient; old_log_prob, advantages: [R, T]. mask: bool [R, T].
        low, high: bounds of the ratio, where no field sets them.
        fields: what arrived beside the advantages.
        correction: importance weights of rollout correction, [R, T], or None.

    >>> one = torch.ones(1, 1)
    >>> token_losses(Rule(), one * 0.4, one * 0, one, one.bool(), 0.2, 0.28).values
    tensor([[-1.2800]])
    """
    fields = {} if fields is None else fields
    log_ratio = token_log_ratio(log_prob, old_log_prob, mask)
    lower: float | torch.Tensor = fields.get(Field.CLIP_LOW, low)
    upper: float | torch.Tensor = fields.get(Field.CLIP_HIGH, high)
    if isinstance(lower, torch.Tensor) or isinstance(upper, torch.Tensor):
        bounds = (torch.as_tensor(bound, dtype=log_ratio.dtype, device=log_ratio.device) for bound in (lower, upper))
        lower, upper = (_inside(bound, mask) for bound in bounds)
    tokens = Tokens(
        log_ratio=log_ratio,
        ratio=rule.ratio(log_ratio, mask),
        advantages=_inside(advantages, mask),
        mask=mask,
        low=lower,
        high=upper,
        fields=fields,
    )
    values, taken = rule.surrogate(tokens)
    factor = rule.factor(tokens)
    if correction is not None:
        factor = correction if factor is None else factor * correction
    if factor is not None:
        values = values * _inside(factor, mask)
    addend = rule.addend(tokens)
    if addend is not None:
        values = values + _inside(addend, mask)
    metrics = {"actor/pg_clipfrac": token_mean(taken, mask), "actor/ppo_kl": token_mean(-log_ratio, mask)}
    return Losses(values, metrics | rule.metrics(tokens))


def _inside(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """0 outside the mask: what stands there means nothing, and NaN times 0 is NaN."""
    return torch.where(mask, tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))
