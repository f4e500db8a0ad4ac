"""The sensors that drive the pipeline: each tick asks one operation and turns its answer into requests or events."""

import dagster as dg

from lora_pipeline.defs.events import as_dagster_event
from lora_pipeline.defs.jobs import finalise_trainings, start_trainings
from lora_pipeline.defs.partitions import add_models
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.settings import REPLICATE, RUNPOD, ProviderName, Settings


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors at the intervals that the settings ask for."""
    running = dg.DefaultSensorStatus.RUNNING
    interval = max(1, round(settings.poll_interval.total_seconds()))
    quick = min(interval, 10)

    @dg.sensor(job=start_trainings, minimum_interval_seconds=min(interval, 30), default_status=running)
    def image_set_sensor(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.SensorResult:
        """Finds image sets that are ready to train and asks for one batch run that starts them."""
        from lora_pipeline.trainings.start_batch import work_to_start
        from lora_pipeline.versions.overview import models_after

        newest, keys = models_after(pipeline.connections.database, int(context.cursor or 0))
        add_models(context.instance, keys)
        work = work_to_start(pipeline.connections)
        if work.lease is None:
            return dg.SensorResult(skip_reason=work.explanation, cursor=str(newest))
        request = _batch(start_trainings, "start_ready_trainings", work.lease)
        return dg.SensorResult(run_requests=[request], cursor=str(newest))

    @dg.sensor(job=finalise_trainings, minimum_interval_seconds=interval, default_status=running)
    def training_status_sensor(pipeline: Pipeline) -> dg.RunRequest | dg.SkipReason:
        """Follows every open training at Replicate, and asks for one batch run that finishes the succeeded."""
        return _follow(pipeline, REPLICATE)

    @dg.sensor(job=finalise_trainings, minimum_interval_seconds=interval, default_status=running)
    def runpod_status_sensor(pipeline: Pipeline) -> dg.RunRequest | dg.SkipReason:
        """Follows every open training at RunPod, within the half hour for which it keeps a result."""
        return _follow(pipeline, RUNPOD)

    @dg.sensor(minimum_interval_seconds=quick, default_status=running)
    def asset_event_sensor(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.SensorResult:
        """Gives Dagster the events it is owed, a batch a tick; the next tick's cursor acknowledges them."""
        from lora_pipeline.trainings.outbox import acknowledge, claim

        connections = pipeline.connections
        acknowledge(connections.database, context.cursor, connections.now())
        batch = claim(connections.database)
        if batch is None:
            return dg.SensorResult(skip_reason="no event is owed", cursor="")
        add_models(context.instance, [event.partition for event in batch.events if event.partition])
        public_url = connections.settings.resolved_public_url
        events = [as_dagster_event(event, public_url) for event in batch.events]
        return dg.SensorResult(asset_events=events, cursor=batch.token)

    return [image_set_sensor, training_status_sensor, runpod_status_sensor, asset_event_sensor]


def _follow(pipeline: Pipeline, provider: ProviderName) -> dg.RunRequest | dg.SkipReason:
    from lora_pipeline.trainings.finishing import follow_and_find_work

    work = follow_and_find_work(pipeline.connections, provider)
    if work.lease is None:
        return dg.SkipReason(work.explanation)
    return _batch(finalise_trainings, "finalise_succeeded_trainings", work.lease)


def _batch(job: dg.JobDefinition, op: str, lease: str) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=lease, job_name=job.name, run_config={"ops": {op: {"config": {"lease": lease}}}}
    )
