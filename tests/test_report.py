"""The report: why a run failed (from its log), its metrics file and validation dumps, its tables and its curves.

The log excerpts are of real failures of verl 0.9.1, shortened: colours, Ray's prefixes and the order of lines are
kept, folders are renamed. `OptionError` stands in a real traceback in place of another exception.
"""

import csv
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest

from egsw_plugin import cli
from egsw_plugin.cli import main
from egsw_plugin.report.cause import clean, find_cause
from egsw_plugin.report.curves import draw_curves, spread
from egsw_plugin.report.metrics import read_metrics
from egsw_plugin.report.page import page as html_page
from egsw_plugin.report.runs import read_runs
from egsw_plugin.report.summary import summarise
from egsw_plugin.report.tables import group_means, measure
from egsw_plugin.report.validation import read_dumps

BAD_OVERRIDE = """\
INFO:2026-11-21 11:57:24,470:Platform override from VERL_PLATFORM: cpu
Could not override 'algorithm.nonsense'.
To append to your config use +algorithm.nonsense=3
Key 'nonsense' is not in struct
    full_key: algorithm.nonsense
    object_type=dict

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""

BAD_SYNTAX = """\
INFO:2026-11-21 11:58:36,805:Platform override from VERL_PLATFORM: cpu
no viable alternative at input '['
See https://hydra.cc/docs/1.2/advanced/override_grammar/basic for details

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""

# The reward function fails in a worker; the trainer then fails for want of trajectories.
BAD_REWARD = """\
AGENT Using dataset class: RLHFDataset
AGENT ERROR:2026-11-21 11:59:49,102:Error in _run_prompt for uid=e3e1ecab
AGENT Traceback (most recent call last):
AGENT   File "/v/site-packages/verl/experimental/agent_loop/agent_loop.py", line 1026, in _compute_score
AGENT     result = await selected_reward_loop_worker_handle.compute_score.remote(data)
AGENT              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
AGENT ray.exceptions.RayTaskError(TypeError): \x1b[36mray::RewardLoopWorker.compute_score()\x1b[39m (pid=6636)
\x1b[36m(SimpleStorageUnit pid=8054)\x1b[0m 2026-11-21 12:03 - WARNING - transfer_queue.utils.common - Setting to 2.
AGENT   File "/usr/lib/python3.11/concurrent/futures/thread.py", line 58, in run
AGENT     result = self.fn(*self.args, **self.kwargs)
AGENT              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
AGENT   File "/v/site-packages/verl/trainer/ppo/reward.py", line 38, in _call_with_kwargs
AGENT     return raw_fn(*args, **merged_kwargs)
AGENT            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
AGENT   File "/home/me/bad_reward.py", line 2, in compute_score
AGENT     return {"score": float(ground_truth["nothing"])}
AGENT                            ~~~~~~~~~~~~^^^^^^^^^^^
AGENT TypeError: string indices must be integers, not 'str'
Error executing job with overrides: ['algorithm.adv_estimator=grpo', 'data.train_batch_size=8']
\x1b[36m(TaskRunnerV1 pid=6404)\x1b[0m Training Progress:   0%|          | 0/2 [00:17<?, ?it/s]
Traceback (most recent call last):
  File "/v/site-packages/verl/trainer/main_ppo.py", line 184, in main
    run_ppo(config, task_runner_class=TaskRunnerV1)
  File "/v/site-packages/ray/_private/worker.py", line 1053, in get_objects
    raise value.as_instanceof_cause()
ray.exceptions.RayTaskError(RuntimeError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=6404, ip=192.0.2.2)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/v/site-packages/verl/trainer/ppo/v1/trainer_base.py", line 567, in _step_once
    batch, off_policy_metrics = self.replay_buffer.sample(
                                ^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/v/site-packages/verl/trainer/ppo/v1/replay_buffer.py", line 510, in sample
    raise RuntimeError(message)
RuntimeError: Sync replay buffer selected terminal groups with no materializable trajectories. Enable trainer.v1.x.

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
""".replace("AGENT ", "\x1b[36m(AgentLoopWorkerTQ pid=6878)\x1b[0m ")

BAD_MODEL = """\
Error executing job with overrides: ['algorithm.adv_estimator=grpo']
\x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=7275, ip=192.0.2.2)
  File "/v/site-packages/huggingface_hub/utils/_validators.py", line 133, in validate_repo_id
    raise HFValidationError(
huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name': '/no-such-model'.

The above exception was the direct cause of the following exception:

\x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=7275, ip=192.0.2.2)
  File "/v/site-packages/transformers/utils/hub.py", line 488, in cached_files
    raise OSError(f"{e}") from e
OSError: Repo id must be in the form 'repo_name': '/no-such-model'.

The above exception was the direct cause of the following exception:

\x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=7275, ip=192.0.2.2)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/v/site-packages/verl/trainer/ppo/v1/trainer_base.py", line 703, in _init_tokenizer
    model_config: HFModelConfig = omega_conf_to_dataclass(self.config.actor_rollout_ref.model)
  File "/v/site-packages/hydra/_internal/instantiate/_instantiate2.py", line 138, in _call_target
    raise InstantiationException(_with_full_key(msg, full_key)) from e
hydra.errors.InstantiationException: Error in call to target 'verl.workers.config.model.HFModelConfig':
OSError("Repo id must be in the form 'repo_name': '/no-such-model'.")
full_key: actor_rollout_ref.model

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""

KILLED_WORKER = """\
\x1b[36m(WorkerDict pid=8139)\x1b[0m Total steps: 30, num_warmup_steps: 0
\x1b[33m(raylet)\x1b[0m A worker died or was killed while executing a task by an unexpected system error. To \
troubleshoot the problem, check the logs for the dead worker. Lease ID: 0300 Worker ID: 7954 Node ID: f547 Worker IP: \
192.0.2.2 Worker port: 32951 Worker PID: 8139 Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly \
exits with a connection error code 2. End of file.
Error executing job with overrides: ['algorithm.adv_estimator=grpo']
Traceback (most recent call last):
  File "/v/site-packages/verl/trainer/main_ppo.py", line 93, in run_ppo
    ray.get(runner.run.remote(config))
ray.exceptions.RayTaskError(ActorDiedError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=7945, ip=192.0.2.2)
  File "/v/site-packages/verl/single_controller/ray/base.py", line 56, in __call__
    output = ray.get(output)
             ^^^^^^^^^^^^^^^
ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
\tclass_name: create_colocated_worker_cls.<locals>.WorkerDict
\tpid: 8139
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR.

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""


def test_bad_override_is_hydras_own_paragraph():
    cause = find_cause("preparing\n" + BAD_OVERRIDE)
    assert cause.kind == "config"
    assert cause.lines[0] == "Could not override 'algorithm.nonsense'."
    assert cause.lines[-1].strip() == "object_type=dict"
    assert find_cause(BAD_SYNTAX).lines[0] == "no viable alternative at input '['"


def test_reward_error_in_a_worker_comes_before_its_consequence():
    cause = find_cause(BAD_REWARD)
    assert cause.kind == "traceback"
    assert cause.lines == [
        "TypeError: string indices must be integers, not 'str'",
        "  verl/trainer/ppo/reward.py:38 in _call_with_kwargs",
        "    return raw_fn(*args, **merged_kwargs)",
        "  /home/me/bad_reward.py:2 in compute_score",
        '    return {"score": float(ground_truth["nothing"])}',
    ]


def test_a_consequence_is_shown_when_there_is_nothing_else():
    driver = BAD_REWARD[BAD_REWARD.index("Error executing job") :]
    assert find_cause(driver).lines[0].startswith("RuntimeError: Sync replay buffer")


def test_wrong_model_path_names_path_and_key():
    cause = find_cause(BAD_MODEL)
    assert cause.kind == "config"
    assert cause.lines[0].startswith("hydra.errors.InstantiationException")
    assert "/no-such-model" in cause.lines[1]
    assert cause.lines[2] == "full_key: actor_rollout_ref.model"
    assert "Set the environment" not in "\n".join(cause.lines)


def test_our_own_error_comes_first_with_its_whole_message():
    ours = "egsw_plugin.errors.OptionError: algorithm.egsw.temperature must be positive\n  got: -1"
    log = BAD_REWARD.replace("RuntimeError: Sync", f"{ours}\nRuntimeError: Sync")
    cause = find_cause(log)
    assert cause.kind == "plugin"
    assert cause.lines[:2] == ours.split("\n")
    assert "replay_buffer.py:510" in "\n".join(cause.lines)


def test_our_own_error_that_ray_cannot_send_is_found_too():
    log = """\
Traceback (most recent call last):
  File "/v/site-packages/ray/_private/worker.py", line 1055, in get_objects
    raise value
ray.exceptions.UnserializableException: Failed to deserialize exception. Refer to https://docs.ray.io for more.
Original exception:
ray.exceptions.RayTaskError: \x1b[36mray::f()\x1b[39m (pid=15811, ip=192.0.2.2)
  File "/home/me/options.py", line 5, in f
    raise OptionError("algorithm.egsw.alpha", -1, "use a positive number")
egsw_plugin.errors.OptionError: algorithm.egsw.alpha=-1: use a positive number
"""
    assert find_cause(log).lines == [
        "egsw_plugin.errors.OptionError: algorithm.egsw.alpha=-1: use a positive number",
        "  /home/me/options.py:5 in f",
        '    raise OptionError("algorithm.egsw.alpha", -1, "use a positive number")',
    ]


def test_killed_worker_is_named_without_identifiers():
    cause = find_cause(KILLED_WORKER)
    assert cause.kind == "worker"
    assert cause.lines[0].startswith("A worker died or was killed") and "Lease ID" not in cause.lines[0]
    assert cause.lines[1] == "The process was WorkerDict pid=8139."


def test_an_exception_raised_from_another_shows_both():
    log = """Traceback (most recent call last):
  File "a.py", line 1, in f
    {}["x"]
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
    raise ValueError("no reward") from error
ValueError: no reward
"""
    assert find_cause(log).lines[:2] == ["ValueError: no reward", "raised from KeyError: 'x'"]


def test_interleaved_tracebacks_of_two_processes_are_told_apart():
    one = ["(A pid=1) " + line for line in ["Traceback", '  File "a.py", line 1, in f', "    f()", "ValueError: a"]]
    two = ["(B pid=2) " + line for line in ["Traceback", '  File "b.py", line 2, in g', "    g()", "KeyError: b"]]
    log = "\n".join(line for pair in zip(one, two, strict=True) for line in pair)
    assert find_cause(log).lines == ["ValueError: a", "  a.py:1 in f", "    f()"]


def test_without_an_exception_the_last_lines_are_shown():
    cause = find_cause("\n".join(f"line {n}" for n in range(50)) + "\n\n")
    assert cause.kind == "tail" and cause.lines[-1] == "line 49"
    assert find_cause("").lines == []


@pytest.mark.parametrize("log", [BAD_OVERRIDE, BAD_REWARD, BAD_MODEL, KILLED_WORKER])
def test_cause_is_short_and_survives_a_cut_log(log):
    for end in range(0, len(log), 97):
        assert len(find_cause(log[:end]).lines) <= 15
        assert len(find_cause(log[end:], limit=4).lines) <= 4


def test_clean_strips_colours_prefixes_and_progress_bars():
    assert clean("\x1b[36m(vLLMHttpServer pid=1)\x1b[0m (EngineCore pid=2) ready") == "ready"
    assert clean("(TaskRunnerV1 pid=1, ip=192.0.2.2) 0%\r50%\r100%\n") == "100%"
    assert clean("oops\x1b[32m [repeated 24x across cluster]\x1b[0m") == "oops"


def write_metrics(path, rows):
    path.write_text("".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in rows))
    return path


def row(step, reward, **more):
    return step, {"critic/score/mean": reward, "timing_s/step": 2.0, **more}


def test_a_report_of_metrics_needs_no_torch():
    """Its import takes a minute on a busy machine, and `run` and `report` show their tables without it."""
    code = "import sys, egsw_plugin.report.write, egsw_plugin.runner; print({'torch', 'verl'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_reader_keeps_the_last_of_repeated_steps_and_tells_validation_apart(tmp_path):
    rows = [(0, {"val-core/x/reward/mean@1": 0.1}), row(1, 0.1), row(2, 0.2), row(3, 0.3)]
    rows += [(2, {"val-core/x/reward/mean@1": 0.2}), row(2, 0.25), row(3, 0.35)]  # resumed after step 1
    metrics = read_metrics(write_metrics(tmp_path / "metrics.jsonl", rows))
    assert [(r["step"], r["critic/score/mean"]) for r in metrics.training] == [(1, 0.1), (2, 0.25), (3, 0.35)]
    assert [r["step"] for r in metrics.validation] == [0, 2]
    assert metrics.left_out == ["2 row(s) of the metrics, repeated later: step 2, 3"]


def test_reader_survives_damage_and_says_so(tmp_path):
    path = write_metrics(tmp_path / "metrics.jsonl", [row(1, 0.5, **{"actor/entropy": None, "note": "text"})])
    with open(path, "ab") as file:
        file.write(b'{"step":2,"data":{"critic/sc\n\xff\xfe\x00\n[1, 2]\n{"step":"x","data":{}}\n{"step":3}\n\n')
        file.write(b'{"step":4,"data":{"critic/score/mean":NaN,"actor/entropy":1.0}}\n{"step":5,"da')
    metrics = read_metrics(path)
    assert metrics.training == [
        {"step": 1, "critic/score/mean": 0.5, "timing_s/step": 2.0},
        {"step": 4, "actor/entropy": 1.0},
    ]
    assert metrics.left_out == [
        "6 damaged line(s) of the metrics: line 2, 3, 4, 5, 6, ...",
        "2 training step(s) without a row in the metrics: step 2, 3 "
        "(a run that dies after saving a step and before logging it goes on with the next one)",
        "critic/score/mean: no finite number at 1 step(s): step 4",
        "actor/entropy: no finite number at 1 step(s): step 1",
    ]


def test_a_mean_of_fewer_steps_says_so(tmp_path):
    """A metric of the successes has no number in a step without one."""
    rows = [
        row(n, 0.5, **{"gtpo/changed/mean": 0.5, "gtpo/successes/mean": n if n > 3 else None}) for n in range(1, 11)
    ]
    text = summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", rows)))
    assert "| gtpo/successes/mean | 4.5 (2 of 5 steps) | 8 | +3.5 |" in text
    assert "| gtpo/changed/mean | 0.5 | 0.5 | +0 |" in text


def test_damaged_lines_of_a_run_that_went_on_are_named_by_their_file(tmp_path):
    write_metrics(tmp_path / "metrics.1.jsonl", [row(1, 0.1), row(2, 0.2)])
    path = write_metrics(tmp_path / "metrics.jsonl", [row(3, 0.3)])
    for part in (tmp_path / "metrics.1.jsonl", path):
        part.write_text(part.read_text() + '{"step": 4, "da')
    metrics = read_metrics(path)
    assert [r["step"] for r in metrics.training] == [1, 2, 3]
    assert metrics.left_out == ["2 damaged line(s) of the metrics: line metrics.1.jsonl:3, metrics.jsonl:2"]


def test_summary_against_numbers_worked_by_hand(tmp_path):
    # rewards 0.1 ... 1.2: first five 0.3, last five 1.0; shares 1 - step/20: 0.85 and 0.5; 12 steps of 2 s
    rows = [
        row(n, n / 10, **{"egsw/effective_share/mean": 1 - n / 20, "response_length/mean": 10}) for n in range(1, 13)
    ]
    text = summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", rows)))
    assert "|  | steps 1-5 | steps 8-12 | change |" in text
    assert "| reward | 0.3 | 1 | +0.7 |" in text
    assert "| response length (tokens) | 10 | 10 | +0 |" in text
    assert "| entropy (nats) | not logged | not logged |  |" in text
    assert "| egsw/effective_share/mean | 0.85 | 0.5 | -0.35 |" in text
    assert "The reward rose: 0.3 to 1 (+0.7)." in text
    assert "12 steps in 0:24, 2 s a step (median)" in text


def test_summary_says_where_a_run_that_collapsed_was_best(tmp_path):
    """Rewards 1 to 10 and back to 2; five steps around the highest, 8 9 10 9 8, are the best."""
    rewards = [*range(1, 11), *range(9, 1, -1)]
    rows = [row(n, reward) for n, reward in enumerate(rewards, 1)]
    text = summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", rows)))
    assert "The reward rose: 3 to 4 (+1). It was highest, 8.8, at steps 8-12." in text
    assert "highest" not in summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", rows[:11])))
    lower = [row(n, reward) for n, reward in enumerate([-1] * 5 + [0] * 5 + [-2] * 10, 1)]
    assert "highest, 0, at steps 6-10" in summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", lower)))


def test_weights_that_change_nothing_are_not_read(tmp_path):
    weights = {"gtpo/effective_share/mean": 0.7, "gtpo/weight/max": 3.0, "gtpo/weight/min": 0.1}
    rows = [row(n, 0.5, **weights, **{"gtpo/changed/mean": changed}) for n, changed in ((1, 0), (2, 0.5))]
    first, second = read_metrics(write_metrics(tmp_path / "m.jsonl", rows)).training
    assert not weights.keys() & first.keys() and weights.keys() <= second.keys()


def test_summary_of_few_steps_never_compares_a_step_with_itself(tmp_path):
    three = read_metrics(write_metrics(tmp_path / "m.jsonl", [row(1, 0.5), row(2, 0.9), row(3, 0.25)]))
    assert "|  | step 1 | step 3 | change |" in summarise(three)
    assert "The reward fell: 0.5 to 0.25 (-0.25)." in summarise(three)
    assert "No training step" in summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", [])))


def test_summary_lists_the_metrics_of_any_method(tmp_path):
    rows = [row(n, 0.5, **{"gtpo/effective_share/mean": 0.5, "gtpo/bonus/max": 2.0, "other/x": 1}) for n in (1, 2)]
    text = summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", rows)))
    assert "| gtpo/effective_share/mean | 0.5 | 0.5 | +0 |" in text
    assert "| gtpo/bonus/max |" in text and "other/x" not in text


def png_size(path):
    image = pytest.importorskip("matplotlib.image")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    height, width, _ = image.imread(path).shape
    return width, height


@pytest.mark.parametrize("steps", [0, 1, 3, 100])
def test_curves_are_a_png_also_of_a_run_without_the_metrics(tmp_path, steps):
    pytest.importorskip("matplotlib")
    rows = [{"step": n, "critic/score/mean": n / 10} for n in range(steps)]
    draw_curves({"a run": [rows]}, tmp_path / "curves.png")
    width, height = png_size(tmp_path / "curves.png")
    assert height > 500 and width > 800


def test_curves_of_runs_of_different_lengths_and_of_odd_names(tmp_path):
    pytest.importorskip("matplotlib")
    long, short = ([{"step": n, "critic/score/mean": n / 10} for n in range(1, steps)] for steps in (9, 3))
    draw_curves({"_a $x^{ run": [long, short], "b": [short], "nothing": [[]], "": []}, tmp_path / "curves.png")
    assert png_size(tmp_path / "curves.png") > (800, 500)
    assert spread([long, short], "critic/score/mean")[1:3] == [(2, 0.2, 0.2, 0.2), (3, 0.3, 0.3, 0.3)]


def test_spread_worked_by_hand():
    runs = [[{"step": 1, "x": 1.0}, {"step": 2}], [{"step": 1, "x": 4.0}, {"step": 2, "x": 7.0}], []]
    assert spread(runs, "x") == [(1, 2.5, 1.0, 4.0), (2, 7.0, 7.0, 7.0)]


def test_missing_matplotlib_is_named_and_the_tables_still_written(tmp_path, monkeypatch, capsys):
    write_metrics(tmp_path / "metrics.jsonl", [row(1, 0.1), row(2, 0.2)])
    write_dump(tmp_path / "validation", 1, {"p": [1, 0]})
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said == "egsw-plugin report: the figures need matplotlib: pip install 'egsw-plugin[report]'\n"
    assert (tmp_path / "summary.md").exists() and (tmp_path / "results.md").exists()
    assert not (tmp_path / "curves.png").exists()


def test_report_command_redoes_table_and_curves(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    write_metrics(tmp_path / "metrics.jsonl", [row(1, 0.1), row(2, 0.2)])
    assert main(["report", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert (tmp_path / "summary.md").read_text() in output
    assert "left out" not in output  # a run without validation lacks nothing
    assert (tmp_path / "curves.png").exists() and not (tmp_path / "results.md").exists()
    assert main(["report", str(tmp_path / "metrics.jsonl")]) == 0


def write_dump(folder, step, prompts, **fields):
    """A dump as verl 0.9.1 writes it; `prompts` holds the acc of each response, `fields` more, one value a response."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (prompt, right) in enumerate(prompts.items()):
        for session, acc in enumerate(right):
            rows.append(
                {"input": prompt, "output": "...", "gts": "7", "score": 2.0 * acc - 1, "step": step, "acc": acc}
                | {"uid": f"uid_{number}_{session}_0"}
                | {name: values[len(rows)] for name, values in fields.items()}
            )
    path = folder / f"{step}.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def only(dumps):
    (evaluation,) = dumps.evaluations
    return evaluation


def test_what_verl_itself_writes_is_read(tmp_path):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    extra = {"acc": [True, False, True, True], "pred": ["7", "8", "7", None], "reward": [1.0, 0.0, 1.0, 1.0]}
    extra["uid"] = ["a-1_0_0", "a-1_1_0", "b-2_0_0", "b-2_1_0"]
    texts = [["x", "x", "y", "y"], ["..."] * 4, ["7"] * 4, [1.0, 0.0, 1.0, 1.0]]
    PPOTrainer._write_generations(*texts, extra, str(tmp_path), 20)
    dumps = read_dumps(tmp_path, ["math"])
    found = only(dumps)
    assert (found.data_set, found.step, found.judged_by) == ("math", 20, "acc")
    assert (found.correct.tolist(), found.samples.tolist()) == ([1, 2], [2, 2])
    assert found.majority.tolist() == [0.5, 1.0]
    assert (dumps.left_out, dumps.notes) == ([], [])


def test_of_a_session_with_several_outputs_the_last_one_counts(tmp_path):
    path = write_dump(tmp_path, 1, {"p": [1, 0]}, pred=["7", "8"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    edited = [r | {"uid": r["uid"][:-1] + "1", "input": "p, edited", "pred": "late"} for r in rows]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows[:1] + edited + rows[1:]))
    found = only(read_dumps(tmp_path, ["x"]))
    assert (found.correct.tolist(), found.samples.tolist()) == ([1], [2])
    assert found.majority.tolist() == [0.5]  # "late" is right in one session of two


def test_success_is_acc_if_there_is_one_and_else_the_score(tmp_path):
    write_dump(tmp_path, 1, {"p": [1, 0, 1]}, acc=[1, None, 0.2], score=[-1.0, 1.0, 1.0])
    found = only(read_dumps(tmp_path, ["x"]))
    assert (found.correct.tolist(), found.judged_by) == ([2], "acc and score")


def test_data_sets_are_told_apart_by_the_dump_or_by_the_metrics_or_not_at_all(tmp_path):
    write_dump(tmp_path, 1, {"p": [1], "q": [0], "r": [1]}, data_source=["a", "b", "a"])
    found = [(e.data_set, e.correct.tolist()) for e in read_dumps(tmp_path, []).evaluations]
    assert found == [("a", [1, 1]), ("b", [0])]
    write_dump(tmp_path, 1, {"p": [1], "q": [0]})
    assert only(read_dumps(tmp_path, ["math"])).data_set == "math"
    several = read_dumps(tmp_path, ["a", "b"])
    assert only(several).data_set == "a + b"
    assert "results for each of a, b" in several.left_out[0] and "data_source" in several.left_out[0]
    unnamed = read_dumps(tmp_path, [])
    assert only(unnamed).data_set == "(unnamed)" and "the data set's name" in unnamed.left_out[0]


def test_prompts_that_the_data_repeat_are_one_prompt(tmp_path):
    path = write_dump(tmp_path, 1, {"p": [1], "q": [0], "r": [1]})
    path.write_text(path.read_text().replace('"input": "r"', '"input": "p"'))
    dumps = read_dumps(tmp_path, ["aime"])
    assert (only(dumps).correct.tolist(), only(dumps).samples.tolist()) == ([2, 0], [2, 1])
    assert dumps.notes == [
        "aime: 3 rows of the data hold 2 different prompts; responses to equal prompts are counted together"
    ]


def test_a_dump_of_another_verl_without_uid_is_grouped_by_its_text(tmp_path):
    rows = [{"input": text, "gts": "7", "score": score} for text, score in (("p", 1.0), ("q", 0.0), ("p", 0.0))]
    (tmp_path / "30.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = only(read_dumps(tmp_path, ["x"]))
    assert (found.step, found.judged_by, found.majority) == (30, "score", None)
    assert (found.correct.tolist(), found.samples.tolist()) == ([1, 0], [2, 1])


def test_damage_in_dumps_is_named_and_the_rest_is_used(tmp_path):
    path = write_dump(tmp_path, 5, {"p": [1, 0, 1, 0], "q": [1, 1, 0, 0]})
    good = path.read_text().splitlines(keepends=True)
    other = json.loads(good[0])
    bad = [other | {"acc": float("nan")}, other | {"acc": "yes"}, other | {"acc": 10**400}, {"score": 1.0}, [1], 3]
    bad = [json.dumps(r) + "\n" for r in bad]
    path.write_text("".join([*good, good[4], *bad, "[" * 100000 + "\n", "\n", good[0][:30]]))
    (tmp_path / "6.jsonl").write_text("")
    (tmp_path / "7.jsonl").mkdir()
    (tmp_path / "latest.jsonl").write_bytes(b'\xff\x00\n{"input": "p", "score": 1}\n')
    (tmp_path / "copy of 5.jsonl").write_text(good[0])
    dumps = read_dumps(tmp_path, ["x"])
    assert (only(dumps).correct.tolist(), only(dumps).samples.tolist()) == ([2, 2], [4, 4])
    assert sorted(dumps.left_out) == [
        "5.jsonl: 1 repeated row(s), the last one is used: line 9",
        "5.jsonl: 1 row(s) with neither uid nor input: line 13",
        "5.jsonl: 3 row(s) without a finite acc or score: line 10, 11, 12",
        "5.jsonl: 4 damaged line(s): line 14, 15, 16, 18",
        "6.jsonl: empty",
        "7.jsonl: cannot be read (Is a directory)",
        "copy of 5.jsonl: 1 row(s) of step 5, which another file has",
        "latest.jsonl: 1 damaged line(s): line 1",
        "latest.jsonl: 1 row(s) without a step: line 2",
        "x: maj@k, the dump has no answers (field pred, if the reward function returns it)",
    ]


def test_a_dump_cut_anywhere_never_fails(tmp_path):
    text = write_dump(tmp_path, 1, {"p": [1, 0], "q é": [1, 1]}, pred=["7", None, [1], float("nan")]).read_bytes()
    for end in range(len(text)):
        (tmp_path / "1.jsonl").write_bytes(text[:end])
        for found in read_dumps(tmp_path, []).evaluations:
            assert measure("run", found)


def test_unequal_numbers_of_responses(tmp_path):
    write_dump(tmp_path, 1, {"p": [1, 0, 0, 0], "q": [1, 1], "r": [0, 0, 0, 0]}, pred=[*"7888", *"77", *"8888"])
    dumps = read_dumps(tmp_path, ["x"])
    numbers = {r.name: (r.value, r.prompts) for r in measure("run", only(dumps))}
    assert numbers["Mean@4"] == (pytest.approx(100 * (0.25 + 1 + 0) / 3), 3)
    assert numbers["Pass@4"] == (50, 2) and numbers["maj@4"] == (0, 2)
    assert dumps.left_out == [
        "x, step 1: Pass@k and maj@k of prompts with fewer than k responses (1 of 3 prompts have fewer than 4)"
    ]


def test_prompts_with_more_responses_than_most_vote_with_their_first(tmp_path):
    answers = [*"77", *"88", *"7888"]  # of r the first two are a tie
    write_dump(tmp_path, 1, {"p": [1, 1], "q": [0, 0], "r": [1, 0, 0, 0]}, pred=answers)
    dumps = read_dumps(tmp_path, ["x"])
    numbers = {r.name: (r.value, r.prompts) for r in measure("run", only(dumps))}
    assert numbers["Mean@2"] == (pytest.approx(100 * (1 + 0 + 0.25) / 3), 3)
    assert numbers["maj@2"] == (pytest.approx(100 * (1 + 0 + 0.5) / 3), 3)
    assert dumps.left_out == ["x, step 1: from maj@2, responses beyond a prompt's first 2 (1 of 3 prompts have more)"]


def test_results_worked_by_hand(tmp_path, capsys):
    # Four responses each: p 4 right, q 1 right, r none; the most frequent answer of q is wrong.
    answers = [*"7777", *"7899", *"8888"]
    write_dump(tmp_path / "validation", 10, {"p": [1] * 4, "q": [1, 0, 0, 0], "r": [0] * 4}, pred=answers)
    assert main(["report", str(tmp_path)]) == 0
    page, output = (tmp_path / "results.md").read_text(), capsys.readouterr().out
    assert "left out: training metrics and curves: there is no" in output and "left out: training" in page
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {tmp_path.name} | 10 |")]
    # Mean (1 + 1/4 + 0)/3, Pass@4 2/3, maj@4 1/3; the same prompt thrice has chance 1/27, more than 2.5 %.
    values = ["41.7 [0.0, 100.0]", "41.7 [0.0, 100.0]", "66.7 [0.0, 100.0]", "33.3 [0.0, 100.0]"]
    assert line.split(" | ")[2:] == ["3", *values, "acc > 0.5 |"]
    assert "| run | step | prompts | Mean@4 | Pass@1 | Pass@4 | maj@4 | right if |" in page
    with open(tmp_path / "results.csv", newline="") as file:
        rows = {(r["metric"], r["k"]): r for r in csv.DictReader(file)}
    assert list(rows) == [("Mean", "4"), ("Pass", "1"), ("Pass", "4"), ("maj", "4"), ("best", "4")]
    assert rows["Pass", "4"]["value"] == "66.6667" and rows["Pass", "4"]["interval"] == "bootstrap 95 % over prompts"
    assert rows["best", "4"]["value"] == f"{100 * (1 + 1 - 0.75**4) / 3:.4f}"


def test_one_prompt_has_no_interval(tmp_path):
    write_dump(tmp_path / "validation", 1, {"p": [1, 0]})
    assert main(["report", str(tmp_path)]) == 0
    assert f"| {tmp_path.name} | 1 | 1 | 50.0 | 50.0 | acc > 0.5 |" in (tmp_path / "results.md").read_text()


def test_published_numbers_stay_apart(tmp_path):
    write_dump(tmp_path / "validation", 1, {"p": [1, 0]}, data_source=["AIME24", "AIME24"])
    assert main(["report", str(tmp_path)]) == 0
    own, published = (tmp_path / "results.md").read_text().split("# Published, not measured here")
    assert "GTPO" not in own and "34.23" not in own and tmp_path.name not in published
    assert "| Qwen2.5-7B | GTPO | 34.23 | 48.03 | 64.89 | 16.67 | 25.51 | 26.67 | 80.16 |" in published
    assert "2508.04349 v6, Table 1" in published and "read by eye" in published
    assert "| 58 | 0.702 | 0.758 |" in published
    assert "2508" not in (tmp_path / "results.csv").read_text()
    with open(tmp_path / "published.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 7 + 5 * 2 and all(r["source"].startswith("arXiv ") for r in rows)
    assert max(float(r["value"]) for r in rows if r["unit"] == "fraction") < 1


def test_seeds_of_one_experiment_are_one_line_and_one_mean(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folders = [tmp_path / name for name in ("egsw-seed1", "egsw-seed2", "grpo")]
    for folder, right in zip(folders, ([1, 1], [1, 0], [0, 0]), strict=True):
        write_dump(folder / "validation", 3, {"p": right, "q": right})
        write_metrics(folder / "metrics.jsonl", [row(1, 0.1), row(2, 0.2)])
    out = tmp_path / "together"
    assert main(["report", *map(str, folders), "--out", str(out)]) == 0
    assert "## egsw-seed1" in capsys.readouterr().out
    page = (out / "results.md").read_text()
    assert "| egsw, mean of 2 runs | 3 | 2 | 75.0 [50.0 to 100.0] |" in page
    assert "grpo, mean" not in page and "| grpo | 3 | 2 | 0.0 [0.0, 0.0] |" in page
    assert [run.group for run in read_runs(folders)] == ["egsw", "egsw", "grpo"]
    assert group_means([], {}) == []
    assert png_size(out / "curves.png") > (800, 500)


def test_labels_and_groups(tmp_path):
    paths = [tmp_path / "a/run", tmp_path / "b/run"]
    for path in paths:
        path.mkdir(parents=True)
    assert [run.label for run in read_runs(paths)] == [str(path) for path in paths]
    seeds = [tmp_path / name for name in ("a/egsw-seed1", "a/egsw-seed2", "b/egsw-seed1", "b/grpo-seed1")]
    for path in seeds:
        path.mkdir(parents=True)
    found = read_runs(seeds)
    assert [run.label for run in found] == [*map(str, seeds[:3]), "grpo-seed1"]
    assert [run.group for run in found] == [f"{tmp_path}/a/egsw", f"{tmp_path}/a/egsw", f"{tmp_path}/b/egsw", "grpo"]
    assert [run.group for run in read_runs(paths, ["x", "y"], ["one"])] == ["one", "one"]
    assert [run.group for run in read_runs(paths, ["x_s1", "x_s2"])] == ["x", "x"]
    for labels, groups in ((["x"], None), (["x", "x"], None), (["x", "y"], ["1", "2", "3"])):
        with pytest.raises(ValueError, match="got"):
            read_runs(paths, labels, groups)


def test_exit_codes(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "empty").mkdir()
    run, nowhere = tmp_path / "run", str(tmp_path / "nowhere")
    run.mkdir()
    write_metrics(run / "metrics.jsonl", [row(1, 0.1)])
    dumps = write_dump(tmp_path / "elsewhere", 1, {"p": [1]}).parent
    assert main(["report", nowhere]) == 1
    assert capsys.readouterr() == ("", f"egsw-plugin report: there is no {nowhere}\n")
    assert main(["report", str(run), nowhere, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert main(["report", str(run), "--validation", nowhere]) == 1
    assert main(["report", str(tmp_path / "empty")]) == 1
    assert "left out: training metrics and curves" in capsys.readouterr().out
    assert main(["report", str(run), str(run), "--validation", str(dumps)]) == 2
    assert main(["report", str(run), "--label", "a", "--label", "b"]) == 2
    assert main(["report", str(run), "--validation", str(dumps), "--label", "a|b"]) == 0
    assert "| a\\|b | 1 | 1 | 100.0 | 100.0 | acc > 0.5 |" in (run / "results.md").read_text()
    capsys.readouterr()
    assert main(["report", str(run), "--out", str(run / "metrics.jsonl")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_empty_metrics_file_and_one_that_is_a_folder(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text("")
    assert main(["report", str(tmp_path)]) == 1
    assert "metrics.jsonl is empty" in capsys.readouterr().out
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    assert main(["report", str(tmp_path)]) == 1
    assert "cannot be read (Is a directory)" in capsys.readouterr().out


def test_a_run_of_validation_only(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl", [(0, {"val-core/math/500/acc/mean@2": 0.5})])
    write_dump(tmp_path / "validation", 0, {"p": [1, 0]})
    assert main(["report", str(tmp_path)]) == 0
    assert "## math/500" in (tmp_path / "results.md").read_text() and not (tmp_path / "curves.png").exists()


def test_rays_sentence_on_a_dead_actor_stands_behind_its_identifiers():
    log = """Traceback (most recent call last):
  File "/site-packages/verl/trainer/main_ppo.py", line 42, in main
    run(config)
ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
\tclass_name: WorkerDict
\tactor_id: 0a1b2c3d
\tpid: 4242
\tnamespace: 5e6f
\tip: 192.0.2.7
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: out of memory.
"""
    lines = find_cause(log).lines
    assert lines[0].startswith("ray.exceptions.ActorDiedError") and "out of memory" in lines[1]
    assert not any("actor_id" in line for line in lines)


# ------------------------------------------------------------------------------------- every command and its terminal

MAIN = "import sys; from egsw_plugin.cli import main; sys.exit(main())"


def called(*arguments, stdout=subprocess.PIPE, **environment):
    """The command as a process of its own: its exit code and its standard error."""
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, timeout=100)
    return done.returncode, done.stderr.decode()


def test_nobody_reads_what_is_printed(tmp_path):
    """As after `| head -1`: all files are written, and nothing is said."""
    pytest.importorskip("matplotlib")
    write_metrics(tmp_path / "metrics.jsonl", [row(1, 0.1), row(2, 0.2)])
    read, write = os.pipe()
    os.close(read)
    for unbuffered in ("", "1"):
        assert called("report", tmp_path, "--html", stdout=write, PYTHONUNBUFFERED=unbuffered) == (141, "")
        assert {"summary.md", "curves.png", "report.html"} < {path.name for path in tmp_path.iterdir()}
        (tmp_path / "report.html").unlink()
    assert called("options", stdout=write) == (141, "")
    assert called("options", "--help", stdout=write)[1] == ""
    os.close(write)


def test_a_full_disk_under_what_is_printed():
    with open("/dev/full", "w") as full:
        code, said = called("options", stdout=full)
    assert code == 1 and said == "egsw-plugin: [Errno 28] No space left on device\n"


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "latin-1"}, {}])
@pytest.mark.parametrize("name", [b"r\xc3\xa9\xe2\x82\xac", b"r\xff"])
def test_an_output_or_a_name_that_is_not_utf_8(tmp_path, environment, name):
    pytest.importorskip("matplotlib")
    run = os.path.join(os.fsencode(tmp_path), name)
    os.mkdir(run)
    write_metrics(Path(os.fsdecode(run)) / "metrics.jsonl", [row(1, 0.1), row(2, 0.2)])
    write_dump(Path(os.fsdecode(run)) / "validation", 1, {"é€": [1, 0]})
    (Path(os.fsdecode(run)) / "inspect.html").write_text("x")
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "report", run, "--html", "--out", out],
        env={**os.environ, **environment},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    label = name.decode("utf-8", "backslashreplace")
    assert label in (out / "results.csv").read_text("utf-8")
    assert f'href="../{quote(name)}/inspect.html">{label}<' in (out / "report.html").read_text("utf-8")


@pytest.mark.parametrize("command", ["report", "options", "whatif", "inspect", "doctor", "study report"])
def test_ctrl_c(monkeypatch, capsys, command):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, f"_{command.replace(' ', '_')}", interrupt)
    more = {"options": [], "doctor": [], "study report": ["grid.yaml", "--runs", "runs"]}.get(command, ["run"])
    assert main([*command.split(), *more]) == 130
    assert capsys.readouterr().err == "egsw-plugin: interrupted\n"


@pytest.mark.parametrize("words", ["report LONG", "model LONG --out o", "whatif LONG", "run --out LONG -- true"])
def test_a_name_that_is_too_long(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert main(words.replace("LONG", "x" * 300).split()) in (1, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "File name too long" in said


def test_a_run_whose_folder_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["run", "--out", str(tmp_path / "file"), "--", "true"]) == 1
    assert capsys.readouterr().err == f"egsw-plugin: [Errno 17] File exists: '{tmp_path / 'file'}'\n"


# ----------------------------------------------------------------------------------------------------------- the page


def test_the_page_holds_curves_tables_and_links_and_markup_stays_text(tmp_path, capsys):
    for label in ("a-seed1", "a-seed2"):
        run = tmp_path / label
        (run / "validation").mkdir(parents=True)
        rows = [{"step": s, "data": {"critic/score/mean": s / 10, "egsw/effective_share/mean": 0.9}} for s in (1, 2, 3)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for step in (0, 3):
            said = "<script>window.hit = 1</script> ![](https://example.com/x.png)"
            lines = [
                {"input": f"q{i}", "output": said, "gts": "1", "score": float(i < step), "step": step, "uid": f"{i}"}
                for i in range(4)
            ]
            (run / "validation" / f"{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "a-seed1" / "inspect.html").write_text("x")
    folders = [str(tmp_path / label) for label in ("a-seed1", "a-seed2")]
    assert main(["report", *folders, "--html", "--out", str(tmp_path / "out")]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/svg+xml") == 2  # reward and effective share; the others were not logged
    assert '<a href="../a-seed1/inspect.html">a-seed1</a>' in page and "a-seed2/inspect.html" not in page
    assert page.count("<table>") >= 3 and "Mean@1" in page
    assert "<script" not in page and 'example.com/x.png"' not in page
    assert "default-src 'none'" in page and "script-src" not in page
    assert not (tmp_path / "a-seed1" / "report.html").exists()


@pytest.mark.parametrize("name", ["run#2", "t10:30", "50%25", "what?", "a b&c'\""])
def test_a_link_leads_to_its_file(tmp_path, name):
    text = html_page("x", [], {}, {"label": tmp_path / name / "inspect.html"}, tmp_path)
    (link,) = re.findall(r'href="([^"]*)"', text)
    there = urlsplit(urljoin((tmp_path / "report.html").as_uri(), html.unescape(link)))
    assert unquote(there.path) == str(tmp_path / name / "inspect.html") and not there.query + there.fragment
