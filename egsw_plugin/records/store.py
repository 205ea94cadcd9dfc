"""Files of records: one Parquet file a recorded step, one row a response."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import one_line, warn_once
from ..errors import DataError
from ..writing import replacing

if TYPE_CHECKING:
    import torch

FOLDER = "records"
# Of every token of a response, those of a tool or an environment included; entropy and weight may be missing.
PER_TOKEN = ("policy", "old_log_prob", "entropy", "base", "weight", "advantage")
VERSION = 1  # of the columns


@dataclass(frozen=True)
class Record:
    """A recorded step: some whole groups of it.

    rows: one mapping a response. step, uid, session, prompt, response: as verl has them, texts with special tokens.
    prompt_ids, ids, tokens: token ids of prompt and response, and the text of each token of the response. policy: which
    of these the policy wrote. old_log_prob, entropy (nats), base (advantage), weight, advantage: one number a token, or
    None. reward, score: sums over the tokens, the score before KL and length terms. success.
    about: versions, verl's `algorithm` section, as verl ran it, and the ids of special tokens.
    """

    rows: Sequence[Mapping[str, Any]]
    about: Mapping[str, Any]

    @property
    def step(self) -> int:
        """The trainer's step."""
        return self.rows[0]["step"]

    def tensor(self, name: str) -> torch.Tensor | None:
        """A column of `PER_TOKEN`, padded with zeros to [rows, tokens]; None where it was not recorded.

        It is made once: nothing may be written into it.
        """
        if name not in self._tensors:
            self._tensors[name] = self._made(name)
        return self._tensors[name]

    @cached_property
    def _tensors(self) -> dict[str, torch.Tensor | None]:
        return {}

    def _made(self, name: str) -> torch.Tensor | None:
        columns = [row[name] for row in self.rows]
        if any(column is None for column in columns):
            return None
        import torch  # here, since commands that look at no tensor read records as well

        dtype = torch.int64 if name == "policy" else torch.float32
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(x, dtype=dtype) for x in columns], batch_first=True)


def weights_of(published: Sequence[float] | None, base: Sequence[float], advantage: Sequence[float]) -> Sequence[float]:
    """The weights that a method publishes for the policy loss; else how many times its base an advantage is, 1 where
    both are the same and NaN where the base alone is 0.

    >>> weights_of(None, [0.0, 2.0, 0.0], [0.0, 1.0, 3.0])
    [1.0, 0.5, nan]
    """
    if published is not None:
        return published
    return [1.0 if a == b else a / b if b else math.nan for a, b in zip(advantage, base, strict=True)]


def _schema() -> Any:
    import pyarrow as pa

    texts = {name: pa.string() for name in ("uid", "session", "prompt", "response")}
    ids = {name: pa.list_(pa.int32()) for name in ("prompt_ids", "ids")}
    tokens = {"tokens": pa.list_(pa.string()), "policy": pa.list_(pa.bool_())}
    numbers = {name: pa.list_(pa.float32()) for name in PER_TOKEN[1:]}
    one = {"reward": pa.float64(), "score": pa.float64(), "success": pa.bool_()}
    return pa.schema({"step": pa.int64(), **texts, **ids, **tokens, **numbers, **one})


def write_record(record: Record, folder: Path) -> Path:
    """Write ``folder/step_000010.parquet``, all of it or nothing; one that is there is replaced."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {b"egsw_plugin": json.dumps({"version": VERSION, **record.about}, default=str).encode()}
    table = pa.Table.from_pylist(list(record.rows), _schema()).replace_schema_metadata(about)
    path = folder / f"step_{record.step:06d}.parquet"
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return path


def read_records(place: Path, step: int | None = None) -> list[Record]:
    """The records of a run (its folder, its checkpoints' folder, or the folder of records) or one file, by step; of one
    step alone, if it is given.

    Raises:
        DataError: there are none, a file is not one or not whole, or they are of several runs.
    """
    if not place.exists():
        raise DataError(f"there is no {place}")
    paths = [place] if place.is_file() else sorted(place.glob("step_*.parquet"))
    paths = paths or sorted(_below(place))
    if not paths:
        raise DataError(f"{place} has no records; a run writes them with +algorithm.record.every=10")
    if len(folders := sorted({str(path.parent) for path in paths})) > 1:
        raise DataError(f"{place} has records of {len(folders)} runs; choose one, such as {folders[0]}")
    steps = {path: _step(path) for path in paths}
    records = [_read(path) for path in paths if step is None or steps[path] in (None, step)]
    chosen = [record for record in records if step in (None, record.step)]
    if not chosen:
        there = ", ".join(str(number) for number in [*filter(None, steps.values())] or [r.step for r in records])
        raise DataError(f"{place} has no record of step {step}; it has {there}")
    return chosen


def _step(path: Path) -> int | None:
    """What the name of the file says."""
    named = re.fullmatch(r"step_(\d+)", path.stem)
    return int(named[1]) if named else None


def _below(place: Path) -> Iterator[Path]:
    """Files in folders of records at any depth, behind links too; not those that `egsw-plugin run` set aside."""
    seen = set()  # folders, which links may reach twice, or from within
    for folder, inner, _ in os.walk(place, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [name for name in inner if name != "previous"]
        if Path(folder).name == FOLDER:
            yield from Path(folder).glob("step_*.parquet")


def _read(path: Path) -> Record:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"egsw_plugin"])
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; a link that leads nowhere?") from None
    except KeyError:
        raise DataError(f"{path} is not a record of egsw-plugin: it has no such metadata") from None
    except (pa.ArrowException, OSError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a record of egsw-plugin: {one_line(str(error))}") from error
    if not isinstance(about, dict) or not isinstance(about.get("algorithm", {}), dict):
        raise DataError(f"{path} is not a record of egsw-plugin: what it says about itself is no section")
    if about.get("version") != VERSION:
        raise DataError(f"{path} is a record of another version ({about.get('version')}, here {VERSION})")
    if wrong := _wrong(table, path):
        raise DataError(f"{path} {wrong}; record the step again")
    return Record(table.to_pylist(), about)


def _wrong(table: Any, path: Path) -> str | None:
    """What a file that was changed or cut lacks: kernels read its columns as tensors of one shape."""
    import pyarrow.compute as pc

    if not table.num_rows:
        return "has no rows"
    for field in _schema():
        if field.name not in table.schema.names:
            return f"has no column {field.name}"
        if table.schema.field(field.name).type != field.type:
            return f"has a column {field.name} of {table.schema.field(field.name).type}, not of {field.type}"
    for name in ("step", "uid", "ids", "tokens", "policy", "base", "advantage", "reward", "score", "success"):
        if table[name].null_count:
            return f"has no {name} in row {table[name].is_null().to_pylist().index(True)}"
    for name in ("reward", "score"):
        if not pc.all(pc.is_finite(table[name])).as_py():
            return f"has a {name} that is no finite number"
    lengths = pc.list_value_length(table["ids"]).to_pylist()
    for name in ("tokens", *PER_TOKEN):
        for row, (length, tokens) in enumerate(
            zip(pc.list_value_length(table[name]).to_pylist(), lengths, strict=True)
        ):
            if length not in (None, tokens):
                return f"has {length} values of {name} in row {row}, for {tokens} tokens"
        if pc.list_flatten(table[name]).null_count:
            return f"has a gap in a row of {name}"
    steps = set(table["step"].to_pylist())
    named = _step(path)
    if len(steps) > 1 or (named is not None and steps != {named}):
        return f"has rows of step {', '.join(map(str, sorted(steps)))}"
    return None


class Recorder:
    """Writes records in a thread of its own. What cannot be written is said once, and training goes on."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._pool = ThreadPoolExecutor(1, "egsw-plugin-records")  # which Python waits for as it ends
        self._first = True

    def write(self, make: Callable[[], Record]) -> None:
        """Make a record and write it, in the thread; returns at once."""
        self._pool.submit(self._write, make)

    def flush(self) -> None:
        """Wait for what was given so far."""
        self._pool.submit(int).result()

    def _write(self, make: Callable[[], Record]) -> None:
        try:
            record = make()
            if self._first:
                self._set_aside(record.step)
            write_record(record, self.folder)
            self._first = False
        except Exception as error:
            warn_once(f"records cannot be written to {self.folder}: {type(error).__name__}: {error}; training goes on")

    def _set_aside(self, step: int) -> None:
        """Move records from this step on to a folder of their own: they are of a run before this one."""
        paths = [path for path in self.folder.glob("step_*.parquet") if int(path.stem.removeprefix("step_")) >= step]
        if not paths:
            return
        aside, number = self.folder / "previous", 1
        while aside.exists():
            number += 1
            aside = self.folder / f"previous_{number}"
        aside.mkdir()
        for path in paths:
            os.replace(path, aside / path.name)
