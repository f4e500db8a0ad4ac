"""What the project adds to Dagster's own import."""

from __future__ import annotations

import subprocess
import sys
import time

from lora_pipeline_tests.bench.rows import BenchRow

BUDGET = 1.25
BASELINE = "import dagster, dagster_aws"
OURS = "import lora_pipeline.definitions"


def run(quick: bool) -> list[BenchRow]:
    """Fresh interpreters by turns, so that both meet the same load; the median pair counts."""
    _seconds(BASELINE), _seconds(OURS)
    pairs = [(_seconds(BASELINE), _seconds(OURS)) for _ in range(3 if quick else 9)]
    base, ours = sorted(pairs, key=lambda pair: pair[1] / pair[0])[len(pairs) // 2]
    ratio = ours / base
    return [
        BenchRow(
            OURS,
            f"{ours:.2f} s",
            f"{BASELINE}: {base:.2f} s",
            ratio,
            f"≤ {BUDGET} ×",
            ok=ratio <= BUDGET,
            note=f"median of {len(pairs)} pairs of fresh interpreters",
        )
    ]


def _seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
    return time.perf_counter() - started
