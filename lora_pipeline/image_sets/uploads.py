"""Photographs that a user sends before saying which model they are for: examined, kept, and found again by content.

An upload is an image of its user. Which set it joins is decided when a training is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Image
from lora_pipeline.image_sets.examining import Examined, FileRefused, FileUnavailable, examine
from lora_pipeline.image_sets.findings import Finding
from lora_pipeline.image_sets.intake_rows import images_of
from lora_pipeline.image_sets.models import ensure_user
from lora_pipeline.image_sets.names import shown
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.records import MemberRecord
from lora_pipeline.image_sets.set_checks import SetContext, assess
from lora_pipeline.image_sets.set_rows import image_record
from lora_pipeline.image_sets.sources import ImageSource
from lora_pipeline.objects.store import ObjectStore

_SHA256 = re.compile(r"[0-9a-f]{64}")


class UploadUnknown(LookupError):
    """The user has no such upload."""


@dataclass(frozen=True)
class UploadedFile:
    """What became of one file. Without `sha256` it was not kept."""

    name: str
    state: str
    """`included` or `excluded` by the checks; `failed` where it will never be taken, `waiting` where trying again may help."""
    message: str
    sha256: str | None = None
    findings: tuple[Finding, ...] = ()


def keep_uploads(
    database: Database,
    store: ObjectStore,
    user_id: str,
    sources: Sequence[ImageSource],
    *,
    profile: ImageProfile,
    now: datetime,
) -> list[UploadedFile]:
    """Examine and keep what a user sent, each file once whatever its name. One bad file stops no other."""
    with database.begin() as session:
        ensure_user(session, user_id, now)
        known = frozenset(
            session.scalars(select(Image.sha256).where(Image.user_id == user_id, Image.deleted_at.is_(None)))
        )
    outcomes = [_examined(store, user_id, source, known) for source in sources]
    kept = [outcome for outcome in outcomes if isinstance(outcome, Examined)]
    with database.begin() as session:
        ensure_user(session, user_id, now)
        rows = images_of(session, user_id, kept, now)
        records = {sha256: image_record(row) for sha256, row in rows.items()}
    members = [MemberRecord(one.source.name, records[one.sha256]) for one in kept]
    assessed = {
        (found.member.name, found.member.image.sha256): found
        for found in assess(members, SetContext(profile, trigger_word="-")).members
    }
    results = []
    for outcome in outcomes:
        if isinstance(outcome, UploadedFile):
            results.append(outcome)
            continue
        found = assessed[outcome.source.name, outcome.sha256]
        results.append(
            UploadedFile(outcome.source.name, found.verdict, found.reason, outcome.sha256, found.findings)
        )
    return results


def uploaded_sources(
    database: Database, store: ObjectStore, user_id: str, uploads: Iterable[tuple[str, str]]
) -> list[ImageSource]:
    """Earlier uploads, by (SHA-256, name), as sources for an intake. Raises UploadUnknown."""
    wanted = list(uploads)
    with database.read() as session:
        rows = session.scalars(
            select(Image).where(
                Image.user_id == user_id,
                Image.sha256.in_({sha256 for sha256, _ in wanted}),
                Image.deleted_at.is_(None),
            )
        )
        images = {row.sha256: row for row in rows}
    missing = [sha256 for sha256, _ in wanted if sha256 not in images]
    if missing:
        raise UploadUnknown(
            f"you have no upload {missing[0][:64]!r}. Upload the image again and use the new address"
        )
    return [_source(store, images[sha256], name) for sha256, name in wanted]


def is_content_name(text: str) -> bool:
    """Whether the text can be an upload's SHA-256."""
    return _SHA256.fullmatch(text) is not None


def _examined(
    store: ObjectStore, user_id: str, source: ImageSource, known: frozenset[str]
) -> Examined | UploadedFile:
    try:
        return examine(store, user_id, source, known)
    except FileRefused as refusal:
        return UploadedFile(source.name, "failed", str(refusal))
    except FileUnavailable as trouble:
        return UploadedFile(source.name, "waiting", str(trouble))


def _source(store: ObjectStore, image: Image, name: str) -> ImageSource:
    safe = shown(name)[:200] or image.sha256[:12]
    key = image.object_key
    return ImageSource(
        name=safe,
        address=f"upload:{image.sha256}/{safe}",
        fingerprint=image.sha256,
        arrived_at=datetime.now(UTC),
        open=lambda: store.stream(key),
    )
