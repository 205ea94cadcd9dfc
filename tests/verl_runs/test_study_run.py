"""The quick study through the real trainer: one method, one seed, two steps, with its record, tables and figures.

It is also the real run of GRPO-S with its own objective. Maps to study/ and recipes/study; several cells, and runs that
fail, are in test_study.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from launch import ROOT, TIME_LIMIT

from egsw_plugin.study.measures import success_curve
from egsw_plugin.study.record import read_finished_runs


@pytest.mark.verl_run
@pytest.mark.timeout(TIME_LIMIT + 200)
def test_quick_study(tmp_path):
    program = str(Path(sys.executable).with_name("egsw-plugin"))
    command = [program, "study", "run", "recipes/study/grid.yaml", "--quick", "--seeds", "1"]
    command += ["--only", "grpo_s", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT + 100)
    print(done.stdout + done.stderr)
    assert done.returncode == 0
    (record,) = read_finished_runs(tmp_path / "runs")
    assert record.name == "grpo_s-seed1" and record.metrics.left_out == []
    assert [row["step"] for row in record.metrics.training] == [1, 2]
    assert list(success_curve(record)) == [2]
    assert sorted(record.inputs) == ["egsw_plugin", "start model", "training data", "validation data"]
    assert all(len(digest) == 64 for digest in record.inputs.values())
    assert record.configuration["algorithm.adv_estimator"] == record.cell == "grpo_s"
    for row in record.metrics.training:
        assert 0 < row["grpo_s/effective_share/mean"] < 1 < row["grpo_s/weight/max"]
        assert row["grpo_s/changed/mean"] > 0.1 and row["actor/grad_norm"] > 0
        assert row["actor/grpo_s_ratio/mean"] == pytest.approx(1, abs=0.2)
    log = (tmp_path / "work" / "grpo_s-seed1" / "train.log").read_text()
    assert log.count("[egsw] egsw-plugin") == 1 and "arrives in bfloat16" not in log
    assert "adv_estimator=grpo_s" in done.stdout and "policy loss grpo_s" in done.stdout
    assert "is not the objective of" not in done.stdout
    assert "step 2/2" in done.stdout and "run 1 of 1: grpo_s-seed1" in done.stdout
    page = (tmp_path / "report" / "study.md").read_text()
    assert "| grpo_s | 1 |" in page
    assert (tmp_path / "report" / "quick-success.png").stat().st_size > 10_000

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and "1 of 1 runs done" in again.stdout
