"""The runner, with small launchers in place of verl: any command will do.

Not exercised here: a real run of verl (see the tests marked `verl_run`), and what Ray's own daemons do when ended.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path

import pytest

from egsw_plugin import runner
from egsw_plugin.cli import main
from egsw_plugin.report.metrics import read_metrics
from egsw_plugin.runner import run

# What a launcher prints and logs; the helpers are put before every script.
PRELUDE = """
import json, os, pathlib, subprocess, sys, time
out = pathlib.Path(os.environ["OUT"])

def say(text):
    print(text, flush=True)

def log(text):
    with open(out / "metrics.jsonl", "a") as file:
        file.write(text)

def step(n, **more):
    data = {"critic/score/mean": n / 10, "actor/entropy": 0.31, "response_length/mean": 14.25, **more}
    log(json.dumps({"step": n, "data": data}) + "\\n")
"""

STARTUP = """
say("model params 95296 -> tiny")
say("ray init kwargs: {'num_cpus': 2}")
say("2026-11-21 11:40:15,269\\tINFO worker.py:2038 -- Started a local Ray instance.")
say("\\x1b[36m(TaskRunnerV1 pid=7)\\x1b[0m INFO:2026:create worker group dict_keys(['actor_rollout'])")
say("(TaskRunnerV1 pid=7) INFO:2026:actor and ref model engine initialized")
say("(TaskRunnerV1 pid=7) [egsw] on: temperature 0.5")
say("(WorkerDict pid=8) [egsw] on: temperature 0.5")
say("(TaskRunnerV1 pid=7) INFO:2026:all initialize finished, ready to fit")
say("(TaskRunnerV1 pid=7) Training Progress:   0%|          | 0/3 [00:00<?, ?it/s]")
"""


@pytest.fixture
def launch(tmp_path):
    """Runs a script as the launcher and returns its exit code."""

    def call(script, steps=None, time_limit=60):
        path = tmp_path / "launcher.py"
        path.write_text(PRELUDE + script)
        return run([sys.executable, str(path)], tmp_path / "out", steps, time_limit)

    return call


def is_gone(pid: int, seconds: float = 20) -> bool:
    """Whether the process ends in time; one that nobody has waited for yet (a zombie) has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_good_run_shows_stages_and_one_line_a_step(launch, tmp_path, capfd):
    acts = "**{'egsw/effective_share/mean': 0.934, 'egsw/changed/mean': 0.5}"
    script = STARTUP + f"for n in (1, 2, 3):\n    step(n, {acts})\n    time.sleep(0.5)\n"
    assert launch(script) == 0
    shown = capfd.readouterr().out
    stages = [
        "preparing",
        "model params",
        "starting Ray",
        "loading the actor",
        "vLLM",
        "first rollout",
        "step 1/3",
        "done",
    ]
    places = [shown.find(stage) for stage in stages[1:]]
    assert -1 not in places and places == sorted(places)
    first = "step 1/3  reward 0.100  entropy 0.310  length 14.2  changed 0.50  effective share 0.93\n"
    assert first in shown  # no time left yet
    assert "step 2/3  reward 0.200" in shown and " left\n" in shown
    assert shown.count("[egsw] on: temperature 0.5") == 1
    assert "TaskRunnerV1" in (tmp_path / "out/train.log").read_text() and "TaskRunnerV1" not in shown


def test_absent_metrics_are_left_out_and_validation_has_its_own_line(launch, capfd):
    script = """
log(json.dumps({"step": 0, "data": {"val-core/x/reward/mean@1": 0.25}}) + "\\n")
log(json.dumps({"step": 1, "data": {"critic/score/mean": 0.5, "actor/entropy": None}}) + "\\n")
"""
    assert launch(script, steps=1) == 0
    shown = capfd.readouterr().out
    assert "validation  val-core/x/reward/mean@1 0.250\n" in shown
    assert "step 1/1  reward 0.500\n" in shown


def test_rows_written_in_pieces_and_garbage_are_read_once(launch, capfd):
    script = """
log('{"step": 1, "data": {"critic/sco'); time.sleep(0.6); log('re/mean": 0.5}}\\ngarbage\\n\\n'); time.sleep(0.6)
step(2)
"""
    assert launch(script, steps=2) == 0
    shown = capfd.readouterr().out
    assert shown.count("step 1/2") == 1 and shown.count("step 2/2") == 1


def test_outputs_of_an_earlier_run_are_moved_away_and_nothing_else(launch, tmp_path, capfd):
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.jsonl").write_text('{"step": 99, "data": {"critic/score/mean": 9.0}}\n')
    (out / "notes.txt").write_text("mine")
    (out / "inspect-gtpo.html").write_text("a page of its tokens")
    for place in (out, out / "previous"):  # what the run before that one left is replaced
        (place / "validation").mkdir(parents=True)
        (place / "validation" / f"{place.name}.jsonl").write_text("")
    assert launch("step(1)", steps=1) == 0
    assert "99" not in capfd.readouterr().out
    assert [path.name for path in (out / "previous/validation").iterdir()] == ["out.jsonl"]
    assert not (out / "validation").exists()
    assert (out / "previous/inspect-gtpo.html").exists() and not (out / "inspect-gtpo.html").exists()
    assert "99" in (out / "previous/metrics.jsonl").read_text()
    assert (out / "notes.txt").read_text() == "mine"


def test_a_failure_shows_its_cause_and_the_childs_exit_code(launch, capfd):
    assert launch(STARTUP + "step(1)\nraise ValueError('no such temperature')") == 1
    shown = capfd.readouterr().out
    assert "exit code 1 (last stage: training, after step 1)" in shown
    assert "ValueError: no such temperature" in shown and "launcher.py:" in shown
    assert shown.rstrip().endswith("out/train.log")
    assert launch("sys.exit(7)") == 7


def test_ending_before_the_last_step_is_a_failure(launch, capfd):
    assert launch(STARTUP + "step(1)\nstep(2)") == 1
    assert "the last step logged is 2 of 3" in capfd.readouterr().out
    assert launch("say('hello')") == 1
    assert "no training step was logged" in capfd.readouterr().out


def test_a_validation_without_training_is_a_good_run(launch, capfd):
    """trainer.val_only: verl announces no steps."""
    rows = """log(json.dumps({"step": 0, "data": {"val-core/math/acc/mean@2": 0.25}}) + "\\n")"""
    assert launch(rows) == 0
    assert "done: validated in" in capfd.readouterr().out


def test_a_validation_is_no_training(launch, capfd):
    rows = """log(json.dumps({"step": 0, "data": {"val-core/math/acc/mean@2": 0.25}}) + "\\n")"""
    assert launch(rows, steps=3) != 0
    assert "no training step was logged" in capfd.readouterr().out


def test_a_killed_launcher_is_named(launch, capfd):
    assert launch("import signal\nos.kill(os.getpid(), signal.SIGKILL)") == 128 + signal.SIGKILL
    assert "killed by SIGKILL" in capfd.readouterr().out


def test_a_launcher_that_cannot_start_is_named(tmp_path, capfd):
    assert run([str(tmp_path / "nothing")], tmp_path / "out", None, 60) == 127
    assert "cannot start" in capfd.readouterr().out


@pytest.mark.timeout(120)
def test_time_limit_ends_every_process_also_in_other_sessions(launch, tmp_path, capfd, monkeypatch):
    """The launcher ignores polite signals; one grandchild has a session of its own, as Ray's daemons do."""
    monkeypatch.setattr("egsw_plugin.runner.END_GRACE", 0.5)
    script = (
        """
import signal
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
pids = [os.getpid(), subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid]
(out / "pids").write_text(" ".join(map(str, pids)))
"""
        + STARTUP
        + "time.sleep(600)"
    )
    assert launch(script, time_limit=4) == 124
    shown = capfd.readouterr().out
    assert "the time limit of 4 s passed (last stage: first rollout)" in shown
    pids = list(map(int, (tmp_path / "out/pids").read_text().split()))
    assert len(pids) == 3 and all(is_gone(pid) for pid in pids)


def test_a_launchers_own_time_limit_is_named(launch, capfd):
    assert launch("sys.exit(124)") == 124
    assert "a limit inside the launcher (a recipe's: TIME_LIMIT or STALL_LIMIT, seconds)" in capfd.readouterr().out


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_the_runner_ends_the_run(tmp_path, number, code):
    script = tmp_path / "launcher.sh"
    script.write_text('echo $$ > "$OUT/pid"; sleep 600 & echo $! > "$OUT/sleeper"; wait\n')
    command = [sys.executable, "-m", "egsw_plugin.cli", "run", "--out", str(tmp_path), "--", "bash", str(script)]
    main_call = (
        "import sys; from egsw_plugin import cli, runner; runner.END_GRACE = 0.5; sys.exit(cli.main(sys.argv[1:]))"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", main_call, *command[3:]],
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored; the tests may be part of one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "sleeper").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    os.kill(runner.pid, number)
    shown, _ = runner.communicate(timeout=180)
    assert runner.returncode == code
    assert f"stopped by {number.name}" in shown
    assert is_gone(int((tmp_path / "pid").read_text())) and is_gone(int((tmp_path / "sleeper").read_text()))


# A trainer that waits for ever, beside an engine of its own: processes under the names of the real ones.
WAITING = """
def called(name, script):
    return subprocess.Popen(["bash", "-c", f"exec -a {name} {sys.executable} -c '{script}'"])

engine = called("VLLM::EngineCore", "import time; time.sleep(100)")
trainer = called("ray::TaskRunner.run", f"import time; time.sleep({LIVES})")
time.sleep(2)
engine.kill()
engine.wait()
say("RuntimeError: a made-up cause")
trainer.wait()
time.sleep(3)
"""


def test_a_trainer_that_waits_for_a_dead_engine_is_ended(launch, capfd, monkeypatch):
    monkeypatch.setattr("egsw_plugin.runner.ENGINE_POLL", 0.2)
    monkeypatch.setattr("egsw_plugin.runner.ENGINE_GRACE", 1.0)
    assert launch(STARTUP + "LIVES = 100\n" + WAITING) == 1
    screen = capfd.readouterr().out
    assert "the rollout engine (process " in screen and "died, and verl waits for it" in screen
    assert "RuntimeError: a made-up cause" in screen


def test_an_engine_that_ends_with_its_trainer_is_not_missed(launch, capfd, monkeypatch):
    """As where a launcher trains, and then evaluates."""
    monkeypatch.setattr("egsw_plugin.runner.ENGINE_POLL", 0.2)
    monkeypatch.setattr("egsw_plugin.runner.ENGINE_GRACE", 1.0)
    assert launch(STARTUP + "LIVES = 2.5\n" + WAITING + "step(3)\n") == 0
    assert "died" not in capfd.readouterr().out


@pytest.mark.timeout(120)
def test_shared_memory_of_killed_processes_is_removed(launch, tmp_path):
    """As vLLM leaves it; a segment that a process of somebody else's run still maps stays."""
    foreign = shared_memory.SharedMemory(create=True, size=100)
    script = """
import signal
from multiprocessing import resource_tracker, shared_memory
segment = shared_memory.SharedMemory(create=True, size=100)
resource_tracker.unregister(segment._name, "shared_memory")
(out / "name").write_text(segment.name)
os.kill(os.getpid(), signal.SIGKILL)
"""
    try:
        assert launch(script) == 128 + signal.SIGKILL
        assert not Path("/dev/shm", (tmp_path / "out/name").read_text()).exists()
        assert Path("/dev/shm", foreign.name).exists()
    finally:
        foreign.close()
        foreign.unlink()


def test_processes_left_by_a_run_that_ended_well_are_ended(launch, tmp_path, monkeypatch):
    monkeypatch.setattr("egsw_plugin.runner.DAEMONS_GRACE", 0.5)
    monkeypatch.setattr("egsw_plugin.runner.END_GRACE", 0.5)
    script = STARTUP + (
        "step(1)\nsleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "(out / 'pid').write_text(str(subprocess.Popen(sleep, start_new_session=True).pid))\n"
    )
    assert launch(script, steps=1) == 0
    assert is_gone(int((tmp_path / "out/pid").read_text()))


def test_metrics_of_a_run_with_checkpoints_are_kept_however_often_it_is_resumed(launch, tmp_path):
    for number in (1, 2, 3):
        script = f"(out / 'checkpoints').mkdir(exist_ok=True)\nstep({number})\nsay('part {number}')\n"
        script += f"(out / 'checkpoints/latest_checkpointed_iteration.txt').write_text('{number}')"
        assert launch(script, steps=number) == 0
    out = tmp_path / "out"
    for number, name in ((1, "metrics.1.jsonl"), (2, "metrics.2.jsonl"), (3, "metrics.jsonl")):
        assert f'"step": {number}' in (out / name).read_text()
    assert "part 2" in (out / "train.2.log").read_text()
    assert not (out / "previous").exists()
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl").training] == [1, 2, 3]


def test_records_without_a_checkpoint_are_no_run_to_go_on_with(launch, tmp_path):
    """Two runs would be reported as one."""
    script = "(out / 'checkpoints/records').mkdir(parents=True)\nstep(1)\nstep(2)"
    assert launch(script, steps=2) == 0
    out = tmp_path / "out"
    (out / "metrics.1.jsonl").write_text('{"step": 3, "data": {"critic/score/mean": 9.0}}\n')
    assert launch("step(1)", steps=1) == 0
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl").training] == [1]
    assert [row["step"] for row in read_metrics(out / "previous/metrics.jsonl").training] == [1, 2, 3]
    assert (out / "previous/checkpoints/records").is_dir() and not (out / "checkpoints").exists()


def test_which_commands_make_the_same_run(tmp_path, monkeypatch):
    """`make demo` reads no DATA_DIR, a folder may be written in two ways, and older files say nothing of either."""
    for name in (*runner.VARIABLES, *runner.PLACES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    recipes = Path(__file__).parents[1] / "recipes"
    tiny, dapo = (["bash", str(recipes / place)] for place in ("tiny_cpu/run_tiny.sh", "dapo/run_qwen2.5_7b.sh"))

    def made_by(command, variables):
        with monkeypatch.context() as given:
            for name, value in variables.items():
                given.setenv(name, value)
            return runner._command_line(command)

    def alike(command, one, other):
        return runner._alike(made_by(command, one), made_by(command, other))

    here, there = {"DATA_DIR": "data"}, {"DATA_DIR": "/other"}
    files = {"TRAIN_FILES": "a.parquet", "VAL_FILES": "b.parquet"}
    assert alike(tiny, {}, there) and not alike(tiny, {}, {"ASSETS": "/other"}) and not alike(tiny, {}, {"SEED": "2"})
    for command in (dapo, ["bash", "mine.sh"]):
        assert not alike(command, {}, there) and not alike(command, here, there)
        assert alike(command, here, {"DATA_DIR": f"{tmp_path}/data/../data/"})
        assert alike(command, files, files | there) and not alike(command, here, here | files)
    assert runner._alike(shlex.join(dapo), made_by(dapo, there))


def test_a_finished_run_is_left_alone_and_another_command_is_told_so(launch, tmp_path, monkeypatch, capfd):
    script = "(out / 'checkpoints').mkdir()\nstep(1)\n"
    script += "(out / 'checkpoints/latest_checkpointed_iteration.txt').write_text('1')"
    monkeypatch.setenv("METHOD", "egsw")
    assert launch(script, steps=1) == 0
    assert launch(script, steps=1) == 0
    assert "nothing to do" in capfd.readouterr().out
    monkeypatch.setenv("DATA_DIR", "/data/other")  # where a launcher finds the files that it trains on
    assert launch(script, steps=1) == 2
    monkeypatch.delenv("DATA_DIR")
    monkeypatch.setenv("METHOD", "gtpo")
    assert launch(script, steps=1) == 2
    shown = capfd.readouterr().out
    assert "holds another run of 1 steps" in shown and "METHOD=egsw" in shown
    assert [row["step"] for row in read_metrics(tmp_path / "out/metrics.jsonl").training] == [1]


def test_command_line_writes_table_and_curves(tmp_path, capfd):
    pytest.importorskip("matplotlib")
    script = tmp_path / "launcher.py"
    script.write_text(PRELUDE + "step(1)\nstep(2)")
    arguments = ["run", "--out", str(tmp_path / "out"), "--steps", "2", "--time-limit", "60", "--"]
    assert main([*arguments, sys.executable, str(script)]) == 0
    assert "| reward | 0.1 | 0.2 | +0.1 |" in capfd.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["command.txt", "curves.png", "metrics.jsonl", "summary.md", "train.log"]
    )
    assert main(["run"]) == 2


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("egsw-plugin ")
