"""What must not be told: which parameters are secrets, and how a text loses its tokens and signed addresses.

Pure. Everything that quotes a provider, a request or an address in an error, a log line or a stored record goes
through here first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "***"

# `hf_token` and `wandb_api_key`, but not `class_tokens`.
_SECRET_NAME = re.compile(
    r"(?:^|[_-])(?:token|secret|password|passwd|credentials?|(?:api|access|secret)_?key)$", re.IGNORECASE
)
# A presigned address carries its permission in the query; one written by hand may carry a password before the host.
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#\"'<>\\]*)\?[^\s\"'<>\\)]*", re.IGNORECASE)
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#@\"'<>]*@", re.IGNORECASE)
_PROVIDER_TOKEN = re.compile(r"\b(r8_|hf_|rpa_|Bearer )[A-Za-z0-9_.-]{8,}")


def is_secret_name(name: str) -> bool:
    """Whether a parameter of this name holds a secret (`hf_token`, `wandb_api_key`)."""
    return _SECRET_NAME.search(name) is not None


def scrubbed(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the given secrets, without anything that looks like a token, and with addresses cut at `?`."""
    for secret in sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    text = _QUERY.sub(rf"\1?{REDACTED}", text)
    text = _USERINFO.sub(rf"\1{REDACTED}@", text)
    return _PROVIDER_TOKEN.sub(rf"\1{REDACTED}", text)


def redacted(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they may be stored, logged and shown: secrets replaced, addresses cut at `?`."""
    return {
        name: REDACTED if is_secret_name(name) and value is not None else _redacted_value(value)
        for name, value in parameters.items()
    }


def _redacted_value(value: Any) -> Any:
    if isinstance(value, str):
        return scrubbed(value)
    if isinstance(value, Mapping):
        return redacted({str(name): item for name, item in value.items()})
    if isinstance(value, list | tuple):
        return [_redacted_value(item) for item in value]
    return value


def secret_values(parameters: Mapping[str, Any]) -> list[str]:
    """The texts among parameters that a provider may echo and nobody may see: secrets, and signed addresses."""
    return [
        value
        for name, value in parameters.items()
        if isinstance(value, str) and (is_secret_name(name) or "://" in value)
    ]
