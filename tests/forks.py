"""Code in processes where nothing has been computed yet, which share the seconds that importing verl takes."""

import json
import subprocess
import sys

# Each case in a child of its own, one after the other; output of children goes where the parent's does.
PARENT = """
import json, os, sys
before, cases = json.loads(sys.argv[1])
exec(before)
for case in cases:
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        status = 1
        try:
            exec(case)
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(f"\\n{MARK}{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)
"""
MARK = "-- forked: "


def forked(before, cases, **options):
    """What each case prints, by its name: exec'd in a fork of one fresh process that has run `before` and no case."""
    code = PARENT.replace("{MARK}", MARK)
    command = [sys.executable, "-c", code, json.dumps([before, list(cases.values())])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    *outputs, rest = done.stdout.split(f"\n{MARK}")
    statuses = [*(text.partition("\n")[0] for text in outputs[1:]), rest.strip()]
    assert statuses == ["0"] * len(cases), done.stdout + done.stderr
    texts = [outputs[0], *(text.partition("\n")[2] for text in outputs[1:])]
    return dict(zip(cases, texts, strict=True))
