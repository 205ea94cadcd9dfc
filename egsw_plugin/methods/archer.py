"""Clip bounds and KL by the entropy of the token (Archer, arXiv 2507.15778)."""

from __future__ import annotations

import dataclasses

import torch

from .. import measure
from ..fields import Field
from ..kernels.selection import keep_sets
from ..options import documented, option
from ..options.checks import flag, in_range
from . import uncertainty
from .interface import Batch, Change, Requirements, Transform

CLIP = in_range(0, 1, inclusive=True)


@documented
@dataclasses.dataclass(frozen=True)
class ArcherOptions(uncertainty.UncertaintyOptions):
    """Options of Archer (arXiv 2507.15778), section ``algorithm.credit.archer``."""

    quantile: float = option(
        0.8,
        in_range(0, 1, inclusive=False),
        "a token is uncertain if its entropy is at least this quantile of its response's",
        "",
        "0.8",
    )
    clip_certain: float = option(0.2, CLIP, "the ratio of other tokens is clipped to 1 - this, 1 + this", "", "0.2")
    clip_uncertain: float = option(
        0.5, CLIP, "the ratio of uncertain tokens is clipped to 1 - this, 1 + this", "", "0.5"
    )
    kl: bool = option(
        True,
        flag,
        "the KL loss (actor_rollout_ref.actor.use_kl_loss=True, kl_loss_coef=0.001) is that of the certain tokens "
        "alone, averaged over them under token-mean; `false`: the KL loss is left as it is",
        paper="true",
    )
    entropy: str = uncertainty.kind(paper="full, of the current policy")


class Archer(Transform[ArcherOptions]):
    """Lets uncertain tokens move further from the old policy, and holds certain ones to the reference policy.

    The advantages stay as they are. The entropy is the old policy's; the authors' code takes the current one's.

    Metrics: `uncertain/mean`, the share of policy tokens that are uncertain; `threshold/mean`, the least entropy or
    surprisal among them (nats).
    """

    name = "archer"
    options_type = ArcherOptions
    title = "Archer"
    source = "arXiv 2507.15778"
    formula = "clip(r, 1 - e, 1 + e) with e = clip_uncertain where H >= the response's quantile, else clip_certain"
    favours = "uncertain tokens: a wider clip and no KL loss"
    cost = "one sort over the batch; two or three fields to the loss"
    status = "loop, hand-worked numbers, invariances, a run"

    def requirements(self, options: ArcherOptions) -> Requirements:
        """The entropy, and a policy loss that takes bounds."""
        nothing = "the bounds of the clip have no effect"
        return Requirements(
            **uncertainty.needs(options.entropy),
            fields={
                Field.CLIP_LOW: "clip_uncertain",
                Field.CLIP_HIGH: "clip_uncertain",
                **({Field.KL_WEIGHT: "kl"} if options.kl else {}),
            },
            per_token=True,
            direction=(options.clip_uncertain > options.clip_certain) - (options.clip_uncertain < options.clip_certain),
            off_policy="" if options.kl else nothing,
            weaker_on_policy=nothing if options.kl else "",
        )

    def apply(self, options: ArcherOptions, batch: Batch) -> Change:
        """Publish the bounds and the KL loss's weights."""
        mask = batch.mask
        values = batch.uncertainty(options.entropy)[mask]
        response = torch.arange(len(mask), device=mask.device).unsqueeze(1).expand(mask.shape)[mask]
        kept = keep_sets(values, response, 1 - options.quantile, "keep")
        uncertain = torch.zeros_like(mask).masked_scatter(mask, kept)
        clip = torch.where(uncertain, options.clip_uncertain, options.clip_certain)
        fields = {Field.CLIP_LOW: clip, Field.CLIP_HIGH: clip}
        number = int(kept.sum())
        if options.kl:  # a mean over all tokens of what is the mean over the certain ones
            fields[Field.KL_WEIGHT] = (~uncertain).float() * (len(values) / max(len(values) - number, 1))
        metrics = {"uncertain/mean": measure.ratio(kept.sum(), batch.rows.count.sum())}
        if number:
            metrics["threshold/mean"] = float(values[kept].min())
        return Change(batch.advantages, fields, metrics)
