"""The sensor that tells the application what happened."""

import dagster as dg

from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.settings import Settings


def build_callback_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor, where the settings name a receiver."""
    if settings.callback_url is None:
        return []
    interval = min(max(1, round(settings.poll_interval.total_seconds())), 10)

    @dg.sensor(minimum_interval_seconds=interval, default_status=dg.DefaultSensorStatus.RUNNING)
    def callback_sensor(pipeline: Pipeline) -> dg.SkipReason:
        """Sends the application's callbacks that are due; fails where it took none of them."""
        from lora_pipeline.callbacks.sending import send_callbacks

        done = send_callbacks(pipeline.connections)
        if not (done.delivered or done.failed or done.given_up):
            return dg.SkipReason("no callback is due")
        troubles = "; ".join((*done.failed, *done.given_up))
        return dg.SkipReason(f"{done.delivered} callbacks delivered" + (f"; {troubles}" if troubles else ""))

    return [callback_sensor]
