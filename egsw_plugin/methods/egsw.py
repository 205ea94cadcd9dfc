"""EGSW (arXiv 2503.22456) as a weighting over any base estimator."""

from __future__ import annotations

from .. import diagnostics
from ..errors import OptionError, VaryingAdvantagesError
from ..kernels.egsw import egsw
from ..kernels.rows import spread_rows
from ..options import EGSWOptions
from .base import Batch, Outcome, Success


class EGSW:
    """Entropy-guided sequence weighting: the base's advantages times a softmax weight over the group's responses."""

    name = "egsw"
    options_type = EGSWOptions

    def base(self, options: EGSWOptions) -> str:
        """The estimator whose advantages are weighted."""
        return options.base

    def success(self, options: EGSWOptions) -> Success:
        """The score: it decides nothing but what the metrics say about successes and failures."""
        return Success()

    def needs(self, options: EGSWOptions) -> tuple[str, ...]:
        """The entropy of the old policy, or its log-probabilities where they stand in for it."""
        return ("entropy",) if options.entropy == "full" else ("old_log_probs",)

    def apply(self, options: EGSWOptions, batch: Batch) -> Outcome:
        """Weigh the batch."""
        entropy = batch.tensors["entropy"] if options.entropy == "full" else batch.tensors["old_log_probs"].neg()
        weighted = options.channel == "advantage"
        try:
            result = egsw(
                batch.advantages,
                entropy,
                batch.rows,
                batch.group_ids,
                alpha=options.alpha,
                temperature=options.temperature,
                granularity=options.granularity,
                scope=options.scope,
                denominator=options.denominator,
                normalize=options.normalize,
                weigh_advantages=weighted,
            )
        except VaryingAdvantagesError as error:
            fix = f"with base={options.base}, {error}; use denominator=alive, or a base with one advantage a response"
            raise OptionError("algorithm.egsw.denominator", options.denominator, fix) from error
        measured = "entropy" if options.entropy == "full" else "surprisal"
        metrics = diagnostics.egsw_metrics(result, batch, measured)
        if weighted:
            return Outcome(result.values, None, metrics)
        advantages = batch.advantages
        if advantages.shape[1] == 1:
            advantages = spread_rows(batch.rows, advantages.squeeze(1))
        else:  # some bases (gae) whiten what stands outside the mask, too
            advantages = advantages.masked_fill(batch.rows.mask.eq(0), 0)
        return Outcome(advantages, result.values, metrics, options.weigh_kl)
