"""Members, policy losses and verl's real actor update on an accelerator, against the CPU and against verl's `vanilla`.

python benchmarks/gpu/check.py [--out results.md]        # minutes; one accelerator, see README.md beside this file
VERL_PLATFORM=cpu python benchmarks/gpu/check.py --device cpu --small        # the same code, without an accelerator

It stops with an error where a result is wrong; the tables are times and memory.
"""

import argparse
import dataclasses
import functools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import table

REFERENCE = "vanilla"
LOSS_SHAPES = {False: [(64, 4096), (32, 8192), (8, 16384)], True: [(4, 32)]}
ACTOR_SHAPE = {False: (16, 256, 1024, 4), True: (4, 3, 6, 2)}  # rows, prompt, response, rows of a micro-batch
QWEN = dict(
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    vocab_size=151936,
    tie_word_embeddings=True,
)  # Qwen2.5-1.5B
LITTLE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=61)
MODEL = {False: QWEN, True: QWEN | LITTLE}


class Device:
    """The device: its name, an end to its queue, its largest memory since `reset`."""

    def __init__(self, name):
        self.name, self.cuda = name, name == "cuda"

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def reset(self):
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

    def peak(self):
        """GiB."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.cuda else float("nan")

    def title(self):
        card = torch.cuda.get_device_name() if self.cuda else "CPU"
        return f"{card}, torch {torch.__version__}"


def members(device):
    """Every base and transform with its defaults: the same advantages, fields and metrics as on the CPU."""
    from egsw_plugin.methods import MEMBERS
    from egsw_plugin.methods.chain import Chain, Link, apply
    from egsw_plugin.methods.interface import Base
    from egsw_plugin.testing import make_batch

    rows = []
    for name in MEMBERS.own:
        member = MEMBERS[name]
        link = Link(member, member.options_type(), member.section).resolved()
        furthest = 0.0
        for seed in range(20):
            batch = make_batch(seed)
            kept = {key: batch.tensors[key] for key in link.requirements.tensors}
            results = []
            for place in ("cpu", device.name):
                base = None if isinstance(member, Base) else batch.base
                given = moved(dataclasses.replace(batch, base=base, tensors=kept), place)
                results.append(apply(Chain(name, link) if base is None else Chain(name, "grpo", (link,)), given))
            one, other = results
            pairs = [(one.advantages, other.advantages)]
            pairs += [(one.fields[field], other.fields[field]) for field in one.fields]
            for left, right in pairs:
                torch.testing.assert_close(right.cpu(), left, atol=2e-5, rtol=2e-5, msg=f"{name}, seed {seed}")
                furthest = max(furthest, float((right.cpu() - left).abs().max()))
            assert one.metrics.keys() == other.metrics.keys(), name
        rows.append([name, f"{furthest:.1e}"])
    return table(["base or transform", "largest difference to the CPU"], rows)


def moved(value, place):
    """A record with its tensors on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(place)
    if isinstance(value, dict):
        return {key: moved(one, place) for key, one in value.items()}
    if dataclasses.is_dataclass(value):
        parts = {part.name: moved(getattr(value, part.name), place) for part in dataclasses.fields(value) if part.init}
        return dataclasses.replace(value, **parts)
    return value


def micro_batch(shape, device, seed=0):
    """Old log-probabilities, advantages, mask, and the fields that the policy losses read."""
    from egsw_plugin.fields import Field

    generator = torch.Generator().manual_seed(seed)
    rows, tokens = shape
    lengths = torch.randint(tokens // 8, tokens + 1, (rows, 1), generator=generator)
    mask = torch.arange(tokens) < lengths
    old, advantages, noise, weight = (torch.randn(shape, generator=generator) for _ in range(4))
    old = -old.abs()
    fields = {Field.WEIGHT: weight.abs()}
    given = {"old": old, "log_prob": old + 0.1 * noise, "advantages": advantages, "mask": mask}
    return moved(given, device), {field: tensor.to(device) for field, tensor in fields.items()}


def loss_of(mode, given, fields):
    """(loss with gradient, metrics, leaf) as a worker computes them."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import ActorConfig

    from egsw_plugin.fields import Field, arriving
    from egsw_plugin.methods import LOSSES
    from egsw_plugin.options import encode

    config = ActorConfig(
        strategy="fsdp", rollout_n=8, ppo_micro_batch_size_per_gpu=1, clip_ratio_low=0.2, clip_ratio_high=0.28
    )
    config.global_batch_info.update(
        dp_size=1, batch_num_tokens=int(given["mask"].sum()), global_batch_size=len(given["mask"])
    )
    if mode in LOSSES and (numbers := encode(LOSSES[mode].options_type())):
        fields = {**fields, Field.LOSS_OPTIONS: torch.tensor([numbers])}
    compute, agg = get_policy_loss_fn(mode), "seq-mean-token-mean" if mode.startswith("grpo_s") else "token-mean"
    leaf = given["log_prob"].detach().requires_grad_()

    def run():
        leaf.grad = None
        with arriving(fields):
            loss, metrics = compute(
                given["old"], leaf, given["advantages"], given["mask"], loss_agg_mode=agg, config=config
            )
        loss.backward()
        return loss, metrics

    return run, leaf


def losses(device, small):
    """Each policy loss: value and gradient equal those on the CPU; time and memory of forward and backward."""
    from egsw_plugin.methods import LOSSES

    modes, rows = (REFERENCE, *LOSSES.own), []
    for shape in LOSS_SHAPES[small]:
        given, fields = micro_batch(shape, "cpu")
        there, fields_there = moved(given, device.name), {key: one.to(device.name) for key, one in fields.items()}
        furthest, cases, memory = {}, {}, {}
        for mode in modes:
            run, leaf = loss_of(mode, given, fields)
            run_there, leaf_there = loss_of(mode, there, fields_there)
            loss, loss_there = run()[0], run_there()[0]
            torch.testing.assert_close(loss_there.detach().cpu(), loss.detach(), rtol=1e-4, atol=1e-6, msg=mode)
            difference = (leaf_there.grad.cpu() - leaf.grad).abs().max() / leaf.grad.abs().max()
            # A ratio that rounding puts on the other side of a bound has another gradient; none does with this seed.
            assert float(difference) < 1e-4, (mode, shape, float(difference))
            furthest[mode], cases[mode] = float(difference), run_there
        for mode in modes:
            device.reset()
            before = device.peak()
            cases[mode]()
            device.wait()
            memory[mode] = device.peak() - before
        seconds = timed(cases, device, 3 if small else 30)
        tensor = there["old"].numel() * 4 / 2**30
        for mode in modes:
            rows.append(
                [
                    f"{mode} [{shape[0]}, {shape[1]}]",
                    f"{seconds[mode] * 1e3:.2f}",
                    f"{seconds[mode] / seconds[REFERENCE]:.2f}",
                    f"{memory[mode] / tensor:.1f}",
                    f"{furthest[mode]:.0e}",
                ]
            )
    header = ["policy loss, forward and backward", "ms", "x vanilla", "memory, tensors", "gradient to the CPU's"]
    return table(header, rows)


def timed(cases, device, repeats):
    """Median seconds of each case; the cases take turns."""
    seconds = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, case in cases.items():
            device.wait()
            start = time.perf_counter()
            case()
            device.wait()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def actor(device, small):
    """verl's FSDP engine updates a random model of Qwen2.5-1.5B's shape in bfloat16 with each policy loss."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    from egsw_plugin.methods import LOSSES

    rows_number, prompt, response, micro = ACTOR_SHAPE[small]
    with tempfile.TemporaryDirectory() as folder:
        backend, method = "cpu:gloo,cuda:nccl" if device.cuda else "cpu:gloo", f"file://{folder}/rendezvous"
        torch.distributed.init_process_group(backend, init_method=method, rank=0, world_size=1)
        make_model(folder, MODEL[small])
        engine = make_engine(folder)
        data = make_data(rows_number, prompt, response, MODEL[small]["vocab_size"])
        old, entropy = old_log_probs(engine, data, micro)
        check_entropy(data, entropy, folder, device, micro)
        modes, rows = (REFERENCE, *LOSSES.own), []
        seconds, memory, norms = {mode: [] for mode in modes}, {}, {}
        for repeat in range(2 if small else 4):
            for mode in modes:
                batch, loss = update_batch(data, old, mode, micro), actor_loss(mode, micro)
                device.reset()
                start = time.perf_counter()
                with engine.train_mode():
                    output = engine.train_batch(batch, loss)
                device.wait()
                if repeat:
                    seconds[mode].append(time.perf_counter() - start)
                memory[mode], norms[mode] = device.peak(), float(output["metrics"]["grad_norm"])
                assert 0 < norms[mode] < float("inf"), (mode, norms[mode])
        median = {mode: statistics.median(times) for mode, times in seconds.items()}
        for mode in modes:
            times = f"{median[mode]:.2f}", f"{median[mode] / median[REFERENCE]:.2f}"
            rows.append([mode, *times, f"{memory[mode]:.1f}", f"{norms[mode]:.3g}"])
        torch.distributed.destroy_process_group()
    shape = f"{rows_number} rows of {prompt} + {response} tokens, {micro} at a time"
    header = [f"verl's actor update, {shape}", "s", "x vanilla", "memory, GiB", "gradient's norm"]
    return table(header, rows)


def actor_loss(mode, micro):
    """verl's `ppo_loss` with a policy loss, as the actor's worker has it."""
    from verl.workers.config import ActorConfig, PolicyLossConfig
    from verl.workers.utils import losses as verl_losses

    config = ActorConfig(
        strategy="fsdp2",
        rollout_n=8,
        ppo_micro_batch_size_per_gpu=micro,
        policy_loss=PolicyLossConfig(loss_mode=mode),
        loss_agg_mode="seq-mean-token-mean" if mode.startswith("grpo_s") else "token-mean",
    )
    return functools.partial(verl_losses.ppo_loss, config)


def make_model(folder, sizes):
    from tokenizers import Tokenizer
    from tokenizers import models as tokenizer_models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(max_position_embeddings=32768, **sizes)).save_pretrained(folder)
    words = Tokenizer(tokenizer_models.WordLevel({"a": 0}, "a"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="a").save_pretrained(folder)


def make_engine(folder):
    import verl  # noqa: F401  (loads the plugin)
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
    from verl.workers.engine import EngineRegistry

    engine = EngineRegistry.new(
        "language_model",
        "fsdp2",
        model_config=HFModelConfig(
            path=folder,
            use_remove_padding=True,
            enable_gradient_checkpointing=True,
            override_config={"attn_implementation": "sdpa"},
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp2",
            model_dtype="fp32",
            use_torch_compile=False,
            entropy_from_logits_with_chunking=True,
            mixed_precision={"param_dtype": "bf16", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        ),
        # All losses meet the same policy.
        optimizer_config=FSDPOptimizerConfig(lr=0.0, lr_warmup_steps=0, total_training_steps=100),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def nested(parts):
    return torch.nested.as_nested_tensor(parts, layout=torch.jagged)


def make_data(rows, prompt, response, vocabulary):
    from tensordict import TensorDict

    torch.manual_seed(1)
    lengths = torch.randint(response // 2, response + 1, (rows,)).tolist()
    prompts = [torch.randint(1, vocabulary, (prompt,)) for _ in range(rows)]
    responses = [torch.randint(1, vocabulary, (length,)) for length in lengths]
    whole = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    ones = [torch.ones(length, dtype=torch.int64) for length in lengths]
    return TensorDict(
        {
            "input_ids": nested(whole),
            "position_ids": nested([torch.arange(len(row)) for row in whole]),
            "prompts": nested(prompts),
            "responses": nested(responses),
            "loss_mask": nested(ones),
            "response_mask": nested([one.clone() for one in ones]),
        },
        batch_size=[rows],
    )


def settings(data, micro, **more):
    from verl.utils import tensordict_utils as tu

    tu.assign_non_tensor(
        data,
        use_remove_padding=True,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=micro,
        temperature=1.0,
        calculate_entropy=True,
        pad_token_id=0,
        global_batch_size=len(data),
        **more,
    )
    return data


def responses_of(tensor, data):
    """One tensor a row from verl's model output."""
    from verl.workers.utils.padding import no_padding_2_padding

    padded = no_padding_2_padding(tensor, data).cpu()
    return [row[: len(response)] for row, response in zip(padded, data["responses"].unbind(), strict=True)]


def old_log_probs(engine, data, micro):
    """Log-probabilities and entropies of the policy before the update, as verl's workers compute them."""
    batch = settings(data.copy(), micro)
    with engine.eval_mode():
        output = engine.infer_batch(batch)["model_output"]
    assert output["entropy"].dtype == torch.float32, output["entropy"].dtype
    return responses_of(output["log_probs"], data), responses_of(output["entropy"], data)


def check_entropy(data, entropy, folder, device, micro):
    """verl's entropies are those of transformers' logits; of the last row of a micro-batch, which sees no other row."""
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device.name).eval()
    number = micro - 1
    row, prompt = data["input_ids"].unbind()[number], len(data["prompts"].unbind()[number])
    with torch.no_grad(), torch.autocast(device.name, torch.bfloat16):
        logits = net(row.to(device.name).unsqueeze(0)).logits[0, prompt - 1 : -1]
    expected = torch.distributions.Categorical(logits=logits.double()).entropy().cpu()
    difference = float((entropy[number].double() - expected).abs().max())
    print(f"entropy of a row: {expected.mean():.3f} nats, furthest from float64 of the same logits: {difference:.1e}")
    assert difference < 2e-2, difference


def update_batch(data, old, mode, micro):
    """The batch that the trainer hands to its workers; weights as a transform would send them."""
    from egsw_plugin.fields import Field
    from egsw_plugin.methods import LOSSES
    from egsw_plugin.options import encode

    batch = data.copy()
    torch.manual_seed(2)
    batch["old_log_probs"] = nested(old)
    batch["advantages"] = nested([torch.randn(()) * torch.ones_like(row) for row in old])
    if mode in LOSSES:
        loss = LOSSES[mode]
        if Field.WEIGHT in loss.reads:
            batch[Field.WEIGHT.queue_name] = nested([2 * torch.rand_like(row) for row in old])
        if numbers := encode(loss.options_type()):
            batch[Field.LOSS_OPTIONS.queue_name] = torch.tensor([numbers]).expand(len(old), -1).contiguous()
    return settings(batch, micro)


PARTS = {
    "members": lambda device, small: members(device),
    "losses": losses,
    "actor": actor,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="small shapes: does it run at all?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, help="write the tables there, too")
    arguments = parser.parse_args()
    device = Device(arguments.device)
    torch.manual_seed(0)
    text = [device.title()]
    for part in arguments.parts:
        start = time.time()
        text.append(PARTS[part](device, arguments.small))
        print(f"{text[-1]}\n\n{part}: {time.time() - start:.0f} s\n", flush=True)
        if arguments.out:
            arguments.out.write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
