"""Numbers at the very edge of a rule, worked by hand: what a mutation run would change and no other test would notice.

Maps to kernels/{selection,shaping,normalization,policy_loss,sessions}.py, verl_adapter/checks.py, the shares that
members round, and the defaults that stand in two places. mutants.md has what a mutation run found. Not exercised: a
trainer.
"""

import dataclasses
import inspect
import math

import pytest
import torch
from batches import applied, batch_of

from egsw_plugin import measure
from egsw_plugin.errors import TensorError, VaryingAdvantagesError
from egsw_plugin.kernels import egsw, grpo_s, gtpo
from egsw_plugin.kernels.normalization import Normalization, normalize
from egsw_plugin.kernels.policy_loss import sequence_ratio, token_mean
from egsw_plugin.kernels.rows import Rows
from egsw_plugin.kernels.selection import keep_batch, keep_sets, largest, number_kept
from egsw_plugin.kernels.sessions import Sessions
from egsw_plugin.kernels.shaping import Shaping, overlong_penalty
from egsw_plugin.methods.egsw import EGSWOptions
from egsw_plugin.methods.grpo_s import GRPOSOptions
from egsw_plugin.methods.gtpo import GTPOOptions
from egsw_plugin.methods.qae import quantiles
from egsw_plugin.report.estimates import LADDER
from egsw_plugin.verl_adapter import checks

yes, no = True, False


# ----------------------------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    "number,rho,ties,kept",
    [
        (0, 0.5, "keep", 0),
        (0, 1e-12, "keep", 0),
        (5, 0.0, "keep", 0),
        (1, 0.01, "keep", 1),  # the only value is every quantile
        (5, 1.0, "keep", 5),
        (21, 0.45, "keep", 10),  # the 0.55 quantile of 21 is the 12th, and 0.55 * 20 is 11.000000000000002
        (30, 0.1, "exact", 3),  # 0.1 * 30 is 3.0000000000000004
        (10, 0.31, "exact", 4),
        (10, 0.0, "exact", 0),
    ],
)
def test_how_many_tokens_are_kept(number, rho, ties, kept):
    assert number_kept(number, rho, ties) == kept


def test_largest_of_nothing_of_none_and_of_all():
    values = torch.tensor([2.0, 1.0])
    assert largest(values[:0], 1).tolist() == []
    assert [largest(values, number).tolist() for number in (0, 1, 2, 3)] == [
        [no, no],
        [yes, no],
        [yes, yes],
        [yes, yes],
    ]


def test_sets_of_one_token_and_sets_of_which_none_is_kept():
    values, ids = torch.tensor([0.5, 0.2, 0.9]), torch.tensor([0, 1, 1])
    assert keep_sets(values, ids, 0.5, "keep").tolist() == [yes, no, yes]
    assert keep_sets(values, ids, 0.0, "keep").tolist() == [no, no, no]
    assert keep_sets(values, ids, 0.0, "exact").tolist() == [no, no, no]


def test_a_batch_of_which_none_is_kept():
    for ties in ("keep", "exact"):
        assert keep_batch(torch.tensor([2.0, 1.0]), 0.0, ties).tolist() == [no, no]
        assert keep_batch(torch.tensor([]), 0.5, ties).tolist() == []


def one_row(tokens, power=1):
    """A = 1, 2, 3, ... to a power; each token is less likely than the one before it."""
    steps = torch.arange(1, tokens + 1, dtype=torch.float32).unsqueeze(0)
    mask, ids, one = torch.ones(1, tokens), torch.zeros(1, dtype=torch.int64), torch.ones(1)
    return batch_of(steps**power, mask, ids, one > 0, one, old_log_probs=-steps / 100)


def test_shares_of_tokens_that_are_whole_numbers_are_not_rounded_away():
    """0.07 * 100 is 7.000000000000001, and 0.29 * 100 is 28.999999999999996."""
    stare = applied("stare", one_row(100), P=0.07, target=None).metrics
    assert stare["stare/chosen/mean"] == pytest.approx(0.07)
    row = one_row(100, power=2)  # the other way round, so that most covariances are above 0
    kl_cov = applied("batch_kl_cov", dataclasses.replace(row, base=-row.base), k=0.29).metrics
    assert kl_cov["batch_kl_cov/chosen/mean"] == pytest.approx(0.29)
    clip_cov = applied("batch_clip_cov", one_row(100), ratio=0.29, low=-1e9, high=1e9).metrics
    assert clip_cov["batch_clip_cov/chosen/mean"] == pytest.approx(0.29)


def test_the_bounds_of_a_covariance_belong_to_the_range():
    """A = 1, 2, 3 and l = -0.01, -0.02, -0.03: the covariances are -0.01, 0 and -0.01."""
    batch = one_row(3)
    candidates = "batch_clip_cov/candidates/mean"
    assert applied("batch_clip_cov", batch, low=0.0, high=0.0).metrics[candidates] == pytest.approx(1 / 3)
    assert applied("batch_clip_cov", batch, low=-1.0, high=0.0).metrics[candidates] == 1
    assert applied("batch_clip_cov", batch, low=-1.0, high=-0.001).metrics[candidates] == pytest.approx(2 / 3)


def test_a_quantile_that_is_a_response_itself():
    rewards, ids = torch.arange(100).double(), torch.zeros(100, dtype=torch.int64)
    assert quantiles(rewards, ids, 0.07, "lower").tolist() == [6.0]  # 7 of 100 are at most 6
    assert quantiles(rewards[:1] + 3, ids[:1], 0.07, "lower").tolist() == [3.0]
    assert quantiles(rewards[:5], ids[:5], 0.5, "linear").tolist() == [2.0]


# ------------------------------------------------------------------------------------------------- shaping and the loss


def penalties(lengths, success, gamma1):
    ids, everybody = torch.zeros(len(lengths), dtype=torch.int64), torch.ones(len(lengths), dtype=torch.bool)
    return overlong_penalty(torch.tensor(lengths), torch.tensor(success), ids, everybody, gamma1).tolist()


def test_the_length_penalty_of_short_responses():
    """Three successes: L = max((1 + 2) / 2, 4 / 3) = 1.5, and the third is half a token too long: -0.5 / 3."""
    assert penalties([1, 1, 2], [yes, yes, yes], 0.75) == pytest.approx([0, 0, -1 / 6])


def test_the_length_penalty_where_neither_side_is_easy():
    """The majority is compared, with L over all; of half and half the failures.

    L = max((2 + 10) / 2, 24 / 4) = 6, and 10 is 4 too long: -4 / 12. L = max((2 + 8) / 2, 14 / 3) = 5: -3 / 10.
    """
    assert penalties([2, 8, 4, 10], [yes, yes, no, no], 0.75) == pytest.approx([0, 0, 0, -1 / 3])
    assert penalties([2, 8, 4], [yes, yes, no], 0.75) == pytest.approx([0, -0.3, 0])


def test_an_entropy_at_the_floor_is_not_above_it():
    """Floor 0.5. H = 0.5 and 0.25: nobody is above it, and w is 1. H = 0.75 and 0.25: w is 1.5 and 0.5."""
    rows, ids = Rows.measure(torch.ones(3, 1)), torch.zeros(3, dtype=torch.int64)
    success, plain = torch.tensor([yes, yes, no]), Normalization(norm_set="none")
    for high, wanted in ((0.5, [1.1, 1.1, -1.1]), (0.75, [1.15, 1.05, -1.1])):
        entropy = torch.tensor([[high], [0.25], [1.0]])
        for method in (gtpo.gtpo, grpo_s.grpo_s):
            values = method(entropy, rows, ids, success, Shaping(floor=0.5), plain).values
            assert values.squeeze(1).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("apart,changed", [(1.5e-6, 1), (0.5e-6, 0)])
def test_how_far_from_1_a_weight_is_another(apart, changed):
    """Two entropies 1 + x and 1 - x: GTPO's weights are those. EGSW's are 2 / (1 + exp(-+2x)), which is 1 +- x."""
    rows, ids = Rows.measure(torch.ones(3, 1)), torch.tensor([0, 0, 0])
    entropy = torch.tensor([[1 + apart], [1 - apart], [1.0]], dtype=torch.float64)
    success = torch.tensor([yes, yes, no])
    shaped = gtpo.gtpo(entropy, rows, ids, success, Shaping(), Normalization(norm_set="none"))
    assert shaped.tally.changed.tolist() == [changed, changed, 0]
    level, pair = torch.ones(2, 1, dtype=torch.float64), Rows.measure(torch.ones(2, 1))
    weighed = egsw.egsw(level, entropy[:2], pair, ids[:2], alpha=1.0, temperature=1.0)
    assert weighed.tally.changed.tolist() == [changed, changed]
    batch = batch_of(level, torch.ones(2, 1), ids[:2], success[:2], torch.ones(2)).over(level)
    assert measure.effect(batch, level * (1 + apart))["changed/mean"] == changed


def test_a_deviation_is_small_beside_the_largest_level_that_takes_part_or_not():
    """Levels 0.1 + 0.2 and 0.3 differ by rounding; the third row is left out, and its level counts as 0."""
    level, one = torch.tensor([0.1 + 0.2, 0.3, 5.0], dtype=torch.float64), torch.ones(3)
    taking_part, ids = torch.tensor([yes, yes, no]), torch.zeros(3, dtype=torch.int64)
    plain = Normalization("own_set", eps=0.0)
    scale, offset = normalize(plain, level, one, one * 0, one * 0, taking_part | yes, ids, taking_part)
    assert scale.tolist() == offset.tolist() == [0, 0, 0]


@pytest.mark.parametrize("low,high,wanted", [(100, 100 + 3e-10, 1), (100, 100 + 1e-10, 0), (0, 0, 0)])
def test_from_which_deviation_on_levels_differ(low, high, wanted):
    """A billionth of a thousandth of the level: of 100 and 100 + 3e-10 it is 1.5e-10; 0.5e-10 is rounding."""
    level, one = torch.tensor([low, high], dtype=torch.float64), torch.ones(2)
    ids, both = torch.zeros(2, dtype=torch.int64), torch.tensor([yes, yes])
    scale, offset = normalize(Normalization("own_set", eps=0.0), level, one, one * 0, one * 0, both, ids, both)
    assert offset.tolist() == pytest.approx([-wanted, wanted], abs=1e-3)
    assert wanted or scale.tolist() == [0, 0]


def test_entries_that_are_equal_have_no_deviation_whatever_their_squares_round_to():
    """Three entries of 0.9 each at a level of 1: the sum of their squared deviations comes out as -4e-16."""
    entry, three = torch.tensor([0.1, 0.2, 0.9], dtype=torch.float64), torch.full((3,), 3)
    all_take_part, plain = torch.ones(3, dtype=torch.bool), Normalization("own_set", eps=0.0)
    sums = (three, 3 * entry, 3 * (entry * entry))
    scale, offset = normalize(plain, entry * 0 + 1, *sums, all_take_part, torch.arange(3), all_take_part)
    assert scale.tolist() == offset.tolist() == [0, 0, 0]


@pytest.mark.parametrize("norm_set", ["all_with_zeros", "own_set", "joint", "none"])
def test_a_batch_without_rows_is_normalized(norm_set):
    no_rows, no_ids, nobody = torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    scale, offset = normalize(Normalization(norm_set), *[no_rows] * 4, nobody, no_ids, nobody)
    assert scale.shape == offset.shape == (0,)


def test_means_over_one_token_and_over_none():
    mask = torch.tensor([[yes, no], [no, no]])
    assert token_mean(torch.tensor([[3.0, 7.0], [5.0, 9.0]]), mask) == 3
    assert token_mean(torch.ones(2, 2), mask & no) == 0
    log_ratio = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).log().clamp(min=0)
    for mean in ("arithmetic", "geometric"):
        assert sequence_ratio(log_ratio, mask, mean)[0].tolist() == pytest.approx([2.0])


# ------------------------------------------------------------------------------------------------------------ sessions


def test_a_session_whose_last_output_has_no_policy_token():
    """Its one number is 0; what stands in rows without a policy token is nobody's, and does not vary."""
    rows = Rows.measure(torch.tensor([[1, 0], [0, 0], [1, 1]]))
    sessions = Sessions.of(["a", "a", "b"], [0, 1, 0], rows)
    assert sessions.spread(torch.tensor([[5.0, 6.0], [2.0, 2.0]])).tolist() == [[0, 0], [0, 0], [2, 2]]
    with pytest.raises(VaryingAdvantagesError):
        sessions.spread(torch.tensor([[5.0, 5.0], [2.0, 3.0]]))


def test_sessions_are_taken_apart_where_they_were_joined():
    """Outputs 0 and 1 of a bring 2 and 1 tokens, a hole included; the tokens after a row's last one are left out."""
    rows = Rows.measure(torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 1]]))
    sessions = Sessions.of(["a", "a", "b"], [1, 0, 7], rows)
    joined = sessions.join(torch.tensor([[1.0, 9, 9], [2, 3, 9], [4, 5, 6]]))
    assert joined.tolist() == [[2, 3, 1], [4, 5, 6]]
    assert sessions.split(joined).tolist() == [[1, 0, 0], [2, 3, 0], [4, 5, 6]]
    none = Sessions.of([], [], Rows.measure(torch.ones(0, 2)))
    assert none.join(torch.ones(0, 2)).shape == (0, 0) and none.split(torch.ones(0, 0)).shape == (0, 2)


# ------------------------------------------------------------------------------------------------------ what is refused


MASK = torch.tensor([[1, 0]])


@pytest.mark.parametrize(
    "dtype,inside,outside",
    [
        (torch.float64, 0.9e-3, 1.1e-3),
        (torch.float32, 0.9e-2, 1.1e-2),
        (torch.float16, 0.045, 0.055),
        (torch.bfloat16, 0.24, 0.27),
    ],
)
def test_how_far_an_entropy_may_be_outside(dtype, inside, outside):
    """At both ends, and only at policy tokens; log(1) = 0 is the greatest entropy over one word."""
    for value in (inside, -inside):
        checks.entropy(torch.tensor([[value, -9.0]], dtype=dtype), MASK, 1)
    for value in (outside, -outside):
        with pytest.raises(TensorError, match=r"row 0, token 0 .*\(1 such tokens\)"):
            checks.entropy(torch.tensor([[value, -9.0]], dtype=dtype), MASK, 1)
    checks.entropy(torch.tensor([[outside, 0.0]], dtype=dtype), MASK, None)
    checks.log_probs("old", torch.tensor([[inside, 9.0]], dtype=dtype), MASK)
    with pytest.raises(TensorError, match="old of row 0, token 0"):
        checks.log_probs("old", torch.tensor([[outside, 9.0]], dtype=dtype), MASK)


def test_the_largest_reward():
    which = torch.tensor([True, False])
    checks.scores("rewards", torch.tensor([1e15, math.nan]), which)
    checks.within("rewards", torch.tensor([[-1e15, math.inf]]), MASK)
    for value in (1.01e15, -1.01e15, math.nan):
        with pytest.raises(TensorError, match="score of row 0"):
            checks.scores("rewards", torch.tensor([value, 0.0]), which)
        with pytest.raises(TensorError, match="row 0, token 0"):
            checks.within("rewards", torch.tensor([[value, 0.0]]), MASK)


def test_a_field_counts_where_a_row_has_policy_tokens():
    rows = Rows.measure(torch.tensor([[1], [0]]))
    assert checks.success_field("algorithm.gtpo.success", "acc", {"acc": [1, None]}, rows)[0] == 1
    with pytest.raises(TensorError, match="in row 0 it is None"):
        checks.success_field("algorithm.gtpo.success", "acc", {"acc": [None, 1]}, rows)
    # verl's rate_limited reward manager; an assertion without words is an error of no text.
    for other in ({"timeout": [True, None]}, {"error": ["", None]}, {"acc": [None, None], "error": ["out", "out"]}):
        assert checks.success_field("algorithm.gtpo.success", "acc", {"acc": [None, 1]} | other, rows)[0] < 0
    assert checks.success_field("algorithm.gtpo.success", "acc", {"timeout": [True, None]}, rows)[0] < 0
    for other in ({"timeout": [None, True]}, {"timeout": [False, None]}, {"error": []}, {"error": [None, "out"]}):
        with pytest.raises(TensorError, match="in row 0 it is None"):
            checks.success_field("algorithm.gtpo.success", "acc", {"acc": [None, 1]} | other, rows)
    for entries in ([1], [1, 1, 1]):
        with pytest.raises(TensorError, match=f"has {len(entries)} entries for 2 rows"):
            checks.success_field("algorithm.gtpo.success", "acc", {"acc": entries}, rows)


# ---------------------------------------------------------------------------------------- numbers that stand twice


def test_defaults_of_kernels_are_those_of_the_options():
    """A kernel that is called by hand does what a configuration without options does."""
    own = {name: one.default for name, one in inspect.signature(egsw.egsw).parameters.items()}
    options = dataclasses.asdict(EGSWOptions())
    shared = own.keys() & options.keys() - {"alpha", "temperature", "entropy"}
    assert len(shared) == 4 and all(own[name] == options[name] for name in shared)
    for kernel, options in ((gtpo.gtpo, GTPOOptions()), (grpo_s.grpo_s, GRPOSOptions())):
        own = inspect.signature(kernel).parameters
        assert all(own[name].default == getattr(options, name) for name in ("entropy_scope", "norm_scope", "unmixed"))
        assert Normalization() == Normalization(options.norm_set, options.std, options.eps)
        coefficients = [value for name, value in vars(options).items() if name[:-1] in ("alpha", "beta")]
        rest = (options.failure, options.mean, options.entropy_floor, options.entropy_clip)
        assert Shaping() == Shaping(*coefficients, *rest)
    assert LADDER == (1, 4, 8, 16, 32)  # the k that the papers' tables have, and the powers of two between
