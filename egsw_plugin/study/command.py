"""`egsw-plugin study run` and `egsw-plugin study report`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ..console import refuse
from .execute import check_records, execute
from .grid import Grid, read_grid
from .page import figures_of, fill, whole_page
from .record import read_finished_runs, run_name
from .tables import tables


def run(path: Path, out: Path, quick: bool, only: list[str] | None, seeds: list[int] | None, extra: list[str]) -> int:
    """Runs what the study lacks and, when all runs are done, reports; returns an exit code."""
    try:
        grid = _grid(path, quick, extra)
        code = execute(grid, grid.runs(only, seeds), out)
        if code:
            return code
        _show(_write(grid, out / "runs", None, out / "report"))
    except (OSError, ValueError, ModuleNotFoundError) as error:
        return refuse("study", error, 2)
    return 0


def report(path: Path, runs: Path, page: Path | None, out: Path, quick: bool, extra: list[str]) -> int:
    """Writes tables and figures; returns an exit code.

    Args:
        path: of the grid.
        runs: folder of the records.
        page: a Markdown file whose tables are replaced; by default a page with all of them is written to `out`.
        out: folder of the figures, and of the page that is written by default.
        quick: the grid's small study.
        extra: overrides that all runs had beside those of the grid.
    """
    try:
        _show(_write(_grid(path, quick, extra), runs, page, out))
    except (OSError, ValueError, ModuleNotFoundError) as error:
        return refuse("study", error, 1)
    return 0


def _grid(path: Path, quick: bool, extra: list[str]) -> Grid:
    grid = read_grid(path, quick)
    return replace(grid, overrides=grid.overrides + tuple(extra))


def _show(paths: list[Path]) -> None:
    print("\n".join(map(str, paths)))


def _write(grid: Grid, runs: Path, page: Path | None, out: Path) -> list[Path]:
    records = read_finished_runs(runs)
    if not records:
        raise ValueError(f"{runs} holds no record of a run; egsw-plugin study run writes them")
    check_records(grid, records)
    there = {record.name for record in records}
    runs_of_grid = [run_name(cell.name, seed) for cell, seed in grid.runs()]
    if missing := [name for name in runs_of_grid if name not in there]:
        print(
            f"study: {len(missing)} of the grid's {len(runs_of_grid)} runs have no record: {', '.join(missing[:6])}"
            f"{', ...' if len(missing) > 6 else ''}",
            file=sys.stderr,
        )
    from .text import tables_beside  # with torch

    made = tables(grid, records) | tables_beside(runs)
    target = page or out / "study.md"
    try:
        text = fill(page.read_text(encoding="utf-8"), made) if page else None
    except ValueError as error:
        raise ValueError(f"{page}: {error}") from None
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        from .figures import draw_figures

        written = draw_figures(grid, records, out, None if text is None else figures_of(text))
    finally:  # the tables do without matplotlib
        target.write_text(whole_page(made, written) if text is None else text, encoding="utf-8")
    return [target, *written]
