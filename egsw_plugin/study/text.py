"""What weights do to text: tables of a study's recorded steps, through the kernels and for every method alike."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..console import one_line
from ..markdown import table
from ..records.store import Record, read_records
from ..records.whatif import MEASURES, chain_of, measure, seen_as

# As rows of the tables: name, method, options.
SEEN: Sequence[tuple[str, str, Mapping[str, Any]]] = (
    ("grpo", "grpo", {}),
    ("egsw", "egsw", {}),
    ("egsw, alpha 0", "egsw", {"alpha": 0.0}),
    ("gtpo", "gtpo", {}),
    ("grpo_s", "grpo_s", {}),
    ("high_entropy", "high_entropy", {}),
    ("entropy_advantage", "entropy_advantage", {}),
)
STEPS = "steps"
LISTED = ("egsw", "gtpo")  # whose tokens are shown
OFTEN = 10  # times that a token must be there to be listed
EACH = 8  # tokens listed at each end
BEFORE, AFTER = 4, 2  # tokens around an example


def tables_beside(runs: Path) -> dict[str, str]:
    """Tables of recorded steps, chosen and put beside the folder `runs` by hand: those of `steps`, those of any
    `steps-NAME` with `-NAME` behind their names, and `recorded-steps` of all these folders."""
    tables: dict[str, str] = {}
    recorded: dict[str, Sequence[Record]] = {}
    for folder in sorted(filter(Path.is_dir, runs.parent.glob(f"{STEPS}*"))):
        name, records = folder.name.removeprefix(STEPS), read_records(folder)
        tables |= {f"{key}{name}": text for key, text in text_tables(records).items()}
        recorded[name.removeprefix("-") or records[0].about["algorithm"]["adv_estimator"]] = records
    return tables | ({"recorded-steps": steps_table(recorded)} if recorded else {})


def text_tables(records: Sequence[Record]) -> dict[str, str]:
    """`weights-on-text`, `weight-follows`, and `tokens-METHOD` for the methods of `LISTED`."""
    tables = {"weights-on-text": _weights(records)}  # first: it refuses records without an entropy
    tables["weight-follows"] = _follows(records)
    for name, method, options in SEEN:
        if name in LISTED:
            tables[f"tokens-{name}"] = tokens_table(method, options, records)
    return tables


def correlations(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Pearson's correlations of the policy tokens' weights with entropy, success, place and length of the response.

    With the entropy also over successes and over failures alone. NaN where either is the same for all tokens.

    Args:
        rows: responses as a record has them. Tokens whose weight is no number do not count.

    >>> row = {"policy": [True] * 3, "weight": [0.5, 1.0, 1.5], "entropy": [2.0, 1.0, 0.0], "success": True}
    >>> correlations([row])
    {'entropy': -1.0, 'in successes': -1.0, 'in failures': nan, 'success': nan, 'place': 1.0, 'length': nan}
    """
    found = []
    for row in rows:
        for place, (policy, weight) in enumerate(zip(row["policy"], row["weight"], strict=True)):
            if policy and math.isfinite(weight):
                entropy = math.nan if row["entropy"] is None else row["entropy"][place]
                found.append((weight, entropy, row["success"], place, len(row["weight"])))
    weight, entropy, success, place, length = np.asarray(found, float).reshape(-1, 5).T
    of_success = success == 1
    return {
        "entropy": _correlation(weight, entropy),
        "in successes": _correlation(weight[of_success], entropy[of_success]),
        "in failures": _correlation(weight[~of_success], entropy[~of_success]),
        "success": _correlation(weight, success),
        "place": _correlation(weight, place),
        "length": _correlation(weight, length),
    }


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 2:
        return math.nan
    a, b = (np.asarray(values, float) - np.mean(values) for values in (first, second))
    size = math.sqrt(float((a * a).sum() * (b * b).sum()))
    # What is constant up to rounding has no direction.
    flat = any(
        math.sqrt(float((x * x).mean())) <= 1e-6 * max(map(abs, values)) for x, values in ((a, first), (b, second))
    )
    return math.nan if flat or not size else round(float((a * b).sum()) / size, 12)


def _counting(record: Record) -> Sequence[Mapping[str, Any]]:
    """The responses that have an advantage: a group whose rewards are all the same teaches nothing."""
    return [row for row in record.rows if any(row["base"])]


def _weights(records: Sequence[Record]) -> str:
    lines = []
    keys = {
        "effective_share": ".2f",
        "weight_min": ".2f",
        "weight_max": ".2f",
        "entropy_shift": ".0f",
        "uncertain": ".0f",
    }
    for name, method, options in SEEN:
        measures = measure(chain_of(method, options), records)
        lines.append(
            [name, *("" if math.isnan(measures[key]) else f"{measures[key]:{form}}" for key, form in keys.items())]
        )
    head = ["method", *(MEASURES[key] for key in keys)]
    steps = ", ".join(str(record.step) for record in records)
    return f"{table(head, lines)}\n\nMeans over the recorded steps ({steps}); extremes over all.\n"


def _follows(records: Sequence[Record]) -> str:
    """What a token's weight goes with, where the weight is its advantage as a multiple of GRPO's."""
    lines = []
    for name, method, options in SEEN[1:]:  # GRPO's own is 1 everywhere
        chain = chain_of(method, options)
        each = [_counting(Record(seen_as(record, chain), record.about)) for record in records]
        means = [[_mean(_weights_of(rows, success)) for rows in each] for success in (True, False)]
        found = [correlations(rows) for rows in each]
        numbers = [_mean([one[key] for one in found]) for key in found[0]]
        shown = ["" if math.isnan(x) else f"{x:+.2f}" for x in numbers]
        lines.append([name, *(f"{_mean(one):.2f}" for one in means), *shown])
    head = ["method", "mean weight in successes", "in failures", "correlation with entropy", "in successes alone"]
    return table([*head, "in failures alone", "with success", "with place", "with length"], lines) + "\n"


def _weights_of(rows: Sequence[Mapping[str, Any]], success: bool) -> list[float]:
    return [
        w for row in rows if row["success"] == success for w, p in zip(row["weight"], row["policy"], strict=True) if p
    ]


def _mean(numbers: Sequence[float]) -> float:
    there = [number for number in numbers if not math.isnan(number)]
    return sum(there) / len(there) if there else math.nan


def steps_table(recorded: Mapping[str, Sequence[Record]]) -> str:
    """How successes and failures differ over the training of each run, by its name."""
    lines = []
    for run, record in ((run, record) for run, records in recorded.items() for record in records):
        entropies: dict[bool, list[float]] = {True: [], False: []}
        for row in record.rows:
            entropies[row["success"]] += [e for e, p in zip(row["entropy"], row["policy"], strict=True) if p]
        successes = [row["success"] for row in record.rows]
        lengths = [len(row["ids"]) for row in record.rows]
        shown = ["" if not values else f"{sum(values) / len(values):.2f}" for values in entropies.values()]
        rate, length = (sum(values) / len(values) for values in (successes, lengths))
        lines.append([run, record.step, f"{100 * rate:.0f}", *shown, f"{length:.1f}"])
    head = ["run", "step", "success (%)", "entropy of successes (nats)", "of failures", "length (tokens)"]
    return table(head, lines) + "\n"


def tokens_table(method: str, options: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The tokens that gain and lose most on average, each with the place where its weight is the furthest from 1."""
    chain = chain_of(method, options)
    places = defaultdict(list)
    for record in records:
        for row in _counting(Record(seen_as(record, chain), record.about)):
            for place, (token, policy, weight) in enumerate(
                zip(row["tokens"], row["policy"], row["weight"], strict=True)
            ):
                if policy and math.isfinite(weight):
                    places[token].append((weight, row, place))
    means = {token: (sum(w for w, *_ in all_) / len(all_), len(all_)) for token, all_ in places.items()}
    order = sorted((token for token, (_, count) in means.items() if count >= OFTEN), key=lambda t: (-means[t][0], t))
    lines = []
    for token in dict.fromkeys([*order[:EACH], *order[-EACH:]]):
        mean, count = means[token]
        extreme = max if mean > 1 else min
        weight, row, place = extreme(places[token], key=lambda found: found[0])
        around = [*row["tokens"][max(0, place - BEFORE) : place], None, *row["tokens"][place + 1 : place + 1 + AFTER]]
        example = "".join(f"[{token}]" if part is None else part for part in around)
        lines.append(
            [_code(token), f"{mean:.2f}", count, _code(example), f"{weight:.2f}", "yes" if row["success"] else "no"]
        )
    return table(["token", "mean weight", "times", "an extreme example", "its weight", "in a success"], lines) + "\n"


def _code(text: str) -> str:
    """Text as code; what a model writes must not end the code or the line."""
    shown = text.replace("\\", "\\\\").replace("`", "'")
    return f"`{one_line(shown)}`"
