"""Standing checks: what is broken right now, said every ten minutes even where nothing is, since quiet misleads.

Each one is an asset check that a person can run, and is evaluated by one sensor without a run of its own.
"""

from typing import Any

import dagster as dg

from lora_pipeline.defs.resources import Pipeline

REGISTRY = "version_registry"
STUCK = "stuck_trainings"
CALLBACKS = "undelivered_callbacks"
_ALERTS = {
    STUCK: "trainings wait for a person, or cost money for nothing. Look: lora-pipeline trainings",
    CALLBACKS: "the application did not take its callbacks. Look: lora-pipeline callbacks",
}
_EVERY_S = 600
_SHOWN = 200


@dg.asset_check(asset=REGISTRY, name=STUCK)
def stuck_trainings_check(pipeline: Pipeline) -> dg.AssetCheckResult:
    """Every training beyond its deadline: since when, why, and the command that helps."""
    return dg.AssetCheckResult(**_stuck(pipeline))


@dg.asset_check(asset=REGISTRY, name=CALLBACKS)
def undelivered_callbacks_check(pipeline: Pipeline) -> dg.AssetCheckResult:
    """Every callback that the application did not take, with the reason and the command that helps."""
    return dg.AssetCheckResult(**_undelivered(pipeline))


@dg.sensor(minimum_interval_seconds=_EVERY_S, default_status=dg.DefaultSensorStatus.RUNNING)
def standing_checks_sensor(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.SensorResult:
    """Evaluates the standing checks, and tells whoever is on call of each that begins to fail."""
    found = {STUCK: _stuck(pipeline), CALLBACKS: _undelivered(pipeline)}
    evaluations = [
        dg.AssetCheckEvaluation(asset_key=dg.AssetKey(REGISTRY), check_name=name, **result)
        for name, result in found.items()
    ]
    serious = {
        name
        for name, result in found.items()
        if not result["passed"] and result["severity"] is dg.AssetCheckSeverity.ERROR
    }
    told = _told(context, pipeline, serious)
    return dg.SensorResult(asset_events=evaluations, cursor=",".join(sorted(told)))


def _told(context: dg.SensorEvaluationContext, pipeline: Pipeline, serious: set[str]) -> set[str]:
    """Tell what fails since the last tick; what is told now. What was not taken is told again by the next tick."""
    from lora_pipeline.callbacks.alerting import AlertNotTaken, alert

    told = serious & set((context.cursor or "").split(","))
    for name in sorted(serious - told):
        try:
            if alert(pipeline.connections.settings, f"{name}: {_ALERTS[name]}"):
                told.add(name)
        except AlertNotTaken as error:
            context.log.error(str(error))
            # A chat that hangs takes no other one either, and the evaluations must be in before the tick times out.
            break
    return told


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


def _undelivered(pipeline: Pipeline) -> dict[str, Any]:
    from lora_pipeline.callbacks.listing import list_callbacks

    connections = pipeline.connections
    told = connections.settings.callback_url is not None
    found = list_callbacks(connections.database, "failing", limit=_SHOWN) if told else []
    rows = [
        dg.TableRecord(
            {
                "event": one["event_id"],
                "kind": one["kind"],
                "model": one["payload"]["modelId"],
                "state": one["state"],
                "attempts": one["attempts"],
                "why": one["last_error"] or "",
                "next": f"lora-pipeline callbacks send-again {one['event_id']}",
            }
        )
        for one in found
    ]
    given_up = any(one["state"] == "given up" for one in found)
    none = "the application took all" if told else "LORA_CALLBACK_URL is not set: nobody is told"
    return {
        "passed": not found,
        "severity": dg.AssetCheckSeverity.ERROR if given_up else dg.AssetCheckSeverity.WARN,
        "metadata": {"callbacks": dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text(none)},
    }


CHECKS = [stuck_trainings_check, undelivered_callbacks_check]
CHECK_SENSORS = [standing_checks_sensor]
