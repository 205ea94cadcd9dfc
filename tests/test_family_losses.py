"""CE-GPPO and FIPO against loops from their definitions, by hand, in linear time, and against finite differences.

Maps to methods/{ce_gppo,fipo}.py and `discounted_future`. Not exercised: a trainer (verl_runs/test_member_runs.py).
"""

import dataclasses
import math

import pytest
import torch

from egsw_plugin.fields import Field
from egsw_plugin.kernels.policy_loss import discounted_future
from egsw_plugin.methods import LOSSES
from egsw_plugin.methods.rules import Rule, token_losses
from egsw_plugin.options import Options, decode, encode, option
from egsw_plugin.options.checks import flag, optional, positive, whole

LOW, HIGH = 0.2, 0.28


def micro_batch(seed, rows=6, tokens=9, spread=1.0):
    """Log-probabilities, old ones, advantages, mask with holes; float64."""
    generator = torch.Generator().manual_seed(seed)
    old, change, A = (torch.randn(rows, tokens, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.arange(tokens) < 1 + (torch.rand(rows, 1, generator=generator) * tokens).long()
    mask &= torch.rand(rows, tokens, generator=generator) < 0.85
    return old + spread * change, old, A, mask


def losses_of(name, log_prob, old, A, mask, **options):
    member = LOSSES[name]
    return token_losses(member.rule(member.options_type(**options)), log_prob, old, A, mask, LOW, HIGH)


def held(loss, a, limit):
    return min(loss, -limit * a) if limit is not None and a < 0 else loss


# ------------------------------------------------------------------------------------------------------------- CE-GPPO


def ce_gppo(r, a, beta1, beta2, limit):
    """Value, and derivative by log r, of one token; sg freezes the ratio's size."""
    if r < 1 - LOW and a < 0:
        value = slope = -beta1 * (1 - LOW) * a
    elif r > 1 + HIGH and a > 0:
        value = slope = -beta2 * (1 + HIGH) * a
    else:
        value = slope = -r * a
    if limit is not None and a < 0 and value > -limit * a:
        return -limit * a, 0.0
    return value, slope


@pytest.mark.parametrize("limit", [None, 10.0, 1.5])
@pytest.mark.parametrize("beta1,beta2", [(0.75, 1.0), (0.5, 1.0), (0.0, 0.0), (2.0, 0.3)])
def test_ce_gppo(beta1, beta2, limit):
    log_prob, old, A, mask = micro_batch(1)
    log_prob.requires_grad_()
    result = losses_of("ce_gppo", log_prob, old, A, mask, beta1=beta1, beta2=beta2, dual_clip=limit)
    (gradient,) = torch.autograd.grad(result.values.sum(), log_prob)
    low = high = 0
    for i, row in enumerate(mask.tolist()):
        for t, alive in enumerate(row):
            if not alive:
                assert float(result.values[i, t]) == float(gradient[i, t]) == 0
                continue
            r, a = math.exp(float(log_prob.detach()[i, t] - old[i, t])), float(A[i, t])
            value, slope = ce_gppo(r, a, beta1, beta2, limit)
            assert float(result.values[i, t]) == pytest.approx(value, rel=1e-9)
            assert float(gradient[i, t]) == pytest.approx(slope, rel=1e-9)
            low += r < 1 - LOW and a < 0
            high += r > 1 + HIGH and a > 0
    assert low and high
    assert result.metrics["actor/ce_gppo_low/mean"] == pytest.approx(low / int(mask.sum()))
    assert result.metrics["actor/ce_gppo_high/mean"] == pytest.approx(high / int(mask.sum()))


def test_ce_gppo_by_hand():
    """r = 2, A = 1, beta2 = 0.5: the value is -0.5 * 1.28, and so is the slope. r = 0.5, A = -1, beta1 0.75: 0.6."""
    log_prob = torch.tensor([[math.log(2.0), math.log(0.5)]], dtype=torch.float64, requires_grad=True)
    result = losses_of(
        "ce_gppo", log_prob, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), torch.ones(1, 2).bool(), beta2=0.5
    )
    (gradient,) = torch.autograd.grad(result.values.sum(), log_prob)
    assert result.values.detach().tolist() == gradient.tolist() == [pytest.approx([-0.64, 0.6])]


def test_ce_gppo_with_betas_of_0_has_ppos_gradient():
    log_prob, old, A, mask = micro_batch(2)
    log_prob.requires_grad_()
    own = losses_of("ce_gppo", log_prob, old, A, mask, beta1=0.0, beta2=0.0, dual_clip=None).values
    ppo = token_losses(Rule(), log_prob, old, A, mask, LOW, HIGH).values
    one, other = (torch.autograd.grad(values.sum(), log_prob)[0] for values in (own, ppo))
    assert torch.equal(one, other) and not torch.equal(own, ppo)


# ---------------------------------------------------------------------------------------------------------------- FIPO


def futures(x, decay):
    """Sums of a row by their definition."""
    gamma = 2.0 ** (-1.0 / decay)
    return [math.fsum(gamma ** (k - t) * x[k] for k in range(t, len(x))) for t in range(len(x))]


@pytest.mark.parametrize("tokens", [0, 1, 2, 63, 64, 65, 200])
@pytest.mark.parametrize("decay", [0.3, 32.0, 1e9])
def test_sums_over_the_future(tokens, decay):
    x = torch.randn(3, tokens, generator=torch.Generator().manual_seed(tokens), dtype=torch.float64)
    result = discounted_future(x, 2.0 ** (-1.0 / decay))
    assert result.shape == x.shape and result.dtype == torch.float64
    for row, sums in zip(x.tolist(), result.tolist(), strict=True):
        assert sums == pytest.approx(futures(row, decay), rel=1e-9, abs=1e-12)


def test_sums_over_the_future_are_linear_in_the_length():
    """Multiplications, counted by torch: twice the tokens, twice as many."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for tokens in (4096, 8192):
        with FlopCounterMode(display=False) as counter:
            discounted_future(torch.ones(2, tokens), 0.5)
        counts.append(counter.get_total_flops())
    assert counts[1] == 2 * counts[0] > 0


def fipo_by_loop(log_prob, old, A, mask, decay, clip, high_only, safety, largest_ratio, drop, dual_clip):
    """Factor and loss by place, and the rows that are dropped."""
    factors, losses, dropped = {}, {}, set()
    for i, row in enumerate(mask.tolist()):
        D = [float(log_prob[i, t] - old[i, t]) if alive else 0.0 for t, alive in enumerate(row)]
        F = futures([d if math.exp(d) <= largest_ratio else 0.0 for d in D], decay)
        above = [t for t, alive in enumerate(row) if alive and float(A[i, t]) < 0 and math.exp(D[t]) > (dual_clip or 1)]
        if drop and dual_clip is not None and len(above) > 1:
            dropped.add(i)
        for t, alive in enumerate(row):
            if alive:
                r, a = math.exp(D[t]), float(A[i, t])
                f = min(max(math.exp(F[t]), 1.0 if high_only else 1 - clip), 1 + clip)
                if a < 0 and r > safety:
                    f = min(max(f, 0.8), 1.0)
                factors[i, t] = f
                bounded = min(max(r, 1 - LOW), 1 + HIGH)
                losses[i, t] = 0.0 if i in dropped else held(max(-r * f * a, -bounded * f * a), f * a, dual_clip)
    return factors, losses, dropped


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decay": 2.0},
        {"high_only": True, "clip": 0.5},
        {"clip": 0.9, "safety": 1.5, "largest_ratio": 2.0},
        {"dual_clip": 1.2},
        {"dual_clip": 1.2, "drop": False},
        {"dual_clip": None, "drop": False, "clip": 1.0},
    ],
)
def test_fipo(options):
    log_prob, old, A, mask = micro_batch(3)
    given = dict(decay=32.0, clip=0.2, high_only=False, safety=10.0, largest_ratio=10.0, drop=True, dual_clip=10.0)
    given |= options
    result = losses_of("fipo", log_prob, old, A, mask, **given)
    factors, losses, dropped = fipo_by_loop(log_prob, old, A, mask, **given)
    for (i, t), loss in losses.items():
        assert float(result.values[i, t]) == pytest.approx(loss, rel=1e-9)
    assert not bool(result.values.masked_fill(mask, 0).any())
    assert result.metrics["actor/fipo_factor/mean"] == pytest.approx(math.fsum(factors.values()) / len(factors))
    share = sum(i in dropped for i, _ in factors) / len(factors)
    assert result.metrics["actor/fipo_dropped/mean"] == pytest.approx(share)
    if options.get("dual_clip") == 1.2:
        assert bool(dropped) == given["drop"]


def test_fipo_warns_of_drop_where_nothing_is_held():
    made = LOSSES["fipo"].options_type
    assert made(drop=True, dual_clip=None).cautions() == ["drop has no effect with dual_clip=null"]
    for drop, held in ((True, 3.0), (False, 3.0), (False, None)):
        assert made(drop=drop, dual_clip=held).cautions() == []


def test_fipo_leaves_tokens_without_an_advantage_alone():
    """All ratios are 3; F is 1.5 log 3 and log 3, so the factor is 1.5, its bound. Where A < 0 it is 1, and dropped."""
    log_prob, mask = torch.full((2, 2), math.log(3)), torch.ones(2, 2).bool()
    A = torch.tensor([[0.0, 0.0], [-1.0, -1.0]])
    options = dict(decay=1.0, clip=0.5, safety=1.5, largest_ratio=10.0, drop=True, dual_clip=2.0)
    result = losses_of("fipo", log_prob, torch.zeros(2, 2), A, mask, **options)
    assert not bool(result.values.any())
    assert result.metrics["actor/fipo_factor/mean"] == pytest.approx((1.5 + 1.5 + 1 + 1) / 4)
    assert result.metrics["actor/fipo_dropped/mean"] == result.metrics["actor/fipo_at_cap/mean"] == 0.5


def test_a_response_that_fipo_drops_has_no_anchor_either():
    """Two tokens of the first response are held by the dual clip; of the second one."""
    log_prob = torch.tensor([[2.0, 2.0, 0.0], [2.0, 0.5, 0.5]], dtype=torch.float64)
    old, A, mask = torch.zeros(2, 3), -torch.ones(2, 3), torch.ones(2, 3).bool()
    options = LOSSES["fipo"].options_type(dual_clip=2.0)
    bare, anchored = (
        token_losses(LOSSES["fipo"].rule(options), log_prob, old, A, mask, 0.2, 0.2, fields).values
        for fields in ({}, {Field.ANCHOR: torch.full((2, 3), 3.0)})
    )
    torch.testing.assert_close(anchored - bare, torch.tensor([[0, 0, 0], [6.0, 1.5, 1.5]], dtype=torch.float64))


def test_fipo_by_hand():
    """Decay 1, so gamma is 0.5. log r = log 1.1, 0, log 1.2: F = log 1.1 + 0.25 log 1.2, 0.5 log 1.2, log 1.2."""
    log_prob = torch.tensor([[1.1, 1.0, 1.2]], dtype=torch.float64).log()
    result = losses_of("fipo", log_prob, torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1, 3).bool(), decay=1.0)
    factors = [1.1 * 1.2**0.25, 1.2**0.5, 1.2]
    assert result.values.tolist()[0] == pytest.approx([-1.1 * factors[0], -factors[1], -1.2 * factors[2]])


@pytest.mark.parametrize("name", ["ce_gppo", "fipo"])
def test_fields_of_transforms(name):
    """Bounds, weights and anchors of each token, against the loss of one token at a time with bounds of its own."""
    log_prob, old, A, mask = micro_batch(6)
    generator = torch.Generator().manual_seed(7)
    bound = lambda: torch.rand(*mask.shape, generator=generator, dtype=torch.float64)  # noqa: E731
    given = {which: bound() for which in (Field.WEIGHT, Field.CLIP_LOW, Field.CLIP_HIGH, Field.ANCHOR)}
    member = LOSSES[name]
    rule = member.rule(member.options_type())
    values = token_losses(rule, log_prob, old, A, mask, LOW, HIGH, given).values
    for i, t in mask.nonzero().tolist():
        low, high = float(given[Field.CLIP_LOW][i, t]), float(given[Field.CLIP_HIGH][i, t])
        alone = float(token_losses(rule, log_prob, old, A, mask, low, high).values[i, t])
        anchor = float(given[Field.ANCHOR][i, t]) * abs(float(log_prob[i, t] - old[i, t]))
        assert float(values[i, t]) == pytest.approx(float(given[Field.WEIGHT][i, t]) * alone + anchor, rel=1e-9)


@pytest.mark.parametrize("decay", [1.0, 32.0])
def test_fipo_is_ppo_where_the_policy_has_not_moved(decay):
    _, old, A, mask = micro_batch(4)
    own = losses_of("fipo", old, old, A, mask, decay=decay).values
    assert torch.equal(own, token_losses(Rule(), old, old, A, mask, LOW, HIGH).values)


@pytest.mark.parametrize("name", ["ce_gppo", "fipo"])
def test_gradient_against_finite_differences(name):
    """What is stopped is frozen: a factor at the point, times PPO's loss of a point beside it."""
    log_prob, old, A, mask = micro_batch(5, spread=0.6)
    log_prob.requires_grad_()
    (gradient,) = torch.autograd.grad(losses_of(name, log_prob, old, A, mask).values.sum(), log_prob)
    step = 1e-6
    point = log_prob.detach()
    ratio = (point - old).exp()
    if name == "fipo":
        member = LOSSES["fipo"]
        options = dict(
            decay=32.0, clip=0.2, high_only=False, safety=10.0, largest_ratio=10.0, drop=True, dual_clip=10.0
        )
        frozen = fipo_by_loop(point, old, A, mask, **options)[0]
        assert member.options_type() == member.options_type(**options)
    for i, t in mask.nonzero().tolist():

        def loss(x, i=i, t=t):
            a, r = float(A[i, t]), math.exp(x - float(old[i, t]))
            if name == "fipo":
                return frozen[i, t] * max(-r * a, -min(max(r, 1 - LOW), 1 + HIGH) * a)
            at = float(ratio[i, t])  # sg r
            if at < 1 - LOW and a < 0:
                return -0.75 * (1 - LOW) * r / at * a
            if at > 1 + HIGH and a > 0:
                return -(1 + HIGH) * r / at * a
            return -r * a

        x = float(point[i, t])
        difference = (loss(x + step) - loss(x - step)) / (2 * step)
        assert float(gradient[i, t]) == pytest.approx(difference, rel=1e-5, abs=1e-7)


@dataclasses.dataclass(frozen=True)
class Typed(Options):
    power: int = option(2, whole(1, 4), "whole")
    least: int | None = option(None, optional(whole(0, 9)), "whole, or null")
    scale: float = option(1, positive, "of a default that is whole")
    percent: float = option(50.0, lambda value: value / 100, "which the check changes")
    on: bool = option(True, flag, "a switch")


def test_options_have_the_types_in_the_worker_that_they_had_at_the_start():
    for options in (Typed(), Typed(power=3, least=4, scale=2.0, percent=3.0, on=False), Typed(scale=1.5)):
        arrived = decode(Typed, encode(options))
        assert arrived == options
        assert [type(arrived.power), type(arrived.least)] == [int, type(options.least)]
        assert [type(arrived.scale), type(arrived.on)] == [float, bool]
