"""Our policy losses in verl's registry. They run in the actor's workers, on one micro-batch at a time."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import BridgeError
from ..kernels.policy_loss import clipped_surrogate
from . import bridge


def register(core_algos) -> None:
    """Register every loss in verl's registry of policy losses."""
    core_algos.register_policy_loss("egsw")(egsw_loss)


def egsw_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Clipped objective of each token times its EGSW weight (arXiv 2503.22456), without a dual clip.

    Args: old_log_prob, log_prob, advantages [rows, tokens]; response_mask bool [rows, tokens]; config, the actor's
    (clip_ratio, clip_ratio_low, clip_ratio_high, global_batch_info). The weights come from the advantage step.

    Returns: the loss, aggregated by verl's `agg_loss` over the global batch; metrics.

    Raises: BridgeError if no weights arrived, or weights of other rows.
    """
    from verl.trainer.ppo.core_algos import agg_loss

    weights = bridge.current_weights()
    if weights is None:
        raise BridgeError(
            "actor_rollout_ref.actor.policy_loss.loss_mode=egsw: no weights arrived with this batch; set "
            "algorithm.adv_estimator=egsw and +algorithm.egsw.channel=loss"
        )
    if weights.shape != log_prob.shape:
        raise BridgeError(f"weights of shape {tuple(weights.shape)} for log-probabilities of {tuple(log_prob.shape)}")
    low = config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low
    high = config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high
    losses, clipped, log_ratio = clipped_surrogate(log_prob, old_log_prob, advantages, low, high)
    weights = weights.to(losses.device)
    losses = losses * weights
    if rollout_is_weights is not None:
        losses = losses * rollout_is_weights
    loss = agg_loss(losses, response_mask, loss_agg_mode, **config.global_batch_info)
    tokens = response_mask.sum().clamp(min=1)

    def share(of: torch.Tensor) -> float:
        return float((of.detach() * response_mask).sum() / tokens)

    return loss, {
        "actor/pg_clipfrac": share(clipped),
        "actor/ppo_kl": share(-log_ratio),
        "actor/egsw_weighted/mean": share(weights.ne(1)),
    }
