"""Standing checks: what is broken right now, said every ten minutes even where nothing is, since quiet misleads.

Each one is an asset check that a person can run, and is evaluated by one sensor without a run of its own.
"""

from typing import Any

import dagster as dg

from lora_pipeline.defs.resources import Pipeline

REGISTRY = "version_registry"
STUCK = "stuck_trainings"
_EVERY_S = 600
_SHOWN = 200


@dg.asset_check(asset=REGISTRY, name=STUCK)
def stuck_trainings_check(pipeline: Pipeline) -> dg.AssetCheckResult:
    """Every training beyond its deadline: since when, why, and the command that helps."""
    return dg.AssetCheckResult(**_stuck(pipeline))


@dg.sensor(minimum_interval_seconds=_EVERY_S, default_status=dg.DefaultSensorStatus.RUNNING)
def standing_checks_sensor(pipeline: Pipeline) -> dg.SensorResult:
    """Evaluates the standing checks."""
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(REGISTRY), check_name=STUCK, **_stuck(pipeline)
    )
    return dg.SensorResult(asset_events=[evaluation])


def _stuck(pipeline: Pipeline) -> dict[str, Any]:
    from lora_pipeline.trainings.stuck import stuck_facts, stuck_trainings

    connections = pipeline.connections
    found = stuck_trainings(connections.database, connections.now())
    serious = sum(item.serious for item in found)
    rows = [dg.TableRecord({**stuck_facts(item), "run": str(item.run_id)}) for item in found[:_SHOWN]]
    return {
        "passed": not found,
        "severity": dg.AssetCheckSeverity.ERROR if serious else dg.AssetCheckSeverity.WARN,
        "metadata": {
            "stuck": dg.MetadataValue.int(len(found)),
            "of these, money or a decision": dg.MetadataValue.int(serious),
            "trainings": dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("none is stuck"),
        },
    }


CHECKS = [stuck_trainings_check]
CHECK_SENSORS = [standing_checks_sensor]
