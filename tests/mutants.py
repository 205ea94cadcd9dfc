"""Breaks the package in one place at a time and says which breakages no test notices (make mutants).

    python tests/mutants.py --files kernels/shaping.py report/estimates.py --sample 20 --seed 1

Each mutant is one small change: a comparison at its boundary, a number by one or twofold, and/or, a sign, + and -, min
and max, a condition the other way round, a statement left out. The tests that belong to the file run on a copy of the
checkout until one fails. Verdicts are appended to a file, and a second call goes on where the first one stopped.

mutmut 3 leaves out decorated functions, which all loops of the kernels are, and cosmic-ray starts Python anew for each
mutant: 10 seconds of imports. Here a process that has imported what verl needs is forked, and the loops run without
numba's compiler. What Python makes of the other files is kept beside them in the copy; of the broken one it is not. A
test that fails is run without the mutant, too: it counts only if it passes then.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import gc
import hashlib
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "egsw_plugin"
VERDICTS = ROOT / "outputs" / "mutants.jsonl"
COPIED = ("egsw_plugin", "tests", "examples", "recipes", "patches", "benchmarks", "pyproject.toml", "Makefile")

# The tests of each file, the quickest and the most telling first; the first pattern that fits counts. Beside them its
# own doctests.
KERNELS = "test_loops.py test_egsw.py test_shaped.py"
FAMILY = "test_family.py test_family_driver.py"
FUZZ = "test_fuzz.py::test_random_cases[0]"  # 500 of its cases
TESTS = {
    "kernels/egsw.py": f"test_egsw.py test_loops.py {FUZZ}",
    "kernels/gtpo.py": f"test_reference_shaping.py test_shaped.py {FUZZ}",
    "kernels/grpo_s.py": f"test_reference_shaping.py test_shaped.py {FUZZ}",
    "kernels/normalization.py": f"test_boundaries.py test_reference_shaping.py test_shaped.py {FUZZ}",
    "kernels/shaping.py": f"test_boundaries.py test_reference_shaping.py test_shaped.py {FUZZ}",
    "kernels/policy_loss.py": "test_boundaries.py test_family_losses.py test_policy_loss.py",
    "kernels/selection.py": f"test_boundaries.py {FAMILY}",
    "kernels/sessions.py": "test_boundaries.py test_bridge.py test_egsw.py",
    "kernels/groups.py": "test_egsw.py test_shaped.py test_bridge.py",
    "kernels/*": KERNELS,
    "methods/egsw.py": "test_egsw.py test_family.py test_startup.py",
    "methods/shaped.py": "test_shaped.py test_startup.py test_family.py",
    "methods/gtpo.py": "test_shaped.py test_startup.py",
    "methods/grpo_s.py": "test_shaped.py test_startup.py",
    "methods/losses.py": "test_policy_loss.py test_family_losses.py test_startup.py",
    "methods/rules.py": "test_policy_loss.py test_family_losses.py",
    "methods/ce_gppo.py": "test_family_losses.py",
    "methods/fipo.py": "test_family_losses.py",
    "methods/pages.py": "test_docs.py",
    "methods/*": f"{FAMILY} test_family_losses.py test_startup.py",
    "controllers.py": "test_controllers.py",
    "fields.py": f"test_policy_loss.py test_family_losses.py {FAMILY}",
    "measure.py": "test_egsw.py test_shaped.py test_family.py",
    "options/*": f"test_startup.py {FAMILY} test_controllers.py",
    "verl_adapter/bases.py": "test_bridge.py test_egsw.py test_startup.py",
    "verl_adapter/recording.py": "test_records.py",
    "verl_adapter/worker.py": "test_policy_loss.py test_bridge.py",
    "verl_adapter/composition.py": "test_doctor.py",
    "verl_adapter/checks.py": "test_boundaries.py test_egsw.py test_shaped.py test_bridge.py",
    "verl_adapter/__init__.py": "test_policy_loss.py test_bridge.py test_startup.py",
    "verl_adapter/hooks.py": "test_policy_loss.py test_bridge.py test_startup.py test_controllers.py",
    "verl_adapter/configuration.py": "test_startup.py test_messages.py test_bridge.py",
    "verl_adapter/*": "test_bridge.py test_startup.py test_controllers.py test_egsw.py",
    "rewards/reasoning_gym.py": "test_reasoning_gym.py",
    "rewards/gym_tasks.py": "test_reasoning_gym.py",
    "rewards/readings.py": "test_reasoning_gym.py",
    "rewards/*": "test_rewards.py test_grading_kinds.py test_grading_forms.py",
    "report/estimates.py": "test_boundaries.py test_estimates.py",
    "data/*": "test_data.py",
}
DEFAULT = ("kernels", "methods", "verl_adapter", "rewards", "report/estimates.py", "controllers.py", "fields.py")
# Tests that start processes of their own: they take long, and look at whole programs.
LEFT_OUT = (
    "not without_the_compiler and not numba and not compiled_as_the_trainer and not batch_alone and not same_bytes "
    "and not left_behind and not before_ray_starts and not documentations_tables"
)
# What costs time to import and knows nothing of this package; verl does not if its plugins are left out.
WARM = "pytest hypothesis scipy.stats pandas math_verify verl.trainer.main_ppo verl.trainer.ppo.v1"
WARM += " verl.workers.utils.losses verl.utils.config verl.trainer.ppo.reward"

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ONE_SIDED = {ast.Eq: ast.LtE, ast.NotEq: ast.Lt}  # of numbers: a file with more rows than it should have
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
NAMES = {
    "min": "max", "amin": "amax", "minimum": "maximum", "any": "all", "floor": "ceil", "sorted": "list", "sum": "max",
}  # fmt: skip
NAMES |= {new: old for old, new in list(NAMES.items()) if new not in ("list", "max")} | {"max": "min"}


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of a node."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for table in (COMPARISONS, ONE_SIDED):
                if type(operator) in table and not (table is ONE_SIDED and not _numbers(node)):
                    new = copy.deepcopy(node)
                    new.ops[place] = table[type(operator)]()
                    yield new
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        if len(node.values) == 2:
            yield from node.values
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        elif isinstance(node.value, float):
            yield ast.Constant(node.value * 2 or 1.0)
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if name in NAMES:
            new = copy.deepcopy(node)
            if isinstance(new.func, ast.Attribute):
                new.func.attr = NAMES[name]
            else:
                new.func = ast.Name(NAMES[name])
                new.keywords = [] if name == "sorted" else new.keywords
            yield new
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Continue | ast.Break) or (
        isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
    ):
        yield ast.Pass()
    elif isinstance(node, ast.keyword) and node.arg in ("min", "max"):
        yield ast.keyword("max" if node.arg == "min" else "min", node.value)


def _numbers(node: ast.Compare) -> bool:
    """Whether what is compared looks like numbers: a constant, a length, or names alone."""
    sides = [node.left, *node.comparators]
    return any(isinstance(side, ast.Constant) and isinstance(side.value, int | float) for side in sides) or any(
        isinstance(side, ast.Call) and getattr(side.func, "id", "") == "len" for side in sides
    )


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """Each mutant of a file: its place and what it is, and the whole text.

    >>> [what for what, _ in mutants("total += len(a) != 2")]  # doctest: +NORMALIZE_WHITESPACE
    ['1:0 total += len(a) != 2 -> pass', '1:9 len(a) != 2 -> (len(a) == 2)', '1:9 len(a) != 2 -> (len(a) < 2)',
     '1:19 2 -> 3', '1:19 2 -> 1']
    """
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    raw = text.encode()
    for node in _places(ast.parse(text)):
        whole = node.test if isinstance(node, ast.If | ast.IfExp | ast.While) else node
        begin = starts[whole.lineno - 1] + whole.col_offset
        end = starts[whole.end_lineno - 1] + whole.end_col_offset
        for new in changes(node):
            written = ast.unparse(ast.fix_missing_locations(new))
            written = f"({written})" if isinstance(new, ast.expr) and not isinstance(new, ast.Constant) else written
            old = " ".join(raw[begin:end].decode().split())
            mutant = (raw[:begin] + written.encode() + raw[end:]).decode()
            yield f"{whole.lineno}:{whole.col_offset} {old[:70]} -> {written[:70]}", mutant


def valid(mutant: str) -> bool:
    """Whether Python can read it; to ask for all takes minutes."""
    try:
        compile(mutant, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _places(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that take part: no docstrings, annotations, messages of errors, or what is for type checkers alone."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns") or (isinstance(tree, ast.Raise) and name == "exc"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.keyword) and node.arg == "frozen":  # which nobody relies on
                continue
            if hasattr(node, "lineno"):
                yield node
            yield from _places(node)


def tests_of(file: str) -> list[str]:
    """Arguments of pytest for a file of the package."""
    names = next(tests for pattern, tests in TESTS.items() if Path(file).match(pattern))
    own = [f"egsw_plugin/{file}"] if ">>>" in (PACKAGE / file).read_text(encoding="utf-8") else []
    return [*own, *(f"tests/{name}" for name in names.split())]


def forked(tests: list[str], tree: Path, limit: float, keep: bool = False) -> tuple[str, float]:
    """Run tests on a tree in a child; the verdict, and the seconds of CPU that it took. keep: bytecode, in the tree."""
    child = os.fork()
    if child == 0:
        sys.dont_write_bytecode = not keep
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        sys.path[0] = str(tree)
        null = os.open(tree / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(null, 1), os.dup2(null, 2)
        os._exit(_pytest(tests))
    deadline, took, status = time.monotonic() + 20 * limit, 0.0, None
    while status is None:
        done, code, usage = os.wait4(child, os.WNOHANG)
        if done:
            status, took = os.waitstatus_to_exitcode(code), usage.ru_utime + usage.ru_stime
        elif time.monotonic() > deadline:
            status = -1
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started
    return {0: "survived", 1: "caught", 2: "caught"}.get(status, "time" if status < 0 else f"error {status}"), took


def _exp(x: float, exact: Callable[[float], float] = math.exp) -> float:
    """math.exp as compiled code has it: infinite where Python refuses."""
    try:
        return exact(x)
    except OverflowError:
        return math.inf


def _pytest(tests: list[str]) -> int:
    import hypothesis
    import numba
    import pytest

    numba.config.DISABLE_JIT = True

    class WithoutRay:
        """Ray and its queue start for minutes on a busy machine, and fail there."""

        def pytest_collection_modifyitems(self, items: list) -> None:
            items[:] = [item for item in items if "queue" not in getattr(item, "fixturenames", ())]

    math.exp = _exp
    import egsw_plugin.entry  # noqa: F401  (as verl would have done)

    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # no search for the smallest failure
    hypothesis.settings.register_profile(
        "mutants", max_examples=25, deadline=None, database=None, derandomize=True, phases=phases
    )
    hypothesis.settings.load_profile("mutants")
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", "-o", "timeout=0", "-m", "not verl_run"]
    # One file after the other: to collect them all takes longer than to fail in the first.
    more, files = ([test for test in tests if test.startswith("--") is first] for first in (True, False))
    verdict = 0
    for file in files:
        code = int(pytest.main([*options, "-k", LEFT_OUT, *more, file], [WithoutRay()]))
        verdict = max(verdict, code if code != pytest.ExitCode.NO_TESTS_COLLECTED else 0)
        if verdict:
            break
    return verdict


def make_tree() -> Path:
    """A copy of the checkout to break."""
    tree = Path(tempfile.mkdtemp(prefix="mutants-"))
    leave_out = shutil.ignore_patterns("__pycache__", "study", "study_smollm2")
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, tree / name, **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {})
        )
    shutil.copytree(ROOT / "docs", tree / "docs", ignore=leave_out)
    return tree


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--files", nargs="*", default=DEFAULT, help="files or folders below egsw_plugin/")
    parser.add_argument("--sample", type=int, help="so many mutants of each file, drawn at random (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--limit", type=float, default=300, help="seconds of CPU a mutant")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--verdicts", type=Path, default=VERDICTS)
    parser.add_argument("--list", action="store_true", help="only count the mutants of each file")
    arguments = parser.parse_args()
    chosen = [PACKAGE / name for name in arguments.files]
    files = [f for path in chosen for f in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    os.environ |= {"INTERPRETED_LOOPS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins of verl's dependencies: a second for each pytest
    sys.dont_write_bytecode = True
    work = []
    for path in files:
        name, text = str(path.relative_to(PACKAGE)), path.read_text(encoding="utf-8")
        found = list(mutants(text))
        if arguments.list:
            print(f"{name}: {sum(valid(mutant) for _, mutant in found)} mutants")
            continue
        random.Random(f"{name} {arguments.seed}").shuffle(found)
        found = list(itertools.islice((one for one in found if valid(one[1])), arguments.sample))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        work.append((name, text, {(name, digest, what): mutant for what, mutant in found}))
    if arguments.list:
        return
    os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"
    for module in WARM.split():
        __import__(module)
    del os.environ["VERL_USE_EXTERNAL_PLUGINS"]
    if "egsw_plugin" in sys.modules:
        sys.exit("egsw_plugin is imported already: its mutants would not be")
    arguments.verdicts.parent.mkdir(parents=True, exist_ok=True)
    done = read_verdicts(arguments.verdicts)
    gc.freeze()  # nothing of what was imported is looked through again in the children
    for job in range(arguments.jobs):
        if os.fork() == 0:
            run(work[job :: arguments.jobs], done, arguments.verdicts, arguments.limit)
            os._exit(0)
    for _ in range(arguments.jobs):
        os.wait()
    done = read_verdicts(arguments.verdicts)
    counts: Counter[str] = Counter()
    for name, _, found in work:
        own = Counter(done.get(key, "not run") for key in found)
        counts += own
        print(f"{name}: {', '.join(f'{number} {verdict}' for verdict, number in sorted(own.items())) or 'none'}")
    print(f"all: {dict(counts)}")


def read_verdicts(path: Path) -> dict[tuple[str, str, str], str]:
    """Verdicts by file, digest of its text, and mutant."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(line["file"], line["text"], line["what"]): line["verdict"] for line in lines}


def run(work: list, done: dict[tuple[str, str, str], str], verdicts: Path, limit: float) -> None:
    """Run the mutants of these files that have no verdict yet, on a tree of this process's own."""
    tree = make_tree()
    sound: set[str] = set()  # tests that pass without a mutant, of those that failed with one
    unsound: set[str] = set()  # those that do not, as some without the compiler or on a busy machine
    for name, text, found in work:
        path, tests = tree / "egsw_plugin" / name, tests_of(name)
        for key, mutant in found.items():
            if key in done:
                continue
            verdict, took = "caught", 0.0
            while verdict == "caught":
                path.write_text(mutant, encoding="utf-8")
                for kept in path.parent.glob(f"__pycache__/{path.stem}.*"):
                    kept.unlink()
                verdict, seconds = forked([*(f"--deselect={test}" for test in unsound), *tests], tree, limit)
                took += seconds
                path.write_text(text, encoding="utf-8")
                if verdict != "caught":
                    break
                log = (tree / "log").read_text()
                lines = (line.partition(" ") for line in log.splitlines())
                failed = {rest.split(" - ")[0] for word, _, rest in lines if word in ("FAILED", "ERROR")}
                for test in failed - sound:
                    good = forked([test], tree, limit, keep=True)[0] == "survived"
                    (sound if good else unsound).add(test)
                if not failed or failed & sound:
                    break
                print(f"fails without a mutant, left out: {failed}\n{log[-1000:]}", flush=True)
            line = {"file": name, "text": key[1], "what": key[2], "verdict": verdict, "seconds": round(took, 1)}
            with verdicts.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if verdict != "caught":
                print(f"{verdict}: egsw_plugin/{name}:{key[2]}", flush=True)
    shutil.rmtree(tree)


if __name__ == "__main__":
    main()
