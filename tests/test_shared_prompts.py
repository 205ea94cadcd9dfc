"""A micro-batch whose prompts are stored once says what its rows say one by one: log-probabilities, entropy, gradients.

The reference is transformers' own forward pass of each row alone. The engine is compared with verl's own, padding
included, in a process of its own. Not exercised here: several workers (tests/verl_runs).
"""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_utils import AttentionInterface
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from egsw_plugin.cpu import engine, packed, shared_prompts
from egsw_plugin.cpu.shared_prompts import Layout, log_probs_and_entropy
from egsw_plugin.errors import OptionError

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 61, "head_dim": 8}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
MODELS = {"llama": (LlamaForCausalLM, LlamaConfig), "qwen2": (Qwen2ForCausalLM, Qwen2Config)}
MODELS["qwen3"] = (Qwen3ForCausalLM, Qwen3Config)


def attend(module, query, key, value, mask, scaling=None, dropout=0.0, layout=None, **kwargs):
    assert mask is None
    return shared_prompts.attention(query, key, value, layout, scaling).transpose(1, 2), None


AttentionInterface.register("shared_in_test", attend)
AttentionInterface.register(shared_prompts.NAME, engine.attend)
AttentionInterface.register(packed.NAME, engine.attend_in_parallel)


def model(name: str) -> torch.nn.Module:
    torch.manual_seed(3)
    model_class, config_class = MODELS[name]
    return model_class(config_class(**SIZES, tie_word_embeddings=name == "llama")).double()


def rows(groups: list[tuple[int, list[int]]], seed: int = 0) -> tuple[list[torch.Tensor], list[int]]:
    """Rows of random tokens: for each group a prompt of so many tokens, and responses of so many."""
    generator = torch.Generator().manual_seed(seed)
    result, lengths = [], []
    for prompt, responses in groups:
        tokens = torch.randint(0, SIZES["vocab_size"], (prompt,), generator=generator)
        for response in responses:
            own = torch.randint(0, SIZES["vocab_size"], (response,), generator=generator)
            result.append(torch.cat([tokens, own]))
            lengths.append(prompt)
    return result, lengths


def together(net, batch, lengths, temperature=1.0):
    """Log-probabilities and entropies of all response tokens, row by row, from one stored micro-batch."""
    layout = Layout.of(batch, [torch.arange(len(row)) for row in batch], lengths)
    net.set_attn_implementation("shared_in_test")
    logits = net(
        input_ids=layout.input_ids[None],
        position_ids=layout.position_ids[None],
        logits_to_keep=layout.keep,
        layout=layout,
        use_cache=False,
    ).logits[0]
    return layout, *log_probs_and_entropy(logits, layout.labels, layout.source, temperature)


def one_by_one(net, batch, lengths, temperature=1.0):
    net.set_attn_implementation("sdpa")
    log_probs, entropies = [], []
    for row, length in zip(batch, lengths, strict=True):
        log_p = (net(input_ids=row[None]).logits[0, length - 1 : -1] / temperature).log_softmax(-1)
        log_probs.append(log_p.gather(1, row[length:, None]).squeeze(1))
        entropies.append(-(log_p.exp() * log_p).sum(1))
    return torch.cat(log_probs), torch.cat(entropies)


def test_attention_is_float32_where_the_actor_is_autocast_to_bfloat16():
    """As bfloat16 its gradient takes more than twice as long, and its scores have steps of a percent."""
    batch, lengths = rows([(4, [2, 7]), (9, [1, 5])])
    layout = Layout.of(batch, [torch.arange(len(row)) for row in batch], lengths)
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, heads, len(layout.input_ids), 8, generator=generator).bfloat16() for heads in (4, 2, 2)]
    exact = shared_prompts.attention(*(tensor.float() for tensor in given), layout)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(shared_prompts.attention(*given, layout), exact.bfloat16(), rtol=0, atol=0)
        wide = shared_prompts.attention(*(tensor.float() for tensor in given), layout)
    torch.testing.assert_close(wide, exact, rtol=0, atol=0)


BATCHES = {
    "one group": [(5, [3, 1, 4])],
    "groups of several lengths": [(4, [2, 7]), (9, [1, 1, 5]), (1, [6])],
    "nothing shared": [(3, [4]), (3, [2]), (5, [3])],
    "an empty response": [(3, [0, 2]), (2, [0])],
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("groups", BATCHES.values(), ids=BATCHES)
def test_equal_to_each_row_alone(name, groups):
    net, (batch, lengths) = model(name), rows(groups)
    _, log_probs, entropy = together(net, batch, lengths, temperature=0.7)
    expected, expected_entropy = one_by_one(net, batch, lengths, temperature=0.7)
    torch.testing.assert_close(log_probs, expected.float(), atol=2e-6, rtol=0)
    torch.testing.assert_close(entropy, expected_entropy.float(), atol=5e-6, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_each_row_alone(name):
    net, (batch, lengths) = model(name), rows(BATCHES["groups of several lengths"])
    weights = torch.randn(2, sum(map(len, batch)) - sum(lengths), generator=torch.Generator().manual_seed(1))
    gradients = []
    for compute in (lambda: together(net, batch, lengths)[1:], lambda: one_by_one(net, batch, lengths)):
        net.zero_grad()
        log_probs, entropy = compute()
        (weights[0] * log_probs + weights[1] * entropy).sum().backward()
        gradients.append({key: parameter.grad.clone() for key, parameter in net.named_parameters()})
    for key, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][key], gradient, atol=2e-6, rtol=1e-5, msg=key)


def test_any_order_of_the_rows():
    net, (batch, lengths) = model("llama"), rows([(4, [2, 3]), (3, [1, 2])])
    _, reference, _ = together(net, batch, lengths)
    parts = reference.split([len(row) - length for row, length in zip(batch, lengths, strict=True)])
    for order in itertools.permutations(range(4)):
        _, log_probs, _ = together(net, [batch[i] for i in order], [lengths[i] for i in order])
        torch.testing.assert_close(log_probs, torch.cat([parts[i] for i in order]), atol=1e-6, rtol=0)


def test_what_is_stored():
    batch, lengths = rows([(5, [3, 1, 4]), (2, [2])])
    layout = Layout.of(batch, [torch.arange(len(row)) for row in batch], lengths)
    assert len(layout.input_ids) == 5 + 3 + 1 + 4 + 2 + 2
    assert len(layout.keep) == 1 + 2 + 0 + 3 + 1 + 1  # the prompt's last token, and each response but its last
    assert layout.labels.tolist() == [
        token for row, n in zip(batch, lengths, strict=True) for token in row[n:].tolist()
    ]


def test_equal_tokens_at_other_positions_are_not_shared():
    row = torch.tensor([1, 2, 3])
    layout = Layout.of([row, row], [torch.arange(3), torch.arange(3) + 1], [2, 2])
    assert len(layout.groups) == 2


def test_log_probs_and_entropy_by_hand():
    logits = torch.tensor([[1.0, 3.0]]).log().bfloat16()
    log_probs, entropy = log_probs_and_entropy(logits, torch.tensor([1]), torch.tensor([0]))
    assert log_probs.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp(), torch.tensor([0.75]), atol=2e-3, rtol=0)
    torch.testing.assert_close(entropy, torch.tensor([0.5623]), atol=2e-3, rtol=0)


def test_gradient_against_finite_differences(monkeypatch):
    monkeypatch.setattr(shared_prompts, "CHUNK", 10)  # two rows at a time
    torch.manual_seed(0)
    logits, labels, source = torch.randn(5, 5), torch.tensor([0, 3, 3, 1]), torch.tensor([2, 0, 2, 4])
    weights = torch.randn(2, 4)

    def value(logits: torch.Tensor) -> torch.Tensor:
        log_probs, entropy = log_probs_and_entropy(logits, labels, source, 1.3)
        return (weights[0] * log_probs + weights[1] * entropy).sum()

    leaf = logits.clone().requires_grad_()
    value(leaf).backward()
    for place in itertools.product(range(5), range(5)):
        step = torch.zeros_like(logits)
        step[place] = 1e-2
        numeric = (value(logits + step) - value(logits - step)) / 2e-2
        assert abs(float(numeric - leaf.grad[place])) < 2e-3, place


ENGINE = """
import os, sys, torch
os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
import verl
from tensordict import TensorDict
from transformers import LlamaConfig, LlamaForCausalLM
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.trainer.config import CheckpointConfig
from verl.workers.engine import EngineRegistry
from verl.workers.utils.padding import no_padding_2_padding

folder = sys.argv[1]
torch.distributed.init_process_group("cpu:gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
torch.manual_seed(0)
config = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, vocab_size=61, num_attention_heads=4,
                     num_key_value_heads=2, tie_word_embeddings=True)
LlamaForCausalLM(config).save_pretrained(folder)
from transformers import PreTrainedTokenizerFast
from tokenizers import Tokenizer, models
tokenizer = Tokenizer(models.WordLevel({"a": 0}, "a"))
PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="a").save_pretrained(folder)

prompts = [torch.randint(0, 61, (n,)) for n in (5, 3)]
rows = [torch.cat([prompts[g], torch.randint(0, 61, (n,))]) for g, n in ((0, 4), (1, 2), (0, 7), (1, 1))]
nested = lambda parts: torch.nested.as_nested_tensor(parts, layout=torch.jagged)
lengths = [len(prompts[g]) for g in (0, 1, 0, 1)]

def loss(model_output, data, dp_group=None):
    log_probs, entropy = (no_padding_2_padding(model_output[k], data) for k in ("log_probs", "entropy"))
    weight = torch.arange(1.0, log_probs.numel() + 1).view_as(log_probs)
    return (weight * log_probs + 0.3 * weight * entropy).sum() / 10, {}

results = []
for remove in (False, True):
    engine = EngineRegistry.new(
        "language_model", "fsdp2",
        model_config=HFModelConfig(path=folder, use_remove_padding=remove, enable_gradient_checkpointing=False,
                                   override_config={"attn_implementation": "sdpa"}),
        engine_config=FSDPEngineConfig(strategy="fsdp2", model_dtype="fp32", use_torch_compile=False,
            mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}),
        optimizer_config=FSDPOptimizerConfig(lr=1e-3, lr_warmup_steps=0, total_training_steps=1),
        checkpoint_config=CheckpointConfig())
    engine.initialize()
    data = TensorDict({
        "input_ids": nested(rows), "position_ids": nested([torch.arange(len(r)) for r in rows]),
        "prompts": nested([r[:n] for r, n in zip(rows, lengths)]),
        "responses": nested([r[n:] for r, n in zip(rows, lengths)]),
        "loss_mask": nested([torch.ones(len(r) - n) for r, n in zip(rows, lengths)]),
    }, batch_size=[4])
    tu.assign_non_tensor(data, use_remove_padding=remove, use_dynamic_bsz=False, micro_batch_size_per_gpu=4,
                         temperature=0.8, calculate_entropy=True, pad_token_id=0)
    with engine.train_mode():
        micro = data.copy()
        value, output = engine.forward_step(micro, loss, forward_only=False)
        value.backward()
        gradients = {k: p.grad.full_tensor() for k, p in engine.module.named_parameters()}
    padded = [no_padding_2_padding(output["model_output"][k], data) for k in ("log_probs", "entropy")]
    results.append((padded, gradients))
    print("ENGINE", type(engine).__name__)
(first, gradients), (second, others) = results
for a, b in zip(first, second):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
for key in gradients:
    torch.testing.assert_close(gradients[key], others[key], atol=1e-5, rtol=1e-4, msg=key)
print("EQUAL")
"""


TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 61, "pad_token_id": 0}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
UNFIT = {
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "lfm2 model, whose layers conv, Conv1d mix tokens"),
    "falcon": ({}, "falcon model, whose attention cannot be exchanged"),
    "nemotron": ({}, "nemotron model, whose attention cannot be exchanged"),
}
PARALLEL = ("ulysses_sequence_parallel_size", 2, "1")


@pytest.mark.parametrize("attention", [shared_prompts.NAME, packed.NAME])
@pytest.mark.parametrize("name", UNFIT)
def test_a_model_in_which_rows_would_leak_into_each_other_is_refused(name, attention):
    """Its numbers were wrong by up to five nats, and nothing said so."""
    more, words = UNFIT[name]
    net = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**TINY, **more))
    asked = PARALLEL if attention == packed.NAME else (engine.REMOVE_PADDING, True, "False")
    with pytest.raises(
        OptionError, match=f"{asked[0]}={asked[1]}: not on the CPU with a {words}.* set it to {asked[2]}"
    ):
        engine.exchange_attention(net, attention, *asked)


@pytest.mark.parametrize("name", [*MODELS, "gemma3_text", "mistral", "gpt_neox", "smollm3"])
def test_a_model_of_attention_alone_is_not_refused(name):
    net = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**TINY))
    engine.exchange_attention(net, shared_prompts.NAME, engine.REMOVE_PADDING, True, "False")


@pytest.mark.parametrize("change", [{"softcap": 50.0}, {"s_aux": torch.zeros(4)}])
def test_an_attention_with_more_than_softmax_is_refused(change):
    """Of Gemma 2 and of gpt-oss; what is None is not there."""
    batch, lengths = rows([(3, [2])])
    layout = Layout.of(batch, [torch.arange(5)], lengths)
    state = torch.randn(1, 2, 5, 8)
    engine.attend(None, state, state, state, None, shared_prompts_layout=layout, **dict.fromkeys(change))
    (name,) = change
    with pytest.raises(ValueError, match=f"use_remove_padding=True .* asks its attention for {name}; set it to False"):
        engine.attend(None, state, state, state, None, shared_prompts_layout=layout, **change)
    with pytest.raises(ValueError, match=f"asks its attention for {name}; set it to 1"):
        engine.attend_in_parallel(None, state, state, state, None, **change)
    with pytest.raises(ValueError, match="which keeps the layout from its attention; set it to False"):
        engine.attend(None, state, state, state, None)


def test_engine_gives_what_verls_own_gives(tmp_path):
    environment = os.environ | {"VERL_PLATFORM": "cpu"}
    command = [sys.executable, "-c", ENGINE, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=350)
    assert "EQUAL" in done.stdout, done.stderr[-3000:]
    assert done.stdout.count("ENGINE CPUEngineWithLMHead") == 2
