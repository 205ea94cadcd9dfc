"""Records of a step and what `egsw-plugin whatif` makes of them: numbers against the kernels and against loops.

Maps to egsw_plugin/records and verl_adapter/recording.py's choice of groups. What a real trainer records is checked in
verl_runs/test_member_runs.py.
"""

import base64
import csv
import json
import math
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from batches import random_batch
from transformers import PreTrainedTokenizerFast

from egsw_plugin import console
from egsw_plugin.cli import main
from egsw_plugin.errors import DataError, OptionError
from egsw_plugin.kernels.egsw import MOST
from egsw_plugin.kernels.group_relative import group_relative
from egsw_plugin.kernels.groups import dense_group_ids
from egsw_plugin.records import Record, Recorder, read_records, store, whatif
from egsw_plugin.study.text import correlations, steps_table, text_tables, tokens_table
from egsw_plugin.verl_adapter.recording import RecordOptions, _text, options_of


def record_of(seed, step=1, **columns):
    """A batch with GRPO's advantages as a trainer would have recorded it."""
    rewards, mask, index, entropy = random_batch(seed, prompts=4, responses=4, tokens=12)
    reward = rewards.sum(1)
    level = group_relative(reward, dense_group_ids(index))
    rows = []
    for row in range(len(mask)):
        length = max((t + 1 for t in range(mask.shape[1]) if mask[row, t]), default=0)
        policy = [bool(bit) for bit in mask[row, :length]]
        base = [float(level[row]) if own else 0.0 for own in policy]
        rows.append(
            {
                "step": step,
                "uid": str(index[row]),
                "session": str(row),
                "prompt": "<|im_start|>user\n2 + 2?",
                "response": "é\x00</script>",
                "prompt_ids": [1, 2],
                "ids": list(range(length)),
                "tokens": [f"t{t}" for t in range(length)],
                "policy": policy,
                "old_log_prob": [-float(h) for h in entropy[row, :length]],
                "entropy": entropy[row, :length].tolist(),
                "base": base,
                "weight": None,
                "advantage": base,
                "reward": float(reward[row]),
                "score": float(reward[row]),
                "success": bool(reward[row] > 0.5),
            }
            | columns
        )
    return Record(rows, {"algorithm": {"adv_estimator": "grpo"}})


def test_what_is_written_is_read(tmp_path):
    for step in (10, 9):
        store.write_record(record_of(step, step), tmp_path / "checkpoints" / "records")
    found = read_records(tmp_path)
    assert [record.step for record in found] == [9, 10]
    for record in found:
        expected = record_of(record.step, record.step)
        assert record.about["algorithm"] == expected.about["algorithm"]
        for row, original in zip(record.rows, expected.rows, strict=True):
            for name, value in original.items():
                assert row[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value) or (
                    isinstance(value, list) and np.allclose(row[name], value)
                ), name
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "_warned", set())
    place = tmp_path / "records"
    place.write_text("in the way")
    recorder = Recorder(place)
    for step in (1, 2):
        recorder.write(partial(record_of, step, step))
    recorder.flush()
    said = capsys.readouterr().out
    assert said.count("records cannot be written") == 1 and "training goes on" in said
    place.unlink()
    recorder.write(partial(record_of, 3, 3))
    recorder.flush()
    assert [record.step for record in read_records(tmp_path)] == [3]


def test_records_of_an_earlier_run_are_set_aside_and_those_before_a_checkpoint_are_not(tmp_path):
    folder = tmp_path / "records"
    for step in (1, 10, 20, 30):
        store.write_record(record_of(step, step), folder)
    resumed = Recorder(folder)
    for step in (20, 40):
        resumed.write(partial(record_of, step + 100, step))
        resumed.flush()
    found = read_records(tmp_path)
    assert [record.step for record in found] == [1, 10, 20, 40]
    assert found[2].rows[0]["entropy"] == pytest.approx(record_of(120, 20).rows[0]["entropy"])
    assert sorted(path.name for path in (folder / "previous").iterdir()) == [
        "step_000020.parquet",
        "step_000030.parquet",
    ]


def test_a_second_resume_loses_no_record_of_the_first(tmp_path):
    folder = tmp_path / "records"
    for run in range(3):
        recorder = Recorder(folder)
        recorder.write(partial(record_of, run, 10))
        recorder.flush()
    for run, place in enumerate((folder / "previous", folder / "previous_2", tmp_path)):
        (record,) = read_records(place)
        assert record.rows[0]["entropy"] == pytest.approx(record_of(run, 10).rows[0]["entropy"])


def test_a_folder_deleted_in_the_middle_is_made_again(tmp_path):
    recorder = Recorder(tmp_path / "records")
    recorder.write(partial(record_of, 1, 1))
    recorder.flush()
    shutil.rmtree(tmp_path / "records")
    recorder.write(partial(record_of, 2, 2))
    recorder.flush()
    assert [record.step for record in read_records(tmp_path)] == [2]


def test_files_that_are_no_records(tmp_path):
    with pytest.raises(DataError, match=r"has no records; .*algorithm\.record\.every"):
        read_records(tmp_path)
    (tmp_path / "step_000001.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"step_000001\.parquet is not a record"):
        read_records(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet is not a record of egsw-plugin: it has no such metadata"):
        read_records(tmp_path / "other.parquet")
    (tmp_path / "step_000001.parquet").unlink()
    (tmp_path / "step_000001.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"there is no file .*step_000001\.parquet"):
        read_records(tmp_path)


def drop(name):
    return lambda table: table.drop_columns([name])


def put(name, values):
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values(table))


def shorter(name):
    def values(table):
        lists = table[name].to_pylist()
        return pa.array([lists[0][:-1], *lists[1:]], table.schema.field(name).type)

    return put(name, values)


def holed(name):
    def values(table):
        lists = table[name].to_pylist()
        return pa.array([[None, *lists[0][1:]], *lists[1:]], table.schema.field(name).type)

    return put(name, values)


@pytest.mark.parametrize(
    "change,words",
    [
        *((drop(name), f"has no column {name}") for name in ("entropy", "reward", "uid", "step", "tokens")),
        *((shorter(name), f"values of {name} in row 0, for") for name in ("entropy", "base", "tokens", "policy")),
        *((holed(name), f"has a gap in a row of {name}") for name in ("entropy", "weight", "tokens")),
        (put("success", lambda t: pa.array(["False"] * t.num_rows)), "has a column success of string, not of bool"),
        (put("reward", lambda t: pa.array([None] * t.num_rows, pa.float64())), "has no reward in row 0"),
        (put("reward", lambda t: pa.array([math.nan] * t.num_rows)), "has a reward that is no finite number"),
        (put("step", lambda t: pa.array([1, 2] * (t.num_rows // 2))), "has rows of step 1, 2"),
        (put("step", lambda t: pa.array([7] * t.num_rows)), "has rows of step 7"),
        (lambda t: t.slice(0, 0), "has no rows"),
        (lambda t: t.replace_schema_metadata({b"egsw_plugin": b"[1]"}), "is not a record of egsw-plugin"),
        (lambda t: t.replace_schema_metadata({b"egsw_plugin": b"[" * 100_000}), "is not a record of egsw-plugin"),
        (lambda t: t.replace_schema_metadata({b"egsw_plugin": b'{"version": 2}'}), "another version (2, here 1)"),
    ],
)
def test_a_record_that_was_changed_is_refused(tmp_path, change, words):
    record = record_of(1)
    for row in record.rows:
        row["weight"] = row["entropy"]
    path = store.write_record(record, tmp_path)
    read_records(path)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(DataError, match=re.escape(words)):
        read_records(path)


def test_a_record_that_was_cut_is_refused(tmp_path):
    path = store.write_record(record_of(1), tmp_path)
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="is not a record"):
            read_records(path)
    damaged = bytearray(whole)
    damaged[20:60] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="is not a record"):
        read_records(path)


def test_records_of_two_runs_are_no_run(tmp_path):
    for run in ("a", "b"):
        store.write_record(record_of(1), tmp_path / run / "records")
    with pytest.raises(DataError, match=r"records of 2 runs; choose one, such as .*/a/records"):
        read_records(tmp_path)
    assert len(read_records(tmp_path / "a")) == 1


def test_records_of_the_run_before_are_not_those_of_a_run(tmp_path):
    store.write_record(record_of(1), tmp_path / "previous" / "checkpoints" / "records")
    with pytest.raises(DataError, match="has no records"):
        read_records(tmp_path)
    assert len(read_records(tmp_path / "previous")) == 1


def test_records_behind_a_link(tmp_path):
    store.write_record(record_of(1), tmp_path / "scratch" / "records")
    run = tmp_path / "outputs" / "run"
    run.mkdir(parents=True)
    for name in ("checkpoints", "again"):
        (run / name).symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch" / "back").symlink_to(run)
    assert len(read_records(run)) == 1
    assert len(read_records(tmp_path / "outputs")) == 1
    with pytest.raises(DataError, match=r"there is no .*/rum$"):
        read_records(tmp_path / "rum")


def tokenizer_of(kind):
    """A tokenizer of "the cat" and of é in bytes, whose decoder is built as Llama 2's or GPT-2's are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    if kind == "sentencepiece":
        vocabulary = ["<unk>", "▁the", "▁cat", "s", "▁", "<0xC3>", "<0xA9>", "</s>"]
        unspaced = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        decoder = decoders.Sequence(unspaced)
    else:
        vocabulary = ["<unk>", "Ġthe", "Ġcat", "s", "Ġ", "Ã", "©", "</s>"]
        assert {"Ġ", "Ã", "©"} <= set(pre_tokenizers.ByteLevel.alphabet())
        decoder = decoders.ByteLevel()
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate(vocabulary)}, [], unk_token="<unk>"))
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes"])
def test_a_tokens_text_keeps_its_space(kind):
    texts = [_text(tokenizer_of(kind), token) for token in range(1, 8)]
    assert texts == [" the", " cat", "s", " ", "\ufffd", "\ufffd", "</s>"]


def test_options():
    assert options_of({"adv_estimator": "grpo"}) is None
    assert options_of({"record": {"every": 5}}) == RecordOptions(5, 4)
    with pytest.raises(OptionError, match=r"algorithm\.record\.evry=1: .*did you mean 'every'"):
        options_of({"record": {"evry": 1}})
    with pytest.raises(OptionError, match=r"algorithm\.record\.every=0"):
        options_of({"record": {"every": 0}})


def test_measures_against_loops():
    record = record_of(3)
    chain = whatif.chain_of("egsw", {"alpha": 0.7, "temperature": 1.5})
    found = whatif.measure(chain, [record])
    shares, weights, moved, size, credit = [], [], 0.0, 0.0, []
    shifted = without = 0.0
    for uid in {row["uid"] for row in record.rows}:
        group = [row for row in record.rows if row["uid"] == uid]
        own = [[t for t, bit in enumerate(row["policy"]) if bit] for row in group]
        for column in range(max(map(len, own))):
            there = [(row, ts[column]) for row, ts in zip(group, own, strict=True) if column < len(ts)]
            raw = [math.exp((row["base"][t] + 0.7 * row["entropy"][t]) / 1.5) for row, t in there]
            w = [len(raw) * x / sum(raw) for x in raw]
            shares.append(sum(w) ** 2 / sum(x * x for x in w) / len(w))
            weights += w
            for (row, t), x in zip(there, w, strict=True):
                moved, size = moved + abs(row["base"][t] * (x - 1)), size + abs(row["base"][t])
                credit.append((row["entropy"][t], abs(row["base"][t] * x)))
            # Without the entropy: as if alpha were 0.
            raw = [math.exp(row["base"][t] / 1.5) for row, t in there]
            for (row, t), x, y in zip(there, w, raw, strict=True):
                equal = row["base"][t] * len(raw) * y / sum(raw)
                shifted, without = shifted + abs(row["base"][t] * x - equal), without + abs(equal)
    bound = np.quantile([h for h, _ in credit], 0.8)
    expected = {
        "effective_share": sum(shares) / len(shares),
        "weight_max": max(weights),
        "weight_min": min(weights),
        "entropy_shift": 100 * shifted / max(without, sum(a for _, a in credit)),
        "sign_flip": 0.0,
        "uncertain": 100 * sum(a for h, a in credit if h >= bound) / sum(a for _, a in credit),
        "distance": moved / size,
    }
    assert found == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in expected.items()}


def test_weights_that_are_all_1_leave_the_base():
    for chain in (whatif.chain_of("grpo"), whatif.chain_of("egsw", {"alpha": 0.0, "temperature": 1e30})):
        found = whatif.measure(chain, [record_of(4), record_of(5)])
        assert (found["effective_share"], found["weight_max"], found["weight_min"]) == (1, 1, 1)
        assert (found["distance"], found["sign_flip"], found["entropy_shift"]) == (0, 0, 0)


def failed(record):
    """The record with rewards of 0 alone."""
    zeros = [{name: [0.0] * len(row["ids"]) for name in ("base", "advantage")} for row in record.rows]
    outcome = {"reward": 0.0, "score": 0.0, "success": False}
    return Record([{**row, **own, **outcome} for row, own in zip(record.rows, zeros, strict=True)], record.about)


@pytest.mark.parametrize("method", ["grpo", "egsw", "gtpo", "grpo_s", "high_entropy"])
def test_a_step_of_failures_alone_does_not_count_where_it_has_nothing(method, capsys, monkeypatch):
    monkeypatch.setattr(console, "_warned", set())
    chain = whatif.chain_of(method)
    alone, both = (whatif.measure(chain, records) for records in ([record_of(4)], [record_of(4), failed(record_of(5))]))
    if method == "egsw":  # whose weights need no success
        for name in ("effective_share", "weight_max", "weight_min"):
            del alone[name], both[name]
    assert both == pytest.approx(alone, nan_ok=True)
    said = capsys.readouterr().out
    assert said.startswith(f"[egsw] warning: {method}: 1 of 2 steps have nothing to measure for ")
    assert "distance; the others count" in said
    assert ("effective_share" in said) == (method in ("gtpo", "grpo_s"))
    assert math.isnan(whatif.measure(chain, [failed(record_of(5))])["distance"])


def test_entropies_that_are_no_numbers_have_no_most_uncertain_tokens():
    record = record_of(4)
    rows = [{**row, "entropy": [math.nan, *row["entropy"][1:]] if row["ids"] else []} for row in record.rows]
    found = whatif.measure(whatif.chain_of("grpo"), [Record(rows, {})])
    assert math.isnan(found["uncertain"]) and found["distance"] == 0


@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 11, 12, 100])
def test_the_most_uncertain_tokens_are_those_from_the_quantile_on(tokens):
    entropy = np.random.default_rng(tokens).random(tokens).astype(np.float32)
    each = {name: [1.0] * tokens for name in ("base", "advantage")}
    row = record_of(4).rows[0] | each | {"ids": [1] * tokens, "policy": [True] * tokens, "entropy": entropy.tolist()}
    row["old_log_prob"] = None
    found = whatif.measure(whatif.chain_of("grpo"), [Record([row], {})])
    assert found["uncertain"] == pytest.approx(100 * np.mean(entropy >= np.quantile(entropy, 0.8)))


def test_success_is_the_runs_or_the_scores_above_a_threshold():
    record = record_of(4)
    scored = Record([{**row, "score": 0.8 if row["success"] else 0.6} for row in record.rows], record.about)
    by_run, same, none = (
        whatif.measure(whatif.chain_of("gtpo", {"threshold": threshold}), [scored]) for threshold in (0.5, 0.7, 0.9)
    )
    assert by_run == same and by_run["distance"] < 1 and none["distance"] == 1
    seen = whatif.seen_as(scored, whatif.chain_of("gtpo", {"threshold": 0.9}))
    assert not any(row["success"] for row in seen)


def test_weights_for_the_policy_loss_count_and_other_fields_are_said(capsys, monkeypatch):
    monkeypatch.setattr(console, "_warned", set())
    records = [record_of(4)]
    folded, sent = (whatif.measure(whatif.chain_of("egsw", {"channel": c}), records) for c in ("advantage", "loss"))
    assert sent == pytest.approx(folded) and sent["distance"] > 0
    assert capsys.readouterr().out == ""
    assert whatif.measure(whatif.chain_of("archer"), records)["distance"] == 0
    said = "archer acts in the policy loss (clip_low, clip_high, kl_weight), which is not seen here"
    assert said in capsys.readouterr().out


def test_a_session_with_several_outputs_is_refused():
    record = record_of(4)
    rows = [{**row, "session": "0"} for row in record.rows]
    with pytest.raises(DataError, match=r"step 1: session 0 of .* has several outputs"):
        whatif.measure(whatif.chain_of("grpo"), [Record(rows, {})])
    assert whatif.batch_of(Record([{**row, "session": None} for row in rows], {}))


def test_a_step_without_a_token_is_refused():
    rows = [
        {**row, **{name: [] for name, value in row.items() if isinstance(value, list)}} for row in record_of(4).rows
    ]
    with pytest.raises(DataError, match="step 1 has no tokens"):
        whatif.batch_of(Record(rows, {}))


@pytest.mark.parametrize("alpha", [0.0, 0.5, -2.0])
def test_the_temperature_that_is_searched_gives_the_share(alpha):
    records = [record_of(6), record_of(7)]
    (line,) = whatif.search("egsw", {"alpha": [alpha]}, 0.9, records)
    again = whatif.measure(whatif.chain_of("egsw", line.options), records)
    assert again["effective_share"] == pytest.approx(0.9, abs=1e-3)
    (line,) = whatif.search("egsw", {"alpha": [alpha]}, 1.5, records)
    assert line.options["temperature"] == pytest.approx(MOST)


def test_a_search_computes_what_it_looks_at(monkeypatch):
    """Not the credit with equal entropies, which takes as long as the method; and no column again for each trial."""
    equal, made = [], []
    monkeypatch.setattr(whatif, "_equal", lambda *given, own=whatif._equal: equal.append(given) or own(*given))
    monkeypatch.setattr(Record, "_made", lambda self, name, own=Record._made: made.append(name) or own(self, name))
    (line,) = whatif.search("egsw", {"alpha": [0.5]}, 0.9, [record_of(6)])
    assert len(equal) == 1 and sorted(made) == ["base", "entropy", "old_log_prob", "policy"]
    assert line.measures == whatif.measure(whatif.chain_of("egsw", line.options), [record_of(6)])
    assert line.measures.keys() == whatif.MEASURES.keys()


def test_a_record_without_an_entropy_is_refused_where_a_method_needs_it():
    record = record_of(8, entropy=None)
    with pytest.raises(DataError, match="needs entropy"):
        whatif.measure(whatif.chain_of("egsw"), [record])
    assert math.isnan(whatif.measure(whatif.chain_of("grpo"), [record])["uncertain"])


def test_the_command(tmp_path, capsys):
    store.write_record(record_of(9, 10), tmp_path / "records")
    arguments = [
        "whatif",
        str(tmp_path),
        "--set",
        "alpha=0,0.5",
        "--set",
        "temperature=1,3",
        "--against",
        "gtpo",
        "grpo",
    ]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert table.count("| egsw alpha=") == 4 and "| gtpo |" in table and "| grpo |" in table
    assert "effective share" in (tmp_path / "out" / "whatif.md").read_text()
    with (tmp_path / "out" / "whatif.csv").open() as file:
        lines = list(csv.DictReader(file))
    expected = whatif.measure(
        whatif.chain_of("egsw", {"alpha": 0.5, "temperature": 3.0}), read_records(tmp_path / "records")
    )
    assert float(lines[3]["effective_share"]) == expected["effective_share"]
    assert (tmp_path / "out" / "whatif.png").read_bytes().startswith(b"\x89PNG")
    assert main(["whatif", str(tmp_path), "--set", "alpha=0.5", "--target", "effective_share=0.9"]) == 0
    assert "temperature=" in capsys.readouterr().out


def test_the_documentations_tables_are_those_of_the_recorded_steps_in_the_repository(monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parent.parent)
    page = Path("docs/records.md").read_text()
    (command,) = re.findall(r"`(egsw-plugin whatif\s+docs/study_smollm2/steps [^`]*)`", page)
    assert main(command.split()[1:]) == 0
    table = capsys.readouterr().out.strip()
    assert len(table.splitlines()) == 12 and table in page
    page = Path("docs/study_smollm2.md").read_text()
    chosen = re.findall(r"^\| ([\d.]+), ([\d.]+) \| ([\d.]+) \| (\d+) \|", page, re.M)
    assert len(chosen) == 5
    records = read_records(Path("docs/study_smollm2/steps"))
    for alpha, temperature, share, uncertain in chosen:
        options = {"alpha": float(alpha), "temperature": float(temperature)}
        found = whatif.measure(whatif.chain_of("egsw", options), records)
        assert (share, uncertain) == (f"{found['effective_share']:.2f}", f"{found['uncertain']:.0f}")


@pytest.mark.parametrize(
    "arguments,fix",
    [
        (["--set", "alhpa=1"], "did you mean 'alpha'"),
        (["--set", "alpha"], "write OPTION=VALUE"),
        (["--target", "distance=1"], "write effective_share=NUMBER"),
        (["--target", "effective_share=much"], "write effective_share=NUMBER"),
        (["--target", "effective_share=nan"], "above 0 and at most 1"),
        (["--target", "effective_share=5"], "above 0 and at most 1"),
        (["--target", "effective_share=0.5", "--set", "temperature=3"], "--target searches the temperature"),
        (["--target", "effective_share=0.5", "--method", "gtpo"], "gtpo has no temperature to search"),
        (["--method", "grpo", "--set", "alpha=3"], "grpo has no options"),
        (["--method", "egsw_plugin", "--set", "alpha=3"], "egsw_plugin has no options"),
        (["--method", "grpo", "--target", "effective_share=0.5"], "grpo has no temperature to search"),
        (["--set", "alpha=0", "--set", "alpha=2"], "alpha comes twice; write alpha=VALUE,VALUE"),
        (["--set", "base=grpo,rloo"], "the record's base is used; leave it out"),
        (["--method", "gtpo", "--set", "success=acc"], "success as the run judged it is used; leave it out"),
        (["--method", "gtpo", "--set", "overlong=3", "--set", "overlong.enable=true"], "overlong.enable is set, too"),
        (["--method", "egws"], "egsw"),
        (["--step", "3"], "no record of step 3"),
    ],
)
def test_the_command_refuses(tmp_path, capsys, arguments, fix):
    store.write_record(record_of(9, 10), tmp_path / "records")
    assert main(["whatif", str(tmp_path), *arguments]) == 2
    assert fix in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "alpha=0,1", "--set", "temperature=auto,3"],
        ["--method", "gtpo", "--set", "alpha2=0.1,0.2", "--set", "norm_set=joint,none"],
        ["--method", "batch_clip_cov", "--set", "seed=3"],
        ["--method", "gtpo", "--set", "entropy_clip=[0.2,0.28],null", "--set", "overlong.enable=true,false"],
    ],
)
def test_values_that_are_no_fractions(tmp_path, capsys, arguments):
    store.write_record(record_of(9, 10), tmp_path / "records")
    assert main(["whatif", str(tmp_path), *arguments, "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("\n") >= 3


def test_a_member_of_a_file_is_a_method(tmp_path, capsys):
    store.write_record(record_of(9, 10), tmp_path / "records")
    method = f"{Path(__file__).parents[1] / 'examples' / 'late_tokens.py'}:LateTokens"
    assert main(["whatif", str(tmp_path), "--method", method, "--set", "decay=0.5,1", "--against", method]) == 0
    table = capsys.readouterr().out
    assert "LateTokens decay=0.5 |" in table and "LateTokens |" in table
    assert main(["inspect", str(tmp_path), "--method", method, "--set", "decay=0.5"]) == 0
    capsys.readouterr()
    assert main(["whatif", str(tmp_path), "--method", method, "--set", "dcay=0.5"]) == 2
    assert "algorithm.credit.late_tokens.dcay=0.5: there is no such option" in capsys.readouterr().err


def test_a_grid_without_effective_shares_has_no_picture_and_leaves_no_old_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("matplotlib"), "use", None)  # the backend is the caller's
    store.write_record(record_of(9, 10), tmp_path / "records")
    picture = tmp_path / "out" / "whatif.png"
    arguments = ["whatif", str(tmp_path), "--out", str(picture.parent)]
    assert main(arguments) == 0 and picture.exists()
    grid = ["--method", "entropy_advantage", "--set", "alpha=0.1,0.4", "--set", "kappa=2,3"]
    assert main([*arguments, *grid]) == 0 and not picture.exists()
    assert "no whatif.png: entropy_advantage has no effective share" in capsys.readouterr().out
    assert main(arguments) == 0 and picture.exists()
    assert main([*arguments, "--set", "alpha=1"]) == 0 and not picture.exists()


def test_what_is_not_installed_is_said(tmp_path, capsys, monkeypatch):
    store.write_record(record_of(9, 10), tmp_path / "records")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
        assert main(["whatif", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out == (tmp_path / "out" / "whatif.md").read_text() and "| egsw alpha=" in said.out
    assert said.err == "egsw-plugin: the figures need matplotlib: pip install 'egsw-plugin[report]'\n"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for command in ("whatif", "inspect"):
        assert main([command, str(tmp_path)]) == 1
        assert "no module 'pyarrow': pip install 'verl[" in capsys.readouterr().err


def gtpo_run(folder, seed=9, groups=5, **options):
    """The record of a run of GTPO with these options, as its trainer would have written it."""
    section = {"adv_estimator": "gtpo", "gtpo": {"success": "acc", "threshold": 0.3, **options}, "gamma": 1.0}
    plain = record_of(seed, 10)
    chain = whatif.chain_of("gtpo", options)
    rows = [{name: row[name] for name in plain.rows[0]} for row in whatif.seen_as(plain, chain)]
    record = Record(rows, {"algorithm": section, "groups": groups})
    store.write_record(record, folder / "records")
    return record


def test_the_method_and_the_options_are_those_of_the_run(tmp_path, capsys):
    """Success is as it was judged, whatever field and threshold said so."""
    record = gtpo_run(tmp_path, alpha2=0.3, norm_set="joint")
    assert main(["whatif", str(tmp_path), "--set", "alpha2=0.3,0.1", "--out", str(tmp_path)]) == 0
    assert "groups" not in capsys.readouterr().out
    with (tmp_path / "whatif.csv").open() as file:
        ran, same, other = csv.DictReader(file)
    assert ran.pop("method") == "gtpo, as it ran" and same.pop("method") == other.pop("method") == "gtpo"
    assert (ran.pop("alpha2"), same.pop("alpha2")) == ("", "0.3")
    assert ran == same and float(other["entropy_shift"]) < float(same["entropy_shift"])
    expected = whatif.measure(whatif.chain_of("gtpo", {"alpha2": 0.1, "norm_set": "joint"}), [record])
    assert float(other["distance"]) == expected["distance"]
    assert main(["whatif", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert main(["whatif", str(tmp_path), "--method", "grpo_s", "--against", "gtpo"]) == 0
    table = capsys.readouterr().out
    assert "as it ran" not in table and "| grpo_s |" in table and "| gtpo |" in table


def test_a_page_of_methods_has_the_numbers_of_whatif(tmp_path, capsys):
    """From the page's own data: the distance of each method's advantages to the base, as it ran first."""
    record = gtpo_run(tmp_path, alpha2=0.3)
    page = tmp_path / "page.html"
    asked = ["--method", "gtpo", "--method", "egsw", "--method", "grpo_s"]
    assert main(["inspect", str(tmp_path), *asked, "--set", "gtpo.alpha2=0.1", "--out", str(page)]) == 0
    others = ["--set", "alpha2=0.1", "--against", "egsw", "grpo_s"]
    assert main(["whatif", str(tmp_path), *others, "--out", str(tmp_path)]) == 0
    with (tmp_path / "whatif.csv").open() as file:
        expected = [float(line["distance"]) for line in csv.DictReader(file)]
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])
    (step,) = data["steps"]
    assert [view["name"] for view in step["views"]] == ["as it ran", "gtpo alpha2=0.1", "egsw", "grpo_s"]
    responses = [response for group in step["groups"] for response in group["responses"]]
    assert sum(response["reward"] for response in responses) == pytest.approx(sum(r["reward"] for r in record.rows))

    def numbers(texts):
        parts = [np.frombuffer(base64.b64decode(text), "<f4").astype(float) for text in texts]
        pairs = zip(parts, responses, strict=True)
        return np.concatenate([part if len(part) != 1 else part.repeat(r["length"]) for part, r in pairs])

    base = numbers(response["base"] for response in responses)
    made = [numbers(response["views"][view]["advantage"] for response in responses) for view in range(4)]
    found = [np.abs(advantage - base).sum() / np.abs(base).sum() for advantage in made]
    assert found == pytest.approx(expected, rel=1e-5) and len({round(x, 3) for x in found}) == 4


def test_options_of_the_run_in_the_other_place(tmp_path, capsys):
    """In algorithm.NAME or in algorithm.credit.NAME; what is given takes the place of both."""
    section = {"adv_estimator": "egsw", "credit": {"egsw": {"alpha": 2.0}}, "egsw": {"temperature": 1.5}}
    record = Record(record_of(9, 10).rows, {"algorithm": section})
    store.write_record(record, tmp_path / "records")
    assert main(["whatif", str(tmp_path), "--set", "alpha=0.5,2", "--out", str(tmp_path)]) == 0
    with (tmp_path / "whatif.csv").open() as file:
        ran, other, same = csv.DictReader(file)
    expected = whatif.measure(whatif.chain_of("egsw", {"alpha": 0.5, "temperature": 1.5}), [record])
    assert float(other["distance"]) == expected["distance"] != float(ran["distance"]) == float(same["distance"])


def test_what_controllers_have_moved_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "_warned", set())
    store.write_record(Record(record_of(9, 10).rows, {"algorithm": {"adv_estimator": "repo"}}), tmp_path / "records")
    assert main(["whatif", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| repo, as it began |" in said and "records do not hold what controllers made of repo." in said


def test_groups_that_were_not_recorded_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "_warned", set())
    gtpo_run(tmp_path, groups=32)
    assert main(["whatif", str(tmp_path), "--set", "alpha2=0,0.1"]) == 0
    assert capsys.readouterr().out.count("step 10 has 5 of its batch's 32 groups") == 1


def test_a_target_that_is_not_reached_is_said(tmp_path, capsys):
    store.write_record(record_of(9, 10), tmp_path / "records")
    assert main(["whatif", str(tmp_path), "--set", "alpha=0", "--target", "effective_share=0.01"]) == 0
    assert "effective_share=0.01 is not reached; the nearest is" in capsys.readouterr().out


def test_torch_and_whole_groups():
    batch = whatif.batch_of(record_of(11))
    assert batch.base.shape[1] == 1 and torch.equal(batch.outcome > 0.5, batch.judged)


# What weights do to text (study/text.py)


def response(tokens, weights, success, base=1.0):
    """A response whose tokens have these entropies: 0.1, 0.2, ..."""
    size = len(tokens)
    columns = {"ids": list(range(size)), "policy": [True] * size, "base": [base] * size}
    entropy = [0.1 * (place + 1) for place in range(size)]
    return {**columns, "step": 7, "tokens": tokens, "weight": weights, "entropy": entropy, "success": success}


def test_correlations_against_numpy():
    rng = np.random.default_rng(3)
    rows, columns = [], []
    for length, success in ((3, True), (5, False), (9, True), (6, False)):
        one = response(["x"] * length, rng.uniform(0, 3, length).tolist(), success)
        one["policy"][1], one["weight"][2] = False, math.nan
        rows.append(one)
        columns += [(one["weight"][t], t, length, one["entropy"][t], success) for t in range(length) if t not in (1, 2)]
    table = np.array(columns)
    names = ("place", "length", "entropy", "success")
    expected = {name: np.corrcoef(table[:, 0], table[:, at])[0, 1] for at, name in enumerate(names, 1)}
    for name, success in (("in successes", 1), ("in failures", 0)):
        part = table[table[:, 4] == success]
        expected[name] = np.corrcoef(part[:, 0], part[:, 3])[0, 1]
    assert correlations(rows) == pytest.approx(expected)
    assert math.isnan(correlations([response(["a"] * 4, [0.3] * 4, True)])["place"])
    assert all(math.isnan(value) for value in correlations([]).values())


def test_tables_of_recorded_steps():
    records = [record_of(5, step=1), record_of(6, step=20)]
    for record in records:
        for row in record.rows:
            row["tokens"] = ["|" if t % 2 else "`\n" for t in range(len(row["ids"]))]
    tables = text_tables(records)
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in tables["weights-on-text"].splitlines()}
    assert lines["grpo"].startswith("| grpo | 1.00 | 1.00 | 1.00 |")
    assert " 100 |" in lines["high_entropy"]
    assert "steps (1, 20)" in tables["weights-on-text"]
    follows = next(line for line in tables["weight-follows"].splitlines() if line.startswith("| egsw |")).split(" | ")
    means = []
    for success in (True, False):
        each = []
        for record in records:
            seen = whatif.seen_as(record, whatif.chain_of("egsw"))
            rows = [r for r in seen if any(r["base"]) and r["success"] == success]
            each.append(np.mean([w for r in rows for w, p in zip(r["weight"], r["policy"], strict=True) if p]))
        means.append(f"{np.mean(each):.2f}")
    assert follows[1:3] == means
    steps = steps_table({"egsw": records[:1], "gtpo": records[1:]}).splitlines()
    rows = records[1].rows
    entropy = [e for row in rows if row["success"] for e, p in zip(row["entropy"], row["policy"], strict=True) if p]
    rate = 100 * sum(row["success"] for row in rows) / len(rows)
    assert steps[3].startswith(f"| gtpo | 20 | {rate:.0f} | {np.mean(entropy):.2f} |")
    tokens = tables["tokens-egsw"].splitlines()[2:]
    assert {line.split(" | ")[0] for line in tokens} == {r"| `\|`", r"| `'\n`"}


def test_the_mean_weight_of_a_token_by_hand():
    """Two responses of ten tokens each, so that "a" is there twenty times; GRPO's weights are all 1."""
    records = [Record([response(["a"] * 10, None, True), response(["a"] * 10, None, False, base=-1.0)], {})]
    for place, row in enumerate(records[0].rows):
        row.update(uid="one", reward=float(row["success"]), old_log_prob=[-1.0] * 10, session=str(place))
    assert tokens_table("grpo", {}, records).splitlines()[2].startswith("| `a` | 1.00 | 20 |")
