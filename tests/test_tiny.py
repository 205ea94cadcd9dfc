"""The tiny tasks, their tokenizer and assets."""

import dataclasses
import random

import pytest
from transformers import AutoTokenizer

from egsw_plugin.rewards.math import accuracy_and_format
from egsw_plugin.rewards.reasoning_gym import reasoning_gym
from egsw_plugin.tiny import addition, model, target
from egsw_plugin.tiny.__main__ import DONE, SETTINGS, TASKS, Settings, make, write_data

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
    assert addition.compute_score(addition.DATA_SOURCE, text, "11", extra_info=None, anything=1) == {
        "score": score,
        "acc": score,
    }


def test_worked_solutions_are_right():
    longest = [addition.MAX_NUMBER] * addition.MAX_TERMS
    for numbers in [longest, *addition.problems(random.Random(0), 200)]:
        solution = addition.worked_solution(numbers)
        assert addition.compute_score("", solution, addition.truth(numbers))["score"] == 1.0
        assert addition.demonstration(random.Random(0), numbers, hurry=0.0) == solution


@pytest.mark.parametrize("name", TASKS)
def test_prompts_and_demonstrations_fit(name):
    task, rng = TASKS[name], random.Random(0)
    tokenizer = model.make_tokenizer(task.MAX_RESPONSE)
    for problem in task.problems(rng, 300):
        text = task.demonstration(rng, problem, hurry=0.0)
        assert len(tokenizer(text + model.END)["input_ids"]) <= task.MAX_RESPONSE
        assert len(model._prompt(tokenizer, task, problem)) <= model.MAX_PROMPT


def test_hurried_demonstration_answers_the_sum_so_far():
    assert addition.demonstration(random.Random(0), [3, 8, 9], hurry=1.0) == "#3"


@pytest.mark.parametrize(
    "text, score",
    [
        ("4+7=1-2=9?9", 1.0),
        ("4+7=1-2=9?9<|im_end|>", 1.0),
        ("4+7=1-2=9?9\n", 1.0),
        ("4*7=8*2=6?9\n4+7=1-2=9?9", 1.0),  # a try that missed, and one that did not
        ("what\n4+7=1-2=9?9", 1.0),
        ("4+7=1-2=9?9\n4*7=8*2=6?9", 0.0),  # the last line counts
        ("4+7=1-2=9", 0.0),  # the target is not restated
        ("4+7=1-2=9?8", 0.0),
        ("4*7=8*2=6?9", 0.0),  # misses
        ("4*7=8*2=6?6", 0.0),  # another target
        ("4+7=2-2=9?9", 0.0),  # a wrong step, and a wrong one after it
        ("4+7=1-2=8?9", 0.0),
        ("4-2=2+7=9?9", 0.0),  # another order
        ("4+5=9?9", 0.0),  # other digits
        ("4+7=1-2=9+0=9?9", 0.0),
        ("9?9", 0.0),
        ("4 +7=1-2=9?9", 0.0),
        ("4+7=1-2=9?9 ", 1.0),
        ("4+7=11-2=9?9", 0.0),
        ("４+7=1-2=9?9", 0.0),
        ("", 0.0),
        (None, 0.0),
        ("4" * 10000, 0.0),
    ],
)
def test_reward_of_the_target_task(text, score):
    result = target.compute_score(target.DATA_SOURCE, text, "4 7 2=9", extra_info=None, anything=1)
    assert result == {"score": score, "acc": score}


def test_every_target_can_be_reached():
    """By all operators in turn, computed here with Python's own arithmetic."""
    for problem in target.problems(random.Random(0), 200):
        *digits, goal = problem
        results = {digits[0]}
        for digit in digits[1:]:
            results = {result % 10 for left in results for result in (left + digit, left - digit, left * digit)}
        assert goal in results


def test_demonstrations_of_the_target_task():
    rng = random.Random(0)
    for problem in target.problems(rng, 200):
        assert target.demonstration(rng, problem, hurry=1.0).count("\n") == 0
        *missed, last = target.demonstration(rng, problem, hurry=0.0).split("\n")
        assert not any(target.compute_score("", line, target.truth(problem))["score"] for line in missed)
        assert len(missed) >= 2 or target.compute_score("", last, target.truth(problem))["score"]
    with pytest.raises(ValueError, match="boxed"):
        target.demonstration(rng, problem, hurry=0.0, boxed=True)


def test_data_of_the_target_task(tmp_path):
    import pandas as pd

    write_data(tmp_path, dataclasses.replace(SETTINGS["target"], train_rows=50, test_rows=9))
    row = pd.read_parquet(tmp_path / "train.parquet").iloc[0]
    assert row["data_source"] == target.DATA_SOURCE
    assert row["reward_model"]["ground_truth"] == row["prompt"][0]["content"]
    assert len(row["prompt"][0]["content"].split()) in (3, 4)


@pytest.mark.parametrize("grade", [accuracy_and_format, reasoning_gym])
def test_boxed_problems_are_graded_by_the_recipes_reward_functions(tmp_path, grade):
    import pandas as pd

    write_data(tmp_path, dataclasses.replace(SHORT, boxed=True))
    for row in pd.read_parquet(tmp_path / "train.parquet").to_dict("records"):
        numbers = list(map(int, row["prompt"][0]["content"].split("+")))
        for wrong in (0, 1):
            response = addition.worked_solution([*numbers[:-1], numbers[-1] + wrong], boxed=True)
            given = row["data_source"], response, row["reward_model"]["ground_truth"], row["extra_info"]
            found = grade(*given)
            assert found["acc"] == 1 - wrong


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
