"""EGSW (arXiv 2503.22456) as a transform over any base."""

from __future__ import annotations

import dataclasses
import math
from typing import TypedDict

import torch

from .. import measure
from ..console import warn_once
from ..fields import Field
from ..kernels.egsw import LEAST, MOST, egsw, temperature_for
from ..kernels.group_relative import EPSILON
from ..options import documented, option
from ..options.checks import estimator_name, finite, flag, in_range, one_of, optional, or_auto, positive
from . import uncertainty
from .interface import Batch, Change, Requirements, Transform


@documented
@dataclasses.dataclass(frozen=True)
class EGSWOptions(uncertainty.UncertaintyOptions):
    """Options of EGSW (arXiv 2503.22456), section ``algorithm.egsw``.

    The paper does not publish its values of alpha and P and calls the method sensitive to them: the defaults of
    `alpha` and `temperature` are ours.

    >>> EGSWOptions().describe()
    'base=grpo alpha=0.5 temperature=3.0 granularity=step scope=group denominator=alive ...'
    """

    base: str = option(
        "grpo",
        estimator_name,
        "estimator registered in verl that its V1 trainer can feed (not gdpo, remax, optimal_token_baseline, "
        "tir_optimal_token_baseline); supplies A. gae needs critic.enable=True",
        "A",
        "GRPO",
    )
    alpha: float = option(0.5, finite, "weight of the entropy (nats) in the logit", "alpha", "not public")
    temperature: float | str = option(
        3.0,
        or_auto(positive),
        "temperature of the softmax over responses, or `auto`: in each batch the one that gives `effective_share` "
        "(ours, not the paper's)",
        "P",
        "not public",
    )
    granularity: str = option(
        "step",
        one_of("step", "trajectory"),
        "`step`: one logit a policy token; `trajectory`: one logit a response, A_i + alpha * mean_t H[i, t]",
        paper="both",
    )
    scope: str = option(
        "group",
        one_of("group", "batch"),
        "the responses that the softmax runs over: those of a `group`, or of the `batch`",
        paper="group",
    )
    denominator: str = option(
        "alive",
        one_of("alive", "all"),
        "`alive`: a response takes part up to its last policy token; `all`: it stays in the sum with H = 0 and its own "
        "A, which must be constant over the response. No difference with granularity=trajectory",
    )
    normalize: str = option(
        "mean_one",
        one_of("mean_one", "sum_one"),
        "`mean_one`: weights times the number of responses in the denominator, so that a uniform weight is 1; "
        "`sum_one`: the literal formula, which divides the step size by about the group size",
        paper="sum_one",
    )
    entropy: str = uncertainty.kind(paper="full")
    channel: str = option(
        "advantage",
        one_of("advantage", "loss"),
        "`advantage`: weights fold into the advantages; `loss`: advantages stay the base's and policy loss egsw "
        "(actor_rollout_ref.actor.policy_loss.loss_mode=egsw) multiplies the weights in",
    )
    weigh_kl: bool = option(
        False,
        flag,
        "with channel=loss: the KL loss of a token (actor_rollout_ref.actor.use_kl_loss=True) is weighed like its "
        "policy loss",
    )
    effective_share: float | None = option(
        None,
        optional(in_range(0, 1, inclusive=False)),
        "with temperature=auto (null: 0.9): the mean of (sum w)^2 / sum w^2 over the responses alive at a token, "
        "divided by their number, in the groups that have an advantage other than 0; 1 would be equal weights",
    )

    def refusals(self) -> list[tuple[str, str]]:
        """Weights that would go nowhere, and a share that nothing reads."""
        if self.effective_share is not None and self.temperature != "auto":
            return [("effective_share", "it is read with algorithm.egsw.temperature=auto only; set that")]
        if self.weigh_kl and self.channel != "loss":
            return [("weigh_kl", "the weights reach the workers with algorithm.egsw.channel=loss only; set it")]
        return []


class EGSW(Transform[EGSWOptions]):
    """Multiplies each token's advantage by a softmax weight over its group's responses, from advantage and entropy.

    See docs/egsw.md.
    """

    name = "egsw"
    options_type = EGSWOptions
    section = "algorithm.egsw"
    title = "EGSW"
    source = "arXiv 2503.22456"
    formula = "A * w,  w = softmax over j of (A[j, t] + alpha * H[j, t]) / P,  times the number of j"
    favours = "responses of high advantage; among them, and more so with a large alpha, uncertain tokens"
    identity = {"alpha": 0.0, "temperature": 1e30}
    cost = "one pass over the batch"

    def base(self, options: EGSWOptions) -> str:
        """The estimator whose advantages are weighted."""
        return options.base

    def requirements(self, options: EGSWOptions) -> Requirements:
        """The entropy of the old policy, or its log-probabilities where they stand in for it."""
        fields = {Field.WEIGHT: "channel"} if options.channel == "loss" else {}
        fields |= {Field.KL_WEIGHT: "weigh_kl"} if fields and options.weigh_kl else {}
        alone = (
            "the softmax over one response is 1: nothing would change; set it to 2 or more, or {section}.scope=batch "
            "with a base that needs no group, such as gae"
        )
        return Requirements(
            **uncertainty.needs(options.entropy),
            responses=(2, alone) if options.scope == "group" else (1, ""),
            varying=("denominator", "alive") if options.denominator == "all" else None,
            fields=fields,
            per_token=options.granularity == "step",
            direction=(options.alpha > 0) - (options.alpha < 0),
        )

    def apply(self, options: EGSWOptions, batch: Batch) -> Change:
        """Weigh the batch."""
        entropy = batch.tensors["entropy"] if options.entropy == "full" else batch.tensors["old_log_probs"].neg()
        folded = options.channel == "advantage"
        temperature, reached = self._temperature(options, batch, entropy)
        settings: Settings = {
            "alpha": options.alpha,
            "temperature": temperature,
            "granularity": options.granularity,
            "scope": options.scope,
            "denominator": options.denominator,
            "normalize": options.normalize,
        }
        result = egsw(batch.advantages, entropy, batch.rows, batch.group_ids, **settings, weigh_advantages=folded)
        sign = measure.outcome_sign(batch)
        metrics = measure.weighting(result, batch, measure.unequal_groups(batch), sign)
        if options.entropy != "full":
            metrics = {key.replace("entropy", "surprisal", 1): value for key, value in metrics.items()}
        if reached is not None:
            metrics |= {"temperature/mean": temperature, "effective_share_reached/mean": reached}
        metrics["entropy_shift/mean"] = _entropy_shift(batch, entropy, settings)
        total = result.tally.entropy_total if options.entropy == "full" else None
        if folded:
            return Change(result.values, metrics=metrics, masked=True, entropy_total=total)
        fields = {Field.WEIGHT: result.values} | ({Field.KL_WEIGHT: result.values} if options.weigh_kl else {})
        return Change(batch.advantages, fields, metrics, entropy_total=total)

    @staticmethod
    def _temperature(options: EGSWOptions, batch: Batch, entropy: torch.Tensor) -> tuple[float, float | None]:
        """P, and where it was searched the effective share that it gives."""
        if not isinstance(options.temperature, str):  # which is auto
            return options.temperature, None
        share = SHARE if options.effective_share is None else options.effective_share
        advantages = batch.advantages
        if options.scope == "group" and advantages.shape[1] == 1:
            advantages = advantages.masked_fill(_rounding(batch).unsqueeze(1), 0)
        temperature, reached = temperature_for(
            share,
            advantages,
            entropy,
            batch.rows,
            batch.group_ids,
            alpha=options.alpha,
            granularity=options.granularity,
            scope=options.scope,
        )
        if abs(reached - share) > 0.01:
            warn_once(
                f"algorithm.egsw.temperature=auto: in a batch no temperature from {LEAST:g} to {MOST:g} gives an "
                f"effective share of {share:g}; the nearest is {reached:.3g}, at {temperature:g}",
                key=f"algorithm.egsw.temperature=auto {share:g}",
            )
        return temperature, reached


SHARE = 0.9  # where temperature=auto is set alone
SAMPLE = 1 << 14  # policy tokens


class Settings(TypedDict):
    """What the kernel is given beside tensors, but what it folds."""

    alpha: float
    temperature: float
    granularity: str
    scope: str
    denominator: str
    normalize: str


def _rounding(batch: Batch) -> torch.Tensor:
    """Which responses have equal rewards in their group, and an advantage [R, 1] of no more than rounding, bool [R].

    The mean of n equal rewards is off by n / 2 units of their last place at most, and verl divides that by EPSILON. It
    compares all rows, those without policy tokens included.
    """
    ids, reward, dtype = batch.group_ids, batch.outcome.double(), batch.outcome.dtype
    size = torch.bincount(ids)
    one = reward.new_zeros(len(size)).scatter(0, ids, reward)[ids]
    equal = torch.bincount(ids[reward != one], minlength=len(size)) == 0
    last = reward * (size | 1)[ids]
    exact = last == last.to(dtype)  # then no sum of fewer is rounded, and such an advantage is meant
    rounding = reward.abs() * size[ids] * torch.finfo(dtype).eps / 2 / EPSILON
    return equal[ids] & ~exact & (batch.advantages.squeeze(1).abs() <= rounding)


def _entropy_shift(batch: Batch, entropy: torch.Tensor, settings: Settings) -> float:
    """How far the entropy alone moves the weights: the sum of |w - w with alpha 0| over the sum of w with alpha 0.

    Over the policy tokens of the first groups of the batch, as many whole ones as have SAMPLE of them; where the first
    one has more, over every n-th one of each of its responses. With scope=batch these groups are the batch.
    """
    count, ids = batch.rows.count, batch.group_ids
    if settings["alpha"] == 0 or not count.any():
        return 0.0
    tokens = torch.bincount(ids, count).cumsum(0)
    groups = max(int((tokens <= SAMPLE).sum()), int((tokens == 0).sum()) + 1)
    which, step = ids < groups, math.ceil(tokens[groups - 1] / SAMPLE)
    rows, (advantages, thinned) = batch.rows.every(step, which, batch.advantages, entropy)
    alone: Settings = {**settings, "alpha": 0.0}
    with_entropy, without = (
        egsw(advantages, thinned, rows, ids[which], **chosen, weigh_advantages=False).values
        for chosen in (settings, alone)
    )
    number = rows.count.unsqueeze(1) if without.shape[1] == 1 else 1
    return measure.ratio(((with_entropy - without).abs() * number).sum(), (without * number).sum())
