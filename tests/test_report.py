"""The report: why a run failed (from its log), its metrics file, its table and its curves.

The log excerpts are of real failures of verl 0.9.1, shortened: colours, Ray's prefixes and the order of lines are
kept, folders are renamed. `OptionError` stands in a real traceback in place of another exception.
"""

import json
import sys

import pytest

from egsw_plugin.cli import main
from egsw_plugin.report.cause import clean, find_cause
from egsw_plugin.report.curves import draw_curves
from egsw_plugin.report.metrics import read_metrics
from egsw_plugin.report.summary import summarise

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


def test_reader_keeps_the_last_of_repeated_steps_and_tells_validation_apart(tmp_path):
    rows = [(0, {"val-core/x/reward/mean@1": 0.1}), row(1, 0.1), row(2, 0.2), row(3, 0.3)]
    rows += [(2, {"val-core/x/reward/mean@1": 0.2}), row(2, 0.25), row(3, 0.35)]  # resumed after step 1
    metrics = read_metrics(write_metrics(tmp_path / "metrics.jsonl", rows))
    assert [(r["step"], r["critic/score/mean"]) for r in metrics.training] == [(1, 0.1), (2, 0.25), (3, 0.35)]
    assert [r["step"] for r in metrics.validation] == [0, 2]
    assert metrics.left_out == ["2 repeated row(s), the last one is used: step 2, 3"]


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
    assert metrics.left_out == ["6 damaged line(s), not used: line 2, 3, 4, 5, 6, ..."]


def test_summary_against_numbers_worked_by_hand(tmp_path):
    # rewards 0.1 ... 1.2: first five 0.3, last five 1.0; shares 1 - step/20: 0.85 and 0.5; 12 steps of 2 s
    rows = [
        row(n, n / 10, **{"egsw/effective_share/mean": 1 - n / 20, "response_length/mean": 10}) for n in range(1, 13)
    ]
    text = summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", rows)))
    assert "| | steps 1-5 | steps 8-12 | change |" in text
    assert "| reward | 0.3 | 1 | +0.7 |" in text
    assert "| response length (tokens) | 10 | 10 | +0 |" in text
    assert "| entropy (nats) | not logged | not logged |  |" in text
    assert "| egsw/effective_share/mean | 0.85 | 0.5 | -0.35 |" in text
    assert "The reward rose: 0.3 to 1 (+0.7)." in text
    assert "12 steps in 0:24, 2 s a step (median)" in text


def test_summary_of_few_steps_never_compares_a_step_with_itself(tmp_path):
    three = read_metrics(write_metrics(tmp_path / "m.jsonl", [row(1, 0.5), row(2, 0.9), row(3, 0.25)]))
    assert "| | step 1 | step 3 | change |" in summarise(three)
    assert "The reward fell: 0.5 to 0.25 (-0.25)." in summarise(three)
    assert "No training step" in summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", [])))


def test_summary_lists_the_metrics_of_any_method(tmp_path):
    rows = [row(n, 0.5, **{"gtpo/effective_share/mean": 0.5, "gtpo/bonus/max": 2.0, "other/x": 1}) for n in (1, 2)]
    text = summarise(read_metrics(write_metrics(tmp_path / "m.jsonl", rows)))
    assert "| gtpo/effective_share/mean | 0.5 | 0.5 | +0 |" in text
    assert "| gtpo/bonus/max |" in text and "other/x" not in text


@pytest.mark.parametrize("steps", [0, 1, 3, 100])
def test_curves_are_a_png_also_of_a_run_without_the_metrics(tmp_path, steps):
    image = pytest.importorskip("matplotlib.image")
    rows = [{"step": n, "critic/score/mean": n / 10} for n in range(steps)]
    draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    height, width, _ = image.imread(tmp_path / "curves.png").shape
    assert height > 500 and width > 800


def test_missing_matplotlib_is_named_and_the_table_still_written(tmp_path, monkeypatch, capsys):
    write_metrics(tmp_path / "metrics.jsonl", [row(1, 0.1), row(2, 0.2)])
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(tmp_path)]) == 1
    assert 'pip install "egsw-plugin[report]"' in capsys.readouterr().err
    assert (tmp_path / "summary.md").exists() and not (tmp_path / "curves.png").exists()


def test_report_command_redoes_table_and_curves(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    write_metrics(tmp_path / "metrics.jsonl", [row(1, 0.1), row(2, 0.2)])
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "summary.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "curves.png").exists()
    assert main(["report", str(tmp_path / "nowhere")]) == 1
