"""The parts that kernels are built of, compiled and in torch: measured rows, sums over them, columns, the exponential,
blocks of any size, and GRPO's own advantage; and what happens without a numba that works.

References are loops over Python numbers. Maps to kernels/{rows,loops,compiled,tally,group_relative}.py. The kernels
themselves are held against loops in test_egsw.py and test_shaped.py, compiled and in torch. Not exercised: CUDA.
"""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import random_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from egsw_plugin.kernels import loops
from egsw_plugin.kernels.group_relative import group_relative
from egsw_plugin.kernels.groups import dense_group_ids
from egsw_plugin.kernels.rows import Rows, clamped_sums, row_sums, spread_rows

pytestmark = pytest.mark.usefixtures("implementation")
# For what is the same with both kinds of kernels.
once = pytest.mark.parametrize("implementation", ["compiled"], indirect=True)
TESTS = Path(__file__).parent
ESTIMATORS = ("egsw", "gtpo", "grpo_s")

masks = st.integers(1, 9).flatmap(
    lambda tokens: st.lists(st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens), min_size=1, max_size=12)
)
dtypes = st.sampled_from([torch.int64, torch.bool, torch.float32, torch.int32])


@settings(deadline=None)
@given(masks, dtypes)
def test_rows_are_measured_as_the_mask_says(mask, dtype):
    rows = Rows.measure(torch.tensor(mask).to(dtype))
    assert rows.count.tolist() == [sum(row) for row in mask]
    assert rows.width.tolist() == [max((t + 1 for t, bit in enumerate(row) if bit), default=0) for row in mask]
    assert rows.broken == any(0 in row[: sum(row)] for row in mask)
    assert rows.policy.tolist() == [[bool(bit) for bit in row] for row in mask]


def test_a_mask_of_other_numbers_counts_what_is_not_zero():
    rows = Rows.measure(torch.tensor([[2, 0, 0], [0, 3, 0], [-1, 5, 0]]))
    assert rows.count.tolist() == [1, 1, 2]
    assert rows.width.tolist() == [1, 2, 2]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_a_mask_without_tokens(shape):
    rows = Rows.measure(torch.zeros(shape, dtype=torch.int64))
    assert rows.count.tolist() == rows.width.tolist() == [0] * shape[0]
    assert row_sums(torch.zeros(shape), rows).tolist() == [0] * shape[0]
    assert spread_rows(rows, torch.zeros(shape[0])).shape == shape


@settings(deadline=None)
@given(masks)
def test_columns_hold_the_policy_tokens_in_order(mask):
    tensor = torch.tensor(mask)
    values = torch.where(tensor.bool(), torch.arange(1.0, tensor.numel() + 1).view(tensor.shape), math.nan)
    rows = Rows.measure(tensor)
    columns = rows.columns(values)
    for row, bits in enumerate(mask):
        own = [float(values[row, t]) for t, bit in enumerate(bits) if bit]
        assert columns[row].tolist() == own + [0.0] * (len(bits) - len(own))
    assert torch.equal(rows.places(columns), values.nan_to_num(0.0))


@settings(deadline=None)
@given(masks, st.sampled_from([1, 3, 512]), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_sums_over_rows(mask, block, dtype):
    tensor = torch.tensor(mask)
    values = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel())).to(dtype)
    spoilt = torch.where(tensor.bool(), values, math.nan)
    which = torch.arange(len(mask)) % 2 == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "BLOCK", block)
        results = clamped_sums(spoilt, Rows.measure(tensor), (-0.5, 0.25), which)
        everything = row_sums(spoilt, Rows.measure(tensor))
    for row, bits in enumerate(mask):
        own = [float(values[row, t]) for t, bit in enumerate(bits) if bit]
        assert float(everything[row]) == pytest.approx(sum(own), abs=1e-6)
        own = own if which[row] else []
        held = [min(max(number, -0.5), 0.25) for number in own]
        expected = sum(own), sum(held), sum(a != b for a, b in zip(own, held, strict=True))
        for result, number in zip(results, expected, strict=True):
            assert float(result[row]) == pytest.approx(number, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_value_a_response(dtype):
    rows = Rows.measure(torch.tensor([[1, 0, 1], [0, 0, 0]]))
    spread = spread_rows(rows, torch.tensor([2.0, 3.0], dtype=dtype))
    assert spread.dtype == dtype and spread.tolist() == [[2, 0, 2], [0, 0, 0]]


def test_the_exponential():
    """Within four units in the last place of float32, wherever a float32 can hold the result."""
    x = np.concatenate([np.linspace(-87, 88, 200_001), np.linspace(-1, 1, 200_001), [0.0]]).astype(np.float32)
    ours = np.array([0.0] * len(x), np.float32)
    _exponentials(x, ours)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(ours / exact - 1).max() < 4e-7
    assert ours[-1] == 1
    special = np.array([-1e30, -np.inf, 1e30, np.inf, np.nan], np.float32)
    ours = np.zeros(5, np.float32)
    _exponentials(special, ours)
    assert (ours[:2] < 2e-38).all() and np.isinf(ours[2:4]).all() and np.isnan(ours[4])


@loops.compiled
def _exponentials(x, out):
    for k in range(x.size):
        out[k] = loops.exp(x[k])


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("block", [1, 5, 64])
def test_blocks_of_any_size_give_the_same(monkeypatch, name, block):
    rewards, mask, index, entropy = random_batch(21, prompts=7, responses=3, tokens=23)
    estimate = get_adv_estimator_fn(name)
    expected, _ = estimate(rewards, mask, index, entropy=entropy)
    monkeypatch.setattr(loops, "BLOCK", block)
    result, _ = estimate(rewards, mask, index, entropy=entropy)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


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


# ----------------------------------------------------------------------------------------- the compiler, and none


@once
def test_no_flag_lets_the_compiler_forget_nan_and_nothing_is_cached():
    """With `nnan` or `ninf` a check for NaN may be compiled away; the disk cache returns old results."""
    assert {"reassoc", "contract", "arcp", "nsz"} == loops.FLAGS
    for path in (TESTS.parent / "egsw_plugin").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"fastmath\s*=\s*True|cache\s*=\s*True", text), path
        assert path.name == "loops.py" or not re.search(r"^\s*(import|from) numba", text, re.M), path


KERNEL_TESTS = ("test_loops.py", "test_egsw.py", "test_shaped.py")


@once
@pytest.mark.parametrize(
    "setting,chosen",
    [
        (
            "NUMBA_BOUNDSCHECK",
            "compiled and (equal or sums or measured or blocks or columns or one_value or exponential)",
        ),
        ("INTERPRETED_LOOPS", "compiled and (sums or measured or blocks or holes)"),
    ],
)
def test_kernels_stay_within_bounds_and_run_without_the_compiler(setting, chosen):
    if {"NUMBA_BOUNDSCHECK", "INTERPRETED_LOOPS"} & os.environ.keys():
        pytest.skip("not from within itself")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", chosen, *KERNEL_TESTS]
    command += ["--hypothesis-profile=few"]
    environment = os.environ | {setting: "1"}
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@once
@pytest.mark.parametrize(
    "fault",
    [
        "numba = None",
        "import numba; numba.njit = lambda *args, **kwargs: 1 / 0",
        "import os; os.environ['NUMBA_DISABLE_JIT'] = '1'",
    ],
)
def test_a_numba_that_is_missing_or_broken_is_no_failure(fault):
    code = f"""
import sys, torch
{"sys.modules['numba'] = None" if fault == "numba = None" else fault}
from egsw_plugin.kernels import compiled
from egsw_plugin.kernels.egsw import egsw
from egsw_plugin.kernels.rows import Rows
rows = Rows.measure(torch.ones(2, 1, dtype=torch.int64))
A, H, ids = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.0], [2.0]]), torch.tensor([0, 0])
print(egsw(A, H, rows, ids, alpha=1.0, temperature=1.0, weigh_advantages=False).values.tolist(), compiled.attempt())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("[[1.0], [1.0]] (None, '"), done.stdout + done.stderr


@once
def test_kernels_import_numba_only_when_they_compute():
    modules = "egsw_plugin.methods, egsw_plugin.kernels.egsw, egsw_plugin.kernels.gtpo"
    code = f"import sys, {modules}; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stdout + done.stderr
