#!/usr/bin/env python3
"""Apply the patch series of this folder to an installed verl, take it back, or say whether it is applied.

    python3 patches/apply.py [--check | --undo] [--site-packages DIR]

Standard library only; verl is found without being imported. Nothing is written unless every file of the series is
exactly the release's, or exactly the patched one, before, and exactly the expected one after. Exit codes: 0 done, or
already so; 1 with --check, not applied; 2 refused, nothing changed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "0.9.1"
SERIES = HERE / f"verl-{VERSION}"
REINSTALL = f"pip install --force-reinstall --no-deps verl=={VERSION}"


class Refused(Exception):
    """Why nothing was changed, and what to do about it."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Apply the patch series for verl, undo it, or check it.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="only say whether it is applied (exit code 0) or not (1)")
    action.add_argument("--undo", action="store_true", help="restore the release's files")
    parser.add_argument(
        "--site-packages", metavar="DIR", type=Path, help="folder that holds verl/ (default: this Python's)"
    )
    options = parser.parse_args(arguments)
    try:
        root = options.site_packages or installed_root()
        check_version(root)
        applied = is_applied(root)
        if options.check:
            print(f"verl {VERSION} in {root}: the series is {'applied' if applied else 'not applied'}")
            return 0 if applied else 1
        if applied != options.undo:
            print(f"verl {VERSION} in {root}: the series is {'already' if applied else 'not'} applied, nothing to do")
            return 0
        replace(root, patched_copies(root, options.undo))
    except Refused as refusal:
        print(f"apply.py: {refusal}", file=sys.stderr)
        return 2
    print(f"verl {VERSION} in {root}: {len(files())} files {'restored' if options.undo else 'patched'}")
    return 0


def installed_root() -> Path:
    """The folder that holds the `verl` that this Python would import."""
    spec = importlib.util.find_spec("verl")
    if spec is None or spec.origin is None:
        raise Refused(
            f"{sys.executable} has no verl; run this with the Python that has it, or pass --site-packages DIR"
        )
    return Path(spec.origin).parents[1]


def check_version(root: Path) -> None:
    """Refuse any verl but the one that the series is for."""
    path = root / "verl" / "version" / "version"
    try:
        version = path.read_text().strip()
    except OSError as error:
        raise Refused(f"no verl in {root} (cannot read {path}); pass --site-packages DIR of the right one") from error
    if version != VERSION:
        raise Refused(f"the series is for verl {VERSION}, {root} holds {version}; pip install verl=={VERSION}")


def files() -> dict[str, tuple[str, str]]:
    """Path of each file of the series: sha256 in the release, sha256 with the series applied."""
    lines = (SERIES / "files.sha256").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {path: (original, patched) for original, patched, path in rows}


def is_applied(root: Path) -> bool:
    """Whether the files are the patched ones; refuses files that are neither, and a mixture."""
    changed, patched = [], []
    for path, known in files().items():
        found = sha256(root / path)
        if found not in known:
            changed.append(f"{root / path} ({'missing' if found is None else f'sha256 {found}'})")
        elif found == known[1]:
            patched.append(path)
    if changed:
        neither = f"neither verl {VERSION}'s nor the series'"
        raise Refused(f"{neither}: {', '.join(changed)}; save what you changed, restore the release: {REINSTALL}")
    if patched and len(patched) < len(files()):
        raise Refused(f"only {', '.join(patched)} of {len(files())} files in {root} are patched; restore: {REINSTALL}")
    return bool(patched)


def patched_copies(root: Path, undo: bool) -> dict[Path, bytes]:
    """New content of every file, made and checked in a temporary folder."""
    known = files()
    with tempfile.TemporaryDirectory(prefix="verl-patch-") as folder:
        for path in known:
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, Path(folder) / path)
        for patch in sorted(SERIES.glob("*.patch"), reverse=undo):
            run_patch(patch, folder, undo)
        for path, (original, patched) in known.items():
            if sha256(Path(folder) / path) != (original if undo else patched):
                raise Refused(
                    f"the series does not make the {path} it should: {SERIES} is not as released; fetch it anew"
                )
        return {root / path: (Path(folder) / path).read_bytes() for path in known}


def run_patch(patch: Path, folder: str, undo: bool) -> None:
    """One patch in `folder`, by git or, without it, by patch."""
    reverse = ["-R"] if undo else []
    # git leaves out every file beyond the repository that it believes to be in.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_CEILING_DIRECTORIES"] = str(Path(folder).parent)
    if git := shutil.which("git"):
        command = [git, "apply", *reverse, str(patch)]
    elif program := shutil.which("patch"):
        command = [program, "-p1", "--batch", "--fuzz=0", *reverse, f"--input={patch}"]
    else:
        raise Refused("neither git nor patch is on PATH; install one of them")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"{patch.name} does not apply: {(done.stderr or done.stdout).strip()}; fetch this folder anew")


def replace(root: Path, contents: dict[Path, bytes]) -> None:
    """Write all files or none. Each is a new file: pip and uv may share one file between environments by a link."""
    old = {path: path.read_bytes() for path in contents}
    beside = {path: path.with_name(f"{path.name}.new") for path in contents}
    placed = []
    try:
        for path, content in contents.items():
            write(beside[path], content, like=path)
        for path in contents:
            os.replace(beside[path], path)
            placed.append(path)
    except OSError as error:
        for path in placed:
            write(beside[path], old[path], like=path)
            os.replace(beside[path], path)
        raise Refused(f"cannot write to {root} ({error}); run this as the user that installed verl") from error
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)


def write(path: Path, content: bytes, like: Path) -> None:
    """A file with this content and the permissions of `like`."""
    path.write_bytes(content)
    shutil.copymode(like, path)


def sha256(path: Path) -> str | None:
    """The file's hash, or None where there is no file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
