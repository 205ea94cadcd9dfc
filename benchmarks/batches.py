"""Batches as verl delivers them: rows of a group scattered, an int64 mask, one reward a response."""

import numpy as np
import torch

# Shortest and longest response as parts of the tokens; `short` leaves most of the padded batch empty.
LENGTHS = {"spread": (1 / 8, 1), "short": (1 / 64, 1 / 8), "full": (1, 1)}


def make_batch(rows, tokens, group, lengths="spread"):
    """token_level_rewards, response_mask, index and entropy (nats), as a dictionary."""
    generator = torch.Generator().manual_seed(0)
    least, most = (max(1, int(part * tokens)) for part in LENGTHS[lengths])
    length = torch.randint(least, most + 1, (rows, 1), generator=generator)
    length[0] = tokens  # a batch is as wide as its longest response
    mask = (torch.arange(tokens) < length).to(torch.int64)
    rewards = torch.zeros(rows, tokens)
    rewards.scatter_(1, length - 1, torch.randint(0, 2, (rows, 1), generator=generator).float())
    entropy = torch.rand(rows, tokens, generator=generator).mul_(mask)
    uids = np.array([f"prompt-{row // group}" for row in range(rows)], dtype=object)
    index = uids[torch.randperm(rows, generator=generator).numpy()]
    return {"token_level_rewards": rewards, "response_mask": mask, "index": index, "entropy": entropy}
