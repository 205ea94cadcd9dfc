"""The documentation says what the program does: option tables, metric names, and links."""

import re
from pathlib import Path

import pytest

from egsw_plugin.cli import main
from egsw_plugin.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").rglob("*.md")])


def test_the_page_of_options_is_the_programs_own(capsys):
    assert main(["options"]) == 0
    assert capsys.readouterr().out.strip() in (ROOT / "docs" / "options.md").read_text()


def test_options_of_a_method_that_is_not_there(capsys):
    assert main(["options", "gtpo"]) == 0
    assert "alpha1" in capsys.readouterr().out
    assert main(["options", "ppo"]) == 2
    assert "use egsw, gtpo, grpo_s" in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, link


@pytest.mark.parametrize("name", METHODS)
def test_every_metric_is_documented(name):
    import torch

    from egsw_plugin.kernels.rows import Rows
    from egsw_plugin.methods import Batch

    mask, success = torch.ones(4, 3, dtype=torch.int64), torch.tensor([True, False, True, False])
    tensors = {"entropy": torch.rand(4, 3, generator=torch.Generator().manual_seed(0))}
    ids = torch.zeros(4, dtype=torch.int64)
    batch = Batch(success.unsqueeze(1) * mask.float(), Rows.measure(mask), ids, success, success.float(), tensors)
    page = (ROOT / "docs" / ("egsw.md" if name == "egsw" else "gtpo.md")).read_text()
    metrics = list(METHODS[name].apply(METHODS[name].options_type(), batch).metrics)
    if name == "egsw":
        tensors["old_log_probs"] = -tensors["entropy"]
        metrics += METHODS[name].apply(METHODS[name].options_type(entropy="surprisal"), batch).metrics
        assert "egsw/surprisal/mean" in metrics and metrics.count("egsw/entropy/mean") == 1
    for metric in metrics:
        words = metric.removeprefix(f"{name}/")
        assert words in page or words.replace("weight/min", "`/min`") in page, metric
