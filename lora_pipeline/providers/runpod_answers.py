"""RunPod's JSON and refusals read into our records and errors. Pure: no HTTP here.

RunPod publishes no schema of its error bodies: the status alone decides, what is said beside it is quoted.
Only the status word of a job decides what became of it: `output` is there before the end, as progress.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from lora_pipeline.providers.answers import Answer, kind_word, retry_after, seconds_or_none, succeeded
from lora_pipeline.providers.protocol import (
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
from lora_pipeline.providers.secrets import scrubbed

log = logging.getLogger(__name__)

_STATES = {
    "IN_QUEUE": JobState.QUEUED,
    "IN_PROGRESS": JobState.RUNNING,
    "RUNNING": JobState.RUNNING,
    "COMPLETED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELED,
    "TIMED_OUT": JobState.FAILED,
}
_FAILURE_WORDS = frozenset({"error", "failed", "failure"})
_SAYS_WHY = ("error", "message", "detail", "error_message")
_CLASS_NAME = re.compile(r"<class '(?:[\w.]*\.)?(\w+)'>")
_QUOTED = 500
_LONGEST_ID = 128
_LONGEST_MARK = 200
_KEY_REMEDY = "Check RUNPOD_API_KEY; keys are made at https://www.runpod.io/console/user/settings"
_CREDIT_REMEDY = (
    "Add credit at https://www.runpod.io/console/user/billing, then let submissions go on with: "
    "lora-pipeline trainings resume"
)
ENDPOINT_REMEDY = "Check LORA_RUNPOD_ENDPOINT: the id at the end of the endpoint's page in RunPod's console"


class MalformedJob(ValueError):
    """An answer that is no job as RunPod describes them; the message says what is wrong with it."""


def parse_job(raw: object, execution_timeout: timedelta) -> TrainingJob:
    """A job as `/run`, `/status` and `/cancel` show it, and as a webhook brings it. Raises MalformedJob only.

    A COMPLETED job is one whose worker came to its end; that it left weights behind, only the bucket can show.
    `execution_timeout` is what the jobs are given, for the words about one that was cut off.
    """
    if not isinstance(raw, Mapping):
        raise MalformedJob(f"got {kind_word(raw)}, expected an object")
    job_id, status = raw.get("id"), raw.get("status")
    if not isinstance(job_id, str) or not job_id.strip() or len(job_id) > _LONGEST_ID:
        raise MalformedJob(
            f"its id is {kind_word(job_id)}, expected a text of at most {_LONGEST_ID} characters"
        )
    if not isinstance(status, str):
        raise MalformedJob(f"its status is {kind_word(status)}, expected a text")
    state = _STATES.get(status, JobState.UNKNOWN)
    output, given = _mapping(raw.get("output")), _mapping(raw.get("input"))
    ran_for = seconds_or_none(raw.get("executionTime"))
    error = _error_text(raw.get("error"))
    if status == "TIMED_OUT":
        error = _timed_out(ran_for, execution_timeout, error)
    elif state is JobState.SUCCEEDED and _says_failed(output):
        state, error = (
            JobState.FAILED,
            _reason(output) or error or "the worker says that it failed, and not why",
        )
    elif state is JobState.FAILED:
        error = error or _reason(output)
    return TrainingJob(
        id=job_id,
        state=state,
        provider_status=status[:_LONGEST_MARK],
        input_reference=_text(given.get("dataset_url")),
        mark=_mark(output) or _mark(given),
        error=error,
        # An answer about one job is all there is to be had: "" says that asking again brings no log.
        logs=_text(output.get("log")) or "",
        predict_seconds=None if ran_for is None else ran_for / 1000,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _mark(found: Mapping[str, Any]) -> str | None:
    """Our token: the worker gives `job_id` back as it was told it. RunPod's own id is never in it."""
    mark = _text(found.get("job_id"))
    return mark if mark is not None and len(mark) <= _LONGEST_MARK else None


def _says_failed(output: Mapping[str, Any]) -> bool:
    word = output.get("status")
    return output.get("ok") is False or (isinstance(word, str) and word.lower() in _FAILURE_WORDS)


def _reason(output: Mapping[str, Any]) -> str | None:
    return next((said for name in _SAYS_WHY if (said := _error_text(output.get(name)))), None)


def _error_text(error: object) -> str | None:
    """An error in one line, without signed addresses. A handler's exception comes as JSON inside a text:
    its traceback and the worker's host are left out."""
    if error is None or error == "":
        return None
    if not isinstance(error, str):
        return f"an error that is {kind_word(error)}" if not isinstance(error, Mapping) else _exception(error)
    try:
        inner = json.loads(error)
    except (ValueError, RecursionError):
        return _shortened(error)
    return _exception(inner) if isinstance(inner, Mapping) else _shortened(error)


def _exception(error: Mapping[str, Any]) -> str:
    kind, message = _text(error.get("error_type")), _text(error.get("error_message"))
    if kind is None and message is None:
        said = _text(error.get("message")) or _text(error.get("error"))
        return _shortened(said) if said else "the worker failed, and did not say why"
    named = _CLASS_NAME.fullmatch(kind or "")
    return _shortened(": ".join(part for part in (named[1] if named else kind, message) if part))


def _shortened(text: str) -> str:
    line = " ".join(scrubbed(text).split())
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}…"


def _timed_out(ran_for_ms: float | None, execution_timeout: timedelta, error: str | None) -> str:
    after = "" if ran_for_ms is None else f" after {ran_for_ms / 1000:g} s"
    allowed = (
        f"executionTimeout {execution_timeout.total_seconds():g} s, set by LORA_RUNPOD_EXECUTION_TIMEOUT"
    )
    return f"timed out{after} ({allowed}){f': {error}' if error else ''}"


def told(answer: Answer, secrets: Iterable[str] = ()) -> str:
    """What RunPod said, for people: the status, and whichever of the usual names it used, without secrets."""
    document = answer.document()
    if document is None:
        kind = answer.headers.get("content-type", "no content type").split(";")[0]
        return f"{answer.status} with a body that is no JSON object ({scrubbed(kind[:80])})"
    names = ("title", "error", "message", "detail")
    words = [" ".join(word.split()) for name in names if isinstance(word := document.get(name), str)]
    text = scrubbed(": ".join([str(answer.status), *filter(None, words)]), secrets)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def refusal(answer: Answer, what: str) -> ProviderError:
    """The error for an answer that is no success, where asking again does no harm."""
    said = told(answer)
    known = _sure(answer, what, said)
    if known is not None:
        return known
    if answer.status == 404 and not _is_page(answer):
        return NotFound(
            f"RunPod knows nothing of {what} ({said}): it forgets a job half an hour after its end or at its ttl, "
            "and knows those of the endpoint only"
        )
    if answer.status >= 500 or answer.status < 400 or answer.status == 408 or _is_page(answer):
        # A proxy's HTML page says nothing about what RunPod thinks, whatever its status.
        return ProviderUnavailable(f"RunPod did not answer {what} properly ({said}); it will be asked again")
    return Refused(f"RunPod refused {what} ({said}). It will not change its mind: correct what it names")


def creation_outcome(
    answer: Answer, what: str, endpoint: str, execution_timeout: timedelta, secrets: Iterable[str]
) -> TrainingJob:
    """The job that `/run` started. A 4xx surely started nothing; whatever else is no job may have.

    `secrets` are texts of the request that RunPod may echo and nobody may see.
    """
    said = told(answer, secrets)
    if succeeded(answer):
        return _created(answer, what, said, execution_timeout)
    known = _sure(answer, what, said)
    if known is not None:
        raise known
    if answer.status == 404:
        raise Refused(f"RunPod has no endpoint {endpoint} ({said}); nothing was started. {ENDPOINT_REMEDY}")
    if 400 <= answer.status < 500 and answer.status != 408:
        raise Refused(f"RunPod refused {what} ({said}); nothing was started. Correct what it names")
    raise UnknownOutcome(f"RunPod did not say what became of {what} ({said}): it may have been started")


def _created(answer: Answer, what: str, said: str, execution_timeout: timedelta) -> TrainingJob:
    document = answer.document() or {}
    try:
        return parse_job(document, execution_timeout)
    except MalformedJob as error:
        job_id = _text(document.get("id"))
        if job_id is None or not job_id.strip() or len(job_id) > _LONGEST_ID:
            raise UnknownOutcome(f"RunPod took {what} and its answer names no id ({said})") from None
        # Started and paid: the id is all that must not be lost, the rest is read later.
        log.warning("RunPod took %s, and the answer makes no sense: %s", what, error)
        return TrainingJob(id=job_id, state=JobState.UNKNOWN, provider_status="")


def _sure(answer: Answer, what: str, said: str) -> ProviderError | None:
    """The three refusals that mean the same for every request, with or without a JSON body."""
    match answer.status:
        case 401:
            return Unauthenticated(f"RunPod refused the API key at {what} ({said}). {_KEY_REMEDY}")
        case 402:
            return InsufficientCredit(f"RunPod wants credit before {what} ({said}). {_CREDIT_REMEDY}")
        case 429:
            wait = retry_after(answer)
            return Throttled(f"RunPod throttled {what} ({said}); again in {wait:g} s", wait)
    return None


def _is_page(answer: Answer) -> bool:
    return "html" in answer.headers.get("content-type", "")
