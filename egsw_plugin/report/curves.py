"""The curves of a run as a picture."""

from pathlib import Path

from .metrics import EFFECTIVE_SHARE, ENTROPY, LENGTH, REWARD, find_metric

_PANELS = [
    ("Reward", "mean reward", REWARD, "tab:blue"),
    ("Response length", "mean length (tokens)", LENGTH, "tab:green"),
    ("Policy entropy", "mean entropy (nats)", ENTROPY, "tab:orange"),
    ("Effective share of the weights", "effective share (fraction)", EFFECTIVE_SHARE, "tab:purple"),
]


def draw_curves(rows: list[dict], path: Path) -> None:
    """Writes a PNG with four panels over the training steps: reward, response length, entropy, effective share.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('The curves need matplotlib: pip install "egsw-plugin[report]"') from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, label, name, colour) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        points = [(row["step"], value) for row in rows if (value := find_metric(row, name)) is not None]
        axes.set(title=title, xlabel="training step", ylabel=label)
        if not points:
            axes.text(0.5, 0.5, "not logged", ha="center", va="center", color="grey", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
            continue
        axes.plot(*zip(*points, strict=True), color=colour, marker="o" if len(points) <= 60 else None, markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
