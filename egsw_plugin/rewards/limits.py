"""What a grading process may use: limits that the kernel holds, whatever the text does to the interpreter."""

import math
import resource

MEMORY = 2**30  # bytes that a grading process may take beyond what it has when it starts


def limit_memory() -> None:
    """At most `MEMORY` more than now, and no core dumps."""
    import psutil

    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, psutil.Process().memory_info().vms + MEMORY)


def limit_time(seconds: float) -> None:
    """This process dies after about ``seconds`` more of CPU time, unless it is called again."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 1)


def _limit(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
