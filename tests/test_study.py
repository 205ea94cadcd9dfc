"""The study's tool: grids, resumable runs, records, and the numbers that the page claims.

A study of days is lost, or wrong without anybody noticing, if a run is skipped, counted twice, or paired with another
seed's. Maps to egsw_plugin/study. The launchers here are small scripts which write a metrics file as verl does; the
real one runs in verl_runs/test_study_run.py.
"""

import functools
import gzip
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import yaml

from egsw_plugin.cli import main
from egsw_plugin.report.metrics import Metrics
from egsw_plugin.study import execute, inputs
from egsw_plugin.study.command import report
from egsw_plugin.study.compare import coverage, holm, paired
from egsw_plugin.study.execute import StudyError, check_records
from egsw_plugin.study.grid import GridError, read_grid
from egsw_plugin.study.inputs import read_inputs
from egsw_plugin.study.measures import (
    FINAL,
    MEAN,
    TRAINING,
    final_success,
    mean_success,
    start_success,
    steps_to,
    success_by_step,
    success_curve,
    training_success,
)
from egsw_plugin.study.page import fill
from egsw_plugin.study.record import FinishedRun, by_cell, read_finished_run, read_finished_runs, write_finished_run
from egsw_plugin.study.tables import differences, tables
from egsw_plugin.study.text import tables_beside

ROOT = Path(__file__).parents[1]
SUCCESS = "val-core/egsw_plugin/target/acc/mean@2"

LAUNCHER = (
    f"""
success = {SUCCESS!r}
"""
    + """
import json, os, sys, time
from pathlib import Path
out, seed, steps = Path(os.environ["OUT"]), int(os.environ["SEED"]), int(os.environ["STEPS"])
(out / "told.json").write_text(json.dumps([os.environ["METHOD"], seed, os.environ.get("QUICK"), sys.argv[1:]]))
def row(step, **more):
    data = {"training/global_step": step, "critic/score/mean": 0.25, "timing_s/step": 2.0, "timing_s/adv": 0.1, **more}
    with open(out / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "data": data}) + "\\n")
"""
)
GOOD = "for s in range(1, steps + 1):\n    row(s, **({success: 0.1 * s + 0.01 * seed} if s % 2 == 0 else {}))\n"


DAMAGED = bytearray(gzip.compress(b'{"cell": "a long text that is worth compressing, compressing, compressing"}' * 3))
DAMAGED[20] ^= 0xFF


@pytest.fixture
def grid(tmp_path):
    """Writes a grid with a launcher of that body; its path."""

    def make(body=GOOD, **changes):
        (tmp_path / "launcher.py").write_text(LAUNCHER + body)
        (tmp_path / "launcher.sh").write_text(f'exec {sys.executable} "$(dirname "$0")/launcher.py" "$@"\n')
        content = {
            "launcher": "launcher.sh",
            "steps": 4,
            "time_limit": 30,
            "baseline": "grpo",
            "cells": {"grpo": {"method": "grpo"}, "egsw": {"method": "egsw", "overrides": {"a.b": 0.5, "+c": "x"}}},
            "experiments": {"methods": {"seeds": 2, "cells": ["grpo", "egsw"]}},
            "quick": {"seeds": 1, "steps": 2, "cells": ["grpo", "egsw"], "overrides": {"d": 1}},
            **changes,
        }
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return make


def study(path, out, *arguments):
    return main(["study", "run", str(path), "--out", str(out), *arguments])


def test_a_study_runs_every_cell_and_seed_once(grid, tmp_path, capsys):
    path, out = grid(), tmp_path / "out"
    assert study(path, out) == 0
    screen = capsys.readouterr().out
    order = [
        screen.index(f"run {n} of 4: {name}")
        for n, name in enumerate(["grpo-seed1", "egsw-seed1", "grpo-seed2", "egsw-seed2"], 1)
    ]
    assert order == sorted(order)
    assert "left" in screen
    records = read_finished_runs(out / "runs")
    assert [record.name for record in records] == ["egsw-seed1", "egsw-seed2", "grpo-seed1", "grpo-seed2"]
    assert all(len(record.metrics.training) == 4 for record in records)
    assert json.loads((out / "work" / "egsw-seed2" / "told.json").read_text()) == ["egsw", 2, None, ["a.b=0.5", "+c=x"]]
    assert (out / "report" / "study.md").exists() and (out / "report" / "methods-success.png").exists()

    before = {p: p.read_bytes() for p in (out / "runs").iterdir()}
    assert study(path, out) == 0
    assert "4 of 4 runs done" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in (out / "runs").iterdir()} == before

    assert study(path, out, "--only", "grpo", "--seeds", "2", "3") == 0
    assert "1 of 2 runs done" in capsys.readouterr().out
    assert len(read_finished_runs(out / "runs")) == 5


def test_quick_has_its_own_cells_steps_and_overrides(grid, tmp_path):
    out = tmp_path / "out"
    assert study(grid(), out, "--quick", "--only", "egsw", "--", "e=2") == 0
    (record,) = read_finished_runs(out / "runs")
    assert (record.name, record.steps, record.overrides) == ("egsw-seed1", 2, ("a.b=0.5", "+c=x", "d=1", "e=2"))
    assert json.loads((out / "work" / "egsw-seed1" / "told.json").read_text())[2:] == [
        "1",
        ["a.b=0.5", "+c=x", "d=1", "e=2"],
    ]


def test_a_record_of_other_settings_is_refused(grid, tmp_path, capsys):
    out = tmp_path / "out"
    assert study(grid(), out) == 0
    assert study(grid(), out, "--", "lr=1") == 2
    assert "was made with" in capsys.readouterr().err
    assert study(grid(steps=6), out) == 2
    assert len(read_finished_runs(out / "runs")) == 4


def test_a_run_that_fails_once_goes_on_from_its_checkpoint(grid, tmp_path, capsys):
    body = """
saved = out / "checkpoints" / "latest_checkpointed_iteration.txt"
if saved.exists():
    row(3); row(4, **{success: 0.5})
else:
    row(1); row(2); row(3)
    saved.parent.mkdir(); saved.write_text("2")
    (saved.parent / "records").mkdir(); (saved.parent / "records" / "step_000001.parquet").write_text("recorded")
    sys.exit(3)
"""
    out = tmp_path / "out"
    assert study(grid(body), out, "--only", "grpo", "--seeds", "1") == 0
    assert "try 1 of 2: exit code 3, no metrics of step 4" in capsys.readouterr().out
    (record,) = read_finished_runs(out / "runs")
    assert [row["step"] for row in record.metrics.training] == [1, 2, 3, 4]
    assert len(record.lines) == 5  # raw: step 3 is there twice
    assert not (out / "work" / "grpo-seed1" / "checkpoints").exists()
    assert (out / "work" / "grpo-seed1" / "records" / "step_000001.parquet").read_text() == "recorded"


def test_a_run_whose_checkpoint_leads_nowhere_begins_anew(grid, tmp_path, capsys):
    body = (
        """
saved = out / "checkpoints" / "latest_checkpointed_iteration.txt"
if saved.exists():
    sys.exit(4)  # damaged
saved.parent.mkdir()
if not (out.parent / "grpo-seed1.old1").exists():
    row(1); row(2); saved.write_text("2")
    sys.exit(3)
"""
        + GOOD
    )
    out = tmp_path / "out"
    assert study(grid(body), out, "--only", "grpo", "--seeds", "1") == 4
    assert study(grid(body), out, "--only", "grpo", "--seeds", "1") == 0
    assert "no step forward" in capsys.readouterr().out
    (record,) = read_finished_runs(out / "runs")
    assert len(record.lines) == 4  # nothing of the earlier attempts


def test_a_step_that_was_saved_and_not_logged_is_not_lost(grid, tmp_path, capsys):
    """verl saves a step before it logs it, and hangs in between if the weights cannot be transferred."""
    body = (
        """
saved = out / "checkpoints" / "latest_checkpointed_iteration.txt"
if not (out.parent / "grpo-seed1.old1").exists():
    row(1); saved.parent.mkdir(); saved.write_text("2")
    sys.exit(124)
"""
        + GOOD
    )
    out = tmp_path / "out"
    assert study(grid(body), out, "--only", "grpo", "--seeds", "1") == 0
    assert "lack a step before its checkpoint" in capsys.readouterr().out
    (record,) = read_finished_runs(out / "runs")
    assert [row["step"] for row in record.metrics.training] == [1, 2, 3, 4]


def test_a_run_that_ended_badly_after_its_last_step_is_done(grid, tmp_path):
    """There is nothing to resume from its last checkpoint."""
    out = tmp_path / "out"
    assert study(grid(GOOD + "(out / 'once').open('x'); sys.exit(124)"), out, "--only", "grpo", "--seeds", "1") == 0
    assert len(read_finished_runs(out / "runs")) == 1
    # A run is repeated once its record is gone, from the start.
    (out / "runs" / "grpo-seed1.json.gz").unlink()
    assert study(grid(), out, "--only", "grpo", "--seeds", "1") == 0
    assert (out / "work" / "grpo-seed1.old1").exists()
    assert len(read_finished_runs(out / "runs")[0].lines) == 4


def test_a_partial_run_of_other_settings_is_not_gone_on_with(grid, tmp_path, capsys):
    body = "(out / 'checkpoints').mkdir(exist_ok=True); row(1); sys.exit(3)\n"
    out = tmp_path / "out"
    assert study(grid(body), out, "--only", "grpo", "--seeds", "1") == 3
    capsys.readouterr()
    assert study(grid(steps=6), out, "--only", "grpo", "--seeds", "1") == 0
    assert "other settings" in capsys.readouterr().out
    (record,) = read_finished_runs(out / "runs")
    assert (record.steps, len(record.lines)) == (6, 6)


def test_the_users_variables_do_not_reach_the_runs(grid, tmp_path, monkeypatch):
    body = "(out / 'seen.json').write_text(json.dumps(dict(os.environ)))\n" + GOOD
    for name in (
        "QUICK",
        "ASSETS",
        "LOGGER",
        "MACHINE",
        "NNODES",
        "TIME_LIMIT",
        "MODEL_PATH",
        "TRAIN_FILES",
        "VAL_FILES",
        "EXAMPLES",
        "STUDY_CONFIG",
        "PYTHON",
        "METHOD",
        "SEED",
        "STEPS",
        "RUN_NAME",
        "OUT",
    ):
        monkeypatch.setenv(name, "1")
    out = tmp_path / "a folder"
    assert study(grid(body), out, "--only", "egsw", "--seeds", "2") == 0
    seen = json.loads((out / "work" / "egsw-seed2" / "seen.json").read_text())
    assert not {"QUICK", "ASSETS", "LOGGER", "MACHINE", "NNODES", "TIME_LIMIT"} & set(seen)
    assert not {"MODEL_PATH", "TRAIN_FILES", "VAL_FILES", "EXAMPLES", "STUDY_CONFIG"} & set(seen)
    assert [seen[name] for name in ("METHOD", "SEED", "STEPS", "RUN_NAME")] == ["egsw", "2", "4", "egsw-seed2"]
    assert seen["PYTHON"] == sys.executable and seen["OUT"] == str(out / "work" / "egsw-seed2")


def runs(pid):
    """Whether the process is there and no zombie, which stays where nobody waits for orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_study_leaves_a_run_that_the_next_one_ends(grid, tmp_path):
    body = "if not (out / 'pid').exists():\n    (out / 'pid').write_text(str(os.getpid())); time.sleep(100)\n" + GOOD
    path, out = grid(body), tmp_path / "out"
    command = [str(Path(sys.executable).with_name("egsw-plugin")), "study", "run", str(path), "--out", str(out)]
    command += ["--only", "grpo", "--seeds", "1"]
    pid = out / "work" / "grpo-seed1" / "pid"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        child.kill()
    orphan = int(pid.read_text())
    assert runs(orphan)
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0 and "had left" in done.stdout
    assert not runs(orphan)
    assert len(read_finished_runs(out / "runs")) == 1


def test_a_run_that_fails_twice_stops_the_study_and_leaves_what_is_done(grid, tmp_path, capsys):
    body = "if seed == 2: sys.exit(3)\n" + GOOD
    out = tmp_path / "out"
    assert study(grid(body), out) == 3
    screen = capsys.readouterr().out
    assert "grpo-seed2 failed; its log" in screen and "the same command goes on" in screen
    assert [record.name for record in read_finished_runs(out / "runs")] == ["egsw-seed1", "grpo-seed1"]
    assert study(grid(), out) == 0
    assert len(read_finished_runs(out / "runs")) == 4


@pytest.mark.parametrize(
    "body, missing",
    [
        ("row(1); row(2); row(4, **{success: 0.5})", "no metrics of step 3"),
        ("[row(s) for s in range(1, 5)]", "no validation after the last step"),
        ("[row(s, **{success: 0.5}) for s in range(1, 6)]", "metrics of 5 steps"),
    ],
)
def test_a_run_that_lacks_something_has_no_record(grid, tmp_path, capsys, body, missing):
    out = tmp_path / "out"
    assert study(grid(body), out) == 1
    assert missing in capsys.readouterr().out
    assert read_finished_runs(out / "runs") == []


def test_a_run_that_hangs_is_ended_and_tried_again(grid, tmp_path, capsys):
    body = "if not (out / 'once').exists():\n    (out / 'once').touch(); time.sleep(100)\n" + GOOD
    out = tmp_path / "out"
    assert study(grid(body, time_limit=2), out, "--only", "grpo", "--seeds", "1") == 0
    assert "try 1 of 2: exit code 124" in capsys.readouterr().out


def test_success_on_several_data_sets_is_their_mean():
    success = "val-core/gym/{}/acc/mean@4"
    row = {"step": 4, success.format("a"): 0.5, success.format("b"): 0.25, "val-aux/gym/a/format/mean@4": 1.0}
    assert success_by_step(Metrics(training=[row])) == {4: 0.375}


def test_ctrl_c_stops_the_study_and_the_same_command_goes_on(grid, tmp_path):
    path, out = (
        grid(
            "if out.name == 'grpo-seed2' and not (out / 'again').exists():\n"
            "    (out / 'again').touch(); time.sleep(60)\n" + GOOD
        ),
        tmp_path / "out",
    )
    program = str(Path(sys.executable).with_name("egsw-plugin"))
    command = [program, "study", "run", str(path), "--out", str(out)]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heard) as child:
        deadline = time.monotonic() + 60
        while not (out / "work" / "grpo-seed2" / "again").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        second = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert second.returncode == 2 and "another study is running" in second.stderr
        child.send_signal(signal.SIGINT)
        screen, _ = child.communicate(timeout=180)
    assert child.returncode == 130
    assert "the same command goes on" in screen and "failed" not in screen
    assert subprocess.run(command, capture_output=True, timeout=180).returncode == 0
    assert len(read_finished_runs(out / "runs")) == 4


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"launcher": "nothing.sh"}, "launcher='nothing.sh'"),
        ({"steps": 0}, "steps=0"),
        ({"steps": True}, "steps=True"),
        ({"baseline": "grpp"}, "baseline='grpp': there is no such name; did you mean 'grpo'"),
        ({"stpes": 3}, "did you mean 'steps'"),
        ({"cells": {"a/b": {"method": "x"}}}, "cells.a/b"),
        ({"cells": {"grpo": {"overrides": {}}}}, "cells.grpo: method is missing"),
        ({"cells": {"grpo": {"method": "grpo", "override": {}}}}, "did you mean 'overrides'"),
        ({"cells": {"grpo": "grpo"}}, "cells.grpo='grpo': must be a dict"),
        ({"cells": {"grpo": {"method": "grpo", "overrides": ["a=1"]}}}, "overrides"),
        ({"experiments": {"m": {"seeds": 2, "cells": ["gpro"]}}}, "experiments.m.cells='gpro'"),
        ({"experiments": {"m": {"seeds": -1, "cells": ["grpo"]}}}, "experiments.m.seeds=-1"),
        ({"experiments": {"m": {"seeds": [4, "5"], "cells": ["grpo"]}}}, "experiments.m.seeds[1]='5'"),
        ({"experiments": {"m": {"seeds": [4, 4], "cells": ["grpo"]}}}, "experiments.m.seeds=[4, 4]"),
        ({"experiments": {"m": {"seeds": [], "cells": ["grpo"]}}}, "experiments.m.seeds=[]"),
        ({"experiments": {"m": {"cells": ["grpo"]}}}, "seeds is missing"),
        ({"experiments": {"m/n": {"seeds": 1, "cells": ["grpo"]}}}, "experiments.m/n"),
        ({"experiments": {"m": {"seeds": 1, "cells": []}}}, "experiments.m.cells"),
        ({"experiments": {"m": {"seeds": 1, "cells": [["grpo"]]}}}, "experiments.m.cells"),
        ({"experiments": {"m": {"seeds": 1, "cells": ["grpo"], "baseline": "gpro"}}}, "experiments.m.baseline='gpro'"),
        ({"experiments": {}}, "experiments: there is none"),
        ({"baseline": ["grpo"]}, "baseline"),
    ],
)
def test_a_wrong_grid_is_refused(grid, tmp_path, capsys, changes, message):
    assert study(grid(**changes), tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wrong_names_of_cells_and_files_that_are_no_grid_are_refused(grid, tmp_path, capsys):
    assert study(grid(), tmp_path / "out", "--only", "gprs") == 2
    assert "--only='gprs'" in capsys.readouterr().err
    for text in ("[", "just text", "- a"):
        (tmp_path / "other.yaml").write_text(text)
        assert study(tmp_path / "other.yaml", tmp_path / "out") == 2
    assert study(tmp_path / "absent.yaml", tmp_path / "out") == 2
    with pytest.raises(GridError, match="quick"):
        path = grid()
        path.write_text(path.read_text().split("quick:")[0])
        read_grid(path, quick=True)


def record(cell="grpo", seed=1, curve=None, scores=(0.25,) * 4, **more):
    """A record whose validations are `curve` and whose training scores are `scores`."""
    curve = {2: 0.3, 4: 0.5} if curve is None else curve
    rows = [
        {
            "step": step,
            "data": {"critic/score/mean": score, **more, **({SUCCESS: curve[step]} if step in curve else {})},
        }
        for step, score in enumerate(scores, start=1)
    ]
    return FinishedRun(
        cell, seed, cell, (), len(rows), 10.0, "machine", {"verl": "0.9.1"}, {}, {}, tuple(map(json.dumps, rows))
    )


def test_records_survive_and_are_equal_bytes(tmp_path):
    original = record("egsw", 3)
    path = write_finished_run(original, tmp_path / "a")
    assert read_finished_run(path) == original
    assert write_finished_run(original, tmp_path / "b").read_bytes() == path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["egsw-seed3.json.gz"]


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b\x08\x00 cut", DAMAGED])
def test_a_damaged_record_is_named(tmp_path, content):
    path = tmp_path / "egsw-seed1.json.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"egsw-seed1\.json\.gz is no record"):
        read_finished_runs(tmp_path)
    write_finished_run(record("egsw", 2), tmp_path)
    (tmp_path / "egsw-seed2.json.gz").rename(path)
    with pytest.raises(ValueError, match="holds the run egsw-seed2"):
        read_finished_runs(tmp_path)


def test_measures_of_a_run():
    run = record(curve={2: 0.3, 4: 0.6}, scores=(0.2, 0.3, 0.4, 0.5))
    assert success_curve(run) == {2: 0.3, 4: 0.6}
    assert final_success(run) == 0.6
    assert mean_success(run) == pytest.approx(0.45)
    assert start_success([run, record(scores=(0.4,) * 4)]) == pytest.approx(0.3)
    assert final_success(record(curve={2: 0.3})) is None
    assert training_success(run) == pytest.approx(0.35)
    assert training_success(record(**{"training/filter_groups/evicted_samples": 2.0})) is None
    assert mean_success(record(curve={})) is None


def test_steps_to_a_level_on_straight_lines():
    assert steps_to(0.4, {0: 0.2, 2: 0.3, 4: 0.6}) == pytest.approx(2 + 2 * 0.1 / 0.3)
    assert steps_to(0.3, {0: 0.2, 2: 0.3}) == 2
    assert steps_to(0.7, {0: 0.2, 2: 0.3}) is None
    assert steps_to(0.5, {4: 0.6, 0: 0.2, 2: 0.1}) == pytest.approx(2 + 2 * 0.4 / 0.5)  # a dip first
    assert steps_to(0.5, {}) is None


def test_only_keeps_to_the_seeds_of_its_experiment(grid):
    cells = {name: {"method": "grpo"} for name in ("grpo", "a", "b", "alone")}
    experiments = {"long": {"seeds": 3, "cells": ["grpo", "a"]}, "short": {"seeds": 1, "cells": ["grpo", "b"]}}
    made = read_grid(grid(cells=cells, experiments=experiments, quick={"seeds": 1, "steps": 1, "cells": ["a"]}))

    def chosen(*names, **more):
        return [(cell.name, seed) for cell, seed in made.runs(list(names) or None, **more)]

    assert chosen("b") == [("b", 1)]
    assert chosen("alone") == [("alone", 1), ("alone", 2), ("alone", 3)]
    assert chosen("b", "a", seeds=[7]) == [("a", 7), ("b", 7)]
    assert chosen() == [(n, s) for s in (1, 2, 3) for n in ("grpo", "a")] + [("b", 1)]


def test_overrides_are_written_as_hydra_reads_them(grid):
    cells = {"grpo": {"method": "grpo", "overrides": {"a": None, "b": True, "c": [1, 2], "d": "x", "e": 1e-6}}}
    made = read_grid(
        grid(
            cells=cells,
            experiments={"m": {"seeds": 1, "cells": ["grpo"]}},
            quick={"seeds": 1, "steps": 1, "cells": ["grpo"]},
        )
    )
    assert made.cells["grpo"].overrides == ("a=null", "b=true", "c=[1, 2]", "d=x", "e=1e-06")


def test_differences_pair_the_seeds():
    baseline = [record("grpo", seed, {4: value}) for seed, value in ((1, 0.1), (2, 0.5), (3, 0.3))]
    cell = [record("egsw", seed, {4: value}) for seed, value in ((3, 0.35), (1, 0.2), (4, 0.9))]
    found = paired(cell, baseline, final_success)
    assert found.values == pytest.approx({3: 0.05, 1: 0.1})
    assert found.mean == pytest.approx(0.075) and found.higher == 2
    assert paired(cell[2:], baseline, final_success) is None
    assert paired(cell[:1], baseline, final_success).low is None


def test_the_interval_is_the_exact_bootstrap_one():
    """All 4^4 resamples by enumeration, and no random draw."""
    differences = [0.3, -0.1, 0.2, 0.05]
    means = sorted(sum(chosen) / 4 for chosen in itertools.product(differences, repeat=4))
    low, high = np.quantile(means, [0.025, 0.975])
    cell = [record("egsw", seed, {4: 0.5 + d}) for seed, d in enumerate(differences)]
    baseline = [record("grpo", seed, {4: 0.5}) for seed in range(4)]
    found = paired(cell, baseline, final_success)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    # t = mean / (s / sqrt(4)) = 0.1125 / (0.175 / 2) = 1.2857; for 3 degrees of freedom the distribution is closed.
    mean = sum(differences) / 4
    t = mean / math.sqrt(sum((d - mean) ** 2 for d in differences) / 3 / 4)
    x = t / math.sqrt(3)
    assert found.p_value == pytest.approx(1 - 2 / math.pi * (math.atan(x) + x / (1 + x * x)))


def test_differences_without_spread_or_of_two_seeds_have_no_p_value():
    baseline = [record("grpo", seed, {4: 0.5}) for seed in (1, 2, 3)]
    tied = paired([record("egsw", seed, {4: 0.75}) for seed in (1, 2, 3)], baseline, final_success)
    assert tied.p_value is None and tied.half_width is None  # counts tie by chance
    two_more = [
        [record(cell, seed, {4: (k + more) / 30}) for seed, k in ((1, 5), (2, 9), (3, 10))]
        for cell, more in (("egsw", 2), ("grpo", 0))
    ]
    tied = paired(*two_more, final_success)
    assert len(set(tied.values.values())) > 1 and tied.p_value is None  # differ by their rounding alone
    assert paired([record("egsw", s, {4: 0.7 + s / 10}) for s in (1, 2)], baseline, final_success).p_value is None
    assert paired(baseline[:1], baseline, final_success).p_value is None


def test_holm_never_lowers_and_keeps_the_order():
    assert holm({"a": 0.04, "b": 0.04, "c": 0.5}) == {"a": pytest.approx(0.12), "b": pytest.approx(0.12), "c": 0.5}
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    assert holm({"a": 0.01, "b": 0.04}, comparisons=5) == {"a": pytest.approx(0.05), "b": pytest.approx(0.16)}


def test_cells_without_runs_count_in_holms_correction(grid):
    """Else the first cell to reach its third seed would have a star that it loses when the others follow."""
    names = ["grpo", "egsw", "a", "b", "c", "d"]
    made = grid(
        cells={name: {"method": name if name == "egsw" else "grpo"} for name in names},
        experiments={"methods": {"seeds": 3, "cells": names}},
    )
    records = [record("grpo", s, {4: 0.5}) for s in (1, 2, 3)]
    records += [record("egsw", s, {4: 0.6 + d}) for s, d in zip((1, 2, 3), (0.02, -0.03, 0.01), strict=True)]
    alone = paired(records[3:], records[:3], final_success).p_value
    assert alone < 0.05 < 5 * alone
    assert "| egsw | +10.0 [+7.0, +12.0] |" in tables(read_grid(made), records)["methods-differences"]


def test_a_run_that_never_reaches_the_level_is_the_later_one(grid):
    """GRPO reaches 40 % at one of three seeds, EGSW at all: of the pair that both have EGSW is later, by 0.5 steps."""
    curves = {1: {2: 0.3, 4: 0.5}, 2: {2: 0.3, 4: 0.35}, 3: {2: 0.3, 4: 0.36}}
    records = [record("grpo", seed, curve) for seed, curve in curves.items()]
    records += [record("egsw", 1, {2: 0.2, 4: 0.4}), *(record("egsw", s, {2: 0.5, 4: 0.6}) for s in (2, 3))]
    made = tables(read_grid(grid()), records)["methods-differences"]
    assert "|  | 1 of 3 |\n" in made and "Steps have no mean where a run did not reach the level" in made
    never = [record(cell, s, {2: 0.1, 4: 0.2}) for cell in ("grpo", "egsw") for s in (1, 2)]
    made = tables(read_grid(grid()), never)["methods-differences"]
    assert "| 0 of 2 |  |  |\n" in made  # neither does: nothing is known


def test_two_seeds_are_said_to_have_no_test(grid):
    records = [record("grpo", s, {4: 0.5}) for s in (1, 2, 3)] + [record("egsw", s, {4: 0.5 + s / 20}) for s in (1, 2)]
    made = read_grid(grid())
    words = "With fewer than 3 seeds nothing is tested"
    assert words in tables(made, records)["methods-differences"]
    assert words not in tables(made, [*records, record("egsw", 3, {4: 0.6})])["methods-differences"]
    apart = [record("grpo", 1, {4: 0.5}), record("egsw", 2, {4: 0.6})]
    found = tables(made, apart)
    assert found["methods-differences"] == "No cell has a seed in common with what it is compared to.\n"
    for name in ("results", "behaviour", "cost"):
        assert "these means do not compare" in found[f"methods-{name}"], name
        assert "these means do not compare" not in tables(made, records)[f"methods-{name}"], name


def test_coverage_of_two_seeds_by_hand():
    """With two values the interval runs from the lower to the higher one, which holds the mean half of the time."""
    assert coverage(2) == pytest.approx(0.5, abs=0.03)


def test_tables_say_what_the_records_hold(grid):
    seeds = (1, 2, 3)
    records = [record("grpo", s, {2: 0.3, 4: 0.5}) for s in seeds]
    records += [record("egsw", s, {2: 0.2, 4: 0.4 + 0.02 * s}, **{"egsw/effective_share/mean": 0.8}) for s in seeds]
    made = tables(read_grid(grid()), records)
    assert (
        "| grpo | 3 | 50.0 [50.0 to 50.0] | 40.0 [40.0 to 40.0] | 25.0 [25.0 to 25.0] | 3.0 (3 of 3) | 4.0 (3 of 3) |"
        in made["methods-results"]
    )
    assert "| egsw | 3 | 44.0 [42.0 to 46.0] | 32.0 [31.0 to 33.0] |" in made["methods-results"]
    assert "| > 4.0 (0 of 3) |" in made["methods-results"]  # 50 %, within the four steps of the runs
    assert "The start model succeeds at 25.0%" in made["methods-results"]
    assert (
        "| egsw | -6.0 [-8.0, -4.0]* | 0 of 3 | -8.0 [-9.0, -7.0]* | 0 of 3 | +0.0 [+0.0, +0.0] | 0 of 3 "
        "| +0.7 [+0.5, +0.8]* | 3 of 3 |"
    ) in made["methods-differences"]
    # standard errors of 2 and 1 points over the root of 3, times 4.303 with two degrees of freedom
    assert "final success (%) ±5.0, mean success (%) ±2.5" in made["methods-differences"]
    assert "| egsw | 3 | 0.800 |" in made["methods-behaviour"] and "| grpo | 3 |  |" in made["methods-behaviour"]
    assert "| 6 | 4 | 1:00 | machine | verl 0.9.1 |  |" in made["runs"]


def test_an_experiment_may_have_a_baseline_of_its_own(grid):
    experiments = {name: {"seeds": 1, "cells": ["grpo", "egsw"]} for name in ("first", "second")}
    experiments["second"]["baseline"] = "egsw"
    records = [record("grpo", 1, {4: 0.5}), record("egsw", 1, {4: 0.4}), record("egsw", 2, {4: 0.3})]
    made = tables(read_grid(grid(experiments=experiments)), records)
    assert "| cell minus grpo |" in made["first-differences"] and "| egsw | -10.0 |" in made["first-differences"]
    assert "| cell minus egsw |" in made["second-differences"] and "| grpo | +10.0 |" in made["second-differences"]
    assert "| egsw | 1 | 40.0 |" in made["first-results"] and "Seeds: 1, those that all" in made["first-results"]
    with pytest.raises(GridError, match="the baseline 'grpo' is not among them"):
        read_grid(grid(experiments={"m": {"seeds": 1, "cells": ["egsw"]}}))


def test_an_experiment_that_lists_its_seeds_has_no_others(grid):
    both = ["grpo", "egsw"]
    experiments = {"all": {"seeds": 2, "cells": both}, "fresh": {"seeds": [5, 2], "cells": both}}
    made = read_grid(grid(experiments=experiments))
    assert [(cell.name, seed) for cell, seed in made.runs()] == [(n, s) for s in (1, 2, 5) for n in both]
    records = [record("grpo", s, {4: 0.5}) for s in (1, 2, 5, 8)]
    records += [record("egsw", s, {4: 0.5 + 0.01 * s}) for s in (1, 2, 5, 8)]
    shown = tables(made, records)
    assert "| egsw | 4 | 54.0 [51.0 to 58.0] |" in shown["all-results"] and "| +4.0 [" in shown["all-differences"]
    assert "| egsw | 2 | 53.5 [52.0 to 55.0] |" in shown["fresh-results"] and "Seeds: 2, 5," in shown["fresh-results"]
    assert "| egsw | +3.5 [+2.0, +5.0] | 2 of 2 |" in shown["fresh-differences"]
    assert set(differences(made.experiments["fresh"], records, FINAL)["egsw"].values) == {2, 5}
    unseen = tables(made, [r for r in records if r.seed in (1, 8)])
    assert "all-results" in unseen and "fresh-results" not in unseen


CONFIGURATION = {
    "actor_rollout_ref": {"model": {"path": "MODEL"}, "actor": {"optim": {"lr": 0.1, "betas": [0.9, 0.99]}}},
    "data": {"train_files": ["TRAIN"], "val_files": "hub/name", "seed": 1},
    "trainer": {"experiment_name": "egsw-seed1", "default_local_dir": "/a/b", "note": None},
}


@pytest.fixture
def run_folder(tmp_path):
    """Writes what a run of that name leaves of its inputs; its folder."""

    def make(name, weights=b"1", train=b"rows", **changes):
        folder = tmp_path / name
        (folder / "hydra" / ".hydra").mkdir(parents=True)
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_bytes(weights)
        (folder / "train.parquet").write_bytes(train)
        text = yaml.safe_dump({**CONFIGURATION, **changes})
        text = text.replace("MODEL", str(folder / "model")).replace("TRAIN", str(folder / "train.parquet"))
        (folder / "hydra" / ".hydra" / "config.yaml").write_text(text)
        return folder

    return make


def test_inputs_of_a_run_are_told_apart_by_content_not_by_name(run_folder, tmp_path):
    configuration, digests = read_inputs(run_folder("first"))
    assert configuration == {
        "actor_rollout_ref.actor.optim.lr": 0.1,
        "actor_rollout_ref.actor.optim.betas": [0.9, 0.99],
        "data.val_files": "hub/name",
    }
    assert sorted(digests) == ["start model", "training data", "validation data"]
    assert digests["validation data"] == "hub/name" and len(digests["start model"]) == 64
    named = {"trainer": {"experiment_name": "other", "default_local_dir": "/c"}}
    assert read_inputs(run_folder("named", **named)) == (configuration, digests)
    for name, change in {"start model": {"weights": b"2"}, "training data": {"train": b"other rows"}}.items():
        same, found = read_inputs(run_folder(name.replace(" ", ""), **change))
        assert same == configuration and {key for key in digests if found[key] != digests[key]} == {name}
    assert read_inputs(run_folder("more", trainer={"nnodes": 2})) == ({**configuration, "trainer.nnodes": 2}, digests)
    assert read_inputs(tmp_path / "nowhere") == ({}, {})


def test_the_digest_of_the_sources_is_of_all_that_a_run_uses(tmp_path, monkeypatch):
    """A change of a controller or of the tiny model's reward changes a run as much as one of a kernel."""
    package = Path(inputs.__file__).parents[1]
    copy = tmp_path / "egsw_plugin"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(inputs, "__file__", str(copy / "study" / "inputs.py"))
    first = inputs.sources()
    used = ["controllers.py", "fields.py", "measure.py", "tiny/target.py", "records/store.py", "kernels/egsw.py"]
    for name in [*used, "data/reasoning_gym.py", "rewards/readings.py", "strict_yaml.py"]:
        before = (copy / name).read_text()
        (copy / name).write_text(before + "\n# another\n")
        assert inputs.sources() != first, name
        (copy / name).write_text(before)
    for name in inputs._NOT_OF_A_RUN:
        assert (copy / name).exists(), name
        for file in [copy / name] if name.endswith(".py") else (copy / name).glob("*.py"):
            file.write_text("")
    assert inputs.sources() == first


@pytest.mark.parametrize(
    "change, cell, seed, named",
    [
        ({"configuration": {"lr": 2, "same": 0}}, "egsw", 2, r"configuration, \{'lr': 1\} and \{'lr': 2\}"),
        ({"inputs": {"start model": "2"}}, "grpo", 1, "start model"),
        ({"inputs": {"training data": "2"}}, "grpo", 1, "training data"),
        ({"versions": {"verl": "0.9.1", "torch": "2"}}, "grpo", 1, "version of torch"),
    ],
)
def test_records_that_do_not_compare_are_refused(grid, change, cell, seed, named):
    """A cell has one configuration; the runs of a seed have one start model, the same data and libraries."""
    made = read_grid(grid())
    overrides = {"egsw": ("a.b=0.5", "+c=x"), "grpo": ()}
    first = replace(record("egsw", 1), overrides=overrides["egsw"], configuration={"lr": 1, "same": 0})
    other = replace(first, cell=cell, method=cell, seed=seed, overrides=overrides[cell])
    check_records(made, [first, other])
    with pytest.raises(StudyError, match=f"egsw-seed1 and {cell}-seed{seed} differ in their {named}"):
        check_records(made, [first, replace(other, **change)])
    elsewhere = ("grpo", 1) if cell == "egsw" else ("egsw", 2)
    other = replace(first, cell=elsewhere[0], method=elsewhere[0], seed=elsewhere[1], overrides=overrides[elsewhere[0]])
    check_records(made, [first, replace(other, **change)])


COMPOSED = """
(out / "hydra" / ".hydra").mkdir(parents=True, exist_ok=True)
(out / "hydra" / ".hydra" / "config.yaml").write_text("lr: " + Path(__file__).with_name("lr").read_text())
"""


@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_a_run_that_went_on_with_other_settings_begins_anew(grid, tmp_path, capsys, ended):
    body = (
        COMPOSED
        + """
saved = out / "checkpoints" / "latest_checkpointed_iteration.txt"
if saved.exists():
    row(3); row(4, **{success: 0.5})
    sys.exit(0)
if not (out.parent / "grpo-seed1.old1").exists():
    row(1); row(2); saved.parent.mkdir(); saved.write_text("2")
    sys.exit(143)
"""
        + GOOD
    )
    path, out = grid(body), tmp_path / "out"
    (tmp_path / "lr").write_text("1")
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 143
    if ended == "killed":  # before it could say what it was made from
        state = out / "work" / "grpo-seed1" / "study.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "made_from": None}))
    (tmp_path / "lr").write_text("2")
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 0
    assert "are not those of the attempt that it went on from" in capsys.readouterr().out
    (found,) = read_finished_runs(out / "runs")
    assert found.configuration == {"lr": 2} and len(found.lines) == 4


ENDED_ONCE = """
saved = out / "checkpoints" / "latest_checkpointed_iteration.txt"
if not (out.parent / "first").exists():
    (out.parent / "first").touch(); row(1); row(2); saved.parent.mkdir(); saved.write_text("2")
    sys.exit(143)
"""


def test_a_run_that_an_older_version_started_begins_anew(grid, tmp_path, capsys):
    path, out = grid(ENDED_ONCE + GOOD), tmp_path / "out"
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 143
    state = out / "work" / "grpo-seed1" / "study.json"
    state.write_text(json.dumps({"command": json.loads(state.read_text())["command"], "seconds": 1.0}))
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 0
    assert "grpo-seed1.old1: of a run that was started by an older version" in capsys.readouterr().out


def test_a_run_goes_on_whatever_variables_an_older_version_took_from_it(grid, tmp_path, capsys):
    path, out = grid(ENDED_ONCE + GOOD), tmp_path / "out"
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 143
    state = out / "work" / "grpo-seed1" / "study.json"
    noted = json.loads(state.read_text())
    assert noted["command"][:3] == ["env", "-u", "QUICK"]
    state.write_text(json.dumps({**noted, "command": ["env", *noted["command"][3:]]}))
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 0
    assert ".old1" not in capsys.readouterr().out


@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_a_run_that_was_ended_does_not_go_on_with_other_sources(grid, tmp_path, capsys, monkeypatch, ended):
    """One record would join the steps of two versions of the code."""
    path, out = grid(ENDED_ONCE + GOOD), tmp_path / "out"
    monkeypatch.setattr(execute, "sources", lambda: "old")
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 143
    if ended == "killed":
        state = out / "work" / "grpo-seed1" / "study.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "made_from": None}))
    monkeypatch.setattr(execute, "sources", lambda: "new")
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 0
    assert "grpo-seed1.old1: this package's sources changed" in capsys.readouterr().out
    (found,) = read_finished_runs(out / "runs")
    assert found.inputs["egsw_plugin"] == "new" and len(found.lines) == 4


def test_sources_that_change_while_a_run_goes_on_are_told(grid, tmp_path, capsys, monkeypatch):
    digests = iter(["old", "new"])
    monkeypatch.setattr(execute, "sources", lambda: next(digests))
    out = tmp_path / "out"
    assert study(grid(), out, "--only", "grpo", "--seeds", "1") == 0
    assert "sources changed while grpo-seed1 ran" in capsys.readouterr().out
    assert read_finished_runs(out / "runs")[0].inputs["egsw_plugin"] == "old"


def test_a_failed_run_names_a_log_that_is_there(grid, tmp_path, capsys):
    """Also where its folder was set aside, since its settings changed between two attempts."""
    body = (
        COMPOSED
        + """
(out / "train.log").touch()
saved = out / "checkpoints" / "latest_checkpointed_iteration.txt"
if not saved.exists():
    row(1); row(2); saved.parent.mkdir(); saved.write_text("2")
else:
    row(3); saved.write_text("3")
Path(__file__).with_name("lr").write_text("2")
sys.exit(3)
"""
    )
    path, out = grid(body), tmp_path / "out"
    (tmp_path / "lr").write_text("1")
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 3
    log = re.search(r"failed; its log: (\S+)", capsys.readouterr().out)[1]
    assert Path(log).is_file() and ".old1" in log


def test_a_record_of_another_launcher_is_of_another_study(grid, tmp_path, capsys):
    """Two grids may agree in method, overrides and steps, and differ in the model and its learning rate."""
    path, out = grid(), tmp_path / "out"
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 0
    assert read_finished_runs(out / "runs")[0].launcher == "launcher.sh"
    (tmp_path / "launcher.sh").rename(tmp_path / "other.sh")
    path.write_text(path.read_text().replace("launcher.sh", "other.sh"))
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 2
    assert "grpo-seed1 was made by launcher.sh, not by other.sh" in capsys.readouterr().err


def test_settings_that_changed_between_runs_stop_the_study(grid, tmp_path, capsys):
    path, out = grid(COMPOSED + GOOD), tmp_path / "out"
    (tmp_path / "lr").write_text("1")
    assert study(path, out, "--only", "grpo", "--seeds", "1") == 0
    (tmp_path / "lr").write_text("2")
    assert study(path, out, "--only", "grpo", "--seeds", "1", "2", "3") == 2
    assert "grpo-seed1 and grpo-seed2 differ in their configuration, {'lr': 1} and {'lr': 2}" in capsys.readouterr().err
    assert len(read_finished_runs(out / "runs")) == 2  # and not only after all runs
    assert study(grid(GOOD), tmp_path / "other", "--only", "grpo", "--seeds", "1") == 0
    assert "changed settings go unnoticed" in capsys.readouterr().out


def test_seconds_are_those_of_the_attempts_that_were_kept(grid, tmp_path):
    """An attempt that left no checkpoint is repeated; its time is no cost of the method."""
    body = "if not (out / 'once').exists():\n    (out / 'once').touch(); row(1); time.sleep(5); sys.exit(3)\n" + GOOD
    out = tmp_path / "out"
    assert study(grid(body), out, "--only", "grpo", "--seeds", "1") == 0
    assert read_finished_runs(out / "runs")[0].seconds < 5


def test_controls_and_settings_have_tables(grid):
    cells = {"grpo": {"method": "grpo"}, "egsw": {"method": "egsw", "control": "grpo"}}
    records = [record("grpo", s, {4: 0.5}) for s in (1, 2)] + [record("egsw", s, {4: 0.5 + 0.1 * s}) for s in (1, 2)]
    records = [
        replace(r, configuration={"a": 1, "b": r.cell} | ({"c": "2|3"} if r.cell == "egsw" else {})) for r in records
    ]
    made = tables(read_grid(grid(cells=cells)), records)
    assert "| egsw minus grpo | +15.0 [+10.0, +20.0] | 2 of 2 |" in made["controls"]
    assert "| egsw | `b=egsw` `c=2\\|3` |" in made["settings"] and "`a=" not in made["settings"]
    with pytest.raises(GridError, match=r"cells\.egsw\.control='gpro'"):
        read_grid(grid(cells={**cells, "egsw": {"method": "egsw", "control": "gpro"}}))


@pytest.mark.parametrize(
    "change,words",
    [
        ({"cells": {"grpo": {"method": "grpo", "control": "grpo"}}}, "grpo -> grpo: a cell is no control of itself"),
        (
            {
                "cells": {
                    "grpo": {"method": "grpo", "control": "egsw"},
                    "egsw": {"method": "egsw", "control": "grpo"},
                }
            },
            "egsw -> grpo -> egsw",
        ),
        ({"cells": {"grpo": {"method": "grpo", "control": "nope"}, 1: {"method": "x"}}}, "cells.1: a name has letters"),
        ({"cells": {"grpo": {"method": "grpo", "overrides": {"x": {1, 2}}}}}, "cells.grpo.overrides.x="),
        ({"experiments": {"methods": {"seeds": 10**10, "cells": ["grpo"]}}}, "at most 1000"),
        ({"experiments": {"others": {"seeds": 1, "cells": ["grpo"]}}}, "choose another name"),
    ],
)
def test_grids_that_are_refused(grid, tmp_path, change, words):
    content = {
        "launcher": str(grid()),  # any file
        "steps": 4,
        "time_limit": 60,
        "baseline": "grpo",
        "cells": {"grpo": {"method": "grpo"}},
        "experiments": {"methods": {"seeds": 1, "cells": ["grpo"]}},
    }
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(content | change))
    with pytest.raises(GridError, match=re.escape(words)):
        read_grid(path)


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": "12"},
        {"seconds": math.nan},
        {"machine": None},
        {"versions": []},
        {"inputs": None},
        {"configuration": None},
        {"lines": None},
        {"lines": [1, 2]},
        {"cell": None},
        {"seed": "1"},
        {"seed": -1},
        {"seed": True},
    ],
)
def test_a_record_with_a_field_of_another_kind_is_refused(tmp_path, change):
    path = write_finished_run(record(), tmp_path)
    content = json.loads(gzip.decompress(path.read_bytes())) | change
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(ValueError, match="is no record of a run that this version reads"):
        read_finished_run(path)


@pytest.mark.parametrize(
    "lines,words",
    [
        (lambda lines: lines[:2], "no metrics of step 3, 4"),
        (lambda lines: lines[1:], "no metrics of step 1"),
        (lambda lines: [*lines[:3], lines[3][:20]], "damaged line"),
        (lambda lines: [], "no metrics of step 1"),
    ],
)
def test_a_record_that_is_not_whole_is_in_no_table(grid, tmp_path, capsys, lines, words):
    whole = record()
    write_finished_run(replace(whole, lines=tuple(lines(list(whole.lines)))), tmp_path / "runs")
    assert report(grid(), tmp_path / "runs", None, tmp_path / "out", False, []) == 1
    error = capsys.readouterr().err
    assert "the record grpo-seed1 is not whole" in error and words in error


def test_a_cell_that_comes_twice_is_refused(tmp_path):
    """YAML's readers keep the last one."""
    path = tmp_path / "grid.yaml"
    path.write_text("cells:\n  grpo: {method: grpo}\n  egsw: {method: egsw}\n  egsw: {method: gtpo}\n")
    with pytest.raises(GridError, match=r"grid.yaml: not YAML \(line 4: 'egsw' comes more than once\)"):
        read_grid(path)


def test_only_the_marked_parts_of_a_page_change():
    page = "# A\n\n<!-- table: x -->\nold | text\n<!-- end -->\nwords\n<!-- table: y.z -->\n<!-- end -->\n"
    filled = fill(page, {"x": "new\n", "y.z": "also\n"})
    assert (
        filled
        == "# A\n\n<!-- table: x -->\n\nnew\n\n<!-- end -->\nwords\n<!-- table: y.z -->\n\nalso\n\n<!-- end -->\n"
    )
    assert fill(filled, {"x": "new\n", "y.z": "also\n"}) == filled
    with pytest.raises(ValueError, match="there is no such table"):
        fill(page, {"x": ""})
    with pytest.raises(ValueError, match="no <!-- table"):
        fill("words", {"x": ""})
    for damaged in ("<!-- table: x -->\nold\n", "<!-- table:x -->\n<!-- end -->\n" + page, page + "<!-- end -->"):
        with pytest.raises(ValueError, match="of its own"):
            fill(damaged, {"x": "", "y.z": ""})


def test_a_report_without_records_or_with_a_wrong_page_writes_nothing(grid, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    assert report(grid(), tmp_path / "runs", None, tmp_path / "out", False, []) == 1
    assert "holds no record" in capsys.readouterr().err
    write_finished_run(record(), tmp_path / "runs")
    assert report(grid(steps=5), tmp_path / "runs", None, tmp_path / "out", False, []) == 1
    assert "the record grpo-seed1 was made with" in capsys.readouterr().err
    page = tmp_path / "page.md"
    page.write_text("<!-- table: gone -->\n<!-- end -->\n")
    assert report(grid(), tmp_path / "runs", page, tmp_path / "out", False, []) == 1
    assert page.read_text() == "<!-- table: gone -->\n<!-- end -->\n" and not (tmp_path / "out").exists()


def test_the_shipped_grid_names_methods_that_exist():
    for quick in (False, True):
        grid = read_grid(ROOT / "recipes/study/grid.yaml", quick)
        for cell, _ in grid.runs():
            assert (ROOT / "recipes/method" / f"{cell.method}.yaml").exists()
    assert os.access(grid.launcher, os.X_OK)


@pytest.mark.parametrize("page,grid", [("study", "grid"), ("study_smollm2", "smollm2")])
def test_the_published_tables_are_those_of_the_published_records(page, grid):
    records = read_finished_runs(ROOT / "docs" / page / "runs")
    made = tables(read_grid(ROOT / "recipes/study" / f"{grid}.yaml"), records)
    made |= tables_beside(ROOT / "docs" / page / "runs")
    page = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert fill(page, made) == page
    assert not any("damaged" in note for record in records for note in record.metrics.left_out)


def test_the_table_of_what_the_language_model_learnt_is_the_records(capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import language_model_learning

    monkeypatch.setattr("sys.argv", ["x", str(ROOT / "docs/study_smollm2/recipe_runs")])
    language_model_learning.main()
    assert capsys.readouterr().out.strip() in (ROOT / "recipes/reasoning_gym/README.md").read_text()


def test_what_the_study_page_says_beyond_its_tables():
    """Of intervals and p-values that no table has: docs/study.md, "Defaults" and "What this does not show"."""
    grid = read_grid(ROOT / "recipes/study/grid.yaml")
    records = read_finished_runs(ROOT / "docs/study/runs")
    cells = by_cell(records)
    pairs = {(name, e.baseline) for e in grid.experiments.values() for name in e.cells if name != e.baseline}
    pairs |= {(name, cell.control) for name, cell in grid.cells.items() if cell.control}
    widest, to_grpo = [], []
    for measure in (FINAL, MEAN, TRAINING):
        widths = {}
        for pair in pairs:
            found = paired(*(cells[name] for name in pair), measure.of)
            if found and found.half_width is not None:
                widths[pair] = len(found.values), measure.scale * found.half_width
        widest.append([round(max(w for n, w in widths.values() if (n >= 5) == many)) for many in (True, False)])
        ends = [w for (_, baseline), (n, w) in widths.items() if n >= 5 and baseline == "grpo"]
        to_grpo.append((min(ends), max(ends)))
    assert widest == [[9, 25], [5, 12], [3, 9]]
    for (low, high), (least, most) in zip(to_grpo, [(1.5, 7), (1, 3.5), (0.5, 2.5)], strict=True):
        assert least <= low and high <= most

    corrected = {}
    for measure in (MEAN, TRAINING):  # both tables of seeds 4 to 8 as one family
        found = {
            (experiment, name): d.p_value
            for experiment in ("chosen", "chosen_options")
            for name, d in differences(grid.experiments[experiment], records, measure).items()
        }
        assert len(found) == 5
        corrected[measure.title] = holm(found)["chosen_options", "egsw_alpha0.5_p3"]
    assert corrected[MEAN.title] > 0.05 > corrected[TRAINING.title]


def test_what_the_language_models_page_says_beyond_its_tables():
    page = (ROOT / "docs/study_smollm2.md").read_text()
    records = read_finished_runs(ROOT / "docs/study_smollm2/runs")
    runs = {record.name: record for record in records}
    curves = {name: success_curve(record) for name, record in runs.items()}
    starts = [100 * curve[0] for curve in curves.values()]
    assert f"({min(starts):.1f} to {max(starts):.1f} %; 256 responses each)" in page
    methods = ("grpo", "egsw", "gtpo", "grpo_s")
    ends = {name: [100 * curves[f"{name}-seed{seed}"][60] for seed in (2, 1)] for name in methods}
    last = [f"{fmean(ends[name]):.0f}" for name in methods]
    assert "GRPO solves {} % of the held-out problems, EGSW {}, GTPO {} and GRPO-S {}".format(*last) in page
    ahead, behind = ([ends[name][place] - ends["grpo"][place] for name in methods[1:]] for place in (0, 1))
    assert "ahead of GRPO, by {:.0f}, {:.0f} and {:.0f} points; with".format(*ahead) in page
    assert "each is behind, by {:.0f}, {:.0f} and {:.0f};".format(*(-points for points in behind)) in page
    means = {name: [100 * mean_success(runs[f"{name}-seed{seed}"]) for seed in (1, 2)] for name in methods}
    for record in records:
        if record.cell in ("gtpo", "grpo_s"):
            assert 2 <= round(100 * (mean_success(record) - mean_success(runs[f"grpo-seed{record.seed}"]))) <= 5
    assert abs(fmean(means["egsw"]) - fmean(means["grpo"])) < 0.5
    starting = [100 * fmean(curves[f"grpo-seed{seed}"][step] for seed in (1, 2)) for step in (0, 20, 40, 60)]
    assert "{:.0f} % solved at the start, {:.0f}, {:.0f} and {:.0f} % after 20".format(*starting) in page
    for cell, seed in itertools.product(("egsw", "gtpo"), (1, 2, 3)):
        if (cell, seed) == ("egsw", 3):
            continue
        with_entropy, without = (runs[f"{name}-seed{seed}"] for name in (cell, f"{cell}_alpha0"))
        for measure in (final_success, mean_success, training_success):
            assert abs(measure(with_entropy) - measure(without)) < 0.03
    credit = re.findall(r"^\| (egsw|gtpo|grpo_s) \|(?: [\d.]+ \|){3} (\d+) \|", page, re.MULTILINE)[:3]
    assert "{} % of EGSW's credit, {} % of GTPO's and {} % of GRPO-S's".format(*(part for _, part in credit)) in page
    whole = [100 * training_success(record) for record in records]
    assert f"{min(whole):.0f} to {max(whole):.0f} % is right" in page
    shares = {record.name: 100 * training_success(record) for record in records}
    for seed, gtpo, grpo in ((1, 40, 39), (2, 40, 37), (3, 39, 38)):
        ours = {cell: share for cell, share in shares.items() if cell.endswith(f"seed{seed}")}
        assert max(ours, key=ours.get) == f"gtpo-seed{seed}" and round(ours[f"gtpo-seed{seed}"]) == gtpo
        assert round(ours[f"grpo-seed{seed}"]) == grpo
    assert [round(shares[f"grpo_s-seed{seed}"]) for seed in (1, 2)] == [37, 38]
    third = {"grpo": "GRPO", "egsw": "EGSW", "egsw_alpha0": "EGSW without its entropy", "gtpo": "GTPO"}
    third["gtpo_alpha0"] = "GTPO without its entropy"
    assert {record.cell for record in records if record.seed == 3} == third.keys()
    for cell, name in third.items():
        measured = (100 * of(runs[f"{cell}-seed3"]) for of in (final_success, mean_success, training_success))
        assert "{} ({:.1f}, {:.1f}, {:.1f})".format(name, *measured) in page.replace("\n", " ")
    measures, flat = (final_success, mean_success, training_success), page.replace("\n ", "")
    less = (100 * (of(runs["egsw_alpha0-seed3"]) - of(runs["egsw-seed3"])) for of in measures)
    assert "behind itself without entropy, by {:.0f}, {:.0f} and {:.0f} points".format(*less) in flat
    gains = [[of(runs[f"gtpo-seed{n}"]) - of(runs[f"gtpo_alpha0-seed{n}"]) for n in (1, 2, 3)] for of in measures]
    assert [all(gain > 0 for gain in seeds) for seeds in gains] == [False, False, True]
    assert (
        "seeds, by {:.0f}, {:.0f} and {:.0f} points, and not in the other".format(*(100 * g for g in gains[2])) in flat
    )
    more = [
        [mean_success(runs[f"{name}_alpha0-seed{n}"]) - mean_success(runs[f"grpo-seed{n}"]) for n in (1, 2, 3)]
        for name in ("egsw", "gtpo")
    ]
    assert all(difference > 0 for seeds in more for difference in seeds)
    by = (100 * fmean(seeds) for seeds in more)
    assert "in the mean of all validations, by {:.0f} and {:.0f} points, which".format(*by) in flat
    assert "*" not in page.partition("<!-- table: methods-differences -->")[2].partition("\n\nMean")[0]
    behind = 100 * (curves["grpo-seed3"][60] - curves["egsw-seed3"][60])
    ahead = 100 * (curves["gtpo-seed3"][60] - curves["grpo-seed3"][60])
    assert f"EGSW is behind by {behind:.0f}, and GTPO is ahead by {ahead:.0f}." in page
    assert not any(row.get("actor/pg_clipfrac") for record in records for row in record.metrics.training)
    configuration = {record.name: record.configuration for record in records}["gtpo-seed2"]
    assert configuration["actor_rollout_ref.actor.clip_ratio_high"] == 0.28


def test_published_records_have_the_settings_of_the_grid():
    """No cell was changed after its runs; seeds 1 to 5 of the methods are complete."""
    grid = read_grid(ROOT / "recipes/study/grid.yaml")
    records = read_finished_runs(ROOT / "docs/study/runs")
    for record in records:
        cell = grid.cells[record.cell]
        assert (record.method, record.overrides, record.steps) == (cell.method, cell.overrides, grid.steps)
        assert final_success(record) is not None
    done = {(record.cell, record.seed) for record in records}
    check_records(grid, records)
    assert done >= {(name, seed) for name in grid.experiments["methods"].cells for seed in range(1, 6)}


def test_a_page_gets_the_figures_that_it_shows(grid, tmp_path):
    for seed in (1, 2):
        write_finished_run(record("grpo", seed), tmp_path / "runs")
    page = tmp_path / "page.md"
    page.write_text("![x](figures/methods-success.png)\n<!-- table: runs -->\n<!-- end -->\n")
    assert report(grid(), tmp_path / "runs", page, tmp_path / "figures", False, []) == 0
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["methods-success.png"]
    assert "| grpo-seed1, grpo-seed2 | 4 |" in page.read_text()


def test_a_report_from_inside_the_folder_of_records(grid, tmp_path, monkeypatch):
    write_finished_run(record("grpo"), tmp_path / "runs")
    (tmp_path / "steps").symlink_to(ROOT / "docs" / "study_smollm2" / "steps")
    path = grid()
    monkeypatch.chdir(tmp_path / "runs")
    before = sorted(os.listdir())
    assert main(["study", "report", str(path), "--runs", "."]) == 0
    assert sorted(os.listdir()) == before
    assert "mean weight in successes" in (tmp_path / "report" / "study.md").read_text()


def test_without_matplotlib_the_fix_is_named_and_the_tables_still_written(grid, tmp_path, monkeypatch, capsys):
    write_finished_run(record("grpo"), tmp_path / "runs")
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert report(grid(), tmp_path / "runs", None, tmp_path / "out", False, []) == 1
    assert "pip install 'egsw-plugin[report]'" in capsys.readouterr().err
    assert "| grpo-seed1 | 4 |" in (tmp_path / "out" / "study.md").read_text()
