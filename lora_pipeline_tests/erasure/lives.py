"""Users who lived through the whole pipeline, and what is left of them anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import (
    AuditEntry,
    BackgroundJob,
    Base,
    Callback,
    IdempotencyKey,
    Image,
    InventoryObject,
    MergeJournal,
    MergePlan,
    OutboxEvent,
    ReviewItem,
    TrainingRun,
    UserModel,
    WebhookDelivery,
)
from lora_pipeline.objects.errors import ObjectNotFound
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.finishing import finalise_succeeded, follow_and_find_work
from lora_pipeline.trainings.start_batch import start_ready
from lora_pipeline_tests.fixtures.photographs import drop_photographs

KEY = "user-50c"
USER = "customer-50c"
EMAIL = "maria.müller@example.org"
FILE = "Maria Müller am See.jpg"
OTHERS_FILE = "am See.jpg"


@dataclass
class Traces:
    """What a user is known by, noted while they were there."""

    names: set[str]
    originals: list[str]
    """Keys in the store."""
    hashes: set[str]
    files: list[str]
    """Every key in the store."""
    jobs: set[str] = field(default_factory=set)


def drop_user(
    connections: Connections, key: str = KEY, user: str = USER, email: str = EMAIL, file: str = FILE
) -> Path:
    """A folder of the inbox with six photographs, one of which is called by the user's name."""
    folder = connections.settings.home / "inbox" / key
    drop_photographs(folder, 6)
    (folder / "photo 05.jpg").rename(folder / file)
    (folder / "model.toml").write_text(f'user_id = "{user}"\nemail = "{email}"\n')
    return folder


def train(connections: Connections, simulator: RunningSimulator) -> None:
    """Everything that lies in the inbox becomes served versions."""
    report = start_ready(connections, lease=None)
    assert not report.failures, report.failures
    simulator.advance(7200)
    work = follow_and_find_work(connections)
    finalise_succeeded(connections, lease=work.lease, say=print)


def add_bookkeeping(connections: Connections, key: str = KEY, user: str = USER, email: str = EMAIL) -> None:
    """Rows elsewhere that name the user: their own, and such as are about several."""
    now = connections.now()
    with connections.database.begin() as session:
        model = session.query(UserModel).filter_by(model_key=key).one()
        job = session.query(TrainingRun).filter_by(model_id=model.id).first()
        plan = MergePlan(
            id="20260301-120000-aaaaaaaa",
            scope="import training-versions /srv/actors",
            state="applied",
            groups=[],
            fingerprint="",
            created_at=now,
        )
        session.add(plan)
        session.flush()
        session.add_all(
            [
                AuditEntry(
                    at=now, actor="test", action="x", subject="elsewhere", details={"users": [key, "b"]}
                ),
                AuditEntry(at=now, actor="test", action="x", subject="other", details={"users": ["user-50"]}),
                BackgroundJob(
                    id="j1",
                    kind="bulk sync",
                    actor="test",
                    state="completed",
                    message=f"{key}: up to date",
                    report={"users": [{"email": email}]},
                    started_at=now,
                    seen_at=now,
                ),
                Callback(
                    event_id="e1",
                    kind="version.changed",
                    model_id=model.id,
                    payload={"userId": user},
                    created_at=now,
                    next_attempt_at=now,
                ),
                IdempotencyKey(
                    user_id=user, key="k", request_sha256="0" * 64, answer={"modelId": key}, created_at=now
                ),
                InventoryObject(
                    namespace="s3/aws",
                    bucket="b",
                    key=f"loras/{key}/x.safetensors",
                    etag="1",
                    size=1,
                    modified=now,
                    listed=True,
                    first_seen=now,
                ),
                MergeJournal(
                    plan_id=plan.id,
                    sequence=1,
                    target=f"{key}/",
                    before={"wrapper": {}},
                    after={"path": "0050_maria/training_versions.json"},
                ),
                OutboxEvent(
                    event_id="o1",
                    asset_key="version_registry",
                    payload={"changed": [{"model": key}]},
                    created_at=now,
                ),
                ReviewItem(
                    kind="x", subject="versions 1,2", details={"versions": [f"{key} V1"]}, created_at=now
                ),
                WebhookDelivery(
                    provider="replicate",
                    delivery_id="d1",
                    job_id=job.training_id if job else "",
                    status="succeeded",
                    body_sha256="0" * 64,
                    received_at=now,
                ),
            ]
        )


def traces(connections: Connections, key: str = KEY, user: str = USER, email: str = EMAIL) -> Traces:
    """Everything by which this user could be found."""
    with connections.database.read() as session:
        images = session.query(Image).filter_by(user_id=user).all()
        model = session.query(UserModel).filter_by(model_key=key).one()
        runs = session.query(TrainingRun).filter_by(model_id=model.id).all()
        names = {
            key,
            user,
            email,
            FILE,
            f"{key}-selfie-lora",
            model.trigger_word,
            *(run.token for run in runs),
        }
    return Traces(
        names=names,
        originals=[image.object_key for image in images],
        hashes={image.sha256 for image in images},
        files=[info.key for info in connections.store.list()],
        jobs={run.training_id for run in runs if run.training_id},
    )


def found_in_database(connections: Connections, names: Iterable[str]) -> set[str]:
    """(table.column, name) of every text in the database that holds one of the names, in any case."""
    found = set()
    with connections.database.read() as session:
        for table in Base.metadata.sorted_tables:
            for row in session.execute(select(table)).mappings():
                for column, value in row.items():
                    text = (
                        value
                        if isinstance(value, str)
                        else json.dumps(value, ensure_ascii=False, default=str)
                    )
                    found |= {
                        f"{table.name}.{column}: {name}" for name in names if name.lower() in text.lower()
                    }
    return found


def found_in_files(connections: Connections, names: Iterable[str]) -> set[str]:
    """Names that SQLite's own files still spell out, in pages that no row uses any more. Nothing on PostgreSQL."""
    path = connections.database.url.database
    if connections.database.dialect != "sqlite" or path is None:
        return set()
    files = Path(path).parent.glob(f"{Path(path).name}*")
    content = b"".join(file.read_bytes() for file in files)
    return {name for name in names if name.encode() in content}


def found_in_store(connections: Connections, gone: Traces) -> list[str]:
    """Keys that name the user, and files of whatever name that are one of the photographs."""
    found = []
    for info in connections.store.list():
        try:
            content = connections.store.get_bytes(info.key)
        except ObjectNotFound:
            continue
        named = any(name in info.key for name in gone.names)
        if named or hashlib.sha256(content).hexdigest() in gone.hashes:
            found.append(info.key)
    return found
