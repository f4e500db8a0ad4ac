"""The budgets, each measured against a baseline in the same run: `python -m lora_pipeline_tests.bench`.

A row lives in a module `<name>_row.py` with `run(quick: bool) -> list[BenchRow]`; it is found by that name.
"""
