"""What a status tick does beside following: cancels that are due before it, webhooks' hints after it.

Cancels come first, since what they end stops billing, and in a window of their own, so that a slow provider
cannot keep them from ever being asked. Hints come last: most are answered by what following has just seen,
without a request each.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from lora_pipeline.connections import Connections
from lora_pipeline.providers.protocol import TrainingProvider
from lora_pipeline.trainings.cancelling import CancelRound, send_due_cancels
from lora_pipeline.trainings.hints import HintsReport, handle_hints
from lora_pipeline.trainings.late_landings import SecondTrainings, cancel_second_trainings

log = logging.getLogger(__name__)

_AT_ONCE = 20
_CANCEL_WINDOW = timedelta(seconds=5)


def ask_for_cancels(
    connections: Connections, provider: TrainingProvider, started: datetime
) -> tuple[CancelRound, SecondTrainings]:
    """Ask for every cancel that the provider owes us, and end second jobs, within a few seconds."""
    database, clock = connections.database, connections.now
    if database.observing:
        return CancelRound(), SecondTrainings()
    deadline = started + _CANCEL_WINDOW
    cancels = send_due_cancels(database, provider, clock, _AT_ONCE, deadline=deadline)
    if cancels.errors:
        return cancels, SecondTrainings()
    seconds = cancel_second_trainings(database, provider, clock, _AT_ONCE, deadline=deadline)
    for job_id in seconds.ended:
        log.warning("second training %s has ended; what it cost stands at the provider", job_id)
    return cancels, seconds


def handle_waiting_hints(
    connections: Connections, provider: TrainingProvider, started: datetime
) -> HintsReport:
    """Handle the webhooks that the HTTP server has not, in what is left of the tick's budget."""
    deadline = started + connections.settings.tick_budget
    report = handle_hints(connections.database, provider, connections.now, _AT_ONCE, deadline=deadline)
    for error in report.errors:
        log.warning("%s", error)
    return report
