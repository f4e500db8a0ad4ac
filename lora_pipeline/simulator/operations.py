"""Names for the providers' calls, Replicate's as its OpenAPI description names them; requests are counted and faults placed by them."""

from __future__ import annotations

import re

SEGMENT = r"[^/]+"
CALLS: tuple[tuple[str, str, str], ...] = (
    ("GET", "/v1/account", "account.get"),
    ("GET", "/v1/hardware", "hardware.list"),
    ("GET", "/v1/trainings", "trainings.list"),
    ("GET", "/v1/trainings/*", "trainings.get"),
    ("POST", "/v1/trainings/*/cancel", "trainings.cancel"),
    ("POST", "/v1/models/*/*/versions/*/trainings", "trainings.create"),
    ("POST", "/v1/predictions", "predictions.create"),
    ("GET", "/v1/predictions/*", "predictions.get"),
    ("POST", "/v1/predictions/*/cancel", "trainings.cancel"),
    ("POST", "/v1/models", "models.create"),
    ("GET", "/v1/models/*/*", "models.get"),
    ("DELETE", "/v1/models/*/*", "models.delete"),
    ("GET", "/v1/models/*/*/versions", "models.versions.list"),
    ("GET", "/v1/models/*/*/versions/*", "models.versions.get"),
    ("DELETE", "/v1/models/*/*/versions/*", "models.versions.delete"),
    ("POST", "/v1/files", "files.create"),
    ("GET", "/v1/files", "files.list"),
    ("GET", "/v1/files/*", "files.get"),
    ("DELETE", "/v1/files/*", "files.delete"),
    ("GET", "/v1/webhooks/default/secret", "webhooks.default.secret.get"),
    ("GET", "/xezq/*/trained_model.tar", "weights.download"),
    ("HEAD", "/xezq/*/trained_model.tar", "weights.download"),
    ("POST", "/v2/*/run", "runpod.run"),
    ("GET", "/v2/*/status/*", "runpod.status"),
    ("POST", "/v2/*/status/*", "runpod.status"),
    ("POST", "/v2/*/cancel/*", "runpod.cancel"),
    ("POST", "/v2/*/retry/*", "runpod.retry"),
    ("GET", "/v2/*/health", "runpod.health"),
)
PATTERNS = tuple(
    (method, re.compile(pattern.replace("*", SEGMENT)), operation) for method, pattern, operation in CALLS
)
OPERATIONS = frozenset(operation for _, _, operation in CALLS)
CREATIONS = frozenset({"trainings.create", "predictions.create", "runpod.run"})
WEBHOOKS = "webhooks.send"
JOB_WEBHOOKS = "runpod.webhooks"
"""Places of faults that are no calls: events on their way to a receiver."""
EVENTS = frozenset({WEBHOOKS, JOB_WEBHOOKS})


def operation_of(method: str, path: str) -> str:
    """The call's name; `unknown` for a path that the provider does not have."""
    return next(
        (name for verb, pattern, name in PATTERNS if verb == method and pattern.fullmatch(path)), "unknown"
    )
