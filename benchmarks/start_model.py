"""How a model does on prompts before it is trained: what a recipe's or a study's tasks are chosen by.

. recipes/machine/cpu.sh    # without a GPU; give OMP_NUM_THREADS the cores again
.venv/bin/python benchmarks/start_model.py MODEL DATA.parquet... [--problems 24] [--responses 8] [--max-tokens 64]

The data is what `egsw-plugin data reasoning-gym` writes. The entropy is the mean of -log p of the sampled tokens, which
estimates it without bias at temperature 1.
"""

import argparse
import os

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

import pyarrow.parquet as pq
from timing import machine, table
from vllm import LLM, SamplingParams

from egsw_plugin.rewards.reasoning_gym import reasoning_gym


def rows(llm, file, problems, sampling):
    """One row a task of the file."""
    by_task = {}
    for row in pq.read_table(file).to_pylist():
        by_task.setdefault(row["data_source"], []).append(row)
    for task, entries in sorted(by_task.items()):
        entries = entries[:problems]
        outputs = llm.chat([entry["prompt"] for entry in entries], sampling, use_tqdm=False)
        marks = [
            [reasoning_gym(task, one.text, None, entry["extra_info"])["acc"] for one in output.outputs]
            for entry, output in zip(entries, outputs, strict=True)
        ]
        samples = [one for output in outputs for one in output.outputs]
        tokens = sum(len(one.token_ids) for one in samples)
        yield [
            f"{file}: {task.removeprefix('reasoning_gym/')}",
            f"{sum(map(sum, marks)) / len(samples):.3f}",
            f"{sum(0 < sum(group) < len(group) for group in marks) / len(marks):.2f}",
            f"{tokens / len(samples):.1f}",
            f"{sum(one.finish_reason == 'length' for one in samples) / len(samples):.2f}",
            f"{-sum(one.cumulative_logprob for one in samples) / tokens:.2f}",
            repr(samples[0].text),
        ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--problems", type=int, default=24, help="of each task")
    parser.add_argument("--responses", type=int, default=8, help="to each problem")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="float32", help="bfloat16 is slow on a processor without it")
    args = parser.parse_args()
    llm = LLM(args.model, dtype=args.dtype, block_size=32, max_model_len=1024, enforce_eager=True, seed=1)
    sampling = SamplingParams(n=args.responses, temperature=1.0, max_tokens=args.max_tokens, logprobs=0)
    heading = ["task", "success", "mixed groups", "tokens", "cut off", "entropy (nats)", "a response"]
    print(f"\n{machine()}; {args.responses} responses at temperature 1, at most {args.max_tokens} tokens\n")
    print(table(heading, []), flush=True)
    for file in args.data:
        for row in rows(llm, file, args.problems, sampling):
            print("| " + " | ".join(row) + " |", flush=True)
