"""The advantage step beside verl's own estimators: ratios, time per token, number of groups, memory.

    .venv/bin/python benchmarks/advantage_step.py [--rows 8192 --tokens 8192 --group 16 --lengths spread]

Without a size it measures all of docs/performance.md. Everything goes through verl's registry, metrics included, on one
thread, which is what Ray gives verl's driver; `--threads` is for others, and `--busy` for a machine whose cores another
process uses.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import verl  # noqa: F401  (loads the plugin)
from batches import LENGTHS, make_batch
from timing import interleaved, machine, ratios, table
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from egsw_plugin.methods import MEMBERS

REFERENCE = "grpo_vectorized"
CASES = {
    "grpo": ("grpo", {}),
    REFERENCE: (REFERENCE, {}),
    "egsw": ("egsw", {}),
    "egsw granularity=trajectory": ("egsw", {"granularity": "trajectory"}),
    "egsw scope=batch": ("egsw", {"scope": "batch"}),
    "egsw temperature=auto": ("egsw", {"temperature": "auto"}),
    "gtpo": ("gtpo", {}),
    "gtpo norm_set=own_set": ("gtpo", {"norm_set": "own_set"}),
    "gtpo norm_set=joint": ("gtpo", {"norm_set": "joint"}),
    "gtpo norm_set=none": ("gtpo", {"norm_set": "none"}),
    "gtpo entropy_scope=batch": ("gtpo", {"entropy_scope": "batch"}),
    "grpo_s": ("grpo_s", {}),
}
MAIN = ["grpo", REFERENCE, "egsw", "gtpo", "grpo_s"]
FLOOR = "floor: read mask, rewards and entropy, write the result"
# A matrix product on all cores, over and over, until this process ends.
BUSY = (
    "import os, torch\nparent = os.getppid()\ntorch.set_num_threads(os.cpu_count())\na = torch.randn(2048, 2048)\n"
    "while os.getppid() == parent: a @ a"
)


@contextlib.contextmanager
def busy():
    """Another process uses all cores meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def step_of(case, batch):
    """The call that verl makes, ready to be timed."""
    name, options = CASES[case]
    arguments = dict(batch)
    entropy = arguments.pop("entropy")
    if name in MEMBERS:
        arguments |= {"entropy": entropy, "config": {name: options}}
    compute = get_adv_estimator_fn(name)
    return lambda: compute(**arguments)


def floor_of(batch):
    """What no method can do without: read once what it needs, and write once, into fresh memory, what is not 0."""
    tensors = [batch[name].numpy() for name in ("response_mask", "token_level_rewards", "entropy")]
    lengths = batch["response_mask"].sum(1).tolist()

    def move():
        for tensor in tensors:
            tensor.sum()
        result = np.zeros(tensors[-1].shape, np.float32)
        for row, length in zip(result, lengths, strict=True):
            row[:length] = 1

    return move


def measure(cases, repeats, rows, tokens, group=16, lengths="spread"):
    """Ratios to the reference, and seconds a million tokens (padding included)."""
    batch = make_batch(rows, tokens, group, lengths)
    steps = {case: step_of(case, batch) for case in cases}
    steps[FLOOR] = floor_of(batch)
    seconds = interleaved(steps, repeats * (5 if rows * tokens < 1 << 24 else 1))  # a short call is disturbed more
    return ratios(seconds, REFERENCE), {
        case: statistics.median(times) / (rows * tokens / 1e6) for case, times in seconds.items()
    }


def memory_of(case, rows, tokens, group):
    """Peak memory above the inputs, in tensors of [rows, tokens] float32; measured in a process of its own."""
    command = [sys.executable, __file__, "--memory", case, "--rows", rows, "--tokens", tokens, "--group", group]
    return float(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def print_memory(case, rows, tokens, group):
    """Reset the peak of this process's memory, run the case once, and print how far it rose."""
    step_of(case, make_batch(64, 64, group))()  # whatever is loaded on first use
    step = step_of(case, make_batch(rows, tokens, group))
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step()
    print((_status("VmHWM") - before) * 1024 / (rows * tokens * 4))


def _status(key):
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


SHAPES = {
    "[512, 2048]": (512, 2048),
    "[2048, 4096]": (2048, 4096),
    "[8192, 8192]": (8192, 8192),
    "[8190, 8192], groups of 7": (8190, 8192, 7),
    "[8192, 8192], short": (8192, 8192, 16, "short"),
}


def compare(title, cases, shapes, repeats):
    """A table of ratios to the reference."""
    columns = [measure(cases, repeats, *shape)[0] for shape in shapes.values()]
    rows = [[case, *(f"{column[case]:.2f}" for column in columns)] for case in [*cases, FLOOR]]
    print(f"{title}, relative to `{REFERENCE}`\n\n{table(['', *shapes], rows)}\n", flush=True)


def report(repeats):
    """All tables of docs/performance.md."""
    three = dict(list(SHAPES.items())[:3])
    compare("One thread", CASES, SHAPES, repeats)
    with busy():
        compare("One thread, beside a process that multiplies matrices on all cores", MAIN, three, repeats)
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count())
    compare(f"{os.cpu_count()} threads", MAIN, three, repeats)
    torch.set_num_threads(threads)

    sizes = [(1024, 1024), (2048, 2048), (4096, 4096), (8192, 8192), (16384, 8192)]
    columns = [measure(MAIN, repeats, *size)[1] for size in sizes]
    rows = [[case, *(f"{column[case] / columns[3][case]:.2f}" for column in columns)] for case in MAIN]
    header = ["", *(f"{rows_ * tokens / 2**20:.0f} Mi tokens" for rows_, tokens in sizes)]
    print(f"Time a token relative to that at 64 Mi tokens\n\n{table(header, rows)}\n", flush=True)

    groups = [2, 4, 16, 64, 512, 4096]
    columns = [measure(MAIN, repeats, 4096, 4096, group)[0] for group in groups]
    rows = [[case, *(f"{column[case]:.2f}" for column in columns)] for case in MAIN]
    header = ["", *(f"{4096 // group} groups of {group}" for group in groups)]
    print(f"[4096, 4096], time relative to `{REFERENCE}`\n\n{table(header, rows)}\n", flush=True)

    rows = [[case, f"{memory_of(case, 8192, 8192, 16):.2f}"] for case in CASES]
    print(f"Memory above the inputs at [8192, 8192], in tensors of that shape (float32)\n\n{table(['', 'peak'], rows)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--lengths", choices=LENGTHS, default="spread")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch; verl's driver has one")
    parser.add_argument("--busy", action="store_true", help="while another process uses all cores")
    parser.add_argument("--memory", metavar="CASE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = arguments.rows, arguments.tokens, arguments.group
    if arguments.memory:
        print_memory(arguments.memory, *shape)
        return
    print(machine(), end="\n\n")
    if arguments.rows is None:
        report(arguments.repeats)
        return
    with busy() if arguments.busy else contextlib.nullcontext():
        result, _ = measure(CASES, arguments.repeats, *shape, arguments.lengths)
    print(table(["", f"x {REFERENCE}"], [[case, f"{ratio:.2f}"] for case, ratio in result.items()]))


if __name__ == "__main__":
    main()
