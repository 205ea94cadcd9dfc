"""Loads a source's records with ``datasets``: from the hub, or from a local file or folder."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from . import files
from .files import Table
from .sources import Source

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_BATCH = 10_000  # records turned into Python objects at a time


def load(source: Source, origin: str | None = None) -> list[Table]:
    """The tables of a data set, one a configuration, with its fields checked.

    Args:
        source: The data set.
        origin: A hub id, or a local folder or file (.json, .jsonl, .csv, .parquet); by default the source's hub id.

    Returns:
        The tables, in the order of ``source.configs``.

    Raises:
        DataError: It cannot be had, is not a data set, or lacks a split, a configuration or a field.
    """
    origin = source.hub if origin is None else origin
    path = Path(origin).expanduser()
    known = path.exists()
    if known and path.is_file() and path.suffix not in files.SUFFIXES:
        raise DataError(f"{origin} is no data file; use {', '.join(files.SUFFIXES)}")
    if not known and (path.suffix in files.SUFFIXES or not _HUB_ID.fullmatch(origin)):
        raise DataError(f"there is no file or folder {origin}, and it is no hub id (owner/name)")
    with _quiet():
        try:
            where = str(path.resolve()) if known else origin
            if path.is_file():
                tables = [files.read(path)]
            else:
                for file in sorted(path.rglob("*")) if known else ():
                    if file.suffix in (".csv", ".jsonl"):
                        files.read(file)  # which refuses what pandas would shift
                tables = [_table(one) for one in _repository(source, origin, where)]
        except DataError:
            raise
        except Exception as error:  # datasets, huggingface_hub, httpx, pyarrow and pandas each have their own
            raise DataError(_reason(error, origin, known)) from error
    for table in tables:
        _check_fields(source, origin, table.fields)
    return tables


def _table(dataset: "Dataset") -> Table:
    """What ``datasets`` has loaded, as records."""

    def records() -> Iterator[tuple[str, Mapping[str, Any]]]:
        number = 0
        for batch in dataset.with_format("arrow").iter(_BATCH):
            for record in batch.to_pylist():
                number += 1
                yield f"row {number}", record

    return Table(dataset.column_names, len(dataset), records)


def _repository(source: Source, origin: str, where: str) -> list["Dataset"]:
    """From the hub or a folder; ``datasets`` looks for configurations and splits in both in the same way."""
    from datasets import Features, Value, get_dataset_config_names, load_dataset

    available = get_dataset_config_names(where)
    alternatives = [*source.configs, *([tuple(available)] if len(available) == 1 else [])]
    configs = next((group for group in alternatives if set(group) <= set(available)), None)
    if configs is None:
        wanted = " or ".join(", ".join(group) for group in source.configs)
        raise DataError(f"{origin} has the configurations {', '.join(available)}; expected {wanted}")
    tables = []
    for config in configs:
        splits = load_dataset(where, config)
        first = next(iter(splits.values()))
        if first.info.builder_name == "csv":
            # pandas makes 7 of 007 and nothing of NA, in a folder's files as in the hub's, unless all is text.
            names = first.column_names
            features = Features({name: Value("string") for name in names})
            splits = load_dataset(where, config, features=features, keep_default_na=False)
        split = next((split for split in source.splits if split in splits), None)
        if split is None:
            raise DataError(f"{origin} has the splits {', '.join(splits)}; expected {' or '.join(source.splits)}")
        tables.append(splits[split])
    return tables


def _check_fields(source: Source, origin: str, fields: list[str]) -> None:
    missing = [" or ".join(group) for group in source.fields if not set(group) & set(fields)]
    if missing:
        raise DataError(f"{origin} has no field {', '.join(missing)}; it has {', '.join(fields)}")


def _reason(error: Exception, origin: str, local: bool) -> str:
    from huggingface_hub.errors import GatedRepoError

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
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
