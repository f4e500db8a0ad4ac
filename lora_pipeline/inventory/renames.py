"""A renamed prefix as a person writes it: `bucket/old_folder=new_folder`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lora_pipeline.identity import IdentityError, ObjectUrlRules, PrefixRename
from lora_pipeline.identity.errors import shown

if TYPE_CHECKING:
    from lora_pipeline.settings import Settings


def rules_with_renames(texts: Iterable[str]) -> ObjectUrlRules:
    """The address rules with these renames, in the order in which they happened. Raises IdentityError."""
    return ObjectUrlRules(renames=tuple(_rename(text) for text in texts))


def configured_rules(settings: Settings, renames: Iterable[str] = ()) -> ObjectUrlRules:
    """The address rules of this installation: LORA_PREFIX_RENAMES, then `renames`. Raises IdentityError."""
    texts = (text.strip() for text in settings.prefix_renames.split(","))
    return rules_with_renames((*(text for text in texts if text), *renames))


def _rename(text: str) -> PrefixRename:
    places, equals, new = text.partition("=")
    bucket, slash, old = places.removeprefix("s3://").partition("/")
    if not (equals and slash and bucket and old.strip("/") and new.strip("/")):
        raise IdentityError(
            f"No valid rename: got {shown(text)}. Expected bucket/old_folder=new_folder, such as "
            "storyboard-user-files/styles_maker_user=actor_maker_user"
        )
    return PrefixRename(bucket, old, new)
