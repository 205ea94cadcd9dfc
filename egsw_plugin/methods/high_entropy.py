"""The 80/20 rule: only the most uncertain tokens learn (arXiv 2506.01939)."""

from __future__ import annotations

import dataclasses

import torch

from .. import measure
from ..kernels.selection import keep_batch, keep_sets
from ..options import documented, option
from ..options.checks import in_range, one_of
from . import uncertainty
from .interface import Batch, Change, Requirements, Transform


@documented
@dataclasses.dataclass(frozen=True)
class HighEntropyOptions(uncertainty.UncertaintyOptions):
    """Options of the high-entropy mask (arXiv 2506.01939), section ``algorithm.credit.high_entropy``."""

    rho: float = option(0.2, in_range(0, 1, inclusive="high"), "share of the policy tokens that learn", "rho", "0.2")
    scope: str = option(
        "batch",
        one_of("batch", "group", "response"),
        "what a token is compared with: the `batch`, its `group`, or its `response`",
        paper="batch (the public codes: a micro-batch)",
    )
    ties: str = option(
        "keep",
        one_of("keep", "exact"),
        "`keep`: every token whose entropy is at least the (1 - rho) quantile, interpolated linearly (TRL, ms-swift); "
        "`exact`: the ceil(rho * N) most uncertain ones, of equal ones the first (a public port of the paper)",
        paper="keep",
    )
    denominator: str = option(
        "all",
        one_of("all", "kept"),
        "`all`: losses are averaged over all tokens; `kept`: advantages are multiplied by all / kept tokens of the "
        "batch, which under token-mean is the mean over the kept ones (a public port of the paper)",
        paper="all",
    )
    entropy: str = uncertainty.kind(paper="full")


class HighEntropy(Transform[HighEntropyOptions]):
    """Keeps the advantage of the most uncertain tokens, and sets that of all others to 0.

    The choice looks at the entropy alone, not at what the transforms before left. The KL loss is not masked. bfloat16
    entropies have many ties; see docs/egsw.md for float32.

    Metrics: `changed/mean` and `distance/mean`; `kept/mean`, the share of policy tokens that are kept;
    `threshold/mean`, the least entropy or surprisal among them (nats).
    """

    name = "high_entropy"
    options_type = HighEntropyOptions
    title = "80/20 high-entropy mask"
    source = "arXiv 2506.01939"
    formula = "A * [H >= tau],  tau = the (1 - rho) quantile of H over the policy tokens"
    favours = "the most uncertain tokens; the others learn nothing"
    identity = {"rho": 1.0}
    cost = "one selection over the batch (a sort with scope=group or response)"
    status = "loop, hand-worked numbers, invariances"

    def requirements(self, options: HighEntropyOptions) -> Requirements:
        """The entropy, or what stands in for it."""
        return Requirements(
            **uncertainty.needs(options.entropy),
            per_token=True,
            direction=1,
        )

    def apply(self, options: HighEntropyOptions, batch: Batch) -> Change:
        """Mask the advantages."""
        mask, entropy = batch.mask, batch.uncertainty(options.entropy)
        values = entropy[mask]
        if options.scope == "batch":
            kept = keep_batch(values, options.rho, options.ties)
        else:
            ids = batch.group_ids if options.scope == "group" else torch.arange(len(mask), device=mask.device)
            kept = keep_sets(values, ids.unsqueeze(1).expand(mask.shape)[mask], options.rho, options.ties)
        which = torch.zeros_like(mask).masked_scatter(mask, kept)
        number = int(kept.sum())
        factor = len(values) / number if options.denominator == "kept" and number else 1.0
        advantages = torch.where(which, batch.advantages * factor, torch.zeros((), dtype=batch.advantages.dtype))
        metrics = measure.effect(batch, advantages) | {"kept/mean": number / len(values) if len(values) else 0.0}
        if number:
            metrics["threshold/mean"] = float(values[kept].min())
        return Change(advantages, metrics=metrics, masked=True)
