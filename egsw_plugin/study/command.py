"""`egsw-plugin study run` and `egsw-plugin study report`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from .execute import StudyError, execute
from .grid import Grid, GridError, read_grid
from .page import fill, whole_page
from .record import read_records
from .tables import tables


def run(
    path: Path, out: Path, quick: bool, only: list[str] | None, seeds: list[int] | None, overrides: list[str]
) -> int:
    """Runs what the study lacks and reports on what it has; returns an exit code."""
    try:
        grid = read_grid(path, quick)
        grid = replace(grid, overrides=grid.overrides + tuple(overrides))
        code = execute(grid, grid.runs(only, seeds), out)
    except (GridError, StudyError, OSError, ValueError) as error:
        print(f"egsw-plugin study: {error}", file=sys.stderr)
        return 2
    return code or report(path, out / "runs", None, out / "report", quick)


def report(path: Path, runs: Path, page: Path | None, out: Path, quick: bool = False) -> int:
    """Writes tables and figures; returns an exit code.

    Args:
        path: of the grid.
        runs: folder of the records.
        page: a Markdown file whose tables are replaced; by default a page with all of them is written to `out`.
        out: folder of the figures, and of the page that is written by default.
        quick: the grid's small study.
    """
    try:
        made = _write(read_grid(path, quick), runs, page, out)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"egsw-plugin study: {error}", file=sys.stderr)
        return 1
    print("\n".join(map(str, made)))
    return 0


def _write(grid: Grid, runs: Path, page: Path | None, out: Path) -> list[Path]:
    records = read_records(runs)
    if not records:
        raise ValueError(f"{runs} holds no record of a run; egsw-plugin study run writes them")
    made = tables(grid, records)
    target = page or out / "study.md"
    text = fill(page.read_text(encoding="utf-8"), made) if page else None
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        from .figures import draw_figures

        written = draw_figures(grid, records, out)
    finally:  # the tables do without matplotlib
        target.write_text(whole_page(made, written) if text is None else text, encoding="utf-8")
    return [target, *written]
