"""What other methods and options would have made of recorded groups: `egsw-plugin whatif`."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import markdown
from ..console import muted, say, warn_once
from ..errors import DataError, EGSWPluginError, MemberError, OptionError
from ..fields import Field
from ..kernels.egsw import LEAST, MOST
from ..kernels.groups import dense_group_ids
from ..kernels.rows import Rows
from ..methods import MEMBERS
from ..methods.chain import Chain, Result, apply, read
from ..methods.interface import Batch, Success
from ..methods.places import CHAIN
from ..report.curves import empty_figure
from .store import Record, read_records, weights_of

UNCERTAIN = 0.2  # part of the policy tokens
GRID = {"alpha": (0.0, 0.25, 0.5, 1.0, 2.0), "temperature": (1.0, 2.0, 3.0, 5.0, 10.0)}  # of egsw, where none is given
MEASURES = {
    "effective_share": "effective share",
    "weight_max": "weight, max",
    "weight_min": "weight, min",
    "entropy_shift": "of the credit moved by the entropy (%)",
    "sign_flip": "signs flipped (%)",
    "uncertain": f"of the credit on the {UNCERTAIN:.0%} most uncertain tokens (%)",
    "distance": "distance to the base",
}


def batch_of(record: Record) -> Batch:
    """The recorded groups as an advantage step has them; success is as the run judged it.

    Raises:
        DataError: a response has no policy or base, none has a token, or a session has several outputs.
    """
    seen: set[tuple[str, str]] = set()
    for row in record.rows:
        if row["session"] is not None and (one := (row["uid"], row["session"])) in seen:
            raise DataError(
                f"step {record.step}: session {one[1]} of {one[0]} has several outputs. A run counts them as one "
                "response, and records do not hold their order: only `inspect` without --method shows them"
            )
        seen.add((row["uid"], row["session"]))
    mask, base = record.tensor("policy"), record.tensor("base")
    if mask is None or base is None:
        raise DataError("a record has no policy or base of some response")
    if not mask.shape[1]:
        raise DataError(f"step {record.step} has no tokens")
    there = mask.bool()
    level = base.masked_fill(~there, -math.inf).amax(1)
    constant = bool((base.eq(level.unsqueeze(1)) | ~there).all())
    tensors = {"entropy": record.tensor("entropy"), "old_log_probs": record.tensor("old_log_prob")}
    base = level.masked_fill(~there.any(1), 0).unsqueeze(1) if constant else base
    return Batch(
        base=base,
        advantages=base,
        rows=Rows.measure(mask),
        group_ids=dense_group_ids([row["uid"] for row in record.rows]),
        judged=torch.tensor([row["success"] for row in record.rows]),
        outcome=torch.tensor([row["reward"] for row in record.rows], dtype=torch.float32),
        tensors={name: tensor for name, tensor in tensors.items() if tensor is not None},
    )


def chain_of(method: str, options: Mapping[str, Any] | None = None, ran: Mapping[str, Any] | None = None) -> Chain:
    """The chain that adv_estimator=`method` is, with these options of the member; "grpo" is the recorded base itself.

    An option of an option's own section is written with a dot, such as overlong.enable. `ran` is the `algorithm`
    section of a run: if its estimator is `method`, the options are its own where none are given.

    Raises:
        OptionError: no such method or option, or one that records have fixed.
    """
    options = dict(options or {})
    if options and method in ("grpo", CHAIN):
        given = " ".join(f"{key}={value}" for key, value in options.items())
        raise OptionError("--set", given, f"{method} has no options; say whose these are with --method")
    if method == "grpo":
        return Chain("grpo", "grpo")
    nested = _nested(options)
    algorithm = _section(method, nested) if options else {}
    if ran and ran.get("adv_estimator") == method:
        algorithm = _over(_without(_without_success(ran), method, nested), algorithm)
    chain = read(algorithm, method)
    if "base" in options:
        raise OptionError("--set", f"base={options['base']}", "the record's base is used; leave it out")
    if chain.success.field is not None:
        fix = "records hold no such field: success as the run judged it is used; leave it out"
        raise OptionError("--set", f"success={chain.success.field}", fix)
    return chain


def _section(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options where the algorithm section has those of the member that `method` names; one of a file has a name of its
    own. Without such a member nowhere: `read` says what is wrong with the method."""
    with suppress(KeyError, MemberError):
        *outer, name = MEMBERS[method].section.split(".")[1:]
        return {outer[0]: {name: options}} if outer else {name: options}
    return {}


def _without_success(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section without what names the field of success: records hold success as the run judged it."""
    judged = ("success", "threshold") if section.get("success") not in (None, "score") else ()
    inner = {key: value for key, value in section.items() if key not in judged}
    return {key: _without_success(value) if isinstance(value, Mapping) else value for key, value in inner.items()}


def _without(section: dict[str, Any], method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A section without the options of `method` that are given, in either of the two places where they may stand."""
    kept = {key: value for key, value in section.items() if key != method}
    if isinstance(own := section.get(method), Mapping):
        kept[method] = {key: value for key, value in own.items() if key not in given or isinstance(value, Mapping)}
    if isinstance(credit := section.get("credit"), Mapping):
        kept["credit"] = _without(dict(credit), method, given)
    return kept


def _over(section: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A section with what is given in the place of its own.

    >>> _over({"gtpo": {"alpha1": 1, "alpha2": 0.1}, "gamma": 1}, {"gtpo": {"alpha2": 0.3}})
    {'gtpo': {'alpha1': 1, 'alpha2': 0.3}, 'gamma': 1}
    """
    inner = {
        key: _over(section[key], value)
        for key, value in given.items()
        if isinstance(value, Mapping) and isinstance(section.get(key), Mapping)
    }
    return {**section, **given, **inner}


def method_that_ran(records: Sequence[Record]) -> str | None:
    """The estimator of the recorded run, if it is of this package or one that is registered with it."""
    name = records[0].about.get("algorithm", {}).get("adv_estimator")
    return name if isinstance(name, str) and (name == CHAIN or name in MEMBERS) else None


def ran_of(records: Sequence[Record]) -> Mapping[str, Any]:
    """The `algorithm` section of the recorded run; says what these records cannot show of a batch."""
    sections = [record.about.get("algorithm", {}) for record in records]
    if any(section != sections[0] for section in sections):
        warn_once(f"the run changed its algorithm section on the way; that of step {records[0].step} is taken for all")
    for record in records:
        there, of = len({row["uid"] for row in record.rows}), record.about.get("groups", 0)
        if there < of:
            warn_once(
                f"step {record.step} has {there} of its batch's {of} groups: what a method takes over the batch (the "
                "mean and deviation of GTPO's rewards, thresholds) is taken over these, and differs from the run's",
                key="groups missing",
            )
    return sections[0]


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with dots in their names as sections.

    >>> _nested({"alpha1": 1, "overlong.enable": True, "overlong.gamma1": 0.8})
    {'alpha1': 1, 'overlong': {'enable': True, 'gamma1': 0.8}}
    """
    nested: dict[str, Any] = {}
    for key, value in options.items():
        section, dot, name = key.partition(".")
        if not dot:
            nested[key] = value
        elif isinstance(inner := nested.setdefault(section, {}), dict):
            inner[name] = value
        else:
            raise OptionError("--set", f"{section}={inner}", f"{key} is set, too; leave one out")
    return nested


def measure(chain: Chain, records: Sequence[Record], names: Collection[str] = MEASURES) -> dict[str, float]:
    """These `MEASURES` of a chain on recorded groups: means over the records that have them, extremes over all.

    What a chain lacks (weights, an entropy) is NaN.
    """
    found = [_measure(chain, record, names) for record in records]
    reduce = {"weight_max": max, "weight_min": min}
    measures, without = {}, {}
    for name in names:
        there = [one[name] for one in found if not math.isnan(one[name])]
        measures[name] = reduce.get(name, _mean)(there) if there else math.nan
        if 0 < len(there) < len(found):
            without[name] = len(found) - len(there)
    for number in dict.fromkeys(without.values()):
        names = ", ".join(name for name, its in without.items() if its == number)
        warn_once(f"{chain.name}: {number} of {len(found)} steps have nothing to measure for {names}; the others count")
    return measures


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _apply(chain: Chain, record: Record) -> tuple[Batch, Result]:
    """The record as a batch, and what the chain makes of it."""
    batch = batch_of(record)
    for name in chain.tensors:
        if name not in batch.tensors:
            raise DataError(f"{chain.name} needs {name}, which these records do not have")
    if chain.success != Success():  # that of the score: `chain_of` refuses another field
        score = torch.tensor([row["score"] for row in record.rows], dtype=torch.float32)
        batch = dataclasses.replace(batch, judged=score > chain.success.threshold)
    result = apply(chain, batch)
    if unseen := ", ".join(field.value for field in result.fields if field is not Field.WEIGHT):
        warn_once(f"{chain.name} acts in the policy loss ({unseen}), which is not seen here")
    return batch, result


def _equal(chain: Chain, batch: Batch) -> torch.Tensor:
    """The credit [R, T] if all policy tokens had one entropy and one probability; NaN where the chain cannot say."""
    there = batch.rows.policy
    alike = {name: torch.full_like(tensor, float(tensor[there].mean())) for name, tensor in batch.tensors.items()}
    with muted():
        try:
            return _credit(apply(chain, dataclasses.replace(batch, tensors=alike)))
        except EGSWPluginError:
            return torch.full_like(batch.rows.mask, math.nan, dtype=torch.float32)


def _credit(result: Result) -> torch.Tensor:
    """Advantages, [R, T], times the weights that are published for the policy loss."""
    return result.advantages * result.fields.get(Field.WEIGHT, 1.0)


def seen_as(record: Record, chain: Chain) -> list[dict[str, Any]]:
    """The record's rows with the weights and advantages that the chain gives them, success as it judges, and in `part`
    how much of weight times advantage is the entropy's."""
    batch, result = _apply(chain, record)
    part = _credit(result) - _equal(chain, batch)
    published = result.fields.get(Field.WEIGHT)
    rows = []
    for number, row in enumerate(record.rows):
        length, shape = len(row["ids"]), batch.rows.mask.shape
        advantage = result.advantages[number, :length].tolist()
        weight = None if published is None else published.expand(shape)[number, :length].tolist()
        own = {"weight": weights_of(weight, row["base"], advantage), "advantage": advantage}
        own["part"] = part[number, :length].tolist()
        rows.append({**row, **own, "success": bool(batch.judged[number])})
    return rows


def _measure(chain: Chain, record: Record, names: Collection[str]) -> dict[str, float]:
    """`MEASURES` of one record, at least these; NaN where there is nothing to measure."""
    batch, result = _apply(chain, record)
    own = chain.links[-1].name if chain.links else ""
    metrics = {"effective_share": "effective_share/mean", "weight_max": "weight/max", "weight_min": "weight/min"}
    weights = {name: result.metrics.get(f"{own}/{metric}", math.nan) for name, metric in metrics.items()}
    if not chain.links:
        weights = dict.fromkeys(metrics, 1.0)
    if weights.keys() >= set(names):  # all that a search looks at
        return weights
    there = batch.rows.policy
    base = batch.base.expand(there.shape)[there].double()
    after, without = _credit(result)[there].double(), _equal(chain, batch)[there].double()
    credit = dict.fromkeys(("sign_flip", "distance", "uncertain", "entropy_shift"), math.nan)
    if bool(base.any()):
        credit["sign_flip"] = 100 * float((after * base < 0).double().mean())
        credit["distance"] = float((after - base).abs().sum() / base.abs().sum())
    if bool(after.any() | without.any()):
        larger = torch.maximum(after.abs().sum(), without.abs().sum())
        credit["entropy_shift"] = 100 * float((after - without).abs().sum() / larger)
    if (entropy := batch.tensors.get("entropy")) is not None and bool(after.any()):
        values = entropy[there]
        if bool(values.isfinite().all()):
            # Those at or above the quantile; `quantile` itself takes no more than 2^24 tokens.
            bound = values.kthvalue(1 + math.ceil((1 - UNCERTAIN) * (len(values) - 1))).values
            credit["uncertain"] = 100 * float(after[values >= bound].abs().sum() / after.abs().sum())
    return weights | credit


@dataclass(frozen=True)
class Line:
    """One line of the table: a method, its options, and its measures."""

    method: str
    options: Mapping[str, Any]
    measures: Mapping[str, float]


def grid(
    method: str,
    options: Mapping[str, Sequence[Any]],
    records: Sequence[Record],
    ran: Mapping[str, Any] | None = None,
) -> list[Line]:
    """A line for every combination of the options' values; `ran` is as of `chain_of`."""
    lines = []
    for values in itertools.product(*options.values()):
        chosen = dict(zip(options, values, strict=True))
        lines.append(Line(method, chosen, measure(chain_of(method, chosen, ran), records)))
    return lines


def search(
    method: str,
    options: Mapping[str, Sequence[Any]],
    share: float,
    records: Sequence[Record],
    ran: Mapping[str, Any] | None = None,
) -> list[Line]:
    """For every combination of the options' values, the temperature at which the effective share is `share`.

    It grows with the temperature, so the search halves an interval of its logarithm. Where the share is out of reach,
    the nearest end is given.
    """
    lines = []
    for values in itertools.product(*options.values()):
        chosen = dict(zip(options, values, strict=True))

        def at(logarithm: float, names: Collection[str] = MEASURES, chosen: Any = chosen) -> Line:
            with_it = chosen | {"temperature": float(f"{math.exp(logarithm):.6g}")}
            return Line(method, with_it, measure(chain_of(method, with_it, ran), records, names))

        low, high = math.log(LEAST), math.log(MOST)
        for _ in range(30):
            middle = (low + high) / 2
            reached = at(middle, ("effective_share",)).measures["effective_share"]
            low, high = (middle, high) if reached < share else (low, middle)
        lines.append(at(high))
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(_shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(lines: Iterable[Line]) -> str:
    """Markdown."""
    rows = []
    for line in lines:
        options = " ".join(f"{key}={_shown(value)}" for key, value in line.options.items())
        numbers = (line.measures[name] for name in MEASURES)
        rows.append([f"{line.method} {options}".strip(), *("" if math.isnan(x) else f"{x:.3g}" for x in numbers)])
    return markdown.table(["method", *MEASURES.values()], rows, "| --- |" + " ---: |" * len(MEASURES))


def write_csv(lines: Sequence[Line], path: Path) -> None:
    """All lines, with full precision."""
    keys = list(dict.fromkeys(key for line in lines for key in line.options))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", *keys, *MEASURES])
        for line in lines:
            writer.writerow([line.method, *(line.options.get(key, "") for key in keys), *line.measures.values()])


def heat_map(lines: Sequence[Line], name: str, path: Path) -> None:
    """A measure over the two options of a grid, as PNG."""
    first, second = lines[0].options
    rows, columns = (list(dict.fromkeys(line.options[key] for line in lines)) for key in (first, second))
    values = [[0.0] * len(columns) for _ in rows]
    for line in lines:
        values[rows.index(line.options[first])][columns.index(line.options[second])] = line.measures[name]
    figure = empty_figure(1.2 + 0.9 * len(columns), 1.2 + 0.6 * len(rows))
    axes = figure.subplots()
    axes.imshow(values, aspect="auto", cmap="cividis")
    axes.set_xticks(range(len(columns)), [_shown(x) for x in columns])
    axes.set_yticks(range(len(rows)), [_shown(y) for y in rows])
    axes.set(xlabel=second, ylabel=first, title=MEASURES[name])
    middle = (min(map(min, values)) + max(map(max, values))) / 2
    for (i, row), j in itertools.product(enumerate(values), range(len(columns))):
        axes.text(j, i, f"{row[j]:.3g}", ha="center", va="center", color="black" if row[j] > middle else "white")
    figure.savefig(path, dpi=150)


def run(
    place: Path,
    method: str | None = None,
    given: Sequence[str] = (),
    target: str | None = None,
    against: Sequence[str] = (),
    step: int | None = None,
    out: Path | None = None,
) -> list[Line]:
    """What the command does: prints a table, and returns its lines.

    Args:
        place: where records are, see `read_records`.
        method: as adv_estimator has it; None for that of the run, and egsw if it is not one of ours.
        given: its options as KEY=VALUE,VALUE; for egsw without any, `GRID`. Of the run's own method the others are
            those of the run; of another one, the defaults.
        target: effective_share=NUMBER, to search the temperature.
        against: other methods, at their defaults.
        step: of the one record to look at; None for all.
        out: a folder for whatif.csv, whatif.md and, of a grid of two options with effective shares, whatif.png.

    Raises:
        DataError: records that are not there, or not whole.
        OptionError: a method, option or target that is not there.
    """
    records = read_records(place, step)
    options, ran, its = options_of(given), ran_of(records), method_that_ran(records)
    method = method or its or "egsw"
    before = []
    if its is not None and its == method:
        chain, how = chain_of(its, None, ran), "as it ran"
        if chain.controlled:
            names = ", ".join(chain.controlled)
            warn_once(f"records do not hold what controllers made of {names}: they have their first value here")
            how = "as it began"
        before = [Line(f"{its}, {how}", {}, measure(chain, records))]
    if target is None:
        options = options or ({key: list(values) for key, values in GRID.items()} if method == "egsw" else {})
        lines = grid(method, options, records, ran) if options or not before else []
    else:
        if "temperature" in options:
            raise OptionError("--set", " ".join(given), "--target searches the temperature: leave it out")
        if not options and method == "egsw":
            options = {"alpha": list(GRID["alpha"])}
        lines = _reach(method, options, target, records, ran)
    others = [Line(other, {}, measure(chain_of(other), records)) for other in against]
    shown = [*before, *lines, *others]
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_csv(shown, out / "whatif.csv")
            (out / "whatif.md").write_text(table(shown) + "\n", encoding="utf-8")
            picture = out / "whatif.png"
            picture.unlink(missing_ok=True)  # one of an earlier table
            if len(options) == 2 and len(lines) > 1 and target is None:
                if any(math.isnan(line.measures["effective_share"]) for line in lines):
                    say(f"no {picture.name}: {method} has no effective share")
                else:
                    heat_map(lines, "effective_share", picture)
    finally:  # without matplotlib too
        print(table(shown))
    return shown


def _reach(
    method: str, options: dict[str, list[Any]], target: str, records: Sequence[Record], ran: Mapping[str, Any]
) -> list[Line]:
    name, _, text = target.partition("=")
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if name != "effective_share" or not 0 < share <= 1:
        fix = "write effective_share=NUMBER, above 0 and at most 1, which grows with the temperature"
        raise OptionError("--target", target, fix)
    try:
        chain_of(method, {"temperature": 1.0}, ran)
    except OptionError:
        raise OptionError("--target", target, f"{method} has no temperature to search") from None
    lines = search(method, options, share, records, ran)
    for line in lines:
        if not abs(line.measures[name] - share) <= 0.005:
            say(f"{target} is not reached; the nearest is {line.measures[name]:.3g}")
    return lines


def options_of(given: Sequence[str]) -> dict[str, list[Any]]:
    """Options as KEY=VALUE,VALUE, each with its values.

    Raises:
        OptionError: a text of another form, or an option that comes twice.
    """
    options: dict[str, list[Any]] = {}
    for text in given:
        key, values = values_of(text)
        if key in options:
            raise OptionError("--set", text, f"{key} comes twice; write {key}=VALUE,VALUE")
        options[key] = values
    return options


def values_of(text: str) -> tuple[str, list[Any]]:
    """An option and its values.

    >>> values_of("alpha=0,0.5"), values_of("entropy_clip=[0.2,0.28],null")
    (('alpha', [0, 0.5]), ('entropy_clip', [(0.2, 0.28), None]))
    """
    key, equals, rest = text.partition("=")
    if not (key and equals and rest):
        raise OptionError("--set", text, "write OPTION=VALUE,VALUE")
    return key, [_value(value) for value in re.split(r",(?![^\[]*\])", rest)]  # commas in brackets are a value's own


def _value(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return tuple(_value(part.strip()) for part in text[1:-1].split(","))
    try:
        return int(text) if re.fullmatch(r"[-+]?\d+", text, re.ASCII) else float(text)
    except ValueError:
        return {"true": True, "false": False, "null": None}.get(text.lower(), text)
