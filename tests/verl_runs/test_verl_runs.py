"""Real runs of verl's trainer on the CPU, through the shipped launcher: Ray, FSDP2, TransferQueue, vLLM, weight sync.

Everything else in the suite would pass with a bridge that is never called; these tests read verl's own metrics file.
Each run is a few steps long and under a time limit. Maps to bridge.py, startup.py, cpu/ and recipes/tiny_cpu.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 330  # seconds; a run of a few steps takes about 80
pytestmark = [pytest.mark.verl_run, pytest.mark.timeout(TIME_LIMIT + 60)]

LOSS_MODE = "actor_rollout_ref.actor.policy_loss.loss_mode"


@dataclass
class Run:
    """What a run left behind: exit code, what its user saw, its log, and the metrics of each step."""

    code: int
    screen: str
    log: str
    steps: list[dict]

    def column(self, name):
        return [step[name] for step in self.steps]


def train(out, *overrides, steps=2, **environment):
    command = [str(Path(sys.executable).with_name("egsw-plugin")), "run", "--out", str(out), "--steps", str(steps)]
    command += ["--time-limit", str(TIME_LIMIT), "--", "bash", "recipes/tiny_cpu/run_tiny.sh", *overrides]
    environment = {"STEPS": str(steps), "PYTHON": sys.executable, **environment}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=TIME_LIMIT + 50
    )
    log, metrics = out / "train.log", out / "metrics.jsonl"
    rows = [json.loads(line)["data"] for line in metrics.read_text().splitlines()] if metrics.exists() else []
    run = Run(done.returncode, done.stdout + done.stderr, log.read_text() if log.exists() else "", rows)
    print(run.screen)
    return run


def assert_in_effect(run, steps=2):
    """The method ran in every step, on the entropy of the rows that verl's own metric is about."""
    assert run.code == 0
    assert len(run.steps) == steps
    assert all(value > 0.5 for value in run.column("egsw/changed/mean"))
    assert all(0 < value < 1 for value in run.column("egsw/effective_share/mean"))
    assert all(0 < value <= 1 for value in run.column("egsw/mixed_groups/mean"))
    assert all(value > 1 for value in run.column("egsw/weight/max"))


def test_egsw_is_in_effect(tmp_path):
    run = train(tmp_path, steps=3)
    assert_in_effect(run, steps=3)
    assert run.column("egsw/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)
    assert all("egsw/entropy_success/mean" in step and "egsw/entropy_failure/mean" in step for step in run.steps)
    assert run.log.count("[egsw] egsw-plugin") == 1
    assert "adv_estimator=egsw base=grpo alpha=0.5 temperature=1.0" in run.screen
    assert "arrives in bfloat16" not in run.log
    assert "step 3/3" in run.screen
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_no_entropy_and_infinite_temperature_is_grpo(tmp_path):
    """The identity in a real run: no advantage differs from the base's."""
    run = train(tmp_path, "+algorithm.egsw.alpha=0", "+algorithm.egsw.temperature=1e30")
    assert run.code == 0
    assert run.column("egsw/changed/mean") == [0, 0]
    assert run.column("egsw/weight/max") == [1, 1]
    assert run.column("egsw/effective_share/mean") == pytest.approx([1, 1])


def test_colocated_asynchronous_trainer_with_weights_in_the_policy_loss(tmp_path):
    """channel: loss over micro-batches smaller than a group: the weights reach the workers."""
    run = train(
        tmp_path,
        "trainer.v1.trainer_mode=colocate_async",
        "+algorithm.egsw.channel=loss",
        f"{LOSS_MODE}=egsw",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    )
    assert_in_effect(run)
    assert run.column("egsw/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)
    assert all(value > 0.5 for value in run.column("actor/egsw_weighted/mean"))
    assert all(value > 0 for value in run.column("actor/grad_norm"))


def test_surprisal_where_verl_computes_no_entropy(tmp_path):
    run = train(
        tmp_path,
        "+algorithm.egsw.entropy=surprisal",
        "algorithm.rollout_correction.bypass_mode=True",
        "actor_rollout_ref.rollout.calculate_log_probs=True",
    )
    assert_in_effect(run)
    assert "actor/entropy" not in run.steps[0]


def test_two_workers_balanced_rows_padding_and_bfloat16_entropy(tmp_path):
    """Rows reordered over two FSDP workers and padded to a multiple; bfloat16 entropy, verl's default, is warned of."""
    run = train(
        tmp_path,
        "trainer.n_gpus_per_node=2",
        "trainer.balance_batch=True",
        "data.train_batch_size=15",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision=null",
        "+algorithm.egsw={base: rloo, granularity: trajectory, scope: batch, denominator: all, normalize: mean_one}",
    )
    assert_in_effect(run)
    assert "[egsw] warning: the entropy arrives in bfloat16" in run.screen
    assert "entropy_from_logits_with_chunking=True" in run.screen
    assert "mixed_precision" in run.screen


def test_verls_own_estimator_on_the_same_recipe(tmp_path):
    run = train(tmp_path, ADV="grpo")
    assert run.code == 0
    assert len(run.steps) == 2
    assert not [name for name in run.steps[0] if name.startswith("egsw/")]
    assert "effective share" not in run.screen


def test_a_bad_option_is_shown_at_once(tmp_path):
    run = train(tmp_path, "+algorithm.egsw.alhpa=1")
    assert run.code not in (0, 124)
    assert "algorithm.egsw.alhpa=1: there is no such option; did you mean 'alpha'?" in run.screen
    assert "ray init kwargs" not in run.log


def test_a_reward_function_that_raises_is_named_as_the_cause(tmp_path):
    reward = tmp_path / "reward.py"
    reward.write_text("def compute_score(*args, **kwargs):\n    raise LookupError('no such answer key')\n")
    run = train(tmp_path / "out", f"reward.custom_reward_function.path={reward}")
    assert run.code != 0
    assert "LookupError: no such answer key" in run.screen
