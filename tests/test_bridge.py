"""The bridge inside verl's real `_compute_advantage`, over a real TransferQueue: which rows' entropy arrives, and where
weights and metrics go.

Entropy of the wrong rows trains something, so nothing but a comparison shows it. The trainer here is verl's class with
its configuration and without workers: the advantage step needs no more. Maps to verl_adapter/{step,hooks}.py. Not
exercised: that the stored entropy is the old policy's (test_verl_runs.py compares it with verl's own metric).
"""

import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray
import reference
import reference_shaping
import torch
import transfer_queue as tq
from batches import random_batch
from forks import forked
from hydra import compose, initialize_config_module
from launches import configuration
from omegaconf import OmegaConf
from tensordict import TensorDict
from test_policy_loss import actor_config
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.v1 import PPOTrainer, PPOTrainerColocateAsync, PPOTrainerSeparateAsync, PPOTrainerSync
from verl.utils import tensordict_utils
from verl.workers.engine.utils import prepare_micro_batches
from verl.workers.utils import losses

from egsw_plugin.errors import BridgeError, TensorError
from egsw_plugin.fields import Field
from egsw_plugin.kernels.rows import Rows
from egsw_plugin.verl_adapter import contract
from egsw_plugin.verl_adapter.step import TrainerStep

WEIGHT = Field.WEIGHT.queue_name

LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"
QUEUE = ["transfer_queue.enable=True", "transfer_queue.backend.SimpleStorage.num_data_storage_units=1"]
PARTITION = "some-partition"  # verl calls it "train"; nothing may depend on that
TRAINERS = [PPOTrainerSync, PPOTrainerColocateAsync, PPOTrainerSeparateAsync]


@contextmanager
def running_queue():
    """Ray and verl's TransferQueue."""
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False)
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=QUEUE).transfer_queue
    tq.init(config)
    yield tq
    tq.close()
    ray.shutdown()


@pytest.fixture(scope="module")
def queue():
    with running_queue() as started:
        yield started


@pytest.fixture
def model(tmp_path):
    """A folder with nothing but a model's configuration: 1,000 tokens of vocabulary."""
    from transformers import Qwen2Config

    Qwen2Config(vocab_size=1000, hidden_size=8, num_attention_heads=1, num_hidden_layers=1).save_pretrained(tmp_path)
    return str(tmp_path)


def trainer_of(cls, model, *overrides):
    trainer = object.__new__(cls)
    overrides = ["algorithm.adv_estimator=egsw", f"actor_rollout_ref.model.path={model}", *overrides]
    trainer.config = configuration(*overrides)
    return trainer


def nested(tensor, lengths):
    return torch.nested.as_nested_tensor(
        [row[:length].clone() for row, length in zip(tensor, lengths, strict=True)], layout=torch.jagged
    )


class Stored:
    """A random batch in TransferQueue as verl's rollout and log-probability steps leave it, in an order of its own."""

    def __init__(self, seed, leave_out=(), name="a", outputs=1, extra=None, full=False, images=False):
        """full: every response is as long as the batch is wide. images: stored as for a model that sees them."""
        self.rewards, self.mask, self.index, self.entropy = random_batch(seed, prompts=3, responses=6)
        rows, tokens = self.mask.shape
        # A response is at least as long as its last policy token; some end with tokens of an environment.
        width = (self.mask * torch.arange(1, tokens + 1)).amax(1)
        self.lengths = torch.minimum(width.clamp(min=1) + torch.arange(rows) % 2, torch.tensor(tokens)).tolist()
        if full:
            self.lengths = [tokens] * rows
        self.rewards[torch.arange(tokens) >= torch.tensor(self.lengths).unsqueeze(1)] = 0  # not stored
        # Every `outputs` rows of a prompt, wherever they stand in the batch, are one session's outputs.
        seen = {}
        self.sessions = []
        for uid in self.index:
            seen[uid] = seen.get(uid, -1) + 1
            many = 1 if uid.startswith("pad") else outputs
            self.sessions.append((uid, seen[uid] // many, seen[uid] % many))
        self.keys = [f"{uid}-{name}{seed}_{session}_{output}" for uid, session, output in self.sessions]
        self.tags = [
            {"response_len": length, "is_padding": uid.startswith("pad")}
            for length, uid in zip(self.lengths, self.index, strict=True)
        ]
        per_token = {
            "response_mask": self.mask,
            "rm_scores": self.rewards,
            "old_log_probs": -self.entropy - 1,
            "entropy": self.entropy,
        }
        fields = {key: nested(value, self.lengths) for key, value in per_token.items() if key not in leave_out}
        self.fields = list(fields)
        fields["uid"] = self.index.tolist()
        if extra is not None:
            fields["extra_fields"] = [{"reward_extra_info": extra(row)} for row in range(rows)]
        # Stored in another order than the trainer asks for, as rows finish when they finish.
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()
        for row in order:
            one = {key: value[row : row + 1] for key, value in fields.items() if isinstance(value, list)}
            if images:
                one |= self.seen(row)
            one |= {
                key: nested(per_token[key][row : row + 1], self.lengths[row : row + 1])
                for key in per_token
                if key in fields
            }
            tq.kv_batch_put(
                keys=[self.keys[row]],
                partition_id=PARTITION,
                tags=[self.tags[row]],
                fields=TensorDict(_non_tensor(one), batch_size=1),
            )
        self.batch = KVBatchMeta(partition_id=PARTITION, keys=self.keys, tags=self.tags)

    def seen(self, row):
        """What a worker of verl's agent loop stores beside them for a model that sees images, of one row."""
        # Prompts of several lengths: verl cannot cut a batch whose rows, positions of 4 each, are all equally long.
        prompt, response = torch.tensor([row + 100, *[7] * (row % 3)]), torch.full((self.lengths[row],), 7)
        ids = torch.cat([prompt, response])
        positions = torch.arange(len(ids)).expand(4, -1) * (row + 1)
        image = {"pixel_values": torch.full((2, 4), row)} if row % 3 else {}
        return {
            "multi_modal_inputs": [image],
            "position_ids": torch.nested.as_nested_tensor([positions], layout=torch.jagged),
            **{
                key: torch.nested.as_nested_tensor([value], layout=torch.jagged)
                for key, value in {"input_ids": ids, "prompts": prompt, "responses": response}.items()
            },
        }

    def read(self, name):
        data = tq.kv_batch_get(keys=self.keys, partition_id=PARTITION, select_fields=[name])
        return data[name].to_padded_tensor(0.0)

    def close(self):
        tq.kv_clear(keys=self.keys, partition_id=PARTITION)


def _non_tensor(fields):
    from tensordict.tensorclass import NonTensorStack

    return {key: NonTensorStack(*value) if isinstance(value, list) else value for key, value in fields.items()}


@pytest.fixture
def stored(queue):
    made = []

    def make(*args, **kwargs):
        made.append(Stored(*args, **kwargs))
        return made[-1]

    yield make
    for batch in made:
        batch.close()


def base_of(batch):
    return get_adv_estimator_fn("grpo")(batch.rewards.clone(), batch.mask, batch.index)[0]


def expected(batch, entropy):
    """The loop's weights of the batch's policy tokens, as a tensor that is zero elsewhere."""
    weights = reference.egsw_weights(
        base_of(batch).tolist(), entropy.tolist(), batch.mask.tolist(), batch.index, 0.5, 3.0
    )
    result = torch.zeros_like(batch.rewards)
    for place, weight in weights.items():
        result[place] = weight
    return result


def wide(tensor, like):
    """verl pads to the longest response stored, which may be shorter than the batch's width."""
    return torch.nn.functional.pad(tensor, (0, like.shape[1] - tensor.shape[1]))


@pytest.mark.parametrize("cls", TRAINERS)
def test_each_trainer_mode_gets_the_entropy_of_its_rows(stored, model, cls):
    batch, metrics = stored(1), {}
    trainer_of(cls, model)._compute_advantage(batch.batch, metrics)
    result = wide(batch.read("advantages"), batch.mask)
    torch.testing.assert_close(result, expected(batch, batch.entropy) * base_of(batch), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(wide(batch.read("returns"), batch.mask), base_of(batch), rtol=1e-5, atol=1e-6)
    assert metrics["egsw/changed/mean"] > 0.5
    own = batch.mask.bool()
    assert metrics["egsw/entropy/mean"] == pytest.approx(float(batch.entropy[own].mean()), rel=1e-5)


@pytest.mark.parametrize("number,share", [(6, 0.0), (7, 1.0)])
def test_groups_that_lack_responses_are_counted(stored, model, capsys, monkeypatch, number, share):
    """Each of three has six; rows that pad the batch are no group."""
    from egsw_plugin import console

    monkeypatch.setattr(console, "_warned", set())
    metrics = {}
    trainer = trainer_of(PPOTrainerSync, model, f"actor_rollout_ref.rollout.n={number}")
    trainer._compute_advantage(stored(23).batch, metrics)
    assert metrics["credit/incomplete_groups/mean"] == share
    warning = "3 of 3 groups have fewer responses than actor_rollout_ref.rollout.n=7"
    assert (warning in capsys.readouterr().out) == bool(share)


def test_weights_are_stored_for_the_policy_loss(stored, model):
    batch = stored(2)
    trainer = trainer_of(PPOTrainerSync, model, "+algorithm.egsw.channel=loss", f"{LOSS}=egsw")
    trainer._compute_advantage(batch.batch, {})
    torch.testing.assert_close(wide(batch.read("advantages"), batch.mask), base_of(batch), rtol=1e-5, atol=1e-6)
    weights = tq.kv_batch_get(keys=batch.keys, partition_id=PARTITION, select_fields=[WEIGHT])[WEIGHT]
    assert weights.offsets().diff().tolist() == batch.lengths
    weights = wide(weights.to_padded_tensor(0.0), batch.mask)
    torch.testing.assert_close(weights, expected(batch, batch.entropy), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("images", [False, True])
def test_responses_of_one_length(stored, model, images):
    """All cut at the longest: what is stored has a length a row all the same, and no row is another's."""
    batch = stored(21, full=True, images=images)
    trainer = trainer_of(PPOTrainerSync, model, "+algorithm.egsw.channel=loss", f"{LOSS}=egsw")
    trainer._compute_advantage(batch.batch, {})
    torch.testing.assert_close(batch.read("advantages"), base_of(batch), rtol=1e-5, atol=1e-6)
    own = batch.mask.bool()
    weights = batch.read(WEIGHT).masked_fill(~own, 0)
    torch.testing.assert_close(weights, expected(batch, batch.entropy), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("full", [False, True])
def test_weights_of_a_batch_with_images_reach_its_tokens(stored, model, full):
    """From the advantage step to the gradient: TransferQueue, verl's micro-batches of a dynamic size, its loss."""
    batch = stored(22, full=full, images=True)
    trainer = trainer_of(PPOTrainerSync, model, "+algorithm.egsw.channel=loss", f"{LOSS}=egsw")
    trainer._compute_advantage(batch.batch, {})
    fields = [*batch.fields, "advantages", WEIGHT, "input_ids", "prompts", "responses"]
    data = tq.kv_batch_get(
        keys=batch.keys,
        partition_id=PARTITION,
        select_fields=[*fields, "position_ids", "multi_modal_inputs"],
    )
    number = int(batch.mask.sum())
    sizes = {"dp_size": 1, "batch_num_tokens": number, "global_batch_size": len(batch.keys)}
    tensordict_utils.maybe_fix_3d_position_ids(data)
    tensordict_utils.assign_non_tensor(data, use_dynamic_bsz=True, max_token_len_per_gpu=40, **sizes)
    parts, _ = prepare_micro_batches(data)
    assert len(parts) > 2
    # The policy has not moved, and then the gradient of a token is -w A / N.
    log_probs = wide(batch.read("old_log_probs"), batch.mask)
    gradient, config = torch.zeros_like(log_probs), actor_config("egsw")
    for part in parts:
        rows = [int(ids[0]) - 100 for ids in part["input_ids"].unbind()]
        for row, positions in zip(rows, part["position_ids"].unbind(), strict=True):
            assert torch.equal(positions, torch.arange(row % 3 + 1 + batch.lengths[row]).expand(4, -1) * (row + 1))
        for row, image in zip(rows, part["multi_modal_inputs"], strict=True):
            image = getattr(image, "data", image)
            assert image.keys() == ({"pixel_values"} if row % 3 else set())
            assert all((value == row).all() for value in image.values())
        own = [log_probs[row, : batch.lengths[row]].clone().requires_grad_() for row in rows]
        # The model's output at a place is of the token after it; before and behind the response is what nobody reads.
        output = [torch.nn.functional.pad(leaf, (row % 3, 1)) for row, leaf in zip(rows, own, strict=True)]
        output = {"log_probs": torch.nested.as_nested_tensor(output, layout=torch.jagged)}
        losses.ppo_loss(config, output, part)[0].backward()
        for row, leaf in zip(rows, own, strict=True):
            gradient[row, : len(leaf)] = leaf.grad
    wanted = -expected(batch, batch.entropy) * base_of(batch) / number
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)
    assert float(gradient.abs().max()) > 0


def test_surprisal_needs_no_entropy(stored, model):
    batch, metrics = stored(3, leave_out=("entropy",)), {}
    trainer_of(PPOTrainerSync, model, "+algorithm.egsw.entropy=surprisal")._compute_advantage(batch.batch, metrics)
    result = wide(batch.read("advantages"), batch.mask)
    torch.testing.assert_close(result, expected(batch, batch.entropy + 1) * base_of(batch), rtol=1e-5, atol=1e-6)


def test_missing_entropy_is_an_error(stored, model):
    batch = stored(4, leave_out=("entropy",))
    with pytest.raises(TensorError, match=r"egsw needs entropy.*partition 'some-partition'.*bypass_mode"):
        trainer_of(PPOTrainerSync, model)._compute_advantage(batch.batch, {})


def test_entropy_above_the_logarithm_of_the_vocabulary_is_an_error(stored, model):
    batch = stored(5, leave_out=("entropy",), name="b")
    wrong = nested(batch.entropy + 8, batch.lengths)  # log(1000) = 6.9
    tq.kv_batch_put(
        keys=batch.keys, partition_id=PARTITION, fields=TensorDict({"entropy": wrong}, batch_size=len(batch.keys))
    )
    with pytest.raises(TensorError, match=r"outside \[0, log\(1000\) = 6.9078\].*use_fused_kernels=False"):
        trainer_of(PPOTrainerSync, model)._compute_advantage(batch.batch, {})


def test_a_model_that_transformers_does_not_know(stored, model, tmp_path, capsys):
    """verl has other ways to read one; without the size of its vocabulary the entropy has no upper bound."""
    (tmp_path / "config.json").write_text('{"model_type": "of_tomorrow"}')
    batch, metrics = stored(5), {}
    trainer_of(PPOTrainerSync, model)._compute_advantage(batch.batch, metrics)
    assert metrics["egsw/changed/mean"] > 0.5
    assert "the size of the vocabulary is not known" in capsys.readouterr().out


@pytest.mark.parametrize("rejecting", ["token_k1", "seq_mean_k1"])
@pytest.mark.parametrize("name", ["egsw", "gtpo", "grpo_s"])
def test_rejected_tokens_are_out_of_the_loss_and_move_no_others(stored, model, name, rejecting):
    """verl's rollout correction takes them out of the mask before it asks for advantages."""
    results = []
    for correction in ([], [f"rollout_rs={rejecting}", "rollout_rs_threshold=0.9_1.1"]):
        batch, metrics = stored(36, name=rejecting + str(len(results))), {}
        third = torch.arange(len(batch.mask)).unsqueeze(1) % 3 == 0
        away = batch.entropy > 0.5 if rejecting == "token_k1" else third.expand_as(batch.mask)
        shifted = nested(-batch.entropy - 1 - 0.2 * away, batch.lengths)
        fields = TensorDict({"rollout_log_probs": shifted}, batch_size=len(batch.keys))
        tq.kv_batch_put(keys=batch.keys, partition_id=PARTITION, fields=fields)
        overrides = [f"algorithm.rollout_correction.{override}" for override in correction]
        trainer_of(PPOTrainerSync, model, f"algorithm.adv_estimator={name}", *overrides)._compute_advantage(
            batch.batch, metrics
        )
        own = {key: value for key, value in metrics.items() if key.startswith(name)}
        results.append(([batch.read(field) for field in ("advantages", "returns", "response_mask")], own))
    ((advantages, returns, mask), metrics), ((fewer, others, left), same) = results
    assert 0 < left.sum() < mask.sum() and metrics == same and metrics[f"{name}/changed/mean"] > 0
    assert torch.equal(fewer, advantages * left) and torch.equal(others, returns * left)


def test_a_base_that_reads_the_mask_sees_it_without_rejected_tokens(stored, model):
    """As verl's own estimator of that name."""
    results = []
    for name in ("reinforce_plus_plus", "egsw"):
        batch = stored(37, name="base of " + name)
        shifted = nested(-batch.entropy - 1 - 0.2 * (batch.entropy > 0.5), batch.lengths)
        fields = TensorDict({"rollout_log_probs": shifted}, batch_size=len(batch.keys))
        tq.kv_batch_put(keys=batch.keys, partition_id=PARTITION, fields=fields)
        overrides = [f"algorithm.adv_estimator={name}", "algorithm.gamma=0.9"]
        overrides += ["+algorithm.egsw={base: reinforce_plus_plus, alpha: 0.0, temperature: 1e30}"]
        overrides += ["algorithm.rollout_correction.rollout_rs=token_k1"]
        overrides += ["algorithm.rollout_correction.rollout_rs_threshold=0.9_1.1"]
        trainer_of(PPOTrainerSync, model, *overrides)._compute_advantage(batch.batch, {})
        results.append([batch.read(field) for field in ("advantages", "returns", "response_mask")])
    for verls, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, verls, rtol=1e-5, atol=1e-6)


def test_entropy_of_other_lengths_is_an_error(stored, model):
    batch = stored(6)
    batch.batch.tags[3]["response_len"] += 1
    with pytest.raises(TensorError, match=r"entropy of row 3 has \d+ tokens, its response \d+"):
        trainer_of(PPOTrainerSync, model)._compute_advantage(batch.batch, {})


def test_tags_without_lengths(stored, model):
    """An agent loop of the user's own may write other tags."""
    batch = stored(10)
    for tag in batch.batch.tags:
        del tag["response_len"]
    trainer_of(PPOTrainerSync, model)._compute_advantage(batch.batch, {})
    result = wide(batch.read("advantages"), batch.mask)
    torch.testing.assert_close(result, expected(batch, batch.entropy) * base_of(batch), rtol=1e-5, atol=1e-6)


SHAPED = ["gtpo", "grpo_s"]


def shaped_by_loop(name, entropy, mask, index, success, **options):
    """Advantages of GTPO or GRPO-S as a dictionary keyed (row, column)."""
    result = getattr(reference_shaping, name)(entropy, mask, index, success, **options)
    if name == "gtpo":
        return result
    places = reference_shaping.policy_tokens(mask)
    return {(row, column): result[row] for row, columns in enumerate(places) for column in columns}


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize("cls", TRAINERS)
def test_shaped_methods_get_entropy_and_success_of_their_rows(stored, model, cls, name):
    batch, metrics = stored(11), {}
    trainer_of(cls, model, f"algorithm.adv_estimator={name}")._compute_advantage(batch.batch, metrics)
    success = (batch.rewards.sum(1) > 0.5).tolist()
    expected = torch.zeros_like(batch.rewards)
    for place, value in shaped_by_loop(
        name, batch.entropy.tolist(), batch.mask.tolist(), batch.index.tolist(), success
    ).items():
        expected[place] = value
    torch.testing.assert_close(wide(batch.read("advantages"), batch.mask), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(wide(batch.read("returns"), batch.mask), expected, rtol=1e-5, atol=1e-5)
    assert metrics[f"{name}/changed/mean"] > 0.3
    assert metrics[f"{name}/entropy/mean"] == pytest.approx(float(batch.entropy[batch.mask.bool()].mean()), rel=1e-5)


def test_success_by_a_field_of_reward_extra_info(stored, model):
    """As a DAPO reward with a length penalty stores it: the score says something else."""
    batch = stored(12, extra=lambda row: {"acc": float(row % 3 == 0), "overlong": False})
    trainer = trainer_of(PPOTrainerSync, model, "algorithm.adv_estimator=gtpo", "+algorithm.gtpo.success=acc")
    trainer._compute_advantage(batch.batch, {})
    success = [row % 3 == 0 for row in range(len(batch.mask))]
    loop = shaped_by_loop("gtpo", batch.entropy.tolist(), batch.mask.tolist(), batch.index.tolist(), success)
    result = wide(batch.read("advantages"), batch.mask)
    for place, value in loop.items():
        assert float(result[place]) == pytest.approx(value, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, bool])
def test_success_by_a_field_that_a_colocated_reward_model_stores(stored, model, kind):
    """verl then writes each field of reward_extra_info under its own name, as an array."""
    batch = stored(18)
    success = np.array([row % 3 == 0 for row in range(len(batch.mask))])
    fields = tensordict_utils.get_tensordict({"acc": success.astype(kind)})
    tq.kv_batch_put(keys=batch.keys, partition_id=PARTITION, fields=fields)
    settings = ["algorithm.adv_estimator=gtpo", "+algorithm.gtpo.success=acc"]
    with pytest.raises(TensorError, match="acc"):  # a column of the data set, which is stored in the same way
        trainer_of(PPOTrainerSync, model, *settings)._compute_advantage(batch.batch, {})
    settings += ["reward.reward_model.enable=True", "reward.reward_model.enable_resource_pool=False"]
    trainer_of(PPOTrainerSync, model, *settings)._compute_advantage(batch.batch, {})
    loop = shaped_by_loop("gtpo", batch.entropy.tolist(), batch.mask.tolist(), batch.index.tolist(), success.tolist())
    result = wide(batch.read("advantages"), batch.mask)
    for place, value in loop.items():
        assert float(result[place]) == pytest.approx(value, rel=1e-5, abs=1e-5)


def test_a_column_of_the_data_set_is_not_taken_for_the_reward_functions_field(stored, model):
    batch, metrics = stored(19, extra=lambda row: {"acc": float(row % 2)}), {}
    column = tensordict_utils.get_tensordict({"acc": np.full(len(batch.mask), 0.9)})
    tq.kv_batch_put(keys=batch.keys, partition_id=PARTITION, fields=column)
    trainer = trainer_of(PPOTrainerSync, model, "algorithm.adv_estimator=gtpo", "+algorithm.gtpo.success=acc")
    trainer._compute_advantage(batch.batch, metrics)
    assert metrics["gtpo/mixed_groups/mean"] > 0
    success = [bool(row % 2) for row in range(len(batch.mask))]
    loop = shaped_by_loop("gtpo", batch.entropy.tolist(), batch.mask.tolist(), batch.index.tolist(), success)
    result = wide(batch.read("advantages"), batch.mask)
    assert all(float(result[place]) == pytest.approx(value, rel=1e-5, abs=1e-5) for place, value in loop.items())


def test_success_by_a_field_that_the_reward_does_not_return(stored, model):
    batch = stored(13, extra=lambda row: {"score": 1.0})
    trainer = trainer_of(PPOTrainerSync, model, "algorithm.adv_estimator=gtpo", "+algorithm.gtpo.success=acc")
    with pytest.raises(TensorError, match=r"no field of that name \(it has score\)"):
        trainer._compute_advantage(batch.batch, {})


class Joined:
    """A stored batch with sessions of several outputs as lists: one response a session, and where its tokens stand."""

    def __init__(self, batch):
        members = {}
        for row, (uid, session, output) in enumerate(batch.sessions):
            members.setdefault((uid, session), []).append((output, row))
        self.index, self.success, self.entropy, self.places, self.last = [], [], [], [], []
        for (uid, _), rows in members.items():
            places = []
            for _, row in sorted(rows):
                places += [(row, column) for column in range(batch.mask.shape[1]) if batch.mask[row, column]]
            last = sorted(rows)[-1][1]
            self.index.append(uid)
            self.last.append(last)
            self.success.append(bool(batch.rewards[last].sum() > 0.5))
            self.entropy.append([float(batch.entropy[place]) for place in places])
            self.places.append(places)
        width = max(map(len, self.places))
        self.mask = [[1] * len(row) + [0] * (width - len(row)) for row in self.entropy]
        self.entropy = [row + [0.0] * (width - len(row)) for row in self.entropy]


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize("outputs", [2, 3])
def test_sessions_with_several_outputs_count_once(stored, model, name, outputs):
    """Their outputs in order are one response, whose reward is the last one's; t counts on from output to output."""
    batch, metrics = stored(14, outputs=outputs), {}
    trainer_of(PPOTrainerSync, model, f"algorithm.adv_estimator={name}")._compute_advantage(batch.batch, metrics)
    joined = Joined(batch)
    assert len(joined.index) < len(batch.mask)
    expected = torch.zeros_like(batch.rewards)
    for (row, t), value in shaped_by_loop(name, joined.entropy, joined.mask, joined.index, joined.success).items():
        expected[joined.places[row][t]] = value
    assert expected.abs().sum() > 0
    torch.testing.assert_close(wide(batch.read("advantages"), batch.mask), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channel", ["advantage", "loss"])
@pytest.mark.parametrize("base", ["grpo", "rloo"])
def test_sessions_with_several_outputs_under_egsw(stored, model, base, channel):
    batch = stored(15, outputs=2)
    overrides = [f"+algorithm.egsw.base={base}", f"+algorithm.egsw.channel={channel}"]
    overrides += [f"{LOSS}=egsw"] if channel == "loss" else []
    trainer_of(PPOTrainerSync, model, *overrides)._compute_advantage(batch.batch, {})
    joined = Joined(batch)
    # verl's own estimator on the last outputs alone
    fn = get_adv_estimator_fn(base)
    last = joined.last
    config = {"config": OmegaConf.create({"gamma": 1.0, "lam": 1.0})} if base != "grpo" else {}
    level = fn(
        token_level_rewards=batch.rewards[last].clone(),
        response_mask=batch.mask[last],
        index=batch.index[last],
        **config,
    )[0]
    level = [float(row[own.bool()][0]) if own.any() else 0.0 for row, own in zip(level, batch.mask[last], strict=True)]
    advantages = [[value] * len(joined.mask[0]) for value in level]
    weights = reference.egsw_weights(advantages, joined.entropy, joined.mask, joined.index, 0.5, 3.0)
    expected, plain = torch.zeros_like(batch.rewards), torch.zeros_like(batch.rewards)
    for (row, t), weight in weights.items():
        expected[joined.places[row][t]] = weight * (level[row] if channel == "advantage" else 1)
        plain[joined.places[row][t]] = level[row]
    if channel == "loss":
        weights = tq.kv_batch_get(keys=batch.keys, partition_id=PARTITION, select_fields=[WEIGHT])[WEIGHT]
        result = wide(weights.to_padded_tensor(0.0), batch.mask)
        torch.testing.assert_close(wide(batch.read("advantages"), batch.mask), plain, rtol=1e-5, atol=1e-6)
    else:
        result = wide(batch.read("advantages"), batch.mask)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(wide(batch.read("returns"), batch.mask), plain, rtol=1e-5, atol=1e-6)


def test_outputs_of_a_session_stay_trajectories_of_their_own_where_the_base_has_values(stored, model):
    """gae and reinforce_plus_plus give each token its own advantage, as verl computes it for each output."""
    batch = stored(16, outputs=2)
    overrides = ["+algorithm.egsw.base=reinforce_plus_plus", "algorithm.gamma=0.9", "+algorithm.egsw.channel=loss"]
    trainer_of(PPOTrainerSync, model, *overrides, f"{LOSS}=egsw")._compute_advantage(batch.batch, {})
    config = OmegaConf.create({"gamma": 0.9, "lam": 1.0})
    fn = get_adv_estimator_fn("reinforce_plus_plus")
    expected = fn(token_level_rewards=batch.rewards, response_mask=batch.mask, config=config, index=batch.index)[0]
    result = wide(batch.read("advantages"), batch.mask)
    torch.testing.assert_close(result, expected * batch.mask, rtol=1e-5, atol=1e-5)


def test_outputs_of_a_session_are_in_the_order_of_their_numbers():
    step = object.__new__(TrainerStep)
    outputs = [10, 2, 0, 11, 1, 9, 3, 8, 4, 7, 5, 6]  # as text, 10 and 11 would come before 2
    step.keys = [f"u_0_{output}" for output in outputs]
    sessions = step.sessions(Rows.measure(torch.ones(12, 1, dtype=torch.int64)))
    assert sessions.start.tolist() == outputs and sessions.last.tolist() == [3]


def test_keys_that_do_not_name_a_session_are_an_error():
    batch = types.SimpleNamespace(keys=["uid_0_0", "another-form"], tags=[{}, {}], partition_id=PARTITION)
    step = TrainerStep(None, batch, {}, None)
    with pytest.raises(BridgeError, match=r"is not \{uid\}_\{session\}_\{output\} but 'another-form'"):
        step.sessions(Rows.measure(torch.ones(2, 3, dtype=torch.int64)))


def test_no_controller_moves_while_verl_updates_the_critic_alone(model):
    """Steps 1 and 2 of a warm-up of 3; from step 3 on, every step is below the target of 0.3."""
    overrides = ["algorithm.adv_estimator=stare", "+algorithm.credit.stare.W={controller: step, target: 0.3}"]
    trainer = trainer_of(PPOTrainerSync, model, *overrides, "trainer.critic_warmup=3")
    batch = types.SimpleNamespace(keys=[], tags=[], partition_id=PARTITION)
    rows = Rows.measure(torch.ones(2, 3, dtype=torch.int64))
    values = []
    for trainer.global_steps in range(1, 6):
        step = TrainerStep(trainer, batch, {}, None)
        values.append(step.control(lambda name: torch.full((2,), 0.3), rows)["stare.W"])
    assert values == pytest.approx([1.1, 1.1, 1.1, 1.11, 1.12])


def test_an_estimator_that_was_replaced_is_noticed(stored, model, monkeypatch):
    from verl.trainer.ppo import core_algos

    batch = stored(8)
    monkeypatch.setitem(core_algos.ADV_ESTIMATOR_REGISTRY, "egsw", core_algos.ADV_ESTIMATOR_REGISTRY["grpo_vectorized"])
    with pytest.raises(BridgeError, match="computed advantages without calling it"):
        trainer_of(PPOTrainerSync, model)._compute_advantage(batch.batch, {})


def test_verls_own_estimators_are_left_alone(stored, model):
    batch, metrics = stored(9, leave_out=("entropy",)), {}
    trainer_of(PPOTrainerSync, model, "algorithm.adv_estimator=grpo")._compute_advantage(batch.batch, metrics)
    assert metrics == {}
    torch.testing.assert_close(wide(batch.read("advantages"), batch.mask), base_of(batch), rtol=1e-5, atol=1e-6)


class Letters:
    """As much of a tokenizer as records need."""

    all_special_ids = [0]

    def decode(self, ids):
        return "".join(chr(97 + int(i) % 26) for i in ids)


@pytest.mark.parametrize("name,leave_out", [("egsw", ()), ("gtpo", ()), ("grpo", ()), ("grpo", ("entropy",))])
def test_a_step_is_recorded(stored, model, tmp_path, name, leave_out):
    from egsw_plugin.records import read_records

    batch, metrics = stored(11, leave_out=leave_out), {}
    ids = torch.arange(batch.mask.numel()).view(batch.mask.shape)
    texts = {"prompts": nested(ids[:, :3], [3] * len(ids)), "responses": nested(ids, batch.lengths)}
    tq.kv_batch_put(keys=batch.keys, partition_id=PARTITION, fields=TensorDict(texts, batch_size=len(ids)))
    overrides = ["+algorithm.record.every=5", "+algorithm.record.groups=2", f"algorithm.adv_estimator={name}"]
    trainer = trainer_of(PPOTrainerSync, model, *overrides, f"trainer.default_local_dir={tmp_path}")
    trainer.tokenizer = Letters()
    for trainer.global_steps in (4, 5, 6):
        trainer._compute_advantage(batch.batch, metrics)
    trainer.egsw_plugin_recorder.flush()
    (record,) = read_records(tmp_path)
    assert record.step == 5 and metrics["timing_s/record"] > 0

    groups = {uid: [row for row, other in enumerate(batch.index) if other == uid] for uid in batch.index}
    mixed = [uid for uid, rows in groups.items() if len(set(batch.rewards[rows].sum(1).tolist())) > 1]
    uids = list(dict.fromkeys(row["uid"] for row in record.rows))
    assert len(uids) == 2 and set(uids) <= set(mixed) and not any(uid.startswith("pad") for uid in uids)
    result = wide(batch.read("advantages"), batch.mask)
    by_session = {(row["uid"], row["session"]): row for row in record.rows}
    for row in (row for uid in uids for row in groups[uid]):
        own, length = by_session[batch.index[row], str(batch.sessions[row][1])], batch.lengths[row]
        assert own["ids"] == ids[row, :length].tolist() and own["tokens"] == [Letters().decode([i]) for i in own["ids"]]
        assert own["prompt"] == Letters().decode(ids[row, :3]) and own["response"] == "".join(own["tokens"])
        assert own["policy"] == batch.mask[row, :length].bool().tolist()
        assert own["advantage"] == pytest.approx(result[row, :length].tolist())
        assert own["base"] == pytest.approx((base_of(batch)[row] * batch.mask[row])[:length].tolist(), abs=1e-6)
        assert own["old_log_prob"] == pytest.approx((-batch.entropy[row, :length] - 1).tolist())
        assert own["reward"] == float(batch.rewards[row].sum()) == own["score"]
        assert own["success"] == (own["score"] > 0.5)
        assert (own["weight"] is None) == (name == "grpo")
        if leave_out:
            assert own["entropy"] is None
        else:
            assert own["entropy"] == pytest.approx(batch.entropy[row, :length].tolist())
    assert sum(len(groups[uid]) for uid in uids) == len(record.rows)


def test_of_a_step_in_mini_batches_the_first_is_recorded(stored, model, tmp_path, capsys, monkeypatch):
    """Steps 1 and 2 of two mini-batches each, told apart by their tokens; what is left out is said once."""
    from egsw_plugin import console
    from egsw_plugin.records import read_records

    monkeypatch.setattr(console, "_warned", set())
    overrides = ["+algorithm.record.every=1", f"trainer.default_local_dir={tmp_path}"]
    trainer = trainer_of(PPOTrainerSeparateAsync, model, *overrides)
    trainer.tokenizer = Letters()
    for number, trainer.global_steps in enumerate((1, 1, 2, 2)):
        batch = stored(31 + number)
        ids = torch.full(batch.mask.shape, number)
        texts = {"prompts": nested(ids[:, :3], [3] * len(ids)), "responses": nested(ids, batch.lengths)}
        tq.kv_batch_put(keys=batch.keys, partition_id=PARTITION, fields=TensorDict(texts, batch_size=len(ids)))
        trainer._compute_advantage(batch.batch, {})
    trainer.egsw_plugin_recorder.flush()
    found = {record.step: {token for row in record.rows for token in row["ids"]} for record in read_records(tmp_path)}
    assert found == {1: {0}, 2: {2}}
    assert capsys.readouterr().out.count("the first one is recorded") == 1


def test_a_recorded_entropy_in_bfloat16_is_warned_of_where_no_method_reads_it(
    stored, model, tmp_path, capsys, monkeypatch
):
    from egsw_plugin import console

    monkeypatch.setattr(console, "_warned", set())
    batch = stored(35)
    ids = torch.zeros_like(batch.mask)
    fields = {
        "prompts": nested(ids[:, :3], [3] * len(ids)),
        "responses": nested(ids, batch.lengths),
        "entropy": nested(batch.entropy.bfloat16(), batch.lengths),
    }
    tq.kv_batch_put(keys=batch.keys, partition_id=PARTITION, fields=TensorDict(fields, batch_size=len(ids)))
    overrides = ["algorithm.adv_estimator=grpo", "+algorithm.record.every=1", f"trainer.default_local_dir={tmp_path}"]
    trainer = trainer_of(PPOTrainerSync, model, *overrides)
    trainer.tokenizer, trainer.global_steps = Letters(), 1
    trainer._compute_advantage(batch.batch, {})
    trainer.egsw_plugin_recorder.flush()
    said = capsys.readouterr().out
    assert said.count("the entropy arrives in bfloat16") == 1 and "cannot be recorded" not in said


@pytest.mark.parametrize("rollout_correction", [[], ["rollout_rs=token_k1", "rollout_rs_threshold=0.9_1.1"]])
@pytest.mark.parametrize("name", ["grpo", "grpo_vectorized"])
def test_the_proposal_for_verls_step_changes_no_result(stored, model, name, rollout_correction, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from proposal import proposed

    overrides = [f"algorithm.adv_estimator={name}"]
    overrides += [f"algorithm.rollout_correction.{override}" for override in rollout_correction]
    results = []
    for label, compute in (("a", PPOTrainerSync._compute_advantage), ("b", proposed())):
        batch, metrics = stored(10, name=label), {}
        if rollout_correction:
            shifted = nested(-batch.entropy - 1 - 0.2 * (batch.entropy > 0.5), batch.lengths)
            fields = TensorDict({"rollout_log_probs": shifted}, batch_size=len(batch.keys))
            tq.kv_batch_put(keys=batch.keys, partition_id=PARTITION, fields=fields)
        trainer = trainer_of(PPOTrainerSync, model, *overrides)
        trainer.use_critic = False
        compute(trainer, batch.batch, metrics)
        results.append(([batch.read(field) for field in ("advantages", "returns", "response_mask")], metrics))
    (one, metrics), (other, others) = results
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)) and metrics == others
    assert bool(rollout_correction) == bool(metrics)


def test_the_trainer_of_another_verl_is_refused_by_name():
    stranger = types.ModuleType(contract.TRAINER)
    stranger.PPOTrainer = type("PPOTrainer", (), {"_compute_advantage": lambda self, data: data})
    broken = contract.broken(stranger)
    assert any(part.startswith(f"{contract.TRAINER}.PPOTrainer._compute_advantage(") for part in broken)
    assert any(part.startswith(f"{contract.TRAINER}.tq.kv_batch_get(") for part in broken)


def test_construction_of_the_trainer_checks_the_configuration(model):
    """Launchers other than main_ppo skip verl's validation; the trainer then refuses, before it builds anything."""
    from egsw_plugin.errors import OptionError

    config = trainer_of(PPOTrainerSync, model, "+algorithm.egsw.temperature=0").config
    with pytest.raises(OptionError, match=r"algorithm.egsw.temperature=0"):
        PPOTrainerSync(config)
    assert issubclass(PPOTrainerSync, PPOTrainer)
    assert np.all([cls._compute_advantage is PPOTrainer._compute_advantage for cls in TRAINERS])


@pytest.mark.parametrize("overrides,warned", [([], True), (["algorithm.adv_estimator=grpo"], False)])
def test_a_trainer_with_an_advantage_step_of_its_own_is_warned_of(model, capsys, monkeypatch, overrides, warned):
    from egsw_plugin import console

    class Own(PPOTrainerSync):
        def _compute_advantage(self, batch, metrics):
            return batch

    config = trainer_of(PPOTrainerSync, model, *overrides).config
    monkeypatch.setattr(PPOTrainer, "_build_replay_buffer", lambda self: None)
    for cls, expected in ((PPOTrainerSync, False), (Own, warned)):
        monkeypatch.setattr(console, "_warned", set())
        cls(config)
        said = "Own._compute_advantage stands in place of verl's" in capsys.readouterr().out
        assert said == expected


def test_a_step_depends_on_its_batch_alone(tmp_path):
    """So one after a resume is the one that an uninterrupted run would have made, to the bit."""
    before = (
        "import kept_loops, torch, verl; kept_loops.keep(); from batches import random_batch; "
        "from verl.trainer.ppo.core_algos import get_adv_estimator_fn; batch = random_batch(3)"
    )
    names = ("egsw", "gtpo", "grpo_s")
    alone = "torch.save(get_adv_estimator_fn({0!r})(*batch[:3], {{}}, entropy=batch[3])[0], {1!r})"
    forked(before, {name: alone.format(name, str(tmp_path / name)) for name in names}, cwd=Path(__file__).parent)
    for name in names:
        compute = get_adv_estimator_fn(name)
        for seed in range(20):
            batch = random_batch(seed, prompts=1 + seed % 4, tokens=5 + seed)
            compute(*batch[:3], {}, entropy=batch[3])
        batch = random_batch(3)
        result, _ = compute(*batch[:3], {}, entropy=batch[3])
        assert torch.equal(torch.load(tmp_path / name), result), name
