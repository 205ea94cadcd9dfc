"""The figures of a study."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import fmean

from ..report.curves import draw_curves, empty_figure
from .grid import Grid
from .measures import start_success, success_curve
from .record import FinishedRun
from .tables import SUCCESS, cells_of, differences, experiments_of

POINTS = 24  # of a line at most; more of them, with noise, hide the line


def draw_figures(grid: Grid, records: list[FinishedRun], folder: Path, only: set[str] | None = None) -> list[Path]:
    """Writes, for each experiment that has runs, `EXPERIMENT-success.png`, `-training.png` and `-differences.png`.

    Args:
        grid: with the experiments.
        records: of all runs.
        folder: for the files; made if it is not there.
        only: the names of the files to write, for a page that shows some of them.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    start = start_success(records)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for experiment in experiments_of(grid, records):
        present = cells_of(experiment, records)
        if not present:
            continue
        draws = {
            "success": partial(
                _draw_success, present, experiment.baseline, present.get(experiment.baseline, []), start
            ),
            "training": partial(draw_curves, _lines(present)),
        }
        found = [(measure, differences(experiment, records, measure)) for measure in SUCCESS]
        if any(values for _, values in found):
            draws["differences"] = partial(_draw_differences, found, experiment.baseline)
        for kind, draw in draws.items():
            path = folder / f"{experiment.name}-{kind}.png"
            if only is None or path.name in only:
                draw(path)
                written.append(path)
    return written


def _lines(cells: dict[str, list[FinishedRun]]) -> dict[str, list[list[dict]]]:
    """The rows of each cell's runs by what its line is called; of long runs the means of a few steps each."""
    steps = max(run.steps for runs in cells.values() for run in runs)
    each = -(-steps // POINTS)
    of = f" of {each} steps each" if each > 1 else ""
    return {
        f"{name}: mean{of}, one run" if len(runs) == 1 else f"{name}: mean{of}, {len(runs)} runs, band min to max": [
            means_of_steps(run.metrics.training, each) for run in runs
        ]
        for name, runs in cells.items()
    }


def means_of_steps(rows: list[dict], each: int) -> list[dict]:
    """Rows that hold the means of `each` steps, the last of fewer if need be, at the step in their middle.

    >>> means_of_steps([{"step": 1, "x": 1.0}, {"step": 2, "x": 3.0}, {"step": 3, "x": 5.0}, {"step": 4, "x": 8.0}], 3)
    [{'step': 2, 'x': 3.0}, {'step': 4, 'x': 8.0}]
    """
    found = []
    for start in range(0, len(rows), each):
        block = rows[start : start + each]
        shared = [name for name in block[0] if all(name in row for row in block)]
        means = {name: fmean(row[name] for row in block) for name in shared}
        found.append({**means, "step": block[len(block) // 2]["step"]})
    return found


def _draw_success(
    cells: dict[str, list[FinishedRun]], baseline: str, reference: list[FinishedRun], start: float | None, path: Path
) -> None:
    """Validation success over steps: one panel a cell, each beside the baseline in grey; bands are min to max."""
    shown = [name for name in cells if name != baseline] or [baseline]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = empty_figure(3 * columns, 2.6 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, name in zip(panels.flat, shown, strict=False):
        for runs, colour in ((reference, "grey"), (cells[name], "tab:blue")):
            curves = [({} if start is None else {0: start}) | success_curve(run) for run in runs]
            steps = sorted(set().union(*curves))
            values = [[curve[step] for curve in curves if step in curve] for step in steps]
            if values:
                axes.plot(steps, [fmean(v) for v in values], color=colour, marker="o", markersize=3)
                axes.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.2)
        axes.set(title=f"{name} (n = {len(cells[name])})")
        axes.grid(alpha=0.3)
    figure.supxlabel("training step")
    figure.supylabel("validation success")
    figure.savefig(path, dpi=110)


def _draw_differences(found: list, baseline: str, path: Path) -> None:
    """Paired differences: the mean, its interval, and in grey every seed's own."""
    names = list(dict.fromkeys(name for _, values in found for name in values))
    figure = empty_figure(11, 1.2 + 0.35 * len(names))
    for axes, (measure, values) in zip(figure.subplots(1, len(found), sharey=True), found, strict=True):
        for place, name in enumerate(names):
            if (difference := values.get(name)) is None:
                continue
            seeds = [measure.scale * value for value in difference.values.values()]
            axes.plot(seeds, [place] * len(seeds), "o", color="tab:grey", markersize=3, alpha=0.6)
            if difference.low is not None:
                ends = [measure.scale * difference.low, measure.scale * difference.high]
                axes.plot(ends, [place] * 2, color="tab:blue", linewidth=2)
            axes.plot([measure.scale * difference.mean], [place], "D", color="tab:blue", markersize=5)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(xlabel=f"{measure.title}, minus {baseline}", yticks=range(len(names)), yticklabels=names)
        axes.grid(alpha=0.3, axis="x")
    figure.axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)
