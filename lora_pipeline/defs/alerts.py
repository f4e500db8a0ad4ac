"""The sensor that tells whoever is on call that a run failed.

A sensor of our own, not Dagster's for failed runs: that one goes on behind a failure which nobody took.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.settings import Settings

_EVERY_S = 30
_SHOWN = 20
_REMEMBERED = 200
# Runs that end together may be stored in another order than that of their times.
_OVERLAP = timedelta(minutes=1)


def build_alert_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor, where the settings say whom to tell."""
    if settings.alert_url is None:
        return []

    @dg.sensor(minimum_interval_seconds=_EVERY_S, default_status=dg.DefaultSensorStatus.RUNNING)
    def run_failure_alert(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.SensorResult:
        """Posts the runs that failed to LORA_ALERT_URL. What was not taken is posted by the next tick."""
        from lora_pipeline.callbacks.alerting import alert

        settings = pipeline.connections.settings
        since, told = _cursor(context.cursor)
        failed = [record for record in _failed(context, since) if record.dagster_run.run_id not in told]
        runs = [record.dagster_run for record in failed]
        # What failed before the first tick is over.
        if runs and context.cursor:
            alert(settings, "\n".join(_lines(settings, runs)))
        since = max([since, *(record.update_timestamp for record in failed)])
        told = [*told, *(run.run_id for run in runs)][-_REMEMBERED:]
        cursor = json.dumps({"since": since.isoformat(), "told": told})
        return dg.SensorResult(skip_reason=f"{len(runs)} failed runs were told", cursor=cursor)

    return [run_failure_alert]


def _cursor(text: str | None) -> tuple[datetime, list[str]]:
    """Up to when runs were looked at, and the latest of which was told."""
    if not text:
        return datetime.now(UTC), []
    kept = json.loads(text)
    return datetime.fromisoformat(kept["since"]), list(kept["told"])


def _failed(context: dg.SensorEvaluationContext, since: datetime) -> Sequence[dg.RunRecord]:
    """Failed runs of this project that were touched since, the earliest first."""
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since - _OVERLAP)
    records = context.instance.get_run_records(filters, order_by="update_timestamp", ascending=True)
    ours = context.repository_def
    return [record for record in records if ours is None or ours.has_job(record.dagster_run.job_name)]


def _lines(settings: Settings, runs: Sequence[dg.DagsterRun]) -> list[str]:
    lines = [f"{run.job_name} failed: {_page(settings, run.run_id)}" for run in runs[:_SHOWN]]
    return lines if len(runs) <= _SHOWN else [*lines, f"… and {len(runs) - _SHOWN} more"]


def _page(settings: Settings, run_id: str) -> str:
    """Where the run can be looked at, as far as it is known."""
    running = settings.running_stack
    return f"{running.dagster_url}/runs/{run_id}" if running else f"run {run_id}"
