"""One of the processes of test_scale.py: verl's FSDP engine, its micro-batches and its `ppo_loss`, with Ulysses or not.

    python sequence_parallel.py FOLDER RANK SIZE

FOLDER holds a model, and batch.pt, made by `make`; what the engine computed is written to FOLDER/SIZE-RANK.pt.
"""

import sys
from pathlib import Path

import torch

MODES = ["egsw", "gtpo", "grpo_s", "egsw_plugin", "fipo"]
VOCABULARY, TEMPERATURE = 61, 0.8
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
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, "a"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="a").save_pretrained(folder)
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


def engine_of(folder, parallel, kind):
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
            use_remove_padding=parallel > 1,
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
    torch.save(results, folder / f"{size}-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
