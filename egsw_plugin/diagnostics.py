"""What proves that a method was in effect: plain numbers for verl's loggers.

Names end in /mean, /max, /min or /sum on purpose and hold none of those letter runs elsewhere: verl's asynchronous
trainer reduces a metric by looking for these words in its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .kernels.egsw import EGSWResult
from .kernels.groups import mixed_groups
from .kernels.shaped import Shaped

if TYPE_CHECKING:
    from .methods.base import Batch


def egsw_metrics(result: EGSWResult, batch: Batch, measured: str = "entropy") -> dict[str, float]:
    """Metrics of one step of EGSW: those of `_common`; here a group is mixed if its rewards differ.

    With entropy=surprisal the names say so: egsw/surprisal/mean, egsw/surprisal_success/mean and
    egsw/surprisal_failure/mean in place of those of the entropy.
    """
    sign = _grpo_sign(batch)
    metrics = _common("egsw", result, batch, _unequal(sign, batch), sign)
    return {key.replace("egsw/entropy", f"egsw/{measured}"): value for key, value in metrics.items()}


def shaped_metrics(name: str, result: Shaped, batch: Batch) -> dict[str, float]:
    """Metrics of one step of GTPO or GRPO-S: those of `_common`, where a mixed group holds a success and a failure, and

    - NAME/entropy_clipped/mean: share of the policy tokens whose entropy `entropy_clip` changes.
    - NAME/overlong/mean: share of the responses that take part which the length penalty GROP touches.
    """
    mixed = mixed_groups(batch.group_ids, batch.success, batch.rows.count > 0)
    return _common(name, result, batch, mixed, _grpo_sign(batch)) | {
        f"{name}/entropy_clipped/mean": _ratio(result.clipped.sum(), batch.rows.count.sum()),
        f"{name}/overlong/mean": _ratio(result.penalised.sum(), result.taking_part.sum()),
    }


def unequal_groups(batch: Batch) -> torch.Tensor:
    """Which groups hold rewards that differ, bool [groups]: GRPO has advantages there."""
    return _unequal(_grpo_sign(batch), batch)


def _unequal(sign: torch.Tensor, batch: Batch) -> torch.Tensor:
    groups = int(batch.group_ids.max()) + 1 if batch.group_ids.numel() else 0
    return torch.bincount(batch.group_ids[(batch.rows.count > 0) & (sign != 0)], minlength=groups) > 0


def _common(
    name: str, result: EGSWResult | Shaped, batch: Batch, mixed: torch.Tensor, sign: torch.Tensor
) -> dict[str, float]:
    """Metrics of every method, given which groups are mixed, bool [groups], and the signs of GRPO's advantages, [rows];
    0 where there is nothing to count.

    - NAME/changed/mean: share of the policy tokens of mixed groups that the weights change (EGSW: the advantage; GTPO
      and GRPO-S: the reward).
    - NAME/effective_share/mean: (sum w)^2 / sum w^2 over what weights are compared over, divided by their number; mean.
    - NAME/weight/max, NAME/weight/min: over policy tokens.
    - NAME/sign_flip/mean: share of the policy tokens of mixed groups whose advantage has the opposite sign to GRPO's.
    - NAME/negative_success/mean, NAME/positive_failure/mean: share of the policy tokens of mixed groups' successes
      (failures) whose advantage is below (above) 0.
    - NAME/mixed_groups/mean: share of the groups that are mixed.
    - NAME/entropy/mean: nats, over policy tokens; equals verl's actor/entropy under token-mean, if the rows are right.
    - NAME/entropy_success/mean, NAME/entropy_failure/mean: the same over one kind; absent in a step that has none.
    """
    count, success = batch.rows.count, batch.success
    taking_part = count > 0
    existing = torch.bincount(batch.group_ids[taking_part], minlength=len(mixed)) > 0
    in_mixed = mixed[batch.group_ids] & taking_part
    flipped = torch.where(sign > 0, result.negative, torch.where(sign < 0, result.positive, 0))
    metrics = {
        "changed/mean": _share(result.tally.changed, count, in_mixed),
        "effective_share/mean": result.tally.share_total / max(result.tally.columns, 1),
        "weight/max": result.tally.weight_max,
        "weight/min": result.tally.weight_min,
        "sign_flip/mean": _share(flipped, count, in_mixed),
        "negative_success/mean": _share(result.negative, count, in_mixed & success),
        "positive_failure/mean": _share(result.positive, count, in_mixed & ~success),
        "mixed_groups/mean": _ratio(mixed.sum(), existing.sum()),
        "entropy/mean": _share(result.tally.entropy_total, count, taking_part),
    }
    for kind, which in (("success", success & taking_part), ("failure", ~success & taking_part)):
        if which.any():
            metrics[f"entropy_{kind}/mean"] = _share(result.tally.entropy_total, count, which)
    return {f"{name}/{key}": value for key, value in metrics.items()}


def _grpo_sign(batch: Batch) -> torch.Tensor:
    """Sign of the reward of each response less the mean of its group, [rows]."""
    group_ids, taking_part = batch.group_ids, batch.rows.count > 0
    outcome = batch.outcome.double().masked_fill(~taking_part, 0)
    groups = int(group_ids.max()) + 1 if group_ids.numel() else 0
    total = outcome.new_zeros(groups).index_add_(0, group_ids, outcome)
    size = torch.bincount(group_ids[taking_part], minlength=groups)
    return (outcome * size[group_ids] - total[group_ids]).sign()


def _share(part: torch.Tensor, whole: torch.Tensor, which: torch.Tensor) -> float:
    return _ratio(part[which].sum(), whole[which].sum())


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> float:
    return float(part) / float(whole) if float(whole) else 0.0
