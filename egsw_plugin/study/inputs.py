"""What a run was made from, as digests: records that are compared must not differ in what the grid does not name."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import yaml

CONFIGURATION = "configuration"
FILES = {
    "start model": ("actor_rollout_ref", "model", "path"),
    "training data": ("data", "train_files"),
    "validation data": ("data", "val_files"),
}
_OF_THE_RUN = {"seed", "experiment_name"}


def inputs(folder: Path) -> dict[str, str]:
    """SHA-256 digests of what verl composed and was given, from a run's folder; none if hydra left nothing there.

    `configuration` leaves out what names the run: seeds, its name, absolute paths. The start model and the data are
    digests of the files; a name on a hub, which is no path here, stands for itself.
    """
    try:
        composed = yaml.safe_load((folder / "hydra" / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    text = json.dumps(_without_names(composed), sort_keys=True)
    found = {CONFIGURATION: hashlib.sha256(text.encode()).hexdigest()}
    for name, keys in FILES.items():
        value = composed
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value:
            found[name] = _digest(value if isinstance(value, list) else [value])
    return found


def _without_names(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_names(v) for k, v in value.items() if k not in _OF_THE_RUN}
    if isinstance(value, list):
        return [_without_names(v) for v in value]
    return None if isinstance(value, str) and os.path.isabs(value) else value


def _digest(places: list[str]) -> str:
    paths = [Path(place) for place in places]
    if not all(path.exists() for path in paths):
        return ", ".join(places)
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            total.update(f"{file.name} {file.stat().st_size}\n".encode())
            with open(file, "rb") as content:
                while part := content.read(1 << 20):
                    total.update(part)
    return total.hexdigest()
