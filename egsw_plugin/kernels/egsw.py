"""EGSW (arXiv 2503.22456): softmax weights over the responses of a group, from advantage and entropy.

    raw[i, t] = exp((A[i, t] + alpha * H[i, t]) / P),    w[i, t] = raw[i, t] / sum_j raw[j, t]

j runs over the responses that are alive at t, and t counts policy tokens. Shape letters: R rows, T tokens; in a tile
N groups of up to G rows with C columns (policy tokens in order).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import TensorError, VaryingAdvantagesError
from .groups import Groups
from .rows import Rows, blank, chunks, keep
from .tiles import UNCHANGED, Tally, count_beyond, count_signs

# A logit no further than this from 0 needs no largest one subtracted: exp(30) is 1e13, and its square fits float32.
NEAR = 30.0


@dataclass
class EGSWResult:
    """Weights and what diagnostics need of them.

    values: [R, T], zero outside the mask: the weights, or the advantages times the weights. tally: of the weights; a
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
    level = None
    if advantages.shape[1] == 1:
        level = advantages.squeeze(1).to(dtype).masked_fill(rows.count == 0, 0)
    elif granularity == "trajectory" or denominator == "all":
        level, constant = _level(advantages, rows, dtype)
        if granularity == "step" and not constant:
            raise VaryingAdvantagesError("a finished response has no advantage of its own: they vary within a response")
    group_ids = torch.zeros_like(group_ids) if scope == "batch" else group_ids
    groups = Groups.of(group_ids, rows.count > 0, rows.count)
    tally = Tally(rows)
    if granularity == "trajectory":
        weigh = _Weigher(alpha, temperature, "alive", normalize, dtype, tally)
        result = _weigh_trajectories(advantages, level, entropy, rows, groups, weigh, weigh_advantages)
    else:
        weigh = _Weigher(alpha, temperature, denominator, normalize, dtype, tally)
        result = _weigh_steps(advantages, level, entropy, rows, groups, weigh, weigh_advantages)
    _check_finite(advantages, entropy, rows, tally)
    return result


@dataclass(frozen=True)
class _Weigher:
    """The softmax over dimension 1 of [N, G, C], safe for every finite alpha, P and logit."""

    alpha: float
    temperature: float
    denominator: str
    normalize: str
    dtype: torch.dtype
    tally: Tally

    def __call__(self, values: torch.Tensor, entropy: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """Weights [N, G, C], 0 where not alive; adds their shares to the tally.

        values: [N, G, C], or [N, G, 1] where they do not vary. entropy: zero where not alive.
        """
        raw = self._raw(values, entropy, alive)
        tiny = torch.finfo(raw.dtype).tiny
        number = alive.sum(1, keepdim=True)
        if self.denominator == "all":
            # A finished response stays in the sum. Next to one of high advantage the alive may be too small to square.
            total, present = raw.sum(1, keepdim=True), number.clamp(max=1) * alive.shape[1]
            own = raw.mul_(alive) / raw.amax(1, keepdim=True).clamp_min_(tiny)
            self.tally.share(own.sum(1), own.square().sum(1), number.squeeze(1))
        else:
            total, present = raw.mul_(alive).sum(1, keepdim=True), number
            self.tally.share(total.squeeze(1), raw.square().sum(1), number.squeeze(1))
        total.clamp_min_(tiny)
        if self.normalize == "mean_one":
            total /= present.clamp(min=1)
        return raw.div_(total)

    def _raw(self, values: torch.Tensor, entropy: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """exp of the logits [N, G, C], each column times a number of its own."""
        least, greatest = (float(bound) for bound in values.aminmax())
        centre, rate = least / 2 + greatest / 2, self.alpha / self.temperature
        reach = (greatest - centre) / self.temperature + abs(rate) * max(abs(float(x)) for x in entropy.aminmax())
        if reach <= NEAR and abs(rate) <= 1e30:
            return torch.add((values - centre) / self.temperature, entropy, alpha=rate).exp_()
        # Logits are halved (or scaled further, by a power of two, where alpha is large) before A and H are added, so
        # that no sum overflows, and scaled back, together with 1/P, once the largest is subtracted.
        exponent = min(1 + max(0, math.ceil(math.log2(max(1.0, abs(self.alpha))))), 1000)
        scale = 2.0**exponent
        logit = torch.add(values / scale, entropy, alpha=self.alpha / scale)
        if self.denominator == "alive":
            logit.masked_fill_(alive == 0, -math.inf)
        logit -= logit.amax(1, keepdim=True).clamp_min_(torch.finfo(logit.dtype).min)
        return logit.mul_(min(scale / self.temperature, torch.finfo(logit.dtype).max)).exp_()


def _weigh_steps(
    advantages: torch.Tensor,
    level: torch.Tensor | None,
    entropy: torch.Tensor,
    rows: Rows,
    groups: Groups,
    weigh: _Weigher,
    weigh_advantages: bool,
) -> EGSWResult:
    """A weight a token; where `level` [R] is given, it is the advantage of all tokens of a response."""
    tally, negative, positive = weigh.tally, torch.zeros_like(rows.count), torch.zeros_like(rows.count)
    entropy = rows.pack(entropy)
    values = blank(len(entropy) + 1, entropy.shape[1], entropy, _result_dtype(advantages))
    advantages = rows.pack(advantages) if level is None else advantages
    for tile in groups.tiles(weigh.dtype, whole=weigh.denominator == "all"):
        part, total = tile.read(entropy)
        own = tile.read(advantages)[0] if level is None else tile.of_rows(level)
        weights = weigh(own, part, tile.alive)
        difference = weights - tile.alive
        if weigh.denominator == "all":  # all weights of the alive may be above 1
            least = tally.range(weights, difference.masked_fill(tile.alive == 0, math.inf))
        else:
            least = tally.range(weights, difference)
        weighted = weights * own
        if level is None:
            changed = count_beyond(difference.mul_(own.sign()), UNCHANGED)
        else:
            changed = count_beyond(difference, UNCHANGED) * own.squeeze(-1).ne(0)
        if level is None or least < UNCHANGED:
            below, above = count_signs(weighted)
        else:  # no product is too small for its sign to show
            number = tile.alive.sum(-1)
            below, above = (number * side.squeeze(-1) for side in (own < 0, own > 0))
        for counter, counts in (
            (tally.entropy_total, total),
            (tally.changed, changed),
            (negative, below),
            (positive, above),
        ):
            tile.add(counter, counts)
        tile.write(values, weighted if weigh_advantages else weights)
    return EGSWResult(rows.unpack(values[:-1]), tally, negative, positive)


def _weigh_trajectories(
    advantages: torch.Tensor,
    level: torch.Tensor,
    entropy: torch.Tensor,
    rows: Rows,
    groups: Groups,
    weigh: _Weigher,
    weigh_advantages: bool,
) -> EGSWResult:
    """One weight a response, from its `level` [R] and mean entropy."""
    tally, negative, positive = weigh.tally, torch.zeros_like(rows.count), torch.zeros_like(rows.count)
    for chunk in chunks(*entropy.shape):
        tally.entropy_total[chunk] = keep(entropy[chunk].to(level.dtype), rows.alive(chunk, level.dtype))[1].double()
    mean = (tally.entropy_total / rows.count.clamp(min=1)).to(level.dtype)
    weights = torch.zeros_like(level)
    for members, count in groups.classes:
        there, alive = members.clamp(max=len(level) - 1), count.clamp(max=1).to(level.dtype)
        part = weigh(*((x[there] * alive).unsqueeze(-1) for x in (level, mean)), alive.unsqueeze(-1)).squeeze(-1)
        tally.range(part, part - alive)
        weights[members[count > 0]] = part[count > 0]
    values = blank(*entropy.shape, entropy, _result_dtype(advantages))
    for chunk in chunks(*entropy.shape):
        alive, weight = rows.alive(chunk, level.dtype), weights[chunk].unsqueeze(1)
        own = keep(advantages[chunk].to(level.dtype), alive)[0]
        weighted = own * weight
        tally.changed[chunk] = ((weight - 1).abs() > UNCHANGED).squeeze(1) * count_beyond(own, 0.0)
        negative[chunk], positive[chunk] = count_signs(weighted)
        values[chunk] = weighted if weigh_advantages else alive.mul_(weight)
    return EGSWResult(values, tally, negative, positive)


def _result_dtype(advantages: torch.Tensor) -> torch.dtype:
    return torch.promote_types(advantages.dtype, torch.float32)


def _level(advantages: torch.Tensor, rows: Rows, dtype: torch.dtype) -> tuple[torch.Tensor, bool]:
    """Advantage of each response [R], that of its first policy token if it is constant, else the mean; whether all
    are constant."""
    level, constant = torch.zeros_like(rows.count, dtype=dtype), True
    if advantages.shape[1] == 0:
        return level, constant
    for chunk in chunks(*advantages.shape):
        alive, count = rows.alive(chunk, dtype), rows.count[chunk]
        values, dead = advantages[chunk].to(dtype), alive == 0
        same = values.masked_fill(dead, math.inf).amin(1) == values.masked_fill(dead, -math.inf).amax(1)
        first = values.gather(1, alive.argmax(1, keepdim=True)).squeeze(1)
        level[chunk] = torch.where(same, first, keep(values, alive)[1] / count.clamp(min=1)).masked_fill(count == 0, 0)
        constant &= bool(same[count > 0].all())
    return level, constant


def _check_finite(advantages: torch.Tensor, entropy: torch.Tensor, rows: Rows, tally: Tally) -> None:
    """Refuse a NaN or an infinity at a policy token; sums and shares that are finite say that there is none."""
    totals = (tally.entropy_total, advantages.sum(1))
    if math.isfinite(tally.share_total) and all(bool(total.isfinite().all()) for total in totals):
        return
    for name, tensor in (("advantage", advantages), ("entropy", entropy)):
        for chunk in chunks(*entropy.shape):
            if bool((~tensor[chunk].isfinite() & rows.mask[chunk].ne(0)).any()):
                raise TensorError(f"the {name} of a policy token is not finite")
    if not math.isfinite(tally.share_total):
        raise TensorError("advantages and entropies lie too far apart to compare")
