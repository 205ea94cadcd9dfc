"""A model's folder: written whole or not at all, with a record of where it came from and of every file's hash."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..versions import installed

RECORD = "provenance.json"
FORMAT = 1  # of the record and of what is written beside it; another number is another model
_BLOCK = 1 << 20
_MADE_WITH = ("egsw-plugin", "transformers", "tokenizers", "safetensors", "torch", "gguf", "huggingface_hub")


def holds(folder: Path, source: Mapping[str, Any]) -> bool:
    """Whether ``folder`` already has the model of ``source``, by the hashes of its files; it reads all of them.

    Args:
        folder: The folder.
        source: What the model is made from, as `write_record` was given it.

    Returns:
        False if there is nothing yet.

    Raises:
        ModelError: It holds something else, or not what was written to it.
    """
    try:
        if not folder.exists() or not any(folder.iterdir()):
            return False
        record = json.loads((folder / RECORD).read_text())
        made_from, files = record["source"], dict(record["files"])
        same = record["format"] == FORMAT and made_from == source
    except NotADirectoryError as error:
        raise ModelError(f"{error.filename} is not a folder") from error
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} holds something else (no readable {RECORD}); name another folder") from error
    except OSError as error:
        raise ModelError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    if not same:
        raise ModelError(f"{folder} holds another model ({_short(made_from)}); remove it, or name another folder")
    for name, digest in files.items():
        try:
            changed = file_hash(folder / name) != digest
        except OSError:
            changed = True
        if changed:
            raise ModelError(f"{folder / name} is not the file that was written there; remove {folder} to begin anew")
    return True


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_record(folder: Path, source: Mapping[str, Any], **more: Any) -> None:
    """Writes ``provenance.json``: the source, ``more``, the versions that made it, and the hash of every file.

    Args:
        folder: The folder, with all its files.
        source: What the model is made from: what makes two of them the same.
    """
    versions = {name: version for name in _MADE_WITH if (version := installed(name)) is not None}
    files = {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.name != RECORD}
    record = {"format": FORMAT, "source": dict(source), **more, "made_with": versions, "files": files}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")


@contextmanager
def building(folder: Path, size: int = 0, keep: bool = False) -> Iterator[Path]:
    """A folder to write to that becomes ``folder`` if all goes well.

    Args:
        folder: It must not be there, or be empty.
        size: Bytes that the work will need at most.
        keep: Leave the unfinished folder, for the same call to go on from.

    Raises:
        ModelError: It cannot be written, or there is no room for it.
    """
    folder = Path(os.path.realpath(folder))  # of a link: nothing can be renamed to another disk
    scratch = folder.with_name(f".{folder.name}.{'part' if keep else os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if free < size:
            raise ModelError(f"no room in {folder.parent}: {_gb(size)} needed, {_gb(free)} free")
        scratch.mkdir(exist_ok=keep)
        yield scratch
        os.replace(scratch, folder)
    except Exception as error:
        raise _clear(error, folder) from error
    finally:
        if not keep:
            shutil.rmtree(scratch, ignore_errors=True)


def _clear(error: Exception, folder: Path) -> Exception:
    """The same in the user's words, if it is about the place to write to."""
    # safetensors, pip and tokenizers turn a full disk into errors of their own, with the system's words in them
    if getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
        return ModelError(f"no room left in {folder.parent}")
    if isinstance(error, NotADirectoryError | FileExistsError) and not isinstance(error, ModelError):
        return ModelError(f"cannot write {folder}: {error.filename} is not a folder")
    if isinstance(error, OSError) and not isinstance(error, ModelError):
        return ModelError(f"cannot write {folder}: {error.strerror or error}")
    return error


def _short(source: Any) -> str:
    values = source.values() if isinstance(source, dict) else ()
    return ", ".join(str(value)[:60] for value in values if value) or "unknown"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
