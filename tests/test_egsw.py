"""EGSW through verl's registry against a loop over Python floats, and what the definition promises.

A wrong weight trains plain GRPO, or something worse, without a sign; so every option is compared token by token with
`reference.py`, on rows as verl delivers them. What holds of every member (order of rows, padding, inputs left as they
were) is in test_family.py and test_fuzz.py. Maps to kernels/egsw.py, kernels/groups.py, methods/egsw.py and
verl_adapter/estimators.py. Not exercised here: where the entropy comes from in a trainer (test_verl_runs.py).
"""

import itertools
import math

import numpy as np
import pytest
import reference
import torch
import verl  # noqa: F401  (loads the plugin through its entry point, as a user's run does)
from batches import applied, batch_of, random_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from egsw_plugin.errors import OptionError, TensorError
from egsw_plugin.kernels.egsw import egsw, temperature_for
from egsw_plugin.kernels.groups import dense_group_ids
from egsw_plugin.kernels.policy_loss import clipped_surrogate
from egsw_plugin.kernels.rows import Rows
from egsw_plugin.methods import MEMBERS
from egsw_plugin.methods.interface import Base
from egsw_plugin.verl_adapter import bases

pytestmark = pytest.mark.usefixtures("implementation")

OPTIONS = list(itertools.product(("step", "trajectory"), ("group", "batch"), ("alive", "all"), ("mean_one", "sum_one")))


def estimate(batch, name="egsw", algorithm=None, **options):
    rewards, mask, index, entropy = batch
    config = {"gamma": 1.0, "lam": 1.0, "norm_adv_by_std_in_grpo": True, **(algorithm or {}), "egsw": options}
    kwargs = {"entropy": entropy} if name == "egsw" else {}
    return get_adv_estimator_fn(name)(
        token_level_rewards=rewards, response_mask=mask, index=index, config=config, **kwargs
    )


def base_of(batch, name="grpo"):
    rewards, mask, index, _ = batch
    return get_adv_estimator_fn(name)(token_level_rewards=rewards, response_mask=mask, index=index)[0]


@pytest.mark.parametrize("granularity,scope,denominator,normalize", OPTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_every_option_equals_the_loop(seed, granularity, scope, denominator, normalize):
    options = dict(granularity=granularity, scope=scope, denominator=denominator, normalize=normalize)
    batch = random_batch(seed)
    result, _ = estimate(batch, alpha=0.8, temperature=0.6, **options)
    base = base_of(batch)
    expected = reference.egsw_weights(
        base.tolist(), batch[3].tolist(), batch[1].tolist(), batch[2], 0.8, 0.6, **options
    )
    for row, column in itertools.product(range(base.shape[0]), range(base.shape[1])):
        weight = expected.get((row, column), 0.0)
        assert float(result[row, column]) == pytest.approx(weight * float(base[row, column]), rel=2e-5, abs=1e-7)


@pytest.mark.parametrize(
    "size, temperature, written",
    [(8, 1, 5.66), (8, 3, 2.15), (8, 10, 1.27), (16, 1, 12.55), (16, 3, 3.23), (16, 10, 1.45)],
)
def test_weight_of_a_lone_success_is_as_docs_say(size, temperature, written):
    """The numbers of docs/egsw.md: A = (G - 1) / sqrt(G) for the success, -1 / sqrt(G) for the others."""
    rewards = torch.zeros(size, 1)
    rewards[0] = 1
    batch = (rewards, torch.ones(size, 1), np.array(["a"] * size), torch.zeros(size, 1))
    weight = float(estimate(batch, alpha=0, temperature=temperature)[0][0, 0] / base_of(batch)[0, 0])
    high, low = (size - 1) / math.sqrt(size) / temperature, -1 / math.sqrt(size) / temperature
    assert weight == pytest.approx(size * math.exp(high) / (math.exp(high) + (size - 1) * math.exp(low)), rel=1e-4)
    assert weight == pytest.approx(written, abs=0.006)


@pytest.mark.parametrize("granularity", ["step", "trajectory"])
def test_advantages_that_vary_within_a_response(granularity):
    """A base with token-level advantages, as from a critic."""
    generator = torch.Generator().manual_seed(3)
    _, mask, index, entropy = random_batch(3)
    advantages = torch.randn(mask.shape, generator=generator) * mask
    result = egsw(
        advantages,
        entropy,
        Rows.measure(mask),
        dense_group_ids(index),
        alpha=0.3,
        temperature=1.5,
        granularity=granularity,
        weigh_advantages=False,
    )
    expected = reference.egsw_weights(
        advantages.tolist(), entropy.tolist(), mask.tolist(), index, 0.3, 1.5, granularity=granularity
    )
    for place, weight in expected.items():
        assert float(result.values[place]) == pytest.approx(weight, rel=2e-5)
    assert int(result.values.ne(0).sum()) == len(expected)


def test_denominator_all_needs_constant_advantages():
    with pytest.raises(OptionError, match=r"algorithm.egsw.denominator='all'.*use denominator=alive"):
        estimate(random_batch(3), algorithm={"gamma": 0.9}, base="reinforce_plus_plus", denominator="all")


class TestWorkedExample:
    """One group of three responses, worked by hand (population standard deviation, ratio clip 0.2 / 0.28)."""

    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    entropy = torch.tensor([[0.9, 1.8, 0.3, 0.6], [0.1, 0.6, 0, 0], [0.5, 0.2, 1.0, 0]])
    log_ratio = torch.tensor([[0.05, -0.10, 0.30, 0], [-0.30, 0.02, 0, 0], [0.40, -0.25, 0.01, 0]])
    advantages = torch.tensor([[0.707107], [0.707107], [-1.414214]]) * mask

    def weights(self, **options):
        return egsw(
            self.advantages,
            self.entropy,
            Rows.measure(self.mask),
            torch.zeros(3, dtype=torch.int64),
            alpha=0.5,
            temperature=1.0,
            weigh_advantages=False,
            **options,
        ).values

    def objective(self, weights):
        losses, _ = clipped_surrogate(self.log_ratio.exp(), self.advantages, 0.2, 0.28)
        return -float((losses * weights * self.mask).sum() / self.mask.sum())

    def test_step(self):
        weights = self.weights(normalize="sum_one")
        expected = [
            [0.565462, 0.623957, 0.854622, 1.0],
            [0.379041, 0.342435, 0, 0],
            [0.055497, 0.033608, 0.145378, 0],
        ]
        torch.testing.assert_close(weights, torch.tensor(expected), atol=1e-6, rtol=0)

    def test_trajectory(self):
        weights = self.weights(normalize="sum_one", granularity="trajectory")
        torch.testing.assert_close(weights[:, 0], torch.tensor([0.537333, 0.408143, 0.054523]), atol=1e-6, rtol=0)

    def test_objectives(self):
        assert self.objective(torch.ones(3, 4)) == pytest.approx(-0.047661, abs=1e-6)
        assert self.objective(self.weights(normalize="sum_one")) == pytest.approx(0.264778, abs=1e-6)
        assert self.objective(self.weights(normalize="mean_one")) == pytest.approx(0.574325, abs=1e-6)

    def test_verl_standardizes_with_the_sample_deviation(self):
        rewards = torch.tensor([[0, 0, 0, 1.0], [0, 1, 0, 0], [0, 0, 0, 0]])
        batch = rewards, self.mask, np.array(["a"] * 3, dtype=object), self.entropy
        _, returns = estimate(batch)
        torch.testing.assert_close(returns[:, 0], torch.tensor([0.577349, 0.577349, -1.154699]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("base", ["grpo", "grpo_vectorized", "rloo", "reinforce_plus_plus_baseline", "opo"])
@pytest.mark.parametrize("granularity", ["step", "trajectory"])
def test_no_entropy_and_infinite_temperature_is_the_base(base, granularity):
    batch = random_batch(11)
    result, returns = estimate(batch, base=base, alpha=0, temperature=1e30, granularity=granularity)
    expected, expected_returns = estimate(batch, name=base)
    # verl's opo is 0/0 on the padding rows; there the base says nothing, and the result is zero.
    assert torch.equal(result, torch.where(batch[1].bool(), expected, 0.0))
    torch.testing.assert_close(returns, torch.where(expected_returns.isnan(), 0.0, expected_returns), rtol=0, atol=0)


def test_grpo_without_the_deviation_reaches_the_base():
    batch = random_batch(12)
    options = dict(algorithm={"norm_adv_by_std_in_grpo": False}, alpha=0, temperature=1e30)
    result, _ = estimate(batch, **options)
    expected = get_adv_estimator_fn("grpo")(batch[0], batch[1], batch[2], norm_adv_by_std_in_grpo=False)[0]
    assert torch.equal(result, expected)
    assert not torch.allclose(result, base_of(batch))


def test_gae_base_with_values():
    batch = random_batch(13, holes=False, emptied=False, padding_rows=0)
    values = torch.rand(batch[0].shape, generator=torch.Generator().manual_seed(0))
    config = {"gamma": 0.9, "lam": 0.8, "egsw": {"base": "gae", "alpha": 0, "temperature": 1e30}}
    fn = get_adv_estimator_fn("egsw")
    result, returns = fn(*batch[:3], config, entropy=batch[3], values=values)
    expected, expected_returns = get_adv_estimator_fn("gae")(batch[0], values, batch[1], gamma=0.9, lam=0.8)
    assert torch.equal(result, expected * batch[1])
    assert torch.equal(returns, expected_returns)
    with pytest.raises(TensorError, match=r"base gae needs values.*critic.enable=True"):
        fn(*batch[:3], config, entropy=batch[3])


def test_entropy_off_alone_still_weighs_by_the_advantage():
    """alpha = 0 is not the base: failures are down-weighted, so a mixed group's weighted advantages sum above zero."""
    batch = random_batch(14, holes=False, emptied=False)
    result, _ = estimate(batch, alpha=0, granularity="trajectory")
    base = base_of(batch)
    for uid in set(batch[2]) - {"pad0"}:
        rows = [row for row, other in enumerate(batch[2]) if other == uid]
        if base[rows].abs().sum() > 0:
            assert float(result[rows, 0].sum()) > 0


def test_shift_of_all_advantages_of_a_group_changes_no_weight():
    _, mask, index, entropy = random_batch(15)
    rows, ids = Rows.measure(mask), dense_group_ids(index)
    advantages = torch.randn(mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shift = torch.randn(int(ids.max()) + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 50
    weights = [
        egsw(a, entropy, rows, ids, alpha=0.5, temperature=0.7, weigh_advantages=False).values
        for a in (advantages, advantages + shift[ids].unsqueeze(1))
    ]
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-12)


def test_equal_rewards_give_no_gradient():
    rewards, mask, index, entropy = random_batch(16)
    for value in (0.0, 1.0):
        constant = torch.zeros_like(rewards)
        constant[:, 0] = value
        result, _ = estimate((constant, mask, index, entropy), alpha=3.0)
        assert torch.equal(result, torch.zeros_like(result))


def test_equal_rewards_are_0_up_to_verls_rounding():
    """As docs/egsw.md says. The mean of eight times float32's 0.1 is off by one unit of its place, 2^-27."""
    for value, wanted in ((0.5, 0), (-1.0, 0), (0.1, -(2**-27) / (2**-27 * math.sqrt(8 / 7) + 1e-6))):
        batch = groups_of_eight([value] * 8)
        assert base_of(batch).unique().tolist() == pytest.approx([wanted], rel=1e-5)
        assert bool(estimate(batch)[0].any()) == (wanted != 0)


def test_tool_tokens_in_the_middle_do_not_matter():
    """t counts policy tokens: deleting the masked columns of a response changes none of its weights."""
    rewards, mask, index, entropy = random_batch(19)
    result, _ = estimate((rewards, mask, index, entropy))
    packed = [torch.zeros_like(tensor) for tensor in (rewards, mask, entropy, result)]
    for row in range(len(mask)):
        own = mask[row].bool()
        length = int(own.sum())
        packed[0][row, 0] = rewards[row].sum()
        packed[1][row, :length] = 1
        packed[2][row, :length] = entropy[row, own]
        packed[3][row, :length] = result[row, own]
    torch.testing.assert_close(estimate((packed[0], packed[1], index, packed[2]))[0], packed[3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_computes_in_at_least_float32(dtype):
    rewards, mask, index, entropy = random_batch(22)
    entropy = entropy.to(dtype)
    result, _ = estimate((rewards, mask, index, entropy))
    assert result.dtype == torch.float32
    expected, _ = estimate((rewards, mask, index, entropy.double()))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "alpha,temperature",
    list(itertools.product((0.0, 1e-30, 1.0, -5.0, 1e20, -1e300, 1e308), (1e-308, 1e-20, 1.0, 1e20, 1e308))),
)
def test_extreme_options_stay_finite(alpha, temperature):
    for denominator in ("alive", "all"):
        for normalize in ("mean_one", "sum_one"):
            result, _ = estimate(
                random_batch(24), alpha=alpha, temperature=temperature, denominator=denominator, normalize=normalize
            )
            assert result.isfinite().all()


def test_large_finite_tensors_stay_finite():
    _, mask, index, _ = random_batch(25)
    big = torch.finfo(torch.float32).max
    advantages = torch.where(torch.arange(mask.numel()).view(mask.shape) % 2 == 0, big, -big)
    for alpha in (0.0, 1.0, 1e10):
        result = egsw(
            advantages,
            torch.full(mask.shape, big),
            Rows.measure(mask),
            dense_group_ids(index),
            alpha=alpha,
            temperature=1.0,
            weigh_advantages=False,
        )
        assert result.values.isfinite().all()


@pytest.mark.parametrize("granularity,scope", [("step", "group"), ("step", "batch"), ("trajectory", "group")])
@pytest.mark.parametrize("denominator", ["alive", "all"])
def test_metrics_equal_the_loop(granularity, scope, denominator):
    rewards, mask, index, entropy = random_batch(33, prompts=9, responses=3)
    base = base_of((rewards, mask, index, entropy))
    success = rewards.sum(1) > 0.5
    settings = dict(granularity=granularity, scope=scope, denominator=denominator)
    batch = batch_of(base, mask, dense_group_ids(index), success, rewards.sum(1), entropy=entropy)
    metrics = applied("egsw", batch, **settings).metrics
    assert metrics["egsw/sign_flip/mean"] == metrics["egsw/negative_success/mean"] == 0

    weights = reference.egsw_weights(base.tolist(), entropy.tolist(), mask.tolist(), index, 0.5, 3.0, **settings)
    share = reference.effective_share(weights, mask.tolist(), index, scope, granularity)
    assert metrics["egsw/effective_share/mean"] == pytest.approx(share, rel=1e-5)
    assert metrics["egsw/weight/max"] == pytest.approx(max(weights.values()), rel=1e-5)
    assert metrics["egsw/weight/min"] == pytest.approx(min(weights.values()), rel=1e-5)
    for name, wanted in (("success", True), ("failure", False)):
        values = [float(entropy[place]) for place in weights if bool(success[place[0]]) is wanted]
        assert metrics[f"egsw/entropy_{name}/mean"] == pytest.approx(sum(values) / len(values), rel=1e-5)
    outcomes = {}
    for row, _ in weights:
        outcomes.setdefault(index[row], set()).add(bool(success[row]))
    mixed = [group for group, seen in outcomes.items() if len(seen) == 2]
    assert 0 < len(mixed) < len(outcomes)
    assert metrics["egsw/mixed_groups/mean"] == pytest.approx(len(mixed) / len(outcomes))
    changed = [abs(weights[place] - 1) > 1e-6 for place in weights if index[place[0]] in mixed]
    assert metrics["egsw/changed/mean"] == pytest.approx(sum(changed) / len(changed))


@pytest.mark.parametrize("granularity,scope,denominator,normalize", OPTIONS)
def test_how_far_the_entropy_moves_the_weights_equals_the_loop(granularity, scope, denominator, normalize):
    options = dict(granularity=granularity, scope=scope, denominator=denominator, normalize=normalize)
    rewards, mask, index, entropy = random_batch(41)
    base, outcome = base_of((rewards, mask, index, entropy)), rewards.sum(1)
    batch = batch_of(base, mask, dense_group_ids(index), outcome > 0.5, outcome, entropy=entropy)
    found = applied("egsw", batch, alpha=2.0, temperature=1.0, **options).metrics["egsw/entropy_shift/mean"]
    given = (base.tolist(), entropy.tolist(), mask.tolist(), index)
    weights, alone = (reference.egsw_weights(*given, alpha, 1.0, **options) for alpha in (2.0, 0.0))
    far = math.fsum(abs(weights[place] - alone[place]) for place in weights)
    assert found == pytest.approx(far / math.fsum(alone.values()), rel=1e-5)


def shift_of(lengths, A, entropy, ids, tokens, **options):
    """Metric entropy_shift of responses of these lengths, without holes, in a batch of so many tokens."""
    mask = (torch.arange(tokens) < torch.tensor(lengths).unsqueeze(1)).long()
    wide = torch.full(mask.shape, 9.0)
    wide[:, : entropy.shape[1]] = entropy
    outcome = torch.tensor(A)
    batch = batch_of(outcome.unsqueeze(1), mask, torch.tensor(ids), outcome > 0, outcome, entropy=wide)
    return applied("egsw", batch, **options).metrics["egsw/entropy_shift/mean"]


def test_the_sample_that_shows_the_shift_counts_policy_tokens(monkeypatch):
    """Of 10: the first two groups, whatever padding they have, and a group without tokens before them is none."""
    monkeypatch.setattr("egsw_plugin.methods.egsw.SAMPLE", 10)
    entropy = 2 * torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    A, lengths = [1.0, -1.0] * 3, [3, 2, 1, 4, 5, 5]
    wanted = shift_of(lengths[:4], A[:4], entropy[:4], [0, 0, 1, 1], 5)
    for tokens in (5, 6, 50):
        assert shift_of(lengths, A, entropy, [0, 0, 1, 1, 2, 2], tokens) == pytest.approx(wanted, rel=1e-6)
    # The last group has 10 by itself. With more than the sample it is thinned, not left out: tokens 1 and 3 of 5.
    wanted = shift_of([5, 5], A[4:], entropy[4:], [0, 0], 5)
    assert shift_of([0, *lengths[4:]], [0.0, *A[4:]], entropy[3:], [0, 1, 1], 7) == pytest.approx(wanted, rel=1e-6)
    monkeypatch.setattr("egsw_plugin.methods.egsw.SAMPLE", 9)
    thin = shift_of([2, 2], A[4:], entropy[4:, [1, 3]], [0, 0], 2)
    assert shift_of([0, *lengths[4:]], [0.0, *A[4:]], entropy[3:], [0, 1, 1], 7) == pytest.approx(thin, rel=1e-6)
    assert thin != pytest.approx(wanted, rel=1e-3)


def test_the_shift_is_at_most_2_but_not_with_every_option():
    """Response 0 has ended with A = 2 where response 1, with A = -2, has entropy 3: exp(-2 + 2 * 3) against exp(2)."""
    entropy = torch.tensor([[0.0] * 5, [0.0] + [3.0] * 4])
    options = dict(lengths=[1, 5], A=[2.0, -2.0], entropy=entropy, ids=[0, 0], tokens=5, alpha=2.0, temperature=1.0)
    assert shift_of(**options) == 0  # alone from the second position on, its weight is 1
    weight, alone = (2 * math.exp(x) / (math.exp(x) + math.exp(2)) for x in (4, -2))
    shift = shift_of(**options, denominator="all")
    assert shift == pytest.approx(4 * (weight - alone) / (2 + 4 * alone), rel=1e-5) and shift > 2
    # A trajectory's weight counts as often as it has tokens: 5 times, against once that of the other.
    weight, alone = (2 * math.exp(x) / (math.exp(x) + math.exp(2)) for x in (-2 + 2 * 2.4, -2))
    shift = shift_of(**options, granularity="trajectory")
    assert shift == pytest.approx(6 * (weight - alone) / (2 - alone + 5 * alone), rel=1e-5) and shift > 2


def test_metrics_of_a_batch_without_success():
    rewards, mask, index, entropy = random_batch(34)
    nothing = torch.zeros(len(mask))
    batch = batch_of(torch.zeros_like(rewards), mask, dense_group_ids(index), nothing > 0, nothing, entropy=entropy)
    metrics = applied("egsw", batch).metrics
    assert metrics["egsw/changed/mean"] == 0
    assert metrics["egsw/mixed_groups/mean"] == 0
    assert "egsw/entropy_success/mean" not in metrics
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("name,options", [*((name, {}) for name in MEMBERS.own), ("egsw", {"temperature": "auto"})])
def test_names_of_metrics_are_safe_for_verls_reduction(name, options):
    """verl's asynchronous trainer reduces by words in the name: exactly one such word, at the end."""
    _, mask, index, entropy = random_batch(35)
    success = torch.arange(len(mask)) % 2 == 0
    base = None if isinstance(MEMBERS[name], Base) else torch.ones_like(entropy)
    tensors = {"entropy": entropy, "old_log_probs": -entropy}
    batch = batch_of(base, mask, dense_group_ids(index), success, success.float(), **tensors)
    metrics = applied(name, batch, **options).metrics
    own = set() if name == "adaptive_entropy" else {name}  # the frame reports what a controller moves
    assert {metric.partition("/")[0] for metric in metrics} == own | {"credit"}
    for metric in metrics:
        body, _, word = metric.rpartition("/")
        assert word in ("mean", "max", "min", "sum")
        assert not any(run in body for run in ("max", "min", "sum", "total", "mean", "avg", "lr"))


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_groups_of_any_size(size):
    batch = random_batch(26, prompts=2, responses=size, tokens=6, padding_rows=0, emptied=False)
    result, base = estimate(batch)[0], base_of(batch)
    if size == 1:
        assert torch.equal(result, base)
    weights = reference.egsw_weights(base.tolist(), batch[3].tolist(), batch[1].tolist(), batch[2], 0.5, 3.0)
    for place, weight in weights.items():
        assert float(result[place]) == pytest.approx(weight * float(base[place]), rel=1e-4, abs=1e-6)


def test_a_batch_without_policy_tokens():
    rewards, mask, index, entropy = random_batch(27)
    result, _ = estimate((rewards, torch.zeros_like(mask), index, entropy))
    assert torch.equal(result, torch.zeros_like(rewards))


@pytest.mark.parametrize("index", [[7, 3, 7, 3], [2**60, 0, 2**60, 0], ["7", 7, "7", 7]])
def test_uids_of_any_kind(index):
    mask = torch.ones(4, 2, dtype=torch.int64)
    entropy = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])
    rewards = torch.tensor([[0, 1.0], [0, 0], [0, 0], [0, 1.0]])
    result, _ = estimate((rewards, mask, np.array(index, dtype=object), entropy))
    expected, _ = estimate((rewards, mask, np.array(list("abab"), dtype=object), entropy))
    assert torch.equal(result, expected)


@pytest.mark.parametrize("base", ["grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "gpg"])
@pytest.mark.parametrize("mask_dtype", [torch.int64, torch.bool])
def test_configuration_of_any_kind(base, mask_dtype):
    """A DictConfig as verl passes it, a dictionary, or one without discounts: the same result."""
    rewards, mask, index, entropy = random_batch(36)
    section = {"egsw": {"base": base}}
    configs = [section, {"gamma": 1.0, "lam": 1.0, **section}, OmegaConf.create(section)]
    configs.append(OmegaConf.create({"gamma": 1.0, "lam": 1.0, **section}))
    results = [
        get_adv_estimator_fn("egsw")(rewards, mask.to(mask_dtype), index, config, entropy=entropy)[0]
        for config in configs
    ]
    assert all(torch.equal(result, results[0]) for result in results)
    assert results[0].abs().sum() > 0


def test_surprisal_stands_in_for_entropy():
    rewards, mask, index, entropy = random_batch(28)
    fn = get_adv_estimator_fn("egsw")
    result, _ = fn(rewards, mask, index, {"egsw": {"entropy": "surprisal"}}, old_log_probs=-entropy)
    assert torch.equal(result, estimate((rewards, mask, index, entropy))[0])


def test_loss_channel_leaves_the_advantages_alone():
    batch = random_batch(29)
    assert torch.equal(estimate(batch, channel="loss")[0], base_of(batch))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape_and_mask(data):
    rows, tokens = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 7))
    bits = data.draw(
        st.lists(st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens), min_size=rows, max_size=rows)
    )
    index = data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    numbers = st.floats(-20, 20, width=32)
    levels = data.draw(st.lists(numbers, min_size=rows, max_size=rows))
    entropy = data.draw(
        st.lists(st.lists(st.floats(0, 12, width=32), min_size=tokens, max_size=tokens), min_size=rows, max_size=rows)
    )
    alpha, temperature = data.draw(st.floats(-5, 5)), data.draw(st.floats(0.05, 20))
    granularity, scope, denominator, normalize = data.draw(st.sampled_from(OPTIONS))
    options = dict(granularity=granularity, scope=scope, denominator=denominator, normalize=normalize)
    mask = torch.tensor(bits)
    advantages = torch.tensor(levels).unsqueeze(1) * mask
    result = egsw(
        advantages.double(),
        torch.tensor(entropy, dtype=torch.float64),
        Rows.measure(mask),
        dense_group_ids(index),
        alpha=alpha,
        temperature=temperature,
        weigh_advantages=False,
        **options,
    )
    expected = reference.egsw_weights(advantages.tolist(), entropy, bits, index, alpha, temperature, **options)
    for row, column in itertools.product(range(rows), range(tokens)):
        assert float(result.values[row, column]) == pytest.approx(expected.get((row, column), 0.0), rel=1e-9, abs=1e-12)


def test_rewards_that_are_not_binary_are_seen_as_changed():
    """EGSW needs no successes: a group counts if its rewards differ."""
    mask = torch.ones(6, 2, dtype=torch.int64)
    rewards = torch.zeros(6, 2)
    rewards[:, 0] = torch.tensor([0.1, 0.2, 0.3, 0.0, 0.1, 0.25])
    entropy = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    base = base_of((rewards, mask, np.array(["a"] * 6, dtype=object), entropy))
    outcome, ids = rewards.sum(1), torch.zeros(6, dtype=torch.int64)
    metrics = applied("egsw", batch_of(base, mask, ids, outcome > 0.5, outcome, entropy=entropy)).metrics
    assert metrics["egsw/changed/mean"] == 1
    assert metrics["egsw/mixed_groups/mean"] == 1


def test_bfloat16_rewards_are_computed_in_float32():
    rewards, mask, index, entropy = random_batch(37)
    result, returns = estimate((rewards.bfloat16(), mask, index, entropy))
    assert torch.equal(result, estimate((rewards, mask, index, entropy))[0])
    assert returns.dtype == torch.float32


def test_weights_that_go_nowhere_are_warned_of(capsys, monkeypatch):
    from egsw_plugin import console

    monkeypatch.setattr(console, "_warned", set())
    estimate(random_batch(38), channel="loss")
    assert "what it publishes for the policy loss (weight) goes nowhere" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [torch.tensor, list, tuple, lambda numbers: np.array(numbers, dtype=object)])
def test_uids_of_any_kind_make_the_same_groups(kind):
    """The elements of a tensor are different keys, and each response would be a group of its own."""
    rewards, mask, _, entropy = random_batch(4, prompts=3, responses=4)
    numbers = [row // 4 for row in range(len(mask))]
    expected, _ = get_adv_estimator_fn("egsw")(rewards, mask, np.array(numbers), None, entropy=entropy)
    found, _ = get_adv_estimator_fn("egsw")(rewards, mask, kind(numbers), None, entropy=entropy)
    assert expected.any() and torch.equal(found, expected)


class TestRefusals:
    """A tensor that is missing or wrong is an error that names it, never a guess."""

    batch = random_batch(40)

    def call(self, config=None, **kwargs):
        return get_adv_estimator_fn("egsw")(*self.batch[:3], config, **kwargs)

    def test_entropy_is_missing(self):
        with pytest.raises(TensorError, match=r"egsw needs entropy, which was not passed.*trainer.use_v1=True"):
            self.call()

    def test_entropy_of_other_rows(self):
        with pytest.raises(TensorError, match="entropy has shape"):
            self.call(entropy=self.batch[3][1:])

    def test_entropy_of_whole_numbers(self):
        with pytest.raises(TensorError, match=r"dtype torch.int64"):
            self.call(entropy=self.batch[3].long())

    @pytest.mark.parametrize("value", [-0.5, math.nan, math.inf])
    def test_entropy_out_of_range(self, value):
        entropy = self.batch[3].clone()
        entropy[self.batch[1].bool()] = value
        with pytest.raises(TensorError, match="outside"):
            self.call(entropy=entropy)

    def test_entropy_negative_within_rounding(self):
        self.call(entropy=self.batch[3] * 0 - 1e-4)

    @pytest.mark.parametrize("value", [math.nan, -math.inf, 0.5])
    def test_log_probabilities_out_of_range(self, value):
        with pytest.raises(TensorError, match=r"old_log_probs of row \d+, token \d+"):
            self.call({"egsw": {"entropy": "surprisal"}}, old_log_probs=torch.full_like(self.batch[3], value))

    def test_an_option_that_has_no_value_yet(self):
        config = OmegaConf.create({"egsw": {"alpha": "???"}})
        with pytest.raises(OptionError, match=r"algorithm.egsw.alpha.*has no value yet"):
            self.call(config, entropy=self.batch[3])

    def test_entropy_that_is_no_tensor(self):
        with pytest.raises(TensorError, match="entropy is a ndarray"):
            self.call(entropy=self.batch[3].numpy())

    @pytest.mark.parametrize("base", ["remax", "optimal_token_baseline", "tir_optimal_token_baseline", "gdpo"])
    def test_base_that_needs_what_verl_gives_to_no_other_estimator(self, base):
        with pytest.raises(OptionError, match="use a base estimator registered in verl") as caught:
            self.call({"egsw": {"base": base}}, entropy=self.batch[3])
        assert base not in caught.value.fix

    def test_scores_that_are_no_tensor(self):
        with pytest.raises(TensorError, match="token_level_scores is a ndarray"):
            self.call(entropy=self.batch[3], token_level_scores=self.batch[0].numpy())

    def test_misspelt_keyword(self):
        with pytest.raises(TypeError, match="entropies"):
            self.call(entropies=self.batch[3])

    def test_rewards_that_are_not_finite(self):
        rewards = self.batch[0].clone()
        rewards[self.batch[1].bool()] = math.nan
        with pytest.raises(TensorError, match="reward function"):
            get_adv_estimator_fn("egsw")(rewards, *self.batch[1:3], None, entropy=self.batch[3])

    def test_a_base_that_gives_no_finite_advantages(self):
        _, mask, index, entropy = self.batch
        advantages = torch.full(mask.shape, math.inf)
        with pytest.raises(TensorError, match="not finite"):
            egsw(advantages, entropy, Rows.measure(mask), dense_group_ids(index), alpha=0.5, temperature=1.0)

    def test_index_of_another_length(self):
        with pytest.raises(TensorError, match="one uid a row"):
            get_adv_estimator_fn("egsw")(*self.batch[:2], self.batch[2][1:], None, entropy=self.batch[3])


@pytest.mark.parametrize("base", ["grpo", "grpo_vectorized", "rloo"])
def test_returns_of_a_large_batch_are_the_bases_at_every_policy_token(monkeypatch, base):
    """They repeat one number over the row, in place of a tensor of their own."""
    monkeypatch.setattr(bases, "VIEW", 0)
    batch = random_batch(12)
    result, returns = estimate(batch, base=base)
    _, expected = estimate(batch, name=base)
    own = batch[1].bool()
    assert torch.equal(returns[own], expected[own])
    assert returns.shape == result.shape and returns.stride(1) == 0


# ------------------------------------------------------------------------------------------------- temperature=auto


def auto(batch, share, **options):
    """The metrics of a batch whose temperature is searched, and the result."""
    rewards, mask, index, entropy = batch
    metrics = {}
    config = {"norm_adv_by_std_in_grpo": True, "egsw": {"temperature": "auto", "effective_share": share, **options}}
    arguments = dict(token_level_rewards=rewards, response_mask=mask, index=index, entropy=entropy, metrics=metrics)
    return metrics, get_adv_estimator_fn("egsw")(**arguments, config=config)[0]


def acting(batch, scope):
    """The rows of groups that have an advantage other than 0."""
    base, index = base_of(batch), batch[2] if scope == "group" else ["everyone"] * len(batch[2])
    groups = {uid for row, uid in enumerate(index) if bool(base[row].any())}
    return [row for row, uid in enumerate(index) if uid in groups]


@pytest.mark.parametrize("granularity", ["step", "trajectory"])
@pytest.mark.parametrize("scope", ["group", "batch"])
@pytest.mark.parametrize("share", [0.7, 0.9, 0.99])
def test_the_searched_temperature_gives_the_share(share, granularity, scope):
    batch = random_batch(21, prompts=6, responses=6, tokens=8, emptied=False)
    options = dict(granularity=granularity, scope=scope)
    metrics, result = auto(batch, share, **options)
    P = metrics["egsw/temperature/mean"]
    assert torch.equal(result, estimate(batch, temperature=P, **options)[0])
    rows = acting(batch, scope)
    base, mask, entropy, index = (base_of(batch)[rows], batch[1][rows], batch[3][rows], batch[2][rows])
    weights = reference.egsw_weights(base.tolist(), entropy.tolist(), mask.tolist(), index, 0.5, P, **options)
    found = reference.effective_share(weights, mask.tolist(), index, **options)
    assert found == pytest.approx(share, abs=1e-4)
    assert metrics["egsw/effective_share_reached/mean"] == pytest.approx(share, abs=1e-4)


def groups_of_eight(*groups):
    """Responses of twenty tokens to one prompt a group, with these rewards."""
    rewards = torch.zeros(8 * len(groups), 20)
    rewards[:, -1] = torch.tensor(groups).flatten()
    entropy = 2 * torch.rand(rewards.shape, generator=torch.Generator().manual_seed(0))
    return rewards, torch.ones(rewards.shape, dtype=torch.int64), np.arange(len(rewards)) // 8, entropy


@pytest.mark.parametrize("base", ["grpo", "grpo_vectorized", "rloo", "gpg"])
def test_what_rounding_leaves_of_equal_rewards_is_no_advantage(base):
    """verl makes -0.007 of rewards that are all 0.1; P is that of the one group whose rewards differ."""
    mixed = [1.1, 1.1, *[0.1] * 6]
    whole = groups_of_eight(mixed, [0.1] * 8, [1.1] * 8, [0.7] * 8, *[[0.1] * 8] * 4)
    assert base_of(whole)[8:16].abs().max() > 0.005
    alone = tuple(x[:8] for x in whole)
    wanted = auto(alone, 0.9, base=base)[0]["egsw/temperature/mean"]
    assert auto(whole, 0.9, base=base)[0]["egsw/temperature/mean"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("base", ["success_sign", "reinforce_plus_plus", "grpo"])
def test_equal_rewards_whose_advantages_are_meant_count(base):
    """Those of a base without a baseline of the group; with grpo those of a group whose third response is empty."""
    batch = groups_of_eight([1.1, 1.1, *[0.1] * 6], *[[1.1] * 8, [0.1] * 8] * 3)
    if base == "grpo":
        batch[1][10::8] = batch[0][10::8] = 0
    rewards, mask, index, entropy = batch
    config = {"gamma": 1.0, "lam": 1.0, "egsw": {"temperature": "auto"}, "credit": {"base": base}}
    metrics = {}
    get_adv_estimator_fn("egsw")(rewards, mask, index, config, entropy=entropy, metrics=metrics)
    A = torch.where(rewards.sum(1, keepdim=True) > 0.5, 1.0, -1.0).expand(mask.shape).tolist()
    if base != "success_sign":
        A = get_adv_estimator_fn(base)(rewards, mask, index=index, config=OmegaConf.create(config))[0].tolist()
    weights = reference.egsw_weights(A, entropy.tolist(), mask.tolist(), index, 0.5, metrics["egsw/temperature/mean"])
    assert reference.effective_share(weights, mask.tolist(), index) == pytest.approx(0.9, abs=1e-4)


def test_a_larger_share_needs_a_higher_temperature():
    batch = random_batch(22, prompts=6, responses=6)
    temperatures = [auto(batch, share)[0]["egsw/temperature/mean"] for share in (0.6, 0.7, 0.8, 0.9, 0.99)]
    assert temperatures == sorted(temperatures) and temperatures[0] < temperatures[-1] / 2


def test_the_searched_temperature_depends_on_policy_tokens_alone():
    rewards, mask, index, entropy = random_batch(23, holes=False)
    wanted = auto((rewards, mask, index, entropy), 0.8)[0]["egsw/temperature/mean"]
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(0))
    shuffled = (rewards[order], mask[order], index[order.numpy()], entropy[order])
    wider = [torch.cat([x, torch.zeros_like(x)], 1) for x in (rewards, mask, entropy)]
    wider[2][wider[1] == 0] = 1.0
    apart = [
        torch.stack([x, torch.full_like(x, filler)], 2).flatten(1)
        for x, filler in zip((rewards, mask, entropy), (0, 0, 2), strict=True)
    ]
    for other in (shuffled, (wider[0], wider[1], index, wider[2]), (apart[0], apart[1], index, apart[2])):
        assert auto(other, 0.8)[0]["egsw/temperature/mean"] == pytest.approx(wanted, rel=1e-4)


def test_of_a_large_batch_some_tokens_say_the_temperature(monkeypatch):
    batch = random_batch(24, prompts=60, responses=8, tokens=80)
    rows, ids = Rows.measure(batch[1]), torch.as_tensor(np.unique(batch[2], return_inverse=True)[1])
    A = base_of(batch).amax(1, keepdim=True) + base_of(batch).amin(1, keepdim=True)  # one of them is 0
    whole, _ = temperature_for(0.85, A, batch[3], rows, ids, alpha=0.5)
    monkeypatch.setattr("egsw_plugin.kernels.egsw.SAMPLE", 3000)
    some, _ = temperature_for(0.85, A, batch[3], rows, ids, alpha=0.5)
    assert some != whole and some == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("holes", [False, True])
def test_the_first_tokens_of_a_group_do_not_say_the_temperature(monkeypatch, holes):
    """They come from one prompt, so that their entropy is the same and says nothing of how far others lie apart."""
    generator = torch.Generator().manual_seed(0)
    entropy = 2 * torch.rand(512, 32, generator=generator)
    ids = torch.arange(512) // 8
    entropy[:, 0] = entropy[8 * ids, 0]
    A, mask = torch.randn(512, 1, generator=generator), torch.ones(512, 32, dtype=torch.int64)
    if holes:
        mask, entropy = (torch.stack([x, torch.full_like(x, 0)], 2).flatten(1) for x in (mask, entropy))
    rows = Rows.measure(mask)
    monkeypatch.setattr("egsw_plugin.kernels.egsw.SAMPLE", 512)
    P, reached = temperature_for(0.8, A, entropy, rows, ids, alpha=2.0)
    tally = egsw(A, entropy, rows, ids, alpha=2.0, temperature=P).tally
    assert reached == pytest.approx(0.8, abs=1e-4)
    assert tally.share_total / tally.columns == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("longest", [1, 2, 7])
def test_some_tokens_of_short_responses_are_taken(longest):
    """Where every n-th one would begin after the end of the longest response."""
    mask = torch.zeros(2, 40, dtype=torch.int64)
    mask[0, 3 : 3 + longest] = mask[1, 0] = 1
    values = torch.arange(80.0).view(2, 40)
    some, [taken, level] = Rows.measure(mask).every(32, torch.tensor([True, True]), values, values[:, :1])
    middle = (longest - 1) // 2
    assert some.count.tolist() == [1, int(longest < 3)]
    assert taken[0].tolist() == [3 + middle] and level.tolist() == [[0], [40]]


def test_of_a_large_batch_no_more_tokens_are_looked_at(monkeypatch):
    """19 tokens are more than one sample of 10: every second one of each response."""
    seen = []
    monkeypatch.setattr("egsw_plugin.kernels.egsw.SAMPLE", 10)
    monkeypatch.setattr(
        Rows, "every", lambda self, step, *rest, own=Rows.every: seen.append(step) or own(self, step, *rest)
    )
    rows, entropy = Rows.measure(torch.ones(1, 19)), torch.zeros(1, 19)
    temperature_for(0.8, torch.ones(1, 1), entropy, rows, torch.tensor([0]), alpha=0.5)
    assert seen == [2]


def test_a_share_out_of_reach_is_said_and_the_nearest_is_taken(capsys, monkeypatch):
    from egsw_plugin import console

    monkeypatch.setattr(console, "_warned", set())
    entropy = torch.tensor([[0.5], [0.5], [0.5]])
    batch = (
        torch.tensor([[1.0], [1.0], [0.0]]),
        torch.ones(3, 1, dtype=torch.int64),
        np.array(["a"] * 3, object),
        entropy,
    )
    metrics, result = auto(batch, 0.3)  # two are alike: at least 2 of 3 weigh
    assert metrics["egsw/effective_share_reached/mean"] == pytest.approx(2 / 3)
    assert metrics["egsw/temperature/mean"] == pytest.approx(1e-3)
    said = capsys.readouterr().out
    assert "effective share of 0.3; the nearest is 0.667, at 0.001" in said
    assert bool(result.isfinite().all())
    # With other numbers it is said no second time.
    rewards = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    four = (rewards, torch.ones(4, 1, dtype=torch.int64), np.array(["a"] * 4, object), torch.full((4, 1), 0.5))
    assert auto(four, 0.3)[0]["egsw/effective_share_reached/mean"] == pytest.approx(0.5)
    assert capsys.readouterr().out == ""
    # Nothing differs, or nothing is there: the share is 1 at any temperature, and weights are 1.
    alike = (torch.ones(3, 1), *batch[1:])
    assert auto(alike, 0.9)[0]["egsw/effective_share_reached/mean"] == 1
    empty = (batch[0], torch.zeros(3, 1, dtype=torch.int64), *batch[2:])
    assert auto(empty, 0.9)[1].eq(0).all()
    alone = (torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.int64), np.array(["a"], object), torch.ones(1, 2))
    assert auto(alone, 0.9)[0]["egsw/effective_share_reached/mean"] == 1


def test_options_of_the_search():
    batch = random_batch(0)
    with pytest.raises(OptionError, match=r"egsw\.temperature='aut': use auto, or a finite number > 0"):
        estimate(batch, temperature="aut")
    options = MEMBERS["egsw"].options_type
    assert options(temperature="auto", effective_share=0.8).refusals() == []
    assert [key for key, _ in options(effective_share=0.8).refusals()] == ["effective_share"]
    with pytest.raises(OptionError, match=r"effective_share=1"):
        estimate(batch, temperature="auto", effective_share=1)


def test_uids_that_are_none_are_refused():
    """They would make one group of all rows."""
    with pytest.raises(TensorError, match="entry None"):
        dense_group_ids(["a", None, None])
