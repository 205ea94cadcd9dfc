"""The quick study through the real trainer: two methods, two seeds, two steps, with its records, tables and figures.

It is also the real run of EGSW with its defaults. Maps to study/ and recipes/study; what a study does when runs fail is
in test_study.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from launch import ROOT, TIME_LIMIT

from egsw_plugin.study.measures import success_curve
from egsw_plugin.study.record import read_records

RUNS = ["egsw-seed1", "egsw-seed2", "grpo-seed1", "grpo-seed2"]


@pytest.mark.verl_run
@pytest.mark.timeout(4 * TIME_LIMIT)
def test_quick_study(tmp_path):
    program = str(Path(sys.executable).with_name("egsw-plugin"))
    command = [program, "study", "run", "recipes/study/grid.yaml", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=4 * TIME_LIMIT - 30)
    print(done.stdout + done.stderr)
    assert done.returncode == 0
    records = {record.name: record for record in read_records(tmp_path / "runs")}
    assert list(records) == RUNS
    for record in records.values():
        assert [row["step"] for row in record.metrics.training] == [1, 2]
        assert list(success_curve(record)) == [2]
        assert record.metrics.left_out == []
    # The method ran where it should, and nowhere else.
    for name, record in records.items():
        for row in record.metrics.training:
            if name.startswith("grpo"):
                assert not any(metric.startswith("egsw/") for metric in row)
                continue
            assert row["egsw/entropy/mean"] == pytest.approx(row["actor/entropy"], rel=1e-4)
            assert 0 < row["egsw/effective_share/mean"] < 1 < row["egsw/weight/max"]
            assert row["egsw/changed/mean"] > 0.1 and row["actor/grad_norm"] > 0
    log = (tmp_path / "work" / "egsw-seed1" / "train.log").read_text()
    assert log.count("[egsw] egsw-plugin") == 1 and "arrives in bfloat16" not in log
    assert "adv_estimator=egsw base=grpo alpha=0.5 temperature=1.0" in done.stdout
    assert "step 2/2" in done.stdout and "run 4 of 4: egsw-seed2" in done.stdout
    page = (tmp_path / "report" / "study.md").read_text()
    assert "| egsw | 2 |" in page and "| egsw |" in page.split("## quick-differences")[1].split("## ")[0]
    assert (tmp_path / "report" / "quick-success.png").stat().st_size > 10_000

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and "4 runs, 4 of them done" in again.stdout
