"""Times as ratios within one run: cases take turns, so that whatever else the machine does meets all of them."""

import platform
import statistics
import time

import torch


def interleaved(cases, repeats):
    """Seconds of each case, a list for each name; a first round that warms up is not counted."""
    seconds = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds, reference):
    """Median over the rounds of each case's time relative to the reference's of the same round."""
    return {
        name: statistics.median(time / base for time, base in zip(times, seconds[reference], strict=True))
        for name, times in seconds.items()
    }


def machine():
    """What the figures depend on, in one line."""
    return (
        f"{torch.get_num_threads()} threads of {_processor()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, huge pages: {_huge_pages()}"
    )


def table(header, rows):
    """Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _huge_pages():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            return file.read().split("[")[1].split("]")[0]
    except (OSError, IndexError):
        return "unknown"
