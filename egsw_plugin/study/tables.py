"""The tables of a study, as Markdown, from its records alone: the same records give the same bytes."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from ..report.summary import format_seconds
from .compare import RESAMPLES, Difference, coverage, holm, paired
from .grid import Experiment, Grid
from .inputs import FILES
from .measures import BEHAVIOUR, COST, FINAL, LAST, MEAN, TRAINING, Measure, start_success, steps_to, success_curve
from .record import Record, by_cell

SUCCESS = (FINAL, MEAN, TRAINING)
LEVELS = (0.4, 0.5)
SIGNIFICANT = 0.05
_DIGITS = 8  # of a digest


def tables(grid: Grid, records: list[Record]) -> dict[str, str]:
    """Every table by its name: for each experiment `EXPERIMENT-results`, `-differences`, `-behaviour` and `-cost`,
    and for the whole study `runs`."""
    cells = by_cell(records)
    made = {}
    for experiment in experiments_of(grid, records):
        present = {name: cells[name] for name in experiment.cells if cells[name]}
        if not present:
            continue
        made[f"{experiment.name}-results"] = _results(present, cells[grid.baseline])
        made[f"{experiment.name}-differences"] = _differences(present, experiment.baseline, cells[experiment.baseline])
        made[f"{experiment.name}-behaviour"] = _measures(present, BEHAVIOUR)
        made[f"{experiment.name}-cost"] = _measures(present, COST)
    if records:
        made["runs"] = _runs(records)
    return made


def experiments_of(grid: Grid, records: list[Record]) -> list[Experiment]:
    """Those of the grid, and `others` for the cells that have runs and belong to none."""
    experiments = list(grid.experiments.values())
    placed = {name for experiment in experiments for name in experiment.cells}
    others = tuple(sorted({record.cell for record in records} - placed))
    return experiments + ([Experiment("others", 1, others, grid.baseline)] if others else [])


def differences(experiment: Experiment, records: list[Record], measure: Measure) -> dict[str, Difference]:
    """Of each cell of an experiment to its baseline."""
    cells = by_cell(records)
    found = {
        name: paired(cells[name], cells[experiment.baseline], measure.of)
        for name in experiment.cells
        if name != experiment.baseline
    }
    return {name: difference for name, difference in found.items() if difference}


def _results(cells: dict[str, list[Record]], baseline: list[Record]) -> str:
    start = start_success(baseline)
    rows = []
    for name, records in cells.items():
        row = [name, len(records)]
        row += [_spread([m.of(record) for record in records], m) for m in SUCCESS]
        for level in LEVELS:
            curves = [success_curve(record) for record in records]
            steps = [steps_to(level, curve if start is None else {0: start, **curve}) for curve in curves]
            reached = [step for step in steps if step is not None]
            row.append(
                f"{fmean(reached):.1f} ({len(reached)} of {len(steps)})" if reached else f"- (0 of {len(steps)})"
            )
        rows.append(row)
    titles = ["cell", "seeds", *(m.title for m in SUCCESS), *(f"steps to {level:.0%}" for level in LEVELS)]
    legend = "Mean over seeds [minimum to maximum]. Steps to a level: mean over the runs that reached it (how many did)"
    legend += f", from {start:.1%} of the start model on." if start is not None else "."
    if len({len(records) for records in cells.values()}) > 1:
        legend += " Cells with different seeds do not compare here; their differences, seed by seed, do."
    return _table(titles, rows) + "\n" + legend + "\n"


def _differences(cells: dict[str, list[Record]], name: str, baseline: list[Record]) -> str:
    others = {cell: records for cell, records in cells.items() if cell != name}
    rows: dict[str, list] = {cell: [cell] for cell in others}
    seeds = set()
    for measure in SUCCESS:
        found = {cell: paired(records, baseline, measure.of) for cell, records in others.items()}
        p_values = {cell: d.p_value for cell, d in found.items() if d is not None}
        corrected = holm({cell: p for cell, p in p_values.items() if p is not None})
        for cell, difference in found.items():
            if difference is None:
                rows[cell] += ["", ""]
                continue
            seeds.add(len(difference.values))
            star = "*" if corrected.get(cell, 1.0) < SIGNIFICANT else ""
            rows[cell].append(_difference(difference, measure) + star)
            rows[cell].append(f"{difference.higher} of {len(difference.values)}")
    titles = [f"cell minus {name}"] + [title for m in SUCCESS for title in (m.title, "seeds higher")]
    legend = (
        "Mean of the differences seed by seed, in percentage points [95 % percentile bootstrap over seeds, "
        f"{RESAMPLES} resamples]. * p < {SIGNIFICANT} in a paired t-test, after Holm's correction for the cells of the "
        "column."
    )
    if cover := ", ".join(f"{coverage(n):.0%} with {n} seeds" for n in sorted(seeds) if n > 1):
        legend += f" The interval alone is too narrow: it holds the true mean of normal differences in {cover}."
    return _table(titles, list(rows.values())) + "\n" + legend + "\n"


def _measures(cells: dict[str, list[Record]], measures: list[Measure]) -> str:
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
    legend = f"Means over seeds; entropy, length and cut off over the last {LAST} steps, the rest over all steps.\n"
    return (
        _table(["cell", "seeds", *(measures[i].title for i in kept)], rows)
        + "\n"
        + (legend if measures is BEHAVIOUR else "")
    )


def _runs(records: list[Record]) -> str:
    together: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())
        files = ", ".join(f"{name} {record.inputs[name][:_DIGITS]}" for name in FILES if name in record.inputs)
        together[record.machine, versions, files, record.steps].append(record)
    rows = [
        [len(members), steps, format_seconds(sum(r.seconds for r in members)), machine, versions, files]
        for (machine, versions, files, steps), members in sorted(together.items())
    ]
    return _table(["runs", "steps each", "time", "machine", "versions", "SHA-256"], rows)


def _spread(values: list[float | None], measure: Measure) -> str:
    found = [measure.scale * value for value in values if value is not None]
    if not found:
        return ""
    ends = f" [{min(found):{measure.form}} to {max(found):{measure.form}}]" if len(found) > 1 else ""
    return f"{fmean(found):{measure.form}}{ends}"


def _difference(difference: Difference, measure: Measure) -> str:
    text = f"{measure.scale * difference.mean:+{measure.form}}"
    if difference.low is None:
        return text
    low, high = (f"{measure.scale * end:+{measure.form}}" for end in (difference.low, difference.high))
    return f"{text} [{low}, {high}]"


def _table(titles: list[str], rows: list[list]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"
