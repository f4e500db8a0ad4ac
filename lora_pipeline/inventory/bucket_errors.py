"""From boto3's exceptions to the object store's errors: the same words as everywhere, and no secret in them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError

from lora_pipeline.objects.errors import ObjectNotFound, ObjectStoreError, StoreRefused, StoreUnavailable

_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
)
_NO_ANSWER = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)
_CREDENTIALS = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or set AWS_PROFILE"
_PASSING = frozenset({"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "Throttling"})
_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404"})
_NOT_READABLE = "InvalidObjectState"
_CHANGED = frozenset({"PreconditionFailed", "412"})


class ObjectChanged(ObjectStoreError):
    """The object is no longer the one that was listed; the next listing tells."""


def explain(error: BotoCoreError | ClientError, address: str, endpoint_url: str | None) -> ObjectStoreError:
    """The error to raise for what boto3 raised at `address`; `endpoint_url` None means AWS."""
    endpoint = shown_endpoint(endpoint_url)
    if isinstance(error, ClientError):
        return _explain_answer(error, address, endpoint)
    if isinstance(error, _NO_CREDENTIALS):
        return StoreRefused(address, "no AWS credentials were found", _CREDENTIALS)
    if isinstance(error, _NO_ANSWER):
        return StoreUnavailable(
            address,
            f"{endpoint} is unreachable or failing ({type(error).__name__})",
            "Check AWS_ENDPOINT_URL and the network, then try again",
        )
    return StoreRefused(
        address, f"the request could not be made ({type(error).__name__})", "Check the AWS_ settings"
    )


def error_code(error: ClientError) -> str:
    """S3's word for what went wrong, or the status where it gave none."""
    answer: Any = error.response
    return str(answer.get("Error", {}).get("Code", "") or _status(error))


def shown_endpoint(endpoint_url: str | None) -> str:
    """The endpoint as it may be shown: without user name, password and query."""
    if endpoint_url is None:
        return "AWS S3"
    parts = urlsplit(endpoint_url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"


def _explain_answer(error: ClientError, address: str, endpoint: str) -> ObjectStoreError:
    code, status = error_code(error), _status(error)
    if code == "NoSuchBucket":
        return StoreRefused(
            address, f"this bucket does not exist at {endpoint}", "Create it, or correct the address"
        )
    if code in _GONE:
        return ObjectNotFound(address, "no such object", "The next listing tells what became of it")
    if code in _CHANGED:
        return ObjectChanged(
            address, "it was overwritten since it was listed", "The next listing tells what it is now"
        )
    if code == _NOT_READABLE:
        return StoreRefused(
            address, "it lies in an archive storage class and cannot be read", "Restore it in S3"
        )
    if status >= 500 or status == 429 or code in _PASSING:
        return StoreUnavailable(address, f"{endpoint} answered {status} ({code})", "Try again later")
    if status in (401, 403) or code == "ExpiredToken":
        needed = "s3:ListBucket, s3:ListBucketVersions, s3:GetObject and s3:GetObjectVersion"
        return StoreRefused(
            address,
            f"{endpoint} refused access with {status} ({code})",
            f"{_CREDENTIALS}; allow {needed} here",
        )
    return StoreRefused(
        address, f"{endpoint} answered {status} ({code})", "Check the address, endpoint and region"
    )


def _status(error: ClientError) -> int:
    answer: Any = error.response
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
