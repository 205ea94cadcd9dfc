"""What the runs of the SmolLM2 recipe learnt, from their records: the table of recipes/reasoning_gym/README.md.

.venv/bin/python benchmarks/language_model_learning.py docs/study_smollm2/recipe_runs
"""

import argparse
from pathlib import Path
from statistics import fmean

from timing import table

from egsw_plugin.report.metrics import ENTROPY, REWARD
from egsw_plugin.study.measures import success_curve
from egsw_plugin.study.record import read_finished_runs

TEN = 10  # steps


def row_of(record):
    """One run: mean reward of its first and last ten steps, held-out success before and after, entropy."""
    rows = record.metrics.training
    reward, entropy = ([row[name] for row in rows] for name in (REWARD, ENTROPY))
    first, last = fmean(reward[:TEN]), fmean(reward[-TEN:])
    curve = success_curve(record)
    return [
        record.name,
        f"{first:.3f}",
        f"{last:.3f}",
        f"{last - first:+.3f}",
        f"{100 * curve[0]:.1f}",
        f"{100 * curve[record.steps]:.1f}",
        f"{fmean(entropy[:TEN]):.2f}",
        f"{fmean(entropy[-TEN:]):.2f}",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="a folder of records that egsw-plugin study run left")
    records = sorted(read_finished_runs(parser.parse_args().runs), key=lambda record: record.name)
    reward = ["reward, first ten steps", "last ten", "difference"]
    header = ["", *reward, "held-out solved (%), before", "after", "entropy (nats), first ten", "last ten"]
    print(table(header, [row_of(record) for record in records]))


if __name__ == "__main__":
    main()
