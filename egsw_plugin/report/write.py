"""Writes the report of one or several runs into a folder: summary, curves, results, and all of it as a page."""

from collections import defaultdict
from pathlib import Path

from .curves import draw_curves, draw_panels
from .held_out import compare
from .page import page
from .runs import Run
from .summary import summarise
from .tables import group_means, measure, own_tables, published_csv, published_tables, results_csv

OUTPUTS = ("summary.md", "curves.png", "results.md", "results.csv", "published.csv", "report.html")


def write_report(runs: list[Run], out: Path, html: bool = False) -> list[Path]:
    """Writes what the runs have data for, then prints it; each thing left out is named.

    Args:
        runs: with labels that differ.
        out: folder; made if it is not there.
        html: write report.html too.

    Returns:
        The files written; none if no run has a training step or a validation.

    Raises:
        ModuleNotFoundError: matplotlib, or for the page markdown-it-py, is not installed; the rest is written.
    """
    notes = {run.label: _notes(run) for run in runs}
    summary = "\n".join(_section(run, notes[run.label], len(runs) > 1) for run in runs)
    results = [result for run in runs for found in run.validation.evaluations for result in measure(run.label, found)]
    training = [run for run in runs if run.metrics.training]
    if not training and not results:
        print("\n" + summary)
        return []
    out.mkdir(parents=True, exist_ok=True)
    written, shown = [_write(out / "summary.md", summary)], "\n" + summary
    if results:
        results += group_means(results, {run.label: run.group for run in runs})
        own = own_tables(results)
        shown = "\n" + own + shown  # the summary last, where it is read
        remarks = "".join(f"* {run.label}: {note}\n" for run in runs for note in notes[run.label])
        tables = "\n".join(part for part in (own, remarks, published_tables()) if part)
        written += [_write(out / "results.md", tables), _write(out / "results.csv", results_csv(results))]
        written.append(_write(out / "published.csv", published_csv()))
    try:
        if training:
            draw_curves(_lines(training), out / "curves.png")
            written.append(out / "curves.png")
        if html:
            texts = [f"## Training\n\n{summary}", f"## Validation\n\n{tables}"] if results else [summary]
            curves = draw_panels(_lines(training)) if training else {}
            links = {run.label: run.folder / "inspect.html" for run in runs if (run.folder / "inspect.html").exists()}
            title = ", ".join(run.label for run in runs)
            written.append(_write(out / "report.html", page(title, texts, curves, links, out)))
    finally:  # without matplotlib too; and after the files, since `| head` ends what prints
        print(shown)
    return written


def _notes(run: Run) -> list[str]:
    left_out = run.metrics.left_out + run.validation.left_out
    return [f"left out: {note}" for note in left_out] + [f"note: {note}" for note in run.validation.notes]


def _section(run: Run, notes: list[str], titled: bool) -> str:
    title = f"## {run.label}\n\n" if titled else ""
    text = title + summarise(run.metrics) + "".join(f"\n* {note}" for note in notes) + ("\n" if notes else "")
    held_out = compare(run.validation.first, run.validation.last)
    return text + (f"\n{held_out}" if held_out else "")


def _lines(runs: list[Run]) -> dict[str, list[list[dict]]]:
    """The lines of the curves, one a group, and what each is called."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.group].append(run)
    return {
        f"{group}: mean of {len(members)} runs, band min to max" if len(members) > 1 else members[0].label: [
            run.metrics.training for run in members
        ]
        for group, members in groups.items()
    }


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # of paths that are no text
    return path
