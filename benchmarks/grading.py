"""Answers graded a second, in this process: what the text costs, and with math-verify.

    python -m benchmarks.grading [PATH]     # PATH: another checkout, graded in turns with this one

A comparison in a run adds the way to the grading process, which is the same for every answer.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 4  # the least of them counts: what else the machine does only adds
CODE = """
import json, logging, sys, time, warnings
logging.disable(logging.CRITICAL); warnings.simplefilter("ignore")
from egsw_plugin.rewards import answers, math
from egsw_plugin.rewards.equivalence import equivalent

RESPONSES = [
    (r"So $x = 3$ and the sum is $\\\\boxed{\\\\frac{%d}{7}}$.", r"\\\\frac{3}{7}"),
    (r"Thus \\\\[ \\\\boxed{%d} \\\\] is the number.", "204"),
    ("Step 1. We add.\\\\nThe answer is **%d**.", "204"),
    ("We see that it works.\\\\nAnswer: $(%d, \\\\\\\\frac{\\\\\\\\pi}{2})$", r"(3,\\\\frac{\\\\pi}{2})"),
    (r"\\\\boxed{%d\\\\sqrt{2}\\\\text{ cm}}", r"3\\\\sqrt{2}"),
]

def text():
    for number in range(300):
        for response, truth in RESPONSES:
            part = answers.final_part("thinking " * 300 + response % number)
            box = answers.boxed(part)
            answers.in_box(box) if box else answers.as_latex(answers.stated(part) or "")
            answers.in_box(answers.gold(truth))

def graded():
    math.grade = lambda answer, truth, seconds: equivalent(answer, truth)
    for number in range(40):
        for response, truth in RESPONSES:
            math.accuracy("d", response % number, truth)

graded()
seconds = {}
for name, case, number in (("text", text, 1500), ("text and math-verify", graded, 200)):
    start = time.process_time()
    case()
    seconds[name] = (time.process_time() - start) / number
print(json.dumps(seconds))
""".replace("\\\\", "\\")


def main(other: Path | None) -> None:
    checkouts = {"this": ROOT, **({"other": other} if other else {})}
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    for _ in range(ROUNDS):
        for name, path in checkouts.items():
            command = [sys.executable, "-c", CODE]
            run = subprocess.run(command, cwd=path, env={"PYTHONPATH": str(path)}, stdout=subprocess.PIPE, check=True)
            for case, took in json.loads(run.stdout).items():
                seconds[name].setdefault(case, []).append(took)
    for name, cases in seconds.items():
        for case, took in cases.items():
            print(f"{name:6} {case:22} {min(took) * 1e6:8.1f} us of CPU an answer")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None)
