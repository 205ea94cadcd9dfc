"""EGSW (arXiv 2503.22456): softmax weights over the responses of a group, from advantage and entropy.

    raw[i, t] = exp((A[i, t] + alpha * H[i, t]) / P),    w[i, t] = raw[i, t] / sum_j raw[j, t]

j runs over the responses that are alive at t, and t counts policy tokens. Shape letters: R rows, T tokens; inside a
block N groups of G rows with C columns (policy tokens in order).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import TensorError, VaryingAdvantagesError
from .groups import Block, Groups, Rows


@dataclass
class EGSWResult:
    """Weights and what diagnostics need of them, gathered while a tile is in the cache.

    values: [R, T], zero outside the mask: the weights, or the advantages times the weights.
    changed, negative, positive: int64 [R], policy tokens whose advantage the weights change, and whose weighted
    advantage is below and above 0. entropy_total: [R], nats, summed over policy tokens. share_total: sum over columns
    of (sum w)^2 / sum w^2 / number alive. columns: their number. weight_max, weight_min: over all policy tokens (0 and
    0 if there are none).
    """

    values: torch.Tensor
    changed: torch.Tensor
    negative: torch.Tensor
    positive: torch.Tensor
    entropy_total: torch.Tensor
    share_total: float = 0.0
    columns: int = 0
    weight_max: float = -math.inf
    weight_min: float = math.inf


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
        advantages: A [R, T], floating point.
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
    shape = advantages.shape
    result = EGSWResult(
        values=advantages.new_zeros(shape, dtype=torch.promote_types(advantages.dtype, torch.float32)),
        changed=torch.zeros_like(rows.count),
        negative=torch.zeros_like(rows.count),
        positive=torch.zeros_like(rows.count),
        entropy_total=advantages.new_zeros(shape[0], dtype=dtype),
    )
    groups = Groups.of(torch.zeros_like(group_ids) if scope == "batch" else group_ids, rows.count > 0)
    weigh = _Weigher(alpha, temperature, denominator, normalize)
    for block in groups.blocks(shape[1]):
        block = Block((advantages, entropy), rows, block, dtype)
        if granularity == "trajectory":
            _weigh_trajectories(block, weigh, result, weigh_advantages)
        else:
            _weigh_steps(block, weigh, result, weigh_advantages)
    if not math.isfinite(result.share_total):
        raise TensorError("advantages or entropy of a policy token are not finite")
    if result.columns == 0:
        result.weight_max = result.weight_min = 0.0
    return result


@dataclass(frozen=True)
class _Weigher:
    """The softmax over dimension 1 of [N, G, ...], safe for every finite alpha, P and logit.

    Logits are halved (or scaled further, by a power of two, where alpha is large) before A and H are added, so that no
    sum overflows, and scaled back, together with 1/P, once the largest is subtracted.
    """

    alpha: float
    temperature: float
    denominator: str
    normalize: str

    def __call__(self, values, entropy, alive, constant=None):
        """Weights [N, G, ...] (zero where dead) and (sum w)^2 / sum w^2 over the alive [N, ...].

        `constant` [N, G, 1]: each response's advantage; given, dead responses stay in the sum with H = 0.
        """
        exponent = min(1 + max(0, math.ceil(math.log2(max(1.0, abs(self.alpha))))), 1000)
        scale = 2.0**exponent
        logit = values.mul(1 / scale).add_(entropy, alpha=self.alpha / scale)
        if constant is not None:
            logit = torch.where(alive, logit, constant / scale)
            present = alive.sum(1).gt(0).unsqueeze(1).mul(alive.shape[1])
        else:
            logit.masked_fill_(~alive, -math.inf)
            present = alive.sum(1, keepdim=True)
        logit -= logit.amax(1, keepdim=True).clamp_min_(torch.finfo(logit.dtype).min)
        weights = logit.mul_(min(scale / self.temperature, torch.finfo(logit.dtype).max)).exp_()
        total = weights.sum(1, keepdim=True).clamp_min_(1)  # the largest counts 1; less only where nobody is alive
        factor = (present if self.normalize == "mean_one" else 1) / total
        if constant is None:
            effective = _effective_number(weights, total.squeeze(1))
        else:
            # Next to a finished response of high advantage the alive ones may be too small to square.
            weights.masked_fill_(~alive, 0)
            relative = weights / weights.amax(1, keepdim=True).clamp_min_(torch.finfo(weights.dtype).tiny)
            effective = _effective_number(relative, relative.sum(1)).nan_to_num_(1.0)
        return weights.mul_(factor), effective


def _effective_number(weights: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """(sum w)^2 / sum w^2 over dimension 1, given the sum."""
    return total.square().div_(weights.square().sum(1))


def _weigh_steps(block: Block, weigh: _Weigher, result: EGSWResult, weigh_advantages: bool) -> None:
    constant = _constant_advantages(block) if weigh.denominator == "all" else None
    for columns in block.tiles():
        alive = block.alive(columns)
        values, entropy = block.read(columns)
        entropy.masked_fill_(~alive, 0)
        weights, effective = weigh(values, entropy, alive, constant)
        number = alive.sum(1)
        seen = number > 0
        result.share_total += float((effective / number)[seen].sum())
        result.columns += int(seen.sum())
        _record(block, columns, values, entropy, weights, alive, result, weigh_advantages)


def _weigh_trajectories(block: Block, weigh: _Weigher, result: EGSWResult, weigh_advantages: bool) -> None:
    level, entropy_mean = _per_response(block)
    everyone = torch.ones_like(level, dtype=torch.bool)
    weights, effective = weigh(level, entropy_mean, everyone)
    result.share_total += float((effective / level.shape[1]).sum())
    result.columns += level.shape[0]
    for columns in block.tiles():
        alive = block.alive(columns)
        values, entropy = block.read(columns)
        entropy.masked_fill_(~alive, 0)
        spread = weights.unsqueeze(-1) * alive
        _record(block, columns, values, entropy, spread, alive, result, weigh_advantages)


def _record(block, columns, values, entropy, weights, alive, result, weigh_advantages) -> None:
    """Write a tile's result and add to the counts."""
    dead = ~alive
    result.weight_max = max(result.weight_max, float(weights.max()))  # where dead, weights are zero
    result.weight_min = min(result.weight_min, float(weights.masked_fill(dead, math.inf).min()))
    weighted = values * weights
    for counter, counted in (
        (result.changed, weighted.ne(values)),
        (result.negative, weighted.lt(0)),
        (result.positive, weighted.gt(0)),
    ):
        counter.index_add_(0, block.flat, counted.logical_and_(alive).sum(-1).flatten())
    result.entropy_total.index_add_(0, block.flat, entropy.sum(-1).flatten())
    block.write(result.values, (weighted if weigh_advantages else weights).masked_fill_(dead, 0), columns)


def _extremes(block: Block) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """First, least, greatest and summed advantage and summed entropy of each response, all [N, G]."""
    first = least = greatest = total = entropy_total = None
    for columns in block.tiles():
        alive = block.alive(columns)
        values, entropy = block.read(columns)
        low, high = (
            values.masked_fill(~alive, math.inf).amin(-1),
            values.masked_fill(~alive, -math.inf).amax(-1),
        )
        part = values.masked_fill(~alive, 0).sum(-1)
        entropy_part = entropy.masked_fill(~alive, 0).sum(-1)
        if first is None:
            first, least, greatest, total, entropy_total = values[..., 0], low, high, part, entropy_part
        else:
            least, greatest = torch.minimum(least, low), torch.maximum(greatest, high)
            total, entropy_total = total + part, entropy_total + entropy_part
    return first, least, greatest, total, entropy_total


def _per_response(block: Block) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantage and mean entropy of each response [N, G]: the first token's advantage if constant, else the mean."""
    first, least, greatest, total, entropy_total = _extremes(block)
    level = torch.where(least == greatest, first, total / block.count)
    return level, entropy_total / block.count


def _constant_advantages(block: Block) -> torch.Tensor:
    first, least, greatest, _, _ = _extremes(block)
    if not bool((least == greatest).all()):
        raise VaryingAdvantagesError("a finished response has no advantage of its own: they vary within a response")
    return first.unsqueeze(-1)
