"""One of the processes of test_scale.py: verl's FSDP engine, its micro-batches and its `ppo_loss`, with Ulysses or not.

    python engine_process.py FOLDER RANK SIZE

FOLDER holds two models, and batch.pt, made by `make`; what the engine computed is written to FOLDER/SIZE-RANK.pt.
"""

import sys
from pathlib import Path

import torch

MODES = ["egsw", "gtpo", "grpo_s", "egsw_plugin", "fipo"]
VOCABULARY, TEMPERATURE, IMAGE = 61, 0.8, 57
PROMPTS, RESPONSES = [5, 3, 4, 6, 2], [9, 1, 14, 6, 3]  # 53 tokens: the two workers' parts are padded, and cut a row


def nested(rows):
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def make(folder):
    """A random model of two layers, and a batch in which every token's advantage and weight is its own."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        vocab_size=VOCABULARY,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        use_sliding_window=False,
        initializer_range=0.2,
    )
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, "a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="a")
    for model, place in ((Qwen2ForCausalLM(config), folder), (model_that_sees(), folder / "images")):
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    rows = [torch.randint(0, VOCABULARY, (a + b,)) for a, b in zip(PROMPTS, RESPONSES, strict=True)]
    masks = [torch.ones(length, dtype=torch.int64) for length in RESPONSES]
    masks[2][4:7] = 0  # a tool's answer
    own = torch.linspace(0.5, 2.0, sum(RESPONSES))[torch.randperm(sum(RESPONSES))]
    sign = torch.where(torch.rand(sum(RESPONSES)) < 0.5, -1.0, 1.0)
    fields = {
        "rows": rows,
        "masks": masks,
        "advantages": (sign * own.flip(0)).split(RESPONSES),
        "weights": own.split(RESPONSES),
        "changes": (0.4 * torch.randn(sum(RESPONSES))).split(RESPONSES),  # log-ratios, beside a policy that moved
        "clip_low": (0.1 + 0.1 * own).split(RESPONSES),
        "clip_high": (0.15 + 0.1 * own).split(RESPONSES),
    }
    torch.save(fields, Path(folder) / "batch.pt")


def model_that_sees():
    """A random model for text and images."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0, "mrope_interleaved": True}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 2, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    tokens = {"image_token_id": IMAGE, "video_token_id": 58, "vision_start_token_id": 55, "vision_end_token_id": 56}
    config = Qwen3VLConfig(
        text_config={**sizes, "rope_parameters": rope}, vision_config=vision, tie_word_embeddings=True, **tokens
    )
    return Qwen3VLForConditionalGeneration(config)


def engine_of(folder, parallel, kind, remove_padding=None):
    """verl's engine for this platform."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
    from verl.workers.engine import EngineRegistry

    engine = EngineRegistry.new(
        kind,
        "fsdp2",
        model_config=HFModelConfig(
            path=str(folder),
            model_type=kind,
            use_remove_padding=parallel > 1 if remove_padding is None else remove_padding,
            enable_gradient_checkpointing=False,
            override_config={"attn_implementation": "sdpa"},
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp2",
            model_dtype="fp32",
            use_torch_compile=False,
            ulysses_sequence_parallel_size=parallel,
            mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-3, lr_warmup_steps=0, total_training_steps=1),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def batch_of(fields, parallel):
    """The rows as verl's worker receives them."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    rows = fields["rows"]
    data = TensorDict(
        {
            "input_ids": nested(rows),
            "position_ids": nested(torch.arange(len(row)) for row in rows),
            "prompts": nested(row[:length] for row, length in zip(rows, PROMPTS, strict=True)),
            "responses": nested(row[length:] for row, length in zip(rows, PROMPTS, strict=True)),
            "response_mask": nested(fields["masks"]),
            "loss_mask": nested(fields["masks"]),
        },
        batch_size=len(rows),
    )
    tu.assign_non_tensor(
        data,
        use_remove_padding=parallel > 1,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=40 // parallel,  # two micro-batches
        global_batch_size=len(rows),
        temperature=TEMPERATURE,
        calculate_entropy=True,
        pad_token_id=0,
    )
    return data


def train(engine, data, mode, fields, old):
    """Losses, gradients of the parameters, and those of every token's log-probability, by row."""
    from test_policy_loss import actor_config
    from verl.workers.utils import losses

    from egsw_plugin.fields import Field
    from egsw_plugin.methods import LOSSES
    from egsw_plugin.options import encode

    config = actor_config(mode, "seq-mean-token-mean" if mode == "grpo_s" else "token-mean")
    data = data.copy()
    data["old_log_probs"], data["advantages"] = nested(old), nested(fields["advantages"])
    data["row"] = torch.arange(len(old))
    reads = {
        Field.WEIGHT: fields["weights"],
        Field.CLIP_LOW: fields["clip_low"],
        Field.CLIP_HIGH: fields["clip_high"],
    }
    for field, tensors in reads.items():
        if field in LOSSES[mode].reads:
            data[field.queue_name] = nested(tensors)
    if numbers := encode(LOSSES[mode].options_type()):
        numbers = torch.tensor(numbers, dtype=torch.float64)
        data[Field.LOSS_OPTIONS.queue_name] = numbers.expand(len(old), -1).contiguous()
    kept = []

    def loss(model_output, data, dp_group=None):
        flat, offsets = model_output["log_probs"].values(), model_output["log_probs"].offsets()
        flat.retain_grad()
        kept.append((data["row"].tolist(), offsets.tolist(), flat))
        model_output = {**model_output, "log_probs": torch.nested.nested_tensor_from_jagged(flat, offsets)}
        return losses.ppo_loss(config, model_output, data, dp_group)

    engine.optimizer_zero_grad()
    with engine.train_mode():
        result = engine.forward_backward_batch(data, loss)
        gradients = {name: p.grad.full_tensor().clone() for name, p in engine.module.named_parameters()}
    tokens = {
        row: flat.grad[start:end].clone()
        for rows, offsets, flat in kept
        for row, start, end in zip(rows, offsets[:-1], offsets[1:], strict=True)
    }
    return {"loss": sum(result["loss"]), "parts": len(kept), "parameters": gradients, "tokens": tokens}


def train_with_images(folder, fields):
    """The same rows, two of them with an image in the prompt: what the engine computes, what the model alone says, and
    why padding is not removed."""
    import transformers
    from tensordict import NonTensorStack

    rows = [row.clone() % 50 for row in fields["rows"]]
    images = [{} for _ in rows]
    for row in (0, 2):
        rows[row][1:4] = torch.tensor([55, IMAGE, 56])
        images[row] = {"pixel_values": torch.randn(4, 3 * 2 * 2 * 2), "image_grid_thw": torch.tensor([[1, 2, 2]])}
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    positions, new = [], []
    for row, image, length in zip(rows, images, PROMPTS, strict=True):
        kinds = row.eq(IMAGE).long()[None]
        grid = {"image_grid_thw": image["image_grid_thw"]} if image else {}
        own, _ = model.model.get_rope_index(input_ids=row[None], mm_token_type_ids=kinds, **grid)
        positions.append(torch.cat([torch.arange(len(row))[None], own[:, 0]]))
        with torch.no_grad():
            seen = {**image, "mm_token_type_ids": kinds} if image else {}
            logits = model(input_ids=row[None], position_ids=own, **seen).logits[0, length - 1 : -1]
        new.append((logits / TEMPERATURE).log_softmax(-1).gather(1, row[length:, None])[:, 0])
    data = batch_of({**fields, "rows": rows}, 1)
    data["position_ids"], data["multi_modal_inputs"] = nested(positions), NonTensorStack(*images)
    engine = engine_of(folder, 1, "language_model")
    with engine.eval_mode():
        output = engine.forward_backward_batch(data.copy(), None, forward_only=True)["model_output"]["log_probs"]
    computed = [row[length - 1 : -1].clone() for row, length in zip(output.unbind(), PROMPTS, strict=True)]
    old = [row - change for row, change in zip(computed, fields["changes"], strict=True)]
    results = {"new": computed, "alone": new, "egsw": train(engine, data, "egsw", fields, old)}
    engine = engine_of(folder, 1, "language_model", remove_padding=True)
    with engine.eval_mode():
        try:
            engine.forward_backward_batch(data, None, forward_only=True)
        except ValueError as error:
            results["refused"] = str(error)
    return results


def main(folder, rank, size):
    import verl  # noqa: F401  (loads the plugin)

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "cpu:gloo", init_method=f"file://{folder}/rendezvous-{size}", rank=rank, world_size=size
    )
    fields = torch.load(folder / "batch.pt")
    data = batch_of(fields, size)
    engine = engine_of(folder, size, "language_model")
    with engine.eval_mode():
        output = engine.forward_backward_batch(data.copy(), None, forward_only=True)["model_output"]
    results = {name: [row.clone() for row in tensor.unbind()] for name, tensor in output.items()}
    places = zip(PROMPTS, results["log_probs"], strict=True)
    new = [row[length - 1 : -1] for length, row in places]  # a place holds the next token's
    results["new"] = new
    old = [row - change for row, change in zip(new, fields["changes"], strict=True)]
    for mode in MODES:
        results[mode] = train(engine, data, mode, fields, old)

    torch.manual_seed(1)  # the critic's head is new
    critic = engine_of(folder, size, "value_model")

    def loss(model_output, data, dp_group=None):
        values = model_output["values"].values().flatten()
        return (values * torch.arange(1.0, len(values) + 1)).sum(), {}

    whole = data.copy()
    whole.set_non_tensor("max_token_len_per_gpu", 10**6)
    critic.optimizer_zero_grad()
    with critic.train_mode():
        critic.forward_backward_batch(whole, loss)
        results["critic"] = {name: p.grad.full_tensor().clone() for name, p in critic.module.named_parameters()}
    if size == 1:
        results["images"] = train_with_images(folder / "images", fields)
    else:
        try:
            engine_of(folder / "images", size, "language_model")
        except ValueError as error:
            results["refused"] = str(error)
    torch.save(results, folder / f"{size}-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
