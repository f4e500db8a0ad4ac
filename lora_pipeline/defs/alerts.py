"""The sensor that tells whoever is on call that a run failed."""

import dagster as dg

from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.settings import Settings


def build_alert_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor, where the settings say whom to tell."""
    if settings.alert_url is None:
        return []

    @dg.run_failure_sensor(
        name="run_failure_alert",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts each run of this project that failed to LORA_ALERT_URL.",
    )
    def run_failure_alert(context: dg.RunFailureSensorContext, pipeline: Pipeline) -> None:
        from lora_pipeline.callbacks.alerting import alert

        run = context.dagster_run
        steps = [event.step_key for event in context.get_step_failure_events() if event.step_key]
        where = f" in {', '.join(steps)}" if steps else ""
        alert(
            pipeline.connections.settings, f"{run.job_name} failed{where}: {run_page(settings, run.run_id)}"
        )

    return [run_failure_alert]


def run_page(settings: Settings, run_id: str) -> str:
    """Where the run can be looked at, as far as it is known."""
    running = settings.running_stack
    return f"{running.dagster_url}/runs/{run_id}" if running else f"run {run_id}"
