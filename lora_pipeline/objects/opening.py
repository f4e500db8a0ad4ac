"""From an address in a setting to the store it names. The one place that knows which kinds of store there are."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lora_pipeline.objects.errors import StoreRefused
from lora_pipeline.objects.keys import check_prefix
from lora_pipeline.objects.store import ObjectStore

if TYPE_CHECKING:
    from obstore.store import S3Config

_BUCKET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,62}")


def open_store(
    address: str, *, endpoint_url: str | None = None, env: Mapping[str, str] | None = None
) -> ObjectStore:
    """The store at ``address``: ``s3://bucket``, ``s3://bucket/prefix``, ``file:///folder``, or a plain path.

    For S3 the standard settings hold: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (``endpoint_url`` wins),
    AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, else AWS_PROFILE, else what the machine or
    container gives; AWS_REGION or AWS_DEFAULT_REGION. They are read from ``env``, by default the process's own.
    Nothing is contacted or created here. Raises StoreRefused for an address that names no store.
    """
    parts = urlsplit(address)
    if parts.scheme == "s3":
        return _open_s3(address, endpoint_url, os.environ if env is None else env)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return _open_local(Path(unquote(parts.path)))
    if "://" not in address and address.strip() and parts.scheme != "file":
        return _open_local(Path(address))
    raise StoreRefused(
        repr(_without_login(address)),
        "it names no object store",
        "Give s3://bucket/prefix, file:///absolute/folder or the path of a folder",
    )


def _open_local(folder: Path) -> ObjectStore:
    from lora_pipeline.objects.local import LocalObjectStore

    return LocalObjectStore(folder)


def _open_s3(address: str, endpoint_url: str | None, env: Mapping[str, str]) -> ObjectStore:
    from lora_pipeline.objects.s3 import S3ObjectStore

    # Split by hand: in an s3:// address '?' and '#' are ordinary characters of a key.
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise StoreRefused(repr(_without_login(address)), "it names no S3 bucket", "Give s3://bucket/prefix")
    endpoint = endpoint_url or env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or None
    if endpoint is not None and urlsplit(endpoint).scheme not in ("http", "https"):
        raise StoreRefused(
            f"s3://{bucket}",
            "AWS_ENDPOINT_URL is no http:// or https:// address",
            "Give one such as https://host:9000",
        )
    return S3ObjectStore(bucket, check_prefix(prefix), endpoint, _config(endpoint, env), **_profile(env))


def _config(endpoint: str | None, env: Mapping[str, str]) -> "S3Config":
    config: S3Config = {"virtual_hosted_style_request": False}
    if endpoint is not None:
        config["endpoint"] = endpoint.rstrip("/")
    if region := env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION"):
        config["region"] = region
    if (key := env.get("AWS_ACCESS_KEY_ID")) and (secret := env.get("AWS_SECRET_ACCESS_KEY")):
        config["access_key_id"] = key
        config["secret_access_key"] = secret
        if token := env.get("AWS_SESSION_TOKEN"):
            config["session_token"] = token
    return config


def _profile(env: Mapping[str, str]) -> dict[str, Any]:
    """Named profiles (``aws configure``, single sign-on) are boto3's to read: 0.4 s, so only where one is named."""
    if env.get("AWS_ACCESS_KEY_ID") or not env.get("AWS_PROFILE"):
        return {}
    from boto3 import Session
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    name = env["AWS_PROFILE"]
    try:
        return {"credential_provider": Boto3CredentialProvider(Session(profile_name=name))}
    except (BotoCoreError, ValueError) as error:
        raise StoreRefused(
            f"AWS_PROFILE {name!r}",
            f"it gives no credentials ({error})",
            "Run 'aws configure', or correct the name",
        ) from error


def _without_login(address: str) -> str:
    return re.sub(r"//[^/@]*@", "//", address)
