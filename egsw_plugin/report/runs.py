"""What a report is about: run folders, their labels, and which of them are seeds of one experiment."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .metrics import Metrics, data_sets, read_metrics
from .validation import Dumps, read_dumps

_SEED = re.compile(r"(.+)(?:-seed|_s)\d+")


@dataclass
class Run:
    """One run folder and what could be read in it."""

    label: str
    group: str
    folder: Path
    metrics: Metrics
    validation: Dumps


def experiment(label: str) -> str:
    """The experiment that a label belongs to: the label without `-seedN` or `_sN` at its end.

    >>> experiment("gtpo-seed3"), experiment("runs/gtpo_s12"), experiment("grpo_s"), experiment("seed3")
    ('gtpo', 'runs/gtpo', 'grpo_s', 'seed3')
    """
    match = _SEED.fullmatch(label)
    return match[1] if match else label


def read_runs(
    paths: list[Path], labels: list[str] | None = None, groups: list[str] | None = None, validation: Path | None = None
) -> list[Run]:
    """Reads run folders.

    Args:
        paths: folders, or metrics files inside them.
        labels: one a run; by default the folders' names, or the paths where names of their experiment are equal.
        groups: one for all runs, or one a run; by default by the rule of `experiment`.
        validation: folder of the validation dumps; by default each run's own `validation`.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: the number of labels or groups is wrong, or labels are equal.
    """
    for path in [*paths, *([validation] if validation else [])]:
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}")
    labels = [os.fsencode(label).decode("utf-8", "backslashreplace") for label in labels or _default_labels(paths)]
    if len(labels) != len(paths) or len(set(labels)) < len(labels):
        raise ValueError(f"{len(paths)} run(s) need as many labels, all different; got {', '.join(labels)}")
    groups = groups or [experiment(label) for label in labels]
    groups = groups * len(paths) if len(groups) == 1 else groups
    if len(groups) != len(paths):
        raise ValueError(f"{len(paths)} runs need one group, or one for each; got {', '.join(groups)}")
    # One run without validation, such as the demo, lacks nothing; beside others it does.
    expected = validation is not None or len(paths) > 1
    return [_read(*run, validation, expected) for run in zip(paths, labels, groups, strict=True)]


def _default_labels(paths: list[Path]) -> list[str]:
    names = [_folder(path).resolve().name for path in paths]
    # All runs of an experiment are named alike, or its seeds would be of two groups.
    equal = {experiment(name) for name, count in Counter(names).items() if count > 1}
    return [str(_folder(path)) if experiment(name) in equal else name for name, path in zip(names, paths, strict=True)]


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _read(path: Path, label: str, group: str, validation: Path | None, expected: bool) -> Run:
    folder = _folder(path)
    metrics = read_metrics(path / "metrics.jsonl" if path.is_dir() else path)
    names = data_sets(metrics.training + metrics.validation)
    return Run(
        label,
        group,
        folder,
        metrics,
        read_dumps(validation or folder / "validation", names, expected or (folder / "validation").exists()),
    )
