"""GTPO and GRPO-S (arXiv 2508.04349) in plain loops over Python floats, sharing no code with the package.

Tokens are keyed (row, column), responses by row; t counts policy tokens; a row without any is not a response.
"""

import math
from collections import defaultdict


def policy_tokens(mask):
    """For each row, the columns of its policy tokens in order."""
    return [[column for column, bit in enumerate(row) if bit] for row in mask]


def gtpo(
    entropy,
    mask,
    index,
    success,
    *,
    alpha1=1.0,
    alpha2=0.1,
    norm_set="all_with_zeros",
    norm_scope="batch",
    entropy_scope="group",
    failure="shaped",
    mean="arithmetic",
    entropy_clip=None,
    std="population",
    eps=1e-6,
    entropy_floor=1e-6,
    unmixed="drop",
    overlong=False,
    gamma1=0.75,
):
    """Advantage of every policy token, as a dictionary; 0.0 in a dropped group."""
    shaped = gtpo_shaped(
        entropy,
        mask,
        index,
        success,
        alpha1=alpha1,
        alpha2=alpha2,
        entropy_scope=entropy_scope,
        failure=failure,
        mean=mean,
        entropy_clip=entropy_clip,
        entropy_floor=entropy_floor,
        unmixed=unmixed,
        overlong=overlong,
        gamma1=gamma1,
    )
    row_of = {token: token[0] for token in shaped}
    normalized = normalize(shaped, row_of, index, success, norm_set, norm_scope, failure, std, eps)
    advantages = {}
    for row, columns in enumerate(policy_tokens(mask)):
        for column in columns:
            advantages[row, column] = normalized.get((row, column), 0.0)
    return advantages


def grpo_s(
    entropy,
    mask,
    index,
    success,
    *,
    beta1=1.0,
    beta2=0.1,
    norm_set="all_with_zeros",
    norm_scope="group",
    entropy_scope="group",
    failure="shaped",
    mean="arithmetic",
    entropy_clip=None,
    std="population",
    eps=1e-6,
    entropy_floor=1e-6,
    unmixed="drop",
    overlong=False,
    gamma1=0.75,
):
    """Advantage of every row, as a list; 0.0 in a dropped group and for a row that is not a response."""
    shaped = grpo_s_shaped(
        entropy,
        mask,
        index,
        success,
        beta1=beta1,
        beta2=beta2,
        entropy_scope=entropy_scope,
        failure=failure,
        mean=mean,
        entropy_clip=entropy_clip,
        entropy_floor=entropy_floor,
        unmixed=unmixed,
        overlong=overlong,
        gamma1=gamma1,
    )
    row_of = {row: row for row in shaped}
    normalized = normalize(shaped, row_of, index, success, norm_set, norm_scope, failure, std, eps)
    return [normalized.get(row, 0.0) for row in range(len(mask))]


def gtpo_shaped(
    entropy,
    mask,
    index,
    success,
    *,
    alpha1=1.0,
    alpha2=0.1,
    norm_set="all_with_zeros",
    norm_scope="batch",
    entropy_scope="group",
    failure="shaped",
    mean="arithmetic",
    entropy_clip=None,
    std="population",
    eps=1e-6,
    entropy_floor=1e-6,
    unmixed="drop",
    overlong=False,
    gamma1=0.75,
):
    """r+ (successes) or r- (failures) of every policy token of the kept groups, as a dictionary.

    norm_set, norm_scope, std and eps change nothing here: the signature is that of gtpo.
    """
    where = policy_tokens(mask)
    groups = kept_groups(where, index, success, unmixed)
    columns = defaultdict(dict)
    for group, rows in groups.items():
        for row in rows:
            for t, column in enumerate(where[row]):
                key = ("everyone" if entropy_scope == "batch" else group, bool(success[row]), t)
                columns[key][row, column] = usable(entropy[row][column], entropy_clip)
    penalties = length_penalties(where, groups, success, gamma1) if overlong else {}
    shaped = {}
    for (_, won, _), values in columns.items():
        for token, share in shares(values, won, mean, entropy_floor).items():
            shaped[token] = reward(share, won, alpha1, alpha2, failure) + penalties.get(token[0], 0.0)
    return dict(sorted(shaped.items()))


def grpo_s_shaped(
    entropy,
    mask,
    index,
    success,
    *,
    beta1=1.0,
    beta2=0.1,
    norm_set="all_with_zeros",
    norm_scope="group",
    entropy_scope="group",
    failure="shaped",
    mean="arithmetic",
    entropy_clip=None,
    std="population",
    eps=1e-6,
    entropy_floor=1e-6,
    unmixed="drop",
    overlong=False,
    gamma1=0.75,
):
    """r+ (successes) or r- (failures) of every response of the kept groups, as a dictionary keyed by row.

    norm_set, norm_scope, std and eps change nothing here: the signature is that of grpo_s.
    """
    where = policy_tokens(mask)
    groups = kept_groups(where, index, success, unmixed)
    sides = defaultdict(dict)
    for group, rows in groups.items():
        for row in rows:
            own = [usable(entropy[row][column], entropy_clip) for column in where[row]]
            key = ("everyone" if entropy_scope == "batch" else group, bool(success[row]))
            sides[key][row] = math.fsum(own) / len(own)
    penalties = length_penalties(where, groups, success, gamma1) if overlong else {}
    shaped = {}
    for (_, won), values in sides.items():
        for row, share in shares(values, won, mean, entropy_floor).items():
            shaped[row] = reward(share, won, beta1, beta2, failure) + penalties.get(row, 0.0)
    return dict(sorted(shaped.items()))


def kept_groups(where, index, success, unmixed):
    """Rows of each group that are responses, without the unmixed groups under "drop"."""
    if unmixed not in ("drop", "keep"):
        raise ValueError(f"unmixed={unmixed!r}")
    groups = defaultdict(list)
    for row, columns in enumerate(where):
        if columns:
            groups[index[row]].append(row)
    kept = {}
    for group, rows in groups.items():
        n = sum(1 for row in rows if success[row])
        m = len(rows) - n
        if unmixed == "keep" or (n > 0 and m > 0):
            kept[group] = rows
    return kept


def usable(value, entropy_clip):
    """A token's entropy as it enters the formulas: clamped, and never negative."""
    if entropy_clip is not None:
        low, high = entropy_clip
        value = min(max(value, low), high)
    return max(value, 0.0)


def shares(values, won, mean, floor):
    """Each member's part of its column times the column's number of members (1 when all are equal)."""
    count = len(values)
    if mean == "geometric":
        logs = {key: math.log(max(value, floor)) * (1 if won else -1) for key, value in values.items()}
        centre = math.fsum(logs.values()) / count
        return {key: math.exp(level - centre) for key, level in logs.items()}
    if mean != "arithmetic":
        raise ValueError(f"mean={mean!r}")
    if all(value <= floor for value in values.values()):
        return dict.fromkeys(values, 1.0)
    raw = dict(values) if won else {key: 1 / max(value, floor) for key, value in values.items()}
    total = math.fsum(raw.values())
    return {key: value / total * count for key, value in raw.items()}


def reward(share, won, base, bonus, failure):
    """r+ of a success, r- of a failure."""
    if won:
        return base + bonus * share
    return {"shaped": -base - bonus * share, "zero": 0.0, "unbased": -share}[failure]


def length_penalties(where, groups, success, gamma1):
    """GROP: what is added to r of each penalised row; the kind of a group follows its share of successes."""
    penalties = {}
    for rows in groups.values():
        length = {row: len(where[row]) for row in rows}
        right = [row for row in rows if success[row]]
        wrong = [row for row in rows if not success[row]]
        if len(right) / len(rows) >= gamma1:
            measured, punished = right, right
        elif len(wrong) / len(rows) >= gamma1:  # acc <= 1 - gamma1 without the rounding of 1 - gamma1
            continue
        else:
            measured, punished = rows, right if len(right) > len(wrong) else wrong
        lengths = [length[row] for row in measured]
        limit = max((min(lengths) + max(lengths)) / 2, sum(lengths) / len(lengths))
        for row in punished:
            if length[row] < limit:
                penalties[row] = 0.0
            elif length[row] < 2 * limit:
                penalties[row] = -(length[row] - limit) / (2 * limit)
            else:
                penalties[row] = -0.5
    return penalties


def normalize(shaped, row_of, index, success, norm_set, norm_scope, failure, std, eps):
    """(r - mean) / (std + eps) of each key, over the set that norm_set and norm_scope name."""
    if norm_set == "none":
        return dict(shaped)
    if failure == "zero":
        norm_set = "joint"
    scopes = defaultdict(list)
    for key in shaped:
        scopes["everyone" if norm_scope == "batch" else index[row_of[key]]].append(key)
    result = {}
    for keys in scopes.values():
        for won in (True, False):
            own = [key for key in keys if bool(success[row_of[key]]) == won]
            if not own:
                continue
            if norm_set == "joint":
                population = [shaped[key] for key in keys]
            elif norm_set == "own_set":
                population = [shaped[key] for key in own]
            elif norm_set == "all_with_zeros":
                population = [shaped[key] if bool(success[row_of[key]]) == won else 0.0 for key in keys]
            else:
                raise ValueError(f"norm_set={norm_set!r}")
            centre, scale = mean_and_std(population, std)
            for key in own:
                result[key] = (shaped[key] - centre) / (scale + eps) if scale + eps else 0.0
    return result


def mean_and_std(values, std):
    """Mean and standard deviation; equal values have their own value and exactly 0."""
    if std not in ("population", "sample"):
        raise ValueError(f"std={std!r}")
    if min(values) == max(values):
        return values[0], 0.0
    centre = math.fsum(values) / len(values)
    squares = math.fsum((value - centre) ** 2 for value in values)
    return centre, math.sqrt(squares / (len(values) - (1 if std == "sample" else 0)))


def advantage_at(advantages, row, column):
    """A token's advantage out of a dictionary keyed (row, column) or out of a list of rows."""
    return advantages[row, column] if isinstance(advantages, dict) else advantages[row][column]


def clipped_loss(ratio, advantage, low, high):
    """-min(w A, clip(w, 1 - low, 1 + high) A)."""
    clipped = min(max(ratio, 1 - low), 1 + high)
    return -min(ratio * advantage, clipped * advantage)


def token_objective_loss(log_prob, old_log_prob, advantages, mask, low, high):
    """Clipped loss of every policy token under its own ratio, as a dictionary; no dual clip."""
    losses = {}
    for row, columns in enumerate(policy_tokens(mask)):
        for column in columns:
            ratio = math.exp(log_prob[row][column] - old_log_prob[row][column])
            losses[row, column] = clipped_loss(ratio, advantage_at(advantages, row, column), low, high)
    return losses


def sequence_objective_loss(log_prob, old_log_prob, advantages, mask, low, high, ratio="arithmetic"):
    """Clipped loss of every policy token under its row's ratio, as a dictionary; no dual clip."""
    losses = {}
    for row, columns in enumerate(policy_tokens(mask)):
        if not columns:
            continue
        logs = [log_prob[row][column] - old_log_prob[row][column] for column in columns]
        if ratio == "arithmetic":
            whole = math.fsum(math.exp(value) for value in logs) / len(logs)
        elif ratio == "geometric":
            whole = math.exp(math.fsum(logs) / len(logs))
        else:
            raise ValueError(f"ratio={ratio!r}")
        for column in columns:
            losses[row, column] = clipped_loss(whole, advantage_at(advantages, row, column), low, high)
    return losses


def aggregate(losses, mask, mode):
    """One number out of the losses of the policy tokens; 0.0 for a batch without any."""
    rows = [[losses[row, column] for column in columns] for row, columns in enumerate(policy_tokens(mask)) if columns]
    if not rows:
        return 0.0
    if mode == "token-mean":
        return math.fsum(loss for row in rows for loss in row) / sum(len(row) for row in rows)
    if mode == "seq-mean-token-sum":
        return math.fsum(math.fsum(row) for row in rows) / len(rows)
    if mode == "seq-mean-token-mean":
        return math.fsum(math.fsum(row) / len(row) for row in rows) / len(rows)
    raise ValueError(f"mode={mode!r}")
