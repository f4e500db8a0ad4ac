"""The demo: photographs for three models out of a pip package, and what became of them.

No set of photographs of one person may be bundled, so each model's pictures are crops, lights and sizes of a
single public one: enough to show every step, and said wherever the demo shows them.
"""
