r"""reasoning-gym's tasks, every one: the data, and the graders' verdicts on right, wrong and hostile answers.

A grader that finds wrong answers right is what training finds first; one that hangs costs the run; held-out problems
that were trained on measure nothing. Maps to egsw_plugin/data/{generate,reasoning_gym}.py and
egsw_plugin/rewards/{gym_tasks,readings,reasoning_gym}.py. Not exercised: the library's own arithmetic, and what a model
makes of the prompts.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_module
from verl.trainer.ppo.reward import get_custom_reward_fn

from egsw_plugin.cli import main
from egsw_plugin.data.generate import Task, draw
from egsw_plugin.data.reasoning_gym import GYM_SCHEMA, STYLES
from egsw_plugin.data.writer import SCHEMA
from egsw_plugin.errors import DataError, OptionError
from egsw_plugin.rewards import gym_tasks
from egsw_plugin.rewards.readings import readings, stated_answer
from egsw_plugin.rewards.reasoning_gym import reasoning_gym

RECIPE = Path(__file__).parents[1] / "recipes" / "reasoning_gym"
NAMES = gym_tasks.names()
EACH = 4  # problems of each task
FIELDS = {"score", "acc", "format", "ungraded", "pred", "data_source"}

# The library gives no right answer for these: many are right, and the grader tries the one that it is given.
WITHOUT_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
# Right answers of several lines, which a box and tags hold, and "The answer is" if nothing else follows.
SEVERAL_LINES = {
    "arc_agi",
    "binary_matrix",
    "futoshiki",
    "kakurasu",
    "manipulate_matrix",
    "mini_sudoku",
    "modulo_grid",
    "n_queens",
    "pool_matrix",
    "rearc",
    "rotate_matrix",
    "sudoku",
    "survo",
    "tower_of_hanoi",
}
DRESSED = {
    "stated": (
        "The answer is {}",
        "Hm.\nThe answer is {}.",
        "**Answer:** {}",
        "The final answer is:\n\n{}",
        "Answer = {}",
    ),
    "boxed": ("So $\\boxed{{{}}}$.", "\\boxed{{{}}}"),
    "tags": ("<think>The answer is 0.</think>So\n<answer>{}</answer>", "<answer>\n{}\n</answer>."),
}


@pytest.fixture(scope="module")
def problems():
    """Some problems of every task, by its name."""
    drawn = draw([Task(name, {}, name) for name in NAMES], [EACH] * len(NAMES), seed=5)
    return dict(zip(NAMES, drawn, strict=True))


@pytest.fixture(scope="module", autouse=True)
def drawn_once():
    """The command draws in an interpreter of its own, a second each; the same request gives the same problems."""
    known = {}

    def remembered(*request):
        if repr(request) not in known:
            known[repr(request)] = draw(*request)
        return known[repr(request)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("egsw_plugin.data.reasoning_gym.draw", remembered)
        yield


def info(problem, form="tags", options="{}"):
    return {"entry": problem.entry, "options": options, "form": form, "index": 3}


def judge(name, problem, response, form="tags", **options):
    result = reasoning_gym(f"reasoning_gym/{name}", response, problem.answer, info(problem, form), **options)
    assert result.keys() == FIELDS
    return result


def same_number(answer, right):
    """Whether a wrong answer by its making, such as the first third of 0.0, is right."""
    try:
        return float(answer) == float(right)
    except ValueError:
        return False


def marks(name, problem, answer):
    """What the library's own grader gives, corrected where it is wrong, in this process."""
    return gym_tasks.value(name, "{}", problem.entry, (answer,))


# --- every task


def test_the_list_of_tasks():
    assert len(NAMES) == 105 and "composite" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_as_they_may_be_stated(problems, name):
    assert any(problem.answer for problem in problems[name]) == (name not in WITHOUT_ANSWER)
    assert any("\n" in problem.answer for problem in problems[name]) == (name in SEVERAL_LINES)
    for problem in problems[name]:
        for form, texts in DRESSED.items() if problem.answer else ():
            for text in texts:
                result = judge(name, problem, text.format(problem.answer), form)
                assert result["acc"] == result["score"] == result["format"] == 1.0, (text, problem.answer, result)
                assert result["ungraded"] == 0.0


ASKED = {  # an answer that the grader must accept, out of the problem's own data
    "graph_color": lambda data: json.dumps({str(key): color for key, color in data["possible_answer"].items()}),
    "propositional_logic": lambda data: f"({data['premises'][0]} ∧ {data['premises'][0]})",
    "rubiks_cube": lambda data: data["example_correct_answer"],
}


@pytest.mark.parametrize("name", ASKED)
def test_tasks_without_an_answer_grade_what_they_are_given(problems, name):
    for problem in problems[name]:
        answer = ASKED[name](gym_tasks.decode(problem.entry)["metadata"])
        assert judge(name, problem, f"The answer is {answer}", "stated")["acc"] == 1.0, answer


def test_rush_hour_by_hand():
    # The red car A has its way to the right barred by B, which can go down.
    board = "ooooooooooooAAoooBoooooBoooooooooooo"
    entry = gym_tasks.encode({"question": "?", "answer": None, "metadata": {"board_config": board}})
    call = {"entry": entry, "options": "{}", "form": "stated"}
    for moves, acc in (("B+2 A+4", 1.0), ("B+1 A+4", 1.0), ("B-1 A+4", 0.0), ("A+4", 0.0), ("Q+1", 0.0)):
        assert reasoning_gym("reasoning_gym/rush_hour", f"The answer is {moves}", "", call)["acc"] == acc, moves


def test_boxnet_by_hand():
    # One box beside its target: the agent of its square moves it there. The library's grader counts what is left.
    state = {"0.5_0.5": ["box_red", "target_red"]}
    entry = gym_tasks.encode({"question": "?", "answer": None, "metadata": {"initial_state": state}})
    call = {"entry": entry, "options": "{}", "form": "tags"}
    right = '<answer>[{"Agent[0.5, 0.5]": "move(box_red, target_red)"}]</answer>'
    assert reasoning_gym("reasoning_gym/boxnet", right, "", call)["acc"] == 1.0
    assert reasoning_gym("reasoning_gym/boxnet", "<answer>[{}]</answer>", "", call)["acc"] == 0.0


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITHOUT_ANSWER))
def test_wrong_answers(problems, name):
    tried = 0
    for one in problems[name]:
        wrong = [other.answer for other in problems[name] if other.answer.strip().lower() != one.answer.strip().lower()]
        for answer in [*wrong, "banana", "x", "-", one.answer[: len(one.answer) // 3]]:
            if not answer.strip() or same_number(answer, one.answer):
                continue
            tried += 1
            assert marks(name, one, answer) < 1.0, (answer, one.answer)
    assert tried


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_survives_the_file(problems, name):
    for problem in problems[name]:
        entry = gym_tasks.decode(problem.entry)
        assert gym_tasks.encode(entry) == problem.entry
        assert entry["question"] == problem.question


def test_an_entry_is_the_librarys_own():
    """Not only the same text again: equal to what the generator returned, tuples and number keys included."""
    import random

    import numpy as np

    for name in NAMES:
        dataset = gym_tasks.make(name, {}, 5, 11)
        random.seed(1), np.random.seed(1)
        entry = dataset[0]
        again = gym_tasks.decode(gym_tasks.encode(entry))
        assert again == entry, name
        assert shape(again) == shape(entry), name


def shape(value):
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    return None


def test_the_same_problems_in_another_process(problems):
    again = draw([Task(name, {}, name) for name in NAMES], [2] * len(NAMES), seed=5)
    assert dict(zip(NAMES, again, strict=True)) == {name: drawn[:2] for name, drawn in problems.items()}


# --- hostile answers


HOSTILE = [
    "nan",
    "NaN, NaN",
    "[NaN, NaN]",
    "-inf",
    "1e400",
    "\x00",
    "\ud800",
    "9" * 8000,
    "(" * 4000,
    "[" * 4000,
    "{" * 4000,
    '{"a":' * 900 + "1" + "}" * 900,
    "'" * 4000,
    "__import__('os').system('touch {path}')",
    "open('{path}', 'w').close()",
    "().__class__.__base__.__subclasses__()",
    "x.__class__",
    "exit()",
    "raise SystemExit",
    "sqrt(" * 1000 + "2" + ")" * 1000,
    "((((((A ∧ B)" * 300,
    "U R F " * 1300,
    "\\boxed{" * 1000,
    "\\boxed{" * 900 + "}" * 900,
    "1,000" * 1500,
    "answer is " * 800,
    "$" * 8000,
    "*" * 8000,
    "\\text{" * 1300,
    "None",
    "[]",
    "{}",
    '{"a": 1}',
]


@pytest.mark.parametrize("number, name", enumerate(NAMES), ids=NAMES)
def test_hostile_answers(problems, number, name, tmp_path):
    """All texts where the grader parses, a fifth of them elsewhere, in turn, so that each meets some 20 graders."""
    problem = problems[name][0]
    path = tmp_path / "written"
    for text in HOSTILE if name in gym_tasks._PARSING else HOSTILE[number % 5 :: 5]:
        began = time.monotonic()
        result = judge(name, problem, f"<answer>{text.replace('{path}', str(path))}</answer>", time_limit=5)
        assert result["acc"] == 0.0 or problem.answer == text, (text[:40], problem.answer)
        assert time.monotonic() - began < 60
        assert not path.exists(), text
        assert isinstance(result["pred"], str)


BOMBS = [("coin_flip", "1e999999999"), ("countdown", "9**9**9**9"), ("simple_integration", "9**9**9")]


@pytest.mark.parametrize("name, bomb", BOMBS)
def test_time_has_a_bound(problems, name, bomb):
    problem = problems[name][0]
    began = time.monotonic()
    result = judge(name, problem, f"<answer>{bomb}</answer>", time_limit=0.5)
    assert result["ungraded"] == 1.0 and result["acc"] == result["score"] == 0.0
    assert time.monotonic() - began < 60
    assert judge(name, problem, f"<answer>{problem.answer}</answer>")["acc"] == 1.0


def test_evaluating_graders_still_read_lists(problems):
    """What `eval` was there for: a Python list gets part of the marks, as the library has it."""
    problem = problems["spiral_matrix"][0]
    listed = str([int(digit) for digit in problem.answer.split()])
    result = judge("spiral_matrix", problem, f"<answer>{listed}</answer>", partial=True)
    assert result["score"] == 0.1 and result["acc"] == 0.0


def test_wrong_answers_that_the_librarys_graders_accept(problems):
    """Each with the library's own verdict beside ours, so that the list is shortened when the library is mended."""
    library = gym_tasks.library()
    cases = [
        ("coin_flip", lambda problem: problem.answer[:1]),
        ("game_of_life_halting", lambda problem: {"True": "False", "False": "True"}[problem.answer]),
        ("gsm_symbolic", lambda problem: f"-{problem.answer}"),
        ("puzzle24", lambda problem: "6*4*1*1"),
    ]
    for name, wrong in cases:
        theirs = []
        for problem in problems[name]:
            entry = gym_tasks.decode(problem.entry)
            if name == "puzzle24" and sorted(entry["metadata"]["numbers"]) == [1, 1, 4, 6]:
                continue
            theirs.append(library.get_score_answer_fn(name)(wrong(problem), entry))
            assert judge(name, problem, f"<answer>{wrong(problem)}</answer>")["acc"] == 0.0
        assert 1.0 in theirs, name


def test_in_threads(problems):
    """As verl calls it, simple tasks and those of the pool at once."""
    cases = [(name, problem) for name in ("chain_sum", "countdown", "sudoku", "bf") for problem in problems[name]] * 4
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda case: judge(*case, f"<answer>{case[1].answer}</answer>"), cases))
    assert [result["acc"] for result in results] == [1.0] * len(cases)


@pytest.mark.parametrize("name", sorted(name for name in NAMES if gym_tasks.is_simple(name)))
def test_graders_without_a_process_evaluate_nothing(name):
    """A reading of the source stands behind the list; this finds what a new version of the library would bring in."""
    import inspect

    source = inspect.getsource(gym_tasks.library().factory.DATASETS[name][0].score_answer)
    assert not re.search(r"\b(eval|exec|parse_expr|sympify|loads|Fraction|loadtxt|literal_eval)\(", source)


# --- the reward


SUM = gym_tasks.encode({"question": "4 + 3?", "answer": "7", "metadata": {}})


def sum_of(response, form="stated", **options):
    record = {"entry": SUM, "options": "{}", "form": form}
    return reasoning_gym("reasoning_gym/chain_sum", response, "7", record, **options)


@pytest.mark.parametrize(
    "response, form, acc, pred, format",
    [
        ("The answer is 7.", "stated", 1, "7", 1),
        ("The answer is 4 + 3 = 7.", "stated", 1, "7", 1),
        ("The answer is 7, since 4 + 3 = 7.", "stated", 1, "7", 1),
        ("The answer is 7 apples.", "stated", 1, "7", 1),
        ("The answer is **7**", "stated", 1, "7", 1),
        ("The answer is $7$.", "stated", 1, "7", 1),
        ("The answer is +7.0", "stated", 1, "+7.0", 1),
        ("The answer is 8. No, the answer is 7", "stated", 1, "7", 1),
        ("The answer is 7. No, the answer is 8", "stated", 0, "8", 1),
        ("The answer is 7 or 8", "stated", 0, "7 or 8", 1),
        ("The answer is 6 = 7 = 8", "stated", 0, "6 = 7 = 8", 1),
        ("The answer is 17", "stated", 0, "17", 1),
        ("The answer is - 7.", "stated", 0, "-7", 1),
        ("The answer is –7.", "stated", 0, "-7", 1),
        ("The answer is -(7)", "stated", 0, "-(7)", 1),
        ("The answer is ±7", "stated", 0, "±7", 1),
        ("The answer is √7.", "stated", 0, "√7", 1),
        ("The answer is >7", "stated", 0, ">7", 1),
        ("The answer is 3+4 => 7", "stated", 1, "7", 1),
        ("The answer is => 7", "stated", 1, "7", 1),
        ("The answer is -> 7", "stated", 1, "7", 1),
        ("The answer is → 7.", "stated", 1, "7", 1),
        ("The answer is => -7", "stated", 0, "-7", 1),
        ("The answer is 7 => 8", "stated", 0, "8", 1),
        ("The answer is 6 = 7 => 7", "stated", 0, "6 = 7 => 7", 1),
        ("The answer is 7 kWh", "stated", 1, "7", 1),
        ("The answer is 7 rpm", "stated", 1, "7", 1),
        ("The answer is 7 xy", "stated", 0, "7 xy", 1),
        ("The answer is:\n- 7", "stated", 1, "7", 1),  # an item of a list
        ("The answer is X.", "stated", 0, "X", 1),
        ("7", "stated", 0, "", 0),
        ("It is 7.", "stated", 0, "", 0),
        ("The answer is", "stated", 0, "", 0),
        (r"\boxed{7}", "stated", 1, "7", 0),
        (r"The answer is 8. \boxed{7}", "boxed", 1, "7", 1),
        (r"The answer is 8. \boxed{7}", "stated", 1, "7", 1),
        (r"The answer is \boxed{7}.", "stated", 1, "7", 1),
        (r"\boxed{7 \text{ apples}}", "boxed", 1, "7", 1),
        ("<answer>7</answer>", "tags", 1, "7", 1),
        ("<answer>7</answer>", "stated", 1, "7", 0),
        ("<answer>7", "tags", 0, "", 0),
        ("<think>The answer is 7.</think>I do not know.", "stated", 0, "", 0),
        (r"\boxed{7}", "", 1, "7", 1),
        (None, "stated", 0, "", 0),
        ("", "stated", 0, "", 0),
    ],
)
def test_verdicts(response, form, acc, pred, format):
    result = sum_of(response, form)
    assert result == {
        "score": acc,
        "acc": acc,
        "format": format,
        "ungraded": 0.0,
        "pred": pred,
        "data_source": "reasoning_gym/chain_sum",
    }


def test_partial_marks(problems):
    # spell_backward gives a mark for each letter in its place
    entry = gym_tasks.encode({"question": "?", "answer": "cba", "metadata": {}})
    record = {"entry": entry, "options": "{}", "form": "stated"}
    whole = reasoning_gym("reasoning_gym/spell_backward", "The answer is cbx", "cba", record)
    part = reasoning_gym("reasoning_gym/spell_backward", "The answer is cbx", "cba", record, partial=True)
    assert (whole["score"], whole["acc"]) == (0.0, 0.0)
    assert part["score"] == pytest.approx(2 / 3) and part["acc"] == 0.0
    assert sum_of("The answer is 7", partial=True)["score"] == 1.0


def test_options_reach_the_grader():
    # decimal_arithmetic allows a difference of one in its last place
    entry = gym_tasks.encode({"question": "?", "answer": "1.25", "metadata": {}})
    for options, acc in (({"max_num_decimal_places": 2}, 1.0), ({"max_num_decimal_places": 4}, 0.0)):
        record = {"entry": entry, "options": json.dumps(options), "form": "stated"}
        assert reasoning_gym("reasoning_gym/decimal_arithmetic", "Answer: 1.26", "1.25", record)["acc"] == acc


@pytest.mark.parametrize(
    "source, record, words",
    [
        ("gsm8k", {}, "is no task of reasoning-gym"),
        ("reasoning_gym/chain_sum", None, "has no texts extra_info.entry"),
        ("reasoning_gym/chain_sum", {"options": "{}", "form": ""}, "has no texts extra_info.entry"),
        ("reasoning_gym/chain_sum", {"entry": SUM, "options": "{}", "form": "shouted"}, "form='shouted'"),
        ("reasoning_gym/chain_sum", {"entry": "{", "options": "{}", "form": ""}, "is no entry of a task"),
        ("reasoning_gym/chain_sum", {"entry": "{}", "options": "{}", "form": ""}, "is no entry of a task"),
        ("reasoning_gym/chain_sums", {"entry": SUM, "options": "{}", "form": ""}, "has no such task"),
    ],
)
def test_records_that_are_wrong(source, record, words):
    with pytest.raises(DataError, match=re.escape(words)):
        reasoning_gym(source, "The answer is 7", "7", record)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"partial": 1}, "partial=1: use true or false"),
        ({"partail": True}, "did you mean 'partial'?"),
        ({"time_limit": 0}, "use a finite number > 0"),
    ],
)
def test_options_that_are_wrong(options, words):
    with pytest.raises(OptionError, match=re.escape(words)):
        sum_of("The answer is 7", **options)


def test_verl_loads_it():
    path = "reward.custom_reward_function.path=pkg://egsw_plugin.rewards.reasoning_gym"
    name = "reward.custom_reward_function.name=reasoning_gym"
    partial = "+reward.custom_reward_function.reward_kwargs.partial=true"
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[path, name, partial])
    record = {"entry": SUM, "options": "{}", "form": "stated", "num_turns": None}
    call = {"data_source": "reasoning_gym/chain_sum", "ground_truth": "7", "extra_info": record}
    assert get_custom_reward_fn(config)(solution_str="Answer: 7", **call)["score"] == 1.0


@pytest.mark.parametrize(
    "text, form, lines, answer",
    [
        ("The answer is a\nb", "stated", False, "a"),
        ("The answer is a\nb", "stated", True, "a\nb"),
        ("Answer:\n1 2\n3 4\n", "stated", True, "1 2\n3 4"),
        ("an answer in words", "stated", False, None),
        ("<answer>a</answer><answer>b</answer>", "tags", False, "b"),
        ("</answer><answer>", "tags", False, None),
        ("<answer>\n1 2\n3 4\n</answer>", "tags", True, "1 2\n3 4"),
        (r"\boxed{1 2" + "\n3 4}", "boxed", True, "1 2\n3 4"),
        (r"\boxed{a", "boxed", False, ""),
    ],
)
def test_where_the_answer_is(text, form, lines, answer):
    assert stated_answer(text, form, lines) == answer


@pytest.mark.parametrize(
    "statement, number, last",
    [
        ("```\n1 2\n3 4\n```", False, "1 2\n3 4"),
        ("```json\n[1]\n```", False, "[1]"),
        ("'a'", False, "a"),
        ("'a' and 'b'", False, "'a' and 'b'"),
        (r'\{"a": 1\}', False, '{"a": 1}'),
        ("1,024 legs", True, "1024"),
        ("−5", True, "-5"),
        ("– 5", True, "-5"),
        ("‒5 degrees", True, "-5"),
        ("3 – 8 = – 5.", True, "-5"),
        ("-$5", True, "-5"),
        ("≈ (5)", True, "5"),
        ("3/4", True, "3/4"),
        ("", True, ""),
    ],
)
def test_less_and_less_around_it(statement, number, last):
    assert readings(statement, number)[-1] == last


# --- the data


SUMS = "chain_sum:min_terms=2,max_terms=3,max_digits=2"


def make(out, *arguments, tasks=(SUMS, "products:max_digits=1"), size=80, test_size=20, seed=1):
    words = ["data", "reasoning-gym", "--tasks", *tasks, "--size", size, "--test-size", test_size, "--seed", seed]
    return main([*map(str, words), "--out", str(out), *arguments])


def rows(out, split):
    return pq.read_table(out / f"{split}.parquet").to_pylist()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    assert make(out) == 0
    return out


def test_columns_and_shares(made):
    assert sorted(os.listdir(made)) == ["test.parquet", "train.parquet"]
    for split, number in (("train", 80), ("test", 20)):
        table = rows(made, split)
        assert pq.read_schema(made / f"{split}.parquet").equals(GYM_SCHEMA)
        assert GYM_SCHEMA.names == SCHEMA.names
        assert [row["extra_info"]["index"] for row in table] == list(range(number))
        tasks = [row["data_source"] for row in table]
        assert Counter(tasks) == {"reasoning_gym/chain_sum": number // 2, "reasoning_gym/products": number // 2}
        assert tasks != sorted(tasks) and tasks != sorted(tasks, reverse=True)  # mixed
        for row in table:
            entry = gym_tasks.decode(row["extra_info"]["entry"])
            assert row["prompt"][0]["content"] == f"{entry['question']}\nThink briefly, then end with: The answer is X."
            assert row["reward_model"] == {"style": "rule", "ground_truth": entry["answer"]}
            assert row["extra_info"]["split"] == split and row["extra_info"]["subject"] == "arithmetic"
            result = reasoning_gym(row["data_source"], f"The answer is {entry['answer']}", "", row["extra_info"])
            assert result["acc"] == 1.0
    sums = [row for row in rows(made, "train") if "chain_sum" in row["data_source"]]
    assert all(
        re.fullmatch(
            r".*: \d{1,2}( [-+] \d{1,2}){1,2} =", gym_tasks.decode(row["extra_info"]["entry"])["question"], re.S
        )
        for row in sums
    )


def test_uneven_shares(tmp_path):
    assert make(tmp_path, tasks=("gcd", "lcm", "bf"), size=11, test_size=4) == 0
    assert sorted(Counter(row["data_source"] for row in rows(tmp_path, "train")).values()) == [3, 4, 4]
    assert sorted(Counter(row["data_source"] for row in rows(tmp_path, "test")).values()) == [1, 1, 2]


def questions(out, split):
    return [row["prompt"][0]["content"] for row in rows(out, split)]


def test_no_problem_twice(tmp_path):
    """Nearly all that there are: 81 products of two digits of one place, so that repeats are drawn again and again."""
    assert make(tmp_path, tasks=("products:min_digits=1,max_digits=1",), size=60, test_size=20) == 0
    drawn = [*questions(tmp_path, "train"), *questions(tmp_path, "test")]
    assert len(drawn) == len(set(drawn)) == 80


def test_the_same_task_twice_shares_nothing(tmp_path):
    same = "products:min_digits=1,max_digits=1"
    assert make(tmp_path, tasks=(same, same), size=40, test_size=20) == 0
    assert len({*questions(tmp_path, "train"), *questions(tmp_path, "test")}) == 60


def test_too_few_problems(tmp_path, capfd):
    assert make(tmp_path, tasks=("products:min_digits=1,max_digits=1",), size=2000) == 1
    line = capfd.readouterr().err
    number = int(re.search(r"has (\d+) different problems, not 2020; ask for fewer", line)[1])
    assert number == 100  # 0 to 9 times 0 to 9
    assert os.listdir(tmp_path) == []


def test_the_same_bytes_and_other_seeds(made, tmp_path):
    """In an interpreter of its own, with another hash seed, against the one made here."""
    command = [
        sys.executable,
        "-m",
        "egsw_plugin.cli",
        "data",
        "reasoning-gym",
        "--tasks",
        SUMS,
        "products:max_digits=1",
    ]
    command += ["--size", "80", "--test-size", "20", "--seed", "1", "--out", str(tmp_path / "again")]
    code = "import sys; from egsw_plugin.cli import main; sys.exit(main(sys.argv[1:]))"
    command[1:3] = ["-c", code]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "99"})
    assert make(tmp_path / "other", seed=2) == 0
    for split in ("train", "test"):
        assert (tmp_path / "again" / f"{split}.parquet").read_bytes() == (made / f"{split}.parquet").read_bytes()
        shared = set(questions(made, split)) & set(questions(tmp_path / "other", split))
        assert len(shared) < len(questions(made, split)) / 2


@pytest.mark.parametrize("style", STYLES)
def test_prompt_styles(tmp_path, style):
    assert make(tmp_path, "--prompt", style, tasks=("gcd",), size=2, test_size=1) == 0
    (row, _) = rows(tmp_path, "train")
    question = gym_tasks.decode(row["extra_info"]["entry"])["question"]
    (message,) = row["prompt"]
    assert message["role"] == "user" and message["content"].startswith(question)
    asked = message["content"].removeprefix(question)
    form = row["extra_info"]["form"]
    assert form == STYLES[style].form
    assert {"stated": "The answer is X", "boxed": r"\boxed{}", "tags": "<answer>", "": ""}[form] in asked
    assert bool(asked) == (style != "none")


def test_options_of_many_kinds(tmp_path):
    tasks = (
        'basic_arithmetic:operators=["+"],whitespace=no_space,allow_negation=false',
        "time_intervals:min_date=2020-01-01,max_date=2021-01-01,max_date_difference_days=30,task_types=[date]",
        'polynomial_multiplication:variables=["x","y"]',
        "word_sorting:transformation=uppercase",
        "binary_matrix:p_zero=0.5",
    )
    assert make(tmp_path, tasks=tasks, size=25, test_size=5) == 0
    for row in rows(tmp_path, "train"):
        entry = gym_tasks.decode(row["extra_info"]["entry"])
        if row["data_source"].endswith("basic_arithmetic"):
            assert not set(re.sub(r"(?<!\d)-", "", entry["metadata"]["expression"])) & set("-*/ ")  # signs aside
        if row["data_source"].endswith("time_intervals"):
            assert entry["metadata"]["start_time"].startswith("2020")
        if row["data_source"].endswith("word_sorting"):
            assert entry["answer"] == entry["answer"].upper()
        assert (
            reasoning_gym(row["data_source"], f"<answer>{entry['answer']}</answer>", "", row["extra_info"])["acc"] == 1
        )


@pytest.mark.parametrize(
    "tasks, words",
    [
        (["chain_sums"], "task='chain_sums': did you mean 'chain_sum'"),
        (["composite"], "task='composite'"),
        (["chain_sum:max_term=3"], "chain_sum:max_term=3: did you mean 'max_terms'"),
        (["chain_sum:zzz=3"], "use one of min_terms, max_terms"),
        (["chain_sum:size=3"], "chain_sum:size=3"),
        (["chain_sum:max_terms=three"], "chain_sum:max_terms='three': Input should be a valid integer"),
        (["chain_sum:max_terms=2.5"], "chain_sum:max_terms=2.5"),
        (["chain_sum:max_terms=true"], "chain_sum:max_terms=True"),
        (["chain_sum:allow_negation=1"], "chain_sum:allow_negation=1"),
        (["basic_arithmetic:whitespace=wide"], "Input should be 'no_space', 'single' or 'random'"),
        (["chain_sum:min_terms=5,max_terms=2"], "chain_sum:min_terms=5,max_terms=2"),
        (["chain_sum:max_terms"], "write NAME:key=value"),
        (["chain_sum:max_terms=3,max_terms=4"], "each key once"),
        (["basic_arithmetic:operators=[*]"], "is no YAML value; put quotes around signs"),
        (["gcd:min_value=2024-02-30"], "is no YAML value"),
        (["gcd:min_value={2020-01-01: 3}"], "is no YAML value"),
        (["gcd:min_value=&a [*a]"], "is no YAML value"),
        (["gcd:min_value=!!int x"], "is no YAML value"),
        (["gcd:min_value=" + "1" * 5000], "is no YAML value"),
        (["gcd:min_value=" + "[" * 3000], "is no YAML value"),
        (["gcd:min_value=010"], "YAML reads '010' as 8"),
        (["gcd:min_value=1:30"], "YAML reads '1:30' as 90"),
    ],
)
def test_tasks_that_are_refused(tmp_path, capsys, tasks, words):
    assert make(tmp_path / "out", tasks=tasks) == 2
    line = capsys.readouterr().err
    assert line.startswith("egsw-plugin data: reasoning-gym: ") and line.count("\n") == 1
    assert words in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["reasoning-gym", "--size", "5"], "--tasks and --size are needed"),
        (["reasoning-gym", "--tasks", "gcd"], "--tasks and --size are needed"),
        (["reasoning-gym", "--tasks", "gcd", "--size", "5", "--rows", "5"], "are for the other data sets"),
        (["reasoning-gym", "--tasks", "gcd", "--size", "5", "--source", "x"], "are for the other data sets"),
        (["reasoning-gym", "--tasks", "gcd", "--size", "5", "--prompt", "shout"], "use brief, steps"),
        (["reasoning-gym", "--tasks", "gcd", "lcm", "--size", "1"], "at least one for each of the 2 tasks"),
        (["reasoning-gym", "--tasks", "gcd", "lcm", "--size", "5", "--test-size", "1"], "--test-size=1"),
        (["math", "--tasks", "gcd"], "--tasks: for reasoning-gym alone"),
        (["math", "--seed", "0"], "--seed: for reasoning-gym alone"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, capsys, arguments, words):
    assert main(["data", *arguments, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and words in line
    assert not (tmp_path / "out").exists()


def test_a_generator_that_fails(tmp_path, capfd):
    """Options that the library accepts and cannot fulfil: no English word has fifty letters."""
    task = "spell_backward:min_word_len=50,max_word_len=60"
    assert make(tmp_path, tasks=(task,)) in (1, 2)
    assert "spell_backward" in capfd.readouterr().err
    assert os.listdir(tmp_path) == []


def test_an_interpreter_that_cannot_be_started(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert make(tmp_path / "out", tasks=("gcd",), size=2, test_size=1, seed=706) == 1  # drawn by no other test
    said = capsys.readouterr().err
    assert f"cannot start {tmp_path / 'nothing'}: No such file" in said and "cannot write" not in said


@pytest.mark.timeout(120)
def test_ctrl_c_shows_nothing_of_the_generators_interpreter(tmp_path):
    """A terminal sends it to all processes of the command."""
    code = "import sys; from egsw_plugin.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["data", "reasoning-gym", "--tasks", "countdown", "--size", "5000000", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (child := children.read_text().split()):
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == "egsw-plugin data: reasoning-gym: interrupted, nothing written\n"
    assert os.listdir(tmp_path / "out") == []
    with suppress(FileNotFoundError, ProcessLookupError):  # ended, and perhaps waited for by nobody
        while Path("/proc", *child, "cmdline").read_bytes():
            time.sleep(0.1)


def test_places_that_cannot_be_written_to(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert make(tmp_path / "file", tasks=("gcd",), size=2, test_size=1) == 1
    assert "is not a folder" in capsys.readouterr().err


def test_verl_reads_it(made):
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from egsw_plugin.tiny.model import make_tokenizer

    config = OmegaConf.create({"cache_dir": str(made / ".cache"), "max_prompt_length": 512})
    config.filter_overlong_prompts_workers = None
    data = RLHFDataset([str(made / "train.parquet")], make_tokenizer(), config)
    assert len(data) == 80
    assert data[0]["extra_info"]["entry"] == rows(made, "train")[0]["extra_info"]["entry"]


def test_without_pycosat(tmp_path):
    """The one dependency without a wheel: without it all tasks but one work, and that one says what it lacks."""
    code = "import sys; sys.modules['pycosat'] = None; from egsw_plugin.data.reasoning_gym import read_task as read"
    code += "; read('gcd'); read('zebra_puzzles')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1 and "pip install pycosat" in run.stderr.splitlines()[-1]


# --- worked examples before the question

SHOWN = """
omit: [" Give only the GCD as your final answer."]
gcd:
- {question: "Find the Greatest Common Divisor (GCD) of these numbers: 2, 3.", response: "Only 1. The answer is 1."}
- {question: "Find the Greatest Common Divisor (GCD) of these numbers: 4, 2.", response: "2 * 2 = 4. The answer is 2."}
"""


@pytest.fixture
def shown(tmp_path):
    """Writes a file of examples, and calls the command with it."""

    def call(text, *arguments, tasks=("gcd:min_value=2,max_value=4",), size=5, test_size=2):
        (tmp_path / "shown.yaml").write_text(text)
        arguments = ["--examples", str(tmp_path / "shown.yaml"), *arguments]
        return make(tmp_path, *arguments, tasks=tasks, size=size, test_size=test_size)

    return call


def test_examples_come_before_the_question(shown, tmp_path):
    assert shown(SHOWN) == 0
    written = [row for split in ("train", "test") for row in rows(tmp_path, split)]
    # of the 9 pairs of 2, 3 and 4 the two of the examples are left out
    asked = {row["prompt"][-1]["content"] for row in written}
    assert len(asked) == len(written) == 7
    for row in written:
        *turns, question = row["prompt"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 and question["role"] == "user"
        assert turns[0]["content"].endswith("2, 3.") and turns[3]["content"] == "2 * 2 = 4. The answer is 2."
        assert question["content"] not in (turns[0]["content"], turns[2]["content"])
        assert question["content"].endswith(".") and "Give only" not in question["content"]
        # the grader has the library's own question, and looks for the form that the examples have
        assert "Give only" in gym_tasks.decode(row["extra_info"]["entry"])["question"]
        assert row["extra_info"]["form"] == "stated"


def test_examples_are_asked_in_the_same_style(shown, tmp_path):
    assert shown(SHOWN, "--prompt", "boxed") == 0
    prompt = rows(tmp_path, "train")[0]["prompt"]
    assert all("boxed" in turn["content"] for turn in prompt if turn["role"] == "user")
    assert rows(tmp_path, "train")[0]["extra_info"]["form"] == "boxed"


@pytest.mark.parametrize(
    "text, words",
    [
        ("gdc: [{question: a, response: b}]", "did you mean 'gcd'"),
        ("products: [{question: a, response: b}]", "has none for gcd"),
        ("gcd: [{question: a}]", "write question and response"),
        ("gcd: [{question: a, response: 7}]", "write a text"),
        ("gcd: []", "write a list of question and response"),
        ("- gcd", "write a task's name"),
        ("gcd: [", "cannot be read"),
        ("omit: all\ngcd: [{question: a, response: b}]", "write a list of texts"),
        ("omit: [no such text]\ngcd: [{question: a, response: b}]", "no question has this text"),
        ("gcd: [{question: a, response: b}]\ngcd: [{question: c, response: d}]", "line 2: 'gcd' comes more than once"),
        ("gcd: [{question: a, question: c, response: b}]", "'question' comes more than once"),
        ("gcd: [{question: 2024-02-30, response: b}]", "cannot be read: day is out of range"),
        ("gcd: [{question: !!int x, response: b}]", "cannot be read"),
        ("gcd: [{question: !!bool x, response: b}]", "cannot be read"),
        ("gcd: " + "[" * 3000, "cannot be read"),
        ('gcd: [{question: "a\\ud83d\\ude00", response: b}]', "has half of a surrogate pair"),
    ],
)
def test_examples_that_are_refused(shown, capsys, text, words):
    assert shown(text) in (1, 2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line and line.startswith("egsw-plugin data: reasoning-gym: --examples")


def test_the_recipes_examples_fit_its_tasks(shown):
    """A version of the library that words a question otherwise is noticed here."""
    launcher = RECIPE / "run_smollm2_135m_cpu.sh"
    tasks = re.search(r"TASKS=\(\n(.*?)\n\)", launcher.read_text(), re.DOTALL)[1].split()
    assert shown((RECIPE / "examples.yaml").read_text(), tasks=tasks, size=40, test_size=8) == 0
