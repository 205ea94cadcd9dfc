"""requirements/install.sh on machines that lack something: which Python it takes, and what it says otherwise.

Who has no suitable Python sees these lines before anything else of this project. The script runs unchanged, with
stand-ins for Python, uv and uname as all that is on its path, so that nothing is installed. Not exercised: pip's part,
which every `make test` on a fresh machine does, and uv's download.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / "requirements" / "install.sh"
TOOLS = (
    "bash",
    "cat",
    "chmod",
    "cp",
    "cut",
    "dirname",
    "grep",
    "head",
    "ls",
    "mkdir",
    "mktemp",
    "rm",
    "sha256sum",
    "sort",
)
# Answers the script's question with WORDS, makes environments that hold itself, and writes down what pip is asked for.
PYTHON = """#!/bin/bash
case "$1 $2" in
  "-c "*version_info*ensurepip*) echo "WORDS" ;;
  "-c "*) echo "VERSION" ;;
  "-m venv") for last; do :; done
    rm -rf "$last"; mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; echo WORDS > "$last/pyvenv.cfg" ;;
  "-m pip") echo "$*" >> "$PIP_LOG"
    case "$*" in *" uv") cp "$FAKES/uv_of_pypi" "$(dirname "$0")/uv" ;; esac ;;
esac
"""
UV = """#!/bin/bash
echo "uv $*" >> "$PIP_LOG"
[ -z "$UV_FAILS" ] || { echo "error: no network" >&2; exit 2; }
for last; do :; done
mkdir -p "$last/bin"; cp "$FAKES/brought" "$last/bin/python"; echo uv > "$last/pyvenv.cfg"
"""


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


class Machine:
    """A folder as the whole path: tools, and stand-ins."""

    def __init__(self, folder):
        self.path, self.venv, self.log = folder / "bin", folder / "venv", folder / "pip.log"
        self.fakes = folder / "fakes"
        self.path.mkdir()
        self.fakes.mkdir()
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool))
        self.script("uname", '#!/bin/bash\n[ "$1" = -s ] && echo Linux || echo x86_64\n')
        self.script("getconf", "#!/bin/bash\necho glibc 2.36\n")

    def script(self, name, text, folder=None):
        place = (folder or self.path) / name
        place.write_text(text)
        place.chmod(0o755)
        return place

    def python(self, name, words, folder=None):
        version = ".".join(words.removeprefix("no ").split(".")[:2])
        return self.script(name, PYTHON.replace("WORDS", words).replace("VERSION", version), folder)

    def uv(self, name="uv", folder=None):
        self.python("brought", "3.12.9 venv", self.fakes)
        return self.script(name, UV, folder)

    def install(self, **environment):
        base = {"PATH": str(self.path), "HOME": str(self.path), "PIP_LOG": str(self.log), "FAKES": str(self.fakes)}
        command = ["bash", str(INSTALL), str(self.venv)]
        done = subprocess.run(command, env=base | environment, capture_output=True, text=True, timeout=180)
        return done.returncode, done.stdout + done.stderr

    @property
    def made_by(self):
        return (self.venv / "pyvenv.cfg").read_text().strip()


def test_the_list_of_pins_is_installed_once(machine):
    machine.python("python3", "3.12.3 venv")
    code, text = machine.install()
    assert code == 0 and machine.made_by == "3.12.3 venv", text
    asked = machine.log.read_text()
    assert "install torch==" in asked and f"--no-deps -r {ROOT / 'requirements' / 'cpu.txt'}" in asked
    machine.log.unlink()
    assert machine.install() == (0, "")
    assert not machine.log.exists()


def test_the_interpreter_that_is_tried_most_comes_first(machine):
    for name, words in (("python3", "3.12.3 venv"), ("python3.10", "3.10.13 venv"), ("python3.11", "3.11.7 venv")):
        machine.python(name, words)
    assert machine.install()[0] == 0
    assert machine.made_by == "3.11.7 venv"


def test_one_that_cannot_make_environments_is_passed_over(machine):
    machine.python("python3.11", "3.11.2")
    machine.python("python3", "3.10.12 venv")
    assert machine.install()[0] == 0
    assert machine.made_by == "3.10.12 venv"


def test_pyenv_has_one_that_is_not_on_the_path(machine):
    machine.python("python3", "no 3.13.0 venv")
    folder = machine.path / ".pyenv" / "versions" / "3.12.1" / "bin"
    folder.mkdir(parents=True)
    machine.python("python", "3.12.1 venv", folder)
    assert machine.install()[0] == 0
    assert machine.made_by == "3.12.1 venv"


def test_debian_without_the_package_of_venv(machine):
    machine.python("python3", "3.12.3")
    code, text = machine.install()
    assert code == 1 and "python3 is Python 3.12" in text
    assert "sudo apt-get install python3.12-venv" in text
    assert machine.install(PYTHON=str(machine.path / "python3")) == (
        1,
        text.replace("python3 is", f"{machine.path}/python3 is"),
    )
    assert not machine.venv.exists()


@pytest.mark.parametrize("found", ["nothing", "python3 2.7.18"])
def test_no_suitable_python(machine, found):
    if found != "nothing":
        machine.python("python3", "no 2.7.18")
    code, text = machine.install()
    assert code == 1 and f"Python 3.10, 3.11 or 3.12 is needed, and none is here (found: {found})" in text
    for line in (
        "apt-get install python3 python3-venv",
        "dnf install python3.12",
        "ppa:deadsnakes/ppa",
        "uv python install",
    ):
        assert line in text
    assert not machine.venv.exists()


@pytest.mark.parametrize("bare", [False, True], ids=["too new", "without venv"])
def test_uv_on_the_path_makes_the_environment(machine, bare):
    machine.python("python3", "3.12.3" if bare else "no 3.14.0 venv")
    machine.uv()
    code, text = machine.install()
    assert code == 0 and machine.made_by == "uv", text
    assert f"--seed --python {'python3' if bare else '3.12'} {machine.venv}" in machine.log.read_text()


def test_uv_comes_from_pypi_where_a_python_that_does_not_suit_can_fetch_it(machine):
    machine.python("python3", "no 3.14.0 venv")
    machine.uv("uv_of_pypi", machine.fakes)
    code, text = machine.install(TMPDIR=str(machine.fakes))
    assert code == 0 and machine.made_by == "uv", text
    assert not list(machine.fakes.glob("tmp*"))
    shutil.rmtree(machine.venv)
    code, text = machine.install(TMPDIR=str(machine.fakes), UV_FAILS="1")
    assert code == 1 and "error: no network" in text and "found: python3 3.14.0" in text and "dnf install" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("no 3.13.0 venv", "is Python 3.13.0, but the pinned environment is for 3.10, 3.11 or 3.12"),
        (None, "does not run"),
    ],
)
def test_a_named_python_that_does_not_suit(machine, words, message):
    named = machine.python("mine", words) if words else machine.path / "mine"
    machine.python("python3", "3.11.7 venv")  # another one is not taken instead
    code, text = machine.install(PYTHON=str(named))
    assert code == 1 and f"PYTHON={named} {message}" in text
    assert not machine.venv.exists()


def test_an_environment_of_another_python_is_made_anew(machine):
    machine.python("python3.11", "3.11.7 venv")
    other = machine.python("other", "3.12.3 venv")
    assert machine.install()[0] == 0
    (machine.venv / "leftover").touch()
    assert machine.install() == (0, "")
    assert machine.install(PYTHON=str(other))[0] == 0
    assert machine.made_by == "3.12.3 venv" and not (machine.venv / "leftover").exists()
    assert machine.install() == (0, "")  # and kept, though 3.11 would come first


def test_an_environment_whose_interpreter_is_gone_is_made_anew(machine):
    machine.python("python3", "3.11.7 venv")
    assert machine.install()[0] == 0
    (machine.venv / "bin" / "python").unlink()
    (machine.venv / "leftover").touch()
    assert machine.install()[0] == 0
    assert not (machine.venv / "leftover").exists()


def test_a_folder_that_is_no_environment_is_left_alone(machine):
    machine.python("python3", "3.11.7 venv")
    machine.venv.mkdir()
    (machine.venv / "thesis.txt").touch()
    code, text = machine.install()
    assert code == 1 and "no virtual environment" in text
    assert (machine.venv / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("system", "processor", "libc", "code", "message"),
    [
        (
            "Darwin",
            "arm64",
            "glibc 2.36",
            1,
            "Darwin on arm64: vLLM has CPU wheels for Linux on x86_64 and aarch64 alone",
        ),
        ("Linux", "ppc64le", "glibc 2.36", 1, "Linux on ppc64le"),
        ("Linux", "x86_64", "glibc 2.28", 1, "glibc 2.28 is too old for the pinned wheels, which need 2.31"),
        ("Linux", "x86_64", None, 1, "no glibc (Alpine?)"),
        ("Linux", "aarch64", "glibc 2.36", 0, "nobody has run this there"),
        ("Linux", "x86_64", "glibc 2.31", 0, ""),
    ],
)
def test_machines(machine, system, processor, libc, code, message):
    machine.python("python3", "3.12.3 venv")
    machine.script("uname", f'#!/bin/bash\n[ "$1" = -s ] && echo {system} || echo {processor}\n')
    machine.script("getconf", f"#!/bin/bash\necho {libc}\n" if libc else "#!/bin/bash\nexit 1\n")
    found, text = machine.install()
    assert found == code and message in text
    assert machine.venv.exists() == (code == 0)


def test_the_question_to_an_interpreter(machine):
    """Asked of a real one: this one."""
    (machine.path / "python3").symlink_to(sys.executable)
    text = INSTALL.read_text()
    code = text[text.index("import sys\nwords") : text.index("' 2> /dev/null\n}")]
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer == f"{'.'.join(map(str, sys.version_info[:3]))} venv\n"


def test_pins_of_one_package_are_for_different_pythons():
    from packaging.requirements import Requirement

    lines = [Requirement(line) for line in (ROOT / "requirements" / "cpu.txt").read_text().splitlines()]
    for version in ("3.10", "3.11", "3.12"):
        for processor in ("x86_64", "aarch64"):
            environment = {"python_version": version, "platform_machine": processor}
            names = [line.name for line in lines if line.marker is None or line.marker.evaluate(environment)]
            assert len(names) == len(set(names)) > 220
    assert all(str(line.specifier).startswith("==") for line in lines)
