"""Methods on other bases, rewards and trainers: `make test-combinations`, real runs of two steps each.

Too long for every test run; what these check beside the metrics is that verl carries the combination at all.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import verl
from launch import FSDP1, LOSS_MODE, ROOT, TIME_LIMIT, assert_in_effect, train

pytestmark = [pytest.mark.combination, pytest.mark.timeout(TIME_LIMIT + 60)]

DAPO = [
    "actor_rollout_ref.actor.clip_ratio_high=0.28",
    "algorithm.filter_groups.enable=True",
    "algorithm.filter_groups.metric=acc",
    "reward.reward_manager.name=dapo",
    "+reward.reward_kwargs.overlong_buffer_cfg={enable: true, len: 16, penalty_factor: 1.0, log: false}",
    "+reward.reward_kwargs.max_resp_len=64",
]


@pytest.mark.parametrize("base", ["rloo", "reinforce_plus_plus", "gae", "grpo_vectorized", "opo"])
def test_egsw_over(tmp_path, base):
    critic = ["critic.enable=True"] if base == "gae" else []
    run = train(tmp_path, f"+algorithm.egsw.base={base}", *critic)
    assert_in_effect(run)
    assert ("critic/vf_loss" in run.steps[0]) == (base == "gae")


@pytest.mark.parametrize("method", ["egsw", "grpo_s"])
def test_dapo(tmp_path, method):
    run = train(tmp_path, *DAPO, ADV=method)
    assert_in_effect(run, method, changed=0.3)
    if method != "egsw":
        assert run.column(f"{method}/mixed_groups/mean") == [1, 1]


def test_two_workers_rows_padded_to_a_multiple(tmp_path):
    """Rows reordered over two FSDP workers and padded; one score a response, over the whole batch."""
    run = train(
        tmp_path,
        "trainer.n_gpus_per_node=2",
        "trainer.balance_batch=True",
        "data.train_batch_size=15",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
        "++algorithm.egsw={base: rloo, granularity: trajectory, scope: batch, denominator: all, normalize: mean_one}",
    )
    assert_in_effect(run)


@pytest.mark.parametrize("method", ["gtpo", "grpo_s"])
def test_kl_penalty_in_the_reward_does_not_decide_success(tmp_path, method):
    run = train(
        tmp_path,
        "algorithm.use_kl_in_reward=True",
        "algorithm.kl_ctrl.kl_coef=100",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.optim.lr=2e-3",
        ADV=method,
    )
    assert_in_effect(run, method, changed=0.05)
    assert run.steps[1]["critic/rewards/mean"] != pytest.approx(run.steps[1]["critic/score/mean"])
    assert "so the penalty has no effect" in run.screen


@pytest.mark.parametrize("method", ["gtpo", "grpo_s"])
def test_a_pairing_that_is_not_the_papers_runs_with_one_warning(tmp_path, method):
    run = train(
        tmp_path, f"{LOSS_MODE}=vanilla", "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum", ADV=method
    )
    assert_in_effect(run, method, changed=0.05)
    assert run.log.count("is not the objective of arXiv 2508.04349") == 1
    assert f"set {LOSS_MODE}={method}" in run.screen


IN_THE_LOSS = ["+algorithm.egsw.channel=loss", f"{LOSS_MODE}=egsw"]


@pytest.mark.parametrize("method, arguments", [("egsw", IN_THE_LOSS), ("gtpo", [])], ids=["egsw", "gtpo"])
def test_colocated_asynchronous_trainer(tmp_path, method, arguments):
    run = train(tmp_path, "trainer.v1.trainer_mode=colocate_async", *arguments, ADV=method)
    assert_in_effect(run, method, changed=0.05)
    assert run.column(f"{method}/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)


@pytest.mark.parametrize("method", ["gtpo", "grpo_s"])
def test_separate_asynchronous_trainer(tmp_path, method):
    """Two updates between transfers, and a rollout that is batches ahead."""
    run = train(
        tmp_path,
        "machine=cpu_apart",
        "trainer.v1.separate_async.parameter_sync_step=2",
        "trainer.v1.separate_async.num_warmup_batches=3",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        steps=3,
        ADV=method,
    )
    assert_in_effect(run, method, steps=3, changed=0.05)
    stale = run.column("training/off_policy/trajectory_staleness_worst/max")
    assert stale[0] == 0 < max(stale)
    if method != "grpo_s":  # whose aggregation verl's metric follows: a mean over responses
        assert run.column(f"{method}/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)


@pytest.mark.parametrize("method", ["egsw", "gtpo", "grpo_s"])
def test_sessions_with_two_outputs(tmp_path, method):
    loops = tmp_path / "loops.yaml"
    loops.write_text("- name: two_outputs\n  _target_: two_outputs.TwoOutputs\n")
    run = train(
        tmp_path / "out",
        f"actor_rollout_ref.rollout.agent.agent_loop_config_path={loops}",
        "actor_rollout_ref.rollout.agent.default_agent_loop=two_outputs",
        ADV=method,
        PYTHONPATH=str(ROOT / "tests" / "verl_runs"),
    )
    assert_in_effect(run, method, changed=0.05)
    # A session counts once: no column or group has more than the 8 responses of a prompt.
    assert all(1 < value <= 8 for value in run.column(f"{method}/weight/max"))


@pytest.mark.parametrize("method", ["egsw", "gtpo", "grpo_s"])
def test_a_tools_answer_in_the_middle_of_the_response(tmp_path, method):
    """Multi-turn: tokens that the policy did not write stand between its own, and count nowhere."""
    loops = tmp_path / "loops.yaml"
    loops.write_text("- name: tool\n  _target_: tool_in_the_middle.ToolInTheMiddle\n")
    run = train(
        tmp_path / "out",
        f"actor_rollout_ref.rollout.agent.agent_loop_config_path={loops}",
        "actor_rollout_ref.rollout.agent.default_agent_loop=tool",
        ADV=method,
        PYTHONPATH=str(ROOT / "tests" / "verl_runs"),
    )
    assert_in_effect(run, method, changed=0.05)
    if method != "grpo_s":  # whose aggregation verl's metric follows: a mean over responses
        assert run.column(f"{method}/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)
    # The mask leaves the three tokens of each answer out of what verl counts as the response.
    assert all(step["num_turns/mean"] > 2 for step in run.steps)


@pytest.mark.parametrize("method", ["egsw", "gtpo"])
def test_dynamic_batch_sizes(tmp_path, method):
    """Micro-batches of about as many tokens, rows in another order: with EGSW the weights travel to the loss."""
    loss = ["+algorithm.egsw.channel=loss", "actor_rollout_ref.actor.policy_loss.loss_mode=egsw"]
    run = train(
        tmp_path,
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024",
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true",
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=1024",
        *(loss if method == "egsw" else ()),
        ADV=method,
    )
    assert_in_effect(run, method, changed=0.05)
    assert run.column(f"{method}/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)


@pytest.mark.parametrize("method", ["egsw", "grpo_s"])
def test_sequence_parallelism(tmp_path, method):
    """Two workers share each sequence (Ulysses): with EGSW the weights travel to the loss."""
    run = train(
        tmp_path,
        "trainer.n_gpus_per_node=2",
        "actor_rollout_ref.model.use_remove_padding=true",
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2",
        *(IN_THE_LOSS if method == "egsw" else ()),
        ADV=method,
    )
    assert_in_effect(run, method, changed=0.05)
    assert run.column(f"{method}/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)


def test_lora(tmp_path):
    run = train(
        tmp_path,
        "actor_rollout_ref.model.lora_rank=8",
        "actor_rollout_ref.model.lora_alpha=16",
        "actor_rollout_ref.model.target_modules=all-linear",
        "actor_rollout_ref.rollout.load_format=safetensors",
        "actor_rollout_ref.actor.optim.lr=1e-3",
    )
    assert_in_effect(run)
    assert run.column("egsw/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)


def test_resumed_run_goes_on_with_the_method(tmp_path):
    assert train(tmp_path, *FSDP1, "trainer.save_freq=2", ADV="gtpo").code == 0
    run = train(tmp_path, *FSDP1, "trainer.save_freq=2", steps=4, ADV="gtpo")
    assert run.code == 0
    assert [step["training/global_step"] for step in run.steps] == [3, 4]
    assert all(step["gtpo/changed/mean"] > 0.05 for step in run.steps)


def test_no_entropy_and_infinite_temperature_is_grpo(tmp_path):
    """The identity in a real run: no advantage differs from the base's."""
    run = train(tmp_path, "algorithm.egsw.alpha=0", "algorithm.egsw.temperature=1e30")
    assert run.code == 0
    assert run.column("egsw/changed/mean") == [0, 0]
    assert run.column("egsw/weight/max") == [1, 1]
    assert run.column("egsw/effective_share/mean") == pytest.approx([1, 1])


def test_surprisal_where_verl_computes_no_entropy(tmp_path):
    run = train(
        tmp_path,
        "+algorithm.egsw.entropy=surprisal",
        "algorithm.rollout_correction.bypass_mode=True",
        "actor_rollout_ref.rollout.calculate_log_probs=True",
    )
    assert_in_effect(run)
    assert "actor/entropy" not in run.steps[0]
    assert all(value > 0 for value in run.column("egsw/surprisal/mean"))
    assert not [name for name in run.steps[0] if name.startswith("egsw/entropy")]
    assert "entropy=surprisal weighs by -log_prob" in run.screen


def test_verls_own_estimator_on_the_same_recipe(tmp_path):
    run = train(tmp_path, ADV="grpo")
    assert run.code == 0
    assert len(run.steps) == 2
    assert not [name for name in run.steps[0] if name.startswith("egsw/")]
    assert "effective share" not in run.screen


def test_old_trainer_of_a_patched_verl(tmp_path):
    """No bridge there: entropy and metrics travel through verl itself."""
    folder, out = tmp_path / "site", tmp_path / "out"
    shutil.copytree(Path(verl.__file__).parent, folder / "verl")
    subprocess.run([sys.executable, ROOT / "patches" / "apply.py", "--site-packages", folder], check=True)
    path = os.pathsep.join([str(folder), str(ROOT)])
    run = train(out, "trainer.use_v1=False", ADV="gtpo", PYTHONPATH=path)
    assert_in_effect(run, "gtpo", changed=0.05)
    assert run.column("gtpo/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)
    assert "on verl 0.9.1: adv_estimator=gtpo" in run.log


def test_grpo_s_with_its_loss_and_a_reference_policy(tmp_path):
    run = train(
        tmp_path,
        f"{LOSS_MODE}=grpo_s_geometric",
        "actor_rollout_ref.actor.use_kl_loss=True",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "++algorithm.grpo_s={entropy_scope: batch, overlong: {enable: true}}",
        ADV="grpo_s",
    )
    assert_in_effect(run, "grpo_s", changed=0.3)
    assert run.column("actor/grpo_s_ratio/mean") == pytest.approx([1, 1], abs=0.2)
    assert all("actor/kl_loss" in step for step in run.steps)
    assert "and a KL loss is not the objective of arXiv 2508.04349" in run.screen


def test_egsw_over_ppo_with_weights_in_the_policy_and_kl_losses(tmp_path):
    """A critic, a reference policy, a KL penalty in the reward and one in the loss: what a base with values needs.

    All three under FSDP1.
    """
    run = train(
        tmp_path,
        *FSDP1,
        "++algorithm.egsw={base: gae, channel: loss, weigh_kl: true}",
        "critic.enable=True",
        f"{LOSS_MODE}=egsw",
        "algorithm.use_kl_in_reward=True",
        "actor_rollout_ref.actor.use_kl_loss=True",
    )
    assert_in_effect(run)
    assert all(step["actor/egsw_weighted/mean"] > 0.5 for step in run.steps)
    assert all("critic/vf_loss" in step and "actor/reward_kl_penalty" in step for step in run.steps)
    assert all(0 < step["egsw/entropy_success/mean"] < 3 for step in run.steps)
