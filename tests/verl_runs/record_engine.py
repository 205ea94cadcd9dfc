"""Loaded by verl in every process of a run (VERL_USE_EXTERNAL_MODULES): saves what the CPU engine first computed.

Writes the rows of the first micro-batch, its log-probabilities and entropies to $RECORD_ENGINE.
"""

import os
from pathlib import Path

import torch

from egsw_plugin.cpu import shared_prompts

_of, _compute = shared_prompts.Layout.of, shared_prompts.log_probs_and_entropy
_seen = {}


def of(rows, positions, prompt_lengths):
    _seen.update(rows=[row.clone() for row in rows], prompt_lengths=list(prompt_lengths))
    return _of(rows, positions, prompt_lengths)


def compute(*arguments):
    log_probs, entropy = _compute(*arguments)
    if not (path := Path(os.environ["RECORD_ENGINE"])).exists():
        torch.save({**_seen, "log_probs": log_probs.detach(), "entropy": entropy.detach()}, path)
    return log_probs, entropy


shared_prompts.Layout.of, shared_prompts.log_probs_and_entropy = staticmethod(of), compute
