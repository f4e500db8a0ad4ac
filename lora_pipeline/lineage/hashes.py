"""Which things a hash, or the first digits of one, belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from lora_pipeline.database.tables import (
    Artifact,
    Image,
    ImageSet,
    ModelVersion,
    TrainingRun,
    UserModel,
)
from lora_pipeline.lineage.graph import Kind
from lora_pipeline.lineage.meanings import Meaning
from lora_pipeline.lineage.node_ids import node_id, zip_id
from lora_pipeline.lineage.rows import Scope

# Fewer digits fit too many things; AutoV2 is what people paste from model pages.
_HEX = re.compile(r"(?:sha256:)?(?P<digits>[0-9a-f]{10}|[0-9a-f]{12,64})", re.IGNORECASE)
_AUTOV2 = 10
_CANDIDATES = 11


class _Hashed(NamedTuple):
    """A column of hashes, and the node of a row."""

    column: InstrumentedAttribute[Any]
    words: str
    node: Callable[[Row[Any]], str]
    columns: tuple[InstrumentedAttribute[Any], ...]


def _image(row: Row[Any]) -> str:
    return node_id(Kind.IMAGE, row.sha256)


def _artifact(row: Row[Any]) -> str:
    return node_id(Kind.ARTIFACT, row.content_key)


_HASHED: tuple[_Hashed, ...] = (
    _Hashed(Image.sha256, "the SHA-256 of a photograph", _image, (Image.sha256,)),
    _Hashed(Image.normalised_sha256, "the SHA-256 of a normalised photograph", _image, (Image.sha256,)),
    _Hashed(
        ImageSet.digest,
        "the digest of an image set",
        lambda row: node_id(Kind.SET, row.id),
        (ImageSet.id,),
    ),
    _Hashed(
        TrainingRun.zip_sha256,
        "the SHA-256 of a training ZIP",
        lambda row: zip_id(row.zip_sha256, row.image_set_id),
        (TrainingRun.zip_sha256, TrainingRun.image_set_id),
    ),
    _Hashed(Artifact.file_sha256, "the SHA-256 of a weights file", _artifact, (Artifact.content_key,)),
    _Hashed(Artifact.content_key, "the content key of weights", _artifact, (Artifact.content_key,)),
    _Hashed(Artifact.autov3, "the AutoV3 of weights", _artifact, (Artifact.content_key,)),
)


def of_hash(session: Session, text: str, scope: Scope) -> Iterator[Meaning]:
    """Everything that a hash of 64 digits, its first 12 or more, or an AutoV2 of 10 belongs to."""
    found = _HEX.fullmatch(text)
    if found is None:
        return
    digits = found["digits"].lower()
    hashed = _HASHED
    if len(digits) == _AUTOV2:
        hashed = tuple(one for one in _HASHED if one.column is Artifact.file_sha256)
    whole = {digits} if len(digits) == 64 else _completed(session, digits, hashed, scope)
    for value in sorted(whole):
        for one in hashed:
            rows = session.execute(_in_scope(select(*one.columns), one, scope).where(one.column == value))
            nodes = tuple(dict.fromkeys(one.node(row) for row in rows))
            if nodes:
                yield Meaning(one.words, nodes, value)


def _completed(session: Session, digits: str, hashed: tuple[_Hashed, ...], scope: Scope) -> set[str]:
    """The hashes that begin with these digits: as many as an error would list."""
    whole: set[str] = set()
    for one in hashed:
        begins = _in_scope(select(one.column), one, scope).where(
            # Bounds, not LIKE, which no index helps with; g comes after every digit in every collation.
            one.column >= digits,
            one.column < f"{digits}g",
        )
        whole |= set(session.scalars(begins.distinct().order_by(one.column).limit(_CANDIDATES)))
    return set(sorted(whole)[:_CANDIDATES])


def _in_scope(question: Select[*tuple[Any, ...]], hashed: _Hashed, scope: Scope) -> Select[*tuple[Any, ...]]:
    if scope.user_id is None:
        return question
    table = hashed.column.class_
    if table is Image:
        return question.where(Image.user_id == scope.user_id)
    if table is TrainingRun:
        return question.where(TrainingRun.user_id == scope.user_id)
    own = select(UserModel.id).where(UserModel.user_id == scope.user_id)
    if table is ImageSet:
        return question.where(ImageSet.model_id.in_(own))
    held = select(ModelVersion.artifact_id).where(ModelVersion.model_id.in_(own))
    return question.where(Artifact.id.in_(held))
