"""EGSW (arXiv 2503.22456): softmax weights over the responses of a group, from advantage and entropy.

    raw[i, t] = exp((A[i, t] + alpha * H[i, t]) / P),    w[i, t] = raw[i, t] / sum_j raw[j, t]

j runs over the responses that are alive at t, and t counts policy tokens. Shape letters: R rows, T tokens, C columns.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import ModuleType

import torch

from ..errors import TensorError, VaryingAdvantagesError
from . import compiled
from .rows import Rows, row_sums
from .tally import UNCHANGED, Tally, set_sums


@dataclass
class EGSWResult:
    """Weights and what diagnostics need of them.

    values: the weights, or the advantages times the weights, [R, T] and zero outside the mask, or [R, 1] where those of
    a response are one number. tally: of the weights; a
    token whose advantage is 0 is not changed. negative, positive: int64 [R], policy tokens whose weighted advantage is
    below and above 0.
    """

    values: torch.Tensor
    tally: Tally
    negative: torch.Tensor
    positive: torch.Tensor


def egsw(
    advantages: torch.Tensor,
    entropy: torch.Tensor,
    rows: Rows,
    group_ids: torch.Tensor,
    *,
    alpha: float,
    temperature: float,
    granularity: str = "step",
    scope: str = "group",
    denominator: str = "alive",
    normalize: str = "mean_one",
    weigh_advantages: bool = True,
) -> EGSWResult:
    """Weigh the policy tokens of each group by the softmax of (A + alpha * H) / P.

    Args:
        advantages: A [R, T], or [R, 1] where all tokens of a response have the same; floating point.
        entropy: H [R, T] in nats, floating point; computed in at least float32.
        rows: the measured response mask [R, T].
        group_ids: dense group ids, int64 [R].
        alpha, temperature, granularity, scope, denominator, normalize: see `EGSWOptions`.
        weigh_advantages: return A * w; otherwise w.

    Raises:
        TensorError: an advantage or entropy of a policy token that is not finite.
        VaryingAdvantagesError: denominator "all" with advantages that vary within a response.

    Source: arXiv 2503.22456; `mean_one`, `all` and `batch` are ours.

    >>> mask = torch.ones(2, 1, dtype=torch.int64)
    >>> A, H = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.0], [2.0]])
    >>> egsw(A, H, Rows.measure(mask), torch.tensor([0, 0]), alpha=1.0, temperature=1.0, weigh_advantages=False).values
    tensor([[1.],
            [1.]])
    """
    dtype = torch.promote_types(torch.promote_types(advantages.dtype, entropy.dtype), torch.float32)
    if not (abs(alpha) < 1e30 and 1e-30 < temperature < 1e30):
        dtype = torch.float64
    if scope == "batch":
        group_ids = torch.zeros_like(group_ids)
    softmax = _Softmax(alpha, temperature, denominator == "all", normalize == "mean_one", weigh_advantages, dtype)
    if granularity == "trajectory":
        result, sums = _weigh_trajectories(advantages, entropy, rows, group_ids, softmax)
    else:
        if denominator == "all" and advantages.shape[1] > 1:
            advantages, constant = _levels(advantages, rows)
            if not constant:
                raise VaryingAdvantagesError(
                    "a finished response has no advantage of its own: they vary within a response"
                )
        loops = compiled.loops_for(entropy)
        weigh = _weigh if loops is None else functools.partial(_weigh_compiled, loops)
        result, sums = weigh(advantages, entropy, rows, group_ids, softmax)
    _check_finite(advantages, entropy, rows, result.tally, sums)
    return result


LEAST, MOST = 1e-3, 1e6  # temperatures that are searched
NOTHING = 1e-6  # an advantage that is no larger part of the batch's largest is 0 up to rounding
SAMPLE = 1 << 14  # policy tokens that the search looks at, where there are more


def temperature_for(
    share: float,
    advantages: torch.Tensor,
    entropy: torch.Tensor,
    rows: Rows,
    group_ids: torch.Tensor,
    *,
    alpha: float,
    granularity: str = "step",
    scope: str = "group",
) -> tuple[float, float]:
    """P at which the mean effective share is `share`, between LEAST and MOST; and the share there.

    Counted are groups with an advantage other than 0 (up to rounding), or all if none has one; of more than SAMPLE
    policy tokens, every n-th one of each response. The share of a column, (sum w)^2 / sum w^2 / number, cannot fall as
    P grows: the mean is searched by halving an interval of log P, and where it is out of reach the nearest end is
    given.

    Args: as `egsw` has them. Source: ours, not in arXiv 2503.22456.

    >>> A, H, ids = torch.tensor([[1.0], [-1.0]]), torch.zeros(2, 1), torch.tensor([0, 0])
    >>> P, reached = temperature_for(0.8, A, H, Rows.measure(torch.ones(2, 1)), ids, alpha=0.0)
    >>> round(P, 2), round(reached, 4)  # weights 1.5 and 0.5, so exp(2 / P) = 3
    (1.82, 0.8)
    """
    key = torch.zeros_like(group_ids) if scope == "batch" else group_ids
    there = rows.count > 0
    if not bool(there.any()):
        return 1.0, share
    size = torch.where(there.unsqueeze(1) if advantages.shape[1] == 1 else rows.policy, advantages.abs(), 0)
    acting = set_sums((size > NOTHING * size.amax()).any(1).double(), key, int(key.max()) + 1) > 0
    which = acting[key] & there
    which = which if bool(which.any()) else there
    if granularity == "trajectory":
        level = advantages if advantages.shape[1] == 1 else _levels(advantages, rows)[0]
        mean = (row_sums(entropy, rows) / rows.count.clamp(min=1)).unsqueeze(1)
        alive, own, mean = there[which].unsqueeze(1), level[which], mean[which]
    else:
        step = -(-int(rows.count[which].sum()) // SAMPLE)
        some, (own, mean) = rows.every(step, which, advantages, entropy)
        alive = some.alive
    logit = own.double() + alpha * mean.double()
    width = logit.shape[1]
    column = (key[which].unsqueeze(1) * width + torch.arange(width, device=key.device))[alive]
    logit = logit[alive]
    columns = int(column.max()) + 1
    top = logit.new_full((columns,), -math.inf).scatter_reduce_(0, column, logit, "amax")
    below, number = logit - top[column], torch.bincount(column, minlength=columns)

    def reached(logarithm: float) -> float:
        raw = (below / math.exp(logarithm)).exp()
        total, squares = (torch.bincount(column, x, columns) for x in (raw, raw.square()))
        return float((total.square() / (squares * number))[number > 0].mean())

    low, high = math.log(LEAST), math.log(MOST)
    at_low, at_high = reached(low), reached(high)
    if at_low >= share or at_high <= share:
        return (LEAST, at_low) if at_low >= share else (MOST, at_high)
    for _ in range(12):
        middle = (low + high) / 2
        if (at_middle := reached(middle)) < share:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    found = low + (high - low) * (share - at_low) / (at_high - at_low)
    return math.exp(found), reached(found)


@dataclass(frozen=True)
class _Softmax:
    """The softmax and what becomes of it; `stay`: a finished response stays in the denominator, with H = 0."""

    alpha: float
    temperature: float
    stay: bool
    mean_one: bool
    fold: bool
    dtype: torch.dtype

    @property
    def numbers(self) -> tuple[float, float, float]:
        """Of A, of H, and of their sum less the largest one of its column, so that no sum overflows: a power of two
        that makes the sum small, and its inverse times 1 / P."""
        scale = 2.0 ** min(1 + max(0, math.ceil(math.log2(max(1.0, abs(self.alpha))))), 1000)
        return 1 / scale, self.alpha / scale, min(scale / self.temperature, torch.finfo(self.dtype).max)


def _weigh_compiled(
    loops: ModuleType,
    advantages: torch.Tensor,
    entropy: torch.Tensor,
    rows: Rows,
    group_ids: torch.Tensor,
    softmax: _Softmax,
) -> tuple[EGSWResult, torch.Tensor]:
    """A weight a token, on the CPU; and the sums of each row's advantages."""
    layout, number = rows.layout(loops, group_ids), compiled.DTYPES[softmax.dtype]
    work, columns = loops.work_space(layout, number, 2)
    numbers = map(number, (*softmax.numbers, 1, UNCHANGED))
    tally, counts = Tally.of(rows.count), rows.count.new_zeros(3, len(rows.count))
    values = compiled.zeros(rows.mask.shape, _result_dtype(advantages))
    advantage_total = torch.zeros_like(tally.entropy_total)
    loops.egsw(
        compiled.flat(entropy),
        compiled.flat(advantages),
        layout,
        loops.Softmax(*numbers, softmax.stay, softmax.mean_one, softmax.fold),
        work,
        columns,
        compiled.flat(values),
        tally.entropy_total.numpy(),
        advantage_total.numpy(),
        counts.numpy(),
        tally.numbers,
    )
    tally.changed, negative, positive = counts
    return EGSWResult(values, tally, negative, positive), advantage_total


def _weigh(
    advantages: torch.Tensor, entropy: torch.Tensor, rows: Rows, group_ids: torch.Tensor, softmax: _Softmax
) -> tuple[EGSWResult, torch.Tensor]:
    """The same in torch."""
    own = advantages.to(softmax.dtype).expand(rows.mask.shape)
    own, part = rows.columns(own), rows.columns(entropy).to(softmax.dtype)
    weights, tally = _weights(own, part, rows.alive, advantages, group_ids, softmax)
    weighted = weights * own
    tally.entropy_total = part.sum(1, dtype=torch.float64)
    tally.changed = ((weights - 1).abs() > UNCHANGED).logical_and_(own != 0).logical_and_(rows.alive).sum(1)
    values = rows.places(weighted if softmax.fold else weights).to(_result_dtype(advantages))
    return EGSWResult(values, tally, (weighted < 0).sum(1), (weighted > 0).sum(1)), own.sum(1)


def _weights(
    own: torch.Tensor,
    entropy: torch.Tensor,
    alive: torch.Tensor,
    advantages: torch.Tensor,
    key: torch.Tensor,
    softmax: _Softmax,
) -> tuple[torch.Tensor, Tally]:
    """Weights [R, C], 0 where not alive, of advantages and entropies [R, C] that are 0 there; a row's set is key."""
    sets = int(key.max()) + 1 if key.numel() else 0
    part, slope, rate = softmax.numbers
    logit = torch.where(alive, own * part + entropy * slope, -math.inf)
    index = key.unsqueeze(1).expand(logit.shape)
    top = logit.new_full((sets, logit.shape[1]), -math.inf).scatter_reduce_(0, index, logit, "amax")
    raw = torch.where(alive, ((logit - top[key]) * rate).exp(), 0)
    total, number = (set_sums(x.to(raw.dtype), key, sets) for x in (raw, alive))
    if softmax.stay:
        some = alive.any(1, keepdim=True)
        finished = ((advantages.to(raw.dtype) * part - top[key]) * rate).exp()
        total = total + set_sums(torch.where(some & ~alive, finished, 0), key, sets)
        number = set_sums(some.to(raw.dtype), key, sets).expand(total.shape)
    tally = Tally.of(key)
    tally.add(raw, alive, key, sets)
    factor = (number if softmax.mean_one else 1) / total
    weights = torch.where(alive, raw * factor[key], 0)
    least_and_most = Tally.of(key)
    least_and_most.add(weights, alive, key, sets)
    tally.numbers[2:] = least_and_most.numbers[2:]
    return weights, tally


def _weigh_trajectories(
    advantages: torch.Tensor, entropy: torch.Tensor, rows: Rows, group_ids: torch.Tensor, softmax: _Softmax
) -> tuple[EGSWResult, torch.Tensor]:
    """One weight a response, from its advantage (the mean one, where they vary) and its mean entropy."""
    count, some = rows.count, (rows.count > 0).unsqueeze(1)
    level = advantages if advantages.shape[1] == 1 else _levels(advantages, rows)[0]
    level, total = torch.where(some, level.to(softmax.dtype), 0), row_sums(entropy, rows)
    mean = (total / count.clamp(min=1)).to(softmax.dtype).unsqueeze(1)
    softmax = _Softmax(softmax.alpha, softmax.temperature, False, softmax.mean_one, softmax.fold, softmax.dtype)
    weights, tally = _weights(level, mean, some, level, group_ids, softmax)
    tally.entropy_total = total
    weighted = level * weights
    values = weighted if softmax.fold else weights
    different = ((weights - 1).abs() > UNCHANGED).squeeze(1)
    if advantages.shape[1] == 1:
        sides = [count * side.squeeze(1) for side in (weighted < 0, weighted > 0, level != 0)]
    else:
        weighted = torch.where(rows.policy, advantages.to(softmax.dtype) * weights, 0)
        values = weighted if softmax.fold else torch.where(rows.policy, weights, 0)
        sides = [(side & rows.policy).sum(1) for side in (weighted < 0, weighted > 0, advantages != 0)]
    negative, positive, there = sides
    tally.changed = there * different
    return EGSWResult(values.to(_result_dtype(advantages)), tally, negative, positive), level


def _result_dtype(advantages: torch.Tensor) -> torch.dtype:
    return torch.promote_types(advantages.dtype, torch.float32)


def _levels(advantages: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, bool]:
    """Advantage of each response [R, 1], that of its policy tokens if it is constant, else their mean; whether all are
    constant."""
    if not advantages.shape[1]:
        return advantages.new_zeros(len(advantages), 1), True
    greatest = advantages.masked_fill(~rows.policy, -math.inf).amax(1)
    same = advantages.masked_fill(~rows.policy, math.inf).amin(1) == greatest
    mean = row_sums(advantages, rows) / rows.count.clamp(min=1)
    some = rows.count > 0
    level = torch.where(same, greatest.double(), mean).masked_fill(~some, 0).to(advantages.dtype)
    return level.unsqueeze(1), bool(same[some].all())


def _check_finite(
    advantages: torch.Tensor, entropy: torch.Tensor, rows: Rows, tally: Tally, sums: torch.Tensor
) -> None:
    """Refuse a NaN or an infinity at a policy token; sums and shares that are finite say that there is none."""
    if math.isfinite(tally.share_total) and all(bool(x.isfinite().all()) for x in (tally.entropy_total, sums)):
        return
    for name, tensor in (("advantage", advantages), ("entropy", entropy)):
        if bool((~tensor.isfinite() & rows.policy).any()):
            raise TensorError(f"the {name} of a policy token is not finite")
    if not math.isfinite(tally.share_total):
        raise TensorError("advantages and entropies lie too far apart to compare")
