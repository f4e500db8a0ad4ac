"""Beginning an erasure: one transaction writes what has to go, and takes every row of the user out of the database.

From its commit on nobody can train, serve, sync or take in anything of the user: there is nothing to do it with. What is
left are files and things at providers, whose addresses only the journal has until they are gone.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.observing import refuse_while_observing
from lora_pipeline.database.tables import AuditEntry, Erasure, ErasureStep, User
from lora_pipeline.erasure.belongings import UserNotFound, belongings, find_user, refuse_unless_erasable
from lora_pipeline.erasure.names import Erased, Name, erased, keep_names, name_hash
from lora_pipeline.erasure.plan import ErasurePlan, Item
from lora_pipeline.erasure.planning import plan_erasure
from lora_pipeline.erasure.rows import delete_rows

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections


def look(connections: Connections, text: str) -> ErasurePlan | Erased:
    """What erasing this user would do, or the erasure that has begun already. Changes nothing.

    Raises UserNotFound, and ErasureRefused for the house and while a training is open.
    """
    with connections.database.read() as session:
        user = find_user(session, text)
        if user is None:
            return _erased_before(session, text)
        refuse_unless_erasable(session, user)
        return plan_erasure(session, connections, user, connections.now())


def begin_erasure(connections: Connections, text: str, actor: str) -> tuple[str, ErasurePlan | None]:
    """Commit an erasure; its id, and its plan unless it had begun already. Two at once begin one.

    Raises what `look` does, and Observing.
    """
    now = connections.now()
    with connections.database.begin() as session:
        refuse_while_observing(session, "nobody was erased")
        user = find_user(session, text)
        if user is not None:
            # Whoever deletes the row first has begun; who waited for it finds it gone.
            user = session.scalars(
                select(User)
                .where(User.id == user.id)
                .with_for_update()
                .execution_options(populate_existing=True)
            ).one_or_none()
        if user is None:
            return _erased_before(session, text).id, None
        refuse_unless_erasable(session, user)
        plan = plan_erasure(session, connections, user, now)
        return _write(session, plan, user, actor, now), plan


def _write(session: Session, plan: ErasurePlan, user: User, actor: str, now: datetime) -> str:
    mine = belongings(session, user)
    row = Erasure(
        id=uuid.uuid4().hex,
        user_hash=name_hash(session, Name.USER, user.id, now),
        actor=actor,
        rows={},
        began_at=now,
    )
    session.add(row)
    session.flush()
    keep_names(session, row.id, plan.names, now)
    session.add_all(step_of(row.id, item, now) for item in plan.items)
    row.rows = delete_rows(session, mine, plan)
    session.add(
        AuditEntry(at=now, actor=actor, action="begin erasure", subject=f"erasure {row.id}", details={})
    )
    session.flush()
    return row.id


def step_of(erasure_id: str, item: Item, now: datetime) -> ErasureStep:
    """The journal's line for one thing."""
    return ErasureStep(
        erasure_id=erasure_id,
        kind=item.kind.value,
        target=None if item.stays else item.target,
        sha256=item.sha256,
        state="stays" if item.stays else "pending",
        reason=item.stays,
        until=item.until,
        changed_at=now,
    )


def _erased_before(session: Session, text: str) -> Erased:
    wanted = text.strip().removeprefix("user:")
    found = erased(session, wanted, [Name.USER, Name.EMAIL, Name.MODEL])
    if found is None:
        raise UserNotFound(
            "no user has this id, e-mail address or model key, and nobody who had was erased here. See who there is: "
            "lora-pipeline sync-status"
        )
    return found
