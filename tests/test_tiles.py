"""The parts that kernels are built of: measured rows, groups cut into tiles, counts, and GRPO's own advantage.

References are loops over Python numbers. Maps to kernels/rows.py, kernels/groups.py, kernels/tiles.py and
kernels/group_relative.py. Not exercised: CUDA.
"""

import itertools

import numpy as np
import pytest
import torch
from batches import random_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from egsw_plugin.kernels import egsw as egsw_kernel
from egsw_plugin.kernels import rows as kernel_rows
from egsw_plugin.kernels.egsw import egsw
from egsw_plugin.kernels.group_relative import group_relative
from egsw_plugin.kernels.groups import Groups, dense_group_ids
from egsw_plugin.kernels.rows import Rows, blank, keep, spread_rows
from egsw_plugin.kernels.tiles import count_beyond, count_signs

masks = st.integers(1, 9).flatmap(
    lambda tokens: st.lists(st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens), min_size=1, max_size=12)
)


@settings(deadline=None)
@given(masks, st.sampled_from([torch.int64, torch.bool, torch.float32, torch.int32]), st.sampled_from([1, 7, 1 << 19]))
def test_rows_are_measured_as_the_mask_says(mask, dtype, tile):
    tensor = torch.tensor(mask).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_rows, "TILE", tile)
        rows = Rows.measure(tensor)
    assert rows.count.tolist() == [sum(row) for row in mask]
    assert rows.width.tolist() == [max((t + 1 for t, bit in enumerate(row) if bit), default=0) for row in mask]
    assert rows.alive(slice(None), torch.float64).tolist() == mask
    assert rows.broken == any(0 in row[: sum(row)] for row in mask)


def test_a_mask_of_other_numbers_counts_what_is_not_zero():
    rows = Rows.measure(torch.tensor([[2, 0, 0], [0, 3, 0], [-1, 5, 0]]))
    assert rows.count.tolist() == [1, 1, 2]
    assert rows.width.tolist() == [1, 2, 2]


@settings(deadline=None)
@given(masks)
def test_unpack_is_the_inverse_of_pack(mask):
    tensor = torch.tensor(mask)
    values = torch.arange(1.0, tensor.numel() + 1).view(tensor.shape)
    rows = Rows.measure(tensor)
    packed = rows.pack(values)
    for row, bits in enumerate(mask):
        own = [float(values[row, t]) for t, bit in enumerate(bits) if bit]
        assert packed[row, : len(own)].tolist() == own
    there = tensor.bool()
    assert torch.equal(rows.unpack(packed)[there], values[there])
    if rows.broken:
        assert not rows.unpack(packed)[~there].any()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_tiles_hold_every_policy_token_once(data):
    sizes = data.draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 40]), min_size=1, max_size=6))
    ids = torch.tensor([number for number, size in enumerate(sizes) for _ in range(size)])
    ids = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(len(ids)))]
    count = torch.tensor(data.draw(st.lists(st.integers(0, 20), min_size=len(ids), max_size=len(ids))))
    whole = data.draw(st.booleans())
    taking_part = count > 0
    seen = torch.zeros(len(ids), 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_rows, "TILE", data.draw(st.sampled_from([1, 50, 1 << 19])))
        for tile in Groups.of(ids, taking_part, count).tiles(torch.float32, whole=whole):
            assert tile.alive.any()
            for group, members in enumerate(tile.members.tolist()):
                real = [row for row in members if row < len(ids)]
                assert len({int(ids[row]) for row in real}) <= 1
                assert not tile.alive[group, len(real) :].any()
                if whole:
                    own = ids == ids[real[0]]
                    assert sorted(real) == (own & taking_part).nonzero().squeeze(1).tolist()
                    assert len(real) == len(members)
                for place, row in enumerate(real):
                    seen[row, tile.columns] += tile.alive[group, place]
    assert torch.equal(seen, (torch.arange(20) < count.unsqueeze(1)).float())


def test_a_tile_reads_and_writes_its_rows_only():
    count, ids = torch.tensor([3, 1, 2, 0]), torch.tensor([0, 1, 0, 0])
    values = torch.arange(12.0).view(4, 3)
    values[3] = torch.nan
    values[1, 2] = torch.inf
    out, totals = blank(5, 3, values), torch.zeros(4)
    for tile in Groups.of(ids, count > 0, count).tiles(torch.float32):
        part, total = tile.read(values)
        tile.write(out, part)
        tile.add(totals, total)
    expected = torch.tensor([[0.0, 1, 2], [3, 0, 0], [6, 7, 0], [0, 0, 0]])
    assert torch.equal(out[:4], expected)
    assert torch.equal(totals, expected.sum(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts(dtype):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(5, 4, 33, generator=generator, dtype=dtype).mul_(
        torch.rand(5, 4, 33, generator=generator) > 0.3
    )
    below, above = count_signs(values)
    beyond = count_beyond(values, 0.5)
    for place in itertools.product(range(5), range(4)):
        numbers = values[place].tolist()
        assert below[place] == sum(number < 0 for number in numbers)
        assert above[place] == sum(number > 0 for number in numbers)
        assert beyond[place] == sum(abs(number) > 0.5 for number in numbers)


def test_what_is_not_alive_is_zero_whatever_stands_there():
    values = torch.tensor([[1.0, torch.nan, 2.0], [torch.inf, 3.0, -torch.inf]])
    kept, total = keep(values, torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    assert kept.tolist() == [[1, 0, 2], [0, 3, 0]]
    assert total.tolist() == [3, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("reused", [1 << 20, 0], ids=["small", "large"])
def test_blank_is_zero_and_can_be_written(monkeypatch, dtype, reused):
    monkeypatch.setattr(kernel_rows, "REUSED", reused)
    tensor = blank(3, 5, torch.zeros(1), dtype)
    assert tensor.dtype == dtype and tensor.shape == (3, 5) and not tensor.any()
    tensor[1] = 2
    assert tensor.sum() == 10
    assert blank(0, 5, tensor).shape == (0, 5)


def test_one_value_a_response():
    rows = Rows.measure(torch.tensor([[1, 0, 1], [0, 0, 0]]))
    assert spread_rows(rows, torch.tensor([2.0, 3.0])).tolist() == [[2, 0, 2], [0, 0, 0]]


@pytest.mark.parametrize("divide_by_std", [True, False])
@pytest.mark.parametrize(
    "rewards",
    [
        lambda shape, generator: torch.randint(0, 2, shape, generator=generator).float(),
        lambda shape, generator: torch.randn(shape, generator=generator) * 1e4,
        lambda shape, generator: torch.full(shape, 0.7),
    ],
    ids=["binary", "large", "equal"],
)
def test_group_relative_is_verls_grpo_to_the_bit(rewards, divide_by_std):
    generator = torch.Generator().manual_seed(3)
    for trial in range(30):
        number = trial * 2 + 1
        ids = torch.randint(0, 1 + trial % 7, (number,), generator=generator)
        outcome = rewards((number,), generator)
        index = np.array([str(i) for i in ids.tolist()], dtype=object)
        expected, _ = get_adv_estimator_fn("grpo")(
            token_level_rewards=outcome.unsqueeze(1),
            response_mask=torch.ones(number, 1),
            index=index,
            norm_adv_by_std_in_grpo=divide_by_std,
        )
        assert torch.equal(group_relative(outcome, dense_group_ids(index), divide_by_std), expected.squeeze(1))


@pytest.mark.parametrize("options", [dict(), dict(denominator="all"), dict(normalize="sum_one"), dict(scope="batch")])
def test_both_ways_to_a_softmax_agree(monkeypatch, options):
    """Without and with the subtraction of the largest logit, which only far logits need."""
    rewards, mask, index, entropy = random_batch(50)
    arguments = (rewards.sum(1, keepdim=True), entropy, Rows.measure(mask), dense_group_ids(index))
    near = egsw(*arguments, alpha=0.7, temperature=0.9, weigh_advantages=False, **options)
    monkeypatch.setattr(egsw_kernel, "NEAR", -1.0)
    far = egsw(*arguments, alpha=0.7, temperature=0.9, weigh_advantages=False, **options)
    torch.testing.assert_close(near.values, far.values, rtol=2e-6, atol=1e-7)
    assert near.tally.share_total == pytest.approx(far.tally.share_total, rel=1e-6)
    assert near.tally.weight_min == pytest.approx(far.tally.weight_min, abs=1e-6)
