"""What Replicate's refusals, and answers that are none, mean: the class that says what may be done next. Pure.

Two readings, because the same status says different things: `refusal` for what may be asked again (reads, models,
files, cancels), `creation_outcome` for the one request that costs money.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from lora_pipeline.providers.answers import Answer, retry_after, succeeded
from lora_pipeline.providers.protocol import (
    DestinationMissing,
    InsufficientCredit,
    JobState,
    NotFound,
    ProviderError,
    ProviderUnavailable,
    Refused,
    Throttled,
    TrainingJob,
    Unauthenticated,
    UnknownOutcome,
)
from lora_pipeline.providers.replicate_answers import MalformedTraining, parse_training
from lora_pipeline.providers.secrets import scrubbed

log = logging.getLogger(__name__)

_QUOTED = 500
_TOKEN_REMEDY = "Check REPLICATE_API_TOKEN; tokens are made at https://replicate.com/account/api-tokens"  # noqa: S105
_CREDIT_REMEDY = (
    "Buy credit at https://replicate.com/account/billing, then let submissions go on with: "
    "lora-pipeline trainings resume"
)


def told(answer: Answer, secrets: Iterable[str] = ()) -> str:
    """What the provider said, for people: status, title, detail and the fields it refused, without secrets."""
    document = answer.document()
    if document is None:
        kind = answer.headers.get("content-type", "no content type").split(";")[0]
        return f"{answer.status} with a body that is no JSON object ({scrubbed(kind[:80])})"
    parts = [str(answer.status)]
    words = (document.get(name) for name in ("title", "detail"))
    parts += [" ".join(word.split()) for word in words if isinstance(word, str) and word.strip()]
    fields = _invalid_fields(document.get("invalid_fields"))
    if fields:
        parts.append(f"refused fields: {fields}")
    text = scrubbed(": ".join(parts[:2]) + "".join(f"; {part}" for part in parts[2:]), secrets)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def _invalid_fields(fields: object) -> str:
    if not isinstance(fields, Sequence) or isinstance(fields, str | bytes):
        return ""
    return ", ".join(
        f"{field.get('field', '?')} ({field.get('type', '?')}): {field.get('description', '?')}"
        for field in fields
        if isinstance(field, Mapping)
    )


def refusal(answer: Answer, what: str) -> ProviderError:
    """The error for an answer that is no success, where asking again does no harm."""
    said = told(answer)
    known = _sure(answer, what, said)
    if known is not None:
        return known
    if answer.status >= 500 or answer.status < 400 or answer.status == 408 or answer.document() is None:
        # A proxy's HTML page says nothing about what Replicate thinks, whatever its status.
        return ProviderUnavailable(
            f"Replicate did not answer {what} properly ({said}); it will be asked again"
        )
    if answer.status == 404:
        return NotFound(f"Replicate knows nothing for {what} ({said})")
    return Refused(f"Replicate refused {what} ({said}). It will not change its mind: correct what it names")


def creation_outcome(answer: Answer, what: str, secrets: Iterable[str]) -> TrainingJob:
    """The training that a creation started. A 4xx surely started nothing; whatever else is no training may have.

    `secrets` are texts of the request that the provider may echo and nobody may see.
    """
    said = told(answer, secrets)
    if succeeded(answer):
        return _created(answer, what, said)
    known = _sure(answer, what, said)
    if known is not None:
        raise known
    if answer.status == 404:
        raise DestinationMissing(f"Replicate has no destination for {what} ({said}); nothing was started")
    if 400 <= answer.status < 500 and answer.status != 408:
        raise Refused(f"Replicate refused {what} ({said}); nothing was started. Correct what it names")
    raise UnknownOutcome(f"Replicate did not say what became of {what} ({said}): it may have been started")


def _created(answer: Answer, what: str, said: str) -> TrainingJob:
    try:
        return parse_training(answer.document())
    except MalformedTraining as error:
        if error.job_id is None:
            raise UnknownOutcome(f"Replicate took {what} and its answer names no id ({said})") from None
        # Started and paid: the id is all that must not be lost, the rest is read later.
        log.warning("Replicate took %s, and the answer makes no sense: %s", what, error)
        return TrainingJob(id=error.job_id, state=JobState.UNKNOWN, provider_status="")


def _sure(answer: Answer, what: str, said: str) -> ProviderError | None:
    """The three refusals that mean the same for every request, with or without a JSON body."""
    match answer.status:
        case 401:
            return Unauthenticated(f"Replicate refused the token at {what} ({said}). {_TOKEN_REMEDY}")
        case 402:
            return InsufficientCredit(f"Replicate wants credit before {what} ({said}). {_CREDIT_REMEDY}")
        case 429:
            wait = retry_after(answer)
            return Throttled(f"Replicate throttled {what} ({said}); again in {wait:g} s", wait)
    return None
