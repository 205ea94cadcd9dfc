"""Time of the advantage step beside verl's own estimators, in one interleaved run: ratios, not seconds.

    .venv/bin/python benchmarks/advantage_step.py --rows 2048 --tokens 4096

Rows of a group are scattered and lengths spread, as verl delivers them; the mask is int64. The copy of one float32
tensor of the same shape shows what memory allows.
"""

import argparse
import statistics
import time

import numpy as np
import torch
import verl  # noqa: F401  (loads the plugin)
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from egsw_plugin.methods import METHODS

REFERENCE = "grpo_vectorized"


def make_batch(rows, tokens, group):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(tokens // 8, tokens + 1, (rows, 1), generator=generator)
    mask = (torch.arange(tokens) < lengths).to(torch.int64)
    rewards = torch.zeros(rows, tokens)
    rewards.scatter_(1, lengths - 1, torch.randint(0, 2, (rows, 1), generator=generator).float())
    entropy = torch.rand(rows, tokens, generator=generator) * mask
    uids = np.array([f"prompt-{row // group}" for row in range(rows)], dtype=object)
    return rewards, mask, uids[torch.randperm(rows, generator=generator).numpy()], entropy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rewards, mask, index, entropy = make_batch(arguments.rows, arguments.tokens, arguments.group)

    def estimator(name, **options):
        fn = get_adv_estimator_fn(name)
        kwargs = {"entropy": entropy, "config": {name: options}} if name in METHODS else {}
        return lambda: fn(token_level_rewards=rewards, response_mask=mask, index=index, **kwargs)

    cases = {
        "copy of one tensor": rewards.clone,
        "grpo": estimator("grpo"),
        REFERENCE: estimator(REFERENCE),
        "egsw step": estimator("egsw"),
        f"egsw step over {REFERENCE}": estimator("egsw", base=REFERENCE),
        f"egsw trajectory over {REFERENCE}": estimator("egsw", base=REFERENCE, granularity="trajectory"),
        "gtpo": estimator("gtpo"),
        "gtpo norm_set=own_set": estimator("gtpo", norm_set="own_set"),
        "gtpo entropy_scope=batch": estimator("gtpo", entropy_scope="batch"),
        "grpo_s": estimator("grpo_s"),
    }
    seconds = {name: [] for name in cases}
    for repeat in range(arguments.repeats + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    reference = statistics.median(seconds[REFERENCE])
    print(f"[{arguments.rows}, {arguments.tokens}], group {arguments.group}, {torch.get_num_threads()} threads")
    for name, times in seconds.items():
        print(f"{name:36} {statistics.median(times) / reference:6.2f} x {REFERENCE}")


if __name__ == "__main__":
    main()
