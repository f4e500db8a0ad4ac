"""Photographs, sets, trainings and versions put into the database by the hundred, as the pipeline would leave them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import event
from sqlalchemy import insert as sql_insert
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    Activation,
    Artifact,
    ArtifactLocation,
    Base,
    Image,
    ImageSet,
    ImageSetMember,
    ModelVersion,
    TrainingRun,
    UserModel,
    VersionAlias,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def digest_of(name: str) -> str:
    """The SHA-256 of what goes by this name."""
    return sha256(name.encode()).hexdigest()


def add_photograph(session: Session, user: str, name: str) -> int:
    image = Image(
        user_id=user,
        sha256=digest_of(name),
        object_key=f"users/{user}/originals/{digest_of(name)}",
        size=1,
        findings=[],
        created_at=NOW,
    )
    session.add(image)
    session.flush()
    return image.id


def add_set(session: Session, model: UserModel, members: Iterable[tuple[int, bool]]) -> int:
    """A frozen set of these photographs: (row id, whether it is included)."""
    image_set = ImageSet(model_id=model.id, state="ready", findings=[], created_at=NOW, updated_at=NOW)
    session.add(image_set)
    session.flush()
    position = 0
    for image_id, included in members:
        session.add(
            ImageSetMember(
                image_set_id=image_set.id,
                image_id=image_id,
                source_name=f"{image_id}.jpg",
                position=position if included else None,
                verdict="included" if included else "excluded",
                findings=[],
                created_at=NOW,
            )
        )
        position += included
    session.flush()
    return image_set.id


def add_training(session: Session, model: UserModel, image_set: int, attempt: int) -> int:
    """A finished training of a set."""
    name = f"{model.model_key} {attempt}"
    run = TrainingRun(
        user_id=model.user_id,
        model_id=model.id,
        image_set_id=image_set,
        attempt=attempt,
        token=digest_of(f"token {name}")[:32],
        provider="replicate",
        training_id=digest_of(f"job {name}")[:26],
        destination=f"acme/{model.model_key}",
        base_model="flux-dev",
        trainer_requested="ostris/flux-dev-lora-trainer",
        trigger_word=model.trigger_word,
        zip_sha256=digest_of(f"zip {name}"),
        state="finalised",
        loss_history=[],
        state_changed_at=NOW,
        completed_at=NOW,
        created_at=NOW,
        updated_at=NOW,
    )
    session.add(run)
    session.flush()
    return run.id


def add_artifact(session: Session, name: str) -> int:
    artifact = Artifact(
        content_key=digest_of(f"content {name}"),
        file_sha256=digest_of(f"file {name}"),
        autov2=digest_of(f"file {name}")[:10],
        autov3=digest_of(f"data {name}"),
        size=170_000_000,
        tensor_count=1,
        rank=16,
        created_at=NOW,
    )
    session.add(artifact)
    session.flush()
    return artifact.id


def add_result(
    session: Session,
    model: UserModel,
    run: int,
    number: int,
    *,
    live: bool = False,
    artifact: int | None = None,
) -> int:
    """The version of a training, with its weights (of their own where none are given) and all its names."""
    name = f"{model.model_key} {number}"
    artifact = artifact or add_artifact(session, name)
    key = f"loras/{model.model_key}/{digest_of(name)}.safetensors"
    version = ModelVersion(
        model_id=model.id,
        number=number,
        artifact_id=artifact,
        training_run_id=run,
        provider="replicate",
        provider_version=f"acme/{model.model_key}:{digest_of(f'version {name}')}",
        weights_url=f"s3://bucket/{key}",
        weights_state="verified",
        trigger_word=model.trigger_word,
        created_at=NOW,
        updated_at=NOW,
    )
    session.add(version)
    session.flush()
    job = session.get_one(TrainingRun, run).training_id
    for kind, alias in (("training_id", f"replicate:{job}"), ("object", f"s3://bucket/{key}")):
        session.add(VersionAlias(kind=kind, alias=alias, version_id=version.id, created_at=NOW))
    session.add(
        ArtifactLocation(
            artifact_id=artifact,
            namespace="s3/aws",
            bucket="bucket",
            key=key,
            size=170_000_000,
            first_seen=NOW,
            last_seen=NOW,
        )
    )
    session.add(
        Activation(
            model_id=model.id,
            version_id=version.id,
            active_from=NOW,
            active_to=None if live else NOW,
            actor="finalisation",
            reason="verified",
        )
    )
    session.flush()
    return version.id


def add_many(session: Session, model: UserModel, shared: str, number: int) -> None:
    """So many sets of two photographs, one of which is the shared one, each trained; the last version is live."""
    common = add_photograph(session, model.user_id, shared)
    first = 100_000
    own = [first + index for index in range(number)]
    at = {"created_at": NOW}
    written = {**at, "updated_at": NOW}
    key = model.model_key

    def insert(table: type[Base], *columns: dict[str, Any]) -> None:
        session.execute(sql_insert(table), [dict(values) for values in columns])

    insert(
        Image,
        *(
            {
                "id": one,
                "user_id": model.user_id,
                "sha256": digest_of(f"photo {one}"),
                "object_key": "x",
                "size": 1,
            }
            | {"findings": [], **at}
            for one in own
        ),
    )
    insert(
        ImageSet,
        *({"id": one, "model_id": model.id, "state": "ready", "findings": [], **written} for one in own),
    )
    insert(
        ImageSetMember,
        *(
            {"image_set_id": one, "image_id": image, "source_name": str(image), "position": place}
            | {"verdict": "included", "findings": [], **at}
            for one in own
            for place, image in enumerate((common, one))
        ),
    )
    insert(
        TrainingRun,
        *(
            {"id": one, "user_id": model.user_id, "model_id": model.id, "image_set_id": one, "attempt": one}
            | {"token": digest_of(f"token {one}")[:32], "provider": "replicate", "destination": key}
            | {
                "training_id": digest_of(f"job {one}")[:26],
                "base_model": "flux-dev",
                "trainer_requested": "t",
            }
            | {"trigger_word": key, "zip_sha256": digest_of(f"zip {one}"), "state": "finalised"}
            | {"loss_history": [], "state_changed_at": NOW, **written}
            for one in own
        ),
    )
    insert(
        Artifact,
        *(
            {"id": one, "content_key": digest_of(f"content {one}"), "file_sha256": digest_of(f"file {one}")}
            | {
                "autov2": digest_of(f"file {one}")[:10],
                "autov3": digest_of(f"data {one}"),
                "size": 170_000_000,
            }
            | {"tensor_count": 1, **at}
            for one in own
        ),
    )
    insert(
        ModelVersion,
        *(
            {"id": one, "model_id": model.id, "number": one, "artifact_id": one, "training_run_id": one}
            | {"provider": "replicate", "weights_url": f"s3://bucket/{one}", "trigger_word": key, **written}
            for one in own
        ),
    )
    insert(
        ArtifactLocation,
        *(
            {"artifact_id": one, "namespace": "s3/aws", "bucket": "bucket", "key": str(one), "size": 1}
            | {"first_seen": NOW, "last_seen": NOW}
            for one in own
        ),
    )
    insert(
        Activation,
        *(
            {"model_id": model.id, "version_id": one, "active_from": NOW, "actor": "test", "reason": "test"}
            | {"active_to": None if one == own[-1] else NOW}
            for one in own
        ),
    )


@contextmanager
def counted_queries(database: Database) -> Iterator[list[str]]:
    """The statements that are executed meanwhile."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield statements
    event.remove(database.engine, "before_cursor_execute", note)
