"""Data sets: each source's schema in small, the written parquet, and one clear line for whatever is wrong.

Not exercised: the hub itself. Its errors are raised by stand-ins; what the sources look like is taken from their cards.
"""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egsw_plugin.cli import main
from egsw_plugin.data import SCHEMA, SOURCES, files, sources
from egsw_plugin.data.boxed import last_boxed
from egsw_plugin.data.prompts import DAPO
from egsw_plugin.errors import DataError

STEPS = r"Please reason step by step, and put your final answer within \boxed{}."


def dapo_row(question, answer, index):
    return {
        "data_source": "math_dapo",
        "prompt": [
            {
                "content": "Solve the following math problem step by step. The last line of your response should be of "
                "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
                f'{question}\n\nRemember to put your answer on its own line after "Answer:".',
                "role": "user",
            }
        ],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }


# Records in the sources' own schemas, and the question, answer, id, subject and level to be read from the first.
RECORDS = {
    "math": (
        [
            {
                "problem": "What is $\\frac{1}{4}+\\frac{1}{4}$?",
                "level": "Level 2",
                "type": "Prealgebra",
                "solution": "We get $\\frac{2}{4} = \\boxed{\\frac{1}{2}}$.",
            },
            {"problem": "Find $x$.", "level": "Level ?", "type": "Algebra", "solution": "So $x = \\boxed{3}$."},
        ],
        ("What is $\\frac{1}{4}+\\frac{1}{4}$?", "\\frac{1}{2}", "", "Prealgebra", "2"),
    ),
    "dapo-math-17k": (
        [dapo_row("What is $1+1$? ", "2", "u-1"), dapo_row("What is $3-5$?", "-2", "u-2")],
        ("What is $1+1$? ", "2", "u-1", "", ""),
    ),
    "math-500": (
        [
            {
                "problem": "Name the point.",
                "solution": "It is $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}$.",
                "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
                "subject": "Precalculus",
                "level": 2,
                "unique_id": "test/precalculus/807.json",
            }
        ],
        ("Name the point.", "\\left( 3, \\frac{\\pi}{2} \\right)", "test/precalculus/807.json", "Precalculus", "2"),
    ),
    "aime-2024": (
        [{"id": 60, "problem": "How many?", "solution": "033", "answer": "033", "url": "https://x", "year": "2024"}],
        ("How many?", "33", "60", "", ""),
    ),
    "aime-2025": (
        [{"question": "How many degrees?", "answer": "336^\\circ"}, {"question": "Sum?", "answer": "70"}],
        ("How many degrees?", "336", "", "", ""),
    ),
    "gpqa-diamond": (
        [
            {
                "Record ID": "recABC",
                "Question": "Which one?\n",
                "Correct Answer": "right\n",
                "Incorrect Answer 1": "wrong 1",
                "Incorrect Answer 2": "wrong 2",
                "Incorrect Answer 3": "wrong 3",
                "Subdomain": "Optics",
                "High-level domain": "Physics",
            }
        ],
        ("Which one?\n\nA) wrong 3\nB) wrong 2\nC) wrong 1\nD) right", "D", "recABC", "Optics", ""),
    ),
}
MAXWELL_JIA = {"ID": "2024-I-1", "Problem": "How many?", "Solution": "Count.", "Answer": 33}
MATH_ARENA = {"problem_idx": 3, "problem": "How many?", "answer": 25, "problem_type": ["Algebra"]}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    import datasets

    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, tmp_path_factory.mktemp("cache"))


def save(path: Path, records: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(records))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".csv":
        pd.DataFrame(records).to_csv(path, index=False)
    else:
        pd.DataFrame(records).to_parquet(path)
    return path


def run(name, source, out, *more, rows="any"):
    return main(["data", name, "--source", str(source), "--out", str(out), *(["--rows", rows] if rows else []), *more])


def written(out, name):
    return pq.read_table(out / f"{name}.parquet").to_pylist()


def fails(capsys, code, words, arguments):
    """The command fails with this code and one line with these words."""
    assert main(["data", *map(str, arguments)]) == code
    line = capsys.readouterr().err
    assert line.startswith("egsw-plugin data: ") and line.count("\n") == 1, line
    assert words in line, line


FORMATS = [(name, suffix) for name in SOURCES for suffix in (".json", ".jsonl", ".csv", ".parquet")]
FORMATS.remove(("dapo-math-17k", ".csv"))  # nested fields do not fit into CSV


@pytest.mark.parametrize("name,suffix", FORMATS)
def test_each_source_in_each_format(tmp_path, name, suffix):
    records, (question, answer, record_id, subject, level) = RECORDS[name]
    assert run(name, save(tmp_path / f"raw{suffix}", records), tmp_path) == 0
    rows = written(tmp_path, name)
    assert [row["extra_info"]["index"] for row in rows] == list(range(len(records)))
    assert rows[0]["data_source"] == f"egsw_plugin/{name}"
    assert rows[0]["reward_model"] == {"style": "rule", "ground_truth": answer}
    assert question in rows[0]["prompt"][-1]["content"]
    assert rows[0]["extra_info"] == {
        "split": "train" if name in ("math", "dapo-math-17k") else "test",
        "index": 0,
        "id": record_id,
        "subject": subject,
        "level": level,
    }
    assert pq.read_schema(tmp_path / f"{name}.parquet").equals(SCHEMA)


@pytest.mark.parametrize("record, answer, record_id", [(MAXWELL_JIA, "33", "2024-I-1"), (MATH_ARENA, "25", "3")])
def test_other_copies_of_aime(tmp_path, record, answer, record_id):
    assert run("aime-2024", save(tmp_path / "raw.parquet", [record]), tmp_path) == 0
    (row,) = written(tmp_path, "aime-2024")
    assert (row["reward_model"]["ground_truth"], row["extra_info"]["id"]) == (answer, record_id)


def test_prompt_styles(tmp_path, capsys):
    raw = save(tmp_path / "raw.jsonl", RECORDS["math"][0])
    question = RECORDS["math"][1][0]
    for style, system in [
        ("boxed", STEPS),
        ("think", "Please reason step by step between <think> and </think>, and then put your final answer within "),
    ]:
        assert run("math", raw, tmp_path, "--prompt", style) == 0
        # Another recipe's file of the same name may lie there, in another style.
        assert f"2 rows in {tmp_path / 'math.parquet'}, prompt style {style}\n" in capsys.readouterr().out
        first, second = written(tmp_path, "math")[0]["prompt"]
        assert first["role"] == "system" and first["content"].startswith(system)
        assert second == {"role": "user", "content": question}
    assert run("math", raw, tmp_path, "--prompt", "dapo") == 0
    assert written(tmp_path, "math")[0]["prompt"] == [{"role": "user", "content": DAPO.before + question + DAPO.after}]


def test_prompt_styles_of_choices(tmp_path):
    raw = save(tmp_path / "raw.jsonl", RECORDS["gpqa-diamond"][0])
    for style, words in [("choice", "the letter of your answer within \\boxed{}."), ("think", "</think>, and then")]:
        assert run("gpqa-diamond", raw, tmp_path, "--prompt", style) == 0
        assert words in written(tmp_path, "gpqa-diamond")[0]["prompt"][0]["content"]


def test_dapo_text_stays_as_published(tmp_path):
    records = RECORDS["dapo-math-17k"][0]
    assert run("dapo-math-17k", save(tmp_path / "raw.parquet", records), tmp_path) == 0
    for row, record in zip(written(tmp_path, "dapo-math-17k"), records, strict=True):
        assert row["prompt"] == record["prompt"]
    assert run("dapo-math-17k", tmp_path / "raw.parquet", tmp_path, "--prompt", "boxed") == 0
    assert [message["content"] for message in written(tmp_path, "dapo-math-17k")[0]["prompt"]] == [
        STEPS,
        "What is $1+1$? ",
    ]


def test_dapo_repeats_are_dropped(tmp_path, capsys):
    # the published file has the same question again under another index, and some with two answers
    first, second = RECORDS["dapo-math-17k"][0]
    again = {**first, "extra_info": {"index": "u-9"}}
    other = {**second, "reward_model": {"ground_truth": "7", "style": "rule"}}
    raw = save(tmp_path / "raw.parquet", [first, second] * 40 + [again, other])
    assert run("dapo-math-17k", raw, tmp_path, rows="2") == 0
    assert "2 rows" in (out := capsys.readouterr().out) and "80 repeats dropped (1 questions had several" in out
    assert [row["reward_model"]["ground_truth"] for row in written(tmp_path, "dapo-math-17k")] == ["2", "-2"]


def test_the_processed_copy_of_dapo_gives_the_same_file(tmp_path):
    records = RECORDS["dapo-math-17k"][0]
    processed = [
        {
            **record,
            "prompt": DAPO.question(record["prompt"][0]["content"]),
            "solution": record["reward_model"]["ground_truth"],
            "source_prompt": record["prompt"],
        }
        for record in records
    ]
    for folder, rows in (("raw", records), ("processed", processed)):
        assert run("dapo-math-17k", save(tmp_path / folder / "r.parquet", rows), tmp_path / folder) == 0
    assert len({(tmp_path / folder / "dapo-math-17k.parquet").read_bytes() for folder in ("raw", "processed")}) == 1


def test_dapo_prompt_of_another_form(tmp_path, capsys):
    record = {**RECORDS["dapo-math-17k"][0][0], "prompt": [{"role": "user", "content": "Plain?"}]}
    raw = save(tmp_path / "raw.parquet", [record])
    assert run("dapo-math-17k", raw, tmp_path) == 0
    assert written(tmp_path, "dapo-math-17k")[0]["prompt"] == record["prompt"]
    assert run("dapo-math-17k", raw, tmp_path, "--prompt", "boxed") == 1
    assert "use --prompt dapo" in capsys.readouterr().err


def test_order_of_choices_by_hand(tmp_path):
    # printf 'rec06pnAkLOr2t2mp/%s' 0 | sha256sum, and so for 1 to 3:
    # 0: e8e2c829...  1: 08868ec8...  2: 8f37bccf...  3: 0422b703...   in order: 3, 1, 2, 0
    assert sources.choice_order("rec06pnAkLOr2t2mp") == [3, 1, 2, 0]
    record = {**RECORDS["gpqa-diamond"][0][0], "Record ID": "rec06pnAkLOr2t2mp"}
    others = [{**record, "Record ID": f"rec{k}"} for k in range(3)]
    texts = []
    for i, records in enumerate(([record, *others], [*others[::-1], record])):
        assert run("gpqa-diamond", save(tmp_path / f"{i}.jsonl", records), tmp_path) == 0
        (row,) = [r for r in written(tmp_path, "gpqa-diamond") if r["extra_info"]["id"] == record["Record ID"]]
        assert row["reward_model"]["ground_truth"] == "D"
        texts.append(row["prompt"][-1]["content"])
    assert texts == ["Which one?\n\nA) wrong 3\nB) wrong 1\nC) wrong 2\nD) right"] * 2


def test_right_answers_are_spread_over_the_letters():
    places = [sources.choice_order(f"rec{i}").index(0) for i in range(2000)]
    assert all(abs(places.count(k) - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for k in range(4))


def test_same_bytes_again(tmp_path):
    raw = save(tmp_path / "raw.jsonl", RECORDS["math"][0])
    for out in ("a", "b", "b"):
        assert run("math", raw, tmp_path / out) == 0
    assert (tmp_path / "a" / "math.parquet").read_bytes() == (tmp_path / "b" / "math.parquet").read_bytes()
    assert os.listdir(tmp_path / "a") == ["math.parquet"]


def test_verl_reads_all_of_them_together(tmp_path):
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from egsw_plugin.tiny.model import make_tokenizer

    for name, (records, _) in RECORDS.items():
        assert run(name, save(tmp_path / f"raw-{name}.parquet", records), tmp_path) == 0
    config = OmegaConf.create(
        {"cache_dir": str(tmp_path / "cache"), "max_prompt_length": 2048, "filter_overlong_prompts_workers": None}
    )
    data = RLHFDataset([str(tmp_path / f"{name}.parquet") for name in RECORDS], make_tokenizer(), config)
    assert len(data) == sum(len(records) for records, _ in RECORDS.values())
    assert data[0]["raw_prompt"] == [
        {"role": "system", "content": STEPS},
        {"role": "user", "content": RECORDS["math"][1][0]},
    ]
    assert data[1]["index"] == 1


@pytest.mark.parametrize(
    "solution, answer",
    [
        (r"\boxed{1}", "1"),
        (r"\boxed{1} then \boxed{ 2 }", " 2 "),
        (r"\fbox{4}", "4"),
        (r"\boxed{1} or \fbox{5}", "5"),
        (r"\boxed {6}", "6"),
        (r"$\boxed 7$.", "7"),
        (r"\[\boxed 12\]", "12"),
        (r"\boxed{\frac{\sqrt{3}}{2}}", r"\frac{\sqrt{3}}{2}"),
        (r"\boxed{\left\{x\right.}", r"\left\{x\right."),
        (r"\boxed{a\\{b}}", r"a\\{b}"),
        (r"\boxed{\boxed{8}}", "8"),
        (r"\boxed{3} \boxedtext", "3"),
    ],
)
def test_last_boxed(solution, answer):
    assert last_boxed(solution) == answer


@pytest.mark.parametrize(
    "solution, words",
    [("", "no"), ("boxed{1}", "no"), (r"\boxed{1\}", "closed"), (r"\boxed{1", "closed"), (r"\boxed{ }", "empty")],
)
def test_last_boxed_fails(solution, words):
    with pytest.raises(DataError, match=words):
        last_boxed(solution)


@pytest.mark.parametrize("answer", ["1000", "-1", "3.5", "", "x", "٣"])
def test_no_aime_answer(answer):
    with pytest.raises(DataError, match="no integer"):
        sources.aime_answer(answer)


def without(field):
    return lambda record: {key: value for key, value in record.items() if key != field}


def changed(**fields):
    return lambda record: {**record, **fields}


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("math", without("solution"), "has no field solution; it has problem, level, type"),
        ("aime-2024", without("answer"), "has no field answer or Answer"),
        ("dapo-math-17k", without("reward_model"), "has no field reward_model"),
        ("gpqa-diamond", without("Incorrect Answer 3"), "has no field Incorrect Answer 3"),
        ("math", changed(solution="It is 3."), r"row 1: the solution has no \boxed{}"),
        ("math", changed(problem=" "), "row 1: the field 'problem' is blank"),
        ("math-500", changed(answer=""), "row 1: the field 'answer' is empty"),
        ("math-500", changed(answer=None), "row 1: the field 'answer' is empty"),
        ("math-500", changed(answer=["a"]), "row 1: the field 'answer' holds list, not text"),
        ("aime-2025", changed(answer="1/2"), "row 1: the answer '1/2' is no integer from 0 to 999"),
        ("dapo-math-17k", changed(prompt=[]), "row 1: the field 'prompt' is not one message"),
        ("dapo-math-17k", changed(reward_model=None), "row 1: the field 'reward_model' is empty"),
        ("dapo-math-17k", changed(reward_model={"style": "r"}), "row 1: the field 'ground_truth' is empty"),
        ("gpqa-diamond", changed(**{"Incorrect Answer 2": "right"}), "row 1: the right answer 'right' is also among"),
    ],
)
def test_records_that_are_wrong(tmp_path, capsys, name, change, words):
    raw = save(tmp_path / "raw.jsonl", [change(RECORDS[name][0][0])])
    fails(capsys, 1, words, [name, "--source", raw, "--out", tmp_path / "out", "--rows", "any"])
    assert os.listdir(tmp_path / "out") == []


def test_number_of_rows(tmp_path, capsys):
    raw = save(tmp_path / "raw.jsonl", RECORDS["math"][0])
    command = ["math", "--source", raw, "--out", tmp_path / "out"]
    fails(capsys, 1, "2 rows, not 7500; for a selection of your own say --rows N or --rows any", command)
    fails(capsys, 1, "2 rows, not 3", [*command, "--rows", 3])
    fails(capsys, 1, "2 rows, not 1", [*command, "--rows", 1])
    assert run("math", raw, tmp_path / "out", rows="2") == 0
    (tmp_path / "empty.csv").write_text("problem,solution\n")
    fails(capsys, 1, "no data", ["math", "--source", tmp_path / "empty.csv", "--out", tmp_path, "--rows", "any"])


@pytest.mark.parametrize("folder", [False, True])
def test_no_rows_are_never_written(tmp_path, capsys, folder):
    path = tmp_path / "d" / "train.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"problem": pa.array([], pa.string()), "solution": pa.array([], pa.string())}), path)
    source = path.parent if folder else path
    fails(capsys, 1, "train.parquet: it has no data", ["math", "--source", source, "--out", tmp_path, "--rows", "any"])
    assert os.listdir(tmp_path) == ["d"]


def test_a_failure_leaves_the_old_file(tmp_path, capsys):
    raw = save(tmp_path / "raw.jsonl", RECORDS["math"][0])
    assert run("math", raw, tmp_path / "out") == 0
    before = (tmp_path / "out" / "math.parquet").read_bytes()
    assert run("math", raw, tmp_path / "out", rows="9") == 1
    assert (tmp_path / "out" / "math.parquet").read_bytes() == before
    assert os.listdir(tmp_path / "out") == ["math.parquet"]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.json", "not JSON", "cannot load"),
        ("a.jsonl", '{"a": 1}\n{"a":\n', "cannot load"),
        ("a.csv", "", "cannot load"),
        ("a.parquet", "nope", "cannot load"),
        ("a.txt", "words", "is no data file; use .json, .jsonl, .csv, .parquet"),
        ("folder/readme", "words", "cannot load"),
    ],
)
def test_files_that_are_no_data_set(tmp_path, capsys, name, content, words):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    source = path.parent if name.startswith("folder") else path
    fails(capsys, 1, words, ["math", "--source", source, "--out", tmp_path / "out"])


def test_an_empty_folder(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    fails(capsys, 1, "doesn't contain any data files", ["math", "--source", tmp_path / "empty", "--out", tmp_path])


def test_folder_with_configurations(tmp_path, capsys):
    # as `hf download --repo-type dataset opencompass/AIME2025` leaves it
    configs = "".join(
        f"- config_name: AIME2025-{part}\n  data_files:\n  - split: test\n    path: aime2025-{part}.jsonl\n"
        for part in ("I", "II")
    )
    folder = tmp_path / "AIME2025"
    for part in ("I", "II"):
        save(folder / f"aime2025-{part}.jsonl", [{"question": f"{part}?", "answer": str(k)} for k in range(15)])
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n# AIME 2025\n")
    assert run("aime-2025", folder, tmp_path, rows=None) == 0
    rows = written(tmp_path, "aime-2025")
    assert [row["prompt"][1]["content"] for row in rows] == ["I?"] * 15 + ["II?"] * 15
    fails(
        capsys,
        1,
        "has the configurations AIME2025-I, AIME2025-II; expected algebra, ",
        ["math", "--source", folder, "--out", tmp_path],
    )


def test_folder_of_single_problems(tmp_path):
    # as in the authors' archive: MATH/train/algebra/1.json
    for split in ("test", "train"):
        for number, record in enumerate(RECORDS["math"][0]):
            path = tmp_path / "MATH" / split / record["type"].lower() / f"{number}.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({**record, "problem": f"{split} {number}"}, indent=4))
    assert run("math", tmp_path / "MATH", tmp_path, rows="2") == 0
    assert [row["prompt"][1]["content"] for row in written(tmp_path, "math")] == ["train 1", "train 0"]


def test_training_rows_are_not_taken_from_a_test_split(tmp_path, capsys):
    save(tmp_path / "math" / "test.jsonl", RECORDS["math"][0])
    command = ["math", "--source", tmp_path / "math", "--out", tmp_path, "--rows", "any"]
    fails(capsys, 1, "has the splits test; expected train", command)
    save(tmp_path / "math" / "train.jsonl", RECORDS["math"][0][:1])
    assert run("math", tmp_path / "math", tmp_path, rows="1") == 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["gsm8k", "--out", "o"], "no data set 'gsm8k'; use math, dapo-math-17k"),
        (
            ["math", "--out", "o", "--prompt", "choice"],
            "math has no prompt style 'choice'; use boxed, think, dapo, plain",
        ),
        (["all", "--out", "o", "--prompt", "boxed"], "gpqa-diamond has no prompt style 'boxed'"),
        (["all", "--out", "o", "--source", "x/y"], "for one data set"),
        (["all", "--out", "o", "--rows", "5"], "for one data set"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    fails(capsys, 2, words, arguments)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", [["math"], ["math", "--out", "o", "--rows", "0"], ["math", "--rows", "few"]])
def test_arguments_that_the_parser_refuses(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["data", *arguments])
    assert stop.value.code == 2


@pytest.mark.parametrize("source", ["no/such/folder", "raw.json", "data/raw.json", "name", "../x"])
def test_sources_that_are_not_there(tmp_path, monkeypatch, capsys, source):
    monkeypatch.chdir(tmp_path)
    fails(capsys, 1, f"there is no file or folder {source}", ["math", "--source", source, "--out", tmp_path])


def test_places_that_cannot_be_written_to(tmp_path, capsys):
    raw = save(tmp_path / "raw.jsonl", RECORDS["math"][0])
    command = ["math", "--source", raw, "--rows", "any", "--out"]
    fails(capsys, 1, "is not a folder", [*command, raw])
    fails(capsys, 1, "cannot write", [*command, raw / "below"])
    fails(capsys, 1, "cannot write /proc/nowhere/math.parquet", [*command, "/proc/nowhere"])
    (tmp_path / "taken" / "math.parquet").mkdir(parents=True)
    fails(capsys, 1, "cannot write", [*command, tmp_path / "taken"])
    assert os.listdir(tmp_path / "taken") == ["math.parquet"]


def hub_error(kind, status):
    import httpx
    from huggingface_hub import errors

    request = httpx.Request("GET", "https://huggingface.co/api/datasets/Idavidrein/gpqa")
    return getattr(errors, kind)(f"{status} Client Error", response=httpx.Response(status, request=request))


@pytest.mark.parametrize("hidden", [False, True])
def test_gated(monkeypatch, tmp_path, capsys, hidden):
    import datasets

    def refuse(*args, **kwargs):
        words = "Dataset 'Idavidrein/gpqa' is a gated dataset on the Hub."
        raise datasets.exceptions.DatasetNotFoundError(words) from (
            None if hidden else hub_error("GatedRepoError", 401)
        )

    monkeypatch.setattr(datasets, "get_dataset_config_names", refuse)
    words = "Idavidrein/gpqa is gated: accept its terms at https://huggingface.co/datasets/Idavidrein/gpqa, then"
    fails(capsys, 1, words, ["gpqa-diamond", "--out", tmp_path])


@pytest.mark.parametrize(
    "error, words",
    [
        (
            lambda: ConnectionError("Couldn't reach 'a/b'\non the Hub"),
            "cannot reach the hub for a/b; check the network",
        ),
        (lambda: hub_error("RepositoryNotFoundError", 404), "cannot load a/b: 404 Client Error"),
        (lambda: ValueError("first\nsecond"), "cannot load a/b: first"),
        (lambda: RuntimeError(), "cannot load a/b: RuntimeError"),
    ],
)
def test_other_errors_of_the_hub(monkeypatch, tmp_path, capsys, error, words):
    import datasets

    def refuse(*args, **kwargs):
        raise error()

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda where: ["default"])
    fails(capsys, 1, words, ["math", "--source", "a/b", "--out", tmp_path])


@pytest.fixture
def hub(monkeypatch):
    """A repository of the hub, as far as its files and what ``datasets`` finds in it: in memory, fetched by URL."""
    import datasets
    import fsspec

    def put(splits: dict[str, dict[str, dict[str, str]]]):
        """Text of files, by configuration, split and path."""
        asked, memory = [], fsspec.filesystem("memory")

        def builder(where, config):
            asked.append((where, config))
            for texts in splits[config].values():
                for path, text in texts.items():
                    memory.pipe(f"/datasets/{where}@abc/{path}", text.encode())
            urls = {
                split: [f"memory://datasets/{where}@abc/{path}" for path in texts]
                for split, texts in splits[config].items()
            }
            return SimpleNamespace(config=SimpleNamespace(data_files=urls))

        monkeypatch.setattr(datasets, "get_dataset_config_names", lambda where: list(splits))
        monkeypatch.setattr(datasets, "load_dataset_builder", builder)
        return asked

    yield put
    memory = fsspec.filesystem("memory")
    if memory.exists("/datasets"):
        memory.rm("/datasets", recursive=True)


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_what_the_hub_is_asked_for(hub, tmp_path):
    subjects = sorted(SOURCES["math"].configs[0])
    train, test = lines(RECORDS["math"][0]), lines(RECORDS["math"][0][:1])
    asked = hub({name: {"train": {f"{name}/a.jsonl": train}, "test": {"b.jsonl": test}} for name in subjects[::-1]})
    assert main(["data", "math", "--out", str(tmp_path), "--rows", "14"]) == 0
    assert asked == [("EleutherAI/hendrycks_math", subject) for subject in subjects]


@pytest.mark.parametrize(
    "name,text,words",
    [
        ("d/a.csv", "problem,answer\np,3\nq,4,5\n", "a/b/d/a.csv, row 2 (which ends in line 3) has 3 fields"),
        ("a.csv", "problem,answer\np,3\nq,\n", "a/b/a.csv, line 3, row 2: the field 'answer' is empty"),
        ("a.tsv", "problem\tanswer\np\t3\n", "a/b/a.tsv is no data file; use .json, .jsonl, .csv, .parquet"),
        ("a.csv.gz", "\x1f", "a/b/a.csv.gz is no data file"),
    ],
)
def test_a_file_of_the_hub_is_read_as_strictly(hub, tmp_path, capsys, name, text, words):
    hub({"default": {"test": {name: text}}})
    fails(capsys, 1, words, ["math-500", "--source", "a/b", "--out", tmp_path / "out", "--rows", "any"])


def test_files_of_the_hub_keep_their_text_and_order(hub, tmp_path):
    files = {"2.csv": "problem,answer\nNA,007\n", "1.jsonl": lines([{"problem": "b", "answer": 12345678901234567890}])}
    hub({"default": {"test": files}})
    assert run("math-500", "a/b", tmp_path) == 0
    answers = [row["reward_model"]["ground_truth"] for row in written(tmp_path, "math-500")]
    assert answers == ["007", "12345678901234567890"]


def test_without_network_the_command_ends_with_one_line(tmp_path):
    code = "import sys; from egsw_plugin.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "data", "all", "--out", str(tmp_path)]
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(SOURCES) and all("cannot reach the hub" in line for line in lines), done.stderr


def test_ctrl_c(monkeypatch, tmp_path, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "read", interrupt)
    raw = save(tmp_path / "raw.jsonl", RECORDS["math"][0])
    fails(capsys, 130, "interrupted, nothing written", ["math", "--source", raw, "--out", tmp_path / "out"])
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(
    "row,fields", [("1,Q?,S,2,more", 5), ("1,Q?,S,2,", 5), ("1,Q?,S", 3), ('1,"Q,\n?",S,2,x', 5), ("1", 1)]
)
def test_rows_and_header_of_a_csv_file_must_agree(tmp_path, capsys, row, fields):
    """pandas shifted the columns: the solution became the question."""
    good = "\n".join(f'{i},"What, is {i}?",So {i}.,{i}' for i in range(5))
    path = tmp_path / "aime.csv"
    path.write_text(f"ID,question,solution,answer\n{good}\n\n{row}\n{good}\n")
    message = (
        f"aime.csv, row 6 (which ends in line {8 + row.count(chr(10))}) has {fields} fields, and the header names 4"
    )
    fails(capsys, 1, message, ["aime-2024", "--source", path, "--out", tmp_path, "--rows", "any"])


def test_a_csv_file_with_a_byte_order_mark_and_a_long_field(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1," + "x" * 200_000 + "\n", encoding="utf-8-sig")
    table = files.read(path)
    assert table.fields == ["a", "b"] and table.rows == 1


GOOD = '{"problem": "p", "answer": "3"}\n'
MALFORMED = [  # the file's name and content, and what the one line says of it
    ("a.jsonl", GOOD + "[1, 2]", "a.jsonl, line 2, row 2 is a list and no object"),
    ("a.jsonl", GOOD + "\n\n5\n", "a.jsonl, line 4, row 2 is a number and no object"),
    ("a.jsonl", GOOD + "null", "a.jsonl, line 2, row 2 is null and no object"),
    ("a.jsonl", GOOD + '"text"', "a.jsonl, line 2, row 2 is text and no object"),
    ("a.jsonl", GOOD + GOOD.strip() + " xx", "a.jsonl, line 2, row 2, character 33: no JSON: Extra data"),
    ("a.jsonl", GOOD.strip() + GOOD, "a.jsonl, line 1, row 1, character 32: no JSON: Extra data"),
    ("a.jsonl", GOOD + '{"problem": "p", "ans', "a.jsonl, line 2, row 2, character 18: no JSON: Unterminated string"),
    ("a.jsonl", GOOD + "{'problem': 'p'}", "a.jsonl, line 2, row 2, character 2: no JSON: Expecting property name"),
    ("a.jsonl", '{"problem": "p", "answer": "3", "answer": "4"}', "the field 'answer' comes more than once"),
    ("a.jsonl", GOOD + '{"problem": "q", "answer": NaN}', "a.jsonl, line 2, row 2: the field 'answer' is empty"),
    ("a.jsonl", GOOD + '{"problem": "q", "answer": null}', "line 2, row 2: the field 'answer' is empty"),
    ("a.jsonl", GOOD + '{"problem": "q"}', "line 2, row 2: the field 'answer' is empty"),
    ("a.jsonl", GOOD + '{"problem": "q", "answer": true}', "line 2, row 2: the field 'answer' holds bool"),
    ("a.jsonl", GOOD + '{"problem": "q", "answer": ["3"]}', "line 2, row 2: the field 'answer' holds list"),
    ("a.jsonl", GOOD + '{"problem": {"text": "q"}, "answer": "3"}', "line 2, row 2: the field 'problem' holds dict"),
    ("a.jsonl", GOOD + '{"problem": "q", "answer": "3", "id": ["x"]}', "line 2, row 2: the field 'id' holds list"),
    (
        "a.jsonl",
        GOOD + '{"problem": "q\\ud800", "answer": "3"}',
        "row 2: the question has half of a surrogate",
    ),
    ("a.jsonl", "[" * 100_000, "nested too deeply"),
    ("a.jsonl", "<!DOCTYPE html><html>", "a.jsonl: it is a web page and not the data"),
    ("a.jsonl", b"\x1f\x8b\x08\x00", "a.jsonl: it is compressed"),
    ("a.jsonl", GOOD.replace("p", "é").encode("latin-1"), "a.jsonl, line 1: not UTF-8"),
    ("a.jsonl", "\n\n", "a.jsonl: it has no data"),
    ("a.json", '[{"problem": "p", "answer": "3"},', "a.json, character 34: no JSON: Expecting value"),
    ("a.json", "[" + GOOD + ", 5]", "a.json, row 2 is a number and no object"),
    ("a.json", '{\n"data": []\n}', "a.json has no field problem or Problem or question, answer or Answer; it has data"),
    ("a.parquet", "version https://git-lfs.github.com/spec/v1\noid x", "a.parquet: it is a Git LFS pointer"),
    ("a.csv", "problem,answer\np,3\nq\n", "a.csv, row 2 (which ends in line 3) has 1 fields, and the header names 2"),
    ("a.csv", "problem,answer\np,3\nq,4,5\n", "row 2 (which ends in line 3) has 3 fields, and the header names 2"),
    ("a.csv", "problem,answer,answer\np,3,4\n", "a.csv, the header names answer more than once"),
    ("a.csv", "problem, problem,answer\np,3,4\n", "a.csv, the header names problem more than once"),
    ("a.csv", 'problem,answer\np,3\n"q,4\nr,5\n', "the row that begins in line 3: unexpected end of data"),
    ("a.csv", 'problem,answer\np,"3\n', "the row that begins in line 2: unexpected end of data"),
    ("a.csv", 'problem,answer\n"p" x,3\n', "the row that begins in line 2: ',' expected after '\"'"),
    ("a.csv", "problem;answer\np;3\n", "the header 'problem;answer' has semicolons where commas belong"),
    ("a.csv", "problem\tanswer\np\t3\n", "has tabs where commas belong"),
    ("a.csv", "problem|answer\np|3\n", "has bars where commas belong"),
    ("a.csv", "problem,answer\np,3\nq,\n", "a.csv, line 3, row 2: the field 'answer' is empty"),
    ("a.csv", "What is 1+1?,2\nWhat is 2+2?,4\n", "has no field problem or Problem or question"),
    ("a.csv", "problem,answer\np,3\n".encode("utf-16"), "a.csv, line 1: not UTF-8"),
    ("a.csv", "problem,answer\n", "a.csv: it has no data below its header"),
    ("a.csv", "\n\nproblem,answer\n\np,3\nq\n", "a.csv, row 2 (which ends in line 6) has 1 fields"),
    ("a.csv", "problem,answer\np,3\u2028q,4\n", "a.csv, row 1 (which ends in line 2) has 3 fields"),
    ("a.csv", 'problem,answer\np,3\nq, "4"\n', "row 2 (which ends in line 3): the field 'answer' has a space before"),
    ("a.csv", "problem,answer\np,3\n\ufeffproblem, answer\nq,4\n", "a.csv, row 2 (which ends in line 3) is the header"),
    ("a.csv", '"prob\nlem",answer\np,3\n', "it has prob\\nlem, answer"),
    ("a.csv", ",".join(f"f{i}" for i in range(99)) + "\n" + "1," * 98 + "1\n", "f11 and 87 more"),
    ("a.csv", b"PK\x03\x04\x14\x00", "a.csv: it is compressed"),
    ("a.csv", b"BZh91AY", "a.csv: it is compressed"),
    ("a.jsonl", b"\xfd7zXZ\x00\x00", "a.jsonl: it is compressed"),
    ("a.jsonl", b"\x28\xb5\x2f\xfd\x04", "a.jsonl: it is compressed"),
    ("a.csv", b"PAR1\x15\x04", "a.csv: it is a parquet file"),
    ("a.csv", "\ufeff<!DOCTYPE html>", "a.csv: it is a web page"),
    ("a.jsonl", GOOD + '{"problem": "q", "answer": %s}' % ("1" * 5000), "a.jsonl, line 2, row 2 has a number of 5000"),
    ("a.json", '\n\n\n[{"problem": "p",\n"answer": "3"},\n{x}]', "a.json, line 6, character 2: no JSON"),
    ("a.jsonl", GOOD + '{"problem": "q", "answer": 12345678901234567890.0}', "the field 'answer' holds float"),
    ("a.jsonl", GOOD + '{"problem": "q", "answer": "1°2"}', "the answer '1°2' is no integer"),
]


@pytest.mark.parametrize("name,content,words", MALFORMED)
def test_a_malformed_file_is_one_line_with_file_row_and_field(tmp_path, capsys, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    fails(capsys, 1, words, ["aime-2024", "--source", path, "--out", tmp_path / "out", "--rows", "any"])
    assert not os.listdir(tmp_path / "out")


@pytest.mark.parametrize(
    "columns,words",
    [
        ({"problem": ["p"]}, "has no field answer or Answer; it has problem"),
        ({"problem": ["p", "q"], "answer": [3, None]}, "row 2: the field 'answer' is empty"),
        ({"problem": ["p"], "answer": [3.5]}, "row 1: the field 'answer' holds float"),
        ({"problem": ["p"], "answer": [["3"]]}, "row 1: the field 'answer' holds list"),
        ({"problem": [b"p"], "answer": ["3"]}, "row 1: the field 'problem' holds bytes"),
        ({"problem": ["p"], "answer": [datetime.date(2020, 1, 3)]}, "row 1: the field 'answer' holds date"),
        ({"problem": ["p"], "answer": ["3"], "id": [[1]]}, "row 1: the field 'id' holds list"),
    ],
)
def test_parquet_columns_of_other_types(tmp_path, capsys, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    fails(capsys, 1, words, ["aime-2024", "--source", tmp_path / "a.parquet", "--out", tmp_path, "--rows", "any"])


def test_a_parquet_file_with_a_column_twice(tmp_path, capsys):
    pq.write_table(pa.table([["p"], ["3"], ["4"]], names=["problem", "answer", "answer"]), tmp_path / "a.parquet")
    words = "a.parquet has the column answer more than once"
    fails(capsys, 1, words, ["aime-2024", "--source", tmp_path / "a.parquet", "--out", tmp_path, "--rows", "any"])


@pytest.mark.parametrize(
    "name,content",
    [
        ("a.csv", "\ufeffproblem,answer\np,3\n"),
        ("a.csv", "problem, answer\r\np, 3\r\n\r\n"),
        ("a.csv", "problem,answer\rp,3\r"),
        ("a.csv", ",problem,answer\n0,p,3\n"),
        ("a.jsonl", "\ufeff" + GOOD),
        ("a.jsonl", "\n" + GOOD.replace('"3"', "3")),
        ("a.json", GOOD),
        ("a.json", "[\n" + GOOD + "]"),
        ("a.csv", "problem,answer\np\u2028\x1c\x0b,3\n"),
        ("a.csv", "\n\nproblem,answer\np,3\n"),
    ],
)
def test_files_that_are_dressed_otherwise(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    assert run("aime-2024", tmp_path / name, tmp_path / "out") == 0
    (row,) = written(tmp_path / "out", "aime-2024")
    assert row["reward_model"]["ground_truth"] == "3" and "p" in row["prompt"][-1]["content"]


@pytest.mark.parametrize(
    "change,words",
    [
        ({"prompt": "text"}, "the field 'prompt' is not one message"),
        ({"prompt": ["text"]}, "the field 'prompt' is not one message"),
        ({"prompt": 5}, "the field 'prompt' is not one message"),
        ({"prompt": [{"role": "user", "content": ["x"]}]}, "the field 'content' holds list"),
        ({"reward_model": "x"}, "the field 'reward_model' is no section"),
        ({"extra_info": "x"}, "the field 'extra_info' is no section"),
        ({"extra_info": [1]}, "the field 'extra_info' is no section"),
        ({"extra_info": {"index": {}}}, "the field 'index' holds dict"),
        ({"prompt": None}, "the field 'prompt' is empty"),
        ({"reward_model": None}, "the field 'reward_model' is empty"),
        ({"extra_info": []}, "the field 'extra_info' is no section"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "the field 'prompt' has a message with role 'assistant'"),
        ({"prompt": [{"content": "x"}]}, "the field 'prompt' has a message with content; expected role user"),
        (
            {"prompt": [{"role": "user", "content": "x", "images": "y"}]},
            "the field 'prompt' has a message with role",
        ),
        ({"prompt": [{"role": "user", "content": "x\ud800"}]}, "the question has half of a surrogate pair"),
        ({"prompt": dapo_row(" ", "2", 1)["prompt"]}, "the question has no text"),
        ({"reward_model": {"ground_truth": "\x0crac{1}{2}"}}, "the answer '\\x0crac{1}{2}' has the control"),
    ],
)
def test_nested_fields_of_another_form(tmp_path, capsys, change, words):
    raw = save(tmp_path / "raw.jsonl", [dapo_row("Q", "2", 1), {**dapo_row("R", "2", 2), **change}])
    command = ["dapo-math-17k", "--source", raw, "--out", tmp_path, "--rows", "any"]
    fails(capsys, 1, f"raw.jsonl, line 2, row 2: {words}", command)


TEXT = r"\frac{1}{2}"
FOLDERS = [  # files of a folder, and the answers, or what the one line says
    ({"train.jsonl": lines([{"problem": "p", "answer": TEXT}, {"problem": "q", "answer": 4}])}, [TEXT, "4"]),
    ({"train.json": json.dumps([{"problem": "p", "answer": TEXT}, {"problem": "q", "answer": 4}])}, [TEXT, "4"]),
    ({"train.json": '[{"problem": "p", "answer": 12345678901234567890}]'}, ["12345678901234567890"]),
    (
        {"train-1.jsonl": lines([{"problem": "p", "answer": 33}]), "train-2.jsonl": GOOD.replace("3", "007")},
        ["33", "007"],
    ),
    ({"train-1.csv": "problem,answer\np,3\n", "train-2.csv": "answer,problem,more\n04,q,x\n"}, ["3", "04"]),
    ({"train.csv": "problem,answer\nNA,007\nb,1.50\n"}, ["007", "1.50"]),
    ({"train.csv": "problem, answer\n2020-01-01, 3\n"}, ["3"]),
    ({"train.jsonl": GOOD, ".cache/x.jsonl": "{", "dataset_infos.json": "{}", "validation.jsonl": "no"}, ["3"]),
    ({"train.jsonl": lines([{"problem": "p", "answer": "x"}, {"problem": "q", "answer": True}])}, "holds bool"),
    ({"train.json": '[{"problem": "p", "answer": "3", "answer": "4"}]'}, "'answer' comes more than once"),
    ({"train.json": '[{"problem": "p", "answer": "3\\ud800"}]'}, "the answer has half of a surrogate pair"),
    ({"train.csv": "problem,answer\np,3\nq,4,5\n"}, "d/train.csv, row 2 (which ends in line 3) has 3 fields"),
    (
        {"train-1.csv": "problem,answer\np,3\n", "train-2.csv": "problem,answer\np,3\nq,\n"},
        "d/train-2.csv, line 3, row 2: the field 'answer' is empty",
    ),
    ({"train-1.jsonl": GOOD, "train-2.jsonl": '{"problem": "p"}'}, "d/train-2.jsonl has no field answer; it has prob"),
    ({"train.csv": "problem,answer\np,3\n", "more.jsonl": GOOD}, "d has more.jsonl, which would not be read"),
    ({"train.jsonl": GOOD, "extra.jsonl.gz": "x"}, "d has extra.jsonl.gz, which would not be read"),
    ({"train.tsv": "problem\tanswer\np\t3\n"}, "d/train.tsv is no data file"),
    ({"train.jsonl": b"\x1f\x8b\x08"}, "d/train.jsonl: it is compressed"),
    ({"readme": "words"}, "cannot load"),
]


@pytest.mark.parametrize("content,expected", FOLDERS)
def test_a_folder_is_read_as_strictly_as_a_file(tmp_path, capsys, content, expected):
    for name, text in content.items():
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    command = ["math-500", "--source", tmp_path / "d", "--out", tmp_path / "out", "--rows", "any"]
    if isinstance(expected, str):
        fails(capsys, 1, expected, command)
        return
    assert main(["data", *map(str, command)]) == 0
    assert [row["reward_model"]["ground_truth"] for row in written(tmp_path / "out", "math-500")] == expected


UNREADABLE = [  # columns whose values Python does not have
    pa.array([0, 253402300800 * 10**6], pa.timestamp("us")),
    pa.array([0, 2932897], pa.date32()),
    pa.array([0, 1], pa.timestamp("us", tz="Mars/Phobos")),
    pa.array([0, 2**63 - 1], pa.duration("s")),
]


@pytest.mark.parametrize("column", UNREADABLE, ids=lambda column: str(column.type))
def test_a_parquet_value_that_python_does_not_have(tmp_path, capsys, column):
    pq.write_table(pa.table({"problem": ["p", "q"], "answer": ["3", "4"], "made": column}), tmp_path / "a.parquet")
    words = f"a.parquet, row {1 if 'Mars' in str(column.type) else 2}, column 'made' ({column.type}): "
    fails(capsys, 1, words, ["math-500", "--source", tmp_path / "a.parquet", "--out", tmp_path, "--rows", "any"])


def test_a_parquet_file_with_bytes_that_are_no_text(tmp_path, capsys):
    text = pa.array([b"p", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"problem": text, "answer": ["3", "4"]}), tmp_path / "a.parquet")
    words = "a.parquet, row 2, column 'problem' (string): UnicodeDecodeError"
    fails(capsys, 1, words, ["math-500", "--source", tmp_path / "a.parquet", "--out", tmp_path, "--rows", "any"])


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD)
    read = files.read

    def grow(*args):
        table = read(*args)
        path.write_text(GOOD * 2)
        return table

    monkeypatch.setattr(files, "read", grow)
    command = ["math-500", "--source", path, "--out", tmp_path / "out", "--rows", "any"]
    fails(capsys, 1, "a.jsonl had 1 rows at first, and then 2", command)
    monkeypatch.setattr(files, "read", lambda *args: (read(*args), path.unlink())[0])
    fails(capsys, 1, "cannot load", command)


def test_control_characters_in_a_question_are_told(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(2 * GOOD + r'{"problem": "What is \frac{1}{2}?", "answer": "3"}')
    assert run("math-500", path, tmp_path / "out") == 0
    assert f"control characters in the text of 1 questions, first in {path}, line 3, row 3" in capsys.readouterr().out


def test_a_source_that_is_the_file_to_write(tmp_path, capsys):
    assert run("math-500", save(tmp_path / "a.jsonl", [{"problem": "p", "answer": "3"}]), tmp_path) == 0
    path = tmp_path / "math-500.parquet"
    before = path.read_bytes()
    fails(capsys, 1, "is the file to write", ["math-500", "--source", path, "--out", tmp_path])
    assert path.read_bytes() == before


@pytest.mark.parametrize("source,out", [("~/x", "~/x"), ("~/x/math-500.parquet", "HOME/x"), ("HOME/link", "HOME/x")])
def test_a_source_that_holds_the_file_to_write(tmp_path, monkeypatch, capsys, source, out):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = save(tmp_path / "x" / "math-500.parquet", [{"problem": "p", "answer": "3"}])
    (tmp_path / "link").symlink_to("x")
    before = path.read_bytes()
    source, out = (text.replace("HOME", str(tmp_path)) for text in (source, out))
    fails(capsys, 1, "the file to write", ["math-500", "--source", source, f"--out={out}", "--rows", "any"])
    assert path.read_bytes() == before and os.listdir(tmp_path / "x") == [path.name]


def test_a_home_that_the_shell_did_not_fill_in(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    raw = save(tmp_path / "raw" / "a.jsonl", [{"problem": "p", "answer": "3"}])
    for out, folder in (("~/d", "d"), ("./~/d", "~/d")):
        assert main(["data", "math-500", f"--source={raw}", f"--out={out}", "--rows=any"]) == 0
        assert (tmp_path / folder / "math-500.parquet").exists()
    with pytest.raises(SystemExit):
        main(["data", "math-500", "--out", "~nobody-of-this-name/d"])
    assert "there is no such user" in capsys.readouterr().err


@pytest.mark.parametrize("name,sign", [("data*", "*"), ("br[1]", "["), ("what?", "?"), ("dop::pel", "::")])
def test_a_folder_whose_name_is_a_pattern(tmp_path, capsys, name, sign):
    """datasets would read the folders that it matches."""
    for folder in (name, "data1", "br1"):
        save(tmp_path / folder / "a.jsonl", [{"problem": folder, "answer": "3"}])
    words = f"datasets takes {sign} in {tmp_path / name} for a pattern"
    fails(capsys, 1, words, ["math-500", "--source", tmp_path / name, "--out", tmp_path / "o", "--rows", "any"])
    assert run("math-500", tmp_path / name / "a.jsonl", tmp_path / "o") == 0
    assert name in written(tmp_path / "o", "math-500")[0]["prompt"][-1]["content"]


def test_a_link_to_itself(tmp_path, capsys):
    (loop := tmp_path / "loop").symlink_to(loop)
    raw = save(tmp_path / "a.jsonl", [{"problem": "p", "answer": "3"}])
    fails(capsys, 1, "there is no file or folder", ["math-500", "--source", loop, "--out", tmp_path / "o"])
    fails(capsys, 1, "cannot write", ["math-500", "--source", raw, "--out", loop, "--rows", "any"])


@pytest.mark.parametrize("source", ["", " "])
def test_an_empty_source(tmp_path, monkeypatch, capsys, source):
    """As an unset variable of the shell leaves it: the current folder is not meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text(GOOD)
    fails(capsys, 2, "--source is empty", ["math-500", "--source", source, "--out", "o", "--rows", "any"])


@pytest.mark.parametrize("source", ["~nobody-of-this-name/a.csv", "x" * 5000])
def test_sources_that_no_file_system_has(tmp_path, capsys, source):
    fails(capsys, 1, "cannot load", ["math", "--source", source, "--out", tmp_path])


@pytest.mark.parametrize(
    "answer", [r"\text{even}", r"2\theta", r"\nu", r"a \times b", r"\frac{1}{2}", r"\rho", r"\neq 3"]
)
@pytest.mark.parametrize("name", ["math", "math-500", "dapo-math-17k"])
def test_an_undoubled_backslash_is_told(tmp_path, capsys, name, answer):
    """JSON reads a tab, a line feed or a form feed there, and what is left looks like an answer."""
    record = {
        "math": {"problem": "p", "solution": "\\boxed{ANSWER}"},
        "math-500": {"problem": "p", "answer": "ANSWER"},
        "dapo-math-17k": dapo_row("p", "ANSWER", 1),
    }[name]
    (tmp_path / "a.jsonl").write_text(json.dumps(record).replace("ANSWER", answer))
    words = "row 1: the answer"
    fails(capsys, 1, words, [name, "--source", tmp_path / "a.jsonl", "--out", tmp_path / "o", "--rows", "any"])
    (tmp_path / "a.jsonl").write_text(json.dumps(record).replace("ANSWER", answer.replace("\\", "\\\\")))
    assert run(name, tmp_path / "a.jsonl", tmp_path / "o") == 0
    assert written(tmp_path / "o", name)[0]["reward_model"]["ground_truth"] == answer
