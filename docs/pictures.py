"""Draws the pictures of the documentation: `make pictures`, or python docs/pictures.py FOLDER.

One group of four responses, as each method sees it, computed by the package's own kernels; how a step flows through
verl; and which part of the package imports which. Tokens and entropies of the group are made up. The same matplotlib
writes the same bytes.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import CenteredNorm, Colormap, LinearSegmentedColormap, Normalize
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from egsw_plugin.kernels import compiled
from egsw_plugin.kernels.egsw import egsw
from egsw_plugin.kernels.group_relative import group_relative
from egsw_plugin.kernels.grpo_s import grpo_s
from egsw_plugin.kernels.gtpo import gtpo
from egsw_plugin.kernels.normalization import Normalization
from egsw_plugin.kernels.rows import Rows
from egsw_plugin.kernels.shaping import Shaping

PROMPT = "Ann has 3 boxes of 4 apples. She eats 2. How many are left?"
# A token's entropy depends on what stands before it: equal prefixes have equal entropies.
RESPONSES = [
    (True, "3 × 4 = 12 ; 12 − 2 = 10 end", [1.9, 1.1, 0.1, 0.2, 0.05, 0.7, 0.3, 0.8, 0.1, 0.1, 0.05, 0.02]),
    (True, "She has 12 , eats 2 : 10 end", [1.9, 0.6, 1.4, 0.8, 1.2, 0.2, 0.9, 0.4, 0.05]),
    (False, "3 + 4 = 7 ; 7 − 2 = 5 end", [1.9, 1.1, 0.3, 0.2, 0.4, 0.7, 0.3, 0.8, 0.1, 0.1, 0.2, 0.02]),
    (False, "3 × 4 = 12 end", [1.9, 1.1, 0.1, 0.2, 0.05, 0.7]),
]
WIDTH = max(len(entropies) for _, _, entropies in RESPONSES)

# Safe for colour-blind readers; every cell has its number as well.
ENTROPY = LinearSegmentedColormap.from_list("entropy", ["#ffffff", "#a8d8b0", "#3f9d63"])
SIGNED = LinearSegmentedColormap.from_list("signed", ["#d1603d", "#ffffff", "#4a86c5"])
SHARE = LinearSegmentedColormap.from_list("share", ["#9b86c8", "#ffffff", "#efa13c"])


class Group:
    """The group as kernels take it, and what they make of it, each [4, WIDTH] with NaN where no token is."""

    def __init__(self) -> None:
        self.tokens = [text.split() for _, text, _ in RESPONSES]
        self.success = torch.tensor([success for success, _, _ in RESPONSES])
        self.entropy = torch.zeros(len(RESPONSES), WIDTH)
        mask = torch.zeros(len(RESPONSES), WIDTH, dtype=torch.int64)
        for row, (_, _, entropies) in enumerate(RESPONSES):
            self.entropy[row, : len(entropies)] = torch.tensor(entropies)
            mask[row, : len(entropies)] = 1
        self.mask, self.rows, self.ids = mask.bool(), Rows.measure(mask), torch.zeros(len(RESPONSES), dtype=torch.int64)

    def _shown(self, values: torch.Tensor) -> torch.Tensor:
        return values.expand(-1, WIDTH).double().masked_fill(~self.mask, float("nan"))

    def entropies(self) -> torch.Tensor:
        return self._shown(self.entropy)

    def grpo(self) -> torch.Tensor:
        return self._shown(self._base())

    def _base(self) -> torch.Tensor:
        return group_relative(self.success.float(), self.ids).unsqueeze(1)

    def egsw(self, alpha: float = 0.5, temperature: float = 3.0, weigh_advantages: bool = True) -> torch.Tensor:
        options = {"alpha": alpha, "temperature": temperature, "weigh_advantages": weigh_advantages}
        return self._shown(egsw(self._base(), self.entropy, self.rows, self.ids, **options).values)

    def gtpo(self, norm_set: str = "all_with_zeros") -> torch.Tensor:
        normalization = Normalization(norm_set=norm_set)
        return self._shown(gtpo(self.entropy, self.rows, self.ids, self.success, Shaping(), normalization).values)

    def grpo_s(self, norm_set: str = "all_with_zeros") -> torch.Tensor:
        normalization = Normalization(norm_set=norm_set)
        return self._shown(grpo_s(self.entropy, self.rows, self.ids, self.success, Shaping(), normalization).values)


def draw_group(axes, group: Group, title: str, values: torch.Tensor, colours, cmap: Colormap, norm) -> None:
    """Rows of tokens in cells, the number below each; `colours` are what the cells are coloured by."""
    for row, tokens in enumerate(group.tokens):
        verdict = "right" if group.success[row] else "wrong"
        axes.text(-0.15, row + 0.5, verdict, ha="right", va="center", fontsize=9.5, color="#333333")
        for t, token in enumerate(tokens):
            face = cmap(norm(float(colours[row, t])))
            frame = {"facecolor": face, "edgecolor": "#8a8a8a", "linewidth": 0.6}
            axes.add_patch(Rectangle((t + 0.03, row + 0.05), 0.94, 0.9, **frame))
            end = token == "end"
            style = {"fontsize": 8.5, "style": "italic"} if end else {"fontsize": 10.5, "family": "DejaVu Sans Mono"}
            axes.text(t + 0.5, row + 0.36, token, ha="center", va="center", color="#000000", **style)
            number = f"{float(values[row, t]):.2f}".replace("-", "−")
            axes.text(t + 0.5, row + 0.75, number, ha="center", va="center", fontsize=8.5, color="#222222")
    for t in range(WIDTH):
        axes.text(t + 0.5, -0.17, f"{t + 1}", ha="center", va="center", fontsize=7.5, color="#666666")
    axes.text(-0.15, -0.17, "token", ha="right", va="center", fontsize=7.5, color="#666666")
    axes.set_title(title, loc="left", fontsize=11, pad=10)
    axes.set_xlim(-0.95, WIDTH + 0.02)
    axes.set_ylim(len(group.tokens) + 0.02, -0.32)
    axes.axis("off")


def entropy_panel(axes, group: Group) -> None:
    values = group.entropies()
    draw_group(axes, group, "Entropy (nats): how unsure the model was", values, values, ENTROPY, Normalize(0, 2))


def advantage_panel(axes, group: Group, title: str, values: torch.Tensor) -> None:
    draw_group(axes, group, title, values, values, SIGNED, CenteredNorm(0, 1.5))


def weight_panel(axes, group: Group, title: str, values: torch.Tensor, level: float, spread: float) -> None:
    """Coloured by the logarithm of |value| / level, up to `spread` on both sides."""
    draw_group(axes, group, title, values, (values.abs() / level).log(), SHARE, CenteredNorm(0, spread))


def figure(panels: int):
    made, axes = plt.subplots(panels, 1, figsize=(8.4, 2.25 * panels), squeeze=False)
    made.subplots_adjust(left=0.005, right=0.995, top=1 - 0.28 / (2.25 * panels), bottom=0.01, hspace=0.2)
    return made, [row[0] for row in axes]


def picture_group(group: Group):
    made, axes = figure(2)
    entropy_panel(axes[0], group)
    advantage_panel(axes[1], group, "GRPO's advantage: one number a response", group.grpo())
    return made


def picture_egsw(group: Group):
    made, axes = figure(2)
    weights = group.egsw(weigh_advantages=False)
    weight_panel(axes[0], group, "EGSW's weight w (alpha 0.5, P 3): orange counts more, violet less", weights, 1, 0.6)
    advantage_panel(axes[1], group, "EGSW's advantage: GRPO's times w", group.egsw())
    return made


def picture_alpha_and_p(group: Group):
    made, axes = figure(4)
    for panel, (alpha, temperature, words) in zip(
        axes,
        [
            (0.0, 3.0, "no entropy: only right against wrong"),
            (0.5, 3.0, "the defaults"),
            (2.0, 3.0, "more entropy"),
            (0.5, 1.0, "a smaller P makes all differences larger"),
        ],
        strict=True,
    ):
        weights = group.egsw(alpha, temperature, weigh_advantages=False)
        weight_panel(panel, group, f"w with alpha {alpha:g}, P {temperature:g}: {words}", weights, 1, 1.3)
    return made


def picture_gtpo(group: Group):
    made, axes = figure(2)
    title = "GTPO's reward (alpha1 1, alpha2 0.1): orange more than 1.1 in size, violet less"
    weight_panel(axes[0], group, title, group.gtpo("none"), 1.1, 0.12)
    advantage_panel(axes[1], group, "GTPO's advantage: the rewards, normalised", group.gtpo())
    return made


def picture_grpo_s(group: Group):
    made, axes = figure(2)
    title = "GRPO-S's reward (beta1 1, beta2 0.1): orange more than 1.1 in size, violet less"
    weight_panel(axes[0], group, title, group.grpo_s("none"), 1.1, 0.12)
    advantage_panel(axes[1], group, "GRPO-S's advantage: the rewards, normalised", group.grpo_s())
    return made


def picture_methods(group: Group):
    made, axes = figure(4)
    for panel, name in zip(axes, ("GRPO", "EGSW", "GTPO", "GRPO-S"), strict=True):
        advantage_panel(panel, group, f"{name}'s advantage", getattr(group, name.lower().replace("-", "_"))())
    return made


OURS, VERLS, STORE = "#fbe3c0", "#e8edf3", "#ffffff"


def box(axes, x, y, width, height, text, small="", face=VERLS, dashed=False) -> None:
    """A box with its lower left corner at x, y; `small` stands below the text."""
    style = "round,pad=0,rounding_size=0.08"
    line = {"edgecolor": "#555555", "linewidth": 1.0, "linestyle": "--" if dashed else "-"}
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=face, **line))
    middle = y + height / 2
    lift = 0.13 * (1 + small.count("\n")) if small else 0
    axes.text(x + width / 2, middle + lift, text, ha="center", va="center", fontsize=10.5, color="#000000")
    if small:
        style = {"fontsize": 8.3, "color": "#333333", "linespacing": 1.3}
        axes.text(x + width / 2, middle - 0.19, small, ha="center", va="center", **style)


def arrow(axes, start, end, text="", dx=0.0, dy=0.0, align="center") -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": "#444444", "linewidth": 1.2}
    axes.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))
    if text:
        x, y = (start[0] + end[0]) / 2 + dx, (start[1] + end[1]) / 2 + dy
        axes.text(x, y, text, ha=align, va="center", fontsize=8.3, color="#222222", linespacing=1.3)


def canvas(width: float, height: float):
    made, axes = plt.subplots(figsize=(8.4, 8.4 * height / width))
    made.subplots_adjust(0, 0, 1, 1)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return made, axes


def picture_step(_: Group):
    """One step of training: verl's parts in grey, ours in orange."""
    made, axes = canvas(12, 7.2)
    axes.text(0.15, 6.9, "Workers (GPUs)", fontsize=10, color="#666666", va="center")
    axes.text(0.15, 2.95, "Driver (CPU)", fontsize=10, color="#666666", va="center")
    box(axes, 0.15, 5.4, 2.3, 1.1, "Rollout", "vLLM writes the\nresponses")
    box(axes, 3.0, 5.4, 2.3, 1.1, "Reward", "right or wrong")
    box(axes, 5.85, 5.4, 2.7, 1.1, "Old policy, forward", "log-probability and\nentropy of each token")
    box(axes, 9.1, 5.4, 2.75, 1.1, "Policy update", "losses.py, worker.py:\npolicy loss of the method", face=OURS)
    for start, end in ((2.45, 3.0), (5.3, 5.85)):
        arrow(axes, (start, 5.95), (end, 5.95))
    what = "verl's store of tensors, one row a response"
    box(axes, 0.15, 3.5, 11.7, 0.75, "TransferQueue", what, face=STORE, dashed=True)
    arrow(axes, (1.3, 5.4), (1.3, 4.25), "tokens", 0.1, align="left")
    arrow(axes, (4.15, 5.4), (4.15, 4.25), "scores", 0.1, align="left")
    arrow(axes, (6.4, 5.4), (6.4, 4.25), "log-probability,\nentropy", 0.1, align="left")
    arrow(axes, (10.5, 4.25), (10.5, 5.4), "advantages,\nweights, clip bounds", -0.1, align="right")
    box(axes, 0.15, 1.35, 2.7, 1.15, "Bridge", "hooks.py, step.py:\nentropy of these rows", face=OURS)
    box(axes, 3.35, 1.35, 2.4, 1.15, "Base", "GRPO, RLOO, ...:\nadvantages", face=VERLS)
    box(axes, 6.25, 1.35, 2.5, 1.15, "Transforms", "chain.py, methods:\nEGSW and others", face=OURS)
    box(axes, 9.25, 1.35, 2.6, 1.15, "Checks, metrics", "finite? which share\nof tokens changed?", face=OURS)
    arrow(axes, (1.5, 3.5), (1.5, 2.5), "scores, mask,\nentropy", 0.1, align="left")
    for start, end in ((2.85, 3.35), (5.75, 6.25), (8.75, 9.25)):
        arrow(axes, (start, 1.92), (end, 1.92))
    arrow(axes, (10.5, 2.5), (10.5, 3.5), "advantages, fields", -0.1, align="right")
    axes.add_patch(Rectangle((0.15, 0.45), 0.4, 0.3, facecolor=VERLS, edgecolor="#555555"))
    axes.text(0.7, 0.6, "verl", fontsize=9.5, va="center")
    axes.add_patch(Rectangle((1.6, 0.45), 0.4, 0.3, facecolor=OURS, edgecolor="#555555"))
    legend = "this plugin. GTPO and GRPO-S are bases: they stand in the place of GRPO"
    axes.text(2.15, 0.6, legend, fontsize=9.5, va="center")
    return made


def picture_layers(_: Group):
    """Who imports whom: arrows go from the one that imports."""
    made, axes = canvas(12, 6.3)
    box(axes, 0.2, 5.15, 3.6, 0.95, "recipes/", "YAML and launchers, no code")
    box(axes, 4.2, 5.15, 3.6, 0.95, "cli, doctor, runner, study/", "the command egsw-plugin")
    box(axes, 8.2, 5.15, 3.6, 0.95, "verl", "loads entry.py in each process")
    tools = "data/  models/  rewards/  records/  report/  tiny/"
    box(axes, 0.2, 3.35, 7.6, 0.95, tools, "tools; they import no verl", face=OURS)
    box(axes, 8.2, 3.35, 3.6, 0.95, "verl_adapter/  cpu/", "what imports verl; no maths", face=OURS)
    methods = "methods/  options/  fields.py  controllers.py"
    box(axes, 4.2, 1.75, 7.6, 0.95, methods, "the family: options, needs, metrics, losses", face=OURS)
    box(axes, 4.2, 0.15, 7.6, 0.95, "kernels/", "the maths: functions on tensors, only torch (and numba)", face=OURS)
    arrow(axes, (2.0, 5.15), (2.0, 4.3), "use", 0.1, align="left")
    arrow(axes, (6.0, 5.15), (6.0, 4.3))
    arrow(axes, (10.0, 5.15), (10.0, 4.3))
    arrow(axes, (7.4, 5.15), (8.6, 4.3), "doctor", 0.2, align="left")
    arrow(axes, (10.0, 3.35), (10.0, 2.7))
    arrow(axes, (6.0, 3.35), (6.0, 2.7))
    arrow(axes, (8.2, 3.82), (7.8, 3.82), "records", dy=-0.65)
    arrow(axes, (8.0, 1.75), (8.0, 1.1))
    return made


PICTURES = {
    "group": picture_group,
    "methods": picture_methods,
    "egsw": picture_egsw,
    "alpha_and_p": picture_alpha_and_p,
    "gtpo": picture_gtpo,
    "grpo_s": picture_grpo_s,
    "step": picture_step,
    "layers": picture_layers,
}


def main(folder: Path) -> None:
    """Write all pictures as SVG, letters as paths."""
    compiled.loops_for = lambda tensor: None  # torch gives the same numbers, without seconds of compilation
    folder.mkdir(parents=True, exist_ok=True)
    group = Group()
    with plt.rc_context({"svg.hashsalt": "egsw-plugin", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        for name, draw in PICTURES.items():
            made = draw(group)
            made.savefig(folder / f"{name}.svg", metadata={"Date": None}, facecolor="white")
            plt.close(made)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
