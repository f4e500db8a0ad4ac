"""Carrying an erasure out: step by step, each harmless to repeat, until nothing is left that can be deleted.

The next call, by a person or by the retention schedule, takes up what a killed one left. One process at a time works on
an erasure: the lease of a dead one ends by the clock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from lora_pipeline.database.observing import refuse_while_observing
from lora_pipeline.database.tables import ArtifactLocation, AuditEntry, Erasure, ErasureStep, ModelVersion
from lora_pipeline.erasure.at_provider import DELETING, VERSIONS_FIRST, Outcome, at_provider
from lora_pipeline.erasure.journal import step_of
from lora_pipeline.erasure.plan import OBJECTS, ORDER, SIMULATED, Item, Kind
from lora_pipeline.erasure.removing import OutOfReach, Remover
from lora_pipeline.lineage.node_ids import place_of
from lora_pipeline.objects.errors import ObjectStoreError, StoreUnavailable
from lora_pipeline.settings import REPLICATE
from lora_pipeline.trainings.leases import give_lease_back, renew_lease, take_lease

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections

log = logging.getLogger(__name__)

ForgetPartition = Callable[[str], bool]
"""Takes a model's key out of Dagster; False where Dagster cannot be reached from here."""
PATIENCE = timedelta(seconds=20)
"""How long a person's command waits for a deletion that the provider has taken."""
ASK_AGAIN = timedelta(hours=1)
GIVE_UP = timedelta(days=7)
"""A store that refuses is asked every night for so long, since a person may mend a permission; then the receipt says
that the file stays."""
STORE_REFUSES = "the store refuses to delete it"
BY_DAGSTER = "Dagster takes it out with the next run of its retention schedule"
_PAUSE_S = 2.0
_DONE = ("deleted", "gone", "stays")


@dataclass(frozen=True)
class Carried:
    """How far an erasure came."""

    erasure_id: str
    completed: bool
    waiting: tuple[tuple[str, str], ...] = ()
    """(what, why) that is not done yet."""
    told: tuple[str, ...] = field(default=(), repr=False)
    """What the provider or a store said, with names: for whoever watches, stored nowhere."""
    busy: bool = False
    """Another process works on it."""


def carry_out(
    connections: Connections,
    erasure_id: str,
    *,
    forget_partition: ForgetPartition | None = None,
    patience: timedelta = timedelta(0),
) -> Carried:
    """Do what is left of an erasure. Raises Observing."""
    with connections.database.read() as session:
        refuse_while_observing(session, "the erasure was not carried on")
    with _leased(connections, erasure_id) as renew:
        if renew is None:
            return Carried(erasure_id, _completed(connections, erasure_id), busy=True)
        work = _Work(connections, erasure_id, renew, forget_partition)
        deadline = time.monotonic() + patience.total_seconds()
        while True:
            work.round()
            soon = work.waits_for_the_provider()
            if not soon or time.monotonic() + _PAUSE_S > deadline:
                break
            time.sleep(_PAUSE_S)
        return work.end()


def unfinished(connections: Connections) -> list[str]:
    """Erasures with steps that are not done, the oldest first."""
    with connections.database.read() as session:
        return list(
            session.scalars(
                select(Erasure.id)
                .where(
                    Erasure.completed_at.is_(None)
                    | Erasure.id.in_(select(ErasureStep.erasure_id).where(ErasureStep.target.is_not(None)))
                )
                .order_by(Erasure.began_at)
            )
        )


@contextmanager
def _leased(connections: Connections, erasure_id: str) -> Iterator[Callable[[], bool] | None]:
    """What renews the lease, or None while somebody else has it."""
    database, lease, name = connections.database, connections.settings.lease, f"erasure {erasure_id}"
    token = take_lease(database, name, lease, connections.now())
    if token is None:
        yield None
        return
    try:
        yield lambda: renew_lease(database, name, token, lease, connections.now())
    finally:
        give_lease_back(database, name, token, connections.now())


@dataclass
class _Work:
    """One process's work on one erasure."""

    connections: Connections
    erasure_id: str
    renew: Callable[[], bool]
    forget_partition: ForgetPartition | None
    told: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """Versions that the provider keeps: the model that they are of stays too."""

    stuck: set[str] = field(default_factory=set)
    """Files that cannot be deleted: their folders are done without them."""

    def __post_init__(self) -> None:
        self.remover = Remover(self.connections.store)

    def round(self) -> None:
        """Every step that is not done, in order; steps that are added on the way come last."""
        seen: set[int] = set()
        while todo := [step for step in self._open() if step.id not in seen]:
            for step in todo:
                seen.add(step.id)
                if not self.renew():
                    return
                self._do(step)

    def waits_for_the_provider(self) -> bool:
        return any(step.reason in (DELETING, VERSIONS_FIRST) for step in self._open())

    def end(self) -> Carried:
        """Complete the erasure where nothing waits any more but Dagster."""
        now = self.connections.now()
        open_steps = self._open()
        waiting = [step for step in open_steps if step.kind != Kind.PARTITION]
        with self.connections.database.begin() as session:
            row = session.get_one(Erasure, self.erasure_id, with_for_update=True)
            if not waiting and row.completed_at is None:
                row.completed_at = now
                subject = f"erasure {row.id}"
                session.add(
                    AuditEntry(
                        at=now, actor=row.actor, action="complete erasure", subject=subject, details={}
                    )
                )
        if not waiting:
            self.connections.database.drop_old_pages()
        said = tuple((step.kind, step.reason) for step in open_steps)
        return Carried(self.erasure_id, not waiting, said, tuple(self.told))

    def _open(self) -> list[ErasureStep]:
        with self.connections.database.read() as session:
            steps = session.scalars(
                select(ErasureStep)
                .where(ErasureStep.erasure_id == self.erasure_id, ErasureStep.target.is_not(None))
                .order_by(ErasureStep.id)
            ).all()
        return sorted(steps, key=lambda step: ORDER.index(Kind(step.kind)))

    def _do(self, step: ErasureStep) -> None:
        kind, target = Kind(step.kind), step.target or ""
        try:
            outcome = self._outcome(kind, target, step)
        except OutOfReach as error:
            outcome = Outcome("stays", error.cause, told=str(error))
        except StoreUnavailable as error:
            outcome = Outcome("pending", "the store cannot be reached", told=str(error))
        except ObjectStoreError as error:
            outcome = Outcome("stays" if self._is_old() else "pending", STORE_REFUSES, told=str(error))
        if kind in OBJECTS and outcome.state != "deleted":
            self.stuck.add(target)
        if outcome.told:
            self.told.append(outcome.told)
        self._keep(step, outcome)

    def _is_old(self) -> bool:
        with self.connections.database.read() as session:
            began = session.get_one(Erasure, self.erasure_id).began_at
        return self.connections.now() - began > GIVE_UP

    def _outcome(self, kind: Kind, target: str, step: ErasureStep) -> Outcome:
        if kind in OBJECTS:
            return self._object(target, step)
        if kind is Kind.FOLDER:
            return self._folder(target)
        if kind is Kind.INBOX:
            return self._inbox(target)
        if kind is Kind.PARTITION:
            forgotten = self.forget_partition is not None and self.forget_partition(target)
            return Outcome("deleted") if forgotten else Outcome("pending", BY_DAGSTER)
        return self._at_provider(kind, target, step)

    def _at_provider(self, kind: Kind, target: str, step: ErasureStep) -> Outcome:
        overdue = self.connections.now() - step.changed_at > ASK_AGAIN
        state = "pending" if overdue else step.state
        outcome = at_provider(
            lambda: self.connections.provider_named(REPLICATE), kind, target, state, step.until
        )
        if kind is Kind.PROVIDER_VERSION and outcome.state == "stays":
            self.refused.add(target.removeprefix(SIMULATED))
        if outcome.more and self.refused.issuperset(outcome.more):
            return replace(outcome, state="stays", reason="a version of it stays", more=())
        return outcome

    def _object(self, address: str, step: ErasureStep) -> Outcome:
        if step.sha256 is None:
            # Before it is deleted: a killed process must not cost the receipt its hash.
            found = self.remover.sha256(address)
            if found is not None:
                self._set(step.id, sha256=found)
        return Outcome("deleted" if self.remover.delete(address) else "gone")

    def _folder(self, folder: str) -> Outcome:
        """Whatever no row knew becomes a step of its own; the folder is done once nothing of the user's lies there."""
        found = [
            address
            for address in self.remover.lying_in(folder)
            if address not in self.stuck and not self._is_anothers(address)
        ]
        now = self.connections.now()
        with self.connections.database.begin() as session:
            session.add_all(step_of(self.erasure_id, Item(Kind.LEFTOVER, address), now) for address in found)
        return Outcome("deleted" if found else "gone")

    def _is_anothers(self, address: str) -> bool:
        """Whether a version that is still registered has its weights there."""
        place = place_of(address)
        with self.connections.database.read() as session:
            named = select(ModelVersion.id).where(ModelVersion.weights_url == address).limit(1)
            if session.scalars(named).first() is not None:
                return True
            if place is None:
                return False
            lies = select(ArtifactLocation.id).where(
                ArtifactLocation.namespace == place.ref.namespace,
                ArtifactLocation.bucket == place.ref.bucket,
                ArtifactLocation.key == place.ref.key,
                ArtifactLocation.deleted_at.is_(None),
            )
            return session.scalars(lies.limit(1)).first() is not None

    def _inbox(self, model_key: str) -> Outcome:
        inbox = self.connections.inbox
        remover = Remover(inbox)
        deleted = [remover.delete(address) for address in remover.lying_in(model_key)]
        return Outcome("deleted" if any(deleted) else "gone")

    def _keep(self, step: ErasureStep, outcome: Outcome) -> None:
        done = outcome.state in _DONE
        values: dict[str, object] = {"state": outcome.state, "reason": outcome.reason}
        if done:
            values |= {"target": None, "until": outcome.until if outcome.state == "stays" else None}
        if done or outcome.state != step.state:
            values["changed_at"] = self.connections.now()
        self._set(step.id, **values)
        if outcome.more:
            self._add_versions(step, outcome)

    def _add_versions(self, step: ErasureStep, outcome: Outcome) -> None:
        mark = SIMULATED if (step.target or "").startswith(SIMULATED) else ""
        known = {one.target for one in self._open()}
        wanted = [mark + version for version in outcome.more if mark + version not in known]
        now: datetime = self.connections.now()
        with self.connections.database.begin() as session:
            session.add_all(
                step_of(self.erasure_id, Item(Kind.PROVIDER_VERSION, target), now) for target in wanted
            )

    def _set(self, step_id: int, **values: object) -> None:
        with self.connections.database.begin() as session:
            session.execute(update(ErasureStep).where(ErasureStep.id == step_id).values(**values))


def _completed(connections: Connections, erasure_id: str) -> bool:
    with connections.database.read() as session:
        return session.get_one(Erasure, erasure_id).completed_at is not None
