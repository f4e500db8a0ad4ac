"""Ids of paid jobs: Replicate trainings and RunPod jobs. Kept word for word, because both are queried verbatim."""

from dataclasses import dataclass
from typing import Literal

from lora_pipeline.identity.errors import refusal, require_text
from lora_pipeline.identity.kinds import REPLICATE_JOB, RUNPOD_JOB, KindName, kind_of

_EXPECTED = "a Replicate training id (26 lower-case letters and digits) or a RunPod job id (a UUID, with -u1, -e1, -e2)"
_ADVICE: dict[KindName, str] = {
    "hash": "A version or checksum is not a job; look its training up in the registry.",
    "version": "A version is not a job; look its training up in the registry.",
    "url": "Give only the id at the end of the address.",
    "model": "List the model's trainings and take the id of one.",
}


@dataclass(frozen=True, slots=True)
class JobId:
    """A provider's id of one job."""

    text: str
    """The id word for word: what is stored and sent to the provider."""
    provider: Literal["replicate", "runpod"]
    base: str
    """What still matches where one side lost the suffix: the UUID in lower case for RunPod, otherwise `text`.

    Match by `text` first; the same base under two suffixes is a hint, not a proof.
    """

    def __str__(self) -> str:
        return self.text


def job_of(text: object) -> JobId | None:
    """The job that `text` names, or None: of ids that may as well be names, which is no error."""
    if not isinstance(text, str):
        return None
    text = text.strip()
    if REPLICATE_JOB.fullmatch(text):
        return JobId(text, "replicate", text)
    runpod = RUNPOD_JOB.fullmatch(text)
    return JobId(text, "runpod", runpod["base"].lower()) if runpod else None


def parse_job_id(text: str) -> JobId:
    """The job that `text` names; only surrounding space is removed. Raises IdentityError."""
    text = require_text(text, "job id", _EXPECTED).strip()
    job = job_of(text)
    if job is not None:
        return job
    kind = kind_of(text)
    advice = _ADVICE.get(kind.name, "Copy the id from the provider's page or answer.")
    raise refusal("job id", text, kind.words, _EXPECTED, advice)
