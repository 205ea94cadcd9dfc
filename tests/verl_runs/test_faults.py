"""Processes of a real run killed in the middle, and what is left: nothing but a checkpoint to go on from. And a
run that its reward function ends.

The victim dies by SIGKILL after the second step, which is saved and logged. Not exercised: a machine that dies, several
nodes, and the death of Ray's own daemons.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import ROOT, TIME_LIMIT, assert_in_effect, train

from egsw_plugin.report.metrics import read_metrics

STEPS = 5
KEPT = ["trainer.save_freq=1", "trainer.max_actor_ckpt_to_keep=2"]
# What a process is called, in the order in which Ray and vLLM name them.
VICTIMS = {"trainer": "ray::TaskRunner", "worker": "ray::WorkerDict", "vllm": "VLLM::EngineCore"}


def processes(mark):
    """Number and title of every process whose environment holds `mark`."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def segments():
    return set(Path("/dev/shm").glob("psm_*"))


def start(out, mark, *arguments):
    command = [str(Path(sys.executable).with_name("egsw-plugin")), "run", "--out", str(out), "--steps", str(STEPS)]
    command += ["--time-limit", str(TIME_LIMIT), "--", "bash", "recipes/tiny_cpu/run_tiny.sh", *KEPT, *arguments]
    environment = {**os.environ, "PYTHON": sys.executable, "STEPS": str(STEPS), "FAULT_TEST": mark}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_step(out, run, number):
    """Until the step is saved and logged; verl saves first, and a kill in between leaves a step without metrics."""
    deadline = time.monotonic() + TIME_LIMIT
    while time.monotonic() < deadline and run.poll() is None:
        if any(row["step"] >= number for row in read_metrics(out / "metrics.jsonl").training):
            return
        time.sleep(0.2)
    raise AssertionError(f"step {number} was not reached:\n" + (out / "train.log").read_text()[-3000:])


@pytest.mark.combination
@pytest.mark.timeout(2 * TIME_LIMIT + 100)
@pytest.mark.parametrize("arguments", [[], ["machine=cpu_apart"]], ids=["sync", "separate_async"])
@pytest.mark.parametrize(
    "victim",
    [
        "trainer",
        "worker",
        "vllm",  # verl sometimes waits for ever for an engine that has died, until the runner ends it
    ],
)
def test_a_killed_run_leaves_nothing_behind_and_goes_on(tmp_path, victim, arguments):
    out, mark, before = tmp_path / "out", f"fault-{os.getpid()}-{victim}", segments()
    run = start(out, mark, *arguments)
    try:
        wait_for_step(out, run, 2)
        victims = [pid for pid, title in processes(mark).items() if title.startswith(VICTIMS[victim])]
        assert victims, processes(mark)
        os.kill(victims[0], signal.SIGKILL)
        screen, _ = run.communicate(timeout=TIME_LIMIT + 50)
    finally:
        run.kill()
    print(screen)
    assert run.returncode not in (0, 124)
    assert "FAILED" in screen
    assert not processes(mark)
    assert segments() <= before
    kept = read_metrics(out / "metrics.jsonl").training
    saved = int((out / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())

    resumed = train(out, *KEPT, *arguments, steps=STEPS)
    assert resumed.code == 0
    assert [row["training/global_step"] for row in resumed.steps] == list(range(saved + 1, STEPS + 1))
    assert_in_effect(resumed, steps=STEPS - saved)
    rows = read_metrics(out / "metrics.jsonl").training
    # verl saves a step before it writes its metrics, and with the trainer apart it sends the weights in between
    unwritten = {saved} - {row["step"] for row in kept}
    assert [row["step"] for row in rows] == sorted(set(range(1, STEPS + 1)) - unwritten)
    assert rows[: len(kept[:saved])] == kept[:saved]
    assert segments() <= before


@pytest.mark.combination
@pytest.mark.timeout(TIME_LIMIT + 60)
def test_a_reward_function_that_raises_is_named_as_the_cause(tmp_path):
    reward = tmp_path / "reward.py"
    reward.write_text("def compute_score(*args, **kwargs):\n    raise LookupError('no such answer key')\n")
    run = train(tmp_path / "out", f"reward.custom_reward_function.path={reward}")
    assert run.code != 0
    assert "LookupError: no such answer key" in run.screen
