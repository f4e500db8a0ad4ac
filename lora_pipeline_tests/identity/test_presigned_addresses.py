"""Amazon's own presigner as the oracle, and its signatures as the secret that must not come back out."""

import functools
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, quote

import boto3
import pytest
from botocore.config import Config
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lora_pipeline.identity import IdentityError, ObjectAddress, ObjectRef, parse_object_url

NAMESPACES = {
    "us-east-1": "s3/aws",
    "us-west-1": "s3/aws",
    "eu-central-1": "s3/aws",
    "ap-southeast-2": "s3/aws",
    "us-gov-west-1": "s3/aws-us-gov",
    "cn-north-1": "s3/aws-cn",
}


class Signer(NamedTuple):
    region: str
    style: Literal["virtual", "path"]
    variant: str
    signature: str = "s3v4"


SIGNERS = [
    Signer(region, style, variant)
    for region in NAMESPACES
    for style in ("virtual", "path")
    for variant in ("plain", "dualstack", "fips", "fips dualstack", "accelerate", "accelerate dualstack")
    if not (region == "cn-north-1" and "fips" in variant)
    if not ("accelerate" in variant and (style == "path" or NAMESPACES[region] != "s3/aws"))
] + [Signer("us-west-1", style, "plain", "s3") for style in ("virtual", "path")]


@functools.cache
def client(signer: Signer) -> Any:
    make_client: Any = session().client
    return make_client(
        "s3",
        region_name=signer.region,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        aws_session_token="SESSIONTOKENEXAMPLE",
        config=Config(
            signature_version=signer.signature,
            use_dualstack_endpoint="dualstack" in signer.variant,
            use_fips_endpoint="fips" in signer.variant,
            s3={
                "addressing_style": signer.style,
                "use_accelerate_endpoint": "accelerate" in signer.variant,
            },
        ),
    )


@functools.cache
def session() -> boto3.Session:
    return boto3.Session()


def presigned(signer: Signer, bucket: str, key: str, version_id: str | None = None) -> str:
    params = {"Bucket": bucket, "Key": key} | ({"VersionId": version_id} if version_id else {})
    url: str = client(signer).generate_presigned_url("get_object", Params=params, ExpiresIn=3600)
    return url


KEYS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60),
    st.text(st.sampled_from("ab/ +%é~?#&=.:;@\\\"'"), min_size=1, max_size=30),
)
LABEL = st.from_regex(r"[a-z0-9][a-z0-9-]{1,10}[a-z0-9]", fullmatch=True).filter(
    lambda label: "--" not in label
)
PLAIN_BUCKETS = LABEL.filter(lambda name: not name.endswith("-s3alias") and not name.startswith("xn-"))
BUCKETS = st.one_of(PLAIN_BUCKETS, st.lists(PLAIN_BUCKETS, min_size=2, max_size=3).map(".".join))
VERSION_IDS = st.none() | st.text(st.sampled_from("abcXYZ019._-+/ "), min_size=1, max_size=20)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SIGNERS), BUCKETS, KEYS, VERSION_IDS)
@example(Signer("us-west-1", "virtual", "plain"), "s3.us-west-2.bucket", "a", None)
@example(
    Signer("us-east-1", "virtual", "dualstack"), "my.s3.dualstack", "my style/ä+ö%20.safetensors", "null"
)
@example(Signer("us-gov-west-1", "path", "fips"), "s3-us-west-1.x", "//a/../b/", None)
@example(Signer("us-west-1", "path", "plain", "s3"), "bucket", "a?versionId=b", "c d")
def test_what_amazons_client_signs_is_read_back(
    signer: Signer, bucket: str, key: str, version_id: str | None
) -> None:
    if "accelerate" in signer.variant:
        bucket = bucket.replace(".", "-")
    url = presigned(signer, bucket, key, version_id)
    found = parse_object_url(url)
    assert isinstance(found, ObjectAddress)
    assert found.ref == ObjectRef(NAMESPACES[signer.region], bucket, key)
    assert found.version_id == version_id
    host = url.split("/")[2].removeprefix(bucket)
    assert found.region_hint == (signer.region if signer.region in host else None)


def secrets_in(url: str) -> list[str]:
    query = dict(parse_qsl(url.partition("?")[2]))
    names = ("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "Signature", "AWSAccessKeyId")
    return [form for name in names if name in query for form in (query[name], quote(query[name], safe=""))]


def everything_said_about(text: str) -> str:
    try:
        found = parse_object_url(text)
    except IdentityError as error:
        context: BaseException | None = error
        said = []
        while context is not None:
            said += [str(context), repr(context), repr(context.args)]
            context = context.__cause__ or context.__context__
        return " ".join(said)
    return f"{found} {found!r}"


MANGLED_HOSTS = [
    "",
    "https://",
    "https://lora-files.s3.amazonaws.com/",
    "https://lora-files.s3.amazonaws.com.evil.example/",
    "https://user:pass@lora-files.s3.amazonaws.com/",
    "https://lora-files.s3.amazonaws.com:bad/",
    "https://cdn.example.com/",
    "https://storage.googleapis.com/b/",
    "https://s3.amazonaws.com/",
    "https://x.s3-website-us-west-1.amazonaws.com/",
    "https://a\\b/",
    "ftp://lora-files/",
    "s3://lora-files/",
    "s3://ap-s3alias/",
    "s3://arn:aws:s3:us-west-2:123456789012:accesspoint",
    "gs://lora-files/",
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([Signer("us-west-1", "virtual", "plain"), Signer("us-west-1", "virtual", "plain", "s3")]),
    st.sampled_from(MANGLED_HOSTS),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.sampled_from(
        ["?", "??", "?acl&", "?versionId=", "#", "&", "/&", ";", "/?", "%3F", "%253f", "@?", "?a@b&"]
    ),
    st.integers(min_value=0, max_value=2),
)
def test_a_signature_never_comes_back_out(
    signer: Signer, host: str, path: str, separator: str, encoded: int
) -> None:
    url = presigned(signer, "lora-files", "k")
    secrets = secrets_in(url)
    assert secrets
    query = url.partition("?")[2]
    for _ in range(encoded):
        query = quote(query, safe="")
    said = everything_said_about(f"{host}{path}{separator}{query}")
    assert not [secret for secret in secrets if secret in said]


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@lora-files.s3.amazonaws.com/a",
        "https://user:hunter2/x@lora-files.s3.amazonaws.com/a",
        "https://user:hunter2?@lora-files.s3.amazonaws.com/a",
        "s3://user:hunter2@lora-files/a",
        "https://lora-files.s3.amazonaws.com/%FF%3Fkey%3Dhunter2",
        "https://lora-files.s3.amazonaws.com/%FF%25253fkey=hunter2",
        "https://lora-files.s3.amazonaws.com/%FF?token=hunter2",
        "https://lora-files.s3.amazonaws.com/%FF#access_token=hunter2",
    ],
)
def test_credentials_in_an_address_are_not_repeated(url: str) -> None:
    assert "hunter2" not in everything_said_about(url)


def test_an_error_still_shows_where_the_address_led() -> None:
    with pytest.raises(IdentityError, match=r"https://b\.s3\.amazonaws\.com/a/%FF' \(query not shown\)"):
        parse_object_url("https://b.s3.amazonaws.com/a/%FF?X-Amz-Signature=f00d")


@given(st.text(st.sampled_from("abc019"), min_size=4, max_size=12))
def test_a_signature_inside_an_object_version_is_refused(signature: str) -> None:
    assume(signature not in "X-Amz-Signature")
    url = f"https://b.s3.amazonaws.com/a?versionId=v%26X-Amz-Signature%3D{signature}zz"
    assert f"{signature}zz" not in everything_said_about(url)
