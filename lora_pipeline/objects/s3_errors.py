"""What obstore's errors mean. They arrive as one class and a text, so the text is read, and only facts leave it.

Of a server's answer only ``Code`` and ``Message`` are passed on: the rest of S3's error documents may hold the
access key, the signature and the string to sign.
"""

import re
from urllib.parse import urlsplit

from obstore.exceptions import AlreadyExistsError, InvalidPathError, NotFoundError

from lora_pipeline.objects.errors import (
    ObjectExists,
    ObjectNotFound,
    ObjectStoreError,
    StoreRefused,
    StoreUnavailable,
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_CREDENTIAL_SOURCES = ("/latest/api/token", "/latest/meta-data/", "security-credentials", "/v2/credentials")
_NETWORK_CAUSES = {
    "dns error": "its name does not resolve",
    "Connection refused": "it refuses connections",
    "kind: Timeout": "it did not answer in time",
    "error decoding response body": "the connection broke in the middle of the answer",
    "certificate": "its TLS certificate is not trusted",
}
_TRANSIENT_CODES = frozenset({"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable"})
_CREDENTIALS = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"


def range_is_past_the_end(error: Exception) -> bool:
    """Whether a ranged read failed only because the object ends before it."""
    return "status code: 416" in str(error)


def explain_s3_error(
    error: Exception, address: str, bucket: str, endpoint_url: str | None
) -> ObjectStoreError:
    """The error to raise for what obstore raised at ``address``; ``endpoint_url`` None means AWS."""
    text = str(error)
    endpoint = _shown(endpoint_url)
    code = _first(_CODE, text)
    if code == "NoSuchBucket":
        return StoreRefused(
            address,
            f"the bucket {bucket!r} does not exist at {endpoint}",
            "Create it, or correct the address",
        )
    if isinstance(error, AlreadyExistsError):
        return ObjectExists(
            address, "an object with this key exists", "Use another key, or keep what is there"
        )
    if isinstance(error, FileNotFoundError | NotFoundError):
        return ObjectNotFound(
            address, f"no such object in bucket {bucket!r}", "Check the key, or store it first"
        )
    if isinstance(error, ValueError | InvalidPathError):
        found = text.partition("\n")[0]
        return StoreRefused(address, f"a key cannot be addressed ({found})", "Rename the object")
    if any(source in text for source in _CREDENTIAL_SOURCES):
        return StoreRefused(address, "no AWS credentials were found", f"{_CREDENTIALS}, or set AWS_PROFILE")
    status = _first(_STATUS, text)
    if status is not None:
        return _explain_answer(int(status), code, _first(_MESSAGE, text), address, endpoint)
    if "Received redirect" in text:
        return StoreRefused(
            address, "the bucket lies in another region", "Set AWS_REGION to the bucket's region"
        )
    return _explain_no_answer(text, address, endpoint)


def _explain_answer(
    status: int, code: str | None, message: str | None, address: str, endpoint: str
) -> ObjectStoreError:
    said = ": ".join(part for part in (code, message) if part) or "no further word"
    if status >= 500 or status == 429 or code in _TRANSIENT_CODES:
        return StoreUnavailable(address, f"{endpoint} answered {status} ({said})", "Try again later")
    if status in (401, 403) or code == "ExpiredToken":
        return StoreRefused(
            address,
            f"{endpoint} refused access with {status} ({said})",
            f"{_CREDENTIALS}, and that they may get, put, delete and list here",
        )
    return StoreRefused(
        address, f"{endpoint} answered {status} ({said})", "Check the address, endpoint and region"
    )


def _explain_no_answer(text: str, address: str, endpoint: str) -> ObjectStoreError:
    cause = next((cause for sign, cause in _NETWORK_CAUSES.items() if sign in text), None)
    if cause is None:
        cause = "the request failed (" + text.partition("\n")[0].partition("<")[0].strip()[-200:] + ")"
    return StoreUnavailable(
        address,
        f"{endpoint} is unreachable or failing: {cause}",
        "Check AWS_ENDPOINT_URL and the network, then try again",
    )


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match.group(1) if match else None


def _shown(endpoint_url: str | None) -> str:
    """The endpoint without user name, password or query."""
    if endpoint_url is None:
        return "AWS S3"
    parts = urlsplit(endpoint_url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}:{parts.port}" if parts.port else f"{parts.scheme}://{host}"
