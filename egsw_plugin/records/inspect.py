"""The page on which one sees what a method does to tokens: `egsw-plugin inspect`.

One file that fetches nothing. Texts come from models and are not trusted: they are data in the page, JSON in ASCII
without `<`, and the page's policy allows its own script and style by their hashes and nothing else.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..content_policy import content_policy
from ..errors import DataError, EGSWPluginError, OptionError
from ..methods.chain import Chain, read
from . import whatif
from .store import Record, read_records

SHARED = ("old_log_prob", "entropy", "base")  # what all methods see
COLUMNS = (*SHARED, "weight", "advantage", "part")  # the last is the entropy's of the credit
COLOURS = ("entropy", "weight", "part", "advantage", "change", "surprisal")
BINS, PLACES = 30, 40  # of histograms, and of the curves by place
FEW = 3  # responses whose mean says little
EXTREMES, BEFORE, AFTER = 12, 10, 6  # tokens listed at each end, and their context
# Black text can be read on each of them, and a colour-blind person can tell the ends apart.
LOW, MIDDLE, HIGH = (224, 130, 20), (250, 250, 250), (86, 146, 216)
CLASSES = 8  # steps of colour on each side, as page.js has them


def page(records: Sequence[Record], title: str, methods: Mapping[str, Chain] | None = None) -> str:
    """HTML of recorded steps: as they ran and, to be switched between, as methods, by their names, would have had them.

    Raises:
        DataError: the records lack a tensor that a chain needs.
    """
    vocabulary: dict[tuple[int, str], int] = {}
    steps = [_step(record, methods or {}, vocabulary) for record in records]
    special = {token for record in records for token in record.about.get("special_ids", ())}
    data = {
        "title": title,
        "steps": steps,
        "columns": COLUMNS,
        "vocabulary": [text for _, text in vocabulary],
        "ids": [token for token, _ in vocabulary],
        "special": [int(token in special) for token, _ in vocabulary],
    }
    style, script = _part("page.css") + _palette(), _part("page.js")
    parts = {
        "POLICY": content_policy(style, script),
        "STYLE": style,
        "DATA": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "SCRIPT": script,
    }
    head, *rest = _part("page.html").split("__")
    return head + "".join(parts[name] + text for name, text in zip(rest[::2], rest[1::2], strict=True))


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("page").joinpath(name).read_text(encoding="utf-8")


def _palette() -> str:
    """Rules for the classes s0 to s8 and d0 to d16."""

    def mix(first: Any, second: Any, part: Any) -> Any:
        return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(first, second, strict=True))

    up = [mix(MIDDLE, HIGH, i / CLASSES) for i in range(CLASSES + 1)]
    down = [mix(MIDDLE, LOW, i / CLASSES) for i in range(CLASSES, 0, -1)]
    rules = [f".s{i} {{ background: {colour}; }}" for i, colour in enumerate(up)]
    rules += [f".d{i} {{ background: {colour}; }}" for i, colour in enumerate(down + up)]
    return "\n".join(rules) + "\n"


# ---------------------------------------------------------------------------------------------------------------- steps


def _step(record: Record, methods: Mapping[str, Chain], vocabulary: dict) -> dict[str, Any]:
    """What the page knows of a step: its groups, best responses first, and what is drawn of all of them: as it ran, and
    then as each method has it. A colour ends where it ends for the method that goes farthest."""
    ran = _as_it_ran(record, beside=bool(methods))
    views = {_called(record, ran): ran} | {name: whatif.seen_as(record, chain) for name, chain in methods.items()}
    groups = {uid: _best_first(record.rows, uid) for uid in dict.fromkeys(row["uid"] for row in record.rows)}
    places = [(g, r, record.rows[n]) for g, group in enumerate(groups.values()) for r, n in enumerate(group)]
    tokens = {name: _Tokens([rows[n] for group in groups.values() for n in group]) for name, rows in views.items()}
    limits = {name: [one.limit(name) for one in tokens.values() if name in one.of] for name in COLOURS}
    return {
        "number": record.step,
        "method": _described(record),
        "limits": {name: max((x for x in its if x is not None), default=None) for name, its in limits.items()},
        "views": [{"name": name, **_view(one, places)} for name, one in tokens.items()],
        "groups": [
            {
                "uid": uid,
                "prompt": (prompt := record.rows[group[0]]["prompt"]),
                "responses": [_response([rows[n] for rows in views.values()], prompt, vocabulary) for n in group],
            }
            for uid, group in groups.items()
        ],
    }


def _view(tokens: _Tokens, places: Sequence[tuple[int, int, Mapping[str, Any]]]) -> dict[str, Any]:
    """What is drawn of a step as one method has it."""
    drawn = [name for name in ("entropy", "weight") if name in tokens.of]
    return {
        "colours": [name for name in COLOURS if name in tokens.of],
        "histograms": [tokens.histogram(name) for name in drawn],
        "courses": [tokens.course(name) for name in reversed(drawn)],
        "extremes": list(_extremes(tokens, places)),
    }


def _called(record: Record, ran: Sequence[Mapping[str, Any]]) -> str:
    """The name of what was recorded: that of its method alone where its advantages do not come out again."""
    again = all(row["part"] is not None for row in ran)
    return "as it ran" if again else f"as {record.about.get('algorithm', {}).get('adv_estimator', '?')}"


def _described(record: Record) -> str:
    """Estimator and its options, as the run had them; the estimator alone where this process does not know it."""
    algorithm = record.about.get("algorithm", {})
    text = f"adv_estimator={algorithm.get('adv_estimator', '?')}"
    with suppress(EGSWPluginError):
        if name := whatif.method_that_ran([record]):
            for link in read(algorithm, name).links:
                text += f" · {'' if link.name == name else link.name + ' '}{link.options.describe()}"
    return text


def _as_it_ran(record: Record, beside: bool) -> Sequence[Mapping[str, Any]]:
    """The record's rows, with how much of the credit is the entropy's where its advantages can be made again: a record
    may lack groups of a batch that is normalised as one, a member, or the values of controllers. Of an estimator of
    verl's, whose advantages are the base, that is 0, and weights are 1: to be seen beside other methods alone."""
    rows = [{**row, "part": None} for row in record.rows]
    with suppress(EGSWPluginError):
        if name := whatif.method_that_ran([record]) or ("grpo" if beside else None):
            again = whatif.seen_as(record, whatif.chain_of(name, None, record.about.get("algorithm")))
            if all(_alike(row, own) for row, own in zip(rows, again, strict=True)):
                for row, own in zip(rows, again, strict=True):
                    row |= {"part": own["part"], "weight": row["weight"] or own["weight"]}
    return rows


def _alike(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Advantages up to rounding, and weights, which may be published instead, up to that of a quotient."""
    bounds = {"advantage": 1e-5, "weight": 1e-3}
    return all(
        np.allclose(row[name], other[name], rtol=1e-3, atol=bound, equal_nan=True)
        for name, bound in bounds.items()
        if row[name] is not None
    )


def _best_first(rows: Sequence[Mapping[str, Any]], uid: str) -> list[int]:
    """Numbers of a group's rows."""
    return sorted((n for n, row in enumerate(rows) if row["uid"] == uid), key=lambda n: -rows[n]["reward"])


def _response(views: Sequence[Mapping[str, Any]], prompt: str, vocabulary: dict) -> dict[str, Any]:
    """One response, and what is each method's own in `views`; numbers as the page unpacks them, float32 in base64. Its
    prompt, if it is another than the group's: outputs of one session have their own."""
    row = views[0]
    tokens = [vocabulary.setdefault(pair, len(vocabulary)) for pair in zip(row["ids"], row["tokens"], strict=True)]

    def packed(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
        return {name: None if row[name] is None else _packed(row[name], np.float32) for name in columns}

    return {
        "reward": row["reward"],
        "prompt": None if row["prompt"] == prompt else row["prompt"],
        "length": len(tokens),
        "tokens": _packed(tokens, np.uint32),
        "policy": _packed(row["policy"], np.uint8),
        **packed(row, SHARED),
        "views": [{"success": one["success"], **packed(one, COLUMNS[len(SHARED) :])} for one in views],
    }


def _packed(numbers: Sequence[Any], dtype: type) -> str:
    """In base64; one number where all are the same, as in a response that GRPO gives one advantage."""
    array = np.asarray(numbers, np.dtype(dtype).newbyteorder("<"))
    return base64.b64encode((array[:1] if len(array) and (array == array[0]).all() else array).tobytes()).decode()


class _Tokens:
    """All policy tokens of a step, response after response.

    of: columns, and change (advantage less base) and surprisal (-log-probability), [N]. place: number among the
    response's policy tokens. position: among all its tokens. response: its number. success.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        own = [np.flatnonzero(row["policy"]) for row in rows]
        self.position = np.concatenate(own)
        self.place = np.concatenate([np.arange(len(positions)) for positions in own])
        self.response = np.repeat(np.arange(len(rows)), list(map(len, own)))
        self.success = np.array([row["success"] for row in rows], bool)[self.response]
        self.of: dict[str, np.ndarray] = {}
        for name in COLUMNS:
            if all(row[name] is not None for row in rows):
                parts = [np.asarray(row[name], float)[p] for row, p in zip(rows, own, strict=True)]
                self.of[name] = np.concatenate(parts)
        self.of["change"] = self.of["advantage"] - self.of["base"]
        if "old_log_prob" in self.of:
            self.of["surprisal"] = -self.of["old_log_prob"]

    def limit(self, name: str) -> float | None:
        """Where the colour ends: what 1 % of those that differ from the middle are beyond; 0 where none does, and None
        where there is no number."""
        values = self.of[name][np.isfinite(self.of[name])]
        if not len(values) and len(self.of[name]):
            return None
        far = np.abs(np.log(values[values > 0]) if name == "weight" else values)
        far = far[far > 1e-9]
        if len(far):
            return float(np.quantile(far, 0.99))
        # Where weights are 0 and 1 alone, their logarithms name no end.
        return math.log(2) if name == "weight" and (values <= 0).any() else 0.0

    def histogram(self, name: str) -> dict[str, Any]:
        """Parts of the tokens of successes, and of failures, in bins; those beyond the last are in it."""
        values = self.of[name]
        there = np.isfinite(values)
        most = float(np.quantile(values[there], 0.995)) if there.any() else 0.0
        edges = np.linspace(min(0.0, float(values[there].min(initial=0.0))), most or 1.0, BINS + 1)
        parts = {}
        for outcome, which in (("success", self.success), ("failure", ~self.success)):
            own = values[there & which].clip(edges[0], edges[-1])
            parts[outcome] = (np.histogram(own, edges)[0] / max(len(own), 1)).tolist()
        return {"title": name, "unit": " nats" if name == "entropy" else "", "edges": edges.tolist(), **parts}

    def course(self, name: str) -> dict[str, Any]:
        """Means by place in the response, of successes and of failures; None where no token is. few: which are of fewer
        than `FEW` responses."""
        values = self.of[name]
        longest = int(self.place.max(initial=0)) + 1
        bins = min(PLACES, longest)
        edges = np.linspace(0, longest, bins + 1)
        where = np.clip(np.searchsorted(edges, self.place, "right") - 1, 0, bins - 1)
        means, few = {}, {}
        for outcome, which in (("success", self.success), ("failure", ~self.success)):
            own = which & np.isfinite(values)
            number = np.bincount(where[own], minlength=bins)
            total = np.bincount(where[own], values[own], bins)
            means[outcome] = [float(t / n) if n else None for t, n in zip(total, number, strict=True)]
            there = np.unique(np.stack([where[own], self.response[own]]), axis=1)[0]
            few[outcome] = (np.bincount(there, minlength=bins) < FEW).tolist()
        return {"title": name, "edges": edges.tolist(), "few": few, **means}


def _extremes(tokens: _Tokens, places: Sequence[tuple[int, int, Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The tokens whose advantage the entropy raises and lowers most; if that is not known, those of the largest and of
    the smallest weights; without weights that differ, of the largest entropies."""
    differing = [name for name in ("part", "weight") if name in tokens.of and (tokens.limit(name) or 0) > 0]
    name = differing[0] if differing else "entropy"
    if name not in tokens.of:
        return
    values = tokens.of[name]
    there = np.flatnonzero(np.isfinite(values))
    order = there[np.argsort(values[there], kind="stable")]
    titles = {"part": ["Raised most by the entropy", "Lowered most by the entropy"]}
    titles |= {"weight": ["Largest weight", "Smallest weight"], "entropy": ["Largest entropy"]}
    ends = zip(titles[name], (order[::-1], order), strict=False)
    for title, end in ends:
        listed = []
        for n in end[:EXTREMES]:
            group, response, row = places[tokens.response[n]]
            i, texts = int(tokens.position[n]), row["tokens"]
            listed.append(
                {
                    "value": float(values[n]),
                    "group": group,
                    "response": response,
                    "token": i,
                    "before": "".join(texts[max(0, i - BEFORE) : i]),
                    "own": texts[i],
                    "after": "".join(texts[i + 1 : i + 1 + AFTER]),
                }
            )
        yield {"title": title, "tokens": listed}


# -------------------------------------------------------------------------------------------------------------- command


def run(
    place: Path,
    out: Path | None = None,
    methods: Sequence[str] = (),
    given: Sequence[str] = (),
    step: int | None = None,
    say: Callable[[str], Any] = print,
) -> Path:
    """Write the page; returns its path.

    Args:
        place: where records are, see `read_records`.
        out: the page (default: inspect.html in that folder, or beside that file; of methods inspect-NAME-NAME.html).
        methods, given: as which methods would have it, too, and their options, see `_chains`.
        step: of the one record to show; None for all.

    Raises:
        DataError: records that are not there, or not whole.
        OptionError: a method or option that is not there.
        OSError: the page cannot be written.
    """
    records = read_records(place, step)
    text = page(records, place.resolve().name, _chains(records, methods, given))
    others = re.sub(r"[^\w.-]+", "-", "-".join(["", *methods]))
    out = out or (place if place.is_dir() else place.parent) / f"inspect{others}.html"
    if out.is_dir():
        raise DataError(f"--out {out} is a folder; name a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    say(f"{out}: {len(records)} steps, {len(text) / 2**20:.1f} MiB")
    return out


def _chains(records: Sequence[Record], methods: Sequence[str], given: Sequence[str]) -> dict[str, Chain]:
    """The chains of methods, by what they are called on the page.

    given: METHOD.KEY=VALUE, or KEY=VALUE of the only method. What is not given of the run's own method is as it ran.
    """
    asked: dict[str, list[str]] = {}
    for method in methods:
        if method in asked:
            raise OptionError("--method", method, "it comes twice; leave one out")
        asked[method] = []
    for text in given:
        whose = next((m for m in methods if text.startswith(f"{m}.")), methods[0] if len(methods) == 1 else None)
        if whose is None:
            several = f"write METHOD.OPTION=VALUE, with one of {', '.join(methods)}"
            raise OptionError("--set", text, several if methods else "say whose these options are, with --method")
        asked[whose].append(text.removeprefix(f"{whose}."))
    ran = whatif.ran_of(records) if methods else None
    return {" ".join([m, *texts]): whatif.chain_of(m, _single(texts), ran) for m, texts in asked.items()}


def _single(given: Sequence[str]) -> dict[str, Any]:
    """Options of one value each."""
    options = {}
    for key, values in whatif.options_of(given).items():
        if len(values) != 1:
            text = f"{key}={','.join(map(str, values))}"
            raise OptionError("--set", text, "the page shows one value; `egsw-plugin whatif` compares several")
        options[key] = values[0]
    return options
