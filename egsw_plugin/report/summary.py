"""The table shown after a run: its first steps against its last."""

from statistics import fmean, median

from ..markdown import table
from .metrics import CHANGED, EFFECTIVE_SHARE, ENTROPY, LENGTH, REWARD, STEP_TIME, Metrics

_BASICS = {"reward": REWARD, "response length (tokens)": LENGTH, "entropy (nats)": ENTROPY}


def summarise(metrics: Metrics, span: int = 5) -> str:
    """A Markdown table of means over the first and the last `span` steps (fewer when they would overlap)."""
    rows = metrics.training
    if not rows:
        return "No training step was logged.\n"
    span = max(1, min(span, len(rows) // 2))
    first, last = rows[:span], rows[-span:]
    named = {**_BASICS, **{name: name for name in _method_metrics(rows)}}
    lines = [_line(label, name, first, last) for label, name in named.items()]
    shown = table(["", _steps(first), _steps(last), "change"], lines)
    gain = _gain(_mean(first, REWARD), _mean(last, REWARD))
    return f"{shown}\n\n{gain}{_best(rows, span)}\n{_time(rows)}\n"


def format_seconds(seconds: float) -> str:
    """Minutes and seconds.

    >>> format_seconds(79.6), format_seconds(3700)
    ('1:20', '1:01:40')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _method_metrics(rows: list[dict]) -> list[str]:
    """The names logged by the members: all under a prefix (egsw/, ...) of an effective share or a share of changes."""
    names = sorted({name for row in rows for name in row})
    prefixes = {"egsw/", "credit/"} | {
        name.removesuffix(ending) + "/"
        for ending in (EFFECTIVE_SHARE, CHANGED)
        for name in names
        if name.endswith(ending)
    }
    return [name for name in names if name.startswith(tuple(prefixes))]


def _steps(rows: list[dict]) -> str:
    first, last = rows[0]["step"], rows[-1]["step"]
    return f"step {first}" if first == last else f"steps {first}-{last}"


def _mean(rows: list[dict], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    return fmean(values) if values else None


def _line(label: str, name: str, first: list[dict], last: list[dict]) -> list[str]:
    before, after = _mean(first, name), _mean(last, name)
    change = "" if before is None or after is None else f"{after - before:+.4g}"
    return [label, _cell(before, name, first), _cell(after, name, last), change]


def _cell(mean: float | None, name: str, rows: list[dict]) -> str:
    """The mean, and of how many steps it is if some of them have no finite number."""
    count = sum(name in row for row in rows)
    of = "" if count == len(rows) else f" ({count} of {len(rows)} steps)"
    return "not logged" if mean is None else f"{mean:.4g}{of}"


def _gain(first: float | None, last: float | None) -> str:
    if first is None or last is None:
        return "The run logged no reward."
    verb = "rose" if last > first else "fell" if last < first else "did not change"
    return f"The reward {verb}: {first:.4g} to {last:.4g} ({last - first:+.4g})."


def _best(rows: list[dict], span: int) -> str:
    """Where the reward was highest, if that is not where the run ended."""
    means = [(_mean(rows[start : start + span], REWARD), start) for start in range(len(rows) - span + 1)]
    best, start = max(((mean, start) for mean, start in means if mean is not None), default=(0.0, len(rows)))
    if len(rows) < 3 * span or start > len(rows) - 2 * span:
        return ""
    return f" It was highest, {best:.4g}, at {_steps(rows[start : start + span])}."


def _time(rows: list[dict]) -> str:
    times = [row[STEP_TIME] for row in rows if STEP_TIME in row]
    if not times:
        return f"{len(rows)} steps; their times were not logged."
    pace = f"{len(rows)} steps in {format_seconds(sum(times))}, {median(times):.3g} s a step (median)"
    return f"{pace}, start-up not counted."
