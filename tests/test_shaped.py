"""GTPO and GRPO-S through verl's registry against loops over Python floats, and what the definitions promise.

Every option changes which tokens are compared and what is subtracted, and a wrong set still trains something: so
combinations, any three or more in full, are compared token by token with `reference_shaping.py`, on rows as verl
delivers them. Maps to
kernels/{gtpo,grpo_s,shaping,normalization,shaped}.py, methods/{shaped,gtpo,grpo_s}.py, verl_adapter/estimators.py. Not
exercised here: a trainer (test_bridge.py, test_verl_runs.py) and the losses (test_policy_loss.py).
"""

import itertools
import math

import numpy as np
import pytest
import reference_shaping as reference
import torch
import verl  # noqa: F401  (loads the plugin through its entry point, as a user's run does)
from batches import applied, batch_of, random_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from egsw_plugin.errors import TensorError
from egsw_plugin.kernels.groups import dense_group_ids
from egsw_plugin.kernels.normalization import Normalization, normalize
from egsw_plugin.kernels.policy_loss import clipped_surrogate, sequence_ratio
from egsw_plugin.kernels.shaping import overlong_penalty
from egsw_plugin.methods.gtpo import GTPOOptions

pytestmark = pytest.mark.usefixtures("implementation")

NAMES = ["gtpo", "grpo_s"]
COEFFICIENTS = {"gtpo": ("alpha1", "alpha2"), "grpo_s": ("beta1", "beta2")}
NORM_SETS = ["all_with_zeros", "own_set", "joint", "none"]
FAILURES = ["shaped", "zero", "unbased"]
REST = {
    "norm_scope": ["group", "batch"],
    "entropy_scope": ["group", "batch"],
    "mean": ["arithmetic", "geometric"],
    "std": ["population", "sample"],
    "unmixed": ["drop", "keep"],
    "entropy_clip": [None, [0.2, 0.9]],
    "overlong": [False, True],
}


def estimate(name, batch, overlong=False, gamma1=0.6, call=None, **options):
    rewards, mask, index, entropy = batch
    config = {name: {**options, "overlong": {"enable": overlong, "gamma1": gamma1}}}
    return get_adv_estimator_fn(name)(rewards, mask, index, config, entropy=entropy, **(call or {}))[0]


def loop(name, batch, success=None, overlong=False, gamma1=0.6, **options):
    rewards, mask, index, entropy = batch
    success = (rewards.sum(1) > 0.5).tolist() if success is None else success
    result = getattr(reference, name)(
        entropy.tolist(), mask.tolist(), list(index), success, overlong=overlong, gamma1=gamma1, **options
    )
    expected = torch.zeros(mask.shape, dtype=torch.float64)
    if name == "grpo_s":
        return torch.tensor(result, dtype=torch.float64).unsqueeze(1) * mask
    for place, advantage in result.items():
        expected[place] = advantage
    return expected


def in_float64(batch):
    return batch[0], batch[1], batch[2], batch[3].double()


def eighth(number):
    """16 of the 128 combinations of `REST`: any three options in all their combinations; each eighth has others.

    Four options take all values, and each of the other three is the parity of another three of them.
    """
    flips = [number >> bit & 1 for bit in range(3)]
    for a, b, c, d in itertools.product((0, 1), repeat=4):
        yield a, b, c, d, a ^ b ^ c ^ flips[0], b ^ c ^ d ^ flips[1], a ^ c ^ d ^ flips[2]


def test_the_combinations_are_what_they_should_be():
    parts = [set(eighth(number)) for number in range(8)]
    assert len(set().union(*parts)) == 128 == 2 ** len(REST)
    for part, three in itertools.product(parts, itertools.combinations(range(7), 3)):
        assert len({tuple(values[place] for place in three) for values in part}) == 8


CELLS = list(itertools.product(NAMES, NORM_SETS, FAILURES))


@pytest.mark.parametrize("name,norm_set,failure", CELLS)
def test_combinations_of_options_equal_the_loop(name, norm_set, failure):
    """Of the combinations of the other options each cell has an eighth, and three cells have the same."""
    for number, places in enumerate(eighth(CELLS.index((name, norm_set, failure)) % 8)):
        values = [among[place] for among, place in zip(REST.values(), places, strict=True)]
        options = dict(zip(REST, values, strict=True), norm_set=norm_set, failure=failure)
        batch = random_batch(number % 7)
        result, expected = estimate(name, batch, **options), loop(name, batch, **options)
        torch.testing.assert_close(
            result.double(), expected, rtol=2e-6, atol=2e-6, msg=lambda m, o=options: f"{o}\n{m}"
        )


@pytest.mark.parametrize("settings", [(0.9, 0.1), (1, 0.2), (1, 0), (0, 1), (-0.3, 2.5)])
@pytest.mark.parametrize("name", NAMES)
def test_coefficients_floor_and_eps(name, settings):
    options = dict(zip(COEFFICIENTS[name], settings, strict=True))
    for extra in ({}, {"entropy_floor": 0.3, "eps": 0.01}, {"entropy_floor": 0.3, "mean": "geometric", "eps": 0}):
        batch = random_batch(50)
        result = estimate(name, batch, **options, **extra)
        torch.testing.assert_close(result.double(), loop(name, batch, **options, **extra), rtol=3e-6, atol=3e-6)


class TestWorkedExample:
    """One group of three responses, worked by hand (population standard deviation, eps 0, ratio clip 0.2 / 0.28)."""

    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    entropy = torch.tensor([[0.9, 1.8, 0.3, 0.6], [0.1, 0.6, 0, 0], [0.5, 0.2, 1.0, 0]])
    log_ratio = torch.tensor([[0.05, -0.10, 0.30, 0], [-0.30, 0.02, 0, 0], [0.40, -0.25, 0.01, 0]])
    rewards = torch.tensor([[0, 0, 0, 1.0], [0, 1, 0, 0], [0, 0, 0, 0]])
    batch = rewards, mask, np.array(["a"] * 3, dtype=object), entropy

    def test_gtpo(self):
        shaped = estimate("gtpo", self.batch, norm_set="none")
        expected = [[1.18, 1.15, 1.10, 1.10], [1.02, 1.05, 0, 0], [-1.1, -1.1, -1.1, 0]]
        torch.testing.assert_close(shaped, torch.tensor(expected), atol=1e-6, rtol=0)
        expected = [[0.858234, 0.800592, 0.704521, 0.704521], [0.550807, 0.608450, 0, 0], [-1.414214] * 3 + [0]]
        advantages = estimate("gtpo", self.batch, eps=0)
        torch.testing.assert_close(advantages, torch.tensor(expected), atol=1e-6, rtol=0)
        losses, _ = clipped_surrogate(self.log_ratio.exp(), advantages, 0.2, 0.28)
        assert -float((losses * self.mask).sum() / self.mask.sum()) == pytest.approx(-0.045313, abs=1e-6)

    def test_grpo_s(self):
        shaped = estimate("grpo_s", self.batch, norm_set="none")
        torch.testing.assert_close(shaped[:, 0], torch.tensor([1.144, 1.056, -1.1]), atol=1e-6, rtol=0)
        advantages = estimate("grpo_s", self.batch, eps=0)
        torch.testing.assert_close(advantages[:, 0], torch.tensor([0.790066, 0.620766, -1.414214]), atol=1e-6, rtol=0)
        for mean, objective in (("arithmetic", -0.049812), ("geometric", -0.036999)):
            ratio = sequence_ratio(self.log_ratio, self.mask.bool(), mean)
            losses, _ = clipped_surrogate(ratio, advantages, 0.2, 0.28)
            assert -float(losses[:, 0].mean()) == pytest.approx(objective, abs=1e-6)


class TestPropositions:
    @pytest.mark.parametrize("second", [0.1, 0.7])
    @pytest.mark.parametrize("entropy_scope", ["group", "batch"])
    def test_rewards_add_up_to_the_number_of_their_polarity(self, entropy_scope, second):
        """With alpha1 + alpha2 = 1, over the successes, and over the failures, alive at t."""
        batch = in_float64(random_batch(51, holes=False))
        rewards, mask, index, _ = batch
        options = dict(norm_set="none", unmixed="keep", entropy_scope=entropy_scope)
        shaped = estimate("gtpo", batch, alpha1=1 - second, alpha2=second, **options)
        responses = estimate("grpo_s", batch, beta1=1 - second, beta2=second, **options)
        success = rewards.sum(1) > 0.5
        for uid, sign in itertools.product(set(index) if entropy_scope == "group" else [None], (1, -1)):
            own = torch.tensor(index == uid) if uid else torch.ones(len(index), dtype=torch.bool)
            rows = own & (success == (sign == 1)) & mask.any(1)
            torch.testing.assert_close(sign * shaped[rows].sum(0), mask[rows].sum(0).float(), rtol=1e-6, atol=1e-6)
            level = responses[rows].abs().amax(1)
            assert float(level.sum()) == pytest.approx(int(rows.sum()))

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("entropy_scope", ["group", "batch"])
    def test_bounds(self, entropy_scope, name):
        """A reward's share is at most the number of those that it is shared among."""
        batch = in_float64(random_batch(52, prompts=4, responses=8, holes=False))
        rewards, mask, index, _ = batch
        coefficients = dict(zip(COEFFICIENTS[name], (1, 0.2), strict=True))
        shaped = estimate(name, batch, norm_set="none", entropy_scope=entropy_scope, **coefficients)
        success = rewards.sum(1) > 0.5
        assert bool(shaped[success].any()) and bool(shaped[~success].any())
        for row, column in shaped.nonzero().tolist():
            alive = mask[:, column] if name == "gtpo" else mask.any(1)
            among = alive.bool() & (success == success[row])
            if entropy_scope == "group":
                among &= torch.tensor(index == index[row])
            size = float(shaped[row, column]) * (1 if success[row] else -1)
            assert 1 - 1e-6 <= size <= 1 + 0.2 * int(among.sum()) + 1e-6

    @pytest.mark.parametrize("name", NAMES)
    def test_equal_entropies_leave_nothing_of_the_shaping(self, name):
        rewards, mask, index, entropy = random_batch(53)
        equal = torch.full_like(entropy, 0.7)
        first, second = COEFFICIENTS[name]
        result = estimate(name, (rewards, mask, index, equal), **{first: 0.8, second: 0.4}, eps=0)
        plain = estimate(name, (rewards, mask, index, entropy), **{first: 1.2, second: 0}, eps=0)
        torch.testing.assert_close(result, plain, rtol=1e-5, atol=1e-6)

    def test_without_entropy_grpo_s_is_verls_grpo(self):
        batch = random_batch(54, emptied=False)  # verl counts a row without tokens as a response
        rewards, mask, index, _ = batch
        grpo = get_adv_estimator_fn("grpo")(rewards, mask, index)[0]
        torch.testing.assert_close(estimate("grpo_s", batch, beta2=0, std="sample"), grpo, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(estimate("grpo_s", batch, beta2=0.1, std="sample"), grpo, atol=1e-3)

    @pytest.mark.parametrize("scope", ["group", "batch"])
    def test_without_entropy_gtpo_is_grpo_with_a_token_level_baseline(self, scope):
        batch = random_batch(55)
        rewards, mask, index, _ = batch
        result = estimate("gtpo", batch, alpha2=0, norm_scope=scope, eps=0)
        reward = (rewards.sum(1) > 0.5).double()
        mixed = [u for u in set(index) if len(set(reward[(index == u) & mask.any(1).numpy()].tolist())) == 2]
        assert len(mixed) > 1
        for own in [mixed] if scope == "batch" else [[uid] for uid in mixed]:
            rows = torch.tensor(np.isin(index.astype(str), own))
            tokens = (reward.unsqueeze(1) * mask)[rows][mask[rows].bool()]
            level = (tokens - tokens.mean()) / tokens.std(unbiased=False)
            torch.testing.assert_close(result[rows][mask[rows].bool()], level.float(), rtol=1e-5, atol=1e-6)

    def test_a_success_of_low_entropy_can_get_a_negative_advantage(self):
        """all_with_zeros, where successes hold more than alpha1 / (alpha1 + alpha2) of the tokens."""
        mask = torch.ones(10, 1, dtype=torch.int64)
        rewards = torch.ones(10, 1)
        rewards[0] = 0
        entropy = torch.full((10, 1), 1.0)
        entropy[5] = 0.001
        batch = rewards, mask, np.array(["a"] * 10, dtype=object), entropy
        assert float(estimate("gtpo", batch, alpha2=0.2)[5]) < 0
        metrics = metrics_of("gtpo", batch, alpha2=0.2)
        assert metrics["gtpo/negative_success/mean"] == pytest.approx(1 / 9)
        assert metrics["gtpo/sign_flip/mean"] == pytest.approx(1 / 10)


@pytest.mark.parametrize("name", NAMES)
class TestInvariance:
    """Those that each member has are in test_family.py and, through verl's registry, in test_fuzz.py."""

    def test_tool_tokens_in_the_middle(self, name):
        rewards, mask, index, entropy = random_batch(20)
        result = estimate(name, (rewards, mask, index, entropy))
        packed = [torch.zeros_like(tensor) for tensor in (rewards, mask, entropy, result)]
        for row in range(len(mask)):
            own = mask[row].bool()
            length = int(own.sum())
            packed[0][row, 0] = rewards[row].sum()
            packed[1][row, :length] = 1
            packed[2][row, :length] = entropy[row, own]
            packed[3][row, :length] = result[row, own]
        torch.testing.assert_close(estimate(name, (packed[0], packed[1], index, packed[2])), packed[3])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_computes_in_at_least_float32(self, name, dtype):
        rewards, mask, index, entropy = random_batch(24)
        result = estimate(name, (rewards, mask, index, entropy.to(dtype)))
        assert result.dtype == torch.float32
        expected = loop(name, (rewards, mask, index, entropy.to(dtype)))
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
class TestDegenerateGroups:
    @pytest.mark.parametrize("norm_set", NORM_SETS)
    @pytest.mark.parametrize("failure", FAILURES)
    @pytest.mark.parametrize("reward", [0.0, 1.0])
    def test_a_batch_of_one_polarity(self, name, norm_set, failure, reward):
        rewards, mask, index, entropy = random_batch(30)
        constant = torch.zeros_like(rewards)
        constant[:, 0] = reward
        options = dict(norm_set=norm_set, failure=failure)
        assert not estimate(name, (constant, mask, index, entropy), **options).any()
        kept = estimate(name, (constant, mask, index, entropy), unmixed="keep", **options)
        expected = loop(name, (constant, mask, index, entropy), unmixed="keep", **options)
        torch.testing.assert_close(kept.double(), expected, rtol=2e-6, atol=2e-6)

    @pytest.mark.parametrize("size", [1, 2, 1000])
    @pytest.mark.parametrize("norm_set", NORM_SETS)
    def test_groups_of_any_size(self, name, size, norm_set):
        batch = random_batch(31, prompts=2, responses=size, tokens=6, padding_rows=0, emptied=False)
        for options in (dict(unmixed="drop"), dict(unmixed="keep", norm_scope="group")):
            result = estimate(name, batch, norm_set=norm_set, **options)
            expected = loop(name, batch, norm_set=norm_set, **options)
            torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-5)

    def test_a_batch_without_policy_tokens(self, name):
        rewards, mask, index, entropy = random_batch(32)
        assert not estimate(name, (rewards, torch.zeros_like(mask), index, entropy)).any()

    @pytest.mark.parametrize("level", [0.0, 1e-12, 1e-6, -1e-4])
    @pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
    def test_entropy_at_the_floor_is_shared_equally(self, name, level, mean):
        rewards, mask, index, entropy = random_batch(33)
        second = COEFFICIENTS[name][1]
        low = (rewards, mask, index, torch.full_like(entropy, level))
        equal = (rewards, mask, index, torch.ones_like(entropy))
        for options in (dict(), {second: 5.0}, dict(norm_set="own_set")):
            result = estimate(name, low, mean=mean, **options)
            torch.testing.assert_close(result, estimate(name, equal, **options), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
    @pytest.mark.parametrize("norm_set", NORM_SETS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_any_finite_entropy_gives_finite_advantages(self, name, mean, norm_set, dtype):
        rewards, mask, index, entropy = random_batch(34, holes=False)
        generator = torch.Generator().manual_seed(0)
        levels = torch.tensor([0.0, 1e-45, 1e-30, 1e-6, 1.0, 1e6, 1e30, 3.3e38])
        wild = levels[torch.randint(0, len(levels), entropy.shape, generator=generator)].to(dtype)
        for entropy_floor, unmixed in itertools.product((1e-30, 1e-6), ("drop", "keep")):
            options = dict(mean=mean, norm_set=norm_set, entropy_floor=entropy_floor, unmixed=unmixed)
            if mean == "geometric" and norm_set == "none":
                continue  # a reward of 1e50 has no place in float32
            assert estimate(name, (rewards, mask, index, wild), **options).isfinite().all(), options
        huge = torch.full_like(wild, 3.3e38)
        assert estimate(name, (rewards, mask, index, huge), mean=mean, norm_set=norm_set).isfinite().all()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_shape_and_mask(data):
    rows, tokens = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 6))

    def matrix(elements):
        return data.draw(st.lists(st.lists(elements, min_size=tokens, max_size=tokens), min_size=rows, max_size=rows))

    mask = torch.tensor(matrix(st.integers(0, 1)))
    entropy = torch.tensor(matrix(st.floats(0, 12)), dtype=torch.float64)
    index = np.array(data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)), dtype=object)
    rewards = torch.zeros(rows, tokens)
    rewards[:, 0] = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))
    name = data.draw(st.sampled_from(NAMES))
    options = {key: data.draw(st.sampled_from(values)) for key, values in REST.items()}
    options |= {"norm_set": data.draw(st.sampled_from(NORM_SETS)), "failure": data.draw(st.sampled_from(FAILURES))}
    options |= {"eps": data.draw(st.sampled_from([1e-6, 0.1]))}
    batch = rewards, mask, index, entropy
    result, expected = estimate(name, batch, **options), loop(name, batch, **options)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


class TestSuccess:
    batch = random_batch(40)

    @pytest.mark.parametrize("name", NAMES)
    def test_is_judged_before_the_kl_penalty(self, name):
        rewards, mask, index, entropy = self.batch
        penalised = rewards - 3.0 * mask
        result = estimate(name, (penalised, mask, index, entropy), call={"token_level_scores": rewards})
        assert torch.equal(result, estimate(name, self.batch))
        assert not estimate(name, (penalised, mask, index, entropy)).any()

    def test_threshold(self):
        rewards, mask, index, entropy = self.batch
        shifted = (rewards * 2 - mask / mask.sum(1, keepdim=True).clamp(min=1), mask, index, entropy)  # -1 and 1
        assert torch.equal(estimate("gtpo", shifted, threshold=0), estimate("gtpo", self.batch))
        assert not estimate("gtpo", shifted, threshold=5).any()

    @pytest.mark.parametrize("kind", [float, bool, np.float32, str])
    def test_a_field_of_reward_extra_info(self, kind):
        rewards, mask, index, entropy = self.batch
        right = rewards.sum(1) > 0.5
        info = {"acc": [kind(int(one)) for one in right], "other": [0] * len(right)}
        unrelated = torch.full_like(rewards, 7.0)
        call = {"reward_extra_info": info}
        result = estimate("gtpo", (unrelated, mask, index, entropy), success="acc", call=call)
        assert torch.equal(result, estimate("gtpo", self.batch))

    @pytest.mark.parametrize(
        "info,message",
        [
            (None, r"algorithm.gtpo.success=acc: reward_extra_info has no field of that name \(there is none\)"),
            ({"score": [1] * 22}, r"no field of that name \(it has score\).*set algorithm.gtpo.success=score"),
            ({"acc": [1] * 3}, "3 entries for 22 rows"),
            ({"acc": [None] * 22}, r"in row \d+ it is None; it must be a finite number"),
            ({"acc": [math.nan] * 22}, "it must be a finite number"),
        ],
    )
    def test_a_field_that_is_not_there(self, info, message):
        with pytest.raises(TensorError, match=message):
            estimate("gtpo", self.batch, success="acc", call={"reward_extra_info": info})

    def test_a_padding_row_needs_no_field(self):
        rewards, mask, _, _ = self.batch
        info = [float(r > 0.5) if own else None for r, own in zip(rewards.sum(1), mask.any(1), strict=True)]
        assert None in info
        result = estimate("grpo_s", self.batch, success="acc", call={"reward_extra_info": {"acc": info}})
        assert torch.equal(result, estimate("grpo_s", self.batch))


def metrics_of(name, batch, overlong=None, **options):
    rewards, mask, index, entropy = batch
    section = {**options, "overlong": {"enable": overlong is not None, "gamma1": overlong or 0.75}}
    outcome = rewards.sum(1)
    step = batch_of(None, mask, dense_group_ids(index), outcome > 0.5, outcome, entropy=entropy)
    return applied(name, step, **section).metrics


@pytest.mark.parametrize("name", NAMES)
def test_success_that_the_threshold_misses_is_warned_of(name, capsys, monkeypatch):
    from egsw_plugin import console

    monkeypatch.setattr(console, "_warned", set())
    rewards, mask, index, entropy = random_batch(48)
    assert not estimate(name, (rewards * 0.5, mask, index, entropy)).any()
    out = capsys.readouterr().out
    assert "every advantage is 0" in out and "rewards differ (from 0 to 0.5)" in out
    assert f"algorithm.{name}.threshold" in out
    assert not estimate(name, (rewards * 0, mask, index, entropy)).any()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", [*NAMES, "success_sign", "egsw"])
def test_graded_scores_are_warned_of_once(name, capsys, monkeypatch):
    """By those that judge success; of EGSW a score is a number like any other."""
    from egsw_plugin import console

    monkeypatch.setattr(console, "_warned", set())
    rewards, mask, index, entropy = random_batch(48)
    compute = get_adv_estimator_fn(name)
    compute(rewards, mask, index, {}, entropy=entropy)
    assert "more than two values" not in capsys.readouterr().out
    rewards[(rewards.sum(1) * mask.sum(1)).argmax()] *= 0.75
    for _ in range(2):
        compute(rewards, mask, index, {}, entropy=entropy)
    said = capsys.readouterr().out
    section = f"algorithm.credit.{name}" if name == "success_sign" else f"algorithm.{name}"
    assert said.count(f"scores take more than two values, and a success is one above {section}.threshold (0.5)") == (
        name != "egsw"
    )


class TestMetrics:
    @pytest.mark.parametrize("options", [{}, {"entropy_scope": "batch", "alpha2": 0.9}, {"unmixed": "keep"}])
    def test_of_gtpo_equal_the_loop(self, options):
        batch = in_float64(random_batch(41, prompts=9, responses=3))
        rewards, mask, index, entropy = batch
        metrics = metrics_of("gtpo", batch, **options)
        success = rewards.sum(1) > 0.5
        advantages = reference.gtpo(entropy.tolist(), mask.tolist(), index, success.tolist(), **options)
        # With alpha1 = 0, alpha2 = 1 and nothing normalised, a reward is plus or minus the weight.
        weights = reference.gtpo_shaped(
            entropy.tolist(), mask.tolist(), index, success.tolist(), **{**options, "alpha1": 0.0, "alpha2": 1.0}
        )
        weights = {place: abs(value) for place, value in weights.items()}
        outcomes = {}
        for row, _ in advantages:
            outcomes.setdefault(index[row], set()).add(bool(success[row]))
        mixed = {uid for uid, seen in outcomes.items() if len(seen) == 2}
        own = [place for place in advantages if index[place[0]] in mixed]
        assert 0 < len(mixed) < len(outcomes)

        def share(of, among=own):
            return pytest.approx(sum(map(of, among)) / len(among), rel=1e-6)

        assert metrics["gtpo/changed/mean"] == share(lambda place: abs(weights[place] - 1) > 1e-6)
        assert metrics["gtpo/weight/max"] == pytest.approx(max(weights.values()))
        assert metrics["gtpo/weight/min"] == pytest.approx(min(weights.values()))
        sign = {True: 1, False: -1}
        assert metrics["gtpo/sign_flip/mean"] == share(lambda p: advantages[p] * sign[bool(success[p[0]])] < 0)
        won, lost = [p for p in own if success[p[0]]], [p for p in own if not success[p[0]]]
        assert metrics["gtpo/negative_success/mean"] == share(lambda p: advantages[p] < 0, won)
        assert metrics["gtpo/positive_failure/mean"] == share(lambda p: advantages[p] > 0, lost)
        assert metrics["gtpo/mixed_groups/mean"] == pytest.approx(len(mixed) / len(outcomes))
        alike = torch.full_like(entropy, 0.7).tolist()
        equal = reference.gtpo(alike, mask.tolist(), index, success.tolist(), **options)
        moved = sum(abs(advantage - equal[place]) for place, advantage in advantages.items())
        sizes = [sum(map(abs, values.values())) for values in (advantages, equal)]
        assert metrics["gtpo/entropy_shift/mean"] == pytest.approx(moved / max(sizes), rel=1e-6) and moved > 0
        everywhere = [float(entropy[place]) for place in advantages]
        assert metrics["gtpo/entropy/mean"] == pytest.approx(sum(everywhere) / len(everywhere))
        columns = {}
        for place, weight in weights.items():
            row, column = place
            t = sum(mask[row][:column].tolist())
            scope = "all" if options.get("entropy_scope") == "batch" else index[row]
            columns.setdefault((scope, bool(success[row]), t), []).append(weight)
        shares = [sum(w) ** 2 / sum(x * x for x in w) / len(w) for w in columns.values()]
        assert metrics["gtpo/effective_share/mean"] == pytest.approx(sum(shares) / len(shares))

    @pytest.mark.parametrize("mean,largest", [("arithmetic", 4 / 1.03), ("geometric", 0.01**-0.75)])
    def test_a_weight_is_at_most_d_but_not_of_the_geometric_mean(self, mean, largest):
        """Of d = 4 successes one has H = 1, the others 0.01: 4 * 1 / 1.03, and 1 / 0.01^(3/4)."""
        rewards, mask = torch.tensor([[1.0]] * 4 + [[0.0]]), torch.ones(5, 1, dtype=torch.int64)
        entropy = torch.tensor([[1.0], [0.01], [0.01], [0.01], [0.5]])
        batch = (rewards, mask, np.array(["a"] * 5, object), entropy)
        assert metrics_of("gtpo", batch, mean=mean)["gtpo/weight/max"] == pytest.approx(largest, rel=1e-5)

    def test_of_grpo_s_equal_the_loop(self):
        batch = random_batch(42, prompts=9, responses=4)
        rewards, mask, index, entropy = batch
        success = (rewards.sum(1) > 0.5).tolist()
        metrics = metrics_of("grpo_s", batch)
        weights = reference.grpo_s_shaped(entropy.tolist(), mask.tolist(), index, success, beta1=0.0, beta2=1.0)
        assert metrics["grpo_s/weight/max"] == pytest.approx(max(map(abs, weights.values())))
        assert metrics["grpo_s/weight/min"] == pytest.approx(min(map(abs, weights.values())))
        cells = {}
        for row, weight in weights.items():
            cells.setdefault((index[row], success[row]), []).append(abs(weight))
        shares = [sum(w) ** 2 / sum(x * x for x in w) / len(w) for w in cells.values()]
        assert metrics["grpo_s/effective_share/mean"] == pytest.approx(sum(shares) / len(shares))
        changed = sum(int(mask[row].sum()) for row, weight in weights.items() if abs(abs(weight) - 1) > 1e-6)
        assert metrics["grpo_s/changed/mean"] == pytest.approx(changed / sum(int(mask[row].sum()) for row in weights))

    @pytest.mark.parametrize("name", NAMES)
    def test_no_weight_on_the_entropy_shows(self, name):
        metrics = metrics_of(name, random_batch(43), **{COEFFICIENTS[name][1]: 0})
        assert metrics[f"{name}/changed/mean"] == metrics[f"{name}/entropy_shift/mean"] == 0
        assert {metrics[f"{name}/{of}"] for of in ("effective_share/mean", "weight/max", "weight/min")} == {1}
        assert metrics[f"{name}/mixed_groups/mean"] > 0

    @pytest.mark.parametrize("name", NAMES)
    def test_the_shift_grows_with_the_weight_on_the_entropy(self, name):
        """To first order in proportion to it: what a change of the weight does is seen, as in no measure of w alone."""
        shifts = [
            metrics_of(name, random_batch(43), **{COEFFICIENTS[name][1]: weight})[f"{name}/entropy_shift/mean"]
            for weight in (1e-3, 2e-3, 0.1)
        ]
        assert shifts[1] == pytest.approx(2 * shifts[0], rel=0.01) and shifts[0] < shifts[2] / 50

    def test_the_shift_of_grpo_s_equals_the_loop(self):
        rewards, mask, index, entropy = random_batch(42, prompts=9, responses=4)
        success = (rewards.sum(1) > 0.5).tolist()
        found, equal = (
            reference.grpo_s(h.tolist(), mask.tolist(), index, success) for h in (entropy, torch.ones_like(entropy))
        )
        length = mask.sum(1).tolist()
        moved = sum(n * abs(a - b) for n, a, b in zip(length, found, equal, strict=True))
        sizes = [sum(n * abs(a) for n, a in zip(length, side, strict=True)) for side in (found, equal)]
        metrics = metrics_of("grpo_s", (rewards, mask, index, entropy))
        assert metrics["grpo_s/entropy_shift/mean"] == pytest.approx(moved / max(sizes), rel=1e-5) and moved > 0

    @pytest.mark.parametrize("name", NAMES)
    def test_entropy_clip_and_length_penalty_are_counted(self, name):
        batch = random_batch(44)
        _, mask, _, entropy = batch
        metrics = metrics_of(name, batch, entropy_clip=[0.3, 0.8], overlong=0.51)
        own = entropy[mask.bool()]
        outside = float(((own < 0.3) | (own > 0.8)).float().mean())
        assert metrics[f"{name}/entropy_clipped/mean"] == pytest.approx(outside)
        assert 0 < metrics[f"{name}/overlong/mean"] < 1
        assert metrics_of(name, batch)[f"{name}/overlong/mean"] == 0
        assert metrics_of(name, batch)[f"{name}/entropy_clipped/mean"] == 0

    def test_rounding_is_no_sign(self):
        """own_set: a column with one response has exactly the mean reward, and no sign."""
        mask = torch.tensor([[1, 1, 1]] * 2 + [[1, 0, 0]] * 2)
        rewards = torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]])
        entropy = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)) + 0.1
        batch = rewards, mask, np.array(["a"] * 4, dtype=object), entropy
        for scope in ("group", "batch"):
            result = estimate("gtpo", batch, norm_set="own_set", norm_scope=scope)
            assert not result[:2, 1:].any()
            assert result[:, 0].all()

    @pytest.mark.parametrize("name", NAMES)
    def test_of_a_batch_without_success(self, name):
        rewards, mask, index, entropy = random_batch(45)
        metrics = metrics_of(name, (torch.zeros_like(rewards), mask, index, entropy))
        assert metrics[f"{name}/changed/mean"] == metrics[f"{name}/mixed_groups/mean"] == 0
        assert f"{name}/entropy_success/mean" not in metrics and f"{name}/effective_share/mean" not in metrics
        assert all(math.isfinite(value) for value in metrics.values())


class TestRefusals:
    batch = random_batch(46)

    @pytest.mark.parametrize("name", NAMES)
    def test_entropy_is_missing(self, name):
        with pytest.raises(TensorError, match=rf"{name} needs entropy, which was not passed"):
            get_adv_estimator_fn(name)(*self.batch[:3], None)

    @pytest.mark.parametrize("name", NAMES)
    def test_misspelt_keyword(self, name):
        with pytest.raises(TypeError, match="entropies"):
            get_adv_estimator_fn(name)(*self.batch[:3], None, entropies=self.batch[3])

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_entropy_that_is_not_finite_in_the_kernel(self, name, value):
        rewards, mask, index, entropy = self.batch
        spoilt = torch.where(mask.bool(), torch.full_like(entropy, value), entropy)
        outcome = rewards.sum(1)
        step = batch_of(None, mask, dense_group_ids(index), outcome > 0.5, outcome, entropy=spoilt)
        for failure in FAILURES:
            with pytest.raises(TensorError, match="not finite"):
                applied(name, step, failure=failure)


def test_docstring_of_the_options_lists_paper_and_default():
    assert "alpha2: weight of the entropy" in GTPOOptions.__doc__
    assert "(alpha_2 in the paper; default 0.1; paper: 0.1 (0.2 tried); 0, or a number of" in GTPOOptions.__doc__


def test_a_group_at_the_very_share_is_hard_and_is_not_penalised():
    one_right = torch.tensor([True, False, False, False])
    arguments = (
        torch.tensor([2, 4, 8, 20]),
        one_right,
        torch.zeros(4, dtype=torch.int64),
        torch.ones(4, dtype=torch.bool),
    )
    assert overlong_penalty(*arguments, 0.75).tolist() == [0, 0, 0, 0]
    # Not hard any more: failures are compared with max((2 + 20) / 2, 34 / 4) = 11.
    assert overlong_penalty(*arguments, 0.76).tolist() == pytest.approx([0, 0, 0, (11 - 20) / 22])


@pytest.mark.parametrize("levels,wanted", [([0.1 + 0.2, 0.3], 0.0), ([0.3, 0.3 + 1e-9], 1.0), ([0.0, 0.0], 0.0)])
def test_a_deviation_that_is_rounding_is_none(levels, wanted):
    one, no, yes = torch.ones(2), torch.zeros(2), torch.ones(2, dtype=torch.bool)
    normalization, ids = Normalization("own_set", eps=0.0), torch.zeros(2, dtype=torch.int64)
    level = torch.tensor(levels, dtype=torch.float64)
    offset = normalize(normalization, level, one, no, no, yes, ids, yes)[1]
    assert offset.abs().tolist() == pytest.approx([wanted, wanted], rel=1e-5)
