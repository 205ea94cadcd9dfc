"""Policy loss `egsw` inside verl's real `ppo_loss`, as a worker calls it on one micro-batch.

Weights that arrive beside the loss's own fields, and are dropped there without a word, would train the base estimator.
Maps to kernels/policy_loss.py, verl_adapter/policy_losses.py and bridge.install_in_worker. Not exercised here: the way
of the weights through TransferQueue (test_verl_runs.py).
"""

import math

import pytest
import torch
import verl  # noqa: F401  (loads the plugin)
from hydra import compose, initialize_config_module
from tensordict import TensorDict
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils import losses

from egsw_plugin.errors import BridgeError
from egsw_plugin.kernels.policy_loss import clipped_surrogate, token_log_ratio
from egsw_plugin.verl_adapter.bridge import WEIGHTS_FIELD

PROMPT, LENGTHS = 2, [5, 3, 1, 4]
AGGREGATIONS = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"]


def actor_config(mode="egsw", aggregation="token-mean"):
    overrides = [
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
        f"actor_rollout_ref.actor.policy_loss.loss_mode={mode}",
        f"actor_rollout_ref.actor.loss_agg_mode={aggregation}",
        "actor_rollout_ref.actor.clip_ratio_high=0.28",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=overrides)
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


class Worker:
    """Four responses of different lengths, with the second token of the first one written by a tool."""

    def __init__(self, with_weights=True):
        generator = torch.Generator().manual_seed(0)

        def random(lengths):
            return [torch.randn(length, generator=generator, dtype=torch.float64) for length in lengths]

        self.log_probs = [row.requires_grad_() for row in random([PROMPT + length for length in LENGTHS])]
        self.old, self.advantages = random(LENGTHS), random(LENGTHS)
        self.weights = [row.exp() for row in random(LENGTHS)] if with_weights else None
        self.masks = [torch.ones(length, dtype=torch.int64) for length in LENGTHS]
        self.masks[0][1] = 0

    def loss(self, rows, config, dp_size=1):
        fields = {
            "prompts": nested([torch.zeros(PROMPT, dtype=torch.int64) for _ in rows]),
            "responses": nested([torch.zeros(LENGTHS[row], dtype=torch.int64) for row in rows]),
            "response_mask": nested([self.masks[row] for row in rows]),
            "old_log_probs": nested([self.old[row] for row in rows]),
            "advantages": nested([self.advantages[row] for row in rows]),
        }
        if self.weights:
            fields[WEIGHTS_FIELD] = nested([self.weights[row] for row in rows])
        data = TensorDict(fields, batch_size=len(rows))
        sizes = dict(dp_size=dp_size, batch_num_tokens=sum(LENGTHS) - 1, global_batch_size=len(LENGTHS))
        for name, value in sizes.items():
            data.set_non_tensor(name, value)
        log_probs = torch.nested.as_nested_tensor([self.log_probs[row] for row in rows], layout=torch.jagged)
        return losses.ppo_loss(config, {"log_probs": log_probs}, data)

    def gradient(self, parts, config, dp_size=1):
        """Gradient of the mean over `dp_size` ranks of the sum over micro-batches, as FSDP reduces it."""
        for row in self.log_probs:
            row.grad = None
        for rows in parts:
            (self.loss(rows, config, dp_size)[0] / dp_size).backward()
        return torch.cat([row.grad for row in self.log_probs])


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_micro_batches_and_ranks_do_not_change_the_gradient(aggregation):
    worker, config = Worker(), actor_config(aggregation=aggregation)
    whole = worker.gradient([[0, 1, 2, 3]], config)
    assert whole.abs().sum() > 0
    for parts, ranks in (
        ([[0], [1], [2], [3]], 1),
        ([[3, 0], [2, 1]], 1),
        ([[0, 1], [2, 3]], 2),
        ([[2], [0, 1, 3]], 2),
    ):
        torch.testing.assert_close(worker.gradient(parts, config, ranks), whole)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradient_equals_finite_differences(aggregation):
    worker, config = Worker(), actor_config(aggregation=aggregation)
    gradient = worker.gradient([[0, 1, 2, 3]], config)
    place, step = 0, 1e-6
    for row in worker.log_probs:
        for column in range(len(row)):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    row[column] += sign * step
                    values.append(float(worker.loss([0, 1, 2, 3], config)[0]))
                    row[column] -= sign * step
            assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)
            place += 1


def test_loss_equals_the_loop():
    worker, config = Worker(), actor_config()
    total = 0.0
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            if worker.masks[row][t]:
                # The model's output at a position is the log-probability of the next token.
                new = float(worker.log_probs[row][PROMPT + t - 1].detach())
                ratio = math.exp(new - float(worker.old[row][t]))
                advantage = float(worker.advantages[row][t])
                clipped = min(max(ratio, 1 - 0.2), 1 + 0.28)
                total -= float(worker.weights[row][t]) * min(ratio * advantage, clipped * advantage)
    loss, metrics = worker.loss([0, 1, 2, 3], config)
    assert float(loss) == pytest.approx(total / (sum(LENGTHS) - 1))
    assert metrics["actor/egsw_weighted/mean"].values == [1.0]


def test_weights_of_one_are_verls_loss_where_its_dual_clip_is_idle():
    worker = Worker()
    worker.weights = [torch.ones_like(row) for row in worker.weights]
    for row, length in enumerate(LENGTHS):
        worker.old[row] = worker.log_probs[row][PROMPT - 1 : PROMPT - 1 + length].detach() - 0.4
    ours = worker.gradient([[0, 1, 2, 3]], actor_config())
    torch.testing.assert_close(ours, worker.gradient([[0, 1, 2, 3]], actor_config("vanilla")))


def test_there_is_no_dual_clip():
    """A much likelier token with a negative advantage keeps its full loss; verl's vanilla caps it at 3 |A|."""
    losses_, _ = clipped_surrogate(torch.tensor([[3.0]]).exp(), torch.tensor([[-1.0]]), 0.2, 0.28)
    assert float(losses_) == pytest.approx(math.exp(3.0), rel=1e-6)


def test_ratios_beyond_float32_stay_finite():
    log_prob = torch.tensor([[500.0, -500.0]], requires_grad=True)
    log_ratio = token_log_ratio(log_prob, torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    losses_, _ = clipped_surrogate(log_ratio.exp(), torch.tensor([[-1.0, 1.0]]), 0.2, 0.28)
    losses_.sum().backward()
    assert losses_.isfinite().all() and log_prob.grad.isfinite().all()


def test_missing_weights_are_an_error():
    with pytest.raises(BridgeError, match=r"no weights arrived.*algorithm.egsw.channel=loss"):
        Worker(with_weights=False).loss([0, 1], actor_config())


def test_other_losses_are_untouched_by_the_bridge():
    plain = Worker(with_weights=False).gradient([[0, 1, 2, 3]], actor_config("vanilla"))
    torch.testing.assert_close(Worker().gradient([[0, 1, 2, 3]], actor_config("vanilla")), plain)
