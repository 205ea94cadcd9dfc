"""Tables of validation results: own ones as CSV and Markdown, published ones beside them and never among them."""

import csv
import io
from collections import defaultdict
from dataclasses import asdict, dataclass, fields

import numpy as np

from ..markdown import cell, table
from .estimates import LADDER, RESAMPLES, best_at_k, bootstrap_interval, mean_success, pass_at_k
from .papers import EGSW_CURVE, GTPO_TABLE
from .validation import Evaluation

_OVER_PROMPTS = "bootstrap 95 % over prompts"
_OVER_RUNS = "min to max over runs"


@dataclass(frozen=True)
class Result:
    """One number of a run, or the mean over the runs of a group; value, low and high in percent."""

    run: str
    data_set: str
    step: int
    metric: str
    k: int
    value: float
    low: float | None
    high: float | None
    interval: str  # what low and high are
    prompts: int
    runs: int = 1
    judged_by: str = ""

    @property
    def name(self) -> str:
        """Such as Pass@4."""
        return f"{self.metric}@{self.k}"


def measure(run: str, evaluation: Evaluation) -> list[Result]:
    """Mean@n, Pass@k, maj@n and best@k of one validation; n is the number of responses that most prompts have.

    Each is over the prompts that have k responses or more, Mean@n over all.

    Args:
        run: the label of the run.
        evaluation: the counts.

    >>> two_prompts = Evaluation("x", 10, np.array([1, 4]), np.array([4, 4]), majority=None, judged_by="acc")
    >>> [(result.name, result.value) for result in measure("run", two_prompts)][:3]
    [('Mean@4', 62.5), ('Pass@1', 62.5), ('Pass@4', 100.0)]
    """
    correct, samples = evaluation.correct, evaluation.samples
    n = evaluation.usual
    estimates = {("Mean", n): mean_success(correct, samples)}
    estimates |= {("Pass", k): pass_at_k(correct, samples, k) for k in LADDER if k <= n}
    if evaluation.majority is not None:
        estimates["maj", n] = np.where(samples >= n, evaluation.majority, np.nan)
    estimates |= {("best", k): best_at_k(correct, samples, k) for k in LADDER if 1 < k <= n}
    results = []
    for (metric, k), values in estimates.items():
        values = values[np.isfinite(values)]
        interval = bootstrap_interval(values)
        results.append(
            Result(
                run,
                evaluation.data_set,
                evaluation.step,
                metric,
                k,
                value=100 * float(values.mean()),
                low=100 * interval[0] if interval else None,
                high=100 * interval[1] if interval else None,
                interval=_OVER_PROMPTS if interval else "",
                prompts=len(values),
                judged_by=evaluation.judged_by,
            )
        )
    return results


def group_means(results: list[Result], groups: dict[str, str]) -> list[Result]:
    """The mean, minimum and maximum over the runs of each group with several runs, where at least two have a number.

    Args:
        results: of single runs.
        groups: the group of each run's label.
    """
    together: dict[tuple, list[Result]] = defaultdict(list)
    for result in results:
        together[groups[result.run], result.data_set, result.step, result.metric, result.k].append(result)
    means = []
    for (group, data_set, step, metric, k), members in together.items():
        values = [result.value for result in members]
        if len(members) > 1:
            prompts = min(result.prompts for result in members)
            means.append(
                Result(
                    group,
                    data_set,
                    step,
                    metric,
                    k,
                    value=float(np.mean(values)),
                    low=min(values),
                    high=max(values),
                    interval=_OVER_RUNS,
                    prompts=prompts,
                    runs=len(members),
                    judged_by=members[0].judged_by,
                )
            )
    return means


def results_csv(results: list[Result]) -> str:
    """One line a number, percent with four decimals; own results only."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Result)], lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in asdict(result).items()})
    return text.getvalue()


def published_csv() -> str:
    """The papers' numbers, one line each, with their source."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "model", "method", "data_set", "step", "metric", "value", "unit"])
    for model, method, values in GTPO_TABLE["rows"]:
        for (data_set, metric), value in zip(GTPO_TABLE["columns"], values, strict=True):
            writer.writerow([GTPO_TABLE["source"], model, method, data_set, "", metric, value, "percent"])
    for step, values in EGSW_CURVE["rows"]:
        for method, value in zip(EGSW_CURVE["methods"], values, strict=True):
            writer.writerow([EGSW_CURVE["source"], "", method, "", step, "curve", value, "fraction"])
    return text.getvalue()


def own_tables(results: list[Result]) -> str:
    """The Markdown of results measured here: a table a data set, one line a run and step.

    Args:
        results: of runs and of groups.
    """
    parts = ["# Validation results", _LEGEND]
    for data_set in sorted({result.data_set for result in results}):
        parts += [f"## {cell(data_set)}", _own_table([r for r in results if r.data_set == data_set])]
    return "\n\n".join(parts) + "\n"


def published_tables() -> str:
    """The Markdown of the papers' numbers, with their source."""
    columns = [f"{data_set} {metric}" for data_set, metric in GTPO_TABLE["columns"]]
    rows = [[model, method, *(f"{v:.2f}" for v in values)] for model, method, values in GTPO_TABLE["rows"]]
    curve = [[step, *(f"{value:.3f}" for value in values)] for step, values in EGSW_CURVE["rows"]]
    parts = [
        "# Published, not measured here",
        f"{GTPO_TABLE['source']}, percent; the paper's models and data, on 64 GPUs:",
        table(["model", "method", *columns], rows, "|---|---|" + "---:|" * len(columns)),
        f"{EGSW_CURVE['source']}, fraction:",
        table(["step", *EGSW_CURVE["methods"]], curve, "|---:|" + "---:|" * len(EGSW_CURVE["methods"])),
    ]
    return "\n\n".join(parts) + "\n"


_LEGEND = f"""\
Measured in these runs, percent. Brackets: 95 % interval, percentile bootstrap over prompts, {RESAMPLES} resamples, \
seed 0, none for a single prompt; for the mean over several runs, min to max over the runs.
Mean@k: share of right responses, k of each prompt. Pass@k: 1 - C(n-c, k) / C(n, k), unbiased; Pass@1 is Mean@k.
maj@k: the most frequent of k answers is right; answers that tie count equally, a response without an answer does not
vote. verl's own `best@k` draws with replacement and is lower than Pass@k: it is in results.csv."""


def _own_table(results: list[Result]) -> str:
    shown = [result for result in results if result.metric != "best"]
    order = {metric: place for place, metric in enumerate(("Mean", "Pass", "maj"))}
    columns = sorted({(order[r.metric], r.k, r.name) for r in shown})
    rows: dict[tuple, dict[str, Result]] = defaultdict(dict)
    for result in shown:
        rows[result.run, result.runs, result.step][result.name] = result
    lines = []
    for (run, runs, step), cells in rows.items():
        any_result = next(iter(cells.values()))
        label = f"{run}, mean of {runs} runs" if runs > 1 else run
        numbers = [_number(cells.get(name)) for *_, name in columns]
        prompts = max(result.prompts for result in cells.values())
        lines.append([label, step, prompts, *numbers, f"{any_result.judged_by} > 0.5"])
    titles = ["run", "step", "prompts", *(name for *_, name in columns), "right if"]
    return table(titles, lines, "|---|---:|---:|" + "---:|" * len(columns) + "---|")


def _number(result: Result | None) -> str:
    if result is None:
        return ""
    if result.low is None or result.high is None:
        return f"{result.value:.1f}"
    joint = " to " if result.interval == _OVER_RUNS else ", "
    return f"{result.value:.1f} [{result.low:.1f}{joint}{result.high:.1f}]"
