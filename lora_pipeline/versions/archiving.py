"""Our own copy of verified weights: under a key made of the content, and read back before it counts."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from lora_pipeline.objects.errors import ObjectExists
from lora_pipeline.objects.store import ObjectStore
from lora_pipeline.versions.refusal import Refusal, WeightsRefused
from lora_pipeline.versions.registry import ArchivedWeights
from lora_pipeline.versions.weights import VerifiedWeights, read_weights

log = logging.getLogger(__name__)


def archive_weights(
    store: ObjectStore,
    delivered: Iterable[bytes],
    model_key: str,
    metadata: Mapping[str, str],
    *,
    cap_bytes: int,
) -> ArchivedWeights:
    """Verify what a provider delivers, store it, and read back what the store really holds. Harmless to repeat.

    Raises WeightsRefused, ObjectStoreError, and what `delivered` raises.
    """
    with tempfile.TemporaryDirectory(prefix="lora-weights-") as folder:
        path = Path(folder) / "lora.safetensors"
        weights = read_weights(delivered, path, cap_bytes=cap_bytes)
        key = f"loras/{model_key}/{weights.file_sha256}.safetensors"
        try:
            store.put_file(key, path, create_only=True, metadata=metadata)
        except ObjectExists:
            log.info("weights of %s are archived already: %s", model_key, weights.file_sha256)
    _read_back(store, key, weights)
    info = store.head(key)
    return ArchivedWeights(weights, store.address(key), info.etag or "", info.version or "")


def _read_back(store: ObjectStore, key: str, weights: VerifiedWeights) -> None:
    digest = hashlib.sha256()
    for chunk in store.stream(key):
        digest.update(chunk)
    if digest.hexdigest() != weights.file_sha256:
        store.delete(key)
        raise WeightsRefused(
            Refusal.ARCHIVE_DIFFERS,
            f"{store.address(key)} holds other bytes than were written (SHA-256 {digest.hexdigest()}, expected "
            f"{weights.file_sha256}); it was removed and will be written again",
        )
