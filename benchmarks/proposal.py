"""verl's advantage step as patches/proposals would have it."""

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

from verl.trainer.ppo.v1 import trainer_base

PROPOSAL = Path(__file__).resolve().parents[1] / "patches/proposals/advantage-step-fields.patch"


def proposed():
    """verl's `_compute_advantage` with the proposal applied to a copy of its file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "verl/trainer/ppo/v1/trainer_base.py")
        copy.parent.mkdir(parents=True)
        shutil.copy(trainer_base.__file__, copy)
        subprocess.run(["patch", "-p1", "-s", "-i", PROPOSAL], cwd=folder, check=True)
        spec = importlib.util.spec_from_file_location("verl.trainer.ppo.v1.proposed", copy)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.PPOTrainer._compute_advantage
