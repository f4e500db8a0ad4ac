"""`dagster` with the arguments given, in this process; the last line it prints is what the process took, as JSON.

From inside, because a parent's own peak of memory counts for its children until they have replaced it.
"""

import json
import runpy
import sys
import time
from pathlib import Path


def main() -> None:
    """Processor seconds, and the peak of memory in MB (Linux says it in kB)."""
    code: object = 0
    try:
        runpy.run_module("dagster", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(json.dumps([time.process_time(), peak / 1024]), flush=True)
    sys.exit(code)  # type: ignore[arg-type]  # whatever Dagster ended with


if __name__ == "__main__":
    main()
