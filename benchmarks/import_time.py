"""What the plugin adds to `import verl`: seconds with its entry point visible and hidden, in turns.

.venv/bin/python benchmarks/import_time.py [--repeats 7]
"""

import argparse
import statistics
import subprocess
import sys

from timing import machine

PROGRAM = """
import importlib.metadata as metadata, sys, time
all_of = metadata.entry_points
def entry_points(**which):
    return metadata.EntryPoints(e for e in all_of(**which) if HIDDEN not in e.value)
metadata.entry_points = entry_points
start = time.perf_counter()
import verl
print(time.perf_counter() - start, "egsw_plugin" in sys.modules)
"""


def seconds(hidden):
    """Seconds of `import verl` in a process of its own; `hidden` is the name of a package or of none."""
    program = PROGRAM.replace("HIDDEN", repr(hidden))
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    time, loaded = result.stdout.split()[-2:]
    assert (loaded == "True") == (hidden != "egsw_plugin"), "the entry point was not what decided"
    return float(time)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    pairs = [(seconds("no such package"), seconds("egsw_plugin")) for _ in range(parser.parse_args().repeats + 1)][1:]
    print(machine())
    shown, hidden = (statistics.median(times) for times in zip(*pairs, strict=True))
    added = statistics.median(one - other for one, other in pairs)
    print(f"import verl: {shown:.2f} s with the plugin, {hidden:.2f} s without; median difference {added:+.2f} s")


if __name__ == "__main__":
    main()
