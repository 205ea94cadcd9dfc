"""Start the shipped launcher under a time limit, and read what it left behind."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 600  # seconds; a run of a few steps takes about 80, and twice as long or more on a busy machine
LOSS_MODE = "actor_rollout_ref.actor.policy_loss.loss_mode"
FSDP1 = [  # verl's default
    f"{part}.strategy=fsdp"
    for part in (
        *("actor_rollout_ref.actor", "actor_rollout_ref.actor.fsdp_config"),
        *("actor_rollout_ref.ref", "actor_rollout_ref.ref.fsdp_config"),
        *("critic", "critic.fsdp"),
    )
]


@dataclass
class Run:
    """What a run left behind: exit code, what its user saw, its log, and the metrics of each step."""

    code: int
    screen: str
    log: str
    steps: list[dict]
    validation: dict  # metrics of the validations, all steps together

    def column(self, name):
        return [step[name] for step in self.steps]


def train(out, *overrides, steps=2, **environment):
    """The tiny launcher."""
    return start(out, ["recipes/tiny_cpu/run_tiny.sh", *overrides], steps, STEPS=str(steps), **environment)


def smoke(out, recipe, *overrides, steps=2, **environment):
    """Any recipe in small; `steps` is None for one that does not train."""
    return start(out, ["recipes/smoke/smoke.sh", f"recipes/{recipe}", *overrides], steps, OUT=str(out), **environment)


def start(out, launcher, steps, **environment):
    command = [str(Path(sys.executable).with_name("egsw-plugin")), "run", "--out", str(out)]
    command += [] if steps is None else ["--steps", str(steps)]
    command += ["--time-limit", str(TIME_LIMIT), "--", "bash", *launcher]
    environment = {**os.environ, "PYTHON": sys.executable, **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT + 50)
    return read_run(out, done.returncode, done.stdout + done.stderr)


def read_run(out, code, screen):
    log, metrics = out / "train.log", out / "metrics.jsonl"
    rows = [json.loads(line)["data"] for line in metrics.read_text().splitlines()] if metrics.exists() else []
    validation = {name: value for row in rows for name, value in row.items() if name.startswith("val-")}
    steps = [row for row in rows if "training/global_step" in row]
    text = log.read_text() if log.exists() else ""
    run = Run(code, screen, text, steps, validation)
    print(run.screen)
    return run


def assert_in_effect(run, method="egsw", steps=2, changed=0.5):
    """The method ran in every step, and its weights were not uniform."""
    assert run.code == 0
    assert len(run.steps) == steps
    assert all(value > changed for value in run.column(f"{method}/changed/mean"))
    assert all(0 < value < 1 for value in run.column(f"{method}/effective_share/mean"))
    assert all(0 < value <= 1 for value in run.column(f"{method}/mixed_groups/mean"))
    assert all(value > 1 for value in run.column(f"{method}/weight/max"))
    assert all(value > 0 for value in run.column("actor/grad_norm"))
