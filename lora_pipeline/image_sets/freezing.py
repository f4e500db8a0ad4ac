"""Freezing: a model's draft becomes a set that never changes, with its manifest and its contact sheet.

Objects are written before the row says that the set is ready, so a ready set always has both; freezing again after
a crash writes the same again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ImageSet, UserModel
from lora_pipeline.image_sets.contact_sheet import Tile, contact_sheet
from lora_pipeline.image_sets.findings import Finding, Severity, with_severity
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.intake import now_utc
from lora_pipeline.image_sets.manifest import manifest_json
from lora_pipeline.image_sets.models import find_model, lock_user
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.records import MemberAssessment, SetAssessment
from lora_pipeline.image_sets.set_checks import SetContext, assess
from lora_pipeline.image_sets.set_rows import (
    AssessedSet,
    assess_rows,
    draft_of,
    latest_ready,
    trained_digest,
    write_assessment,
)
from lora_pipeline.objects.store import ObjectStore

_ATTEMPTS = 5


class SetBlocked(Exception):
    """The set cannot be trained as it is; the message says why and what to do, `findings` are the blocking ones."""

    def __init__(self, assessment: SetAssessment) -> None:
        self.assessment = assessment
        self.findings: tuple[Finding, ...] = assessment.blocking
        super().__init__("; ".join(str(finding) for finding in self.findings) + _left_out(assessment))


def _left_out(assessment: SetAssessment) -> str:
    """How many were left out for what: whoever started with web addresses has seen no verdicts."""
    reasons = Counter(
        next((f.code for f in with_severity(one.findings, Severity.EXCLUDE)), "by a person").replace("_", " ")
        for one in assessment.members
        if not one.included
    )
    return (
        f". Left out: {', '.join(f'{count} {reason}' for reason, count in reasons.items())}"
        if reasons
        else ""
    )


@dataclass(frozen=True)
class FrozenSet:
    """A set that can be trained."""

    image_set_id: int
    model_key: str
    digest: str
    image_count: int
    usable_count: int
    unchanged: bool
    """The model's last training already was of this very content."""
    asked_for: bool
    """Somebody asked for a training of it."""
    manifest_key: str
    contact_sheet_key: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Content:
    """What a freeze is about to fix, to be compared once the objects are written."""

    assessment: SetAssessment
    digest: str
    image_set_id: int
    trigger_word: str


def freeze_set(
    database: Database,
    store: ObjectStore,
    model_key: str,
    *,
    profile: ImageProfile,
    zip_limit_bytes: int | None = None,
    clock: Callable[[], datetime] = now_utc,
) -> FrozenSet:
    """Freeze the model's draft; without one, the set that is frozen already.

    Raises SetBlocked where a check forbids it (the draft stays, and is not ready any more until something changes
    or somebody asks again), IntakeError where there is no such model, ObjectStoreError where the store fails.
    """
    for _ in range(_ATTEMPTS):
        content = _content(database, model_key, profile, zip_limit_bytes, clock)
        if content is None:
            frozen = latest_frozen_set(database, model_key)
            if frozen is None:
                raise SetBlocked(_nothing(profile))
            return frozen
        _write_objects(store, content, model_key, profile)
        if _fix(database, model_key, content, profile, zip_limit_bytes, clock()):
            frozen = latest_frozen_set(database, model_key)
            assert frozen is not None
            return frozen
    raise IntakeError(
        f"the photographs of {model_key} keep changing. Freeze its set once they have all arrived"
    )


def latest_frozen_set(database: Database, model_key: str) -> FrozenSet | None:
    """The model's newest frozen set. Raises IntakeError where there is no such model."""
    with database.read() as session:
        model = find_model(session, model_key)
        image_set = latest_ready(session, model)
        if image_set is None:
            return None
        return _frozen(image_set, model, trained_digest(session, model))


def _frozen(image_set: ImageSet, model: UserModel, trained: str | None) -> FrozenSet:
    assert image_set.digest is not None
    return FrozenSet(
        image_set_id=image_set.id,
        model_key=model.model_key,
        digest=image_set.digest,
        image_count=image_set.image_count,
        usable_count=image_set.usable_count,
        unchanged=image_set.digest == trained,
        asked_for=image_set.asked_for_at is not None,
        manifest_key=image_set.manifest_key or "",
        contact_sheet_key=image_set.contact_sheet_key or "",
        findings=tuple(Finding.from_dict(finding) for finding in image_set.findings),
    )


def _nothing(profile: ImageProfile) -> SetAssessment:
    return assess([], SetContext(profile, trigger_word="-"))


def _content(
    database: Database,
    model_key: str,
    profile: ImageProfile,
    zip_limit_bytes: int | None,
    clock: Callable[[], datetime],
) -> _Content | None:
    """What the draft holds now; None where there is no draft. A blocked one is written down as such and raised."""
    with database.begin() as session:
        model, assessed = _assessed_draft(session, model_key, profile, zip_limit_bytes)
        if assessed is None:
            return None
        write_assessment(assessed, clock())
        if assessed.assessment.blocking:
            assessed.image_set.asked_for_at = None
        content = _Content(assessed.assessment, assessed.digest, assessed.image_set.id, model.trigger_word)
    if content.assessment.blocking:
        raise SetBlocked(content.assessment)
    return content


def _assessed_draft(
    session: Session, model_key: str, profile: ImageProfile, zip_limit_bytes: int | None
) -> tuple[UserModel, AssessedSet | None]:
    model = find_model(session, model_key)
    lock_user(session, model.user_id)
    draft = draft_of(session, model)
    if draft is None:
        return model, None
    return model, assess_rows(session, model, draft, profile, zip_limit_bytes)


def _fix(
    database: Database,
    model_key: str,
    content: _Content,
    profile: ImageProfile,
    zip_limit_bytes: int | None,
    now: datetime,
) -> bool:
    """Make the draft ready if it still is what the objects say; False where somebody changed or froze it."""
    with database.begin() as session:
        _, assessed = _assessed_draft(session, model_key, profile, zip_limit_bytes)
        if assessed is None:
            return True
        if (assessed.assessment, assessed.digest) != (content.assessment, content.digest):
            return False
        write_assessment(assessed, now)
        included = 0
        for member, result in zip(assessed.members, assessed.assessment.members, strict=True):
            member.position = included if result.included else None
            included += result.included
        image_set = assessed.image_set
        image_set.manifest_key, image_set.contact_sheet_key = _keys(image_set.id)
        image_set.state = "ready"
        image_set.ready_at = now
        return True


def _keys(image_set_id: int) -> tuple[str, str]:
    return f"sets/{image_set_id}/manifest.json", f"sets/{image_set_id}/contact-sheet.jpg"


def _write_objects(store: ObjectStore, content: _Content, model_key: str, profile: ImageProfile) -> None:
    manifest_key, sheet_key = _keys(content.image_set_id)
    manifest = manifest_json(
        content.assessment,
        image_set_id=content.image_set_id,
        model_key=model_key,
        trigger_word=content.trigger_word,
        profile=profile.name,
    )
    store.put_bytes(manifest_key, manifest, content_type="application/json")
    included = len(content.assessment.included)
    out = len(content.assessment.members) - included
    subtitle = f"{included} in, {out} left out · trigger word {content.trigger_word} · {content.digest[:12]}"
    sheet = contact_sheet(model_key, subtitle, list(_tiles(store, content.assessment)))
    store.put_bytes(sheet_key, sheet, content_type="image/jpeg")


def _tiles(store: ObjectStore, assessment: SetAssessment) -> Iterator[Tile]:
    included = assessment.included
    for number, member in enumerate(included):
        yield replace(_tile(store, member), number=number)
    for member in assessment.members:
        if not member.included:
            yield _tile(store, member)


def _tile(store: ObjectStore, member: MemberAssessment) -> Tile:
    normalised = member.member.image.normalised
    remarks = [f for f in member.findings if f.severity in _REMARKED or f.code == "turned_upright"]
    remarks.sort(key=lambda finding: finding.severity is Severity.FIXED)
    return Tile(
        picture=partial(store.get_bytes, normalised.key) if normalised else None,
        number=None,
        remark=remarks[0].message if remarks else member.reason if not member.included else "",
        warned=any(finding.severity is Severity.WARN for finding in remarks),
    )


_REMARKED = (Severity.EXCLUDE, Severity.WARN)
