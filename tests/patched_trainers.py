"""A script that test_patches.py runs on a patched verl: all methods, in both trainers, without the bridge."""

import kept_loops
import torch
import verl
from hydra import compose, initialize_config_module
from tensordict import TensorDict

from egsw_plugin.errors import OptionError
from egsw_plugin.verl_adapter import hooks, startup

if __name__ == "__main__":  # pytest imports this file as well, in the process of other tests
    # Before verl's trainer is imported, which is when the bridge would be installed.
    hooks.install_in_trainer = lambda trainer_base: None
    kept_loops.keep()

import test_bridge

METHODS = ("egsw", "gtpo", "grpo_s")
OLD = "trainer.use_v1=False"


def reference(method, batch):
    """Advantages by the loops that the bridge's tests compare with."""
    if method == "egsw":
        return test_bridge.expected(batch, batch.entropy) * test_bridge.base_of(batch)
    result, success = torch.zeros_like(batch.rewards), (batch.rewards.sum(1) > 0.5).tolist()
    lists = batch.entropy.tolist(), batch.mask.tolist(), batch.index.tolist()
    for place, value in test_bridge.shaped_by_loop(method, *lists, success).items():
        result[place] = value
    return result


def old_trainer(method, batch):
    """Advantages and metrics of V0's step, on the tensors that `RayPPOTrainer.fit` has by then."""
    from verl.trainer.ppo.ray_trainer import compute_advantage

    tensors = {"token_level_scores": batch.rewards, "token_level_rewards": batch.rewards, "response_mask": batch.mask}
    tensors |= {"old_log_probs": -batch.entropy - 1, "entropy": batch.entropy}
    data = verl.DataProto(TensorDict(tensors, batch_size=len(batch.mask)), {"uid": batch.index})
    metrics = {}
    config = test_bridge.trainer_of(test_bridge.PPOTrainerSync, "none").config.algorithm
    data = compute_advantage(data, adv_estimator=method, config=config, metrics=metrics)
    return data.batch["advantages"], metrics


def new_trainer(method, batch):
    """Advantages and metrics of V1's step, from TransferQueue to TransferQueue."""
    metrics = {}
    trainer = test_bridge.trainer_of(test_bridge.PPOTrainerSync, "none", f"algorithm.adv_estimator={method}")
    trainer._compute_advantage(batch.batch, metrics)
    return test_bridge.wide(batch.read("advantages"), batch.mask), metrics


def start_up(method, *overrides):
    """What the start-up checks say about a run of the old trainer."""
    overrides = [f"algorithm.adv_estimator={method}", OLD, "actor_rollout_ref.rollout.n=4", *overrides]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=overrides)
    try:
        startup.check(config)
    except OptionError as error:
        return str(error)


def main():
    assert not hasattr(test_bridge.PPOTrainer._compute_advantage, "__wrapped__")  # no bridge
    print("verl of", verl.__file__)
    with test_bridge.running_queue():
        for seed, method in enumerate(METHODS, 30):
            batch = test_bridge.Stored(seed)
            wanted, own = reference(method, batch), batch.mask.bool()
            for step in (old_trainer, new_trainer):
                advantages, metrics = step(method, batch)
                torch.testing.assert_close(advantages, wanted, rtol=1e-5, atol=1e-5)
                assert metrics[f"{method}/changed/mean"] > 0.3
                assert abs(metrics[f"{method}/entropy/mean"] - float(batch.entropy[own].mean())) < 1e-5
            assert start_up(method) is None
            print(f"{method}: V0 and V1 as the reference")
        _, metrics = old_trainer("rloo", batch)
        assert not metrics
    loss = "actor_rollout_ref.actor.policy_loss.loss_mode=egsw"
    assert "algorithm.egsw.channel='loss': the old trainer" in start_up("egsw", "+algorithm.egsw.channel=loss", loss)
    assert "algorithm.gtpo.success='acc': the old trainer" in start_up("gtpo", "+algorithm.gtpo.success=acc")


if __name__ == "__main__":
    main()
