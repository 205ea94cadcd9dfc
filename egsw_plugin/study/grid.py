"""What a study runs: cells (a method with overrides), seeds, and the experiments that they belong to."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..options.spelling import close, question
from ..strict_yaml import read_yaml

T = TypeVar("T")

_MOST_SEEDS = 1000
_NAME = re.compile(r"[A-Za-z][\w.]*", re.ASCII)


class GridError(ValueError):
    """A grid that cannot be run; says which key is wrong, its value, and what to do."""


@dataclass(frozen=True)
class Cell:
    """One column of a comparison: runs that differ in their seed alone."""

    name: str
    method: str  # a file of recipes/method
    overrides: tuple[str, ...] = ()
    control: str | None = None  # the cell that lacks one thing of this one


@dataclass(frozen=True)
class Experiment:
    """Cells that are compared with each other, each with the same seeds."""

    name: str
    seeds: tuple[int, ...]
    cells: tuple[str, ...]
    baseline: str  # the cell that differences are against
    listed: bool = False  # the grid lists the seeds: its tables leave others out


@dataclass(frozen=True)
class Grid:
    """A study."""

    launcher: Path
    steps: int
    time_limit: float
    baseline: str  # of the experiments that name none
    cells: dict[str, Cell]
    experiments: dict[str, Experiment]
    overrides: tuple[str, ...] = ()  # of every run
    quick: bool = False  # the small study, which the launcher is told by QUICK=1

    def runs(self, only: list[str] | None = None, seeds: list[int] | None = None) -> list[tuple[Cell, int]]:
        """Every (cell, seed) once, in the order of the experiments, and within one seed by seed.

        Args:
            only: names of cells; by default all that belong to an experiment.
            seeds: instead of the experiments' own.

        Raises:
            GridError: `only` names a cell that is not there.
        """
        for name in only or ():
            _known(name, self.cells, "--only")
        experiments = list(self.experiments.values())
        placed = {name for experiment in experiments for name in experiment.cells}
        if others := tuple(name for name in only or () if name not in placed):
            experiments.append(
                Experiment("others", max((e.seeds for e in experiments), key=len), others, self.baseline)
            )
        ordered = [
            (self.cells[name], seed)
            for experiment in experiments
            for seed in (seeds or experiment.seeds)
            for name in experiment.cells
            if not only or name in only
        ]
        return list(dict.fromkeys(ordered))


def read_grid(path: Path, quick: bool = False) -> Grid:
    """Reads a grid; recipes/study/README.md explains the file.

    Args:
        path: of the .yaml file.
        quick: the file's small study in place of its experiments.

    Raises:
        GridError: something in the file is missing, unknown or of the wrong kind.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GridError(f"{path}: not YAML ({error})") from None
    content = _section(
        content, str(path), {"launcher", "steps", "time_limit", "baseline", "cells", "experiments"}, {"quick"}
    )
    launcher = path.parent / _of_kind(content["launcher"], str, "launcher")
    if not launcher.is_file():
        raise GridError(f"launcher={content['launcher']!r}: there is no {launcher}")
    named = _of_kind(content["cells"], dict, "cells")
    for name in named:
        _check_name(name, f"cells.{name}")
    cells = {name: _cell(name, value, named) for name, value in named.items()}
    _check_controls(cells)
    baseline = _known(content["baseline"], cells, "baseline")
    experiments = {
        name: _experiment(name, f"experiments.{name}", value, cells, baseline)
        for name, value in _of_kind(content["experiments"], dict, "experiments").items()
    }
    if not experiments:
        raise GridError("experiments: there is none")
    grid = Grid(
        launcher=launcher,
        steps=_count(content["steps"], "steps"),
        time_limit=_count(content["time_limit"], "time_limit"),
        baseline=baseline,
        cells=cells,
        experiments=experiments,
    )
    if not quick:
        return grid
    if "quick" not in content:
        raise GridError(f"{path}: --quick needs the section quick (seeds, steps, cells)")
    small = _section(content["quick"], "quick", {"seeds", "steps", "cells"}, {"overrides"})
    steps = _count(small.pop("steps"), "quick.steps")
    overrides = _overrides(small.pop("overrides", {}), "quick")
    experiments = {"quick": _experiment("quick", "quick", small, cells, baseline)}
    return replace(grid, steps=steps, overrides=overrides, experiments=experiments, quick=True)


def _cell(name: object, value: object, cells: dict) -> Cell:
    key = f"cells.{name}"
    value = _section(value, key, {"method"}, {"overrides", "control"})
    overrides = _overrides(value.get("overrides", {}), key)
    control = _known(value["control"], cells, f"{key}.control") if "control" in value else None
    return Cell(str(name), _of_kind(value["method"], str, f"{key}.method"), overrides, control)


def _overrides(value: object, key: str) -> tuple[str, ...]:
    """As hydra reads them: null, true and lists are not what Python prints."""
    section = _of_kind(value, dict, f"{key}.overrides")
    texts = []
    for name, setting in section.items():
        try:
            texts.append(f"{name}={setting if isinstance(setting, str) else json.dumps(setting)}")
        except (TypeError, ValueError):
            raise GridError(f"{key}.overrides.{name}={setting!r}: must be a number, text, list or section") from None
    return tuple(texts)


def _check_controls(cells: dict[str, Cell]) -> None:
    """A control lacks one thing of its cell, so that none can be, in the end, its own."""
    for name in cells:
        path = [name]
        while (control := cells[path[-1]].control) is not None:
            if control in path:
                raise GridError(
                    f"cells.{name}.control: {' -> '.join([*path, control])}: a cell is no control of itself"
                )
            path.append(control)


def _check_name(name: object, key: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise GridError(f"{key}: a name has letters, digits, _ and . only and begins with a letter: it names files")


def _experiment(name: str, key: str, value: object, cells: dict[str, Cell], baseline: str) -> Experiment:
    _check_name(name, key)
    if name == "others":
        raise GridError(f"{key}: choose another name; this one is that of the runs in no experiment")
    value = _section(value, key, {"seeds", "cells"}, {"baseline"})
    names = _of_kind(value["cells"], list, f"{key}.cells")
    if not names:
        raise GridError(f"{key}.cells: there is none")
    for cell in names:
        _known(cell, cells, f"{key}.cells")
    baseline = _known(value.get("baseline", baseline), cells, f"{key}.baseline")
    if baseline not in names:
        raise GridError(
            f"{key}.cells={names!r}: the baseline {baseline!r} is not among them, so nothing would be compared"
        )
    seeds = value["seeds"]
    return Experiment(name, _seeds(seeds, f"{key}.seeds"), tuple(names), baseline, listed=isinstance(seeds, list))


def _seeds(value: object, key: str) -> tuple[int, ...]:
    """Those from 1 to a number, or those of a list."""
    if not isinstance(value, list):
        if _count(value, key) > _MOST_SEEDS:
            raise GridError(f"{key}={value!r}: at most {_MOST_SEEDS}, or a list of seeds")
        return tuple(range(1, _count(value, key) + 1))
    seeds = tuple(_count(seed, f"{key}[{i}]") for i, seed in enumerate(value))
    if not seeds or len(set(seeds)) < len(seeds):
        raise GridError(f"{key}={value!r}: must be a number, for the seeds from 1, or a list of different seeds")
    return seeds


def _section(value: object, key: str, needed: set[str], allowed: Set[str] = frozenset()) -> dict:
    section = _of_kind(value, dict, key)
    for name in section:
        _known(name, needed | allowed, key)
    if missing := sorted(needed - set(section)):
        raise GridError(f"{key}: {missing[0]} is missing")
    return dict(section)


def _of_kind(value: object, kind: type[T], key: str) -> T:
    if not isinstance(value, kind):
        raise GridError(f"{key}={value!r}: must be a {kind.__name__}")
    return value


def _count(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise GridError(f"{key}={value!r}: must be a whole number of at least 1")
    return value


def _known(name: object, names: Collection[str], key: str) -> str:
    if isinstance(name, str) and name in names:
        return name
    near = close(str(name), sorted(names))
    hint = question(near) if near else f"there are {', '.join(sorted(names))}"
    raise GridError(f"{key}={name!r}: there is no such name; {hint}")
