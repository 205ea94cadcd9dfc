"""What a run was made from: the configuration that verl composed, and digests of the files that it was given."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

FILES = {
    "start model": ("actor_rollout_ref", "model", "path"),
    "training data": ("data", "train_files"),
    "validation data": ("data", "val_files"),
}
SOURCES = "egsw_plugin"
_OF_THE_RUN = {"seed", "experiment_name"}
_NOT_OF_A_RUN = (  # the parts of this package that only commands use; start models have digests of their own
    *("study", "report", "models", "markdown.py", "records/inspect.py", "records/whatif.py", "methods/pages.py"),
    *("__main__.py", "cli.py", "content_policy.py", "doctor.py", "runner.py", "testing.py"),
)


def read_inputs(folder: Path) -> tuple[dict[str, object], dict[str, str]]:
    """The configuration of a run, and SHA-256 digests of its start model and its data.

    The configuration is flat, {"section.key": value}, without empty values and without what names
    the run: its seeds, its name, absolute paths. Files with a relative path, and models of a hub, stand for themselves
    in place of a digest. A folder without hydra's outputs has neither configuration nor files.

    Args:
        folder: of the run, with hydra's outputs in `hydra`.
    """
    digests: dict[str, str] = {}
    try:
        composed = yaml.safe_load((folder / "hydra" / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, digests
    for name, keys in FILES.items():
        value = composed
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value:
            digests[name] = _of_places(_listed(value))
    return dict(_leaves(composed)), digests


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            if name not in _OF_THE_RUN:
                yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif value is not None and not any(isinstance(v, str) and os.path.isabs(v) for v in _listed(value)):
        yield key, value if isinstance(value, bool | int | float | str | list) else str(value)


def _listed(value: object) -> list:
    return value if isinstance(value, list) else [value]


def _of_places(places: list[str]) -> str:
    paths = [Path(place) for place in places]
    if not all(path.is_absolute() and path.exists() for path in paths):
        return ", ".join(places)
    return _digest(file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path]))


def sources() -> str:
    """The SHA-256 digest of what a run uses of this package."""
    root = Path(__file__).parents[1]
    apart = [root / part for part in _NOT_OF_A_RUN]
    return _digest(path for path in sorted(root.rglob("*.py")) if not any(map(path.is_relative_to, apart)))


def _digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            total.update(f"{file.name} {file.stat().st_size}\n".encode())
            with open(file, "rb") as content:
                while part := content.read(1 << 20):
                    total.update(part)
    return total.hexdigest()
