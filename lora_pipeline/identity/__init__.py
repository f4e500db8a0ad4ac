"""Identity: pure parsers for every spelling of a model, a version, a job, a version name and a stored object.

Each takes a text and returns a typed record, or raises `IdentityError` saying what the text is instead. Nothing
here does I/O or imports anything else of the project; whether the thing exists is for others to find out.
"""

from lora_pipeline.identity.errors import IdentityError
from lora_pipeline.identity.jobs import JobId, job_of, parse_job_id
from lora_pipeline.identity.models import ModelRef, parse_model
from lora_pipeline.identity.names import parse_model_key, parse_version_name
from lora_pipeline.identity.object_records import ObjectAddress, ObjectRef, Unresolved
from lora_pipeline.identity.object_rules import Endpoint, ObjectPrefix, ObjectUrlRules, PrefixRename
from lora_pipeline.identity.objects import object_uri, parse_object_url
from lora_pipeline.identity.versions import VersionRef, is_trainer_version, parse_version

__all__ = [
    "Endpoint",
    "IdentityError",
    "JobId",
    "ModelRef",
    "ObjectAddress",
    "ObjectPrefix",
    "ObjectRef",
    "ObjectUrlRules",
    "PrefixRename",
    "Unresolved",
    "VersionRef",
    "is_trainer_version",
    "job_of",
    "object_uri",
    "parse_job_id",
    "parse_model",
    "parse_model_key",
    "parse_object_url",
    "parse_version",
    "parse_version_name",
]
