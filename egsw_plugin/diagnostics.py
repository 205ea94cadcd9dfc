"""What proves that a method was in effect: plain numbers for verl's loggers.

Names end in /mean, /max, /min or /sum on purpose and hold none of those letter runs elsewhere: verl's asynchronous
trainer reduces a metric by looking for these words in its name.
"""

from __future__ import annotations

import torch

from .kernels.egsw import EGSWResult
from .kernels.groups import Rows

SUCCESS_THRESHOLD = 0.5  # a response is a success if its score (sum of its token-level scores) is above it


def mixed_groups(group_ids: torch.Tensor, success: torch.Tensor, taking_part: torch.Tensor):
    """Which groups hold a success and a failure, bool [groups]; which exist at all, bool [groups].

    group_ids: int64 [rows]; success and taking_part: bool [rows]. Rows that do not take part do not count.

    >>> ids, yes, no = torch.tensor([0, 0, 1, 1]), True, False
    >>> mixed_groups(ids, torch.tensor([yes, no, yes, yes]), torch.tensor([yes, yes, yes, yes]))
    (tensor([ True, False]), tensor([True, True]))
    """
    number = int(group_ids.max()) + 1 if group_ids.numel() else 0
    successes = torch.bincount(group_ids[success & taking_part], minlength=number)
    failures = torch.bincount(group_ids[~success & taking_part], minlength=number)
    return (successes > 0) & (failures > 0), (successes + failures) > 0


def egsw_metrics(result: EGSWResult, rows: Rows, group_ids: torch.Tensor, success: torch.Tensor) -> dict[str, float]:
    """Metrics of one step of EGSW.

    - egsw/changed/mean: share of the policy tokens of mixed groups whose advantage the weights change (0 if there is
      no mixed group).
    - egsw/effective_share/mean: (sum w)^2 / sum w^2 over a column, divided by the number alive, mean over columns.
    - egsw/weight/max, egsw/weight/min: over policy tokens.
    - egsw/entropy/mean: nats, over policy tokens; equals verl's actor/entropy under token-mean, if the rows are right.
    - egsw/entropy_success/mean, egsw/entropy_failure/mean: the same over one kind; absent in a step that has none.
    - egsw/mixed_groups/mean: share of the groups that hold a success and a failure.
    """
    taking_part = rows.count > 0
    mixed, existing = mixed_groups(group_ids, success, taking_part)
    in_mixed = mixed[group_ids] & taking_part
    metrics = {
        "egsw/changed/mean": _ratio(result.changed[in_mixed].sum(), rows.count[in_mixed].sum()),
        "egsw/effective_share/mean": result.share_total / max(result.columns, 1),
        "egsw/weight/max": result.weight_max,
        "egsw/weight/min": result.weight_min,
        "egsw/mixed_groups/mean": _ratio(mixed.sum(), existing.sum()),
        "egsw/entropy/mean": _ratio(result.entropy_total.sum(), rows.count.sum()),
    }
    for name, which in (("success", success & taking_part), ("failure", ~success & taking_part)):
        if which.any():
            metrics[f"egsw/entropy_{name}/mean"] = _ratio(result.entropy_total[which].sum(), rows.count[which].sum())
    return metrics


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> float:
    return float(part) / float(whole) if float(whole) else 0.0
