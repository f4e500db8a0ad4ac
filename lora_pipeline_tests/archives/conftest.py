"""Both kinds of store."""

from lora_pipeline_tests.fixtures.s3 import folder_store, object_store, s3_server, s3_store

__all__ = ["folder_store", "object_store", "s3_server", "s3_store"]
