"""The tiny task, its tokenizer and its assets."""

import dataclasses
import random

import pytest
from transformers import AutoTokenizer

from egsw_plugin.tiny import model, task
from egsw_plugin.tiny.__main__ import DONE, Settings, make, write_data

SHORT = Settings(seed=5, train_rows=40, test_rows=4, fit_batch=4, fit_steps=2, fit_check=1, fit_target=0.0)


@pytest.mark.parametrize(
    "text, score",
    [
        ("3+8=11\n#11", 1.0),
        ("#11", 1.0),
        ("#11<|im_end|>", 1.0),
        ("3+8=12\n#11\n", 1.0),
        ("#12", 0.0),
        ("11", 0.0),
        ("#11 or #12", 0.0),
        ("#12\n#11", 1.0),
        ("#11\n#12", 0.0),
        ("# 11", 0.0),
        ("#+11", 0.0),
        ("#011", 0.0),
        ("#１１", 0.0),
        ("#11.0", 0.0),
        ("", 0.0),
        ("\n\n", 0.0),
        ("\x00\ud800#", 0.0),
        ("#" * 10000, 0.0),
        ("#" + "1" * 10000, 0.0),
        (None, 0.0),
    ],
)
def test_reward(text, score):
    assert task.compute_score(task.DATA_SOURCE, text, "11", extra_info=None, anything=1) == {
        "score": score,
        "acc": score,
    }


def test_worked_solutions_are_right_and_fit():
    tokenizer = model.make_tokenizer()
    rng = random.Random(0)
    longest = [task.MAX_NUMBER] * task.MAX_TERMS
    for numbers in [longest, *task.problems(rng, 200)]:
        solution = task.worked_solution(numbers)
        assert task.compute_score("", solution, str(sum(numbers)))["score"] == 1.0
        assert task.demonstration(rng, numbers, hurry=0.0) == solution
        assert len(tokenizer(solution + model.END)["input_ids"]) <= model.MAX_RESPONSE
        assert len(model._prompt(tokenizer, numbers)) <= model.MAX_PROMPT


def test_hurried_demonstration_answers_the_sum_so_far():
    assert task.demonstration(random.Random(0), [3, 8, 9], hurry=1.0) == "#3"


def test_tokenizer_survives_auto_tokenizer(tmp_path):
    model.make_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "".join(map(chr, range(32, 127))) + "\n1 2\n\n  x"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text) and tokenizer.decode(ids) == text
    assert len(tokenizer) == len(model.make_tokenizer()) == 99
    chat = [{"role": "user", "content": "1+2"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert prompt == "<|im_start|>u\n1+2<|im_end|>\n<|im_start|>a\n"
    assert tokenizer.decode(tokenizer(prompt)["input_ids"], skip_special_tokens=True) == "u\n1+2\na\n"
    assert tokenizer.eos_token == model.END and tokenizer.pad_token == model.PAD


def test_data_follows_the_seed(tmp_path):
    import pandas as pd

    frames = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        (tmp_path / name).mkdir()
        write_data(tmp_path / name, dataclasses.replace(SHORT, seed=seed))
        frames[name] = pd.read_parquet(tmp_path / name / "train.parquet")
    assert frames["a"].equals(frames["b"])
    assert not frames["a"].equals(frames["c"])
    row = frames["a"].iloc[0]
    numbers = map(int, row["prompt"][0]["content"].split("+"))
    assert row["reward_model"]["ground_truth"] == str(sum(numbers))


def test_train_and_test_do_not_overlap(tmp_path):
    import pandas as pd

    write_data(tmp_path, dataclasses.replace(SHORT, train_rows=500, test_rows=100))
    train, test = (
        {r[0]["content"] for r in pd.read_parquet(tmp_path / f"{s}.parquet")["prompt"]} for s in ("train", "test")
    )
    assert not train & test


def test_assets_are_made_once_and_again_for_other_settings(tmp_path):
    out = tmp_path / "sub" / "assets"
    assert make(out, SHORT)
    first = (out / "model" / "model.safetensors").read_bytes()
    stamp = (out / DONE).stat().st_mtime_ns
    assert not make(out, SHORT)
    assert (out / DONE).stat().st_mtime_ns == stamp
    assert make(out, dataclasses.replace(SHORT, seed=6))
    assert (out / "model" / "model.safetensors").read_bytes() != first
    assert make(out, SHORT)
    assert (out / "model" / "model.safetensors").read_bytes() == first  # deterministic
    assert [p.name for p in out.parent.iterdir()] == ["assets"]  # nothing left over


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "warm_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "assets", SHORT)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(SystemExit, match="something else"):
        make(tmp_path, SHORT)
    assert (tmp_path / "thesis.tex").exists()
