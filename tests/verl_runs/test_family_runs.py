"""A chain of the family in a real run that is killed and goes on: fields, a loss of its own, controllers, records.

Maps to verl_adapter/{step,worker,hooks,recording}.py and methods/. The other processes that can die are in
test_faults.py, single members in test_member_runs.py, all as combinations. Not exercised: several nodes.
"""

import json
import os
import signal
import time

import pytest
from launch import LOSS_MODE, TIME_LIMIT, assert_in_effect, train
from test_faults import STEPS, VICTIMS, processes, segments, start, wait_for_step

from egsw_plugin.records import read_records, whatif
from egsw_plugin.report.metrics import read_metrics

ARGUMENTS = [
    "+algorithm.credit={base: qae, transforms: [repo_r, stare, batch_clip_cov, archer], "
    "repo_r: {zeta: {target: 9.0}}, stare: {target: null, variant: C2, M: {target: 9.0}}, "
    "batch_clip_cov: {ratio: 0.02, low: 0.0}, fipo: {decay: 4.0}}",
    f"{LOSS_MODE}=fipo",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.actor.use_kl_loss=True",
    "+algorithm.record={every: 2, groups: 2}",
]


@pytest.mark.verl_run
@pytest.mark.timeout(2 * TIME_LIMIT + 100)
def test_a_chain_of_four_that_is_killed_goes_on_with_its_controllers(tmp_path, monkeypatch):
    """The entropy is always below 9 nats, so that zeta doubles in each step, and M falls by 0.01."""
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
    state = json.loads(saved[-1].read_text())["controllers"]["repo_r.zeta"]
    assert state["target"] is None and state["step"] >= 2  # 9 nats is the configuration's, not measured
    time.sleep(1)
    run = start(out, mark, *ARGUMENTS)
    screen, _ = run.communicate(timeout=TIME_LIMIT + 50)
    assert run.returncode == 0, screen[-3000:]
    rows = read_metrics(out / "metrics.jsonl").training
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["repo_r/zeta/mean"] for row in rows] == pytest.approx([0.01, 0.02, 0.04, 0.05, 0.05])  # up to its max
    assert [row["stare/M/mean"] for row in rows] == pytest.approx([0.9 - 0.01 * step for step in range(STEPS)])
    for row in rows:
        assert row["repo_r/changed/mean"] > 0 and row["stare/chosen/mean"] > 0
        assert 0 < row["batch_clip_cov/chosen/mean"] <= 0.02
        assert 0.1 < row["archer/uncertain/mean"] < 0.6
        assert row["actor/kl_loss"] >= 0 and row["actor/grad_norm"] > 0
        assert row["actor/fipo_factor/mean"] != 1 and 0.8 <= row["actor/fipo_factor/mean"] <= 1.2
    check_records(rows, tmp_path)


def check_records(rows, folder):
    """Two whole groups of the recorded steps, mixed ones first: the step's numbers, on the step's tokens."""
    records = read_records(folder)
    assert [record.step for record in records] == [1, 2, 4]
    for record in records:
        step = rows[record.step - 1]
        uids = [row["uid"] for row in record.rows]
        assert len(set(uids)) == 2 and len(uids) == 2 * uids.count(uids[0])
        assert (
            len({row["reward"] for row in record.rows if row["uid"] == uids[0]}) > 1
            or not step["credit/mixed_groups/mean"]
        )
        for row in record.rows:
            lengths = {len(row[name]) for name in ("ids", "tokens", "policy", "old_log_prob", "entropy", "advantage")}
            assert len(lengths) == 1 and all(row["policy"])
            assert all(entropy >= 0 for entropy in row["entropy"]) and all(p <= 1e-3 for p in row["old_log_prob"])
            assert row["success"] == (row["score"] > 0.5) and "".join(row["tokens"])[:3] == row["response"][:3]
        found = whatif.measure(whatif.chain_of("egsw"), [record])
        assert 0.5 < found["effective_share"] <= 1


@pytest.mark.combination
@pytest.mark.timeout(TIME_LIMIT + 100)
def test_a_chain_with_its_weights_in_the_loss(tmp_path):
    """The entropy is always below 5 nats, so the coefficient is 0.01 times the steps before."""
    run = train(
        tmp_path,
        "+algorithm.credit={base: qae, transforms: [egsw, high_entropy, adaptive_entropy], egsw: {channel: loss}, "
        "adaptive_entropy: {coefficient: {target: 5.0, delta: 0.01, max: 1.0}}}",
        "actor_rollout_ref.actor.calculate_entropy=True",
        f"{LOSS_MODE}=egsw_plugin",
        ADV="egsw_plugin",
    )
    assert_in_effect(run, "credit", changed=0.1)
    assert run.column("adaptive_entropy/coefficient/mean") == pytest.approx([0, 0.01])
    for step in run.steps:
        assert 0 < step["credit/entropy/mean"] < 5
        assert step["high_entropy/kept/mean"] == pytest.approx(0.2, abs=0.02)
        assert step["egsw/entropy_shift/mean"] > 0
