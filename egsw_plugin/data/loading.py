"""A source's files and their records: from the hub, or from a local file or folder.

``datasets`` finds and fetches the files, with their configurations and splits. It does not read them: it takes the
types of all values from the first few, and rewrites what comes later.
"""

import sys
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError
from ..models.hub import HUB_ID, causes
from . import files
from .files import Table
from .sources import Source


def load(source: Source, origin: str | None = None, target: Path | None = None) -> list[Table]:
    """The tables of a data set, one a file, with their fields checked.

    Args:
        source: The data set.
        origin: A hub id, or a local folder or file (.json, .jsonl, .csv, .parquet); by default the source's hub id.
        target: The file that will be written; it may be none of those that are read.

    Returns:
        The tables, in the order of ``source.configs``, and of the files as ``datasets`` has them.

    Raises:
        DataError: It cannot be had, is not a data set, or lacks a split, a configuration or a field.
    """
    origin = source.hub if origin is None else origin
    try:
        path = Path(origin).expanduser()
        known = path.exists()
    except (OSError, RuntimeError) as error:  # too long a name; the home of nobody
        raise DataError(f"cannot load {origin[:80]}: {getattr(error, 'strerror', None) or error}") from None
    if not known and (path.suffix in files.SUFFIXES or not HUB_ID.fullmatch(origin)):
        raise DataError(f"there is no file or folder {origin}, and it is no hub id (owner/name)")
    with _quiet():
        try:
            found = {str(path): path} if path.is_file() else _files(source, origin, path if known else None)
            if target is not None and target.exists() and any(map(target.samefile, found.values())):
                what = "is" if path.is_file() else "holds"
                raise DataError(f"--source {origin} {what} the file to write; name another folder with --out")
            tables = [files.read(file, name) for name, file in found.items()]
        except DataError:
            raise
        except Exception as error:  # datasets, huggingface_hub, httpx, pyarrow and pandas each have their own
            raise DataError(_reason(error, origin, known)) from error
    for table in tables:
        _check_fields(source, table)
    return tables


def _files(source: Source, origin: str, folder: Path | None) -> dict[str, Path]:
    """The files of a folder or of the hub's repository, by what errors call them.

    ``datasets`` looks for configurations and splits in both in the same way.
    """
    from datasets import DownloadManager, get_dataset_config_names, load_dataset_builder

    where = str(folder.resolve()) if folder else origin
    if folder and (signs := [sign for sign in ("*", "?", "[", "::") if sign in where]):
        raise DataError(
            f"datasets takes {' and '.join(signs)} in {where} for a pattern; rename the folder, or give --source the "
            "file in it"
        )
    available = get_dataset_config_names(where)
    alternatives = [*source.configs, *([tuple(available)] if len(available) == 1 else [])]
    configs = next((group for group in alternatives if set(group) <= set(available)), None)
    if configs is None:
        wanted = " or ".join(", ".join(group) for group in source.configs)
        raise DataError(f"{origin} has the configurations {', '.join(available)}; expected {wanted}")
    found = {name: load_dataset_builder(where, name).config.data_files for name in (available if folder else configs)}
    chosen: list[str] = []
    for name in configs:
        split = next((split for split in source.splits if split in found[name]), None)
        if split is None:
            splits = ", ".join(map(str, found[name]))
            raise DataError(f"{origin} has the splits {splits}; expected {' or '.join(source.splits)}")
        chosen += found[name][split]
    if folder:
        everything = {Path(file).resolve() for splits in found.values() for paths in splits.values() for file in paths}
        _check_none_is_left(origin, folder, everything)
    fetched = DownloadManager().download(chosen)
    return {_name(origin, where, file): Path(path) for file, path in zip(chosen, fetched, strict=True)}


def _check_none_is_left(origin: str, folder: Path, found: Set[Path]) -> None:
    """Refuse a folder with data that ``datasets`` passes over: files of a second kind, or beside those of a split."""
    from datasets.data_files import FILES_TO_IGNORE

    for file in sorted(folder.rglob("*")):
        below = file.relative_to(folder)
        hidden = any(part.startswith((".", "__")) for part in below.parts)
        if hidden or not set(file.suffixes) & set(files.SUFFIXES) or file.name in FILES_TO_IGNORE:
            continue
        if file.is_file() and file.resolve() not in found:
            raise DataError(
                f"{origin} has {below}, which would not be read: it is in no split that datasets finds there; "
                "give --source the file, or a folder with nothing but the files that count"
            )


def _name(origin: str, where: str, file: str) -> str:
    """What errors call a file: its path below what the user named."""
    path = file.removeprefix(f"{where}/")
    if path == file and "://" in file:  # hf://datasets/OWNER/NAME@REVISION/PATH
        path = file.partition("://")[2].removeprefix(f"datasets/{where}").partition("/")[2]
    return f"{origin.rstrip('/')}/{path}"


def _check_fields(source: Source, table: Table) -> None:
    missing = [" or ".join(group) for group in source.fields if not set(group) & set(table.fields)]
    if missing:
        raise DataError(f"{table.name} has no field {', '.join(missing)}; it has {files.listed(table.fields)}")


def _reason(error: Exception, origin: str, local: bool) -> str:
    from huggingface_hub.errors import GatedRepoError

    chain = causes(error)
    # datasets hides the cause in some places and keeps it in others
    if any(isinstance(link, GatedRepoError) or "gated dataset" in str(link) for link in chain):
        return (
            f"{origin} is gated: accept its terms at https://huggingface.co/datasets/{origin}, "
            "then log in with `hf auth login` or set HF_TOKEN"
        )
    if not local and any(isinstance(link, ConnectionError | TimeoutError) for link in chain):
        return f"cannot reach the hub for {origin}; check the network, or give --source a local file or folder"
    words = str(error.__cause__ or error) or type(error).__name__  # datasets' own words say only that it failed
    return f"cannot load {origin}: {words.strip().splitlines()[0]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' log lines for what is reported here in one line, and without bars where nobody looks."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    levels = [(log, log.get_verbosity()) for log in (datasets.logging, hub_logging)]
    for log, _ in levels:
        log.set_verbosity(log.CRITICAL)
    hide_bars = datasets.is_progress_bar_enabled() and not sys.stderr.isatty()
    if hide_bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        for log, level in levels:
            log.set_verbosity(level)
        if hide_bars:
            datasets.enable_progress_bars()
