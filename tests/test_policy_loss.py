"""Our policy losses inside verl's real `ppo_loss`, as a worker calls it on one micro-batch.

Weights that arrive beside the loss's own fields, and are dropped there without a word, would train the base estimator;
a ratio or an aggregation of the wrong kind trains another method. Maps to kernels/policy_loss.py,
methods/{rules,losses}.py, verl_adapter/worker.py, hooks.install_in_worker. Not exercised here: the way of the weights
through TransferQueue (test_verl_runs.py).
"""

import math

import pytest
import reference_shaping as reference
import torch
import verl  # noqa: F401  (loads the plugin)
from launches import configuration
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils import losses

from egsw_plugin.errors import BridgeError
from egsw_plugin.fields import Field, arriving
from egsw_plugin.kernels.policy_loss import clipped_surrogate, sequence_ratio, token_log_ratio
from egsw_plugin.methods import LOSSES
from egsw_plugin.methods.rules import token_losses

LOSS_MODES = ["egsw", "gtpo", "grpo_s", "grpo_s_geometric", "egsw_plugin"]
WEIGHT, KL_WEIGHT = Field.WEIGHT.queue_name, Field.KL_WEIGHT.queue_name
READS_WEIGHTS = ("egsw", "egsw_plugin")

PROMPT, LENGTHS = 2, [5, 3, 1, 4]
AGGREGATIONS = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"]
SEQUENCE = {"grpo_s": "arithmetic", "grpo_s_geometric": "geometric"}


def actor_config(mode="egsw", aggregation="token-mean", kl=False):
    overrides = [
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
        f"actor_rollout_ref.actor.policy_loss.loss_mode={mode}",
        f"actor_rollout_ref.actor.loss_agg_mode={aggregation}",
        "actor_rollout_ref.actor.clip_ratio_low=0.15",
        "actor_rollout_ref.actor.clip_ratio_high=0.28",
        f"actor_rollout_ref.actor.use_kl_loss={kl}",
        "actor_rollout_ref.actor.kl_loss_coef=0.5",
    ]
    return omega_conf_to_dataclass(configuration(*overrides).actor_rollout_ref.actor)


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


class Worker:
    """Four responses of different lengths, with the second token of the first one written by a tool."""

    def __init__(self, mode="egsw", rollout_is_weights=False, kl=False, weigh_kl=False):
        """Weights arrive where policy loss `mode` reads them, and with `weigh_kl` as weights of the KL loss, too."""
        generator = torch.Generator().manual_seed(0)

        def random(lengths):
            return [torch.randn(length, generator=generator, dtype=torch.float64) for length in lengths]

        self.log_probs = [row.requires_grad_() for row in random([PROMPT + length for length in LENGTHS])]
        self.old, self.advantages = random(LENGTHS), random(LENGTHS)
        self.extra, self.per_row = {}, {}
        self.weights = [row.exp() for row in random(LENGTHS)]
        if mode in READS_WEIGHTS:
            self.extra[WEIGHT] = self.weights
        if mode == "egsw_plugin":
            self.per_row[Field.LOSS_OPTIONS.queue_name] = torch.full((len(LENGTHS), 1), math.nan, dtype=torch.float64)
        if weigh_kl:
            self.extra[KL_WEIGHT] = self.weights
        if rollout_is_weights:
            self.extra["rollout_is_weights"] = [row.exp() for row in random(LENGTHS)]
        if kl:
            self.extra["ref_log_prob"] = random(LENGTHS)
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
        fields |= {name: nested([values[row] for row in rows]) for name, values in self.extra.items()}
        fields |= {name: values[rows] for name, values in self.per_row.items()}
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

    def padded(self):
        """New and old log-probabilities, advantages and mask as lists of rows of one length."""
        # The model's output at a position is the log-probability of the next token.
        new = [row.detach()[PROMPT - 1 : -1] for row in self.log_probs]
        width = max(LENGTHS)
        return [
            [row.tolist() + [math.nan if field is not self.masks else 0] * (width - len(row)) for row in field]
            for field in (new, self.old, self.advantages, self.masks)
        ]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("mode", LOSS_MODES)
@pytest.mark.parametrize("rollout_is_weights", [False, True])
def test_micro_batches_and_ranks_do_not_change_the_gradient(mode, aggregation, rollout_is_weights):
    worker, config = Worker(mode, rollout_is_weights=rollout_is_weights), actor_config(mode, aggregation)
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
@pytest.mark.parametrize("mode", LOSS_MODES)
def test_gradient_equals_finite_differences(mode, aggregation):
    worker, config = Worker(mode, kl=True, weigh_kl=True), actor_config(mode, aggregation, kl=True)
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


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("mode", LOSS_MODES)
@pytest.mark.parametrize("rollout_is_weights", [False, True])
def test_loss_equals_the_loop(mode, aggregation, rollout_is_weights):
    worker, config = Worker(mode, rollout_is_weights=rollout_is_weights), actor_config(mode, aggregation)
    arguments = (*worker.padded(), 0.15, 0.28)
    if mode in SEQUENCE:
        tokens = reference.sequence_objective_loss(*arguments, ratio=SEQUENCE[mode])
    else:
        tokens = reference.token_objective_loss(*arguments)
    for (row, column), value in tokens.items():
        factor = float(worker.weights[row][column]) if mode in READS_WEIGHTS else 1.0
        if rollout_is_weights:
            factor *= float(worker.extra["rollout_is_weights"][row][column])
        tokens[row, column] = value * factor
    loss, metrics = worker.loss([0, 1, 2, 3], config)
    assert float(loss.detach()) == pytest.approx(reference.aggregate(tokens, worker.padded()[3], aggregation))
    if mode == "egsw":
        assert metrics["actor/egsw_weighted/mean"].values == [1.0]
    assert 0 < metrics["actor/pg_clipfrac"].values[0] < 1


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_gradient_of_a_response_is_that_of_the_formula(mean):
    """Inside the clip, arithmetic: -A / |o| * w_t on each token; geometric: -A / |o| * the response's ratio."""
    log_prob = torch.tensor([[-0.9, -1.1, -1.05, 0.0]], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([[-1.0, -1.0, -1.0, 5.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    log_ratio = token_log_ratio(log_prob, old, mask)
    ratio = sequence_ratio(log_ratio, mask, mean)
    loss, clipped = clipped_surrogate(ratio, torch.full((1, 1), 1.7, dtype=torch.float64), 0.2, 0.28)
    assert not clipped.any()
    loss.sum().backward()
    per_token = log_ratio.exp() if mean == "arithmetic" else ratio.expand(1, 4)
    torch.testing.assert_close(log_prob.grad, (-1.7 / 3 * per_token * mask).detach())


@pytest.mark.parametrize("mode", ["egsw", "gtpo", "egsw_plugin"])
def test_weights_of_one_are_verls_loss_where_its_dual_clip_is_idle(mode):
    ours, verls = Worker(mode), Worker("vanilla")
    if mode in READS_WEIGHTS:
        ours.extra[WEIGHT] = [torch.ones_like(row) for row in ours.weights]
    gradients = []
    for worker, name in ((ours, mode), (verls, "vanilla")):
        for row, length in enumerate(LENGTHS):
            worker.old[row] = worker.log_probs[row][PROMPT - 1 : PROMPT - 1 + length].detach() - 0.4
        gradients.append(worker.gradient([[0, 1, 2, 3]], actor_config(name)))
    torch.testing.assert_close(*gradients)


def test_on_policy_every_loss_has_the_policy_gradient():
    """At ratio 1 nothing is clipped: with advantages constant over a response all losses agree."""
    gradients = []
    for mode in ("vanilla", "gtpo", "grpo_s", "grpo_s_geometric", "egsw_plugin", "gspo"):
        worker = Worker(mode)
        worker.extra.pop(WEIGHT, None)
        for row, length in enumerate(LENGTHS):
            worker.old[row] = worker.log_probs[row][PROMPT - 1 : PROMPT - 1 + length].detach().clone()
            worker.advantages[row] = torch.full_like(worker.advantages[row], float(row) - 1.3)
        gradients.append(worker.gradient([[0, 1, 2, 3]], actor_config(mode, "seq-mean-token-mean")))
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


@pytest.mark.parametrize("mode", ["vanilla", "gspo", "gtpo", "egsw_plugin", "grpo_s", "grpo_s_geometric", "geo_mean"])
def test_which_losses_keep_the_credit_of_a_token(mode):
    """What start-up's refusals stand on: at ratio 1, advantages of tokens against their mean over the response."""
    gradients = []
    for level in (False, True):
        worker = Worker(mode)
        worker.extra.pop(WEIGHT, None)
        for row, length in enumerate(LENGTHS):
            worker.old[row] = worker.log_probs[row][PROMPT - 1 : PROMPT - 1 + length].detach().clone()
            if level:
                own = worker.advantages[row][worker.masks[row].bool()].mean()
                worker.advantages[row] = torch.full_like(worker.advantages[row], float(own))
        gradients.append(worker.gradient([[0, 1, 2, 3]], actor_config(mode)))
    assert torch.allclose(*gradients) is (mode in (*SEQUENCE, "geo_mean"))


@pytest.mark.parametrize("mode,name", [("grpo_s", "actor/grpo_s_ratio/mean"), ("fipo", "actor/fipo_factor/mean")])
def test_a_micro_batch_of_padding_says_that_nothing_was_changed(mode, name):
    """verl takes the mean over micro-batches, empty ones too."""
    member, one = LOSSES[mode], torch.full((2, 3), -1.0)
    rule = member.rule(member.options_type())
    assert token_losses(rule, one, one, one, torch.zeros(2, 3, dtype=torch.bool), 0.2, 0.28).metrics[name] == 1


@pytest.mark.parametrize("mode", LOSS_MODES)
def test_there_is_no_dual_clip(mode):
    """A much likelier token with a negative advantage keeps its full loss; verl's vanilla caps it at 3 |A|."""
    for name, per_token in ((mode, math.exp(3)), ("vanilla", 3.0)):
        worker = Worker(name)
        if name in READS_WEIGHTS:
            worker.extra[WEIGHT] = [torch.ones_like(row) for row in worker.weights]
        worker.old[2] = worker.log_probs[2][PROMPT - 1 : PROMPT].detach() - 3.0
        worker.advantages[2] = torch.tensor([-1.0], dtype=torch.float64)
        loss, _ = worker.loss([2], actor_config(name, "token-mean"))
        assert float(loss.detach()) * (sum(LENGTHS) - 1) == pytest.approx(per_token)


@pytest.mark.parametrize("mode", LOSS_MODES)
def test_ratios_beyond_float32_and_rubbish_outside_the_mask_stay_finite(mode):
    class Config:
        clip_ratio, clip_ratio_low, clip_ratio_high, global_batch_info = 0.2, None, None, {}

    log_prob = torch.tensor([[500.0, -500.0, math.inf], [0.0, 0.0, math.nan]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    advantages = torch.tensor([[-1.0, 1.0, math.nan], [1.0, 1.0, math.inf]])
    correction = torch.tensor([[1.0, 0.5, math.nan], [math.nan, 1.0, 0.0]])
    arguments = torch.zeros(2, 3), log_prob, advantages, mask, "seq-mean-token-mean", Config, correction
    given = {
        "egsw": {Field.WEIGHT: torch.ones(2, 3)},
        "egsw_plugin": {Field.LOSS_OPTIONS: torch.full((2, 1), math.nan)},
    }
    with arriving(given.get(mode, {})):
        loss, metrics = get_policy_loss_fn(mode)(*arguments)
    loss.backward()
    assert loss.isfinite() and log_prob.grad.nan_to_num(0).isfinite().all()
    assert log_prob.grad[mask].isfinite().all()
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("mode", LOSS_MODES)
def test_bfloat16_log_probabilities_are_compared_in_float32(mode):
    new = torch.tensor([[-1.0, -2.0]], dtype=torch.bfloat16)
    assert token_log_ratio(new, new - 0.5, torch.ones(1, 2, dtype=torch.bool)).dtype == torch.float32


class TestWeightsOfTheKLLoss:
    def test_weigh_each_tokens_divergence(self):
        worker = Worker(kl=True, weigh_kl=True)
        config = actor_config(kl=True)
        loss, metrics = worker.loss([0, 1, 2, 3], config)
        new, _, _, mask = worker.padded()
        total = 0.0
        for row, columns in enumerate(reference.policy_tokens(mask)):
            for column in columns:
                difference = float(worker.extra["ref_log_prob"][row][column]) - new[row][column]
                divergence = math.exp(difference) - difference - 1  # low_var_kl
                total += float(worker.weights[row][column]) * min(max(divergence, -10), 10)
        assert float(metrics["kl_loss"].values[0]) == pytest.approx(total / (sum(LENGTHS) - 1))
        policy = float(metrics["actor/pg_loss"].values[0])
        # verl adds the KL loss in place to the tensor that it logs as pg_loss.
        assert float(loss.detach()) in (
            pytest.approx(policy + 0.5 * total / (sum(LENGTHS) - 1)),
            pytest.approx(policy),
        )

    def test_are_left_out_unless_asked_for(self):
        config = actor_config(kl=True)
        plain, weighed = Worker(kl=True), Worker(kl=True, weigh_kl=True)
        values = [float(w.loss([0, 1, 2, 3], config)[1]["kl_loss"].values[0]) for w in (plain, weighed)]
        assert values[0] != pytest.approx(values[1])
        none = Worker("vanilla", kl=True)
        of_vanilla = none.loss([0, 1, 2, 3], actor_config("vanilla", kl=True))[1]["kl_loss"].values[0]
        assert values[0] == pytest.approx(float(of_vanilla))

    def test_without_a_kl_loss_are_an_error(self):
        with pytest.raises(BridgeError, match=r"field kl_weight arrived.*set actor_rollout_ref.actor.use_kl_loss=True"):
            Worker(weigh_kl=True).loss([0, 1], actor_config())


def test_missing_weights_are_an_error():
    with pytest.raises(BridgeError, match=r"no weights arrived.*algorithm.egsw.channel=loss"):
        Worker("vanilla").loss([0, 1], actor_config())


def test_weights_of_fewer_rows_are_an_error():
    """torch would weigh every response like the first."""

    class Config:
        clip_ratio, clip_ratio_low, clip_ratio_high, global_batch_info = 0.2, None, None, {}

    arguments = *(torch.zeros(2, 3) for _ in range(3)), torch.ones(2, 3, dtype=torch.bool), "token-mean", Config
    with (
        arriving({Field.WEIGHT: torch.ones(1, 3)}),
        pytest.raises(BridgeError, match=r"weights of shape \(1, 3\) for log-probabilities of \(2, 3\)"),
    ):
        get_policy_loss_fn("egsw")(*arguments)


def test_a_loss_of_a_file_is_there_when_a_worker_looks_for_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from egsw_plugin.methods.losses import GTPOLoss\nclass Mine(GTPOLoss):\n    name = 'mine'\n")
    worker = Worker("gtpo")
    losses = [worker.loss([0, 1, 2, 3], actor_config(mode))[0] for mode in ("gtpo", f"{file}:Mine")]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["vanilla", "gspo", "gtpo", "grpo_s"])
def test_weights_that_the_loss_does_not_read_are_an_error(mode):
    """They would be dropped without a word, and another method trained."""
    with pytest.raises(BridgeError, match=f"field weight arrived, and policy loss {mode} did not read it"):
        Worker("egsw").loss([0, 1], actor_config(mode))


def test_a_log_ratio_is_held_within_twenty():
    """verl's own bound; beyond it there is no gradient."""
    new = torch.tensor([[0.0, -40.0, -1.0]], requires_grad=True)
    found = token_log_ratio(new, torch.tensor([[-25.0, 0.0, -3.0]]), torch.ones(1, 3, dtype=torch.bool))
    assert found.tolist() == [[20.0, -20.0, 2.0]]
    found.sum().backward()
    assert new.grad.tolist() == [[0.0, 0.0, 1.0]]
