"""EGSW in plain loops over Python floats, written from the definition and sharing no code with the package.

A response is a list of (advantage, entropy) of its policy tokens in order; everything here is keyed (row, t).
"""

import math
from collections import defaultdict

from reference_shaping import policy_tokens


def egsw_weights(
    advantages,
    entropy,
    mask,
    index,
    alpha,
    temperature,
    granularity="step",
    scope="group",
    denominator="alive",
    normalize="mean_one",
):
    """Weight of every (row, column) that is a policy token, as a dictionary."""
    where = policy_tokens(mask)
    members = defaultdict(list)
    for row, columns in enumerate(where):
        if columns:
            members["everyone" if scope == "batch" else index[row]].append(row)
    weights = {}
    for rows in members.values():
        if granularity == "trajectory":
            logits = {}
            for row in rows:
                own = [advantages[row][column] for column in where[row]]
                level = own[0] if all(a == own[0] for a in own) else math.fsum(own) / len(own)
                mean_entropy = math.fsum(entropy[row][column] for column in where[row]) / len(own)
                logits[row] = (level + alpha * mean_entropy) / temperature
            softmax = normalized(logits, normalize)
            for row in rows:
                for column in where[row]:
                    weights[row, column] = softmax[row]
            continue
        for t in range(max(len(where[row]) for row in rows)):
            alive = [row for row in rows if t < len(where[row])]
            logits = {
                row: (advantages[row][where[row][t]] + alpha * entropy[row][where[row][t]]) / temperature
                for row in alive
            }
            if denominator == "all":
                for row in set(rows) - set(alive):
                    logits[row] = advantages[row][where[row][0]] / temperature
            softmax = normalized(logits, normalize)
            for row in alive:
                weights[row, where[row][t]] = softmax[row]
    return weights


def normalized(logits, normalize):
    """Softmax of a dictionary of logits, times their number under mean_one."""
    top = max(logits.values())
    raw = {key: math.exp(logit - top) for key, logit in logits.items()}
    total = math.fsum(raw.values())
    factor = len(raw) if normalize == "mean_one" else 1
    return {key: factor * value / total for key, value in raw.items()}


def effective_share(weights, mask, index, scope="group", granularity="step"):
    """Mean over columns of (sum w)^2 / sum w^2 / number alive."""
    where = policy_tokens(mask)
    columns = defaultdict(list)
    for row, places in enumerate(where):
        group = "everyone" if scope == "batch" else index[row]
        if granularity == "trajectory" and places:
            columns[group].append(weights[row, places[0]])
        elif granularity == "step":
            for t, column in enumerate(places):
                columns[group, t].append(weights[row, column])
    shares = [math.fsum(w) ** 2 / math.fsum(x * x for x in w) / len(w) for w in columns.values()]
    return math.fsum(shares) / len(shares)
