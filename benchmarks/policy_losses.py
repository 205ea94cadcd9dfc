"""Our policy losses beside verl's `vanilla`: forward and backward on one micro-batch, as ratios.

.venv/bin/python benchmarks/policy_losses.py [--rows 64 --tokens 4096 --device cuda]
"""

import argparse

import torch
import verl  # noqa: F401  (loads the plugin)
from timing import interleaved, machine, ratios, table
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import ActorConfig

from egsw_plugin.fields import Field, arriving
from egsw_plugin.methods import LOSSES
from egsw_plugin.options import encode

REFERENCE = "vanilla"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    shape = arguments.rows, arguments.tokens
    length = torch.randint(arguments.tokens // 8, arguments.tokens + 1, (arguments.rows, 1), generator=generator)
    mask = (torch.arange(arguments.tokens) < length).to(arguments.device)
    old, advantages, noise = (torch.randn(shape, generator=generator).to(arguments.device) for _ in range(3))
    log_prob = (old + 0.1 * noise).requires_grad_()
    config = ActorConfig(
        strategy="fsdp", rollout_n=8, ppo_micro_batch_size_per_gpu=1, clip_ratio_low=0.2, clip_ratio_high=0.28
    )
    config.global_batch_info.update(dp_size=1, batch_num_tokens=int(mask.sum()), global_batch_size=arguments.rows)

    def step(mode):
        compute, agg = get_policy_loss_fn(mode), "seq-mean-token-mean" if mode.startswith("grpo_s") else "token-mean"
        fields = {Field.WEIGHT: noise.abs()}
        if mode in LOSSES and (numbers := encode(LOSSES[mode].options_type())):
            fields[Field.LOSS_OPTIONS] = torch.tensor([numbers])

        def run():
            with arriving(fields):
                loss, _ = compute(old, log_prob, advantages, mask, loss_agg_mode=agg, config=config)
            log_prob.grad = None
            loss.backward()
            if log_prob.is_cuda:
                torch.cuda.synchronize()

        return run

    steps = {mode: step(mode) for mode in (REFERENCE, *LOSSES.own)}
    result = ratios(interleaved(steps, arguments.repeats), REFERENCE)
    print(machine(), f"{arguments.device}, [{arguments.rows}, {arguments.tokens}]", sep="; ", end="\n\n")
    print(table(["", f"x {REFERENCE}"], [[mode, f"{ratio:.2f}"] for mode, ratio in result.items()]))


if __name__ == "__main__":
    main()
