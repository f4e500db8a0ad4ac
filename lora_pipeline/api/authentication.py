"""Who asks: a bearer key, a signed link, or nobody where that was allowed."""

from __future__ import annotations

from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from lora_pipeline.access.callers import Caller, NotAllowed
from lora_pipeline.access.keys import caller_with
from lora_pipeline.access.links import LinkRefused
from lora_pipeline.api.problems import Problem
from lora_pipeline.api.services import Services, Shared
from lora_pipeline.settings import Settings, SettingsError

OPEN_USER = "local"
"""Whose models requests are about where no key is asked for and none says."""

_bearer = HTTPBearer(
    auto_error=False, description="A key made with: lora-pipeline api-keys create NAME --user USER"
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def require_guarded(settings: Settings) -> None:
    """Raise SettingsError where the server would answer everybody and be reachable by everybody."""
    if settings.api_open and not settings.only_this_machine:
        raise SettingsError(
            f"LORA_API_OPEN answers without a key, and this server can be reached from elsewhere ({settings.api_host}, "
            f"{settings.resolved_public_url}). Unset it and make keys (lora-pipeline api-keys create), or listen on "
            "127.0.0.1 and unset LORA_PUBLIC_URL"
        )


def from_this_machine(request: Request, services: Services) -> bool:
    """Whether nobody but this machine's own user can have asked.

    A proxy on this machine that says for whom it asks (X-Forwarded-For, which uvicorn reads) asks for somebody else.
    """
    if not services.connections.settings.only_this_machine or request.client is None:
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def known_caller(request: Request, services: Shared, credentials: Credentials) -> Caller:
    """The caller. A Problem: 401 without a good key, 429 where it asks too often."""
    if credentials is None:
        if services.connections.settings.api_open and from_this_machine(request, services):
            return Caller("open", OPEN_USER, is_admin=True)
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "got no key; expected the header Authorization: Bearer KEY "
            "(lora-pipeline api-keys create NAME --user USER makes one)",
        )
    return _with_key(request, services, credentials.credentials)


def administrator(caller: Annotated[Caller, Depends(known_caller)]) -> Caller:
    """The caller, where they are an administrator. Raises NotAllowed."""
    if not caller.is_admin:
        raise NotAllowed("this needs an administrator's key (lora-pipeline api-keys create NAME --admin)")
    return caller


def key_or_link(
    request: Request,
    services: Shared,
    credentials: Credentials,
    expires: Annotated[str | None, Query(description="Of a signed link.")] = None,
    signature: Annotated[str | None, Query(description="Of a signed link.")] = None,
) -> Caller | None:
    """A caller with a key, or (None) whoever has the signed link of this very path."""
    if credentials is None and expires is not None and signature is not None:
        services.links.check(request.url.path, expires, signature, services.connections.now())
        return None
    return known_caller(request, services, credentials)


def viewer(
    request: Request,
    services: Shared,
    credentials: Credentials,
    expires: Annotated[str | None, Query(description="Of a signed link.")] = None,
    signature: Annotated[str | None, Query(description="Of a signed link.")] = None,
) -> Caller | None:
    """Who may look at one picture: a caller with a key, or (None) whoever has its signed link.

    A server that only this machine can reach shows pictures without either, because Dagster's pages link them.
    """
    if credentials is None and signature is None and from_this_machine(request, services):
        return None
    return key_or_link(request, services, credentials, expires, signature)


def link_holder(
    request: Request,
    services: Shared,
    expires: Annotated[str, Query(description="Of a signed link.")] = "",
    signature: Annotated[str, Query(description="Of a signed link.")] = "",
) -> None:
    """Whoever has the signed link of this very path. Raises LinkRefused."""
    if not signature:
        raise LinkRefused("this address needs its signature. Ask for a link with your key")
    services.links.check(request.url.path, expires, signature, services.connections.now())


def _with_key(request: Request, services: Services, key: str) -> Caller:
    caller = caller_with(services.connections.database, key)
    if caller is None:
        wait = services.failures.take(request.client.host if request.client else "")
        if wait:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS, "too many refused keys came from your address", retry_after=wait
            )
        raise Problem(HTTPStatus.UNAUTHORIZED, "the key is unknown or was revoked")
    wait = services.requests.take(caller.actor)
    if wait:
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too many requests with this key; wait, then go on",
            retry_after=wait,
        )
    return caller


KnownCaller = Annotated[Caller, Depends(known_caller)]
Administrator = Annotated[Caller, Depends(administrator)]
KeyOrLink = Annotated[Caller | None, Depends(key_or_link)]
Viewer = Annotated[Caller | None, Depends(viewer)]
LinkHolder = Annotated[None, Depends(link_holder)]
