"""The training ZIP: which entries it may have, its exact bytes, its captions, and storing it for a submission.

Which photos belong in it, and whether the set is good enough, is decided in image_sets/.
"""

from lora_pipeline.archives.captions import caption_with_trigger, default_caption
from lora_pipeline.archives.entries import TrainingImage, TrainingZipEntry, TrainingZipError, entries_of
from lora_pipeline.archives.submission_zip import (
    StoredZip,
    store_training_zip,
    submission_prefix,
    submission_zip_key,
)
from lora_pipeline.archives.zip_format import zip_size, zip_stream

__all__ = [
    "StoredZip",
    "TrainingImage",
    "TrainingZipEntry",
    "TrainingZipError",
    "caption_with_trigger",
    "default_caption",
    "entries_of",
    "store_training_zip",
    "submission_prefix",
    "submission_zip_key",
    "zip_size",
    "zip_stream",
]
