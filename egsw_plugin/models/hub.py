"""A model from the Hugging Face hub, or from a folder: the files that transformers and vLLM read, and no others."""

import json
import shutil
from pathlib import Path

from ..errors import ModelError

_OTHER_FORMATS = {".bin", ".pt", ".pth", ".h5", ".msgpack", ".ot", ".onnx", ".gguf", ".tflite", ".ckpt"}


def fetch(hub_id: str, revision: str | None, out: Path) -> str:
    """Downloads a snapshot into ``out``; what an earlier call left there is taken up again.

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
    shutil.rmtree(out / ".cache", ignore_errors=True)
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
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{origin} is no model for transformers: it has no readable config.json") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(f"{origin} is no model for transformers: its config.json names no model_type")
    if not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        raise ModelError(f"{origin} has no weights, *.safetensors or *.bin")
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{origin} has no tokenizer")


def has_chat_template(folder: Path) -> bool:
    """Whether its tokenizer can turn messages into a prompt, as verl asks it to."""
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template"))
    except (OSError, ValueError):
        return False


def _reason(error: Exception, hub_id: str, revision: str | None) -> Exception:
    import httpx
    from huggingface_hub import errors

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)

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
