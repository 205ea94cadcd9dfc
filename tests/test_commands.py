"""Every command in the documentation is one that the program takes.

A page that names a target, a flag or an option that is gone costs its reader an evening. So each block of shell in
README.md, docs/, and the READMEs of recipes, patches and benchmarks is run by bash, in a folder where every program
is a stand-in that notes its arguments: loops, quotes and variables are the shell's own business. What was noted is
then put to the real thing: make's dry run, the command's argument parser, verl's and this plugin's reading of a
configuration. Commands on records are really run. Not exercised: what a launcher or a download does (`make test` runs
the launchers).
"""

import copy
import functools
import importlib.metadata
import importlib.util
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import verl.utils.config
from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from launches import COMPLETE
from markdown_it import MarkdownIt
from test_records import record_of

from egsw_plugin import cli
from egsw_plugin.data.reasoning_gym import STYLES
from egsw_plugin.data.sources import SOURCES
from egsw_plugin.errors import OptionError
from egsw_plugin.kernels import compiled
from egsw_plugin.records import store
from egsw_plugin.study.grid import GridError, read_grid

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "recipes", "patches", "benchmarks")
PAGES = [ROOT / "README.md", *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
SCRIPTS = [path.relative_to(ROOT) for path in [*(ROOT / "recipes").rglob("*.sh"), *(ROOT / ".ci").iterdir()]]
PROGRAMS = ["make", "egsw-plugin", "python", "python3", "pip", "bash", "ray", "pytest", "ruff", "mypy", "mkdocs", "hf"]

# What stands for something of the reader's own, and what stands in its place here.
PLACEHOLDERS = {
    "COMMAND": "doctor",
    "GRID": "recipes/study/grid.yaml",
    "LAUNCHER": "recipes/tiny_cpu/run_tiny.sh",
    "PATH.py:OBJECT": "examples/late_tokens.py:LateTokens",
    "my/train.parquet": "train.parquet",
    "/home/me/late_tokens.py": "examples/late_tokens.py",
    "/shared/egsw_plugin/recipes": "recipes",
}
OVERRIDES = re.compile(r"(\.\.\. )?'?\+?[a-z_]+(\.[a-z_]+)+=")  # a line of hydra overrides alone
REFUSALS = (AssertionError, OSError, GridError, HydraException, OptionError)
MAIN = "python -m verl.trainer.main_ppo"


class Call(NamedTuple):
    """A program with its arguments, and the variables that were set for it."""

    program: str
    arguments: list[str]
    variables: dict[str, str]

    def __str__(self):
        return " ".join([self.program, *self.arguments])


@functools.cache
def shell_of(page):
    """The scripts of a page: blocks that begin with a command or with overrides, and commands within the text."""
    scripts = []
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    for token in tokens:
        if token.type in ("fence", "code_block") and token.info in ("", "sh"):
            lines = token.content.replace("\\\n", " ").splitlines()
            lines = [f"{MAIN} {line}" if OVERRIDES.match(line) else line for line in lines]
            if begins_with_a_program(lines[0]):
                scripts.append("\n".join(lines))
        for inner in token.children or ():
            if inner.type == "code_inline" and begins_with_a_program(inner.content):
                scripts.append("export IN_TEXT=yes; " + inner.content.replace("=...", "=_"))
    return scripts


def begins_with_a_program(text):
    first = next((word for word in text.split() if not re.match(r"[A-Z_]+=", word)), "")
    name = Path(first).name
    launcher = first.endswith(".sh") and "/" in first and not first.startswith("..")
    return launcher or first == "for" or (name in PROGRAMS and len(text.split()) > 1)


@pytest.fixture(scope="session")
def play(tmp_path_factory):
    """Runs a script with stand-ins for all programs, and returns the calls."""
    folder = tmp_path_factory.mktemp("commands")
    noted = folder / "noted"
    stand_in = folder / "stand_in"
    # Arguments, then the environment; \1 cannot stand in either.
    stand_in.write_text(
        f'#!/bin/sh\n{{ printf "%s\\0" "$0" "$@"; printf "\\1\\0"; env -0; printf "\\1\\0"; }} >> {noted}\n'
    )
    stand_in.chmod(0o755)
    places = [folder / "bin" / name for name in PROGRAMS]
    places += [folder / venv / "bin" / name for venv in (".venv", ".venv-docs") for name in PROGRAMS]
    for place in [*places, *(folder / script for script in SCRIPTS)]:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(stand_in)

    @functools.cache
    def run(script):
        for word, ours in PLACEHOLDERS.items():
            script = re.sub(rf"(?<![\w/.]){re.escape(word)}(?![\w])", ours, script)
        noted.write_text("")
        given = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "OUT": "out", "HOME": str(folder)}
        command = ["/bin/bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, f"{done.stderr}{script}"
        calls, rest = [], noted.read_text().split("\0")
        while "\1" in rest:
            at = rest.index("\1")
            until = rest.index("\1", at + 1)
            program, *arguments = rest[:at]
            variables = dict(pair.split("=", 1) for pair in rest[at + 1 : until])
            variables = {k: v for k, v in variables.items() if given.get(k) != v and k not in ("PWD", "SHLVL", "_")}
            program = Path(program).name if "bin" in Path(program).parts else program
            calls.append(Call(program, arguments, variables))
            rest = rest[until + 1 :]
        return calls

    return run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_taken(page, play):
    for script in shell_of(page):
        for call in play(script):
            check(call, play)


def test_pages_hold_commands():
    """What is not recognised as a command would pass for nothing."""
    found = {str(page.relative_to(ROOT)): shell_of(page) for page in PAGES}
    for page in ("README.md", "docs/contributing.md", "docs/data.md", "docs/records.md", "docs/tools.md"):
        assert sum(len(script.splitlines()) for script in found[page]) > 6, page


@pytest.mark.parametrize(
    "script,words",
    [
        ("make dmeo", "No rule to make target"),
        ("make demo STEP=3", "the Makefile has no STEP"),
        ("make demo MODEL=llama", "use tiny or smollm2"),
        ("make demo ARGS=algorithm.egsw.alhpa=1", "did you mean 'alpha'"),
        ("make study ARGS=--quickly", "--quickly"),
        ("make smoke RECIPE=recipes/egsw/run_qwen.sh", "recipes/egsw/run_qwen.sh"),
        ("egsw-plugin reprot outputs/demo", "reprot"),
        ("egsw-plugin inspect outputs/run --methods gtpo", "--methods"),
        ("egsw-plugin data aime-2023 --out data", "aime-2023"),
        ("egsw-plugin data math --out data --prompt thinking", "thinking"),
        ("egsw-plugin study run recipes/study/grid.yaml --only egsw_alpha7", "egsw_alpha7"),
        (f"egsw-plugin doctor -- {MAIN} algorithm.adv_estimator=egws", "did you mean 'egsw'"),
        (f"{MAIN} algorithm.adv_estimator=egsw +algorithm.egsw.alhpa=0.5", "did you mean 'alpha'"),
        (f"{MAIN} +algorithm.grpo_s.alpha1=1", "that is algorithm.gtpo.alpha1"),
        (f"{MAIN} algorithm.adv_estimator=egsw data.train_file=x", "train_file"),
        ("python benchmarks/advantage_steps.py", "advantage_steps.py"),
        ("python benchmarks/advantage_step.py --row 4", "no --row"),
        ("pip install '.[receipts]'", "receipts"),
        ("METHOD=egws bash recipes/egsw/run_qwen2.5_math_7b.sh", "METHOD=egws"),
        ("SEEDS=3 bash recipes/egsw/run_qwen2.5_math_7b.sh", "SEEDS does nothing"),
        ("bash recipes/egsw/run_qwen2.5_math_7b.sh algorithm.egsw.alhpa=1", "did you mean 'alpha'"),
        ("recipes/egsw/run.sh", "recipes/egsw/run.sh"),
        ("for name in a b; do egsw-plugn data $name; done", "egsw-plugn"),
    ],
)
def test_a_wrong_command_is_noticed(script, words, play, capsys):
    with pytest.raises(REFUSALS) as caught:
        for call in play(script):
            check(call, play)
    assert words in str(caught.value) + capsys.readouterr().err


def check(call, play):
    """Fails unless the program that is called would take these arguments."""
    checks = {"make": check_make, "egsw-plugin": check_command, "pip": check_pip, "bash": check_bash}
    if call.program in checks:
        checks[call.program](call, play)
    elif call.program in ("python", "python3"):
        check_python(call)
    elif call.program.startswith("recipes/"):
        check_launcher(call)
    else:
        assert call.program in ("ray", "pytest", "ruff", "mypy", "mkdocs", "hf", ".ci/newest_verl"), call


def check_make(call, play):
    """The dry run goes through, each variable is one of the Makefile's, and what would be run is taken, too."""
    makefile = (ROOT / "Makefile").read_text()
    for argument in call.arguments:
        name, assigned, _ = argument.partition("=")
        assert not assigned or re.search(rf"\$\({name}\)", makefile), f"{call}: the Makefile has no {name}"
    for inner in play(dry_run(tuple(call.arguments))):
        if inner.program != "make":
            check(inner, play)


@functools.cache
def dry_run(arguments):
    # Whether environments are there already makes no difference: what would make them is not shown.
    command = ["make", "--dry-run", "--no-print-directory", "-o", ".venv-docs/.installed", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return "\n".join(line.lstrip("@") for line in done.stdout.splitlines())


def check_command(call, play):
    """The real parser; and what the parser takes on trust."""
    if "IN_TEXT" in call.variables and not any(argument.startswith("-") for argument in call.arguments):
        # A sentence may name a command without all that it needs.
        call = call._replace(arguments=[*call.arguments, "--help"])
    split = call.arguments.index("--") if "--" in call.arguments else len(call.arguments)
    behind = call.arguments[split + 1 :]
    try:
        arguments = cli._parser().parse_args(call.arguments[:split])
    except SystemExit as end:
        assert end.code == 0, f"{call}: not accepted"
        return
    command = call.arguments[0]
    if command == "data" and arguments.name != "all":
        assert arguments.name in [*SOURCES, "reasoning-gym"], call
        own = SOURCES[arguments.name].styles if arguments.name in SOURCES else STYLES
        assert arguments.prompt is None or arguments.prompt in own, call
        assert arguments.examples is None or (ROOT / arguments.examples).is_file(), call
    if command == "study" and arguments.grid.name != "mine.yaml":
        grid = read_grid(ROOT / arguments.grid)
        assert not getattr(arguments, "only", None) or set(arguments.only) <= set(grid.cells), call
    if command == "run":
        check(Call(behind[0], behind[1:], {}), play)
    if command == "doctor" and behind:
        check_overrides(behind[behind.index("verl.trainer.main_ppo") + 1 :] if "-m" in behind else behind)


def check_overrides(overrides):
    """verl composes and validates them, and with it this plugin; of our options, any may stand without the `+`."""
    accepted(tuple(overrides))


@functools.cache
def accepted(overrides):
    ours = re.compile(r"algorithm\.(egsw|gtpo|grpo_s|credit|record)[.=]")
    # tests/test_package.py composes a recipe out of the package, which takes hydra whole.
    others = ("...", "hydra.searchpath=[pkg://egsw_plugin.recipes]", "+method=gtpo")
    given = ["+" + text if ours.match(text) else text for text in overrides if text not in others]
    names = {text.lstrip("+").partition("=")[0] for text in given}
    if not any(name.startswith("algorithm.adv_estimator") for name in names):
        owner = next((ours.match(name + ".")[1] for name in names if ours.match(name + ".")), "grpo")
        given.append(f"algorithm.adv_estimator={ {'credit': 'egsw_plugin', 'record': 'grpo'}.get(owner, owner) }")
    given += [text for text in COMPLETE if text.partition("=")[0] not in names]
    config = copy.deepcopy(verls_configuration())
    # What hydra's compose does last; the rest of it is the same for all, and takes a second.
    overrides = OverridesParser.create().parse_overrides(given)
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)
    verl.utils.config.validate_config(config, use_reference_policy=False, use_critic=False)


@functools.cache
def verls_configuration():
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer")


def check_python(call):
    arguments = call.arguments
    if arguments[:2] == ["-m", "verl.trainer.main_ppo"]:
        check_overrides(arguments[2:])
    elif arguments[0] == "-c":
        compile(arguments[1], str(call), "exec")
    elif arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]), call
    else:
        source = (ROOT / arguments[0]).read_text()
        for flag in [argument for argument in arguments[1:] if argument.startswith("--")]:
            assert f'"{flag}"' in source, f"{call}: no {flag}"


def check_pip(call, play):
    extras = importlib.metadata.metadata("egsw-plugin").get_all("Provides-Extra")
    for argument in call.arguments[1:]:
        for named in re.findall(r"^(?:\.|egsw-plugin)\[(.*)\]$", argument):
            assert set(named.split(",")) <= set(extras), call


def check_bash(call, play):
    script, *arguments = call.arguments
    if script == "recipes/smoke/smoke.sh":
        script, *arguments = arguments
    assert (ROOT / script).is_file(), call
    if script.startswith("recipes/"):
        check_launcher(Call(script, arguments, call.variables))


def check_launcher(call):
    """It is there, it knows the variables that are set for it and the method, and verl the overrides."""
    text = (ROOT / call.program).read_text() + (ROOT / "recipes" / "launch.sh").read_text()
    for name in set(call.variables) - {"IN_TEXT"}:
        assert re.search(rf"\b{name}=\$|\${{?{name}\b", text), f"{call}: {name} does nothing"
    method = call.variables.get("METHOD", "grpo")
    assert (ROOT / "recipes" / "method" / f"{method}.yaml").is_file(), f"{call}: METHOD={method}"
    printing = call.arguments[-2:] == ["--cfg", "job"]
    check_overrides(call.arguments[:-2] if printing else call.arguments)


def lines_about_records():
    for page in PAGES:
        for script in shell_of(page):
            yield from (
                line for line in script.splitlines() if re.match(r"egsw-plugin (inspect|whatif) outputs/run", line)
            )


@pytest.mark.timeout(600)
def test_commands_on_records_run(play, tmp_path, monkeypatch, capsys):
    """All of `inspect` and `whatif`, on the records of a step, each in its turn."""
    monkeypatch.setattr(compiled, "loops_for", lambda tensor: None)
    monkeypatch.chdir(tmp_path)
    store.write_record(record_of(20, 20), tmp_path / "outputs" / "run" / "records")
    calls = {str(call): call for line in lines_about_records() for call in play(line)}
    assert len(calls) >= 8
    for call in calls.values():
        assert cli.main(call.arguments) == 0, f"{call}: {capsys.readouterr().err}"
    assert {path.name for path in (tmp_path / "outputs" / "whatif").iterdir()} >= {"whatif.csv", "whatif.md"}
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert "egsw alpha=0.5 temperature=3" in capsys.readouterr().out


def test_the_grid_of_ones_own(tmp_path):
    """The grid in recipes/study/README.md is one."""
    page = (ROOT / "recipes" / "study" / "README.md").read_text()
    text = next(
        t.content for t in MarkdownIt().parse(page) if t.type == "code_block" and t.content.startswith("launcher:")
    )
    place = tmp_path / "mine.yaml"
    place.write_text(text.replace("run_target.sh", str(ROOT / "recipes" / "study" / "run_target.sh")))
    assert len(read_grid(place).runs(None, None)) == 6
