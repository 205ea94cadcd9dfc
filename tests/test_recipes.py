"""Every launcher, with every method it names, against the installed verl: composed, validated, and converted to verl's
dataclasses.

A recipe that nobody here can run must at least be one that verl accepts: a key that verl does not have, or a value of
the wrong type, would otherwise show on a cluster. The launcher runs unchanged, with a stand-in for Python that prints
its arguments. Maps to recipes/. Not exercised: training (the smoke runs), sizes and speed at 7B (nothing here can).
"""

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import verl.utils.config
from hydra import compose, initialize_config_dir
from launches import launched
from omegaconf import OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass

from egsw_plugin.methods import LOSSES, MEMBERS
from egsw_plugin.study.grid import read_grid
from egsw_plugin.tiny.model import make_model, make_tokenizer
from egsw_plugin.verl_adapter import contract, startup

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
LAUNCHERS = sorted(path for path in RECIPES.glob("*/run_*.sh") if path.parent.name not in ("tiny_cpu", "study"))
TINY = RECIPES / "tiny_cpu" / "run_tiny.sh"
GRID = read_grid(RECIPES / "study" / "grid.yaml")


def methods_of(launcher):
    """The methods that a launcher's comment under METHOD names."""
    found = re.search(r"^METHOD=.*\n# (.*)$", launcher.read_text(), re.MULTILINE)
    comment = found[1] if found else "grpo"  # the evaluation trains nothing
    return re.findall(r"[a-z][a-z0-9_]+", re.sub(r"\([^)]*\)|:.*$| and ", " ", comment))


CASES = [(launcher, method) for launcher in LAUNCHERS for method in methods_of(launcher)]
METHODS = {path.stem for path in (RECIPES / "method").glob("*.yaml")}
# The others of the family are for any launcher.
CASES += [(RECIPES / "dapo" / "run_qwen2.5_7b.sh", method) for method in sorted(METHODS - {name for _, name in CASES})]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model's configuration and tokenizer, which verl's critic configuration loads."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    make_model(tokenizer, seed=1).save_pretrained(folder)
    return str(folder)


def file_at(path):
    """The name of a file that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


@pytest.fixture
def arguments_of(tmp_path, model):
    """What a launcher hands to Python, given environment variables and arguments."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$VERL_FILE_LOGGER_PATH" "$@"\n')
    stand_in.chmod(0o755)

    def run(launcher, *arguments, cwd=None, **environment):
        given = {
            "MODEL_PATH": model,
            "TRAIN_FILES": file_at(tmp_path / "train.parquet"),
        }  # else a launcher may make them
        given["VAL_FILES"] = file_at(tmp_path / "test.parquet")
        given["MEMORY"] = "0"  # nothing is trained
        environment = {"PYTHON": str(stand_in), "OUT": str(tmp_path / "out"), **given, **environment}
        command = ["bash", str(launcher), *arguments]
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def parts(arguments):
    """The folder, the name and the overrides that `python -m verl.trainer.main_ppo` reads in these arguments."""
    folder, name = (arguments[arguments.index(flag) + 1] for flag in ("--config-path", "--config-name"))
    return folder, name, arguments[arguments.index(name) + 1 :]


def composed(arguments):
    """The configuration that `python -m verl.trainer.main_ppo` makes of these arguments."""
    return launched(*parts(arguments))


def accepted_by_verl(config):
    """verl's validation and the conversions of its main program, trainer and workers."""
    actor = config.actor_rollout_ref.actor
    reference, critic = need_reference_policy(config), need_critic(config)
    verl.utils.config.validate_config(config, use_reference_policy=reference, use_critic=critic)
    startup.check_trainer(config, contract.TRAINER)
    converted = omega_conf_to_dataclass(actor)
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    return converted


def test_launchers_and_methods_are_found():
    assert len(LAUNCHERS) >= 7
    assert {method for _, method in CASES} == METHODS


@pytest.mark.parametrize("launcher,method", CASES, ids=[f"{p.parent.name}/{p.stem}-{m}" for p, m in CASES])
def test_composes_and_is_accepted(arguments_of, monkeypatch, capsys, launcher, method):
    from egsw_plugin import console

    monkeypatch.setattr(console, "_warned", set())
    log, *arguments = arguments_of(launcher, METHOD=method, NNODES="8" if "32b" in launcher.name else "1")
    config = composed(arguments)
    actor = accepted_by_verl(config)
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    # What the method needs: its objective, and an entropy in float32.
    assert [line for line in warnings if "does not reach the advantages" not in line] == []
    assert config.actor_rollout_ref.model.use_remove_padding and actor.entropy_from_logits_with_chunking
    if config.algorithm.adv_estimator in MEMBERS:
        assert not config.algorithm.rollout_correction.bypass_mode
    if config.algorithm.adv_estimator == "grpo_s":
        assert LOSSES[actor.policy_loss.loss_mode].sequence_ratio and actor.loss_agg_mode == "seq-mean-token-mean"
    assert log.endswith("/out/metrics.jsonl")
    assert method in config.trainer.experiment_name or config.trainer.val_only


@pytest.mark.parametrize(
    "launcher,given",
    [
        (RECIPES / "eval" / "run_eval.sh", {"MACHINE": "fsdp_32b"}),
        (RECIPES / "gtpo" / "run_qwen2.5_32b.sh", {"BACKEND": "megatron", "NNODES": "8"}),
        (GRID.launcher, {"METHOD": "dapo", "RUN_NAME": "x"}),
        (TINY, {"ADV": "archer"}),
    ],
)
def test_what_is_composed_here_is_what_hydra_composes(arguments_of, tmp_path, launcher, given):
    """All others are composed a choice of files at a time, and the rest of their overrides applied to a copy."""
    arguments = arguments_of(launcher, "+algorithm.egsw.alpha=0.25", "data.seed=9", ASSETS=str(tmp_path), **given)
    arguments = arguments[arguments.index("--config-path") :]
    folder, name, overrides = parts(arguments)
    with initialize_config_dir(folder, version_base=None):
        expected = compose(name, overrides=overrides)
    assert composed(arguments) == expected


@pytest.mark.parametrize("cell", GRID.cells.values(), ids=GRID.cells)
def test_cells_of_the_study_are_accepted_and_differ_in_the_method_alone(arguments_of, cell):
    config, baseline = (
        composed(arguments_of(GRID.launcher, *of.overrides, METHOD=of.method, RUN_NAME="x"))
        for of in (cell, GRID.cells["grpo"])
    )
    accepted_by_verl(config)
    for setting in cell.overrides:
        key, value = setting.lstrip("+").split("=")
        assert str(OmegaConf.select(config, key)).lower() == value
    method = {
        "algorithm.adv_estimator",
        *(MEMBERS[name].section for name in MEMBERS.own),
        *(f"actor_rollout_ref.actor.{name}" for name in ("policy_loss.loss_mode", "loss_agg_mode")),
        *(f"actor_rollout_ref.actor.{name}" for name in ("clip_ratio_low", "clip_ratio_high")),
    }
    if cell.method == "dapo":
        method |= {"algorithm.filter_groups", "reward", "actor_rollout_ref.actor.clip_ratio_c"}
    for each in (config, baseline):
        OmegaConf.set_struct(each, False)
        for key in method:
            OmegaConf.update(each, key, None, merge=False)
    assert OmegaConf.to_container(config) == OmegaConf.to_container(baseline)


def test_the_megatron_overlay_composes(arguments_of):
    """Validated but not converted: that needs Megatron."""
    launcher = RECIPES / "gtpo" / "run_qwen2.5_32b.sh"
    config = composed(arguments_of(launcher, BACKEND="megatron", NNODES="8")[1:])
    verl.utils.config.validate_config(config, use_reference_policy=False, use_critic=False)
    startup.check_trainer(config, contract.TRAINER)
    actor = config.actor_rollout_ref.actor
    assert actor.strategy == "megatron" and actor.entropy_from_logits_with_chunking
    assert actor.policy_loss.loss_mode == "gtpo" and config.data.max_response_length == 4096


def test_variables_and_overrides_reach_the_configuration(arguments_of, tmp_path):
    train, *validation = (file_at(tmp_path / "data" / f"{name}.parquet") for name in ("train", "a", "b"))
    environment = dict(
        METHOD="egsw_alpha0",
        MODEL_PATH="/models/other",
        TRAIN_FILES=train,
        VAL_FILES=f"[{','.join(validation)}]",
        SEED="7",
        NNODES="2",
        NGPUS_PER_NODE="4",
        LOGGER="[console,wandb]",
        RUN_NAME="my-name",
    )
    overrides = ["data.train_batch_size=64", "algorithm.egsw.temperature=2"]
    launcher = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh"
    config = composed(arguments_of(launcher, *overrides, **environment)[1:])
    assert config.algorithm.egsw == {"alpha": 0.0, "temperature": 2}
    assert config.actor_rollout_ref.model.path == "/models/other"
    assert config.data.train_files == train and list(config.data.val_files) == validation
    assert config.data.seed == config.actor_rollout_ref.rollout.seed == 7
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (2, 4)
    assert list(config.trainer.logger) == ["console", "wandb"]
    assert config.trainer.experiment_name == "my-name"
    assert config.data.train_batch_size == 64


def test_methods_differ_in_nothing_but_the_method(arguments_of):
    """A baseline with other settings is no baseline."""
    launcher = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh"
    configs = {}
    for method in methods_of(launcher):
        config = composed(arguments_of(launcher, METHOD=method)[1:])
        OmegaConf.set_struct(config, False)
        del config.algorithm.adv_estimator
        config.algorithm.pop("egsw", None)
        config.trainer.experiment_name = ""
        configs[method] = config
    assert len(configs) == 3
    assert all(config == configs["grpo"] for config in configs.values())


def save(out, step):
    """What verl leaves that a run goes on from."""
    (out / "checkpoints").mkdir(exist_ok=True)
    (out / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_metrics_of_a_run_that_goes_on_are_kept(arguments_of, tmp_path):
    """verl's file logger starts its file anew."""
    from egsw_plugin.report.metrics import read_metrics

    launcher, out = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh", tmp_path / "out"
    for step in (1, 2, 3):
        arguments_of(launcher)
        save(out, step)
        (out / "metrics.jsonl").write_text(f'{{"step": {step}, "data": {{"critic/score/mean": 0.{step}}}}}\n')
    for printing in (["--cfg", "job"], ["--cfg=job"], ["-c", "job"], ["--help"]):
        arguments_of(launcher, *printing)
    assert sorted(path.name for path in out.glob("metrics*")) == ["metrics.1.jsonl", "metrics.2.jsonl", "metrics.jsonl"]
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl").training] == [1, 2, 3]


def test_metrics_of_a_run_that_begins_anew_are_no_part_of_it(arguments_of, tmp_path):
    launcher, out = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh", tmp_path / "out"
    arguments_of(launcher)
    for step in ("10.jsonl", "20.jsonl"):  # twice: what was moved first goes
        for part in ("metrics.jsonl", "metrics.1.jsonl", f"validation/{step}"):
            (out / part).parent.mkdir(exist_ok=True)
            (out / part).write_text("earlier\n")
        arguments_of(launcher)
        assert not list(out.glob("metrics*")) and not (out / "validation").exists()
        moved = sorted(str(path.relative_to(out / "previous")) for path in (out / "previous").rglob("*.jsonl"))
        assert moved == ["metrics.1.jsonl", "metrics.jsonl", f"validation/{step}"]


def test_metrics_are_read_though_the_run_that_went_on_died_before_a_step(tmp_path):
    from egsw_plugin.report.metrics import read_metrics

    (tmp_path / "metrics.1.jsonl").write_text('{"step": 1, "data": {"critic/score/mean": 0.5}}\n')
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in metrics.training] == [1] and metrics.left_out == []


@pytest.mark.parametrize(
    "change,words",
    [
        ({"METHOD": "grpo"}, "it has METHOD=egsw where this one has METHOD=grpo. "),
        ({"SEED": "2"}, "it has SEED=1 where this one has SEED=2. "),
        ({"override": "algorithm.egsw.alpha=0.1"}, "it has nothing where this one has algorithm.egsw.alpha=0.1. "),
        ({"override": "machine=cpu_135m_bf16"}, "it has nothing where this one has machine=cpu_135m_bf16. "),
        ({"TRAIN_FILES": "/data/other.parquet"}, "where this one has TRAIN_FILES=/data/other.parquet. "),
        ({"VAL_FILES": "[/data/other.parquet]"}, r"where this one has VAL_FILES=\[/data/other.parquet\]. "),
    ],
)
def test_another_run_in_the_same_folder_is_refused(arguments_of, tmp_path, change, words):
    """It would go on from the other run's checkpoint."""
    launcher = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh"
    override = [change.pop("override")] if "override" in change else []
    arguments_of(launcher, "trainer.save_freq=5")
    (tmp_path / "out" / "checkpoints").mkdir()
    arguments_of(launcher)  # the same run may go on
    with pytest.raises(AssertionError, match=f"holds another run: .*{words}To go on with it give what it has"):
        arguments_of(launcher, *override, **change)


MAY_CHANGE = [
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192",
    "actor_rollout_ref.actor.fsdp_config.param_offload=True",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload=True",
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=8192",
    "actor_rollout_ref.rollout.gpu_memory_utilization=0.5",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
    "actor_rollout_ref.rollout.enforce_eager=True",
    "actor_rollout_ref.rollout.max_num_seqs=64",
    "actor_rollout_ref.model.enable_gradient_checkpointing=True",
    "critic.ppo_max_token_len_per_gpu=8192",
    "trainer.save_freq=5",
    "trainer.test_freq=-1",
    "trainer.val_before_train=False",
    "trainer.logger=[console,file]",
    "trainer.max_actor_ckpt_to_keep=1",
    "trainer.max_critic_ckpt_to_keep=1",
    "+ray_kwargs.ray_init.include_dashboard=False",
]


def test_after_a_lack_of_memory_a_run_goes_on_with_less(arguments_of, tmp_path):
    """What changes nothing of what is trained is no other run."""
    launcher = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh"
    arguments_of(launcher, "algorithm.egsw.alpha=0.1")
    (tmp_path / "out" / "checkpoints").mkdir()
    for override in MAY_CHANGE:
        arguments_of(launcher, "algorithm.egsw.alpha=0.1", override)
    config = composed(arguments_of(launcher, MAY_CHANGE[0], "algorithm.egsw.alpha=0.1", *MAY_CHANGE[1:])[1:])
    assert config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu == 8192
    # Megatron's sharding is in its checkpoint.
    with pytest.raises(AssertionError, match="holds another run: it has nothing where this one has"):
        sharding = "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2"
        arguments_of(launcher, "algorithm.egsw.alpha=0.1", sharding)


def shards(checkpoint, number):
    """What FSDP leaves of an actor's weights."""
    (checkpoint / "actor").mkdir(parents=True)
    for rank in range(number):
        (checkpoint / "actor" / f"model_world_size_{number}_rank_{rank}.pt").touch()


def test_a_checkpoint_of_another_number_of_gpus_is_refused(arguments_of, tmp_path):
    """verl would look for a file of another name, minutes later."""
    launcher, out = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh", tmp_path / "out"
    given = {"NNODES": "2", "NGPUS_PER_NODE": "4"}
    arguments_of(launcher, **given)
    shards(out / "checkpoints" / "global_step_5", 4)  # which nothing goes on from
    shards(out / "checkpoints" / "global_step_20", 8)
    arguments_of(launcher, NGPUS_PER_NODE="16")  # no step is marked: verl begins anew
    save(out, 20)
    for nodes, gpus in ((2, 4), (1, 8), (8, 1)):
        assert arguments_of(launcher, NNODES=str(nodes), NGPUS_PER_NODE=str(gpus))
    before = sorted(out.rglob("*"))
    for nodes, gpus in ((1, 4), (2, 8), (1, 1)):
        words = (
            f"global_step_20 was saved by 8 GPUs, and this run has {nodes * gpus} (NNODES={nodes} times "
            f"NGPUS_PER_NODE={gpus}). "
        )
        with pytest.raises(AssertionError, match=re.escape(words)) as refusal:
            arguments_of(launcher, NNODES=str(nodes), NGPUS_PER_NODE=str(gpus))
        assert f"--local_dir {out}/checkpoints/global_step_20/actor --target_dir FOLDER\n" in str(refusal.value)
    assert sorted(out.rglob("*")) == before  # nothing was moved
    assert arguments_of(launcher, "--cfg", "job", NGPUS_PER_NODE="4")
    save(out, 5)
    assert arguments_of(launcher, NGPUS_PER_NODE="4")
    shutil.rmtree(out / "checkpoints" / "global_step_5" / "actor")  # as of Megatron, which is not asked
    assert arguments_of(launcher, NGPUS_PER_NODE="2")


def test_overrides_count_where_a_checkpoints_gpus_do(arguments_of, tmp_path):
    launcher, checkpoint = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh", tmp_path / "my runs" / "global_step_7"
    shards(checkpoint, 2)
    of = ["trainer.resume_mode=resume_path", f"++trainer.resume_from_path='{checkpoint}'"]
    two = ["trainer.nnodes=2", "+trainer.n_gpus_per_node=1"]
    assert arguments_of(launcher, *of, *two)
    with pytest.raises(AssertionError, match=r"was saved by 2 GPUs, and this run has 1 \(NNODES=1 times"):
        arguments_of(launcher, *of, two[1], OUT=str(tmp_path / "other"))
    assert arguments_of(launcher, "trainer.resume_mode=disable", *of[1:], OUT=str(tmp_path / "anew"))


@pytest.mark.parametrize(
    "value,words",
    [
        ("100000", r"takes about 100000 GiB of memory, and \d+\.\d GiB are free: .*MEMORY=0 starts it all the same"),
        ("much", "MEMORY=much: a number of GiB"),
        ("-1", "MEMORY=-1: a number of GiB"),
        ("1e3", "MEMORY=1e3: a number of GiB"),
    ],
)
def test_too_little_memory_is_refused_before_anything_is_made(arguments_of, tmp_path, value, words):
    """The kernel would kill a worker after minutes."""
    launcher = RECIPES / "reasoning_gym" / "run_smollm2_135m_cpu.sh"
    with pytest.raises(AssertionError, match=words):
        arguments_of(launcher, MEMORY=value)
    assert not (tmp_path / "out").exists()
    assert arguments_of(launcher, "--cfg", "job", MEMORY=value)  # prints
    assert arguments_of(launcher, MEMORY="0.001")


@pytest.fixture
def started(tmp_path):
    """Starts a launcher in a folder of its own, with a script in place of the training, its output in a file, or in one
    through a pipe; ends what is left of it."""
    running = []

    def start(script, pipe=False, **environment):
        folder = tmp_path / str(len(running))
        folder.mkdir()
        stand_in, log = folder / "python", folder / "log"
        stand_in.write_text(f"#!/bin/bash\n{script}\n")
        stand_in.chmod(0o755)
        given = {name: file_at(folder / "data.parquet") for name in ("TRAIN_FILES", "VAL_FILES")}
        given |= {"PYTHON": str(stand_in), "OUT": str(folder / "out"), "STALL_LIMIT": "4", **environment}
        launcher = ["bash", str(RECIPES / "egsw" / "run_qwen2.5_math_7b.sh")]
        if pipe:
            launcher = ["bash", "-o", "pipefail", "-c", f"{shlex.join(launcher)} 2>&1 | cat"]
        with open(log, "w") as file:
            running.append(
                subprocess.Popen(
                    launcher,
                    env={**os.environ, **given},
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    # A shell starts background jobs with SIGINT ignored, nohup its command with SIGHUP.
                    preexec_fn=lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)],
                )
            )
        return running[-1], log

    yield start
    for launcher in running:
        for pid in of_session(launcher.pid):
            os.kill(pid, signal.SIGKILL)


def of_session(number):
    """The processes of a session that are no zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = entry.read_text().rpartition(")")[2].split()[:4]
            found += [int(entry.parent.name)] if state != "Z" and int(session) == number else []
    return found


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "script,pipe",
    [
        ("echo here; sleep 600 & exec sleep 600", False),
        ("while echo pending: 3; do sleep 0.2; done", False),
        ("while echo pending: 3; do sleep 0.2; done", True),
    ],
    ids=["silent", "waiting", "waiting-pipe"],
)
def test_a_run_that_hangs_is_ended_with_all_its_processes(started, script, pipe):
    """As verl after a weight sync that has failed, or while it waits for rollouts and prints how many."""
    launcher, log = started(script, pipe=pipe, STALL_LIMIT="2")
    assert launcher.wait(100) == 124
    wait_for(lambda: not of_session(launcher.pid))
    words = "for STALL_LIMIT=2 seconds nothing was added to metrics.jsonl, validation/ or checkpoints/ in .*/out, as"
    assert re.search(words, log.read_text()) and "no STALL_LIMIT" not in log.read_text()


@pytest.mark.timeout(120)
def test_a_run_that_goes_on_is_not_ended_and_its_code_is_the_launchers(started):
    grows = {
        "metrics": '>> "$VERL_FILE_LOGGER_PATH"',
        "validation": '> "$(mkdir -p "$OUT/validation"; echo "$OUT/validation/$i.jsonl")"',
        "checkpoints": '> "$(mkdir -p "$OUT/checkpoints/step/actor"; echo "$OUT/checkpoints/step/actor/$i.pt")"',
        "output": "",
    }
    runs = {
        name: started(
            f"for i in {{1..35}}; do echo here {where}; sleep 0.2; done; exit 7",
            LOGGER="[console]" if name == "output" else "[console,file]",
        )
        for name, where in grows.items()
    }
    for name, (launcher, log) in runs.items():
        assert launcher.wait(100) == 7, name
        assert "STALL_LIMIT" not in log.read_text(), name
        wait_for(lambda launcher=launcher: not of_session(launcher.pid))


@pytest.mark.timeout(120)
def test_without_a_file_of_metrics_output_is_what_counts(started):
    launcher, log = started("echo here; exec sleep 600", STALL_LIMIT="2", LOGGER="[console]")
    assert launcher.wait(100) == 124
    assert "for STALL_LIMIT=2 seconds nothing was printed, as" in log.read_text()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "number,code", [(signal.SIGINT, -2), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_a_launcher_that_is_asked_to_end_takes_the_run_with_it(started, number, code):
    launcher, log = started("echo here; exec sleep 600", STALL_LIMIT="50")
    wait_for(lambda: "here" in log.read_text())
    launcher.send_signal(number)
    assert launcher.wait(60) == code
    wait_for(lambda: not of_session(launcher.pid))
    assert "STALL_LIMIT" not in log.read_text()


def test_without_a_stall_limit_nothing_watches(started):
    launcher, log = started("echo $PPID; exec sleep 600", STALL_LIMIT="0")
    wait_for(lambda: log.read_text().endswith("\n"))
    assert of_session(launcher.pid) == [launcher.pid] and int(log.read_text()) == os.getpid()


@pytest.mark.timeout(120)
def test_through_a_pipe_without_a_file_of_metrics_nothing_watches(started):
    """New Linux gives a pipe no time of its last output."""
    launcher, log = started(
        "for i in {1..4}; do echo here; sleep 1; done; exit 7", pipe=True, STALL_LIMIT="2", LOGGER="[console]"
    )
    assert launcher.wait(100) == 7 and "no STALL_LIMIT: what goes through a pipe is not seen" in log.read_text()


@pytest.mark.parametrize("value", ["2h", "-1", "1.5", "00", "9" * 20])
def test_a_stall_limit_that_is_none_is_refused(arguments_of, value):
    with pytest.raises(AssertionError, match=f"STALL_LIMIT={value}: a number of seconds, or 0 for no limit"):
        arguments_of(RECIPES / "egsw" / "run_qwen2.5_math_7b.sh", STALL_LIMIT=value)


def test_other_problems_are_refused_before_they_take_the_place_of_a_runs(tmp_path):
    """The launcher makes them, and a run that goes on would find them in the place of its own."""
    launcher = RECIPES / "reasoning_gym" / "run_qwen2.5_1.5b.sh"
    copy = tmp_path / "recipes" / "reasoning_gym"
    shutil.copytree(RECIPES, copy.parent)
    stand_in, calls = tmp_path / "python", tmp_path / "calls"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    stand_in.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHON": str(stand_in),
        "OUT": str(tmp_path / "out"),
        "ASSETS": str(tmp_path / "made"),
    }

    def run():
        command = ["bash", str(copy / launcher.name)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    assert run().returncode == 0
    save(tmp_path / "out", 20)
    text = (copy / launcher.name).read_text()
    (copy / launcher.name).write_text(text.replace("max_digits=4", "max_digits=5"))
    calls.unlink()
    done = run()
    assert done.returncode == 2 and "holds another run" in done.stderr and not calls.exists()


@pytest.mark.parametrize(
    "launcher", ["tiny_cpu/run_tiny", "study/run_target", "smoke/smoke", "reasoning_gym/run_smollm2_135m_cpu"]
)
def test_a_launcher_without_its_environment_says_what_makes_it(tmp_path, launcher):
    command = ["bash", str(RECIPES / f"{launcher}.sh"), "recipes/egsw/run_qwen2.5_math_7b.sh"]
    environment = {**os.environ, "PYTHON": str(tmp_path / "python"), "OUT": str(tmp_path / "out")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.strip().endswith(f"there is no {tmp_path / 'python'}; run: make setup")


def test_data_that_are_not_there_are_refused_before_anything_starts(arguments_of, tmp_path):
    """verl would look for the validation's minutes later, once Ray is up."""
    egsw, puzzles = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh", RECIPES / "reasoning_gym" / "run_qwen2.5_1.5b.sh"
    data, out = tmp_path / "my data", tmp_path / "out"
    own = {"DATA_DIR": str(data), "TRAIN_FILES": "", "VAL_FILES": ""}  # the launcher's
    for name in ("math", "math-500"):
        path = data / f"{name}.parquet"
        words = re.escape(f"there is no {path}; make it: egsw-plugin data {name} --out {data} --prompt think\n")
        with pytest.raises(AssertionError, match=words):
            arguments_of(egsw, **own)
        assert not out.exists() and arguments_of(egsw, "--cfg", "job", **own)
        file_at(path)
    assert arguments_of(egsw, **own)
    gone = str(tmp_path / "gone.parquet")
    given = {"OUT": str(tmp_path / "another"), "VAL_FILES": f"[{data}/math.parquet, '{gone}']"}
    for launcher, more in ((egsw, {}), (puzzles, {}), (puzzles, {"TRAIN_FILES": ""})):  # the last one makes them
        with pytest.raises(AssertionError, match=re.escape(f"there is no {gone}; TRAIN_FILES and VAL_FILES name")):
            arguments_of(launcher, **given, **more)
    assert arguments_of(egsw, f"++data.val_files={data}/math.parquet", **given)
    given = {"OUT": str(tmp_path / "remote"), "VAL_FILES": "[hdfs://data/a.parquet,s3://data/b.parquet]"}
    assert arguments_of(egsw, TRAIN_FILES=f"{data}/*.parquet", **given)


@pytest.mark.parametrize("launcher", [path for path in LAUNCHERS if "PROMPT_STYLE=" in path.read_text()], ids=str)
def test_a_launcher_looks_for_the_data_that_its_readme_makes(arguments_of, tmp_path, launcher):
    """In the README's folder, with its prompt style: rewards for another form are never won."""
    text = (launcher.parent / "README.md").read_text()
    (folder,) = set(re.findall(r"egsw-plugin data \S+ --out (\S+)", text))
    (style,) = set(re.findall(r"egsw-plugin data .* --prompt (\w+)", text))
    words = re.escape(f" --out {tmp_path}/{folder} --prompt {style}\n")
    with pytest.raises(AssertionError, match=words):
        arguments_of(launcher, cwd=tmp_path, TRAIN_FILES="", VAL_FILES="")


def test_a_sweep_goes_on_after_a_run_that_fails(tmp_path):
    launcher, runs = tmp_path / "run_it.sh", tmp_path / "runs"
    launcher.write_text('echo "$RUN_NAME" "$@" >> "$RUNS/all"; [[ $RUN_NAME != *alpha0.5* ]]\n')
    runs.mkdir()
    environment = {**os.environ, "LAUNCHER": str(launcher), "RUNS": str(runs), "TEMPERATURES": "1.0 3.0"}
    command = ["bash", str(RECIPES / "egsw" / "sweep.sh"), "data.seed=9"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert len((runs / "all").read_text().splitlines()) == 6
    failed = "run_it-alpha0.5-p1.0-seed1 run_it-alpha0.5-p3.0-seed1"
    assert done.returncode == 1 and f"sweep.sh: failed: {failed}; the same command goes on" in done.stderr


def test_problems_to_train_on_need_others_to_validate_with(arguments_of):
    with pytest.raises(AssertionError, match="TRAIN_FILES needs VAL_FILES"):
        arguments_of(RECIPES / "reasoning_gym" / "run_smollm2_135m_cpu.sh", VAL_FILES="")


def test_files_whose_names_mean_something_to_hydra(arguments_of, tmp_path):
    launcher = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh"
    odd, plain = file_at(tmp_path / "user=me" / "it's (new)" / "math.parquet"), file_at(tmp_path / "b.parquet")
    config = composed(arguments_of(launcher, TRAIN_FILES=odd, VAL_FILES=f"[{odd},{plain}]")[1:])
    assert config.data.train_files == odd and list(config.data.val_files) == [odd, plain]
    spaced, equal = file_at(tmp_path / "my maths.parquet"), file_at(tmp_path / "a=b.parquet")
    quoted = "'" + odd.replace("'", r"\'") + "'"
    given = {"TRAIN_FILES": f"'{equal}'", "VAL_FILES": f"[ {spaced} , {quoted} ]"}
    config = composed(arguments_of(launcher, OUT=str(tmp_path / "quoted"), **given)[1:])
    assert config.data.train_files == equal and list(config.data.val_files) == [spaced, odd]
    given = {
        "TRAIN_FILES": "'user=me/it\\'s (new)/math.parquet'",
        "VAL_FILES": '[b.parquet, "my maths.parquet",*.parquet]',
    }
    config = composed(arguments_of(launcher, OUT=str(tmp_path / "relative"), cwd=tmp_path, **given)[1:])
    assert config.data.train_files == odd  # workers of a running Ray cluster have another working directory
    assert list(config.data.val_files) == [plain, spaced, "*.parquet"]


def test_values_with_characters_that_mean_something_to_hydra(arguments_of, tmp_path):
    launcher, out = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh", tmp_path / "alpha=0.1, (it's) new"
    config = composed(arguments_of(launcher, OUT=str(out), RUN_NAME="a=b,c")[1:])
    assert config.trainer.default_local_dir == str(out / "checkpoints")
    assert config.trainer.experiment_name == "a=b,c"
    # Workers of a Ray cluster that was there before know nothing of the launcher's environment.
    assert str(out / "metrics.jsonl") == config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH


def test_a_running_ray_cluster_is_told_what_it_needs_of_the_environment(arguments_of, tmp_path):
    """But no keys, which would be in the log and in the saved configuration; and nothing that a job has told it."""
    launcher = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh"
    given = {
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "HF_HOME": "",
        "WANDB_API_KEY": "secret",
        "HF_TOKEN": "secret",
    }
    given |= dict.fromkeys(("VERL_PLATFORM", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE", "TENSORBOARD_DIR"), "")
    given |= {"RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {"env_vars": {"WANDB_MODE": "offline"}}}'}
    arguments = arguments_of(launcher, **given)[1:]
    assert "secret" not in " ".join(arguments)
    assert composed(arguments).ray_kwargs.ray_init.runtime_env.env_vars == {
        "VERL_FILE_LOGGER_PATH": str(tmp_path / "out" / "metrics.jsonl"),
        "TENSORBOARD_DIR": str(tmp_path / "out" / "tensorboard"),
        "HF_HUB_OFFLINE": "1",
    }
    # Records of the study compare what was composed.
    arguments = arguments_of(GRID.launcher, RUN_NAME="x", OUT=str(tmp_path / "study"), **given)[1:]
    assert list(composed(arguments).ray_kwargs.ray_init.runtime_env.env_vars) == ["VERL_FILE_LOGGER_PATH"]


def test_a_job_of_ray_that_would_lose_its_results_is_refused(arguments_of, tmp_path):
    """Ray removes its copy of a job's working directory."""
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    launcher = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh"
    with pytest.raises(AssertionError, match="is in Ray's copy of the working directory"):
        arguments_of(launcher, cwd=copy, OUT="outputs/x")
    assert arguments_of(launcher, cwd=copy) and not list(copy.iterdir())


def test_a_checkpoint_to_evaluate(arguments_of, tmp_path):
    launcher, checkpoint = RECIPES / "eval" / "run_eval.sh", tmp_path / "checkpoints" / "global_step_58"
    checkpoint.mkdir(parents=True)
    config = composed(arguments_of(launcher, CHECKPOINT=f"{checkpoint}/", MACHINE="fsdp_32b", SAMPLES="8")[1:])
    assert config.trainer.resume_from_path == str(checkpoint) and config.trainer.resume_mode == "resume_path"
    assert config.trainer.val_only and config.actor_rollout_ref.rollout.val_kwargs.n == 8
    assert list(config.actor_rollout_ref.actor.checkpoint.load_contents) == ["model"]
    assert config.actor_rollout_ref.rollout.tensor_model_parallel_size == 4
    shards(checkpoint, 4)
    assert arguments_of(launcher, CHECKPOINT=str(checkpoint), MACHINE="fsdp_32b", SAMPLES="8", NGPUS_PER_NODE="4")
    with pytest.raises(AssertionError, match=r"global_step_58 was saved by 4 GPUs, and this run has 8 "):
        arguments_of(launcher, CHECKPOINT=str(checkpoint), MACHINE="fsdp_32b", SAMPLES="8")
    with pytest.raises(AssertionError, match=r"CHECKPOINT=.*nowhere is no folder"):
        arguments_of(launcher, CHECKPOINT=str(tmp_path / "nowhere"))


def test_a_checkpoint_is_evaluated_with_the_model_of_its_run(arguments_of, tmp_path, model):
    """Tokenizer and end tokens are MODEL_PATH's; Qwen2.5-Math-7B and its -Instruct have the same shapes."""
    training, launcher = RECIPES / "egsw" / "run_qwen2.5_math_7b_instruct.sh", RECIPES / "eval" / "run_eval.sh"
    arguments_of(training, MODEL_PATH="")
    checkpoint = tmp_path / "out" / "checkpoints" / "global_step_58"
    checkpoint.mkdir(parents=True)
    given, key = {"CHECKPOINT": str(checkpoint), "OUT": str(tmp_path / "eval")}, "actor_rollout_ref.model.path="
    assert f"{key}'Qwen/Qwen2.5-Math-7B-Instruct'" in arguments_of(launcher, MODEL_PATH="", **given)
    with pytest.raises(
        AssertionError, match=r"was trained from Qwen/Qwen2.5-Math-7B-Instruct, not from MODEL_PATH=Qwen/"
    ):
        arguments_of(launcher, MODEL_PATH="Qwen/Qwen2.5-Math-7B", **given)
    assert f"{key}'{model}'" in arguments_of(launcher, MODEL_PATH=model, **given)  # perhaps a copy
    (tmp_path / "out" / "launch.txt").unlink()
    with pytest.raises(AssertionError, match=r"has no launch\.txt two folders up that names its model; set MODEL_PATH"):
        arguments_of(launcher, MODEL_PATH="", **given)
    assert f"{key}'Qwen/Qwen2.5-Math-7B'" in arguments_of(launcher, MODEL_PATH="", OUT=str(tmp_path / "none"))


def test_the_model_of_a_run_is_found_from_any_folder(arguments_of, tmp_path, model):
    """A folder may be named from where the run was started; a name of the hub stays one, whatever it looks like."""
    training, launcher = RECIPES / "egsw" / "run_qwen2.5_math_7b.sh", RECIPES / "eval" / "run_eval.sh"
    checkpoint = tmp_path / "out" / "checkpoints" / "global_step_58"
    checkpoint.mkdir(parents=True)
    elsewhere, key = tmp_path / "elsewhere", "actor_rollout_ref.model.path="
    (elsewhere / "own").mkdir(parents=True)
    own, given = {"MODEL_PATH": os.path.relpath(model, tmp_path)}, {"CHECKPOINT": str(checkpoint)}
    given |= {"OUT": str(tmp_path / "eval"), "cwd": elsewhere}
    (tmp_path / "out" / "checkpoints").rename(tmp_path / "kept")
    arguments_of(training, cwd=tmp_path, **own)
    (tmp_path / "kept").rename(tmp_path / "out" / "checkpoints")
    assert f"{key}'{model}'" in arguments_of(launcher, MODEL_PATH="", **given)
    assert arguments_of(training, cwd=elsewhere, MODEL_PATH=os.path.relpath(model, elsewhere))  # the same run
    with pytest.raises(AssertionError, match=r"it has MODEL_PATH=/\S+ where this one has MODEL_PATH=/\S+/own\. "):
        arguments_of(training, cwd=elsewhere, MODEL_PATH="own")
    for name in ("Qwen/Qwen2.5-Math-7B", "own/model"):
        out = tmp_path / name.replace("/", "-")
        arguments_of(training, cwd=elsewhere, MODEL_PATH=name, OUT=str(out))
        assert f" MODEL_PATH={name} SEED=" in (out / "launch.txt").read_text()


def test_the_runs_own_model_by_another_of_its_names_is_no_copy(arguments_of, tmp_path, model):
    launcher, checkpoint = RECIPES / "eval" / "run_eval.sh", tmp_path / "run" / "checkpoints" / "global_step_58"
    checkpoint.mkdir(parents=True)
    text = f"CONFIG=egsw/math_7b METHOD=grpo MODEL_PATH={model} SEED=1 TRAIN_FILES=a VAL_FILES=b\n"
    (checkpoint.parents[1] / "launch.txt").write_text(text)
    given = {**os.environ, "CHECKPOINT": str(checkpoint), "PYTHON": "true", "OUT": str(tmp_path / "out")}
    given |= {"VAL_FILES": file_at(tmp_path / "test.parquet")}
    other = shutil.copytree(model, tmp_path / "copy")
    for name, asked in ((os.path.relpath(model, tmp_path), False), (str(other), True)):
        command, environment = ["bash", str(launcher)], {**given, "MODEL_PATH": name}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert ("a copy of" in done.stderr) == asked


@pytest.mark.parametrize("launcher", ["study/run_target", "reasoning_gym/run_smollm2_135m_cpu", "tiny_cpu/run_tiny"])
def test_a_model_that_the_launcher_makes_has_one_name_before_and_after(arguments_of, tmp_path, launcher):
    given = {"ASSETS": "made", "MODEL_PATH": "", "TRAIN_FILES": "", "VAL_FILES": "", "cwd": tmp_path}
    arguments_of(RECIPES / f"{launcher}.sh", **given)
    begun = (tmp_path / "out" / "launch.txt").read_text()
    model = re.search("MODEL_PATH=(.*) SEED=", begun)[1]
    assert Path(model).parent == tmp_path / "made"
    Path(model).mkdir(parents=True)
    (tmp_path / "out" / "checkpoints").mkdir()
    arguments_of(RECIPES / f"{launcher}.sh", **given)
    assert (tmp_path / "out" / "launch.txt").read_text() == begun


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_demo_composes_with_every_method(arguments_of, tmp_path, name):
    """`make demo ADV=NAME`."""
    arguments = arguments_of(TINY, ADV=name, ASSETS=str(tmp_path))
    config = composed(arguments[arguments.index("--config-path") :])
    startup.check(config)
    assert config.algorithm.adv_estimator in MEMBERS or name in ("grpo", "dapo", "ppo") or name in LOSSES


@pytest.mark.parametrize("name", MEMBERS.own)
def test_every_member_has_a_recipe(arguments_of, tmp_path, name):
    arguments = arguments_of(TINY, ADV=name, ASSETS=str(tmp_path))
    config = composed(arguments[arguments.index("--config-path") :])
    assert f"method={name}" in arguments and config.algorithm.adv_estimator == name


@pytest.mark.parametrize("name", [name for name in LOSSES.own if dataclasses.fields(LOSSES[name].options_type)])
def test_every_policy_loss_with_options_is_in_a_recipe(arguments_of, tmp_path, name):
    own = name if name in METHODS else "archer"  # which the generic loss carries out
    arguments = arguments_of(TINY, ADV=own, ASSETS=str(tmp_path))
    config = composed(arguments[arguments.index("--config-path") :])
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode == name and name in config.algorithm.credit


def test_the_demo_takes_any_estimator_of_verl(arguments_of, tmp_path):
    arguments = arguments_of(TINY, ADV="rloo", ASSETS=str(tmp_path))
    assert composed(arguments[arguments.index("--config-path") :]).algorithm.adv_estimator == "rloo"


def test_a_launcher_as_its_user_calls_it(tmp_path):
    """`--cfg job` prints the configuration; nothing is trained."""
    import sys

    command = ["bash", str(RECIPES / "gtpo" / "run_qwen2.5_7b.sh"), "--cfg", "job"]
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "adv_estimator: gtpo" in done.stdout
