"""Random batches as verl's trainer delivers them: scattered groups, holes in the mask, padding rows, every length."""

import numpy as np
import torch


def random_batch(seed, prompts=5, responses=4, tokens=9, holes=True, padding_rows=2, emptied=True):
    """Rewards (0 or 1 at the last token), int64 mask, uids (object array) and entropy (nats), rows shuffled."""
    rng = np.random.default_rng(seed)
    uids, masks, rewards = [], [], []
    for prompt in range(prompts):
        for _ in range(responses):
            length = int(rng.integers(1, tokens + 1))
            mask = np.zeros(tokens, dtype=np.int64)
            mask[:length] = 1
            if holes and length > 2:
                mask[1 : length - 1] = rng.integers(0, 2, length - 2)
            reward = np.zeros(tokens)
            reward[length - 1] = float(rng.integers(0, 2))
            uids.append(f"prompt-{prompt}")
            masks.append(mask)
            rewards.append(reward)
    if emptied:
        masks[0][:] = 0
    for _ in range(padding_rows):
        uids.append("pad0")
        masks.append(np.zeros(tokens, dtype=np.int64))
        rewards.append(np.zeros(tokens))
    order = rng.permutation(len(uids))
    entropy = rng.gamma(1.0, 0.7, (len(uids), tokens))
    return (
        torch.tensor(np.array(rewards)[order], dtype=torch.float32),
        torch.tensor(np.array(masks)[order]),
        np.array(uids, dtype=object)[order],
        torch.tensor(entropy[order], dtype=torch.float32),
    )


def batch_of(base, mask, group_ids, success, outcome, **tensors):
    """A batch as members see it; base is None for a base."""
    from egsw_plugin.kernels.rows import Rows
    from egsw_plugin.methods.interface import Batch

    return Batch(base, None, Rows.measure(mask), group_ids, success, outcome, tensors)


def applied(name, batch, **options):
    """What a base or transform alone makes of a batch, without verl."""
    from egsw_plugin.methods import MEMBERS
    from egsw_plugin.methods.chain import apply, read

    section = MEMBERS[name].section.split(".")[1:]
    config = {section[-1]: options}
    return apply(read({"credit": config} if section[0] == "credit" else config, name), batch)
