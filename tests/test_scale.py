"""Long contexts, large groups, images: the losses' weights reach the right tokens in each.

Sequence parallelism runs verl's own engine in two processes; micro-batches of a dynamic size are made by verl's own
functions, from rows with 16 k tokens, in each layout that verl has. Every token has a weight and an advantage of its
own, so that the gradient by its log-probability tells whose weight it met. Not exercised here: FlashAttention's
kernels, and a trainer with sequence parallelism.
"""

import functools
import math
import os
import subprocess
import sys
from pathlib import Path

import engine_process
import numpy as np
import pytest
import reference
import reference_shaping
import torch
import verl  # noqa: F401  (loads the plugin)
from engine_process import MODES, PROMPTS, RESPONSES, nested
from tensordict import NonTensorStack, TensorDict
from test_policy_loss import actor_config
from verl import DataProto
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.utils import tensordict_utils
from verl.utils.seqlen_balancing import prepare_dynamic_batch, restore_dynamic_batch
from verl.workers.engine.utils import postprocess_batch_func, prepare_micro_batches
from verl.workers.utils import losses
from verl.workers.utils.padding import left_right_2_no_padding

from egsw_plugin.cpu import engine, packed
from egsw_plugin.fields import Arrived, Field
from egsw_plugin.methods import LOSSES
from egsw_plugin.options import encode

TIME_LIMIT = 300  # seconds for a process of the engine, which takes about ten, and much longer on a busy machine
pytestmark = pytest.mark.timeout(2 * TIME_LIMIT + 60)
LOW, HIGH = 0.15, 0.28  # of test_policy_loss.actor_config


# ------------------------------------------------------------------------------------------------------------- Ulysses


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """What verl's engine computed of one batch: in one process, and in both of two that share each sequence."""
    folder = tmp_path_factory.mktemp("engines")
    engine_process.make(folder)
    for size in (1, 2):
        environment = os.environ | {"VERL_PLATFORM": "cpu", "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
        environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *sys.path])
        processes = []
        for rank in range(size):
            command = [sys.executable, engine_process.__file__, str(folder), str(rank), str(size)]
            log = open(folder / f"{size}-{rank}.log", "w")  # noqa: SIM115
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=environment | ranks, stdout=log, stderr=log))
            log.close()
        try:
            codes = [process.wait(TIME_LIMIT) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert not any(codes), (folder / f"{size}-0.log").read_text()[-3000:]
    one, *two = (torch.load(folder / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    return torch.load(folder / "batch.pt"), one, two


def test_sequence_parallelism_gives_the_tokens_of_one_process(engines):
    _, one, two = engines
    for other in two:
        for name in ("log_probs", "entropy"):
            for row, expected in zip(other[name], one[name], strict=True):
                torch.testing.assert_close(row, expected, atol=5e-6, rtol=0)
    assert max(float(row.std()) for row in one["entropy"]) > 0.05  # they differ, so that a wrong place is seen


@pytest.mark.parametrize("mode", MODES)
def test_sequence_parallelism_trains_as_one_process_does(engines, mode):
    _, one, two = engines
    for other in two:
        assert one[mode]["parts"] == other[mode]["parts"] == 2
        assert other[mode]["loss"] == pytest.approx(one[mode]["loss"], abs=1e-6)
        for row, expected in one[mode]["tokens"].items():
            torch.testing.assert_close(other[mode]["tokens"][row], expected, atol=1e-6, rtol=1e-5)
        for name, expected in one[mode]["parameters"].items():
            torch.testing.assert_close(other[mode]["parameters"][name], expected, atol=5e-6, rtol=1e-5, msg=name)
    assert max(float(gradient.abs().max()) for gradient in one[mode]["parameters"].values()) > 0.1


@pytest.mark.parametrize("mode", ["egsw", "gtpo", "grpo_s", "egsw_plugin"])
def test_with_sequence_parallelism_each_token_meets_its_own_weight(engines, mode):
    batch, _, two = engines
    for other in two:
        check_tokens(batch, mode, other[mode]["tokens"])


def check_tokens(batch, mode, gradients):
    """The gradient of each token of the engine's batch is that of its own weight, advantage, bounds and ratio."""
    number, clipped = sum(int(mask.sum()) for mask in batch["masks"]), 0
    for row, (length, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        change, mask, A, weight, low, high = (
            batch[name][row].tolist() for name in ("changes", "masks", "advantages", "weights", "clip_low", "clip_high")
        )
        if mode != "egsw_plugin":
            low, high = [LOW] * response, [HIGH] * response
        if mode in ("gtpo", "grpo_s"):
            weight = [1.0] * response
        own = [t for t in range(response) if mask[t]]
        ratios = {t: math.exp(change[t]) for t in own}
        if mode == "grpo_s":
            mean = math.fsum(ratios.values()) / len(own)
            inside = math.fsum(A[t] for t in own if not held(mean, A[t], LOW, HIGH))
            slopes = {t: -ratios[t] / len(own) * inside / len(own) / len(PROMPTS) for t in own}
        else:
            slopes = {}
            for t in own:
                free = not held(ratios[t], A[t], low[t], high[t])
                slopes[t] = -weight[t] * A[t] * ratios[t] / number if free else 0.0
                clipped += not free
        gradient = gradients[row].tolist()
        expected = [0.0] * len(gradient)
        for t, slope in slopes.items():
            expected[length - 1 + t] = slope  # where the model's output is the next token's
        assert gradient == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert mode == "grpo_s" or 0 < clipped < number / 2


def held(ratio, advantage, low, high):
    """Does the clip hold this token, so that it has no gradient?"""
    return (advantage > 0 and ratio > 1 + high) or (advantage < 0 and ratio < 1 - low)


def test_a_critic_with_sequence_parallelism_trains_as_in_one_process(engines):
    _, one, two = engines
    for other in two:
        for name, expected in one["critic"].items():
            torch.testing.assert_close(other["critic"][name], expected, atol=2e-4, rtol=1e-4, msg=name)
    assert max(float(gradient.abs().max()) for gradient in one["critic"].values()) > 1


def test_what_attention_over_rows_without_padding_cannot_do_is_an_error():
    one = torch.ones(1, 2, 1, 4)
    for cannot in ({"dropout": 0.1}, {"sliding_window": 8}):
        with pytest.raises(ValueError, match=r"ulysses_sequence_parallel_size on the CPU.*set it to 1"):
            engine.attend_in_parallel(torch.nn.Identity(), one, one, one, None, **cannot)
    with pytest.raises(ValueError, match="the first one begins at 3"):
        packed.attention(one, one, one, None, 2, position_ids=torch.tensor([[3, 0]]))


# --------------------------------------------------------------------------------- micro-batches of a dynamic size

LONG = [40, 16384, 1, 9000, 5]  # tokens of the responses
BEFORE = [5, 9, 600, 30, 3]  # of the prompts
BUDGET = 17000  # tokens of a micro-batch
PER_TOKEN = [Field.WEIGHT, Field.KL_WEIGHT, Field.CLIP_LOW, Field.CLIP_HIGH, Field.ANCHOR]


config_of = functools.cache(actor_config)  # hydra takes a second


class LongBatch:
    """Rows of 16 k tokens among short ones, in a layout of verl's; every token has numbers of its own.

    jagged: as verl's V1 trainer hands it to the workers. padded: a DataProto with prompts to the left and responses to
    the right, as the old trainer has it. mixed: what a worker of the old trainer makes of it, rows without padding,
    fields with.
    """

    def __init__(self, mode, layout="jagged", position_rows=0):
        """Fields arrive where policy loss `mode` reads them; position_rows: a model that sees images has so many
        positions a token, and some rows have an image.
        """
        self.layout, self.mode = layout, mode
        generator = torch.Generator().manual_seed(5)

        def random(lengths):
            return [torch.randn(length, generator=generator, dtype=torch.float64) for length in lengths]

        self.log_probs = [row.requires_grad_() for row in random([a + b for a, b in zip(BEFORE, LONG, strict=True)])]
        self.entropy = [row.detach().exp().requires_grad_() for row in self.log_probs]
        self.masks = [torch.ones(length, dtype=torch.int64) for length in LONG]
        self.masks[1][5000:9000] = 0  # a tool's answer
        self.masks[4][:] = 0  # rejected
        # A row is known by its first token, which no field of ours has to do with.
        self.ids = [torch.full((len(row),), 7) for row in self.log_probs]
        for row, tokens in enumerate(self.ids):
            tokens[0] = row + 10
        changes = random(LONG)
        self.fields = {
            "response_mask": self.masks,
            "old_log_probs": [
                row.detach()[length - 1 : -1] - 0.3 * change
                for row, length, change in zip(self.log_probs, BEFORE, changes, strict=True)
            ],
            "advantages": random(LONG),
        }
        self.per_row = {}
        reads, options = LOSSES[mode].reads, LOSSES[mode].options_type()
        for field in PER_TOKEN:
            if field in reads or (field is Field.KL_WEIGHT and mode == "egsw_plugin"):
                scale = 0.2 if field is not Field.WEIGHT else 1.0
                self.fields[field.queue_name] = [scale * row.abs() for row in random(LONG)]
        if mode == "egsw_plugin":
            self.fields["ref_log_prob"] = random(LONG)
            self.per_row[Field.ENTROPY_COEF.queue_name] = torch.rand(len(LONG), 1, generator=generator).double()
        if numbers := encode(options):
            numbers = torch.tensor(numbers, dtype=torch.float64)
            self.per_row[Field.LOSS_OPTIONS.queue_name] = numbers.expand(len(LONG), -1).contiguous()
        self.config = config_of(
            mode, "seq-mean-token-mean" if mode == "grpo_s" else "token-mean", mode == "egsw_plugin"
        )
        self.positions = [
            torch.arange(len(row)) if not position_rows else torch.arange(len(row)).expand(position_rows, -1) * row[0]
            for row in self.ids
        ]
        self.images = None
        if position_rows:
            self.images = [
                {} if row == 2 else {"pixel_values": torch.full((row + 1, 4), row)} for row in range(len(LONG))
            ]
        self.data = self.jagged() if layout == "jagged" else self.padded()
        if layout == "mixed":
            self.data = left_right_2_no_padding(self.data.to_tensordict())

    def jagged(self):
        fields = {
            "input_ids": nested(self.ids),
            "position_ids": nested(self.positions),
            "prompts": nested(row[:length] for row, length in zip(self.ids, BEFORE, strict=True)),
            "responses": nested(row[length:] for row, length in zip(self.ids, BEFORE, strict=True)),
            **{name: nested(values) for name, values in self.fields.items()},
            **self.per_row,
        }
        if self.images is not None:
            fields["multi_modal_inputs"] = NonTensorStack(*self.images)
        return TensorDict(fields, batch_size=len(LONG))

    def padded(self):
        left, right = max(BEFORE), max(LONG)

        def both(rows, value=0):
            return torch.stack(
                [
                    torch.nn.functional.pad(row, (left - a, right - b), value=value)
                    for row, a, b in zip(rows, BEFORE, LONG, strict=True)
                ]
            )

        ids = both(self.ids)
        tensors = {
            "input_ids": ids,
            "prompts": ids[:, :left],
            "responses": ids[:, left:],
            "position_ids": both(self.positions),
            "attention_mask": both([torch.ones_like(row) for row in self.ids]),
            **{name: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for name, rows in self.fields.items()},
            **self.per_row,
        }
        others = {"uid": np.array([f"u{row}" for row in range(len(LONG))])}
        if self.images is not None:
            others["multi_modal_inputs"] = np.array(self.images, dtype=object)
        return DataProto.from_dict(tensors, non_tensors=others)

    def micro_batches(self):
        """By verl's functions: the micro-batches, and which rows each holds."""
        if self.layout == "padded":
            parts, order = prepare_dynamic_batch(self.data, max_token_len=BUDGET)
            for part, rows in zip(parts, order, strict=True):
                assert part.non_tensor_batch["uid"].tolist() == [f"u{row}" for row in rows]
            self.images_of_parts = [part.non_tensor_batch.get("multi_modal_inputs") for part in parts]
            return [part.batch for part in parts], order
        data = self.data.copy()
        tensordict_utils.assign_non_tensor(data, use_dynamic_bsz=True, max_token_len_per_gpu=BUDGET)
        parts, order = prepare_micro_batches(data)
        self.images_of_parts = [part.get("multi_modal_inputs") for part in parts]
        return parts, order

    def loss(self, part):
        """verl's loss of one micro-batch."""
        ids = part["input_ids"]
        if ids.is_nested:
            rows = [int(row[0]) - 10 for row in ids.unbind()]
        else:
            rows = (part["input_ids"].amax(1) - 10).tolist()
        part = part.copy()
        for name, value in {
            "dp_size": 1,
            "batch_num_tokens": sum(int(mask.sum()) for mask in self.masks),
            "global_batch_size": len(LONG),
        }.items():
            part.set_non_tensor(name, value)
        output = {
            name: torch.nested.as_nested_tensor([tensors[row] for row in rows], layout=torch.jagged)
            for name, tensors in (("log_probs", self.log_probs), ("entropy", self.entropy))
        }
        if self.mode != "egsw_plugin":
            del output["entropy"]
        return losses.ppo_loss(self.config, output, part)[0]

    def trained(self, parts):
        """Sum of the losses of micro-batches, and the gradients by log-probability and entropy, row by row."""
        for row in (*self.log_probs, *self.entropy):
            row.grad = None
        total = 0.0
        for part in parts:
            loss = self.loss(part)
            loss.backward()
            total += float(loss.detach())
        none = [torch.zeros_like(row) for row in self.entropy]
        return (
            total,
            [row.grad for row in self.log_probs],
            [zeros if row.grad is None else row.grad for row, zeros in zip(self.entropy, none, strict=True)],
        )


LAYOUTS = ["jagged", "padded", "mixed"]
CASES = [(mode, "jagged") for mode in MODES]
CASES += [(mode, layout) for mode in ("egsw", "grpo_s", "egsw_plugin") for layout in ("padded", "mixed")]


@pytest.mark.parametrize("mode,layout", CASES)
def test_micro_batches_of_a_dynamic_size_sum_to_the_batch(mode, layout):
    batch = LongBatch(mode, layout)
    parts, order = batch.micro_batches()
    assert len(parts) > 1 and [row for rows in order for row in rows] != list(range(len(LONG)))
    whole = batch.trained([batch.data.batch if layout == "padded" else batch.data])
    split = batch.trained(parts)
    assert split[0] == pytest.approx(whole[0], rel=1e-9)
    for one, other in zip(split[1:], whole[1:], strict=True):
        for row in range(len(LONG)):
            torch.testing.assert_close(one[row], other[row], rtol=1e-9, atol=1e-15)
    assert all(float(gradient.abs().sum()) > 0 for row, gradient in enumerate(split[1]) if row != 4)
    if mode in ("egsw", "gtpo", "grpo_s"):
        check_slopes(batch, split[1])


def check_slopes(batch, gradients):
    """Each token's gradient is that of its own weight, advantage and ratio."""
    mode = batch.mode
    number = sum(int(mask.sum()) for mask in batch.masks)
    for row, (length, gradient) in enumerate(zip(BEFORE, gradients, strict=True)):
        new, own = batch.log_probs[row].detach()[length - 1 : -1], batch.masks[row].bool()
        ratio, A = (new - batch.fields["old_log_probs"][row]).exp(), batch.fields["advantages"][row]
        if mode == "grpo_s":
            count = max(int(own.sum()), 1)
            mean = ratio[own].sum() / count
            free = ~(((A > 0) & (mean > 1 + HIGH)) | ((A < 0) & (mean < 1 - LOW))) & own
            slope = -ratio / count * A[free].sum() / count / len(LONG)
        else:
            free = ~(((A > 0) & (ratio > 1 + HIGH)) | ((A < 0) & (ratio < 1 - LOW)))
            weight = batch.fields[Field.WEIGHT.queue_name][row] if mode == "egsw" else 1.0
            slope = -weight * A * ratio / number * free
        expected = torch.zeros_like(gradient)
        expected[length - 1 : -1] = slope * own
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_micro_batches_of_a_dynamic_size_carry_fields_and_give_back_the_order(layout):
    batch = LongBatch("egsw_plugin", layout)
    parts, order = batch.micro_batches()
    width = max(LONG)
    for field in (*PER_TOKEN, Field.ENTROPY_COEF, Field.LOSS_OPTIONS):
        read = [Arrived.of(part)[field] for part in parts]
        if field.spec.per_row:
            expected = batch.per_row[field.queue_name]
        else:
            read = [torch.nn.functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in read]
            expected = torch.nn.utils.rnn.pad_sequence(batch.fields[field.queue_name], batch_first=True)
            for tensor, rows in zip(read, order, strict=True):
                for one, row in zip(tensor, rows, strict=True):
                    assert torch.equal(one[: LONG[row]], expected[row, : LONG[row]]), field
            real = torch.arange(width) < torch.tensor(LONG).unsqueeze(1)
            read = [tensor.masked_fill(~real[rows], 0) for tensor, rows in zip(read, order, strict=True)]
        restored = restore_dynamic_batch(torch.cat(read), order)
        torch.testing.assert_close(restored, expected, rtol=0, atol=0, equal_nan=True)
    if layout == "jagged":  # what a worker gives back to the driver, such as entropies
        name = Field.WEIGHT.queue_name
        outputs = [{"model_output": {"entropy": part[name]}} for part in parts]
        data = tensordict_utils.get_tensordict({}, {"use_dynamic_bsz": True})
        result = postprocess_batch_func(outputs, order, data)["model_output"]["entropy"]
        for row, expected in zip(result.unbind(), batch.fields[name], strict=True):
            assert torch.equal(row, expected)


# --------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("position_rows", [3, 4])
def test_a_batch_with_images_trains_as_one_without(position_rows, layout):
    """Positions of a model that sees images are [rows, 3 or 4, tokens]; its images are no tensors of the batch."""
    batch, text = LongBatch("egsw", layout, position_rows), LongBatch("egsw", layout)
    parts, order = batch.micro_batches()
    assert order == text.micro_batches()[1]
    loss, gradients, _ = batch.trained(parts)
    expected_loss, expected, _ = text.trained(text.micro_batches()[0])
    assert loss == expected_loss
    for one, other in zip(gradients, expected, strict=True):
        assert torch.equal(one, other)
    check_slopes(batch, gradients)
    for part, rows, images in zip(parts, order, batch.images_of_parts, strict=True):
        positions = part["position_ids"]
        assert positions.dim() == 3
        found = positions.unbind() if positions.is_nested else positions
        for row, own, image in zip(rows, found, images, strict=True):
            if not positions.is_nested:
                own = own[:, part["attention_mask"][rows.index(row)].bool()]
            assert torch.equal(own, batch.positions[row])
            image = getattr(image, "data", image)
            assert image.keys() == batch.images[row].keys()
            assert all(torch.equal(image[key], batch.images[row][key]) for key in image)


def test_the_engine_on_the_cpu_trains_a_model_that_sees_images(engines):
    """Its log-probabilities are those of the model alone, and each token meets its own weight."""
    batch, one, _ = engines
    for row, alone in zip(one["images"]["new"], one["images"]["alone"], strict=True):
        torch.testing.assert_close(row, alone, atol=5e-6, rtol=0)
    assert one["images"]["egsw"]["parts"] == 2
    check_tokens(batch, "egsw", one["images"]["egsw"]["tokens"])
    gradients = one["images"]["egsw"]["parameters"]
    assert any("visual" in name and float(gradient.abs().max()) > 1e-4 for name, gradient in gradients.items())


def test_the_engine_on_the_cpu_refuses_images_where_it_cannot_have_them(engines):
    _, one, two = engines
    refused = one["images"]["refused"]
    assert refused.startswith("actor_rollout_ref.model.use_remove_padding=True: not on the CPU")
    assert "pixel_values" in refused and refused.endswith("set it to False")
    for other in two:
        assert other["refused"].startswith("ulysses_sequence_parallel_size=2: not on the CPU")
        assert other["refused"].endswith("(qwen3_vl): set it to 1")


# --------------------------------------------------------------------------------------------------------- large groups

ESTIMATORS = ["egsw", "gtpo", "grpo_s"]
# Groups of rollout.n=64, and some whose rows were lost; the longest response of each case.
GROUPS = {"many groups": ([64, 64, 37, 64, 5, 1, 50], 40), "4 k responses": ([64, 17], 4500)}


def large_groups(case):
    """Rows of several groups, shuffled, with holes in the mask, and two padding rows."""
    sizes, tokens = GROUPS[case]
    generator = torch.Generator().manual_seed(len(sizes))
    uids = [f"{number}" for number, size in enumerate(sizes) for _ in range(size)] + ["pad0", "pad0"]
    rows = len(uids)
    lengths = 1 + (torch.rand(rows, 1, generator=generator).square() * tokens).long()
    lengths[0] = tokens
    mask = torch.arange(tokens) < lengths
    holes = torch.rand(rows, tokens, generator=generator) < 0.2
    holes.scatter_(1, lengths - 1, False)
    rewards = torch.zeros(rows, tokens)
    rewards.scatter_(1, lengths - 1, torch.randint(0, 2, (rows, 1), generator=generator).float())
    mask = (mask & ~holes).long()
    mask[-2:], rewards[-2:] = 0, 0
    entropy = torch.rand(rows, tokens, generator=generator) * 2 + 0.01
    order = torch.randperm(rows, generator=generator)
    index = np.array(uids, dtype=object)[order.numpy()]
    return rewards[order], mask[order], index, entropy[order]


def estimate(name, batch):
    rewards, mask, index, entropy = batch
    return get_adv_estimator_fn(name)(rewards, mask, index, {"egsw": {"temperature": 1.0}}, entropy=entropy)[0]


@functools.cache
def by_loop(name, case):
    """Advantages by plain loops, float64 [rows, tokens]."""
    rewards, mask, index, entropy = large_groups(case)
    uids, expected = index.tolist(), torch.zeros(mask.shape, dtype=torch.float64)
    if name == "egsw":
        base = get_adv_estimator_fn("grpo")(rewards.clone(), mask, index)[0]
        found = reference.egsw_weights(base.tolist(), entropy.tolist(), mask.tolist(), uids, 0.5, 1.0)
        found = {place: weight * float(base[place]) for place, weight in found.items()}
    else:
        success = (rewards.sum(1) > 0.5).tolist()
        found = getattr(reference_shaping, name)(entropy.tolist(), mask.tolist(), uids, success)
    if name == "grpo_s":
        return torch.tensor(found, dtype=torch.float64).unsqueeze(1) * mask
    places = torch.tensor(list(found))
    expected[places[:, 0], places[:, 1]] = torch.tensor(list(found.values()), dtype=torch.float64)
    return expected


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("case", GROUPS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_groups_of_64_equal_the_loop(name, case):
    result = estimate(name, large_groups(case)).double()
    torch.testing.assert_close(result, by_loop(name, case), rtol=1e-5, atol=2e-5)
    assert float(result.abs().max()) > 0.5


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_rows_of_large_groups_may_come_in_any_order(name):
    rewards, mask, index, entropy = large_groups("many groups")
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(9))
    shuffled = estimate(name, (rewards[order], mask[order], index[order.numpy()], entropy[order]))
    torch.testing.assert_close(shuffled, estimate(name, (rewards, mask, index, entropy))[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_memory_of_uneven_groups(implementation, name):
    """In tensors of [rows, tokens] float32: it follows the rows, whatever the largest group."""
    rows, tokens = 512, 8192
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(tokens) < torch.randint(1, tokens + 1, (rows, 1), generator=generator)).long()
    rewards = torch.zeros(rows, tokens)
    rewards[:, 0] = torch.randint(0, 2, (rows,), generator=generator).float()
    # Two groups of 64, and rows alone: padded to the largest group they would be fifty batches.
    index = np.array([f"{row % 2}" if row < 128 else f"alone-{row}" for row in range(rows)], dtype=object)
    batch = rewards, mask, index, torch.rand(rows, tokens, generator=generator)
    estimate(name, tuple(part[:8] for part in batch))  # what is loaded on first use
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = status("VmRSS")
    estimate(name, batch)
    used = (status("VmHWM") - before) * 1024 / (rows * tokens * 4)
    assert 0.05 < used < (1.25 if implementation == "compiled" else 20)


def status(key):
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])
