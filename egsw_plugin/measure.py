"""What proves that a member was in effect: plain numbers for verl's loggers.

Names end in /mean, /max, /min or /sum on purpose and hold none of those letter runs elsewhere: verl's asynchronous
trainer reduces a metric by looking for these words in its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from .kernels.egsw import EGSWResult
from .kernels.shaping import Shaped

if TYPE_CHECKING:
    from .methods.interface import Batch

BLOCK = 1 << 20  # elements looked at in one go, so that no second batch is held in memory
CHANGED = 1e-6  # an advantage that differs from another by no more than this part of it is the same up to rounding


def facts(batch: Batch[Any], entropy_total: torch.Tensor | None) -> dict[str, float]:
    """What a batch is, whatever the members make of it; 0 where there is nothing to count.

    - mixed_groups/mean: share of the groups whose rewards differ: GRPO has advantages there.
    - entropy/mean: nats, over policy tokens; equals verl's actor/entropy under token-mean, if the rows are right.
    - entropy_success/mean, entropy_failure/mean: the same over one kind; absent in a step that has none.

    entropy_total: sums over each row's policy tokens (nats, [R]), or None if nobody needed the entropy.
    """
    taking_part = batch.rows.count > 0
    mixed = unequal_groups(batch)
    metrics = {"mixed_groups/mean": ratio(mixed.sum(), _existing(batch, len(mixed)).sum())}
    return metrics | ({} if entropy_total is None else _entropies(batch, entropy_total, taking_part))


def effect(batch: Batch[torch.Tensor | None], advantages: torch.Tensor) -> dict[str, float]:
    """What can be said of any transform or base, given the advantages that it made, [R, 1] or [R, T].

    - changed/mean: share of the policy tokens whose advantage differs from what it was before, up to rounding.
    - distance/mean: sum over policy tokens of |A - base's A| over the sum of |base's A|; 0 where that is 0.
    """
    if batch.base is None or batch.advantages is None:
        return {}
    changed = far = size = 0.0
    for block in _blocks(*batch.rows.mask.shape):
        mask = batch.rows.mask[block].ne(0)
        after, before, base = (
            x[block].expand(mask.shape)[mask].double() for x in (advantages, batch.advantages, batch.base)
        )
        changed += float(((after - before).abs() > CHANGED * before.abs()).sum())
        far, size = far + float((after - base).abs().sum()), size + float(base.abs().sum())
    count = float(batch.rows.count.sum())
    distance = far / size if size else 0.0 if math.isfinite(far) else far  # what is not a number shows
    return {"changed/mean": changed / count if count else 0.0, "distance/mean": distance}


def share_of(batch: Batch[Any], which: torch.Tensor) -> float:
    """Share of the policy tokens that `which` names, bool [R, T]; 0 if there are none."""
    return ratio((which & batch.mask).sum(), batch.rows.count.sum())


def weighting(
    result: EGSWResult | Shaped, batch: Batch[Any], mixed: torch.Tensor, sign: torch.Tensor
) -> dict[str, float]:
    """Metrics of EGSW, GTPO and GRPO-S, given which groups are mixed, bool [groups], and the signs of GRPO's
    advantages, [R]; 0 where there is nothing to count.

    - changed/mean: share of the policy tokens of mixed groups that the weights change (EGSW: the advantage; GTPO and
      GRPO-S: the reward).
    - effective_share/mean: (sum w)^2 / sum w^2 over what weights are compared over, divided by their number; mean.
    - weight/max, weight/min: over policy tokens. These three are absent in a step that compares no weights.
    - sign_flip/mean: share of the policy tokens of mixed groups whose advantage has the opposite sign to GRPO's.
    - negative_success/mean, positive_failure/mean: share of the policy tokens of mixed groups' successes (failures)
      whose advantage is below (above) 0.
    - mixed_groups/mean: share of the groups that are mixed.
    - entropy/mean, entropy_success/mean, entropy_failure/mean: as of `facts`.
    """
    count, success = batch.rows.count, batch.judged
    taking_part = count > 0
    in_mixed = mixed[batch.group_ids] & taking_part
    flipped = torch.where(sign > 0, result.negative, torch.where(sign < 0, result.positive, 0))
    tally, compared = result.tally, {}
    if tally.columns:
        compared = {
            "effective_share/mean": tally.share_total / tally.columns,
            "weight/max": tally.weight_max,
            "weight/min": tally.weight_min,
        }
    return {
        "changed/mean": _share(tally.changed, count, in_mixed),
        **compared,
        "sign_flip/mean": _share(flipped, count, in_mixed),
        "negative_success/mean": _share(result.negative, count, in_mixed & success),
        "positive_failure/mean": _share(result.positive, count, in_mixed & ~success),
        "mixed_groups/mean": ratio(mixed.sum(), _existing(batch, len(mixed)).sum()),
        **_entropies(batch, tally.entropy_total, taking_part),
    }


def unequal_groups(batch: Batch[Any]) -> torch.Tensor:
    """Which groups hold rewards that differ, bool [groups]: GRPO has advantages there."""
    groups = int(batch.group_ids.max()) + 1 if batch.group_ids.numel() else 0
    differing = (batch.rows.count > 0) & (outcome_sign(batch) != 0)
    return torch.bincount(batch.group_ids[differing], minlength=groups) > 0


def outcome_sign(batch: Batch[Any]) -> torch.Tensor:
    """Sign of the reward of each response less the mean of its group, [R]: that of GRPO's advantage."""
    group_ids, taking_part = batch.group_ids, batch.rows.count > 0
    outcome = batch.outcome.double().masked_fill(~taking_part, 0)
    groups = int(group_ids.max()) + 1 if group_ids.numel() else 0
    total = outcome.new_zeros(groups).index_add_(0, group_ids, outcome)
    size = torch.bincount(group_ids[taking_part], minlength=groups)
    return (outcome * size[group_ids] - total[group_ids]).sign()


def ratio(part: torch.Tensor, whole: torch.Tensor) -> float:
    """part / whole, 0 where the whole is 0."""
    return float(part) / float(whole) if float(whole) else 0.0


def _blocks(rows: int, tokens: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(tokens, 1))
    yield from (slice(start, start + step) for start in range(0, rows, step))


def _existing(batch: Batch[Any], groups: int) -> torch.Tensor:
    """Which groups have a policy token, bool [groups]."""
    return torch.bincount(batch.group_ids[batch.rows.count > 0], minlength=groups) > 0


def _entropies(batch: Batch[Any], total: torch.Tensor, taking_part: torch.Tensor) -> dict[str, float]:
    count, success = batch.rows.count, batch.judged
    metrics = {"entropy/mean": _share(total, count, taking_part)}
    for kind, which in (("success", success & taking_part), ("failure", ~success & taking_part)):
        if which.any():
            metrics[f"entropy_{kind}/mean"] = _share(total, count, which)
    return metrics


def _share(part: torch.Tensor, whole: torch.Tensor, which: torch.Tensor) -> float:
    return ratio(part[which].sum(), whole[which].sum())
