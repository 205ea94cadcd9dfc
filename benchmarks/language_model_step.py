"""What each measure of the SmolLM2 recipe gains: parts of a step, start-up and memory, each measure added to the last.

.venv/bin/python benchmarks/language_model_step.py [--steps 3]    # 12 minutes, idle machine, after the recipe ran once
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from timing import machine, table

ROOT = Path(__file__).parents[1]
LAUNCHER = ROOT / "recipes/reasoning_gym/run_smollm2_135m_cpu.sh"
ACTOR = "actor_rollout_ref.actor"
PADDED = "actor_rollout_ref.model.use_remove_padding=False"
ROWS_16 = (
    f"{ACTOR}.ppo_micro_batch_size_per_gpu=16",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=16",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16",
)
BLOCKS_128 = "actor_rollout_ref.rollout.engine_kwargs.vllm.block_size=128"
CASES = {
    "verl's engine, padded, 16 rows at a time": (PADDED, *ROWS_16, BLOCKS_128),
    "+ shared prompts, logits of responses alone": (*ROWS_16, BLOCKS_128),
    "+ 64 rows at a time": (BLOCKS_128,),
    "+ blocks of 32 tokens in vLLM: the recipe": (),
}
PARTS = {"gen": "generation", "old_log_prob": "old log-probabilities", "update_actor": "update", "step": "step"}


def run(overrides, steps, out):
    """Seconds of each part in each step, seconds from the command to the first step, GiB above what was in use."""
    settings = {"OUT": out, "STEPS": steps, "METHOD": "grpo", "LOGGER": "[file]"}
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    quiet = ("trainer.val_before_train=False", "trainer.test_freq=-1", "trainer.save_freq=-1")
    metrics, log = Path(out, "metrics.jsonl"), Path(f"{out}.log")
    available, start = psutil.virtual_memory().available, time.time()
    peak = first = 0.0
    with log.open("w") as file:
        command = ["timeout", "--kill-after=30", "1200", "bash", str(LAUNCHER), *quiet, *overrides]
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        while process.poll() is None:
            peak = max(peak, (available - psutil.virtual_memory().available) / 2**30)
            first = first or (time.time() if metrics.exists() and metrics.stat().st_size else 0.0)
            time.sleep(0.5)
    if process.returncode or not first:
        raise SystemExit(f"{log.read_text()[-4000:]}\nthe run failed: {' '.join(overrides)}")
    data = [json.loads(line)["data"] for line in metrics.read_text().splitlines()]
    seconds = {part: [step[f"timing_s/{part}"] for step in data if f"timing_s/{part}" in step] for part in PARTS}
    return seconds, first - start - seconds["step"][0], peak


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="of each run; the first is shown apart")
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)), help="numbers of the lines, from 0")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in arguments.cases:
            name, overrides = list(CASES.items())[number]
            seconds, start_up, memory = run(overrides, arguments.steps, f"{folder}/{number}")
            later = [f"{statistics.median(seconds[part][1:] or seconds[part]):.1f}" for part in PARTS]
            rows.append([name, *later, f"{seconds['step'][0]:.0f}", f"{start_up:.0f}", f"{memory:.1f}"])
    print(f"{os.cpu_count()} cores; {machine()}; {arguments.steps} steps of GRPO a run\n")
    parts = [f"{name}, s" for name in PARTS.values()]
    print(table(["median of a step after the first", *parts, "first step, s", "start-up, s", "memory, GiB"], rows))
