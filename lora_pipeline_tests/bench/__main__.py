"""`python -m lora_pipeline_tests.bench [--quick] [--only NAME]`: measure every budget, exit 1 where one is missed."""

import argparse
import pkgutil
import sys
from importlib import import_module

from lora_pipeline_tests import bench
from lora_pipeline_tests.bench.rows import BenchRow, print_rows

SUFFIX = "_row"


def main() -> int:
    names = sorted(
        module.name.removesuffix(SUFFIX)
        for module in pkgutil.iter_modules(bench.__path__)
        if module.name.endswith(SUFFIX)
    )
    parser = argparse.ArgumentParser(prog="python -m lora_pipeline_tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes: a smoke test, not a measurement")
    parser.add_argument("--only", choices=names, metavar="NAME", help=f"one of: {', '.join(names)}")
    options = parser.parse_args()
    rows = [
        row for name in names if options.only in (None, name) for row in measure(name, quick=options.quick)
    ]
    print_rows(rows)
    return 0 if all(row.ok for row in rows) else 1


def measure(name: str, *, quick: bool) -> list[BenchRow]:
    """The rows of one module. One that fails is a missed budget, and the others are still measured."""
    print(f"measuring {name} …", file=sys.stderr, flush=True)
    try:
        rows: list[BenchRow] = import_module(f"{bench.__name__}.{name}{SUFFIX}").run(quick)
    except Exception as error:  # noqa: BLE001 - shown in the table, and the exit code tells
        return [BenchRow(name, "failed", "", None, "", ok=False, note=f"{type(error).__name__}: {error}")]
    return rows


if __name__ == "__main__":
    sys.exit(main())
