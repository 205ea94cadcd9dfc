"""Long contexts, large groups, images: the losses' weights reach the right tokens in each.

Sequence parallelism runs verl's own engine in two processes; micro-batches of a dynamic size are made by verl's own
functions, from rows with 16 k tokens, in each layout that verl has. Every token has a weight and an advantage of its
own, so that the gradient by its log-probability tells whose weight it met. Not exercised here: FlashAttention's
kernels, and a trainer with sequence parallelism.
"""

import math
import os
import subprocess
import sys

import pytest
import sequence_parallel
import torch
from sequence_parallel import MODES, PROMPTS, RESPONSES

TIME_LIMIT = 240  # seconds for a process of the engine, which takes about ten
LOW, HIGH = 0.15, 0.28  # of test_policy_loss.actor_config


# ------------------------------------------------------------------------------------------------------------- Ulysses


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """What verl's engine computed of one batch: in one process, and in both of two that share each sequence."""
    folder = tmp_path_factory.mktemp("engines")
    sequence_parallel.make(folder)
    for size in (1, 2):
        environment = os.environ | {"VERL_PLATFORM": "cpu", "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
        environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *sys.path])
        processes = []
        for rank in range(size):
            command = [sys.executable, sequence_parallel.__file__, str(folder), str(rank), str(size)]
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
        for other in two:
            gradient = other[mode]["tokens"][row].tolist()
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
