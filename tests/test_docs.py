"""The documentation says what the program does: option tables, metric names, links, and pictures.

Its commands are checked by test_commands.py; `make docs` builds the site.
"""

import contextlib
import doctest
import html
import importlib.util
import math
import re
import subprocess
from pathlib import Path
from statistics import fmean

import pytest
from batches import applied, batch_of
from packaging.requirements import Requirement

from egsw_plugin.cli import main
from egsw_plugin.kernels import compiled
from egsw_plugin.methods import MEMBERS, pages
from egsw_plugin.methods.interface import Base
from egsw_plugin.options import walk
from egsw_plugin.study.record import read_finished_runs

ROOT = Path(__file__).parents[1]
OPTIONS = ROOT / "docs" / "options.md"
FOLDERS = ("docs", "recipes", "patches", "benchmarks")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]


def test_the_page_of_options_is_the_programs_own(capsys):
    assert main(["options"]) == 0
    assert capsys.readouterr().out.strip() in OPTIONS.read_text()


def test_the_page_of_the_family_is_the_members_own():
    """`make pages` writes both."""
    assert pages.family_page(pages.members()) in (ROOT / "docs" / "family.md").read_text()


@pytest.mark.parametrize("member", list(pages.members()), ids=lambda member: f"{pages.kind(member)} {member.name}")
def test_every_member_says_what_it_is(member):
    first = type(member).__doc__.strip().split("\n")[0]
    assert first.endswith(".") and len(first) < 120
    assert member.source and member.formula
    if pages.kind(member) != "policy loss":
        assert member.favours and member.cost


def test_the_bounds_in_the_page_of_options_are_those_that_hold():
    """The page's text against the checks, at each bound and just beyond it."""
    checks = {}
    for member in pages.members():
        checks |= {(member.section, key): metadata["check"] for key, _, metadata in walk(member.options_type)}
    bounds = 0
    for title, table in re.findall(r"^## .*`(algorithm\.\S+|actor_\S+)`\n\n((?:\|.*\n)+)", OPTIONS.read_text(), re.M):
        for row in table.splitlines()[2:]:
            name, _, _, accepted, _ = re.split(r" (?<!\\)\| ", row.removeprefix("| ").removesuffix(" |"), maxsplit=4)
            key = (title, name.split("`")[1])
            if "low" in accepted:
                continue
            for sign, text in re.findall(r"([<>]=?) ([\d.e+-]+)", accepted):
                bound, beyond = float(text), -math.inf if sign[0] == ">" else math.inf
                tries = [
                    (bound, "=" in sign),
                    (math.nextafter(bound, -beyond), True),
                    (math.nextafter(bound, beyond), False),
                ]
                for value, right in tries:
                    with contextlib.nullcontext() if right else pytest.raises(ValueError, match=r"^use "):
                        assert checks[key](value) == value
                bounds += 1
    assert bounds > 50


def test_options_of_a_method_that_is_not_there(capsys):
    assert main(["options", "gtpo"]) == 0
    assert "alpha1" in capsys.readouterr().out
    assert main(["options", "ppo"]) == 2
    assert "no member 'ppo'; use egsw, gtpo, grpo_s" in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path) if path else page
        assert target.is_file(), link  # the site makes a page of it, and of a folder none
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, link


PAGE_OF = {"egsw": "egsw.md", "gtpo": "gtpo.md", "grpo_s": "gtpo.md"}  # the others' is their docstring
# What the frame measures of a member that measures nothing itself.
GENERIC = {"changed/mean", "distance/mean"}


@pytest.mark.parametrize("name", MEMBERS.own)
def test_every_metric_is_documented(name):
    import torch

    mask, success = torch.ones(4, 3, dtype=torch.int64), torch.tensor([True, False, True, False])
    entropy = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    base = None if isinstance(MEMBERS[name], Base) else success.unsqueeze(1) * mask.float()
    tensors = {"entropy": entropy, "old_log_probs": -entropy}
    batch = batch_of(base, mask, torch.zeros(4, dtype=torch.int64), success, success.float(), **tensors)
    page = (ROOT / "docs" / PAGE_OF[name]).read_text() if name in PAGE_OF else type(MEMBERS[name]).__doc__
    metrics = list(applied(name, batch).metrics)
    if name == "egsw":
        metrics += applied(name, batch, entropy="surprisal").metrics
        assert "egsw/surprisal/mean" in metrics and metrics.count("egsw/entropy/mean") == 1
        metrics += applied(name, batch, temperature="auto").metrics
    for metric in metrics:
        words = metric.removeprefix(f"{name}/")
        if words in GENERIC and name not in PAGE_OF:
            continue
        if metric.startswith("credit/"):
            assert metric in (ROOT / "docs" / "family.md").read_text(), metric
        else:
            assert words in page or words.replace("weight/min", "`/min`") in page, metric


@pytest.fixture
def pictures(monkeypatch):
    """docs/pictures.py, with kernels that need no compilation."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(compiled, "loops_for", lambda tensor: None)
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_show_what_the_kernels_give(pictures):
    """`make pictures` draws them; each number and word is a comment in the file."""
    group = pictures.Group()
    assert {f"{name}.svg" for name in pictures.PICTURES} == {path.name for path in (ROOT / "docs/pictures").iterdir()}
    for name, draw in pictures.PICTURES.items():
        made = draw(group)
        texts = [text.get_text() for axes in made.axes for text in axes.texts]
        texts += [axes.get_title(loc="left") for axes in made.axes]
        pictures.plt.close(made)
        drawn = re.findall(r"<!-- (.+?) -->", (ROOT / "docs" / "pictures" / f"{name}.svg").read_text())
        lines = [line for text in texts for line in text.splitlines()]
        assert sorted(map(html.unescape, drawn)) == sorted(lines), f"{name}: make pictures"


def test_the_numbers_of_the_concepts_are_the_pictures(pictures):
    page = (ROOT / "docs" / "concepts.md").read_text()
    group = pictures.Group()
    numbers = [*group.egsw(weigh_advantages=False)[:2, 2], *group.gtpo("none")[:, 4], group.grpo()[0, 0]]
    for number in numbers:
        assert re.search(rf"(?<!\d){abs(float(number)):.2f}(?!\d)", page), number
    examples = doctest.testfile(str(ROOT / "docs" / "concepts.md"), module_relative=False)
    assert examples.attempted > 5 and not examples.failed


def test_make_alone_says_what_there_is():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    [targets] = re.findall(r"^\.PHONY: help (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [target for target in targets.split() if not re.search(rf"\bmake {target}(?![-\w])", done.stdout)] == []


def test_the_values_to_look_for_are_the_studys():
    """In use.md: mean of the steps (lowest to highest), with the defaults."""

    def seen(study, cell, metric, seeds=range(1, 100)):
        records = read_finished_runs(ROOT / "docs" / study / "runs")
        records = [one for one in records if one.cell == cell and one.seed in seeds]
        found = [row[metric] for record in records for row in record.metrics.training]
        mean = fmean(found)
        greatest = max(found) if round(mean, 2) == 1 else 0.0  # just below 1 is not 1
        digits = next(n for n in range(2, 9) if round(greatest, n) != 1 or greatest == 1)
        return f"{mean:.{digits}f} ({min(found):.{digits}f} to {max(found):.{digits}f})"

    cells = {"egsw": "egsw_alpha0.5_p3", "gtpo": "gtpo", "grpo_s": "grpo_s"}
    page = (ROOT / "docs" / "use.md").read_text()
    rows = re.findall(r"^\| `(\w+/mean)` \| (.+?) \| (.+?) \| (.+?) \|", page, re.MULTILINE)
    assert len(rows) == 4
    for metric, *values in rows:
        assert values == [seen("study", cell, f"{name}/{metric}") for name, cell in cells.items()], metric
    share = seen("study_smollm2", "grpo_s", "grpo_s/effective_share/mean", seeds=[1, 2])
    assert f"on SmolLM2 GRPO-S has {share} " in page
    shift = seen("study_smollm2", "egsw", "egsw/entropy_shift/mean", seeds=[2])
    assert f"{shift} with the defaults on SmolLM2, seed 2" in (ROOT / "docs" / "egsw.md").read_text()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_page_stands_in_the_sites_navigation():
    """`make docs` warns of one that does not, and its --strict makes that an error, unless --quiet hides it."""
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1]
    named = set(re.findall(r": (\S+\.md)$", navigation, re.MULTILINE))
    assert {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} <= named
    [build] = re.findall(r"^\t\$\(MKDOCS\) build(.*?)(?: #.*)?$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert build.split() == ["--strict"]


def test_the_sites_tools_are_what_the_extra_asks_for():
    """requirements/docs.txt, which `make docs` installs, against the extra `docs`."""
    lines = (ROOT / "requirements" / "docs.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = re.search(r"^docs = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    for requirement in map(Requirement, re.findall(r'"(.+?)"', wanted)):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
