"""An inbox: a folder or a prefix of a bucket with one folder a model, `<model_key>/<file>`. Listing only, no reading."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from lora_pipeline.image_sets.names import (
    MODEL_DESCRIPTION,
    is_bystander,
    is_caption,
    is_model_key,
    shown,
    stem,
)
from lora_pipeline.image_sets.sources import ImageSource, fingerprint_of, source_in_store
from lora_pipeline.objects.store import ObjectInfo, ObjectStore

logger = logging.getLogger(__name__)


class IntakeError(Exception):
    """Photographs cannot be taken in, or a set not be changed; the message says which, why, and what to do."""


@dataclass(frozen=True)
class InboxFolder:
    """What lies in an inbox for one model. Captions are found by the stem of the image's name."""

    model_key: str
    images: tuple[ObjectInfo, ...]
    captions: Mapping[str, ObjectInfo] = field(default_factory=dict)
    description: ObjectInfo | None = None

    @property
    def problem(self) -> str | None:
        """Why nothing in it can be taken in, and what to do; None where it can."""
        if is_model_key(self.model_key):
            return None
        return (
            f"the folder {shown(self.model_key)!r} cannot name a model. Rename it: letters, digits, '.', '_' and "
            "'-' only, at most 100, and no e-mail address"
        )

    def name(self, info: ObjectInfo) -> str:
        """The file's name inside the model's folder."""
        return info.key.split("/", 1)[1]

    def caption(self, info: ObjectInfo) -> ObjectInfo | None:
        return self.captions.get(stem(self.name(info))) if self.captions else None

    def fingerprint(self, info: ObjectInfo) -> str:
        return fingerprint_of(info, self.caption(info))

    def source(self, inbox: ObjectStore, info: ObjectInfo) -> ImageSource:
        return source_in_store(inbox, info, self.name(info), self.caption(info))


def scan_inbox(inbox: ObjectStore, model_key: str | None = None) -> Iterator[InboxFolder]:
    """Every model's folder, or one model's, in one listing. Raises ObjectStoreError where it cannot be listed."""
    # Keys come in order, so one folder's files stand together.
    for folder, found in groupby(inbox.list(model_key or ""), key=lambda info: info.key.partition("/")[0]):
        files = list(found)
        if files[0].key == folder:
            logger.warning("%s lies outside the models' folders: move it into one", inbox.address(folder))
        else:
            yield _folder(folder, files)


def _folder(model_key: str, files: list[ObjectInfo]) -> InboxFolder:
    names = {info.key.split("/", 1)[1]: info for info in files}
    return InboxFolder(
        model_key,
        images=tuple(info for name, info in names.items() if not is_bystander(name)),
        captions={stem(name): info for name, info in names.items() if is_caption(name)},
        description=names.get(MODEL_DESCRIPTION),
    )
