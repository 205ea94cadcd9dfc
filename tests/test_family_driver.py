"""Members that act on the driver: each against a loop from its definition, by hand, and its draws and selections.

Maps to methods/{repo,stare,ar,covariance,archer,adaptive_clip}.py and kernels/selection.py. Not exercised: a trainer
(verl_runs/test_member_runs.py), controllers' arithmetic (test_controllers.py).
"""

import dataclasses
import math

import pytest
import torch
from batches import applied
from test_family import GENERIC, KL, LOSS, OFF_POLICY, ON_POLICY, batch_by_hand, compare, configuration, numbers

from egsw_plugin.errors import OptionError, TensorError
from egsw_plugin.fields import Field
from egsw_plugin.kernels.selection import draw, largest
from egsw_plugin.methods.chain import apply, read
from egsw_plugin.testing import make_batch
from egsw_plugin.verl_adapter import startup


def places(batch):
    """Row and token of every policy token."""
    return [(i, t) for i, row in enumerate(batch.mask.tolist()) for t, alive in enumerate(row) if alive]


def field(result, which, batch):
    """A published field by place."""
    tensor = result.fields[which].expand(batch.mask.shape)
    return {(i, t): float(tensor[i, t]) for i, t in places(batch)}


# ------------------------------------------------------------------------------------------------------------ REPO, AR


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("beta", [0.01, -0.3, 1.0])
def test_repo(beta, centred, per_token):
    batch = make_batch(11, per_token)
    A, H, l = numbers(batch)  # noqa: E741
    compare("repo", batch, lambda i, t: A[i][t] - beta * (l[i][t] + centred * H[i][t]), beta=beta, centred=centred)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("zeta", [0.01, -0.3, 1.0])
def test_repo_r(zeta, centred, per_token):
    batch = make_batch(12, per_token)
    A, H, l = numbers(batch)  # noqa: E741

    def wanted(i, t):
        x = l[i][t] + (H[i][t] if centred else 0.0)
        if A[i][t] > 0:
            return max(A[i][t] * (1 - zeta * x), 0.0)
        return min(A[i][t] * (1 + zeta * x), 0.0)

    compare("repo_r", batch, wanted, zeta=zeta, centred=centred)
    held = sum(A[i][t] != 0 and wanted(i, t) == 0 for i, t in places(batch)) / len(places(batch))
    assert applied("repo_r", batch, zeta=zeta, centred=centred).metrics["repo_r/at_cap/mean"] == pytest.approx(held)


def test_repo_r_by_hand():
    """zeta 0.5, l = -1 and -4. A = 1: 1.5 and 3. A = -1: -0.5, and -1 + 2 would be above 0."""
    batch = batch_by_hand([[1.0], [-1.0]], [[1, 1]] * 2, torch.tensor([[1.0, 4.0], [1.0, 4.0]]))
    assert applied("repo_r", batch, zeta=0.5).advantages.tolist() == [[1.5, 3.0], [-0.5, 0.0]]


@pytest.mark.parametrize("alpha", [0.2, 0.3, 1.0])
def test_ar(alpha):
    batch = make_batch(13, True)
    A, _, l = numbers(batch)  # noqa: E741
    factor = lambda i, t: alpha * math.exp(l[i][t]) + 1 - alpha  # noqa: E731
    compare("ar", batch, lambda i, t: A[i][t] * factor(i, t), alpha=alpha)
    factors = [factor(i, t) for i, t in places(batch)]
    metrics = applied("ar", batch, alpha=alpha).metrics
    assert metrics["ar/factor/mean"] == pytest.approx(sum(factors) / len(factors), rel=1e-5)
    assert metrics["ar/factor/min"] == pytest.approx(min(factors), rel=1e-5)


# --------------------------------------------------------------------------------------------------------------- STARE


def stare_by_loop(batch, P, W, M, target):
    """Factor by place; M is None with variant O1."""
    A, H, l = numbers(batch)  # noqa: E741
    factor = {place: 1.0 for place in places(batch)}
    if target is not None and sum(H[i][t] for i, t in factor) / len(factor) >= target:
        return factor
    for sign, weight in ((1, W), (-1, M)):
        side = sorted((l[i][t], i, t) for i, t in factor if A[i][t] * sign > 0)
        if weight is None or not side:
            continue
        number = max(math.ceil(round(P * len(side), 9)), 1)
        for value, i, t in side:
            if value <= side[number - 1][0]:
                factor[i, t] = weight
    return factor


@pytest.mark.parametrize("target", [None, 100.0, 0.0])
@pytest.mark.parametrize("variant", ["O1", "C2"])
@pytest.mark.parametrize("P", [0.1, 0.37, 0.0, 1.0])
@pytest.mark.parametrize("per_token", [False, True])
def test_stare(P, variant, target, per_token):
    batch = make_batch(14, per_token)
    A, _, _ = numbers(batch)
    options = dict(P=P, W=1.3, M=0.6, variant=variant, target=target)
    factor = stare_by_loop(batch, P, 1.3, 0.6 if variant == "C2" else None, target)
    compare("stare", batch, lambda i, t: A[i][t] * factor[i, t], **options)
    metrics = applied("stare", batch, **options).metrics
    assert metrics["stare/gate/mean"] == (0.0 if target == 0.0 else 1.0)
    share = sum(value != 1 for value in factor.values()) / len(factor)
    assert metrics["stare/chosen/mean"] == pytest.approx(share)


def test_stare_by_hand():
    """Six tokens with A > 0: ceil(0.1 * 6) = 1 is chosen, the one of surprisal 5; of T-, the one of surprisal 9."""
    entropy = torch.tensor([[1.0, 5.0, 2.0], [3.0, 4.0, 0.5], [9.0, 1.0, 1.0]])
    batch = batch_by_hand([[2.0], [2.0], [-2.0]], [[1] * 3] * 3, entropy)
    result = applied("stare", batch, W=1.5, M=0.5, variant="C2", target=None)
    assert result.advantages.tolist() == [[2, 3, 2], [2, 2, 2], [-1, -2, -2]]


# ------------------------------------------------------------------------------------------------ covariance over batch


def covariances_by_loop(batch):
    A, _, l = numbers(batch)  # noqa: E741
    every = places(batch)
    mean = math.fsum(A[i][t] for i, t in every) / len(every)
    centre = math.fsum(l[i][t] for i, t in every) / len(every)
    return {(i, t): (A[i][t] - mean) * (l[i][t] - centre) for i, t in every}


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("k", [0.0, 0.05, 0.3, 1.0])
def test_batch_kl_cov(k, per_token):
    batch = make_batch(15, per_token)
    covariance = covariances_by_loop(batch)
    result = applied("batch_kl_cov", batch, k=k, coefficient=0.7)
    number = math.floor(round(k * len(covariance), 9))
    least = sorted(covariance.values(), reverse=True)[number - 1] if number else math.inf
    anchor = field(result, Field.ANCHOR, batch)
    for place, value in covariance.items():
        assert anchor[place] == pytest.approx(0.7 if value >= least - 1e-6 and value > 0 else 0.0)
    assert result.metrics["batch_kl_cov/covariance/max"] == pytest.approx(max(covariance.values()), rel=1e-4)
    compare("batch_kl_cov", batch, lambda i, t: float(batch.base.expand(batch.mask.shape)[i, t]), k=k)


def test_kl_cov_anchors_nothing_where_all_advantages_are_equal():
    """Every covariance is 0 there, and the floor(k N)-th largest is that of all tokens."""
    batch = make_batch(15)
    result = applied("batch_kl_cov", dataclasses.replace(batch, base=torch.ones_like(batch.base)), k=0.1)
    assert result.metrics["batch_kl_cov/chosen/mean"] == 0 and not result.fields[Field.ANCHOR].any()


def test_kl_cov_leaves_the_ratio_unclipped_unless_it_is_told_otherwise():
    batch = make_batch(15)
    fields = applied("batch_kl_cov", batch).fields
    assert set(fields) == {Field.ANCHOR, Field.CLIP_LOW, Field.CLIP_HIGH}
    assert float(fields[Field.CLIP_LOW].min()) == 1 and float(fields[Field.CLIP_HIGH].min()) > 1e8
    assert set(applied("batch_kl_cov", batch, ratio_clip=True).fields) == {Field.ANCHOR}


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("low,high", [(-1.0, 5.0), (0.0, 0.5), (1e3, 2e3)])
@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.2, 1.0])
def test_batch_clip_cov(ratio, low, high, per_token):
    """How many are drawn, and from where; which ones is the draw's."""
    batch = make_batch(16, per_token)
    covariance = covariances_by_loop(batch)
    inside = {place for place, value in covariance.items() if low <= value <= high}
    result = applied("batch_clip_cov", batch, ratio=ratio, low=low, high=high)
    base = batch.base.expand(batch.mask.shape)
    drawn = {(i, t) for i, t in covariance if float(base[i, t]) and not float(result.advantages[i, t])}
    number = min(math.floor(round(ratio * len(covariance), 9)), len(inside))
    assert result.metrics["batch_clip_cov/chosen/mean"] == pytest.approx(number / len(covariance))
    assert result.metrics["batch_clip_cov/candidates/mean"] == pytest.approx(len(inside) / len(covariance))
    assert drawn <= inside and len(drawn) <= number
    if per_token:  # no advantage of 0
        assert len(drawn) == number
    for i, t in set(covariance) - drawn:
        assert float(result.advantages[i, t]) == float(base[i, t])


def test_the_draw_is_uniform_and_its_seed_matters():
    x = torch.rand(40, 30, generator=torch.Generator().manual_seed(3))
    which = torch.rand(40, 30, generator=torch.Generator().manual_seed(4)) < 0.5
    times = torch.zeros(40, 30)
    for seed in range(400):
        drawn = draw(which, 60, (x,), seed)
        assert int(drawn.sum()) == 60 and not bool((drawn & ~which).any())
        times += drawn
    expected = 400 * 60 / int(which.sum())  # about 40, with a standard deviation of 6
    assert float(((times[which] - expected) ** 2).mean()) == pytest.approx(
        expected * (1 - 60 / int(which.sum())), rel=0.2
    )
    assert float((times[which] - expected).abs().max()) < 5.5 * math.sqrt(expected)


def test_the_draw_separates_tokens_that_are_equal():
    """First tokens of a group often are: the same token with the same advantage. Their rows differ."""
    x = torch.rand(64, 5, generator=torch.Generator().manual_seed(5))
    x[:, 0] = 0.25
    drawn = draw(torch.ones(64, 5).bool(), 100, (x,), 1)
    assert 10 < int(drawn[:, 0].sum()) < 30
    order = torch.randperm(64, generator=torch.Generator().manual_seed(6))
    assert torch.equal(draw(torch.ones(64, 5).bool(), 100, (x[order],), 1), drawn[order])


def test_largest_takes_all_that_equal_the_last():
    values = torch.tensor([1.0, 3.0, 2.0, 2.0])
    assert largest(values, 2).tolist() == [False, True, True, True]
    assert not largest(values, 0).any() and largest(values, 9).all() and largest(values[:0], 1).shape == (0,)


# ------------------------------------------------------------------------------------------------ Archer, adaptive clip


@pytest.mark.parametrize("kind", ["full", "surprisal"])
@pytest.mark.parametrize("quantile", [0.8, 0.5, 0.25])
def test_archer(quantile, kind):
    batch = make_batch(17)
    _, H, l = numbers(batch)  # noqa: E741
    H = H if kind == "full" else [[-x for x in row] for row in l]
    uncertain = set()
    for i in range(len(H)):
        values = sorted(H[i][t] for row, t in places(batch) if row == i)
        if values:
            place = quantile * (len(values) - 1)
            low = math.floor(place + 1e-9)
            threshold = values[low] + max(place - low, 0.0) * (values[min(low + 1, len(values) - 1)] - values[low])
            uncertain |= {(i, t) for row, t in places(batch) if row == i and H[i][t] >= threshold - 1e-9}
    options = dict(quantile=quantile, entropy=kind, clip_certain=0.1, clip_uncertain=0.4)
    result = applied("archer", batch, **options)
    low, high, kl = (field(result, which, batch) for which in (Field.CLIP_LOW, Field.CLIP_HIGH, Field.KL_WEIGHT))
    number = len(places(batch))
    for place in places(batch):
        assert low[place] == high[place] == pytest.approx(0.4 if place in uncertain else 0.1)
        assert kl[place] == pytest.approx(0.0 if place in uncertain else number / (number - len(uncertain)))
    assert result.metrics["archer/uncertain/mean"] == pytest.approx(len(uncertain) / number)
    assert Field.KL_WEIGHT not in applied("archer", batch, kl=False).fields


def test_archers_kl_is_the_mean_over_the_certain_tokens():
    """Token-mean of weight * kl over all is the mean of kl over the certain ones."""
    batch = make_batch(18)
    result = applied("archer", batch)
    weight, low = field(result, Field.KL_WEIGHT, batch), field(result, Field.CLIP_LOW, batch)
    kl = {(i, t): 0.1 * i + t for i, t in places(batch)}
    certain = [place for place in kl if low[place] == pytest.approx(0.2)]
    mean = math.fsum(weight[place] * kl[place] for place in kl) / len(kl)
    assert mean == pytest.approx(math.fsum(kl[place] for place in certain) / len(certain), rel=1e-5)


def test_adaptive_clip_by_hand():
    """epsilon 0.6: the ratio lies in [0.4, 2.5 + k]."""
    batch = make_batch(19)
    for k in (0.0, 0.75):
        result = applied("adaptive_clip", batch, k=k)
        assert float(result.fields[Field.CLIP_LOW][0]) == pytest.approx(0.6)
        assert 1 + float(result.fields[Field.CLIP_HIGH][0]) == pytest.approx(2.5 + k)
        assert result.metrics["adaptive_clip/upper/mean"] == pytest.approx(2.5 + k)


# -------------------------------------------------------------------------------------------------------------- chains


def test_two_orders_of_ar_and_repo_by_hand():
    """A = 1, l = log 0.5, H = log 2 (so that L = 0 and raw l counts), beta 1, alpha 1.

    REPO (raw) then AR: (1 + 0.6931) * 0.5; AR then REPO: 0.5 + 0.6931.
    """
    batch = batch_by_hand([[1.0]], [[1]], torch.tensor([[math.log(2)]]))
    credit = {"repo": {"beta": 1.0, "centred": False}, "ar": {"alpha": 1.0}}

    def chained(*names):
        return float(apply(read({"credit": {"transforms": list(names), **credit}}, "egsw_plugin"), batch).advantages)

    assert chained("repo", "ar") == pytest.approx((1 + math.log(2)) * 0.5)
    assert chained("ar", "repo") == pytest.approx(0.5 + math.log(2))


def test_two_that_set_the_clip_are_refused_in_one_chain():
    with pytest.raises(OptionError, match="both archer and adaptive_clip set clip_low"):
        read({"credit": {"transforms": ["archer", "adaptive_clip"]}}, "egsw_plugin")


@pytest.mark.parametrize("name", ["repo", "ar", "batch_clip_cov", "stare", "high_entropy"])
def test_an_advantage_that_is_not_a_number_is_refused_with_the_members_name(name):
    batch = make_batch(20, True)
    i, t = places(batch)[3]
    base = batch.base.clone()
    base[i, t] = math.nan
    chain = read({"credit": {"transforms": [name], "high_entropy": {"rho": 1.0}}}, "egsw_plugin")
    with pytest.raises(TensorError, match=f"{name} made .*=nan"):
        apply(chain, dataclasses.replace(batch, base=base))


# ------------------------------------------------------------------- at the start; more refusals are in test_family.py

APART = ["trainer.v1.trainer_mode=separate_async", "trainer.v1.separate_async.parameter_sync_step"]


@pytest.mark.parametrize("name", ["ar", "repo_r", "stare", "batch_clip_cov"])
def test_what_acts_without_a_second_update_is_not_refused(name):
    startup.check(configuration(f"algorithm.adv_estimator={name}", *ON_POLICY))


@pytest.mark.parametrize("loss", ["ce_gppo", "fipo"])
def test_apart_from_the_rollout_a_loss_needs_a_second_update_too(loss):
    """verl computes old log-probabilities with the trainer's own weights, however old those are that sampled."""
    mode, step = APART
    overrides = ["algorithm.adv_estimator=grpo", f"{LOSS}={loss}", mode]
    with pytest.raises(OptionError, match=f"{loss} does nothing: .*separate_async.parameter_sync_step"):
        startup.check(configuration(*overrides, *ON_POLICY, f"{step}=1"))
    startup.check(configuration(*overrides, *OFF_POLICY, f"{step}=4"))
    startup.check(configuration(*overrides, *ON_POLICY, f"{step}=1", "actor_rollout_ref.actor.ppo_epochs=2"))
    startup.check(configuration(*overrides, *ON_POLICY, "algorithm.rollout_correction.bypass_mode=True"))


def test_apart_from_the_rollout_a_weaker_member_is_warned_of_too():
    config = configuration("algorithm.adv_estimator=archer", GENERIC, KL, *ON_POLICY, APART[0], f"{APART[1]}=1")
    warnings = list(startup._warnings(config, startup.check(config)))
    assert any("the bounds of the clip have no effect" in warning for warning in warnings), warnings
