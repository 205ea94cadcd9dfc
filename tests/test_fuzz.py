"""Bad input: 2,500 random cases with random faults, and what must hold of any input, by search.

Of anything that a user's configuration, reward function or rollout can bring, the estimators and losses make a correct
finite result or one of the plugin's own errors that names what is wrong: a NaN trains nothing, or everything wrongly,
and an error from inside torch says nothing about its cause. The cases are made and checked by `fuzz.py`, against the
loops of `reference.py` and `reference_shaping.py`; a failure prints the seed, and `python tests/fuzz.py --cases 1
--seed N` repeats it. Below that stands each fault that was found, by itself. Not exercised: CUDA; a trainer.
"""

import math
import random

import fuzz
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn

from egsw_plugin.errors import OptionError, TensorError
from egsw_plugin.methods.egsw import EGSWOptions
from egsw_plugin.methods.gtpo import GTPOOptions
from egsw_plugin.options import parse

CASES, CHUNKS = 2_500, 5


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_cases(chunk):
    for seed in range(chunk * CASES // CHUNKS, (chunk + 1) * CASES // CHUNKS):
        fuzz.check(seed)


def test_the_cases_are_what_they_should_be():
    """Many must be comparable with the loops, and many refused, or the fuzzer tests nothing."""
    cases = [fuzz.make_case(seed) for seed in range(1000)]
    assert sum(case.exact and not case.refused for case in cases) > 300
    assert sum(bool(case.refused) for case in cases) > 150
    faults = {fault.__name__ for fault in (*fuzz.HARMLESS, *fuzz.LOSSY, *fuzz.FATAL)}
    assert {fault for case in cases for fault in case.faults} == faults
    assert {case.mask.shape[0] for case in cases if isinstance(case.mask, torch.Tensor) and case.mask.dim()} >= {0, 1}
    chains = [fuzz.make_chain_case(seed) for seed in range(1000)]
    assert {name for case in chains for name in case.algorithm["credit"]} >= {*fuzz.MEMBERS.own}
    assert sum(case.exact and not case.refused for case in chains) > 300
    assert {fuzz.make_loss_case(seed).mode for seed in range(300)} == {*fuzz.LOSSES}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(fuzz.WRONG_VALUES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(fuzz.SECTIONS))
def test_any_section_becomes_options_or_an_error_that_names_the_key(data, options_type):
    names = [key.partition(".")[0] for key, _, _ in fuzz.walk(options_type)]
    section = data.draw(values | st.dictionaries(st.sampled_from(names) | st.text(max_size=3), values, max_size=4))
    fuzz.run_section(options_type, section)


numbers = st.floats(width=32) | st.sampled_from([0.0, 1.0, 1e-45, -1e-45, 3e38, math.nan, math.inf])


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(0, 4), st.integers(0, 4), st.sampled_from(list(fuzz.OPTIONS)), st.integers(0, 10**6))
def test_any_numbers_at_all(data, rows, tokens, method, seed):
    """Rewards, entropies, masks and uids of any value: only finiteness and shapes are asked of the result."""

    def tensor(of):
        drawn = data.draw(st.lists(of, min_size=rows * tokens, max_size=rows * tokens))
        return torch.tensor(drawn, dtype=torch.float32).view(rows, tokens)

    options = fuzz.options_for(random.Random(seed), method, extreme=True)
    uid = st.integers() | st.text(max_size=2) | st.floats() | st.none() | st.lists(st.integers(), max_size=1)
    case = fuzz.Case(
        random.Random(seed),
        method,
        options,
        tensor(numbers),
        tensor(st.sampled_from([0.0, 1.0])) if data.draw(st.booleans()) else tensor(numbers),
        data.draw(st.lists(uid, min_size=rows, max_size=rows)),
        tensor(numbers | st.floats(0, 12, width=32)),
        more={"old_log_probs": tensor(numbers | st.floats(-12, 0, width=32))},
        exact=False,
    )
    fuzz.run(case)


@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from(fuzz.LOSSES), st.sampled_from(fuzz.AGGREGATIONS))
def test_any_ratio_has_a_finite_loss(data, mode, aggregation):
    """Of log-probabilities, whatever is not NaN at a policy token."""
    case = fuzz.make_loss_case(data.draw(st.integers(0, 10**9)))
    case.mode, case.options = mode, {}
    if case.refused:
        return
    case.arguments["loss_agg_mode"], case.exact = aggregation, False
    shape = case.arguments["log_prob"].shape
    drawn = data.draw(st.lists(st.floats(-1e30, 1e30), min_size=shape.numel(), max_size=shape.numel()))
    case.arguments["log_prob"] = torch.tensor(drawn, dtype=torch.float32).view(shape).requires_grad_()
    fuzz.run_loss(case)


class TestFound:
    """What the fuzzer found, one by one."""

    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    rewards = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1.0, 0]])
    entropy = torch.tensor([[0.5, 1.0, 0], [0.3, 0, 0], [0, 0, 0], [0.2, 0.7, 0.1]])

    def estimate(
        self, method, rewards=None, mask=None, index=("a", "a", "b", "b"), algorithm=None, more=None, **options
    ):
        return get_adv_estimator_fn(method)(
            self.rewards if rewards is None else rewards,
            self.mask if mask is None else mask,
            index,
            {**(algorithm or {}), method: options},
            entropy=self.entropy,
            **(more or {}),
        )

    @pytest.mark.parametrize("method", list(fuzz.OPTIONS))
    @pytest.mark.parametrize("index", [["a", "a", math.nan, "b"], torch.full((4,), math.nan), [[1], [1], [2], [2]]])
    def test_uids_that_equal_no_other(self, method, index):
        """A NaN made each row a group of its own, without a word; a list was torn apart by numpy or by hash()."""
        with pytest.raises(TensorError, match="index has"):
            self.estimate(method, index=index)

    def test_tensors_as_uids(self):
        with pytest.raises(TensorError, match="equals no other"):
            self.estimate("egsw", index=list(torch.tensor([0, 0, 1, 1])))

    @pytest.mark.parametrize("index", [3, np.array(3), torch.tensor(3), "abcd", np.zeros((4, 2))])
    def test_an_index_that_is_not_one_uid_a_row(self, index):
        with pytest.raises(TensorError, match="index has"):
            self.estimate("egsw", index=index)

    def test_uids_of_two_types_stay_apart_in_a_vectorized_base(self):
        """verl reads 1 and "1" as one uid there."""
        index = [1, "1", 1, "1"]
        result = self.estimate("egsw", index=index, base="grpo_vectorized", alpha=0.0, temperature=1e12)[0]
        wanted = self.estimate("egsw", index=["a", "b", "a", "b"], base="grpo", alpha=0.0, temperature=1e12)[0]
        torch.testing.assert_close(result, wanted)

    @pytest.mark.parametrize("method", list(fuzz.OPTIONS))
    def test_no_columns(self, method):
        none = torch.zeros(4, 0)
        for options in ({}, {"base": "gpg", "denominator": "all"} if method == "egsw" else {"unmixed": "keep"}):
            result, _ = get_adv_estimator_fn(method)(none, none, ["a"] * 4, {method: options}, entropy=none)
            assert result.shape == (4, 0)

    @pytest.mark.parametrize("base", ["gae", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "opo", "rloo"])
    def test_a_batch_without_policy_tokens(self, base):
        values = {"values": torch.zeros(4, 3)}
        result, _ = self.estimate("egsw", mask=torch.zeros_like(self.mask), more=values, base=base)
        assert result.eq(0).all()

    def test_gae_ignores_what_stands_outside_the_mask(self):
        values = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
        spoilt = values.masked_fill(self.mask == 0, math.nan)
        for channel in ("advantage", "loss"):
            result, wanted = (
                self.estimate("egsw", more={"values": v}, base="gae", channel=channel)[0] for v in (spoilt, values)
            )
            torch.testing.assert_close(result, wanted)
            assert result[self.mask == 0].eq(0).all()

    def test_gae_with_a_value_that_is_not_a_number(self):
        values = torch.zeros(4, 3)
        values[3, 1] = math.nan
        with pytest.raises(TensorError, match="values of row 3, token 1 is nan"):
            self.estimate("egsw", more={"values": values}, base="gae")

    def test_what_verl_refuses_is_an_error_of_ours(self):
        one = torch.zeros_like(self.mask)
        one[0, 0] = 1
        with pytest.raises(TensorError, match="base gae refuses this batch"):
            self.estimate("egsw", mask=one, more={"values": torch.zeros(4, 3)}, base="gae")
        with pytest.raises(TensorError, match=r"base grpo_passk.*group 'c' has one"):
            self.estimate("egsw", index=["a", "a", "a", "c"], base="grpo_passk")

    @pytest.mark.parametrize("base", ["gpg", "grpo", "reinforce_plus_plus"])
    def test_a_mask_of_other_numbers(self, base):
        """verl multiplies by the mask, so that a 2 doubled advantages or returns."""
        for result, wanted in zip(
            self.estimate("egsw", mask=self.mask * -2, base=base), self.estimate("egsw", base=base), strict=True
        ):
            torch.testing.assert_close(result, wanted)

    def test_sums_of_half_precision_rewards(self):
        """The sum of 40000 and 40000 is an infinity in float16."""
        rewards = torch.full((4, 3), 4e4).half() * self.mask[0]
        assert self.estimate("egsw", rewards=rewards)[0].isfinite().all()

    @pytest.mark.parametrize("number", [math.nan, 1e30])
    def test_rewards_of_rows_that_a_base_compares(self, number):
        """A reward in a row without policy tokens still enters its group's mean; a square of 1e30 is an infinity."""
        rewards = self.rewards.clone()
        rewards[2, 0] = number
        with pytest.raises(TensorError, match="score of row 2"):
            self.estimate("egsw", rewards=rewards)
        assert self.estimate("gtpo", rewards=rewards)[0].isfinite().all()

    @pytest.mark.parametrize("bad", ["meta", "sparse", "float8", "nan"])
    def test_masks_that_cannot_be_read(self, bad):
        mask = self.mask.float()
        mask = {
            "meta": mask.to("meta"),
            "sparse": mask.to_sparse(),
            "float8": mask.to(torch.float8_e4m3fn),
            "nan": mask.masked_fill(self.mask == 0, math.nan),
        }[bad]
        with pytest.raises(TensorError, match="response_mask"):
            self.estimate("gtpo", mask=mask)

    def test_an_entropy_without_data(self):
        with pytest.raises(TensorError, match="entropy is on device meta"):
            get_adv_estimator_fn("gtpo")(self.rewards, self.mask, list("aabb"), {}, entropy=self.entropy.to("meta"))

    @pytest.mark.parametrize("info", [{"acc": 1.0}, ["acc"], {1: [], "b": []}, {"acc": [10**400] * 4}])
    def test_a_success_field_that_is_none(self, info):
        with pytest.raises(TensorError, match=r"acc|reward_extra_info"):
            self.estimate("gtpo", more={"reward_extra_info": info}, success="acc")

    def test_coefficients_whose_deviation_has_no_inverse(self):
        """1 / 1e-50 is an infinity in float32, and 0 times it a NaN."""
        with pytest.raises(OptionError, match="alpha1=1e-50: use 0, or a number"):
            self.estimate("gtpo", alpha1=1e-50, alpha2=0.0, eps=0.0)
        smallest = self.estimate("gtpo", alpha1=1e-15, alpha2=1e-15, eps=0.0, unmixed="keep")[0]
        torch.testing.assert_close(smallest, self.estimate("gtpo", alpha1=1.0, alpha2=1.0, eps=0.0, unmixed="keep")[0])

    @pytest.mark.parametrize("method,weight", [("gtpo", "alpha2"), ("grpo_s", "beta2")])
    def test_rewards_beyond_float32(self, method, weight):
        """One entropy of 20 nats among 15 of 0, relative to their geometric mean, weighs 1e29; times 1e15, infinity."""
        entropy = torch.tensor([[20.0]] + [[0.0]] * 15)
        rewards, mask = torch.ones(16, 1), torch.ones(16, 1, dtype=torch.int64)
        options = {"norm_set": "none", "mean": "geometric", "entropy_floor": 1e-30, "unmixed": "keep"}
        for value, refused in ((1e15, True), (1.0, False)):
            config = {method: {**options, weight: value}}
            if refused:
                with pytest.raises(TensorError, match=f"algorithm.{method}.norm_set=none"):
                    get_adv_estimator_fn(method)(rewards, mask, ["a"] * 16, config, entropy=entropy)
            else:
                result, _ = get_adv_estimator_fn(method)(rewards, mask, ["a"] * 16, config, entropy=entropy)
                assert result.isfinite().all()

    @pytest.mark.parametrize("config", ["gtpo", 3, [1], OmegaConf.create({"gtpo": "???"}), {"gtpo": [1]}])
    def test_configurations_that_are_none(self, config):
        """Text, or a number, has no attribute gtpo, and so gave the defaults."""
        with pytest.raises(OptionError, match="algorithm"):
            get_adv_estimator_fn("gtpo")(self.rewards, self.mask, list("aabb"), config, entropy=self.entropy)

    def test_an_interpolation_that_leads_nowhere(self):
        config = OmegaConf.create({"gtpo": {"threshold": "${nope}"}})
        with pytest.raises(OptionError, match=r"algorithm.gtpo.*nope"):
            get_adv_estimator_fn("gtpo")(self.rewards, self.mask, list("aabb"), config, entropy=self.entropy)

    @pytest.mark.parametrize("algorithm", [{"gamma": "a"}, {"lam": math.nan}, {"norm_adv_by_std_in_grpo": "false"}])
    def test_settings_of_verl_that_a_base_reads(self, algorithm):
        with pytest.raises(OptionError, match=f"algorithm.{next(iter(algorithm))}="):
            self.estimate("egsw", algorithm=algorithm)

    def test_options_of_types_that_unpack(self):
        for value in ({0.2: 1, 0.9: 2}, {0.2, 0.9}):
            with pytest.raises(OptionError, match="entropy_clip"):
                parse(GTPOOptions, {"entropy_clip": value}, "algorithm.gtpo")
        with pytest.raises(OptionError, match="use one of step, trajectory"):
            parse(EGSWOptions, {"granularity": np.array(["step", "step"])}, "algorithm.egsw")

    @pytest.mark.parametrize("aggregation", fuzz.AGGREGATIONS)
    @pytest.mark.parametrize("mode", ["gtpo", "grpo_s", "grpo_s_geometric"])
    def test_the_loss_of_a_micro_batch_without_policy_tokens(self, mode, aggregation):
        """verl divides by the number of tokens, or of responses, of the micro-batch."""
        log_prob = torch.zeros(2, 3, requires_grad=True)
        config = fuzz.ActorConfig(strategy="fsdp", rollout_n=1, use_dynamic_bsz=True)
        zeros = torch.zeros(2, 3)
        loss, _ = get_policy_loss_fn(mode)(zeros, log_prob, zeros + 1, zeros.bool(), aggregation, config)
        loss.backward()
        assert float(loss) == 0 and log_prob.grad.eq(0).all()

    def test_a_loss_of_tensors_that_do_not_fit(self):
        zeros = torch.zeros(2, 3)
        config = fuzz.ActorConfig(strategy="fsdp", rollout_n=1, use_dynamic_bsz=True)
        with pytest.raises(TensorError, match="have shapes"):
            get_policy_loss_fn("gtpo")(zeros, zeros, zeros[:, :1], zeros.bool(), "token-mean", config)
        with pytest.raises(OptionError, match="config=None"):
            get_policy_loss_fn("gtpo")(zeros, zeros, zeros, zeros.bool())
