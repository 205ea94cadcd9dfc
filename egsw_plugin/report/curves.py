"""The curves of runs as a picture."""

import io
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from .metrics import EFFECTIVE_SHARE, ENTROPY, GRADIENT, LENGTH, MIXED, REWARD, find_metric

_PANELS = [
    ("Training reward", "mean reward", REWARD, "tab:blue"),
    ("Response length", "mean length (tokens)", LENGTH, "tab:green"),
    ("Policy entropy", "mean entropy (nats)", ENTROPY, "tab:orange"),
    ("Effective share of the weights", "effective share (fraction)", EFFECTIVE_SHARE, "tab:purple"),
    ("Groups with an advantage", "mixed groups (fraction)", MIXED, "tab:olive"),
    ("Gradient", "norm", GRADIENT, "tab:red"),
]


def spread(runs: list[list[dict]], name: str) -> list[tuple[int, float, float, float]]:
    """Mean, minimum and maximum of a metric at each step, over the runs which have it there.

    Args:
        runs: the rows of each run.
        name: of the metric, as `find_metric` takes it.

    Returns:
        (step, mean, minimum, maximum), by step.

    >>> spread([[{"step": 1, "x": 1.0}, {"step": 2, "x": 5.0}], [{"step": 1, "x": 2.0}]], "x")
    [(1, 1.5, 1.0, 2.0), (2, 5.0, 5.0, 5.0)]
    """
    values: dict[int, list[float]] = defaultdict(list)
    for row in (row for rows in runs for row in rows):
        if (value := find_metric(row, name)) is not None:
            values[row["step"]].append(value)
    return [(step, fmean(values[step]), min(values[step]), max(values[step])) for step in sorted(values)]


def draw_curves(lines: dict[str, list[list[dict]]], path: Path) -> None:
    """Writes a PNG with `_PANELS` over the training steps.

    Args:
        lines: for each line its label and the rows of its runs: the line is their mean, the band min to max.
        path: of the picture.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure = empty_figure(13, 6)
    handles: dict[str, Any] = {}
    for axes, panel in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        handles |= _draw(axes, panel, lines)
    _name_lines(figure, handles, lines)
    figure.savefig(path, dpi=120)


def draw_panels(lines: dict[str, list[list[dict]]]) -> dict[str, bytes]:
    """The same panels one by one, as SVG by title; those that have nothing to show are left out."""
    found = {}
    for panel in _PANELS:
        figure = empty_figure(5, 3.4)
        if handles := _draw(figure.subplots(), panel, lines):
            _name_lines(figure, handles, lines)
            figure.savefig(file := io.BytesIO(), format="svg", metadata={"Date": None})
            found[panel[0]] = file.getvalue()
    return found


def empty_figure(width: float, height: float) -> Any:
    """A figure that is drawn to files alone, in inches; whatever backend a user's own figures have stays theirs.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the figures need matplotlib: pip install 'egsw-plugin[report]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw(axes: Any, panel: tuple[str, str, str, str], lines: dict[str, list[list[dict]]]) -> dict:
    """Fill a panel; returns the handle of each line."""
    from matplotlib.ticker import MaxNLocator

    title, label, name, colour = panel
    axes.set(title=title, xlabel="training step", ylabel=label)
    handles = {}
    for number, (line, runs) in enumerate(lines.items()):
        if not (points := spread(runs, name)):
            continue
        steps, mean, low, high = zip(*points, strict=True)
        colour = colour if len(lines) == 1 else f"C{number % 10}"
        style = ("-", "--", ":", "-.")[number // 10 % 4]
        marker = "o" if len(points) <= 60 else None
        (handles[line],) = axes.plot(steps, mean, color=colour, linestyle=style, marker=marker, markersize=3)
        if len(runs) > 1:
            axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    if handles:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    else:
        axes.text(0.5, 0.5, "not logged", ha="center", va="center", color="grey", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
    return handles


def _name_lines(figure: Any, handles: dict, lines: dict[str, list[list[dict]]]) -> None:
    if len(lines) > 1 or any(len(runs) > 1 for runs in lines.values()):
        # A label is text, not TeX.
        captions = [caption.replace("$", r"\$") for caption in handles]
        figure.legend(handles.values(), captions, loc="outside lower center", ncols=2, fontsize="small")
