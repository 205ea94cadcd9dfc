"""Validation before and after training, against counts by hand. Maps to report/held_out.py."""

import json

import pytest

from egsw_plugin.cli import main
from egsw_plugin.report.held_out import compare
from egsw_plugin.report.validation import read_dumps


@pytest.fixture
def dumps(tmp_path):
    """Writes one file a step in verl's form; each response is (question, text, acc, format, task)."""

    def make(**steps):
        for step, responses in steps.items():
            lines = []
            for number, (question, text, acc, form, task) in enumerate(responses):
                row = {"input": f"user\n1 + 1\nassistant\n2\nuser\n{question}\nassistant\n", "output": text}
                row |= {"gts": "x", "score": acc, "acc": acc, "format": form, "pred": "", "data_source": task}
                row |= {"step": int(step[1:]), "uid": f"{question}_{number}_0"}
                lines.append(json.dumps(row))
            (tmp_path / "validation").mkdir(exist_ok=True)
            (tmp_path / "validation" / f"{step[1:]}.jsonl").write_text("\n".join(lines))
        return read_dumps(tmp_path / "validation", [])

    return make


BEFORE = [
    ("a?", "no", 0, 0, "gym/x"),
    ("a?", "7", 1, 1, "gym/x"),
    ("b?", "", 0, 0, "gym/y"),
    ("b?", "8", 0, 1, "gym/y"),
]
AFTER = [("a?", "7", 1, 1, "gym/x"), ("a?", "7", 1, 1, "gym/x"), ("b?", "9", 1, 1, "gym/y"), ("b?", "8", 0, 1, "gym/y")]


def rows_of(text):
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {label: values for label, *values in cells[2:]}


def test_counts_by_hand(dumps):
    found = dumps(_0=BEFORE, _30=BEFORE, _60=AFTER)
    text = compare(found.first, found.last)
    rows = rows_of(text)
    assert "2 problems" in text and "| step 0 | step 60 |" in text
    # Of a: 1 of 2, then 2 of 2. Of b: none, then 1 of 2. The interval of two problems spans both.
    assert rows["solved"] == ["25.0 [0.0, 50.0]", "75.0 [50.0, 100.0]", "+50.0 [+50.0, +50.0]"]
    assert rows["answer in the form asked for"][:2] == ["50.0 [50.0, 50.0]", "100.0 [100.0, 100.0]"]
    assert rows["solved, of those answers"][:2] == ["50.0 of 2", "75.0 of 4"]
    assert rows["solved by the most frequent right answer of each data set, always"] == ["100.0", "100.0", ""]
    assert rows["solved: gym/x"][0].startswith("50.0") and rows["solved: gym/y"][1].startswith("50.0")


def test_a_problem_of_two_data_sets_is_two_problems(dumps):
    right = ("a?", "7", 1, 1)
    found = dumps(_0=[("a?", "no", 0, 0, "x"), (*right, "y")], _9=[(*right, "x"), (*right, "y")])
    text = compare(found.first, found.last)
    rows = rows_of(text)
    assert "2 problems" in text
    assert [rows[f"solved: {name}"][0].split()[0] for name in "xy"] == ["0.0", "100.0"]


def test_samples_are_the_first_response_to_the_same_problem(dumps):
    """What all prompts of the data set share is left out."""
    one_set = [[(*response[:4], "gym/x") for response in responses] for responses in (BEFORE, reversed(AFTER))]
    found = dumps(_0=one_set[0], _60=one_set[1])
    shown = compare(found.first, found.last).split("problems:\n\n")[1].splitlines()
    assert shown[:5] == ["    b?", "      step 0, wrong:", "        (nothing)", "      step 60, wrong:", "        8"]
    assert shown[6:] == ["    a?", "      step 0, wrong:", "        no", "      step 60, right:", "        7", ""]


def test_a_text_cannot_act_on_the_terminal_or_leave_its_block(dumps):
    hostile = "\x1b[2J\x07\u202e```\n# title\n| a |\x9b31m" + "long " * 400
    found = dumps(_0=[("a?", hostile, 0, 0, "gym/x\x1b|")], _60=[("a?", hostile, 1, 1, "gym/x\x1b|")])
    text = compare(found.first, found.last)
    assert all(character.isprintable() or character == "\n" for character in text)
    shown = [line for line in text.splitlines() if "title" in line or "```" in line]
    assert shown and all(line.startswith("        ") for line in shown)
    assert len(text) < 5000 and "[...]" in text


def test_nothing_to_compare(dumps):
    assert compare([], []) == ""
    one = dumps(_0=BEFORE)
    assert (one.first, one.last) == ([], [])
    other = dumps(_0=BEFORE, _9=[("c?", "7", 1, 1, "gym/x")])
    assert compare(other.first, other.last) == ""


def test_the_report_ends_with_it(dumps, tmp_path, capsys):
    dumps(_0=BEFORE, _60=AFTER)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "data": {"critic/score/mean": 0.5}}\n')
    assert main(["report", str(tmp_path)]) == 0
    assert "## Validation problems: step 0 and step 60" in (tmp_path / "summary.md").read_text()
    assert "| solved | 25.0" in capsys.readouterr().out
