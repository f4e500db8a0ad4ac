"""The object store: an S3 bucket at any endpoint, or a local folder, behind one interface.

Everything the pipeline keeps as bytes (originals, normalised images, training ZIPs, archived weights) goes
through here. What the bytes mean, and which keys they get, belongs to the stage that writes them. What only S3
can answer (object versions, keys that no folder could hold) belongs to the inventory, not to this interface.
"""

from lora_pipeline.objects.errors import (
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    ObjectStoreError,
    StoreRefused,
    StoreUnavailable,
)
from lora_pipeline.objects.opening import open_store
from lora_pipeline.objects.store import Chunks, ObjectInfo, ObjectStore

__all__ = [
    "Chunks",
    "InvalidKey",
    "ObjectExists",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "ObjectStoreError",
    "StoreRefused",
    "StoreUnavailable",
    "open_store",
]
