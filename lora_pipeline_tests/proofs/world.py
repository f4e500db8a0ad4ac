"""One world of a proof: a database, a provider, an object store and Dagster, and processes of ours that come and go.

A process is what `Operations` does in each tick; everything else outlives it. The operations are those of the
package; a mutant replaces one of them. Time is virtual: it passes between ticks, and where a condition says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import ImageSet, TrainingRun, User, UserModel, WebhookDelivery
from lora_pipeline.objects import ObjectStoreError
from lora_pipeline.providers.protocol import ProviderError, TrainingProvider
from lora_pipeline.settings import FLUX_TRAINER
from lora_pipeline.trainings.controls import resume_submissions, submission_switch
from lora_pipeline.trainings.costs import DailyCaps
from lora_pipeline.trainings.finalisation import FinalisationRules, finalisable, finalise_training
from lora_pipeline.trainings.following import FollowRules, follow_trainings
from lora_pipeline.trainings.hints import handle_hints
from lora_pipeline.trainings.lifecycle import TERMINAL, TrainingState
from lora_pipeline.trainings.outbox import acknowledge, claim, owed
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline.trainings.submission import SubmissionRules, submit_training
from lora_pipeline.trainings.webhooks import Delivery, store_delivery
from lora_pipeline_tests.proofs.account import Account, Conditions, FakeProvider, PaidTraining
from lora_pipeline_tests.proofs.objects import MemoryStore
from lora_pipeline_tests.proofs.steps import Crash, SteppedDatabase, Steps
from lora_pipeline_tests.proofs.unlisted import UnlistedProvider

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
LEASE = timedelta(minutes=5)
GRACE = timedelta(minutes=15)
PATIENCE = timedelta(hours=2)
MAX_TICKS = 60

TICKS_UNTIL_PAID = 2

STEADY = (30.0,)
HASTY = (1.0, 2.0, 3.0, 5.0, 40.0, 290.0, 20.0, 700.0, 1500.0)
"""A daemon that restarts at once and ticks wildly: what only looks right at a steady pace breaks here."""
ASLEEP = (5.0, 3 * 86_400.0, 125.0, 700.0, 1_000.0)
"""Everything is switched off for three days after the first tick."""
CALM = (125.0, 700.0, 1000.0, 1800.0)
AWAY = (125.0, 1_000.0, 3 * 86_400.0, 125.0, 700.0, 1_000.0)
"""Everything is switched off for three days after it was given up to find a submission in time."""


@dataclass
class Dagster:
    """What Dagster has stored; it outlives our processes."""

    events: tuple[str, ...] = ()
    cursor: str | None = None


@dataclass(frozen=True)
class Memory:
    """Everything outside the database that outlives a process, as it stood at one moment."""

    moment: datetime
    ticks: int
    account: Account
    content: dict[str, bytes]
    dagster: Dagster


@dataclass(frozen=True)
class Fate:
    """What happens to the process in one tick. Boundaries are counted from 0, as `Steps` does."""

    killed: int | None = None
    """The lasting effect after which it is killed."""
    paused: tuple[int, float] | None = None
    """The boundary at which it sleeps, and for how many seconds, while another process ticks twice."""
    killed_before: int | None = None
    """The boundary at which it is killed, whatever stands there."""
    heard: int | None = None
    """The boundary at which webhooks about all trainings come in once more, and the server handles them."""


Path = tuple[Fate, ...]
"""A schedule: the fate of each tick from the start on."""
QUIET = Fate()

Operation = Callable[["World"], None]


@dataclass(frozen=True)
class Operations:
    """What a process does in a tick, in this order."""

    submit: Operation
    follow: Operation
    hear: Operation
    finalise: Operation
    emit: Operation


@dataclass
class World:
    """See the module."""

    database: SteppedDatabase
    steps: Steps
    conditions: Conditions
    operations: Operations
    cadence: tuple[float, ...] = HASTY
    resubmit_after: timedelta | None = None
    moment: datetime = START
    ticks: int = 0
    dagster: Dagster = field(default_factory=Dagster)

    def __post_init__(self) -> None:
        kind = UnlistedProvider if self.conditions.provider == "runpod" else FakeProvider
        self.provider: FakeProvider = kind(self.conditions, self.now, self.steps)
        self.provider.pass_time = self.advance
        self.store = MemoryStore(self.now, self.steps, can_presign=self.conditions.presigns)

    def now(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)

    def tick(self) -> None:
        """What every process does again and again."""
        if self.conditions.webhooks:
            with self.steps.elsewhere():
                self.deliver()
        self.operations.submit(self)
        self.operations.follow(self)
        self.operations.hear(self)
        self.operations.finalise(self)
        self.operations.emit(self)

    def wait(self) -> None:
        """Until the next tick, or until a process that died has been started again."""
        self.advance(self._pause(self.ticks))
        self.ticks += 1

    def _pause(self, tick: int) -> float:
        return self.cadence[min(tick, len(self.cadence) - 1)]

    def live(self) -> None:
        """Tick until nothing can change any more."""
        while not self.settled():
            assert self.ticks < MAX_TICKS, f"still not at rest after {self.ticks} ticks: {self.states()}"
            self.tick()
            self.wait()

    def walk(self, path: Path) -> None:
        """One tick for each part of the path."""
        for fate in path:
            self.disturbed_tick(fate)
            self.wait()

    def disturbed_tick(self, fate: Fate) -> None:
        """One tick of a new process with this fate."""
        self.steps.start_over()
        self.steps.crash_at, self.steps.crash_before = fate.killed, fate.killed_before
        if fate.paused is not None:
            self.steps.pause_at, seconds = fate.paused
            self.steps.on_pause = lambda: self._others_tick(seconds)
        if fate.heard is not None:
            self.steps.pause_at, self.steps.on_pause = fate.heard, self.hear_again
        with suppress(Crash):
            self.tick()
        self.steps.dead = False

    def _others_tick(self, seconds: float) -> None:
        for _ in range(2):
            self.advance(seconds / 2)
            self.tick()

    def deliver(self, again: str = "") -> None:
        """What the provider's webhooks say now, each of them twice; told before unless `again` makes it news."""
        name = self.provider.name
        for job in self.provider.known():
            status = job.provider_status
            delivery = Delivery(f"{job.id}:{status}{again}", job.id, status, "0" * 64)
            for one in (delivery, delivery, replace(delivery, delivery_id=f"{delivery.delivery_id}:other")):
                store_delivery(self.database, name, one, self.now())

    def hear_again(self) -> None:
        """The server gets every webhook once more and handles what waits."""
        with self.database.read() as session:
            heard = session.scalar(select(func.count()).select_from(WebhookDelivery))
        self.deliver(f":{heard}")
        handle_waiting(self)

    def settled(self) -> bool:
        """Whether every run has ended, or waits for a person while the provider has nothing to add."""
        with self.database.read() as session:
            runs = session.execute(
                text("SELECT state, token, provider_file_id, poll_failures FROM training_runs")
            ).all()
            owed = session.scalar(text("SELECT count(*) FROM outbox WHERE acknowledged_at IS NULL"))
        for state, token, file_id, failures in runs:
            paid = [job for mark in (token, file_id) if mark for job in self.provider.account.of(mark)]
            # What can be found will be: it stays held or lost for good only after hours of looking.
            waits = state in (TrainingState.HELD, TrainingState.LOST) and not failures
            waits = waits and all(self._seen_for(job) > PATIENCE for job in paid)
            if state not in TERMINAL and not waits:
                return False
        return not owed

    def _seen_for(self, job: PaidTraining) -> timedelta:
        """For how long it was there to be found when somebody last could look: while all is switched off, nobody does."""
        switched_off = timedelta(seconds=self._pause(self.ticks - 1) if self.ticks else 0.0)
        return self.moment - switched_off - (self.provider.shown_from(job) or job.ends_at)

    def states(self) -> list[str]:
        with self.database.read() as session:
            return list(session.scalars(select(TrainingRun.state).order_by(TrainingRun.id)))

    def remember(self) -> Memory:
        return Memory(
            self.moment, self.ticks, self.provider.account, dict(self.store.content), replace(self.dagster)
        )

    def recall(self, memory: Memory) -> None:
        self.moment, self.ticks = memory.moment, memory.ticks
        self.provider.account = memory.account
        self.store.content = memory.content
        self.dagster = replace(memory.dagster)


def submit(world: World) -> None:
    """Every packed run, one after the other. Somebody buys credit after a while and lets submissions go on."""
    with world.database.read() as session:
        paused = submission_switch(session).paused
    if paused and world.ticks > TICKS_UNTIL_PAID:
        resume_submissions(world.database, actor="a person", now=world.now())
    rules = SubmissionRules(DailyCaps(50, 200.0), lease=LEASE)
    for run_id in runs_in(world, TrainingState.PACKED):
        with suppress(ProviderError, ObjectStoreError):
            submit_training(world.database, world.store, world.provider, run_id, rules, clock=world.now)


def follow(world: World, provider: TrainingProvider | None = None) -> None:
    """One tick of the monitor."""
    rules = FollowRules(timedelta(seconds=40), ReconcileRules(GRACE, world.resubmit_after))
    with suppress(ProviderError):
        follow_trainings(world.database, provider or world.provider, rules, clock=world.now)


def hear(world: World) -> None:
    """The webhooks that the server has not handled, as a tick does after following."""
    if world.conditions.webhooks:
        handle_waiting(world)


def handle_waiting(world: World) -> None:
    """What the server does about the webhooks that it has stored."""
    with suppress(ProviderError):
        handle_hints(world.database, world.provider, world.now, 20)


def finalise(world: World) -> None:
    """Everything that has succeeded."""
    rules = FinalisationRules(cap_bytes=1_000_000, lease=LEASE)
    for run_id in finalisable(world.database, world.now(), 10):
        with suppress(ProviderError, ObjectStoreError):
            finalise_training(world.database, world.store, world.provider, run_id, rules, clock=world.now)


def emit(world: World) -> None:
    """One evaluation of the event sensor and what Dagster's daemon then does: events first, the cursor last."""
    if owed(world.database) == 0:
        return
    acknowledge(world.database, world.dagster.cursor, world.now())
    batch = claim(world.database, limit=2)
    if batch is None:
        return
    for event in batch.events:
        world.dagster.events = (*world.dagster.events, event.event_id)
        world.steps.done("Dagster stored an event")
    world.dagster.cursor = batch.token
    world.steps.done("Dagster stored the cursor")


OURS = Operations(submit, follow, hear, finalise, emit)


def runs_in(world: World, *states: TrainingState) -> list[int]:
    with world.database.read() as session:
        return list(
            session.scalars(
                select(TrainingRun.id).where(TrainingRun.state.in_(states)).order_by(TrainingRun.id)
            )
        )


_DESTINATIONS = {"replicate": "acme/{}-selfie-lora", "runpod": "{}_vV1"}


def add_packed(world: World, number: int = 0, *, attempt: int = 1) -> int:
    """A packed run of a model, the same at each call: schedules must be repeatable to the byte."""
    token = f"{number * 1000 + attempt:032x}"
    key = f"user-{number}"
    zip_key = f"submissions/{token}/{'0' * 64}.zip"
    world.store.content = {**world.store.content, zip_key: b"a dataset"}
    now = world.now()
    times = {"created_at": now, "updated_at": now}
    with world.database.begin() as session:
        model = _model(session, key, times)
        images = ImageSet(model_id=model.id, state="ready", usable_count=10, findings=[], **times)
        session.add(images)
        session.flush()
        run = TrainingRun(
            user_id=key,
            model_id=model.id,
            image_set_id=images.id,
            attempt=attempt,
            token=token,
            state="packed",
            provider=world.provider.name,
            simulated=True,
            destination=_DESTINATIONS[world.provider.name].format(key),
            base_model="flux-dev",
            trainer_requested=FLUX_TRAINER,
            parameters={"steps": 1000},
            trigger_word=model.trigger_word,
            zip_key=zip_key,
            dataset_zip_url=world.store.address(zip_key),
            zip_sha256="0" * 64,
            zip_size=9,
            loss_history=[],
            state_changed_at=now,
            **times,
        )
        session.add(run)
        session.flush()
        return run.id


def _model(session: Session, key: str, times: Mapping[str, datetime]) -> UserModel:
    known = session.scalars(select(UserModel).where(UserModel.model_key == key)).one_or_none()
    if known is not None:
        return known
    session.add(User(id=key, **times))
    session.flush()
    word = key.replace("-", "")
    model = UserModel(user_id=key, model_key=key, model_name=key, trigger_word=word, **times)
    session.add(model)
    session.flush()
    return model
