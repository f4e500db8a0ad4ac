"""Intake: new files become kept originals, normalised images and members of the model's draft.

Two threads read, decode and store; rows are written in small groups, each in one transaction with the draft's new
assessment, so that a crash loses at most one group's rows and no file, and a second run makes nothing twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Literal

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Image
from lora_pipeline.image_sets.arrivals import new_arrivals
from lora_pipeline.image_sets.examining import Examined, FileRefused, FileUnavailable, examine
from lora_pipeline.image_sets.findings import Finding
from lora_pipeline.image_sets.inbox import InboxFolder, IntakeError
from lora_pipeline.image_sets.intake_rows import KNOWN, Failed, write_group
from lora_pipeline.image_sets.models import ModelDescription, ensure_model, find_model, parse_description
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.records import MemberAssessment, SetAssessment
from lora_pipeline.image_sets.sources import ImageSource
from lora_pipeline.objects.store import ObjectStore

THREADS = 2
"""Decoding is the work, and Pillow lets other threads run meanwhile. Each holds one picture in memory."""

GROUP = 16
"""Files a transaction: few enough to lose in a crash, many enough that the rows cost nothing beside the pictures."""

FileState = Literal["included", "excluded", "known", "failed", "waiting"]
"""`known` changed nothing; `failed` will never be taken in; `waiting` could not be read or stored now and is tried again."""


@dataclass(frozen=True)
class TakenFile:
    """What became of one file. `message` is a sentence for people."""

    name: str
    state: FileState
    message: str
    sha256: str | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class IntakeReport:
    """What an intake did: every file, and what the checks say about the draft now (None: there is no draft)."""

    model_key: str
    files: tuple[TakenFile, ...]
    image_set_id: int | None
    assessment: SetAssessment | None

    @property
    def waiting(self) -> tuple[TakenFile, ...]:
        """Files that could not be taken in this time; the next intake tries them again."""
        return tuple(file for file in self.files if file.state == "waiting")


def now_utc() -> datetime:
    return datetime.now(UTC)


def take_in(
    database: Database,
    store: ObjectStore,
    model_key: str,
    sources: Iterable[ImageSource],
    *,
    profile: ImageProfile,
    clock: Callable[[], datetime] = now_utc,
    progress: Callable[[ImageSource], None] | None = None,
) -> IntakeReport:
    """Take files into the model's draft. One bad file stops no other.

    `progress` hears of each file once it is through. Raises IntakeError where there is no such model.
    """
    with database.read() as session:
        user_id = find_model(session, model_key).user_id
        known = frozenset(
            session.scalars(select(Image.sha256).where(Image.user_id == user_id, Image.deleted_at.is_(None)))
        )
    results: list[Examined | Failed] = []
    image_set_id: int | None = None
    assessment: SetAssessment | None = None
    outcomes = _examine_all(store, user_id, sources, known, progress)
    while group := list(islice(outcomes, GROUP)):
        image_set_id, assessment = write_group(database, store, model_key, group, profile, clock())
        results += group
    return IntakeReport(
        model_key, tuple(_taken(result, assessment) for result in results), image_set_id, assessment
    )


def take_in_from_inbox(
    database: Database,
    store: ObjectStore,
    inbox: ObjectStore,
    model_key: str,
    *,
    profile: ImageProfile,
    clock: Callable[[], datetime] = now_utc,
    progress: Callable[[ImageSource], None] | None = None,
) -> IntakeReport:
    """Take in what is new in the model's folder of the inbox; a model that is not known yet is made.

    Raises IntakeError where the folder cannot be a model's, its description is wrong, or there is neither a folder
    nor a model; ObjectStoreError where the inbox cannot be listed.
    """
    arrivals = next(iter(new_arrivals(database, inbox, model_key)), None)
    if arrivals is None:
        with database.read() as session:
            find_model(session, model_key)
        return IntakeReport(model_key, (), None, None)
    if arrivals.problem:
        raise IntakeError(f"{inbox.root}: {arrivals.problem}")
    if arrivals.model_id is None:
        description = read_description(inbox, arrivals.folder)
        with database.begin() as session:
            ensure_model(session, model_key, description, clock())
    return take_in(
        database, store, model_key, arrivals.sources, profile=profile, clock=clock, progress=progress
    )


def read_description(inbox: ObjectStore, folder: InboxFolder) -> ModelDescription | None:
    """What the folder's `model.toml` says; None without one. Raises IntakeError and ObjectStoreError."""
    if folder.description is None:
        return None
    where = inbox.address(folder.description.key)
    try:
        text = inbox.get_bytes(folder.description.key).decode()
    except UnicodeDecodeError as error:
        raise IntakeError(f"{where} is not UTF-8 text. Save it as UTF-8") from error
    return parse_description(text, where)


def _examine_all(
    store: ObjectStore,
    user_id: str,
    sources: Iterable[ImageSource],
    known: Collection[str],
    progress: Callable[[ImageSource], None] | None,
) -> Iterator[Examined | Failed]:
    """Results in the order of the sources, never more than a few pictures ahead of whoever takes them."""

    def one(source: ImageSource) -> Examined | Failed:
        try:
            return examine(store, user_id, source, known)
        except (FileRefused, FileUnavailable) as error:
            return Failed(source, str(error), again=isinstance(error, FileUnavailable))

    pending: deque[tuple[ImageSource, Future[Examined | Failed]]] = deque()
    waiting = iter(sources)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="intake") as pool:
        try:
            while True:
                for source in islice(waiting, THREADS * 2 - len(pending)):
                    pending.append((source, pool.submit(one, source)))
                if not pending:
                    return
                source, future = pending.popleft()
                result = future.result()
                if progress is not None:
                    progress(source)
                yield result
        finally:
            for _, future in pending:
                future.cancel()


def _taken(result: Examined | Failed, assessment: SetAssessment | None) -> TakenFile:
    source = result.source
    if isinstance(result, Failed):
        return TakenFile(source.name, "waiting" if result.again else "failed", result.message)
    member = _member_of(result, assessment)
    if member is None:
        return TakenFile(source.name, "known", KNOWN, result.sha256)
    return TakenFile(source.name, member.verdict, member.reason, result.sha256, member.findings)


def _member_of(result: Examined, assessment: SetAssessment | None) -> MemberAssessment | None:
    members = assessment.members if assessment else ()
    return next(
        (
            m
            for m in members
            if m.member.name == result.source.name and m.member.image.sha256 == result.sha256
        ),
        None,
    )
