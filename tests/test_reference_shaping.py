"""The plain-Python GTPO and GRPO-S against worked numbers and the method's propositions."""

import math
import random

import pytest
from reference_shaping import (
    aggregate,
    grpo_s,
    grpo_s_shaped,
    gtpo,
    gtpo_shaped,
    policy_tokens,
    sequence_objective_loss,
    token_objective_loss,
)

NAN = math.nan
ENTROPY = [[0.9, 1.8, 0.3, 0.6], [0.1, 0.6, NAN, NAN], [0.5, 0.2, 1.0, NAN]]
MASK = [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
LOG_RATIO = [[0.05, -0.10, 0.30, 0.0], [-0.30, 0.02, NAN, NAN], [0.40, -0.25, 0.01, NAN]]
OLD = [[-1.0] * 4 for _ in range(3)]
NEW = [[-1.0 + value for value in row] for row in LOG_RATIO]
INDEX = ["a", "a", "a"]
SUCCESS = [True, True, False]
EXAMPLE = (ENTROPY, MASK, INDEX, SUCCESS)


def near(value):
    """The tolerance of the six printed decimals."""
    return pytest.approx(value, abs=1e-6, rel=0)


def rows_of(tokens, mask):
    """A dictionary keyed (row, column) as one list a row, policy tokens only."""
    return [[tokens[row, column] for column in columns] for row, columns in enumerate(policy_tokens(mask))]


def random_batch(seed, groups=3, size=6, width=7, mixed=True):
    """A batch with holes in the mask, rows without policy tokens and shuffled groups."""
    draw = random.Random(seed)
    rows = [(group, k) for group in range(groups) for k in range(size)]
    draw.shuffle(rows)
    mask, entropy, success = [], [], []
    for _, k in rows:
        length = draw.randint(1, width)
        bits = [int(t < length and draw.random() < 0.8) for t in range(width)]
        if k < 2:
            bits[0] = 1
        if k == 2:
            bits = [0] * width
        mask.append(bits)
        entropy.append([draw.uniform(0.01, 3) if bit else NAN for bit in bits])
        success.append(k == 0 or (k != 1 and draw.random() < 0.5) if mixed else True)
    return entropy, mask, [group for group, _ in rows], success


def columns_of(mask, index, success, scope="group"):
    """Tokens of each (scope, success, t)."""
    columns = {}
    for row, places in enumerate(policy_tokens(mask)):
        for t, column in enumerate(places):
            key = ("everyone" if scope == "batch" else index[row], success[row], t)
            columns.setdefault(key, []).append((row, column))
    return columns


def test_worked_gtpo():
    shaped = gtpo_shaped(*EXAMPLE)
    assert rows_of(shaped, MASK) == [near([1.18, 1.15, 1.10, 1.10]), near([1.02, 1.05]), near([-1.1] * 3)]
    advantages = gtpo(*EXAMPLE, eps=0)
    assert rows_of(advantages, MASK) == [
        near([0.858234, 0.800592, 0.704521, 0.704521]),
        near([0.550807, 0.608450]),
        near([-1.414214] * 3),
    ]
    assert (1.18 - 0.733333) / advantages[0, 0] == near(0.520449)
    losses = token_objective_loss(NEW, OLD, advantages, MASK, 0.2, 0.28)
    assert -aggregate(losses, MASK, "token-mean") == near(-0.045313)


def test_worked_grpo_s():
    assert list(grpo_s_shaped(*EXAMPLE).values()) == near([1.144, 1.056, -1.1])
    advantages = grpo_s(*EXAMPLE, eps=0)
    assert advantages == near([0.790066, 0.620766, -1.414214])
    spread = [[level] * 4 for level in advantages]
    for ratio, objective in (("arithmetic", -0.049812), ("geometric", -0.036999)):
        losses = sequence_objective_loss(NEW, OLD, spread, MASK, 0.2, 0.28, ratio=ratio)
        assert -aggregate(losses, MASK, "seq-mean-token-mean") == near(objective)


def test_worked_grpo_objective():
    spread = {(r, c): (0.5**0.5 if r < 2 else -(2**0.5)) for r in range(3) for c in policy_tokens(MASK)[r]}
    assert -aggregate(token_objective_loss(NEW, OLD, spread, MASK, 0.2, 0.28), MASK, "token-mean") == near(-0.047661)


def test_aggregate_modes():
    losses = {(0, 0): 1.0, (0, 2): 2.0, (2, 1): 6.0}
    mask = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert aggregate(losses, mask, "token-mean") == 3.0
    assert aggregate(losses, mask, "seq-mean-token-sum") == 4.5
    assert aggregate(losses, mask, "seq-mean-token-mean") == 3.75
    assert aggregate({}, [[0]], "token-mean") == 0.0


def test_clip_has_no_dual_clip():
    mask = [[1, 1, 1, 1]]
    new = [[math.log(w) for w in (9.0, 9.0, 0.5, 0.5)]]
    losses = token_objective_loss(new, [[0.0] * 4], [[1.0, -1.0, 1.0, -1.0]], mask, 0.2, 0.28)
    assert list(losses.values()) == pytest.approx([-1.28, 9.0, -0.5, 0.8])


@pytest.mark.parametrize("scope", ["group", "batch"])
@pytest.mark.parametrize("seed", range(5))
def test_gtpo_conserves(seed, scope):
    entropy, mask, index, success = random_batch(seed)
    for a2 in (0.1, 0.7):
        shaped = gtpo_shaped(entropy, mask, index, success, alpha1=1 - a2, alpha2=a2, entropy_scope=scope)
        for (_, won, _), tokens in columns_of(mask, index, success, scope).items():
            total = math.fsum(shaped[token] for token in tokens)
            assert total == pytest.approx(len(tokens) if won else -len(tokens), abs=1e-12)


@pytest.mark.parametrize("scope", ["group", "batch"])
@pytest.mark.parametrize("seed", range(5))
def test_grpo_s_conserves(seed, scope):
    entropy, mask, index, success = random_batch(seed)
    shaped = grpo_s_shaped(entropy, mask, index, success, beta1=0.8, beta2=0.2, entropy_scope=scope)
    assert set(shaped) == {row for row, bits in enumerate(mask) if any(bits)}
    for group in set(index) if scope == "group" else {None}:
        for won in (True, False):
            own = [r for row, r in shaped.items() if success[row] == won and group in (None, index[row])]
            assert math.fsum(own) == pytest.approx(len(own) if won else -len(own), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_bounds(seed):
    entropy, mask, index, success = random_batch(seed)
    shaped = gtpo_shaped(entropy, mask, index, success)
    for (_, won, _), tokens in columns_of(mask, index, success).items():
        for token in tokens:
            size = shaped[token] if won else -shaped[token]
            assert 1.0 <= size <= 1.0 + 0.1 * len(tokens) + 1e-12
    for row, r in grpo_s_shaped(entropy, mask, index, success).items():
        members = [k for k, bits in enumerate(mask) if any(bits) and index[k] == index[row]]
        count = sum(success[k] == success[row] for k in members)
        assert 1.0 <= (r if success[row] else -r) <= 1.0 + 0.1 * count + 1e-12


def test_equal_entropies_do_not_shape():
    flat = [[0.4] * 4] * 3
    for mean in ("arithmetic", "geometric"):
        r = gtpo_shaped(flat, MASK, INDEX, SUCCESS, mean=mean)
        assert rows_of(r, MASK) == [pytest.approx([1.1] * 4), pytest.approx([1.1] * 2), pytest.approx([-1.1] * 3)]
        assert list(grpo_s_shaped(flat, MASK, INDEX, SUCCESS, mean=mean).values()) == pytest.approx([1.1, 1.1, -1.1])


def test_alpha2_zero_is_grpo_with_a_token_baseline():
    # 6 of 9 tokens are right: mean 2/3, std sqrt(2)/3, so sqrt(1/2) and -sqrt(2).
    advantages = gtpo(*EXAMPLE, alpha2=0, eps=0)
    for (row, _), a in advantages.items():
        assert a == pytest.approx(0.5**0.5 if SUCCESS[row] else -(2**0.5))
    # 4 + 1 right tokens of 8: mean 5/8, std sqrt(15)/8.
    mask = [[1, 1, 0, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 0, 0]]
    advantages = gtpo([[0.3] * 5] * 3, mask, [0, 0, 0], [True, False, True], alpha2=0, eps=0)
    for (row, _), a in advantages.items():
        assert a == pytest.approx((-5 if row == 1 else 3) / 15**0.5)


def test_alpha2_zero_scopes():
    # group 0: 1 right token of 4; group 1: 3 of 4; the batch: 4 of 8.
    mask = [[1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0]]
    args = ([[0.5] * 3] * 4, mask, [0, 0, 1, 1], [True, False, True, False])
    batch = gtpo(*args, alpha2=0, eps=0)
    assert [batch[row, 0] for row in range(4)] == pytest.approx([1, -1, 1, -1])
    group = gtpo(*args, alpha2=0, eps=0, norm_scope="group")
    root = 3**0.5
    assert [group[row, 0] for row in range(4)] == pytest.approx([root, -1 / root, 1 / root, -root])


def test_padding_rows_and_holes_change_nothing():
    entropy = [
        [NAN, 0.9, 1.8, NAN, 0.3, 0.6],
        [NAN] * 6,
        [0.1, NAN, NAN, 0.6, NAN, NAN],
        [0.5, 0.2, 1.0, NAN, NAN, NAN],
    ]
    mask = [[0, 1, 1, 0, 1, 1], [0] * 6, [1, 0, 0, 1, 0, 0], [1, 1, 1, 0, 0, 0]]
    success = [True, False, True, False]
    for options in ({}, {"overlong": True, "gamma1": 0.6}, {"mean": "geometric"}, {"std": "sample"}):
        ours = rows_of(gtpo(entropy, mask, ["a"] * 4, success, **options), mask)
        plain = rows_of(gtpo(*EXAMPLE, **options), MASK)
        assert [ours[0], ours[2], ours[3]] == plain and ours[1] == []
        rows = grpo_s(entropy, mask, ["a"] * 4, success, **options)
        assert [rows[0], rows[2], rows[3]] == grpo_s(*EXAMPLE, **options) and rows[1] == 0.0


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_unmixed_group_is_dropped(scope):
    args = (
        [*ENTROPY, *[[2.0, 0.7, 0.1, 0.2]] * 2],
        [*MASK, [1, 1, 1, 1], [1, 0, 0, 0]],
        [*INDEX, "b", "b"],
        [*SUCCESS, True, True],
    )
    advantages = gtpo(*args, entropy_scope=scope)
    assert {k: a for k, a in advantages.items() if k[0] < 3} == gtpo(*EXAMPLE)
    assert [a for k, a in advantages.items() if k[0] >= 3] == [0.0] * 5
    assert grpo_s(*args, entropy_scope=scope, norm_scope="batch") == [*grpo_s(*EXAMPLE), 0.0, 0.0]
    kept = grpo_s(*args, unmixed="keep", eps=0)
    assert kept[:3] == grpo_s(*EXAMPLE, eps=0)
    assert kept[3:] == pytest.approx([-1, 1])  # R+ of a group without failures has no zeros
    assert gtpo(*args, unmixed="keep")[0, 0] != advantages[0, 0]


def test_norm_sets():
    # r = 1.144 1.056 -1.1
    own = grpo_s(*EXAMPLE, norm_set="own_set", eps=0)
    assert own == pytest.approx([1, -1, 0])
    assert grpo_s(*EXAMPLE, norm_set="none") == pytest.approx([1.144, 1.056, -1.1])
    joint = grpo_s(*EXAMPLE, norm_set="joint", eps=0)
    centre = 1.1 / 3
    scale = math.sqrt((1.144**2 + 1.056**2 + 1.1**2) / 3 - centre**2)
    assert joint == pytest.approx([(r - centre) / scale for r in (1.144, 1.056, -1.1)])
    tokens = gtpo(*EXAMPLE, norm_set="own_set")
    assert math.fsum(a for (row, _), a in tokens.items() if row < 2) == pytest.approx(0, abs=1e-9)
    sample = grpo_s(*EXAMPLE, eps=0, std="sample")
    assert sample == pytest.approx([a * (2 / 3) ** 0.5 for a in grpo_s(*EXAMPLE, eps=0)])
    assert grpo_s(*EXAMPLE, norm_set="own_set", std="sample", eps=0)[2] == 0.0


def test_failure_forms():
    assert [r for (row, _), r in gtpo_shaped(*EXAMPLE, failure="zero").items() if row == 2] == [0.0] * 3
    advantages = gtpo(*EXAMPLE, failure="zero", eps=0)
    assert advantages[0, 0] == near(0.858234)
    # r+ = 1.18 1.15 1.10 1.10 1.02 1.05 0 0 0: mean 6.6 / 9
    scale = math.sqrt((1.18**2 + 1.15**2 + 2 * 1.1**2 + 1.02**2 + 1.05**2) / 9 - (6.6 / 9) ** 2)
    assert advantages[2, 0] == pytest.approx(-6.6 / 9 / scale)
    for norm_set in ("own_set", "joint"):
        assert gtpo(*EXAMPLE, failure="zero", norm_set=norm_set, eps=0) == advantages
    raw = gtpo(*EXAMPLE, failure="zero", norm_set="none")
    assert raw[0, 0] == pytest.approx(1.18) and raw[2, 0] == 0.0
    # two failures with H .5 and 1: 1/H = 2 and 1, so shares 4/3 and 2/3
    args = ([[0.5], [1.0], [2.0]], [[1]] * 3, [0] * 3, [False, False, True])
    assert list(gtpo_shaped(*args, failure="unbased").values()) == pytest.approx([-4 / 3, -2 / 3, 1.1])
    assert list(gtpo_shaped(*args).values()) == pytest.approx([-1 - 4 / 30, -1 - 2 / 30, 1.1])


def test_geometric_mean():
    args = ([[0.5], [2.0], [4.0], [1.0]], [[1]] * 4, [0] * 4, [True, True, False, False])
    for function in (gtpo_shaped, grpo_s_shaped):  # means 1 and 2
        shaped = list(function(*args, mean="geometric").values())
        assert shaped == pytest.approx([1.05, 1.2, -1.05, -1.2])


def test_entropy_floor_and_clip():
    mask, index, success = [[1]] * 4, [0] * 4, [True, True, False, False]
    both = [[0.0], [-1e-9], [0.0], [1e-7]]
    for function in (gtpo_shaped, grpo_s_shaped):
        assert list(function(both, mask, index, success).values()) == pytest.approx([1.1, 1.1, -1.1, -1.1])
        # 1/H is 1/.1 and 1/.4 after the floor: shares 1.6 and .4; a success's H stays 0
        mixed = [[0.0], [0.3], [0.0], [0.4]]
        shaped = list(function(mixed, mask, index, success, entropy_floor=0.1).values())
        assert shaped == pytest.approx([1.0, 1.2, -1.16, -1.04])
        # floored at .1: geometric mean .2 of .1 and .4
        mixed = [[0.0], [0.4], [0.0], [0.4]]
        shaped = list(function(mixed, mask, index, success, entropy_floor=0.1, mean="geometric").values())
        assert shaped == pytest.approx([1.05, 1.2, -1.2, -1.05])
        clamped = list(function([[0.0], [9.0], [1.0], [1.0]], mask, index, success, entropy_clip=[1, 3]).values())
        assert clamped == pytest.approx([1.05, 1.15, -1.1, -1.1])
        # a negative entropy counts as 0
        negative = list(function([[-0.2], [0.3], [-0.2], [0.4]], mask, index, success, entropy_floor=0.1).values())
        assert negative == pytest.approx([1.0, 1.2, -1.16, -1.04])
    # GRPO-S floors the mean of a row, not its tokens: means .1 and .4
    args = ([[0.0, 0.2], [0.4, 0.4], [1.0, 1.0]], [[1, 1]] * 3, [0] * 3, [False, False, True])
    assert list(grpo_s_shaped(*args, entropy_floor=0.1).values())[:2] == pytest.approx([-1.16, -1.04])


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
def test_grop(case):
    right, wrong, penalties = GROP[case]
    args = lengths_batch(right, wrong)
    expected = [(1.1 if won else -1.1) + penalty for won, penalty in zip(args[3], penalties, strict=True)]
    assert list(grpo_s_shaped(*args, overlong=True).values()) == pytest.approx(expected)
    for (row, _), r in gtpo_shaped(*args, overlong=True).items():
        assert r == pytest.approx(expected[row])


def test_grop_long_tail_and_thresholds():
    # L = max((1+19)/2, 27/9) = 10; every length measured is below 2L, so -1/2 is approached and never reached
    args = lengths_batch([1] * 8 + [19], [1])
    assert grpo_s_shaped(*args, overlong=True)[8] == pytest.approx(1.1 - 9 / 20)
    # acc exactly gamma1 is easy, exactly 1 - gamma1 is hard, whatever .8 rounds to
    easy = lengths_batch([1, 1, 1, 5], [1])
    assert grpo_s_shaped(*easy, overlong=True, gamma1=0.8)[3] == pytest.approx(1.1 - 2 / 6)
    hard = lengths_batch([1], [1, 1, 1, 5])
    assert grpo_s_shaped(*hard, overlong=True, gamma1=0.8)[4] == pytest.approx(-1.1)
    assert grpo_s_shaped(*hard, overlong=True, gamma1=0.9)[4] == pytest.approx(-1.1 - 2 / 6)


def test_grop_counts_only_policy_tokens_and_enters_the_statistics():
    # lengths 1, 3 (with a hole), 1 of the right ones: L = 2, penalty -1/4
    mask = [[1, 0, 0, 0], [1, 0, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]]
    args = ([[0.5] * 4] * 4, mask, [0] * 4, [True, True, True, False])
    assert grpo_s_shaped(*args, overlong=True)[1] == pytest.approx(0.85)
    centre = (1.1 + 0.85 + 1.1) / 4
    scale = math.sqrt((2 * 1.1**2 + 0.85**2) / 4 - centre**2)
    advantages = grpo_s(*args, overlong=True, eps=0)
    assert advantages[:3] == pytest.approx([(r - centre) / scale for r in (1.1, 0.85, 1.1)])
    assert advantages[3] == pytest.approx(-(3**0.5))


def test_nothing_to_normalize():
    assert gtpo([[0.5]], [[0]], [0], [True]) == {}
    assert grpo_s([[0.5], [0.5]], [[0], [1]], [0, 0], [True, False]) == [0.0, 0.0]
    assert grpo_s([[0.5]] * 2, [[1]] * 2, [0, 0], [True] * 2, unmixed="keep", eps=0) == [0.0, 0.0]
    assert gtpo([[0.5]] * 2, [[1]] * 2, [0, 0], [False] * 2, unmixed="keep", eps=0) == {(0, 0): 0.0, (1, 0): 0.0}
    assert grpo_s([[0.5]], [[1]], [0], [True], unmixed="keep", std="sample", eps=0) == [0.0]


def test_low_entropy_success_can_turn_negative():
    # 20 right tokens of 21 exceed a1 / (a1 + a2) = 10/11
    mask = [[1]] * 21
    entropy = [[1e-4]] + [[1.0]] * 20
    advantages = gtpo(entropy, mask, [0] * 21, [True] * 20 + [False])
    assert advantages[0, 0] < 0 < advantages[1, 0]
