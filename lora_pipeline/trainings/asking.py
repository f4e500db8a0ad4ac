"""A training as an application asks for it: a user, a name for the model, and the images to train on.

Asking is durable: once the images are taken in, the model's set is marked as asked for, and whoever drains ready
sets (the caller at once, Dagster's sensor otherwise) starts it.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.observing import refuse_while_observing
from lora_pipeline.database.tables import Image, ImageSetMember, TrainingRun, UserModel
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.intake import IntakeReport, TakenFile, take_in
from lora_pipeline.image_sets.models import ModelDescription, ensure_model, ensure_user
from lora_pipeline.image_sets.names import is_model_key
from lora_pipeline.image_sets.set_rows import latest_ready
from lora_pipeline.image_sets.uploads import uploaded_sources
from lora_pipeline.image_sets.wanted import ask_for_exactly
from lora_pipeline.image_sets.web_addresses import hosts_of
from lora_pipeline.image_sets.web_images import FetchRules, Resolve, fetch_images, system_resolver
from lora_pipeline.trainings.intents import TrainingRefused, TrainingWish
from lora_pipeline.trainings.lifecycle import OPEN
from lora_pipeline.trainings.starting import start_training, train
from lora_pipeline.trainings.submission import SubmissionResult

ModelType = Literal["person", "object", "style"]

_MOST_MODELS = 10_000


class TooFewImages(Exception):
    """Fewer images than any trainer learns from; nothing was made."""


class ModelMismatch(Exception):
    """The user's model of this name is of another kind."""


@dataclass(frozen=True)
class WantedModel:
    """Which model of a user is meant: their one of this name, or a new one."""

    user_id: str
    name: str
    model_type: ModelType = "person"
    gender: str | None = None


class Stage(StrEnum):
    """How far a training had come when it was asked for."""

    NEW = "new"
    UNDER_WAY = "under way"
    """The very same was asked for before, and has not ended."""
    ENDED = "ended"
    """The very same was asked for before, by a request that was never answered, and has ended since."""


@dataclass(frozen=True)
class Asked:
    """The image set that is to be trained on, and whether that is news."""

    image_set_id: int
    stage: Stage


@dataclass(frozen=True)
class AskedTraining:
    """What was asked for, and is on its way."""

    model_key: str
    trigger_word: str
    asked: Asked
    files: tuple[TakenFile, ...] = ()
    """What became of the images; empty where they had been taken in before."""


def ask_for_training_of(
    connections: Connections,
    wanted: WantedModel,
    uploads: Sequence[tuple[str, str]],
    urls: Sequence[str],
    *,
    actor: str,
    since: datetime | None = None,
    resolve: Resolve = system_resolver,
) -> AskedTraining:
    """Make or find the model, take in its images, and ask for a training of exactly those.

    `uploads` are earlier uploads by (SHA-256, name), `urls` addresses to fetch. Asking again with the same
    images while they are being trained on changes nothing. `since` says that the request may have been begun then
    by somebody who died over it: what was begun since is not begun again, also where it has ended. Raises
    TooFewImages, TooManyImages, UploadUnknown, ImagesUnavailable, ModelMismatch, IntakeError, and TrainingRefused
    where the model is being trained on other images; nothing is asked for then.
    """
    profile = connections.image_profile
    count = len(uploads) + len(urls)
    if count < profile.min_images:
        raise TooFewImages(f"At least {profile.min_images} training images are required; got {count}")
    with tempfile.TemporaryDirectory(prefix="lora-images-") as folder:
        sources = uploaded_sources(connections.database, connections.store, wanted.user_id, uploads)
        sources += fetch_images(urls, Path(folder), fetch_rules(connections), resolve) if urls else []
        with connections.database.begin() as session:
            refuse_while_observing(session, f"no training of {wanted.name} was started")
            model = find_or_make(session, wanted, connections)
            model_key, trigger_word = model.model_key, model.trigger_word
            asked = _asked_before(session, model, {source.fingerprint for source in sources}, since)
        if asked is not None:
            return AskedTraining(model_key, trigger_word, asked)
        report = take_in(
            connections.database,
            connections.store,
            model_key,
            sources,
            profile=profile,
            clock=connections.now,
        )
    asked = _ask(connections, report, actor, since)
    return AskedTraining(model_key, trigger_word, asked, report.files)


def start_asked(connections: Connections, wanted: AskedTraining, *, asked_by: str) -> SubmissionResult | None:
    """Start what was asked for without waiting for a sensor; None where it has ended already.

    Raises what `start_training` raises.
    """
    if wanted.asked.stage is Stage.ENDED:
        return None
    if wanted.asked.stage is Stage.UNDER_WAY:
        # Of that very set: a draft may have come about since.
        return train(connections, TrainingWish(wanted.model_key, wanted.asked.image_set_id, asked_by))
    return start_training(connections, wanted.model_key, asked_by=asked_by)


def _ask(connections: Connections, report: IntakeReport, actor: str, since: datetime | None) -> Asked:
    """Ask for a training of exactly what was taken in."""
    if report.waiting:
        raise IntakeError(f"{report.waiting[0].message}. Send the request again")
    kept = {file.sha256 for file in report.files if file.sha256}
    found = ask_for_exactly(
        connections.database,
        report.model_key,
        kept,
        actor=actor,
        profile=connections.image_profile,
        now=connections.now(),
        unless=lambda session, model: _asked_before(session, model, kept, since),
    )
    return found if isinstance(found, Asked) else Asked(found, Stage.NEW)


def _asked_before(
    session: Session, model: UserModel, sha256s: Collection[str], since: datetime | None
) -> Asked | None:
    """What the model was asked to be trained on, where it is these very images and not to be begun again.

    Raises TrainingRefused where its open training is of others.
    """
    trainings = select(TrainingRun).where(TrainingRun.model_id == model.id)
    run = session.scalars(trainings.where(TrainingRun.state.in_(OPEN))).one_or_none()
    if run is not None:
        if run.image_set_id is not None and _images_of(session, run.image_set_id) == set(sha256s):
            return Asked(run.image_set_id, Stage.UNDER_WAY)
        raise TrainingRefused(
            f"{model.model_key} is being trained on other images (training run {run.id}, {run.state}); one model "
            "trains once at a time. Wait for it, or cancel it first"
        )
    frozen = latest_ready(session, model)
    if frozen is None or _images_of(session, frozen.id) != set(sha256s):
        return None
    last = session.scalars(
        trainings.where(TrainingRun.image_set_id == frozen.id).order_by(TrainingRun.id.desc()).limit(1)
    ).one_or_none()
    if last is None:
        # Frozen a moment ago, and about to be opened.
        return Asked(frozen.id, Stage.UNDER_WAY) if frozen.asked_for_at is not None else None
    return Asked(frozen.id, Stage.ENDED) if since is not None and last.created_at >= since else None


def _images_of(session: Session, image_set_id: int) -> set[str]:
    return set(
        session.scalars(
            select(Image.sha256)
            .join(ImageSetMember, ImageSetMember.image_id == Image.id)
            .where(ImageSetMember.image_set_id == image_set_id)
        )
    )


def fetch_rules(connections: Connections) -> FetchRules:
    """What the settings say about fetching images."""
    settings = connections.settings
    return FetchRules(
        total_bytes=settings.upload_cap_bytes,
        images=connections.image_profile.max_images,
        private_hosts=hosts_of(settings.image_hosts),
    )


def find_or_make(session: Session, wanted: WantedModel, connections: Connections) -> UserModel:
    """The user's model of this name. A name is one model: training it again is a retrain.

    Raises ModelMismatch where it was made as something else, which fixed its captions and trigger word.
    """
    # Held, so that two requests of one name make one model.
    ensure_user(session, wanted.user_id, connections.now())
    question = select(UserModel).where(
        UserModel.user_id == wanted.user_id, UserModel.model_name == wanted.name
    )
    known = session.scalars(question.order_by(UserModel.id).limit(1)).one_or_none()
    if known is not None:
        if known.model_type != wanted.model_type:
            raise ModelMismatch(
                f"your model {wanted.name!r} is a {known.model_type}, got {wanted.model_type!r}. "
                "Train it as what it is, or choose another name"
            )
        return known
    description = ModelDescription(
        user_id=wanted.user_id, model_name=wanted.name, model_type=wanted.model_type, gender=wanted.gender
    )
    for key in key_candidates(wanted.user_id):
        taken = session.scalars(select(UserModel.id).where(UserModel.model_key == key)).one_or_none()
        if taken is None:
            model = ensure_model(session, key, description, connections.now())
            # Somebody else may have taken the key in this very moment; their model is not ours to give out.
            if model.user_id == wanted.user_id and model.model_name == wanted.name:
                return model
    raise IntakeError(f"{wanted.user_id} has more than {_MOST_MODELS:,} models")


def key_candidates(user_id: str) -> Iterator[str]:
    """Model keys for a user's models: `user-42`, then `user-42-2`, … Pure.

    An id that could not stand in a key, or is an e-mail address, is represented by digits of its hash.
    """
    plain = user_id if user_id.startswith("user") else f"user-{user_id}"
    if not is_model_key(plain) or re.search(r"[A-Z]", plain):
        # Destinations at the provider are lower case: keys that differ in case alone would share one.
        plain = f"user-{hashlib.sha256(user_id.encode()).hexdigest()[:12]}"
    yield plain
    for number in range(2, _MOST_MODELS):
        yield f"{plain}-{number}"
