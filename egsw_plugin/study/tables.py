"""The tables of a study, as Markdown, from its records alone: the same records give the same bytes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from math import inf, isfinite
from statistics import fmean

from ..markdown import table
from ..report.summary import format_seconds
from .compare import LEAST_TESTED, RESAMPLES, Difference, coverage, holm, paired
from .grid import Experiment, Grid
from .measures import BEHAVIOUR, COST, FINAL, LAST, MEAN, TRAINING, Measure, measure_of_steps_to, start_success
from .record import FinishedRun, by_cell

SUCCESS = (FINAL, MEAN, TRAINING)
LEVELS = (0.4, 0.5)
SIGNIFICANT = 0.05
_DIGEST = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")


def tables(grid: Grid, records: list[FinishedRun]) -> dict[str, str]:
    """Every table by its name: for each experiment `EXPERIMENT-results`, `-differences`, `-behaviour` and `-cost`,
    and for the whole study `controls`, `settings` and `runs`."""
    cells = by_cell(records)
    start = start_success(records)
    made = {}
    for experiment in experiments_of(grid, records):
        present = cells_of(experiment, records)
        if not present:
            continue
        shared = _of_shared_seeds(present)
        made[f"{experiment.name}-results"] = _results(shared, start)
        made[f"{experiment.name}-differences"] = _differences(
            f"cell minus {experiment.baseline}",
            _beside_baseline(experiment, present),
            start,
            comparisons=sum(name != experiment.baseline for name in experiment.cells),
        )
        made[f"{experiment.name}-behaviour"] = _measures(shared, BEHAVIOUR)
        made[f"{experiment.name}-cost"] = _measures(shared, COST)
    pairs = {
        f"{name} minus {cell.control}": (cells[name], cells[cell.control])
        for name, cell in grid.cells.items()
        if cell.control and cells[name] and cells[cell.control]
    }
    if pairs:
        made["controls"] = _differences(
            "cell minus its control", pairs, start, comparisons=sum(bool(cell.control) for cell in grid.cells.values())
        )
    if records:
        made["settings"] = _settings({name: cells[name] for name in grid.cells}, grid.baseline)
        made["runs"] = _runs(records)
    return made


def experiments_of(grid: Grid, records: list[FinishedRun]) -> list[Experiment]:
    """Those of the grid, and `others` for the cells that have runs and belong to none."""
    experiments = list(grid.experiments.values())
    placed = {name for experiment in experiments for name in experiment.cells}
    others = tuple(sorted({record.cell for record in records} - placed))
    return experiments + ([Experiment("others", (1,), others, grid.baseline)] if others else [])


def cells_of(experiment: Experiment, records: list[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """The records of each of its cells that has any: of all seeds, unless the experiment lists its own."""
    cells = by_cell([r for r in records if not experiment.listed or r.seed in experiment.seeds])
    return {name: cells[name] for name in experiment.cells if cells[name]}


def differences(experiment: Experiment, records: list[FinishedRun], measure: Measure) -> dict[str, Difference]:
    """Of each cell of an experiment to its baseline."""
    pairs = _beside_baseline(experiment, cells_of(experiment, records))
    found = {name: paired(*pair, measure.of) for name, pair in pairs.items()}
    return {name: difference for name, difference in found.items() if difference}


def _beside_baseline(
    experiment: Experiment, cells: dict[str, list[FinishedRun]]
) -> dict[str, tuple[list[FinishedRun], list[FinishedRun]]]:
    """The records of each cell, and those of the baseline."""
    baseline = cells.get(experiment.baseline, [])
    return {name: (members, baseline) for name, members in cells.items() if name != experiment.baseline}


def _of_shared_seeds(cells: dict[str, list[FinishedRun]]) -> dict[str, list[FinishedRun]]:
    """The records of the seeds that all cells have, since seeds differ by more than cells; all of them if none is."""
    shared = set.intersection(*({record.seed for record in records} for records in cells.values()))
    return {
        name: [record for record in records if record.seed in shared] if shared else records
        for name, records in cells.items()
    }


def _results(cells: dict[str, list[FinishedRun]], start: float | None) -> str:
    levels = [(level, measure_of_steps_to(level, start)) for level in LEVELS]
    rows = []
    for name, records in cells.items():
        row = [name, len(records)]
        row += [_spread([m.of(record) for record in records], m) for m in SUCCESS]
        for _, measure in levels:
            steps = [measure.of(record) for record in records]
            reached = [step for step in steps if step is not None]
            least = fmean(record.steps if step is None else step for record, step in zip(records, steps, strict=True))
            mark = "" if len(reached) == len(steps) else "> "
            row.append(f"{mark}{least:{measure.form}} ({len(reached)} of {len(steps)})")
        rows.append(row)
    titles = ["cell", "seeds", *(m.title for m in SUCCESS), *(measure.title for _, measure in levels)]
    legend = (
        "Mean over seeds [minimum to maximum]. Steps to a level: mean (how many runs reached it), on a straight line "
        "between validations; a run that did not reach it counts with its last step, so the true mean is larger (>)"
    )
    legend += f". The start model succeeds at {start:.1%} on the training prompts." if start is not None else "."
    seeds = sorted(record.seed for record in next(iter(cells.values())))
    legend += _apart(cells) or f" Seeds: {', '.join(map(str, seeds))}, those that all these cells have."
    return f"{table(titles, rows)}\n\n{legend}\n"


def _apart(cells: dict[str, list[FinishedRun]]) -> str:
    """What to say of cells that were not run with the same seeds; nothing of those that were."""
    seeds = {frozenset(record.seed for record in records) for records in cells.values()}
    return " The cells have no seed in common: these means do not compare." if len(seeds) > 1 else ""


def _differences(
    title: str, pairs: dict[str, tuple[list[FinishedRun], list[FinishedRun]]], start: float | None, comparisons: int
) -> str:
    """Of each label's first records to its second ones; `comparisons` are planned, those without runs among them."""
    steps = measure_of_steps_to(LEVELS[0], start)
    columns = [(m, m.of, "seeds higher") for m in SUCCESS] + [(steps, _or_never(steps.of), "seeds later")]
    rows: dict[str, list] = {label: [label] for label in pairs}
    seeds, widths, never = set(), [], ""
    for measure, of, _ in columns:
        found = {label: paired(*pair, of) for label, pair in pairs.items()}
        p_values = {label: d.p_value for label, d in found.items() if d is not None}
        corrected = holm({label: p for label, p in p_values.items() if p is not None}, comparisons)
        for label, difference in found.items():
            if difference is None:
                rows[label] += ["", ""]
                continue
            seeds.add(len(difference.values))
            star = "*" if corrected.get(label, 1.0) < SIGNIFICANT else ""
            rows[label].append(_difference(difference, measure) + star)
            rows[label].append(f"{difference.higher} of {len(difference.values)}")
            if not isfinite(difference.mean):
                never = " Steps have no mean where a run did not reach the level; it counts as later than one that did."
        half = [measure.scale * d.half_width for d in found.values() if d is not None and d.half_width is not None]
        if half:
            ends = dict.fromkeys(f"±{end:{measure.form}}" for end in (min(half), max(half)))
            widths.append(f"{measure.title} {' to '.join(ends)}")
    if not seeds:
        return "No cell has a seed in common with what it is compared to.\n"
    titles = [title] + [text for measure, _, count in columns for text in (measure.title, count)]
    legend = (
        "Mean of the differences seed by seed, of success in percentage points [95 % percentile bootstrap over seeds, "
        f"{RESAMPLES} resamples]. * p < {SIGNIFICANT} in a paired t-test, after Holm's correction for the cells of the "
        "column."
    )
    if min(seeds) < LEAST_TESTED:
        legend += f" With fewer than {LEAST_TESTED} seeds nothing is tested, so a missing star means nothing."
    if cover := ", ".join(f"{coverage(n):.0%} with {n} seeds" for n in sorted(seeds) if n > 1):
        legend += f" The interval alone is too narrow: it holds the true mean of normal differences in {cover}."
    if widths:
        legend += f" The t-test's own 95 % intervals: {', '.join(widths)}."
    return f"{table(titles, list(rows.values()))}\n\n{legend}{never}\n"


def _or_never(measure: Callable[[FinishedRun], float | None]) -> Callable[[FinishedRun], float]:
    """A run that did not reach a level is later than any that did. Left out, it could turn the sign of the mean."""

    def value(record: FinishedRun) -> float:
        step = measure(record)
        return inf if step is None else step

    return value


def _settings(cells: dict[str, list[FinishedRun]], baseline: str) -> str:
    """What verl was told otherwise than for the baseline, from the configurations that the runs had."""
    if not cells[baseline]:
        return f"There is no run of {baseline}.\n"
    reference = cells[baseline][0].configuration
    rows = []
    for name, records in cells.items():
        if not records or name == baseline:
            continue
        own = records[0].configuration
        changed = [
            f"`{key}={own.get(key)}`" for key in sorted({*own, *reference}) if own.get(key) != reference.get(key)
        ]
        rows.append([name, " ".join(changed)])
    return table(["cell", f"configuration, where it is not that of {baseline}"], rows, "|---|---|") + "\n"


def _measures(cells: dict[str, list[FinishedRun]], measures: list[Measure]) -> str:
    values = {
        name: [[value for r in records if (value := m.of(r)) is not None] for m in measures]
        for name, records in cells.items()
    }
    kept = [i for i in range(len(measures)) if any(found[i] for found in values.values())]
    rows = [
        [
            name,
            len(cells[name]),
            *(f"{measures[i].scale * fmean(found[i]):{measures[i].form}}" if found[i] else "" for i in kept),
        ]
        for name, found in values.items()
    ]
    means = f"Means over seeds; entropy, length and cut off over the last {LAST} steps, the rest over all steps."
    legend = ((means if measures is BEHAVIOUR else "") + _apart(cells)).strip()
    made = table(["cell", "seeds", *(measures[i].title for i in kept)], rows)
    return f"{made}\n\n" + (f"{legend}\n" if legend else "")


def _runs(records: list[FinishedRun]) -> str:
    together: dict[tuple, list[FinishedRun]] = defaultdict(list)
    for record in records:
        versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())
        digests = {name: _DIGEST.sub(r"\1", value) for name, value in record.inputs.items()}
        files = ", ".join(f"{name} {value}" for name, value in digests.items())
        together[record.machine, versions, files, record.steps].append(record)
    rows = [
        [_named(members), steps, format_seconds(sum(r.seconds for r in members)), machine, versions, files]
        for (machine, versions, files, steps), members in sorted(together.items())
    ]
    return table(["runs", "steps each", "time", "machine", "versions", "SHA-256 of"], rows) + "\n"


def _named(members: list[FinishedRun]) -> str | int:
    """Which runs these are, where they are few."""
    return ", ".join(record.name for record in members) if len(members) <= 4 else len(members)


def _spread(values: list[float | None], measure: Measure) -> str:
    found = [measure.scale * value for value in values if value is not None]
    if not found:
        return ""
    ends = f" [{min(found):{measure.form}} to {max(found):{measure.form}}]" if len(found) > 1 else ""
    return f"{fmean(found):{measure.form}}{ends}"


def _difference(difference: Difference, measure: Measure) -> str:
    if not isfinite(difference.mean):
        return ""
    text = f"{measure.scale * difference.mean:+{measure.form}}"
    if difference.low is None or difference.high is None:
        return text
    low, high = (f"{measure.scale * end:+{measure.form}}" for end in (difference.low, difference.high))
    return f"{text} [{low}, {high}]"
