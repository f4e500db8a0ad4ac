"""Run one schedule again and say what happened: `python -m lora_pipeline_tests.proofs.replay '<line>' [DATABASE_URL]`.

The database must be empty or new; without one, a SQLite database in memory is used.
"""

from __future__ import annotations

import sys

from lora_pipeline.database.migrate import upgrade
from lora_pipeline_tests.proofs.invariants import broken_rules
from lora_pipeline_tests.proofs.schedules import read_line, world_of
from lora_pipeline_tests.proofs.steps import SteppedDatabase, Steps


def main(line: str, url: str = "sqlite:///:memory:") -> None:
    """See the module."""
    setting, path = read_line(line)
    database = SteppedDatabase(url, Steps())
    upgrade(database)
    world = world_of(setting, database)
    for number, fate in enumerate(path):
        print(f"tick {number} at {world.moment:%d %H:%M:%S} {fate}")
        world.disturbed_tick(fate)
        for step in world.steps.trace:
            print(f"    {step}")
        print(f"  {world.states()} {broken_rules(world)}")
        world.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
