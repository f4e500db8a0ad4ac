"""The questions that a lineage is read by: each is one query, however many things it is about.

Which are asked in which order is `reading`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Row, Select, any_, cast, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from lora_pipeline.database.tables import (
    Activation,
    Artifact,
    ArtifactLocation,
    Image,
    ImageSet,
    ImageSetMember,
    ModelVersion,
    TrainingRun,
    UserModel,
    VersionAlias,
    VersionRedirect,
)
from lora_pipeline.lineage.rows import JOB, OBJECT, Rows, Scope

_Question = Select[*tuple[Any, ...]]
# Made once: SQLAlchemy adapts each column of an alias at its first use.
_FOUND = aliased(ModelVersion)


class Reader:
    """Asks for rows and keeps them. Nothing outside the scope is ever read."""

    def __init__(self, session: Session, scope: Scope) -> None:
        self.session = session
        self.scope = scope
        self.rows = Rows()

    def images(self, condition: ColumnElement[bool]) -> set[int]:
        """The photographs that match, by row id."""
        question = select(
            Image.id,
            Image.sha256,
            Image.normalised_sha256,
            Image.format,
            Image.width,
            Image.height,
            Image.created_at,
        ).where(condition)
        return self._keep(self.rows.images, self._own(question, Image.user_id).order_by(Image.id))

    def members(self, condition: ColumnElement[bool]) -> set[int]:
        """Places of photographs in sets, by row id."""
        question = (
            select(
                ImageSetMember.id,
                ImageSetMember.image_set_id,
                ImageSetMember.image_id,
                ImageSetMember.position,
                ImageSetMember.verdict,
                ImageSetMember.chosen_by,
                ImageSetMember.findings,
            )
            .join(Image, Image.id == ImageSetMember.image_id)
            .where(condition)
            .order_by(ImageSetMember.position.is_(None), ImageSetMember.position, ImageSetMember.id)
        )
        return self._keep(self.rows.members, self._own(question, Image.user_id))

    def sets(self, condition: ColumnElement[bool]) -> set[int]:
        question = (
            select(
                ImageSet.id,
                ImageSet.external_id,
                ImageSet.state,
                ImageSet.digest,
                ImageSet.image_count,
                ImageSet.usable_count,
                ImageSet.consent,
                ImageSet.ready_at,
                ImageSet.created_at,
                UserModel.model_key,
            )
            .join(UserModel, UserModel.id == ImageSet.model_id)
            .where(condition)
            .order_by(ImageSet.id)
        )
        return self._keep(self.rows.sets, self._own(question, UserModel.user_id))

    def runs(self, condition: ColumnElement[bool]) -> set[int]:
        question = (
            select(
                TrainingRun.id,
                TrainingRun.image_set_id,
                TrainingRun.attempt,
                TrainingRun.provider,
                TrainingRun.training_id,
                TrainingRun.simulated,
                TrainingRun.base_model,
                TrainingRun.trainer_requested,
                TrainingRun.trainer_returned,
                TrainingRun.parameters,
                TrainingRun.trigger_word,
                TrainingRun.zip_sha256,
                TrainingRun.zip_size,
                TrainingRun.zip_deleted_at,
                TrainingRun.state,
                TrainingRun.hold_reason,
                TrainingRun.error,
                TrainingRun.cost,
                TrainingRun.submitted_at,
                TrainingRun.completed_at,
                TrainingRun.created_at,
                UserModel.model_key,
            )
            .join(UserModel, UserModel.id == TrainingRun.model_id)
            .where(condition)
            .order_by(TrainingRun.id)
        )
        return self._keep(self.rows.runs, self._own(question, TrainingRun.user_id))

    def versions(self, condition: ColumnElement[bool]) -> set[int]:
        """Registered versions that match; a merged one leads to the version that took its place."""
        found = _FOUND
        meant = (
            select(func.coalesce(VersionRedirect.version_id, ModelVersion.id))
            .select_from(ModelVersion)
            .outerjoin(VersionRedirect, VersionRedirect.old_version_id == ModelVersion.id)
            .where(condition)
        )
        question = (
            select(
                found.id,
                found.model_id,
                found.number,
                found.artifact_id,
                found.training_run_id,
                found.provider,
                found.provider_version,
                found.weights_url,
                found.weights_state,
                found.trigger_word,
                found.image_count,
                found.simulated,
                found.trained_at,
                UserModel.model_key,
            )
            .join(UserModel, UserModel.id == found.model_id)
            .where(found.id.in_(meant))
            .order_by(found.id)
        )
        return self._keep(self.rows.versions, self._own(question, UserModel.user_id))

    def versions_at(self, addresses: Iterable[str]) -> set[int]:
        """The versions that are said to lie at one of these addresses."""
        saying = select(VersionAlias.version_id).where(
            VersionAlias.kind == OBJECT, self.among(VersionAlias.alias, addresses)
        )
        return self.versions(ModelVersion.id.in_(saying))

    def versions_of_jobs(self) -> set[int]:
        """The versions that go by a job of the runs read so far: a merged version's run has no other link to it."""
        jobs = [f"{run.provider}:{run.training_id}" for run in self.rows.runs.values() if run.training_id]
        named = select(VersionAlias.version_id).where(
            VersionAlias.kind == JOB, self.among(VersionAlias.alias, jobs)
        )
        return self.versions(ModelVersion.id.in_(named)) if jobs else set()

    def runs_of_jobs(self) -> set[int]:
        """The runs whose jobs are names of the versions read so far."""
        jobs = {row.alias for row in self.rows.aliases.values() if row.kind == JOB}
        known = {f"{run.provider}:{run.training_id}" for run in self.rows.runs.values()}
        pairs = [job.partition(":")[::2] for job in jobs - known]
        if not pairs:
            return set()
        providers, ids = {provider for provider, _ in pairs}, [job for _, job in pairs]
        return self.runs(TrainingRun.provider.in_(providers) & self.among(TrainingRun.training_id, ids))

    def merged(self, into: Iterable[int]) -> None:
        """The versions that were merged into these."""
        question = (
            select(ModelVersion.id, ModelVersion.number, VersionRedirect.version_id, UserModel.model_key)
            .join(VersionRedirect, VersionRedirect.old_version_id == ModelVersion.id)
            .join(UserModel, UserModel.id == ModelVersion.model_id)
            .where(self.among(VersionRedirect.version_id, into))
            .order_by(ModelVersion.id)
        )
        self._keep(self.rows.merged, question)

    def aliases(self, versions: Iterable[int]) -> None:
        """Every other name of these versions."""
        question = (
            select(VersionAlias.id, VersionAlias.version_id, VersionAlias.kind, VersionAlias.alias)
            .where(self.among(VersionAlias.version_id, versions))
            .order_by(VersionAlias.id)
        )
        self._keep(self.rows.aliases, question)

    def artifacts(self, condition: ColumnElement[bool]) -> set[int]:
        question = (
            select(
                Artifact.id,
                Artifact.content_key,
                Artifact.file_sha256,
                Artifact.autov2,
                Artifact.autov3,
                Artifact.size,
                Artifact.rank,
            )
            .where(condition)
            .order_by(Artifact.id)
        )
        if self.scope.user_id is not None:
            # An artifact is nobody's by itself: whoever has a version of it may see it.
            own = (
                select(ModelVersion.artifact_id)
                .join(UserModel, UserModel.id == ModelVersion.model_id)
                .where(UserModel.user_id == self.scope.user_id)
            )
            question = question.where(Artifact.id.in_(own))
        return self._keep(self.rows.artifacts, question)

    def locations(self, condition: ColumnElement[bool]) -> set[int]:
        """Where artifacts lie or lay. In a user's scope `building` keeps only what their versions name."""
        question = (
            select(
                ArtifactLocation.id,
                ArtifactLocation.artifact_id,
                ArtifactLocation.namespace,
                ArtifactLocation.bucket,
                ArtifactLocation.key,
                ArtifactLocation.object_version,
                ArtifactLocation.first_seen,
                ArtifactLocation.last_seen,
                ArtifactLocation.overwritten_at,
                ArtifactLocation.deleted_at,
            )
            .where(condition)
            .order_by(ArtifactLocation.id)
        )
        return self._keep(self.rows.locations, question)

    def activations(self, versions: Iterable[int]) -> None:
        """When these versions were served."""
        question = (
            select(
                Activation.id,
                Activation.version_id,
                Activation.active_from,
                Activation.active_to,
                Activation.actor,
                Activation.reason,
                Activation.pinned,
            )
            .where(self.among(Activation.version_id, versions))
            .order_by(Activation.id)
        )
        self._keep(self.rows.activations, question)

    def models(self, condition: ColumnElement[bool]) -> set[int]:
        question = (
            select(UserModel.id, UserModel.model_key, UserModel.model_type, UserModel.trigger_word)
            .where(condition)
            .order_by(UserModel.id)
        )
        return self._keep(self.rows.models, self._own(question, UserModel.user_id))

    def among(
        self, column: InstrumentedAttribute[Any] | ColumnElement[Any], values: Iterable[Any]
    ) -> ColumnElement[bool]:
        """`column IN values` with one parameter: neither database takes tens of thousands of them."""
        wanted = list(values)
        if self.session.get_bind().dialect.name == "postgresql":
            return column == any_(cast(literal(wanted, ARRAY(column.type)), ARRAY(column.type)))
        each = func.json_each(json.dumps(wanted)).table_valued("value")
        return column.in_(select(each.c.value))

    def _own(self, question: _Question, owner: InstrumentedAttribute[str]) -> _Question:
        return question if self.scope.user_id is None else question.where(owner == self.scope.user_id)

    def _keep(self, kept: dict[int, Row[Any]], question: _Question) -> set[int]:
        found = {row.id: row for row in self.session.execute(question)}
        kept |= {key: row for key, row in found.items() if key not in kept}
        return set(found)
