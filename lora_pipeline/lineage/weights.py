"""Where the weights of versions lie: as their own addresses say, and as the objects were seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Row

from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.lineage.node_ids import FILES, Place, address_of, place_of
from lora_pipeline.lineage.rows import OBJECT, Rows, Scope, place_of_row


@dataclass(frozen=True)
class WeightsPlaces:
    """The places of all versions and artifacts that were read, by their row ids."""

    of_version: Mapping[int, Sequence[Place]]
    """As the version's own addresses say."""
    elsewhere: Mapping[int, str]
    """By version: the host of an address that names no stored object, such as a provider's delivery."""
    locations: Mapping[int, Sequence[Row[Any]]]
    """By artifact: the places where it was seen, and may have been overwritten or deleted since."""

    def weights_at(self, version: Row[Any]) -> list[str]:
        """Where its weights lie now, as far as is known; a provider's address only by its host: it opens the file."""
        seen = self.locations.get(version.artifact_id, ())
        there = [place_of_row(row) for row in seen if is_there(row)]
        known = {place_of_row(row).ref for row in seen}
        said = [place for place in self.of_version.get(version.id, ()) if place.ref not in known]
        elsewhere = self.elsewhere.get(version.id)
        if elsewhere and not there and not said:
            return [f"not archived by us: at {elsewhere}"]
        return [address_of(place) for place in (*there, *said)]


def places_of(rows: Rows, scope: Scope) -> WeightsPlaces:
    """The places that the scope may see."""
    addresses: defaultdict[int, list[str]] = defaultdict(list)
    for version in rows.versions.values():
        if version.weights_url:
            addresses[version.id].append(version.weights_url)
    for alias in rows.aliases.values():
        if alias.kind == OBJECT:
            addresses[alias.version_id].append(alias.alias)
    of_version: dict[int, list[Place]] = {}
    elsewhere: dict[int, str] = {}
    for version_id, texts in addresses.items():
        read = {text: place_of(text, scope.rules) for text in texts}
        named = [place for place in read.values() if place is not None and _may_be_shown(place, scope)]
        of_version[version_id] = list(dict.fromkeys(named))
        hosts = [_host(text) for text, place in read.items() if place is None]
        if hosts:
            elsewhere[version_id] = hosts[0]
    own = {place.ref for found in of_version.values() for place in found}
    locations: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows.locations.values():
        # The same content may be another user's version too, and lie where that one's weights are.
        if scope.user_id is None or place_of_row(row).ref in own:
            locations[row.artifact_id].append(row)
    return WeightsPlaces(of_version, elsewhere, locations)


def _may_be_shown(place: Place, scope: Scope) -> bool:
    """Where this server has its folders is nobody's business who only has a key to it."""
    return scope.user_id is None or place.ref.namespace != FILES


def is_there(row: Row[Any]) -> bool:
    """Whether what was seen at a place still lies there, as far as is known."""
    return row.overwritten_at is None and row.deleted_at is None


def _host(text: str) -> str:
    return (
        urlsplit(text).hostname or "an address that cannot be read"
        if "://" in text
        else without_secrets(text)
    )
