"""The whole of verl's `_compute_advantage` over a real TransferQueue, with each method and with `grpo`, as ratios.

.venv/bin/python benchmarks/trainer_step.py [--rows 2048 --tokens 4096 --threads 1]

The second table says where the time goes: each part without those that it calls. With --proposal, instead, verl's step
as it is and with patches/proposals applied to it.
"""

import argparse
import contextlib
import functools
import statistics
import tempfile
import time

import ray
import torch
import transfer_queue as tq
from batches import make_batch
from hydra import compose, initialize_config_module
from proposal import proposed
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorStack
from timing import interleaved, machine, ratios, table
from transfer_queue import KVBatchMeta
from transformers import Qwen2Config
from verl.trainer.ppo.v1 import PPOTrainerSync, trainer_base

CASES = {
    "grpo": ["algorithm.adv_estimator=grpo"],
    "grpo_vectorized": ["algorithm.adv_estimator=grpo_vectorized"],
    "egsw": ["algorithm.adv_estimator=egsw"],
    "egsw channel=loss": ["algorithm.adv_estimator=egsw", "+algorithm.egsw.channel=loss"],
    "gtpo": ["algorithm.adv_estimator=gtpo"],
    "grpo_s": ["algorithm.adv_estimator=grpo_s"],
}


PARTS = {
    "fetch": (tq, "kv_batch_get"),
    "pad": (TensorDict, "to_padded_tensor"),
    "rollout correction and its metrics": (trainer_base, "compute_rollout_correction_and_add_to_batch"),
    "estimator, with its own fetch": (trainer_base, "compute_advantage_for_multi_trajectories"),
    "cut to each row's length": (trainer_base, "response_to_nested"),
    "store": (tq, "kv_batch_put"),
}
REST = "the rest"


@contextlib.contextmanager
def watched(seconds):
    """Add to `seconds` what each part takes, less the parts that it calls, except those of the estimator."""
    inside, originals = [], {name: getattr(*place) for name, place in PARTS.items()}

    def wrap(name, original):
        @functools.wraps(original)
        def timed(*args, **kwargs):
            if inside:
                return original(*args, **kwargs)
            inside.append(name)
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                inside.pop()
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

        return timed

    for name, place in PARTS.items():
        setattr(*place, wrap(name, originals[name]))
    try:
        yield
    finally:
        for name, place in PARTS.items():
            setattr(*place, originals[name])


def parts_of(step, repeats):
    """Median share of each part in the whole, percent."""
    shares = []
    for _ in range(repeats):
        seconds = {}
        with watched(seconds):
            start = time.perf_counter()
            step()
            whole = time.perf_counter() - start
        seconds[REST] = whole - sum(seconds.values())
        shares.append({name: 100 * seconds.get(name, 0.0) / whole for name in (*PARTS, REST)})
    return {name: statistics.median(share[name] for share in shares) for name in (*PARTS, REST)}


def config_of(*overrides):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


def store(batch, rows):
    """Put the batch into TransferQueue as rollout and log-probability steps leave it: each row as long as it is."""
    lengths = batch["response_mask"].sum(1)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    there = batch["response_mask"].bool()
    fields = {
        "response_mask": batch["response_mask"],
        "rm_scores": batch["token_level_rewards"],
        "old_log_probs": -batch["entropy"],
        "rollout_log_probs": -batch["entropy"],
        "entropy": batch["entropy"],
    }
    fields = {name: torch.nested.nested_tensor_from_jagged(value[there], offsets) for name, value in fields.items()}
    fields["uid"] = NonTensorStack(*batch["index"].tolist())
    seen = {}
    keys = [f"{uid}_{seen.setdefault(uid, []).append(0) or len(seen[uid]) - 1}_0" for uid in batch["index"]]
    tags = [{"response_len": int(length), "is_padding": False} for length in lengths]
    tq.kv_batch_put(keys=keys, partition_id="train", tags=tags, fields=TensorDict(fields, batch_size=rows))
    return KVBatchMeta(partition_id="train", keys=keys, tags=tags)


def trainer_of(model, overrides):
    """verl's trainer with its configuration and without workers: the advantage step needs no more."""
    trainer = object.__new__(PPOTrainerSync)
    trainer.config = config_of(f"actor_rollout_ref.model.path={model}", *overrides)
    trainer.use_critic = False
    return trainer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of torch; verl's driver has one")
    parser.add_argument("--proposal", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False)
    tq.init(config_of("transfer_queue.enable=True").transfer_queue)
    try:
        with tempfile.TemporaryDirectory() as model:
            Qwen2Config(vocab_size=1000, hidden_size=8, num_attention_heads=1, num_hidden_layers=1).save_pretrained(
                model
            )
            stored = store(make_batch(arguments.rows, arguments.tokens, arguments.group), arguments.rows)
            trainers = {case: trainer_of(model, overrides) for case, overrides in CASES.items()}
            steps = {case: lambda t=trainer: t._compute_advantage(stored, {}) for case, trainer in trainers.items()}
            if arguments.proposal:
                reference, compute = trainers["grpo_vectorized"], proposed()
                steps = {"as it is": steps["grpo_vectorized"], "proposed": lambda: compute(reference, stored, {})}
            seconds = interleaved(steps, arguments.repeats)
            watched_cases = [] if arguments.proposal else ["grpo_vectorized", "egsw"]
            parts = {case: parts_of(steps[case], arguments.repeats) for case in watched_cases}
    finally:
        tq.close()
        ray.shutdown()
    print(machine(), f"[{arguments.rows}, {arguments.tokens}]", sep="; ", end="\n\n")
    reference = next(iter(steps))
    result = ratios(seconds, reference)
    print(table(["", f"x {reference}"], [[case, f"{ratio:.2f}"] for case, ratio in result.items()]), end="\n\n")
    if not parts:
        return
    rows = [[name, *(f"{part[name]:.0f}" for part in parts.values())] for name in (*PARTS, REST)]
    print(table(["percent of the whole", *parts], rows))


if __name__ == "__main__":
    main()
