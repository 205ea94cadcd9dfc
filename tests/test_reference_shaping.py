"""GTPO and GRPO-S by hand: the kernels, compiled and in torch, and the plain loops that other tests compare them with.

That both are equal says nothing of what both misread. Maps to kernels/{gtpo,grpo_s,shaping,normalization}.py and
`reference_shaping.py`. A whole example, and what the definitions promise of any batch, are in test_shaped.py.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import reference_shaping
import torch
from batches import applied, batch_of
from reference_shaping import policy_tokens, token_objective_loss

from egsw_plugin.kernels import compiled
from egsw_plugin.kernels.groups import dense_group_ids
from egsw_plugin.kernels.policy_loss import clipped_surrogate

NAN = math.nan
ENTROPY = [[0.9, 1.8, 0.3, 0.6], [0.1, 0.6, NAN, NAN], [0.5, 0.2, 1.0, NAN]]
MASK = [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
INDEX = ["a", "a", "a"]
SUCCESS = [True, True, False]
EXAMPLE = (ENTROPY, MASK, INDEX, SUCCESS)


def near(value):
    """The tolerance of the six printed decimals, and of float32."""
    return pytest.approx(value, abs=1e-6, rel=1e-6)


def kernel(name, entropy, mask, index, success, overlong=False, gamma1=0.75, **options):
    """The package's advantages, [R, T], called as the loops are."""
    won = torch.tensor(success)
    uids = dense_group_ids(np.array(index, dtype=object))
    batch = batch_of(None, torch.tensor(mask), uids, won, won.float(), entropy=torch.tensor(entropy).double())
    return applied(name, batch, overlong={"enable": overlong, "gamma1": gamma1}, **options).advantages


def kernel_gtpo(entropy, mask, *others, **options):
    result = kernel("gtpo", entropy, mask, *others, **options)
    return {(row, c): float(result[row, c]) for row, columns in enumerate(policy_tokens(mask)) for c in columns}


def kernel_grpo_s(entropy, mask, *others, **options):
    result = kernel("grpo_s", entropy, mask, *others, **options)
    return [float(result[row, columns[0]]) if columns else 0.0 for row, columns in enumerate(policy_tokens(mask))]


KERNELS = SimpleNamespace(
    gtpo=kernel_gtpo,
    grpo_s=kernel_grpo_s,
    gtpo_shaped=lambda *batch, **options: kernel_gtpo(*batch, norm_set="none", **options),
    grpo_s_shaped=lambda *batch, **options: dict(enumerate(kernel_grpo_s(*batch, norm_set="none", **options))),
)


@pytest.fixture(params=["loop", "compiled", "torch"])
def of(request, monkeypatch):
    """Functions gtpo and grpo_s; gtpo_shaped and grpo_s_shaped, before normalisation, of groups that count."""
    if request.param == "torch":
        monkeypatch.setattr(compiled, "loops_for", lambda tensor: None)
    return reference_shaping if request.param == "loop" else KERNELS


def rows_of(tokens, mask):
    """A dictionary keyed (row, column) as one list a row, policy tokens only."""
    return [[tokens[row, column] for column in columns] for row, columns in enumerate(policy_tokens(mask))]


def test_clip_has_no_dual_clip():
    ratios, advantages, wanted = [9.0, 9.0, 0.5, 0.5], [1.0, -1.0, 1.0, -1.0], [-1.28, 9.0, -0.5, 0.8]
    losses, _ = clipped_surrogate(torch.tensor([ratios]), torch.tensor([advantages]), 0.2, 0.28)
    assert losses[0].tolist() == near(wanted)
    by_loop = token_objective_loss([list(map(math.log, ratios))], [[0.0] * 4], [advantages], [[1] * 4], 0.2, 0.28)
    assert list(by_loop.values()) == near(wanted)


def test_alpha2_zero_is_grpo_with_a_token_baseline(of):
    # 6 of 9 tokens are right: mean 2/3, std sqrt(2)/3, so sqrt(1/2) and -sqrt(2).
    advantages = of.gtpo(*EXAMPLE, alpha2=0, eps=0)
    for (row, _), a in advantages.items():
        assert a == near(0.5**0.5 if SUCCESS[row] else -(2**0.5))
    # 4 + 1 right tokens of 8: mean 5/8, std sqrt(15)/8.
    mask = [[1, 1, 0, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 0, 0]]
    advantages = of.gtpo([[0.3] * 5] * 3, mask, [0, 0, 0], [True, False, True], alpha2=0, eps=0)
    for (row, _), a in advantages.items():
        assert a == near((-5 if row == 1 else 3) / 15**0.5)


def test_alpha2_zero_scopes(of):
    # group 0: 1 right token of 4; group 1: 3 of 4; the batch: 4 of 8.
    mask = [[1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0]]
    args = ([[0.5] * 3] * 4, mask, [0, 0, 1, 1], [True, False, True, False])
    batch = of.gtpo(*args, alpha2=0, eps=0)
    assert [batch[row, 0] for row in range(4)] == near([1, -1, 1, -1])
    group = of.gtpo(*args, alpha2=0, eps=0, norm_scope="group")
    root = 3**0.5
    assert [group[row, 0] for row in range(4)] == near([root, -1 / root, 1 / root, -root])


def test_padding_rows_and_holes_change_nothing(of):
    entropy = [
        [NAN, 0.9, 1.8, NAN, 0.3, 0.6],
        [NAN] * 6,
        [0.1, NAN, NAN, 0.6, NAN, NAN],
        [0.5, 0.2, 1.0, NAN, NAN, NAN],
    ]
    mask = [[0, 1, 1, 0, 1, 1], [0] * 6, [1, 0, 0, 1, 0, 0], [1, 1, 1, 0, 0, 0]]
    success = [True, False, True, False]
    for options in ({}, {"overlong": True, "gamma1": 0.6}, {"mean": "geometric"}, {"std": "sample"}):
        ours = rows_of(of.gtpo(entropy, mask, ["a"] * 4, success, **options), mask)
        plain = rows_of(of.gtpo(*EXAMPLE, **options), MASK)
        assert [near(row) for row in plain] == [ours[0], ours[2], ours[3]] and ours[1] == []
        rows = of.grpo_s(entropy, mask, ["a"] * 4, success, **options)
        assert [rows[0], rows[2], rows[3]] == near(of.grpo_s(*EXAMPLE, **options)) and rows[1] == 0.0


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_unmixed_group_is_dropped(of, scope):
    args = (
        [*ENTROPY, *[[2.0, 0.7, 0.1, 0.2]] * 2],
        [*MASK, [1, 1, 1, 1], [1, 0, 0, 0]],
        [*INDEX, "b", "b"],
        [*SUCCESS, True, True],
    )
    advantages = of.gtpo(*args, entropy_scope=scope)
    assert {k: a for k, a in advantages.items() if k[0] < 3} == near(of.gtpo(*EXAMPLE))
    assert [a for k, a in advantages.items() if k[0] >= 3] == [0.0] * 5
    assert of.grpo_s(*args, entropy_scope=scope, norm_scope="batch") == near([*of.grpo_s(*EXAMPLE), 0.0, 0.0])
    kept = of.grpo_s(*args, unmixed="keep", eps=0)
    assert kept[:3] == near(of.grpo_s(*EXAMPLE, eps=0))
    assert kept[3:] == near([-1, 1])  # R+ of a group without failures has no zeros
    assert of.gtpo(*args, unmixed="keep")[0, 0] != near(advantages[0, 0])


def test_norm_sets(of):
    # r = 1.144 1.056 -1.1
    own = of.grpo_s(*EXAMPLE, norm_set="own_set", eps=0)
    assert own == near([1, -1, 0])
    assert of.grpo_s(*EXAMPLE, norm_set="none") == near([1.144, 1.056, -1.1])
    joint = of.grpo_s(*EXAMPLE, norm_set="joint", eps=0)
    centre = 1.1 / 3
    scale = math.sqrt((1.144**2 + 1.056**2 + 1.1**2) / 3 - centre**2)
    assert joint == near([(r - centre) / scale for r in (1.144, 1.056, -1.1)])
    tokens = of.gtpo(*EXAMPLE, norm_set="own_set")
    assert math.fsum(a for (row, _), a in tokens.items() if row < 2) == near(0)
    sample = of.grpo_s(*EXAMPLE, eps=0, std="sample")
    assert sample == near([a * (2 / 3) ** 0.5 for a in of.grpo_s(*EXAMPLE, eps=0)])
    assert of.grpo_s(*EXAMPLE, norm_set="own_set", std="sample", eps=0)[2] == 0.0


def test_failure_forms(of):
    assert [r for (row, _), r in of.gtpo_shaped(*EXAMPLE, failure="zero").items() if row == 2] == [0.0] * 3
    advantages = of.gtpo(*EXAMPLE, failure="zero", eps=0)
    assert advantages[0, 0] == near(0.858234)
    # r+ = 1.18 1.15 1.10 1.10 1.02 1.05 0 0 0: mean 6.6 / 9
    scale = math.sqrt((1.18**2 + 1.15**2 + 2 * 1.1**2 + 1.02**2 + 1.05**2) / 9 - (6.6 / 9) ** 2)
    assert advantages[2, 0] == near(-6.6 / 9 / scale)
    for norm_set in ("own_set", "joint"):
        assert of.gtpo(*EXAMPLE, failure="zero", norm_set=norm_set, eps=0) == near(advantages)
    raw = of.gtpo(*EXAMPLE, failure="zero", norm_set="none")
    assert raw[0, 0] == near(1.18) and raw[2, 0] == 0.0
    # two failures with H .5 and 1: 1/H = 2 and 1, so shares 4/3 and 2/3
    args = ([[0.5], [1.0], [2.0]], [[1]] * 3, [0] * 3, [False, False, True])
    assert list(of.gtpo_shaped(*args, failure="unbased").values()) == near([-4 / 3, -2 / 3, 1.1])
    assert list(of.gtpo_shaped(*args).values()) == near([-1 - 4 / 30, -1 - 2 / 30, 1.1])


def test_geometric_mean(of):
    args = ([[0.5], [2.0], [4.0], [1.0]], [[1]] * 4, [0] * 4, [True, True, False, False])
    for function in (of.gtpo_shaped, of.grpo_s_shaped):  # means 1 and 2
        shaped = list(function(*args, mean="geometric").values())
        assert shaped == near([1.05, 1.2, -1.05, -1.2])


def test_entropy_floor_and_clip(of):
    mask, index, success = [[1]] * 4, [0] * 4, [True, True, False, False]
    both = [[0.0], [-1e-9], [0.0], [1e-7]]
    for function in (of.gtpo_shaped, of.grpo_s_shaped):
        assert list(function(both, mask, index, success).values()) == near([1.1, 1.1, -1.1, -1.1])
        # 1/H is 1/.1 and 1/.4 after the floor: shares 1.6 and .4; a success's H stays 0
        mixed = [[0.0], [0.3], [0.0], [0.4]]
        shaped = list(function(mixed, mask, index, success, entropy_floor=0.1).values())
        assert shaped == near([1.0, 1.2, -1.16, -1.04])
        # floored at .1: geometric mean .2 of .1 and .4
        mixed = [[0.0], [0.4], [0.0], [0.4]]
        shaped = list(function(mixed, mask, index, success, entropy_floor=0.1, mean="geometric").values())
        assert shaped == near([1.05, 1.2, -1.2, -1.05])
        clamped = list(function([[0.0], [9.0], [1.0], [1.0]], mask, index, success, entropy_clip=[1, 3]).values())
        assert clamped == near([1.05, 1.15, -1.1, -1.1])
        # a negative entropy counts as 0
        negative = list(function([[-0.2], [0.3], [-0.2], [0.4]], mask, index, success, entropy_floor=0.1).values())
        assert negative == near([1.0, 1.2, -1.16, -1.04])
    # GRPO-S floors the mean of a row, not its tokens: means .1 and .4
    args = ([[0.0, 0.2], [0.4, 0.4], [1.0, 1.0]], [[1, 1]] * 3, [0] * 3, [False, False, True])
    assert list(of.grpo_s_shaped(*args, entropy_floor=0.1).values())[:2] == near([-1.16, -1.04])


def lengths_batch(right, wrong):
    """One group with equal entropies and the given response lengths."""
    lengths = [*right, *wrong]
    width = max(lengths)
    mask = [[int(t < length) for t in range(width)] for length in lengths]
    return [[0.5] * width] * len(lengths), mask, [0] * len(lengths), [True] * len(right) + [False] * len(wrong)


GROP = {
    # acc 4/5; L = max((1+6)/2, 11/4) = 3.5 over the right ones
    "easy": ([1, 2, 2, 6], [9], [0, 0, 0, -2.5 / 7, 0]),
    # acc 4/5; L = max((1+9)/2, 28/4) = 7: the mean is the larger; the wrong one is not measured
    "easy, mean": ([1, 9, 9, 9], [20], [0, -2 / 14, -2 / 14, -2 / 14, 0]),
    # acc 1/4
    "hard": ([9], [1, 1, 20], [0, 0, 0, 0]),
    # acc 3/5; L = max((1+10)/2, 17/5) = 5.5 over all, on the right ones
    "otherwise, more right": ([1, 2, 10], [2, 2], [0, 0, -4.5 / 11, 0, 0]),
    # acc 1/2, n = m: on the wrong ones; L = max((2+8)/2, 20/4) = 5
    "otherwise, tie": ([8, 5], [5, 2], [0, 0, 0, 0]),
    # the same, and the long one is wrong
    "otherwise, tie, long wrong": ([2], [8], [0, -3 / 10]),
    # acc 2/5; L = max((2+12)/2, 22/5) = 7
    "otherwise, more wrong": ([2, 12], [4, 2, 2], [0, 0, 0, 0, 0]),
    # the same lengths with the long one wrong
    "otherwise, long wrong": ([2, 2], [4, 12, 2], [0, 0, 0, -5 / 14, 0]),
}


@pytest.mark.parametrize("case", GROP)
def test_grop(of, case):
    right, wrong, penalties = GROP[case]
    args = lengths_batch(right, wrong)
    expected = [(1.1 if won else -1.1) + penalty for won, penalty in zip(args[3], penalties, strict=True)]
    assert list(of.grpo_s_shaped(*args, overlong=True).values()) == near(expected)
    for (row, _), r in of.gtpo_shaped(*args, overlong=True).items():
        assert r == near(expected[row])


def test_grop_long_tail_and_thresholds(of):
    # L = max((1+19)/2, 27/9) = 10; every length measured is below 2L, so -1/2 is approached and never reached
    args = lengths_batch([1] * 8 + [19], [1])
    assert of.grpo_s_shaped(*args, overlong=True)[8] == near(1.1 - 9 / 20)
    # acc exactly gamma1 is easy, exactly 1 - gamma1 is hard, whatever .8 rounds to
    easy = lengths_batch([1, 1, 1, 5], [1])
    assert of.grpo_s_shaped(*easy, overlong=True, gamma1=0.8)[3] == near(1.1 - 2 / 6)
    hard = lengths_batch([1], [1, 1, 1, 5])
    assert of.grpo_s_shaped(*hard, overlong=True, gamma1=0.8)[4] == near(-1.1)
    assert of.grpo_s_shaped(*hard, overlong=True, gamma1=0.9)[4] == near(-1.1 - 2 / 6)


def test_grop_counts_only_policy_tokens_and_enters_the_statistics(of):
    # lengths 1, 3 (with a hole), 1 of the right ones: L = 2, penalty -1/4
    mask = [[1, 0, 0, 0], [1, 0, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]]
    args = ([[0.5] * 4] * 4, mask, [0] * 4, [True, True, True, False])
    assert of.grpo_s_shaped(*args, overlong=True)[1] == near(0.85)
    centre = (1.1 + 0.85 + 1.1) / 4
    scale = math.sqrt((2 * 1.1**2 + 0.85**2) / 4 - centre**2)
    advantages = of.grpo_s(*args, overlong=True, eps=0)
    assert advantages[:3] == near([(r - centre) / scale for r in (1.1, 0.85, 1.1)])
    assert advantages[3] == near(-(3**0.5))


def test_nothing_to_normalize(of):
    assert of.gtpo([[0.5]], [[0]], [0], [True]) == {}
    assert of.grpo_s([[0.5], [0.5]], [[0], [1]], [0, 0], [True, False]) == [0.0, 0.0]
    assert of.grpo_s([[0.5]] * 2, [[1]] * 2, [0, 0], [True] * 2, unmixed="keep", eps=0) == [0.0, 0.0]
    assert of.gtpo([[0.5]] * 2, [[1]] * 2, [0, 0], [False] * 2, unmixed="keep", eps=0) == {(0, 0): 0.0, (1, 0): 0.0}
    assert of.grpo_s([[0.5]], [[1]], [0], [True], unmixed="keep", std="sample", eps=0) == [0.0]
