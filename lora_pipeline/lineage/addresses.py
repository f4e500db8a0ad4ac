"""Which things an address belongs to, however it is spelled: weights, and what the pipeline itself stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    ArtifactLocation,
    Image,
    ImageSet,
    ModelVersion,
    TrainingRun,
    VersionAlias,
)
from lora_pipeline.identity import ObjectRef, ObjectUrlRules
from lora_pipeline.lineage.graph import Kind
from lora_pipeline.lineage.meanings import Meaning
from lora_pipeline.lineage.node_ids import (
    Place,
    address_of,
    node_id,
    object_id,
    place_of,
    places_meant,
    zip_id,
)
from lora_pipeline.lineage.rows import OBJECT, Scope, at_place

_SUBMISSION = re.compile(r"submissions/([0-9a-f]{32})/[0-9a-f]{64}\.zip")
_ORIGINAL = re.compile(r"users/[^/]+/originals/([0-9a-f]{64})")
_NORMALISED = re.compile(r"users/[^/]+/normalised/([0-9a-f]{64})\.jpg")
_OF_A_SET = re.compile(r"sets/([1-9][0-9]{0,17})/.+")
# What no spelling of an address encodes.
_PLAIN_END = re.compile(r"[A-Za-z0-9._-]+$")
_MOST = 1_000


def of_address(session: Session, text: str, scope: Scope) -> Iterator[Meaning]:
    """The object at this address, by its identity; also where its folder was renamed since."""
    places = places_meant(text, scope.rules)
    if not places:
        return
    address = address_of(places[0])
    seen = session.execute(
        select(
            ArtifactLocation.namespace,
            ArtifactLocation.bucket,
            ArtifactLocation.key,
            ArtifactLocation.object_version,
        ).where(or_(*map(at_place, places)))
    )
    nodes = [object_id(Place(ObjectRef(*row[:3]), row.object_version)) for row in seen]
    said = select(VersionAlias.version_id).where(
        VersionAlias.kind == OBJECT,
        VersionAlias.alias.in_({address_of(Place(one.ref)) for one in places}),
    )
    nodes += [node_id(Kind.VERSION, version) for version in session.scalars(said)] if not nodes else []
    if nodes:
        yield Meaning("the address of stored weights", tuple(dict.fromkeys(nodes)), address)
    key = scope.key_of(address)
    if key is not None:
        yield from _of_our_key(session, key)


def _of_our_key(session: Session, key: str) -> Iterator[Meaning]:
    """What the pipeline stored under a key of its own, also where it is deleted by now."""
    if found := _SUBMISSION.fullmatch(key):
        for run in session.scalars(select(TrainingRun).where(TrainingRun.token == found[1])):
            if run.zip_key == key and run.zip_sha256:
                node = zip_id(run.zip_sha256, run.image_set_id)
                yield Meaning("the address of a training ZIP", (node,), key)
    elif found := _ORIGINAL.fullmatch(key):
        originals = select(Image.sha256).where(Image.sha256 == found[1], Image.object_key == key)
        yield from _photographs(session, originals, key)
    elif found := _NORMALISED.fullmatch(key):
        normalised = select(Image.sha256).where(
            Image.normalised_sha256 == found[1], Image.normalised_key == key
        )
        yield from _photographs(session, normalised, key)
    elif found := _OF_A_SET.fullmatch(key):
        number = int(found[1])
        if session.scalars(select(ImageSet.id).where(ImageSet.id == number)).first() is not None:
            yield Meaning("the address of an image set's file", (node_id(Kind.SET, number),), key)


def _photographs(session: Session, question: Select[str], key: str) -> Iterator[Meaning]:
    nodes = tuple(node_id(Kind.IMAGE, sha256) for sha256 in session.scalars(question))
    if nodes:
        yield Meaning("the address of a photograph", nodes, key)


def of_unlisted_address(session: Session, text: str, rules: ObjectUrlRules) -> Iterator[Meaning]:
    """Versions and trainings that hold this address as somebody wrote it. Reads whole tables."""
    if "://" not in text:
        return
    run = session.scalars(select(TrainingRun.id).where(TrainingRun.output_artifact_url == text)).first()
    if run is not None:
        yield Meaning("where the provider delivered the weights", (node_id(Kind.RUN, run),), text)
    place = place_of(text, rules)
    end = _PLAIN_END.search(urlsplit(text).path if place is None else place.ref.key)
    if end is None:
        return
    holding = [
        *session.execute(
            select(ModelVersion.id, ModelVersion.weights_url)
            .where(ModelVersion.weights_url.contains(end[0], autoescape=True))
            .limit(_MOST)
        ),
        *session.execute(
            select(VersionAlias.version_id, VersionAlias.alias)
            .where(VersionAlias.kind == OBJECT, VersionAlias.alias.contains(end[0], autoescape=True))
            .limit(_MOST)
        ),
    ]
    for version_id, address in holding:
        if address == text or (place is not None and place_of(address, rules) == place):
            yield Meaning("the address of a version's weights", (node_id(Kind.VERSION, version_id),), text)
