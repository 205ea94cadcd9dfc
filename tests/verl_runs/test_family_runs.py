"""A chain of the family in a real run that is killed and goes on: fields, loss options, and a controller's state.

Maps to verl_adapter/{step,worker,hooks}.py. The other processes that can die are in test_faults.py, as combinations.
Not exercised: several nodes.
"""

import json
import os
import signal
import time

import pytest
from launch import TIME_LIMIT
from test_faults import VICTIMS, processes, segments, start, wait_for_step

from egsw_plugin.report.metrics import read_metrics

ARGUMENTS = [
    "+algorithm.credit={base: qae, transforms: [egsw, high_entropy, adaptive_entropy], egsw: {channel: loss}, "
    "adaptive_entropy: {coefficient: {target: 5.0, delta: 0.01, max: 1.0}}}",
    "actor_rollout_ref.actor.calculate_entropy=True",
    "actor_rollout_ref.actor.policy_loss.loss_mode=egsw_plugin",
]
COEFFICIENT = "adaptive_entropy/coefficient/mean"


@pytest.mark.verl_run
@pytest.mark.timeout(2 * TIME_LIMIT + 100)
def test_a_chain_that_is_killed_goes_on_with_its_controller(tmp_path, monkeypatch):
    """The entropy is always below 5 nats, so the coefficient is 0.01 times the steps before: one run or two."""
    monkeypatch.setenv("ADV", "egsw_plugin")
    out, mark, before = tmp_path / "out", f"family-{os.getpid()}", segments()
    run = start(out, mark, *ARGUMENTS)
    try:
        wait_for_step(out, run, 2)
        (victim, *_) = [pid for pid, title in processes(mark).items() if title.startswith(VICTIMS["trainer"])]
        os.kill(victim, signal.SIGKILL)
        screen, _ = run.communicate(timeout=TIME_LIMIT + 50)
    finally:
        run.kill()
    assert run.returncode not in (0, 124) and "FAILED" in screen, screen[-3000:]
    assert not processes(mark) and segments() <= before
    saved = sorted((out / "checkpoints").glob("global_step_*/egsw_plugin.json"))
    assert saved
    state = json.loads(saved[-1].read_text())["controllers"]["adaptive_entropy.coefficient"]
    assert state["target"] == 5.0 and state["step"] >= 2
    time.sleep(1)
    run = start(out, mark, *ARGUMENTS)
    screen, _ = run.communicate(timeout=TIME_LIMIT + 50)
    assert run.returncode == 0, screen[-3000:]
    rows = {row["step"]: row for row in read_metrics(out / "metrics.jsonl").training}
    assert sorted(rows) == [1, 2, 3, 4, 5]
    for step, row in rows.items():
        assert row[COEFFICIENT] == pytest.approx(0.01 * (step - 1))
        assert 0 < row["credit/entropy/mean"] < 5
        assert row["high_entropy/kept/mean"] == pytest.approx(0.2, abs=0.02)
        assert row["egsw/entropy_shift/mean"] > 0 and row["actor/grad_norm"] >= 0
