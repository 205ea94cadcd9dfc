"""The patch for verl: applies to the installed version, and verl then hands the entropy over itself.

Shows that the bridge steps aside once verl passes `entropy`: no trainer runs here, so nothing could be fetched. Maps to
patches/ and to estimators.py's order of preference.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import verl

PATCH = Path(__file__).parents[1] / "patches" / "verl-0.9.1-per-token-tensors.patch"
CODE = """
import numpy as np, torch
from tensordict import TensorDict
import verl
from verl.protocol import DataProto
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
rewards = torch.tensor([[0, 0, 1.0], [0, 0, 0]])
entropy = torch.tensor([[0.5, 0.1, 0.9], [0.3, 1.2, 0.0]])
fields = {"token_level_rewards": rewards, "response_mask": mask, "entropy": entropy}
data = DataProto(batch=TensorDict(fields, batch_size=2), non_tensor_batch={"uid": np.array(["a", "a"], dtype=object)})
config = {"gamma": 1.0, "lam": 1.0}
result = compute_advantage(data, adv_estimator="egsw", config=config).batch["advantages"]
expected, _ = get_adv_estimator_fn("egsw")(rewards, mask, data.non_tensor_batch["uid"], config, entropy=entropy)
assert torch.equal(result, expected) and result.abs().sum() > 0
assert compute_advantage(data, adv_estimator="rloo", config=config).batch["advantages"].shape == mask.shape
print("handed over by", verl.__file__)
"""


def copy_of_verl(folder):
    """The installed verl, linked, with real copies of the files that the patch changes."""
    installed = Path(verl.__file__).parent
    shutil.copytree(installed, folder / "verl", copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    for line in PATCH.read_text().splitlines():
        if line.startswith("+++ b/"):
            path = folder / line.removeprefix("+++ b/")
            target = path.resolve()
            path.unlink()
            shutil.copy(target, path)
    # Python resolves a package's folder from its __init__.py, which therefore is a file of its own as well.
    (folder / "verl" / "__init__.py").unlink()
    shutil.copy(installed / "__init__.py", folder / "verl" / "__init__.py")
    return folder


@pytest.fixture
def patched(tmp_path):
    folder = copy_of_verl(tmp_path)
    subprocess.run(["git", "apply", PATCH], cwd=folder, check=True)
    return folder


def run(folder):
    return subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_patched_verl_hands_the_entropy_over(patched):
    result = run(patched)
    assert f"handed over by {patched}" in result.stdout, result.stderr[-2000:]


def test_stock_verl_does_not(tmp_path):
    result = run(copy_of_verl(tmp_path))
    assert "egsw needs entropy, which was not passed" in result.stderr
