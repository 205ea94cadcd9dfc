"""Make a tiny model and data: ``python -m egsw_plugin.tiny --out DIR [--task NAME] [--quick] [--seed N]``."""

import argparse
import dataclasses
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from . import addition, target

DONE = "tiny.json"  # written last; holds the settings that made the folder
TASKS = {"addition": addition, "target": target}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that the assets depend on."""

    version: int = 1  # to be raised when the task or the model changes
    seed: int = 1
    task: str = "addition"
    boxed: bool = False  # answers and problems as the recipes' reward functions read them
    train_rows: int = 4096
    test_rows: int = 64
    hurry: float = 0.33  # see the task's demonstration
    fit_lr: float = 4e-3
    fit_batch: int = 64
    fit_steps: int = 500
    fit_check: int = 25  # steps between measurements, from half of fit_steps on
    fit_target: float = 0.38  # sampled success on the test problems


SETTINGS = {
    "addition": Settings(),
    "target": Settings(
        task="target", train_rows=8192, test_rows=128, hurry=0.3, fit_steps=800, fit_check=50, fit_target=0.25
    ),
}
QUICK: dict[str, Any] = {"fit_steps": 250, "fit_lr": 6e-3}  # a start model in half a minute, which succeeds less often


def write_data(folder: Path, settings: Settings) -> list[list[int]]:
    """Write train.parquet and test.parquet, disjoint; the test problems."""
    import pandas as pd

    task = TASKS[settings.task]
    rng = random.Random(f"data {settings.seed}")
    test = task.problems(rng, settings.test_rows)
    taken = set(map(tuple, test))
    train: list[list[int]] = []
    while len(train) < settings.train_rows:
        train += [problem for problem in task.problems(rng, settings.train_rows) if tuple(problem) not in taken]
    for split, problems in (("train", train[: settings.train_rows]), ("test", test)):
        rows = [_row(task, problem, split, i) for i, problem in enumerate(problems)]
        rows = [_gym(row) for row in rows] if settings.boxed else rows
        pd.DataFrame(rows).to_parquet(folder / f"{split}.parquet")
    return test


def _row(task: Any, problem: list[int], split: str, index: int) -> dict:
    """One record of verl's data set."""
    return {
        "data_source": task.DATA_SOURCE,
        "prompt": [{"role": "user", "content": task.question(problem)}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": task.truth(problem)},
        "extra_info": {"split": split, "index": index, "numbers": len(problem)},
    }


def _gym(row: dict) -> dict:
    """The record as one of reasoning-gym's chain_sum, whose reward function wants the library's entry."""
    from ..rewards.gym_tasks import SOURCE, encode

    entry = {"question": row["prompt"][0]["content"], "answer": row["reward_model"]["ground_truth"], "metadata": {}}
    problem = {"entry": encode(entry), "options": "{}", "form": "boxed"}
    return row | {"data_source": f"{SOURCE}chain_sum", "extra_info": row["extra_info"] | problem}


def write_model(folder: Path, settings: Settings, held_out: list[list[int]]) -> dict:
    """Write the tokenizer and the warm-started model; what the fit measured."""
    import torch

    from . import model as tiny_model

    torch.set_num_threads(1)  # the same result on every number of cores, and no waiting where cores are shared
    task = TASKS[settings.task]
    tokenizer = tiny_model.make_tokenizer(task.MAX_RESPONSE)
    model = tiny_model.make_model(tokenizer, settings.seed)
    measured = tiny_model.warm_start(model, tokenizer, task, settings, held_out)
    tokenizer.save_pretrained(folder / "model")
    model.save_pretrained(folder / "model")
    return measured


def make(out: Path, settings: Settings) -> bool:
    """Make the assets in ``out`` unless they are there for these settings; True if something was made."""
    # The first form had no entries for reasoning-gym.
    wanted = dataclasses.asdict(settings) | ({"form": 2} if settings.boxed else {})
    done = out / DONE
    if done.exists() and json.loads(done.read_text())["settings"] == wanted:
        return False
    if out.exists() and not done.exists() and any(out.iterdir()):
        raise SystemExit(f"{out} holds something else than tiny assets; choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    # made in a sibling folder and renamed, so an interrupted run leaves nothing that looks finished
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        measured = write_model(new, settings, write_data(new, settings))
        (new / DONE).write_text(json.dumps({"settings": wanted, "measured": measured}, indent=1) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        new.rename(out)
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m egsw_plugin.tiny", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--boxed", action="store_true", help="answers as the recipes' reward functions read them")
    parser.add_argument("--task", choices=list(SETTINGS), default="addition")
    parser.add_argument("--quick", action="store_true", help="a start model that is fitted less")
    args = parser.parse_args()
    settings = dataclasses.replace(SETTINGS[args.task], seed=args.seed, boxed=args.boxed, **QUICK if args.quick else {})
    made = make(args.out, settings)
    print(f"tiny assets {'made' if made else 'already'} in {args.out}")


if __name__ == "__main__":
    main()
