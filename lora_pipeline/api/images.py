"""A model's current image set: verdicts, and a person's choices and captions."""

from __future__ import annotations

from fastapi import APIRouter

from lora_pipeline.access.callers import Caller, reachable_model
from lora_pipeline.api.answers import FindingAnswer, ImageChange, ImagesAnswer, SetImage
from lora_pipeline.api.authentication import KnownCaller
from lora_pipeline.api.models import ModelId
from lora_pipeline.api.services import Services, Shared
from lora_pipeline.api.uploads import preview_links
from lora_pipeline.image_sets.drafts import set_caption, set_choice
from lora_pipeline.image_sets.listing import current_set

router = APIRouter(prefix="/api/models", tags=["images"])


@router.get("/{model}/images")
def images(model: ModelId, caller: KnownCaller, services: Shared) -> ImagesAnswer:
    """Every image of the set that is being filled, or else of the newest frozen one, with its verdict."""
    return _answer(services, caller, model)


@router.patch("/{model}/images")
def change_image(model: ModelId, wanted: ImageChange, caller: KnownCaller, services: Shared) -> ImagesAnswer:
    """Include or exclude one image by its name, or write its caption. A frozen set stays; a new draft takes it."""
    connections = services.connections
    with connections.database.read() as session:
        model_key = reachable_model(session, caller, model).model_key
    database, profile = connections.database, connections.image_profile
    name, actor, now = wanted.name, caller.actor, connections.now()
    if wanted.choice is not None:
        set_choice(database, model_key, name, choice=wanted.choice, actor=actor, profile=profile, now=now)
    if wanted.caption is not None:
        set_caption(database, model_key, name, wanted.caption, actor=actor, profile=profile, now=now)
    return _answer(services, caller, model_key)


def _answer(services: Services, caller: Caller, model: str) -> ImagesAnswer:
    with services.connections.database.read() as session:
        row = reachable_model(session, caller, model)
        image_set, found = current_set(session, row)
    if image_set is None:
        return ImagesAnswer(
            model_id=row.model_key,
            image_set=None,
            state="none",
            usable=0,
            findings=[],
            contact_sheet_url=None,
            images=[],
        )
    previews = preview_links(services, [image["sha256"] for image in found])
    sheet = f"/contact-sheets/{image_set.id}.jpg"
    return ImagesAnswer(
        model_id=row.model_key,
        image_set=image_set.id,
        state=image_set.state,
        usable=image_set.usable_count,
        findings=[FindingAnswer.model_validate(finding) for finding in image_set.findings],
        contact_sheet_url=services.signed(sheet).url if image_set.contact_sheet_key else None,
        images=[SetImage(**image, preview_url=previews.get(image["sha256"])) for image in found],
    )
