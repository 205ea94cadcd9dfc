"""Real runs of verl's trainer on the CPU, through the shipped launcher: Ray, FSDP2, TransferQueue, vLLM, weight sync.

Everything else in the suite would pass with a bridge that is never called; these tests read verl's own metrics file.
Each run is a few steps long and under a time limit. Maps to verl_adapter/, cpu/ and recipes/tiny_cpu. EGSW with
its defaults runs in test_recipe_runs.py, GRPO-S with its own in test_study_run.py.
"""

import pytest
from launch import FSDP1, LOSS_MODE, TIME_LIMIT, assert_in_effect, train

pytestmark = [pytest.mark.verl_run, pytest.mark.timeout(TIME_LIMIT + 60)]


def test_rollout_apart_from_the_trainer_with_weights_in_the_policy_loss(tmp_path):
    """separate_async, two updates between transfers; channel: loss over micro-batches smaller than a group."""
    run = train(
        tmp_path,
        "machine=cpu_apart",
        "trainer.v1.separate_async.parameter_sync_step=2",
        "trainer.v1.separate_async.num_warmup_batches=3",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "+algorithm.egsw.channel=loss",
        f"{LOSS_MODE}=egsw",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        steps=3,
    )
    assert_in_effect(run, steps=3)
    assert run.column("egsw/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)
    # The rollout is batches ahead of the trainer, and gets the trainer's weights.
    stale = run.column("training/off_policy/trajectory_staleness_worst/max")
    assert stale[0] == 0 < max(stale)
    assert all(0 < value < 0.1 for value in run.column("training/rollout_probs_diff_mean"))
    assert all(value > 0.5 for value in run.column("actor/egsw_weighted/mean"))
    assert all(value > 0 for value in run.column("actor/grad_norm"))


def test_gtpo_with_dapo_on_two_workers(tmp_path):
    """Rows balanced over two FSDP1 workers; dynamic sampling, and a length penalty that success must not see.

    FSDP1 and an entropy in bfloat16, which is warned of, are verl's defaults.
    """
    run = train(
        tmp_path,
        *FSDP1,
        "trainer.n_gpus_per_node=2",
        "trainer.balance_batch=True",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision=null",
        "algorithm.filter_groups.enable=True",
        "algorithm.filter_groups.metric=acc",
        "reward.reward_manager.name=dapo",
        "+reward.reward_kwargs.overlong_buffer_cfg={enable: true, len: 60, penalty_factor: 2.0, log: true}",
        "+reward.reward_kwargs.max_resp_len=64",
        ADV="gtpo",
    )
    assert_in_effect(run, "gtpo", changed=0.05)
    assert run.column("gtpo/mixed_groups/mean") == [1, 1]  # dynamic sampling leaves no other
    assert run.column("gtpo/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-2)
    # The penalty pushes most scores below the threshold; judged by them, there would be few successes.
    assert all(step["critic/score/mean"] < 0.5 for step in run.steps)
    assert "this length penalty does not reach the advantages" in run.screen
    assert "policy loss gtpo" in run.screen
    assert "is not the objective of" not in run.screen
    assert "[egsw] warning: the entropy arrives in bfloat16" in run.screen
    assert "entropy_from_logits_with_chunking=True" in run.screen
    assert "mixed_precision" in run.screen


def test_a_bad_option_is_shown_at_once(tmp_path):
    run = train(tmp_path, "+algorithm.egsw.alhpa=1")
    assert run.code not in (0, 124)
    assert "algorithm.egsw.alhpa=1: there is no such option; did you mean 'alpha'?" in run.screen
    assert "ray init kwargs" not in run.log
