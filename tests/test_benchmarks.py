"""The commands of docs/performance.md run, on small tensors, and the memory that it promises. Times are never asserted.

Maps to benchmarks/. Not exercised: import_time.py and trainer_step.py, which start many processes.
"""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def test_advantage_step():
    output = run("advantage_step.py", "--rows", 64, "--tokens", 64, "--repeats", 1, "--lengths", "short")
    assert "| grpo_vectorized | 1.00 |" in output
    assert "| gtpo norm_set=own_set |" in output


def test_policy_losses():
    assert "| vanilla | 1.00 |" in run("policy_losses.py", "--rows", 4, "--tokens", 32, "--repeats", 1)


def test_the_check_on_an_accelerator(monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    output = run("gpu/check.py", "--device", "cpu", "--small")
    for part in ("| egsw | 0.0e+00 |", "| vanilla [4, 32] |", "| grpo_s_geometric |"):
        assert part in output


def test_memory_above_the_inputs():
    """At most one result and a quarter, of [rows, tokens] float32; less, as padding is never written.

    Of the three methods as they are, tests/test_scale.py asks it.
    """
    peak = run("advantage_step.py", "--memory", "egsw granularity=trajectory", "--rows", 4096, "--tokens", 8192)
    assert 0.5 < float(peak) < 1.25
