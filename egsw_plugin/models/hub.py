"""A model from the Hugging Face hub, or from a folder: the files that transformers and vLLM read, and no others."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from ..errors import ModelError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_OTHER_FORMATS = {".bin", ".pt", ".pth", ".h5", ".msgpack", ".ot", ".onnx", ".gguf", ".tflite", ".ckpt"}


def fetch(hub_id: str, revision: str | None, out: Path) -> str:
    """Downloads a snapshot into ``out``; of what an earlier call left there, the snapshot's files are taken up again.

    Returns:
        The commit.

    Raises:
        ModelError: It cannot be had, or is no model.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        about = HfApi().model_info(hub_id, revision=revision)
        names = wanted([file.rfilename for file in about.siblings or []])
        snapshot_download(hub_id, revision=about.sha, local_dir=out, allow_patterns=names)
    except Exception as error:  # huggingface_hub, httpx and the file system each have their own
        raise _reason(error, hub_id, revision) from error
    for path in out.iterdir():  # the hub's own notes, and what an earlier call for another model left
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    check(out, hub_id)
    return str(about.sha)


def copy(folder: Path, out: Path) -> None:
    """Copies a model's files from another folder.

    Raises:
        ModelError: It holds no model.
    """
    check(folder, str(folder))
    for name in wanted([path.name for path in folder.iterdir() if path.is_file()]):
        shutil.copyfile(folder / name, out / name)


def wanted(names: list[str]) -> list[str]:
    """The files of the top folder; weights in one format, safetensors where there are some.

    >>> wanted(["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx", ".gitattributes"])
    ['config.json', 'model.safetensors']
    >>> wanted(["config.json", "pytorch_model.bin", "model.gguf"])
    ['config.json', 'pytorch_model.bin']
    """
    top = [name for name in names if "/" not in name and not name.startswith(".") and name != "provenance.json"]
    safe = any(name.endswith(".safetensors") for name in top)
    unwanted = _OTHER_FORMATS if safe else _OTHER_FORMATS - {".bin"}
    index = ".bin.index.json" if safe else ".safetensors.index.json"
    return [name for name in top if Path(name).suffix not in unwanted and not name.endswith(index)]


def check(folder: Path, origin: str) -> None:
    """Refuses a folder without configuration, weights or tokenizer.

    Raises:
        ModelError: What is missing.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{origin} is no model for transformers: it has no readable config.json") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{origin} is no model for transformers: its config.json names no model_type")
    weights = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in (".safetensors", ".bin")]
    if not any("adapter" not in path.name for path in weights):
        raise ModelError(f"{origin} has no weights, *.safetensors or *.bin")
    for path in weights:
        if path.suffix == ".safetensors" and (wrong := _wrong_weights(path)):
            raise ModelError(f"{origin}: {path.name} {wrong}; fetch it again")
    kind = next((".safetensors" for path in weights if path.suffix == ".safetensors"), ".bin")
    for index in folder.glob(f"*{kind}.index.json"):
        if absent := sorted(name for name in _shards(index) if not (folder / name).is_file()):
            raise ModelError(f"{origin}: {index.name} names {absent[0]}, which is not there; fetch it again")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{origin} has no tokenizer")
    if (folder / "tokenizer.json").exists() and not _section(folder / "tokenizer.json"):
        raise ModelError(f"{origin}: tokenizer.json cannot be read; fetch it again")


def _wrong_weights(path: Path) -> str | None:
    """What a file of weights that was cut, or never fetched, lacks: by its header, without reading it all."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            return "is no safetensors file (a Git LFS pointer?)"
        try:
            header = json.loads(file.read(length))
            end = max((one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return "is no safetensors file"
    return None if 8 + length + end == size else f"has {size} bytes, not the {8 + length + end} that its header names"


def _shards(index: Path) -> set[str]:
    names = _section(index).get("weight_map", {})
    return {name for name in names.values() if isinstance(name, str)} if isinstance(names, dict) else set()


def _section(path: Path) -> dict[str, Any]:
    """A JSON file's section; empty if it cannot be read or holds another thing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def has_chat_template(folder: Path) -> bool:
    """Whether its tokenizer can turn messages into a prompt, as verl asks it to."""
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    return bool(_section(folder / "tokenizer_config.json").get("chat_template"))


def causes(error: BaseException) -> list[BaseException]:
    """An error and what led to it, the last first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _reason(error: Exception, hub_id: str, revision: str | None) -> Exception:
    import httpx
    from huggingface_hub import errors

    chain = causes(error)

    def among(*kinds: type) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if among(errors.GatedRepoError):
        page = f"https://huggingface.co/{hub_id}"
        return ModelError(f"{hub_id} is gated: accept its terms at {page}, then `hf auth login` or set HF_TOKEN")
    if among(errors.RevisionNotFoundError):
        return ModelError(f"{hub_id} has no revision {revision!r}")
    if among(errors.RepositoryNotFoundError):
        return ModelError(f"the hub has no model {hub_id}, or it is private: `hf auth login` or set HF_TOKEN")
    if among(errors.OfflineModeIsEnabled):
        return ModelError(f"cannot reach the hub for {hub_id}: HF_HUB_OFFLINE is set")
    if among(httpx.TransportError, ConnectionError, TimeoutError):
        return ModelError(f"cannot reach the hub for {hub_id}; check the network, or name a folder that has the model")
    if isinstance(error, OSError) and not isinstance(error, httpx.HTTPError | errors.HfHubHTTPError):
        return error
    words = (str(error) or type(error).__name__).strip().splitlines()[0]
    return ModelError(f"cannot load {hub_id}: {words}")
