"""Names of who was erased: recognised by a keyed hash, never readable again.

The key is this installation's own and lies in the database: whoever has only a receipt, or only the hashes, cannot try
out user ids.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.inserting import insert_unless_there
from lora_pipeline.database.tables import Control, ErasedName, Erasure

_CONTROL = "erasure key"


class Name(StrEnum):
    """What a name is of."""

    USER = "user"
    EMAIL = "email"
    MODEL = "model"
    """A model key: a folder of the inbox, a partition."""
    FOLDER = "folder"
    """A user's folder in the object store."""
    CONTENT = "content"
    """The content key of weights."""
    OTHER = "other"
    """A name at the provider, a job, a version, an old entry, an address."""


@dataclass(frozen=True)
class Erased:
    """The erasure that a name belongs to."""

    id: str
    began_at: datetime

    def __str__(self) -> str:
        return f"erased on {self.began_at:%Y-%m-%d}. The receipt: lora-pipeline erase --receipt {self.id}"


def keep_names(session: Session, erasure_id: str, names: Iterable[tuple[Name, str]], now: datetime) -> None:
    """Recognise these names from now on."""
    key = _key(session, now)
    rows = [
        {"name_hash": one, "erasure_id": erasure_id}
        for one in sorted({_hash(key, kind, text) for kind, text in names})
    ]
    insert_unless_there(session, ErasedName, ["name_hash"], rows)


def name_hash(session: Session, kind: Name, text: str, now: datetime) -> str:
    """The keyed hash that a name is recognised by."""
    return _hash(_key(session, now), kind, text)


def erased(session: Session, text: str, kinds: Sequence[Name] = tuple(Name)) -> Erased | None:
    """The erasure of whom or what the text named, as one of these kinds; None where it is nobody's who was erased."""
    row = session.get(Control, _CONTROL)
    if row is None:
        return None
    hashes = [_hash(base64.b64decode(row.value["key"]), kind, text) for kind in kinds]
    found = session.execute(
        select(Erasure.id, Erasure.began_at)
        .join(ErasedName, ErasedName.erasure_id == Erasure.id)
        .where(ErasedName.name_hash.in_(hashes))
        .order_by(Erasure.began_at)
    ).first()
    return Erased(found.id, found.began_at) if found else None


def erased_among(session: Session, texts: Collection[str], kind: Name) -> dict[str, Erased]:
    """Those of the texts that named somebody or something that was erased."""
    row = session.get(Control, _CONTROL) if texts else None
    if row is None:
        return {}
    key = base64.b64decode(row.value["key"])
    by_hash = {_hash(key, kind, text): text for text in texts}
    found = session.execute(
        select(ErasedName.name_hash, Erasure.id, Erasure.began_at)
        .join(Erasure, Erasure.id == ErasedName.erasure_id)
        .where(ErasedName.name_hash.in_(by_hash))
    )
    return {by_hash[one.name_hash]: Erased(one.id, one.began_at) for one in found}


def _key(session: Session, now: datetime) -> bytes:
    made = {"key": base64.b64encode(secrets.token_bytes(32)).decode()}
    row = {"name": _CONTROL, "value": made, "changed_by": "erase", "changed_at": now}
    insert_unless_there(session, Control, ["name"], [row])
    return base64.b64decode(session.get_one(Control, _CONTROL).value["key"])


def _hash(key: bytes, kind: Name, text: str) -> str:
    # E-mail addresses and providers' names are the same in any case.
    same = text.strip() if kind in (Name.USER, Name.MODEL, Name.FOLDER) else text.strip().lower()
    return hmac.new(key, f"{kind}\n{same}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
