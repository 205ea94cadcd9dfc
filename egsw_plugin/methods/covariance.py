"""Clip-Cov and KL-Cov (arXiv 2505.22617) with tokens chosen over the whole batch.

verl's own `clip_cov` and `kl_cov` choose within each micro-batch, at least one token each, and draw without a seed.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from .. import measure
from ..fields import Field
from ..kernels.policy_loss import MAX_LOG_RATIO
from ..kernels.rows import row_sums
from ..kernels.selection import draw, largest
from ..options import Options, documented, option
from ..options.checks import finite, flag, in_range, whole
from .interface import Batch, Change, Requirements, Transform

SHARE = in_range(0, 1, inclusive=True)


@documented
@dataclasses.dataclass(frozen=True)
class BatchClipCovOptions(Options):
    """Options of Clip-Cov (arXiv 2505.22617), section ``algorithm.credit.batch_clip_cov``."""

    ratio: float = option(2e-4, SHARE, "share of the policy tokens that are drawn", "r", "2e-4")
    low: float = option(1.0, finite, "tokens are drawn among those whose covariance is at least this", "", "1")
    high: float = option(5.0, finite, "and at most this", "", "5")
    seed: int = option(1, whole(0, 2**31 - 1), "of the draw, which follows from it and the batch")

    def refusals(self) -> list[tuple[str, str]]:
        """Bounds between which nothing lies."""
        return [("low", "use a number that is not above high")] if self.low > self.high else []


@documented
@dataclasses.dataclass(frozen=True)
class BatchKLCovOptions(Options):
    """Options of KL-Cov (arXiv 2505.22617), section ``algorithm.credit.batch_kl_cov``."""

    k: float = option(2e-3, SHARE, "share of the policy tokens that are anchored", "k", "2e-3 (7B), 2e-4 (32B)")
    coefficient: float = option(
        1.0,
        in_range(0, 1e6, inclusive=True),
        "coefficient of |log pi - log pi_old| in the loss of these tokens (verl's kl_cov: 0.1 by default)",
        "beta",
        "1",
    )
    ratio_clip: bool = option(
        False,
        flag,
        "`true`: the ratio is clipped as configured; `false`: it is not, as in the authors' code and verl's kl_cov",
        paper="false",
    )


class BatchClipCov(Transform[BatchClipCovOptions]):
    """Takes a few tokens out of the loss, drawn among those whose advantage and log-probability vary together most.

    The log-probability is the old policy's and the draw is over the whole batch, with a seed: floor(r N) of the N
    policy tokens, fewer where fewer are within the bounds. Where r N < 1 nothing is drawn.

    Metrics: `changed/mean` and `distance/mean`; `chosen/mean`, the share of policy tokens that were drawn;
    `candidates/mean`, the share of those within the bounds; `covariance/mean`, `covariance/max`, over policy tokens.
    """

    name = "batch_clip_cov"
    options_type = BatchClipCovOptions
    title = "Clip-Cov over the batch"
    source = "arXiv 2505.22617"
    formula = "A * [token not drawn],  floor(r N) drawn among low <= (A - mean A)(l - mean l) <= high,  l = log pi_old"
    favours = "none; likely tokens of successes, which make the policy certain, are left out now and then"
    identity = {"ratio": 0.0}
    cost = "two sums over the batch"
    status = "loop, hand-worked numbers, invariances, a run"

    def requirements(self, options: BatchClipCovOptions) -> Requirements:
        """Log-probabilities."""
        return Requirements(tensors=("old_log_probs",), per_token=True)

    def apply(self, options: BatchClipCovOptions, batch: Batch) -> Change:
        """Draw, and leave the drawn ones without an advantage."""
        covariance, metrics = covariances(batch)
        candidates = batch.mask & (covariance >= options.low) & (covariance <= options.high)
        number = math.floor(options.ratio * float(batch.rows.count.sum()) + 1e-9)
        contents = (batch.advantages.expand(covariance.shape), batch.old_log_probs)
        chosen = draw(candidates, number, contents, options.seed)
        advantages = torch.where(chosen, 0.0, batch.advantages)
        metrics |= {"chosen/mean": measure.share_of(batch, chosen)}
        metrics |= {"candidates/mean": measure.share_of(batch, candidates)}
        return Change(advantages, metrics=measure.effect(batch, advantages) | metrics)


class BatchKLCov(Transform[BatchKLCovOptions]):
    """Anchors a few tokens to the old policy: those whose advantage and log-probability vary together most.

    The advantages stay as they are; the loss of the chosen tokens grows by coefficient * |log pi - log pi_old|, up
    to the 20 nats at which every loss here holds a ratio. The choice is over the whole batch: the floor(k N) largest of
    the N policy tokens, and those that equal the last one, none whose covariance is 0 or less. So nothing is anchored
    where all advantages are equal.

    Metrics: `chosen/mean`, the share of policy tokens that are anchored; `threshold/mean`, the least covariance among
    them; `covariance/mean`, `covariance/max`, over policy tokens.
    """

    name = "batch_kl_cov"
    options_type = BatchKLCovOptions
    title = "KL-Cov over the batch"
    source = "arXiv 2505.22617"
    formula = "loss + coefficient * |log r| on the floor(k N) largest (A - mean A)(l - mean l),  l = log pi_old"
    favours = "none; likely tokens of successes, which make the policy certain, are held back"
    identity = {"coefficient": 0.0, "ratio_clip": True}
    cost = "two sums and one selection over the batch; one field to the loss"
    status = "loop, hand-worked numbers, invariances"

    def requirements(self, options: BatchKLCovOptions) -> Requirements:
        """Log-probabilities, and a policy loss that adds the anchor."""
        bounds = {} if options.ratio_clip else {Field.CLIP_LOW: "ratio_clip", Field.CLIP_HIGH: "ratio_clip"}
        return Requirements(
            tensors=("old_log_probs",),
            fields={Field.ANCHOR: "coefficient", **bounds},
            per_token=True,
            off_policy="|log r| is 0, and so is its gradient",
        )

    def apply(self, options: BatchKLCovOptions, batch: Batch) -> Change:
        """Publish the coefficients."""
        covariance, metrics = covariances(batch)
        values = covariance[batch.mask]
        kept = largest(values, math.floor(options.k * len(values) + 1e-9)) & (values > 0)
        anchor = torch.zeros(covariance.shape, dtype=torch.float32, device=covariance.device)
        anchor.masked_scatter_(batch.mask, kept.float() * options.coefficient)
        fields = {Field.ANCHOR: anchor}
        if not options.ratio_clip:  # bounds that no ratio reaches
            one = torch.ones(len(anchor), 1, device=anchor.device)
            fields |= {Field.CLIP_LOW: one, Field.CLIP_HIGH: one * math.exp(MAX_LOG_RATIO)}
        metrics |= {"chosen/mean": measure.ratio(kept.sum(), batch.rows.count.sum())}
        if kept.any():
            metrics["threshold/mean"] = float(values[kept].min())
        return Change(batch.advantages, fields, metrics)


def covariances(batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
    """(A - mean A)(l - mean l) of each token, means over the batch's policy tokens; anything elsewhere, [R, T].

    Returns with it the metrics covariance/mean and covariance/max.
    """
    log_probs, count = batch.old_log_probs, float(batch.rows.count.sum())
    if not count:
        return torch.zeros_like(log_probs), {"covariance/mean": 0.0}
    level = float(row_sums(batch.advantages.expand(log_probs.shape), batch.rows).sum()) / count
    centre = float(row_sums(log_probs, batch.rows).sum()) / count
    covariance = (batch.advantages - level) * (log_probs - centre)
    total = float(row_sums(covariance, batch.rows).sum())
    return covariance, {"covariance/mean": total / count, "covariance/max": float(covariance[batch.mask].max())}
