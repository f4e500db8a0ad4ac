"""The files of the inventory that a person names by their addresses, in any spelling."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import InventoryObject
from lora_pipeline.identity import IdentityError, ObjectAddress, ObjectUrlRules, parse_object_url
from lora_pipeline.identity.errors import shown
from lora_pipeline.inventory.attaching import is_current, shown_address
from lora_pipeline.inventory.back_fill import Standing
from lora_pipeline.inventory.bucket_listing import NULL_VERSION

_LOCKED_AT_ONCE = 500


class RegistrationRefused(Exception):
    """An object cannot become a version; the message says why and what to do. Nothing was registered."""


def files_at(
    session: Session, addresses: Sequence[str], rules: ObjectUrlRules
) -> tuple[list[InventoryObject], list[InventoryObject]]:
    """The files that the addresses lead to, and unregistered ones of the same content; all of them locked."""
    named = [_row(session, address, rules) for address in dict.fromkeys(addresses)]
    locked = _locked(session, {row.id for row in named} | _same_content(session, named))
    found = [locked.pop(row.id, None) for row in {row.id: row for row in named}.values()]
    if not all(row is not None and is_current(row) for row in found):
        raise RegistrationRefused(
            "a file was overwritten or deleted just now. Look: lora-pipeline inventory --apply"
        )
    return named, [row for row in locked.values() if row.state == Standing.UNREGISTERED]


def _same_content(session: Session, rows: Sequence[InventoryObject]) -> set[int]:
    artifacts = sorted({row.artifact_id for row in rows if row.artifact_id is not None})
    found: set[int] = set()
    for start in range(0, len(artifacts), _LOCKED_AT_ONCE):
        statement = select(InventoryObject.id).where(
            InventoryObject.artifact_id.in_(artifacts[start : start + _LOCKED_AT_ONCE]),
            InventoryObject.state == Standing.UNREGISTERED.value,
            InventoryObject.listed,
        )
        found |= set(session.scalars(statement))
    return found


def _locked(session: Session, ids: Collection[int]) -> dict[int, InventoryObject]:
    """In one order: two commands that name the same files would wait for each other for ever."""
    wanted = sorted(ids)
    found: dict[int, InventoryObject] = {}
    for start in range(0, len(wanted), _LOCKED_AT_ONCE):
        statement = (
            select(InventoryObject)
            .where(InventoryObject.id.in_(wanted[start : start + _LOCKED_AT_ONCE]))
            .order_by(InventoryObject.id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        found |= {row.id: row for row in session.scalars(statement)}
    return found


def _row(session: Session, address: str, rules: ObjectUrlRules) -> InventoryObject:
    """The file that an address in any spelling leads to."""
    for place in _places(address, rules):
        statement = select(InventoryObject).where(
            InventoryObject.namespace == place.ref.namespace,
            InventoryObject.bucket == place.ref.bucket,
            InventoryObject.key == place.ref.key,
            InventoryObject.listed,
            InventoryObject.overwritten_at.is_(None),
            InventoryObject.deleted_at.is_(None),
        )
        row = session.scalars(statement).first()
        if row is None:
            continue
        if place.version_id not in (None, row.object_version or NULL_VERSION):
            raise RegistrationRefused(
                f"{shown(address)} names another object version than {shown_address(row)}, to which its key leads. "
                "Only that one can be registered: copy the other one to a key of its own, then: "
                "lora-pipeline inventory --apply"
            )
        return row
    raise RegistrationRefused(
        f"the inventory knows no LoRA file at {shown(address)}; expected the address of one that it lists. "
        "Look: lora-pipeline inventory --apply"
    )


def _places(address: str, rules: ObjectUrlRules) -> list[ObjectAddress]:
    """Where the address leads: as it is written, and under today's name of a folder that was renamed."""
    try:
        parsed = parse_object_url(address, replace(rules, renames=()))
    except IdentityError as error:
        raise RegistrationRefused(str(error)) from error
    if not isinstance(parsed, ObjectAddress):
        return []
    meant = [parsed]
    for mark in ("?versionId=", "@"):
        key, found, version = parsed.ref.key.rpartition(mark)
        if found and key and version and parsed.version_id is None:
            # As `shown_address` and the lineage write it. A key may end like that too, and is asked for first.
            meant.append(ObjectAddress(replace(parsed.ref, key=key), version))
    return [
        replace(one, ref=ref) for one in meant for ref in dict.fromkeys([one.ref, rules.renamed(one.ref)])
    ]
