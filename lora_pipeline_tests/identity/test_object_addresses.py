"""Every spelling of an object's address, and the addresses that must not pass for one."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.identity import (
    IdentityError,
    ObjectAddress,
    ObjectRef,
    Unresolved,
    object_uri,
    parse_object_url,
)

KEY = "styles/style_1_vV7.safetensors"
REF = ObjectRef("s3/aws", "lora-files", KEY)
R2_ACCOUNT = "0123456789abcdef0123456789abcdef"

SPELLINGS_OF_ONE_OBJECT = [
    f"s3://lora-files/{KEY}",
    f"S3A://lora-files/{KEY}",
    f"  s3://lora-files/{KEY}\n",
    f"https://lora-files.s3.amazonaws.com/{KEY}",
    f"https://lora-files.s3.us-west-1.amazonaws.com/{KEY}",
    f"https://lora-files.s3-us-west-1.amazonaws.com/{KEY}",
    f"https://lora-files.s3.dualstack.us-west-1.amazonaws.com/{KEY}",
    f"https://lora-files.s3-fips.us-west-1.amazonaws.com/{KEY}",
    f"https://lora-files.s3-fips.dualstack.us-west-1.amazonaws.com/{KEY}",
    f"https://lora-files.s3-external-1.amazonaws.com/{KEY}",
    f"https://lora-files.s3-accelerate.amazonaws.com/{KEY}",
    f"https://lora-files.s3-accelerate.dualstack.amazonaws.com/{KEY}",
    f"https://s3-accelerate.amazonaws.com/lora-files/{KEY}",
    f"https://s3.amazonaws.com/lora-files/{KEY}",
    f"https://s3.us-west-1.amazonaws.com/lora-files/{KEY}",
    f"https://s3-us-west-1.amazonaws.com/lora-files/{KEY}",
    f"https://s3.dualstack.us-west-1.amazonaws.com/lora-files/{KEY}",
    f"http://lora-files.s3-website-us-west-1.amazonaws.com/{KEY}",
    f"http://lora-files.s3-website.us-west-1.amazonaws.com/{KEY}?versionId=ignored-by-websites",
    f"HTTPS://LORA-FILES.S3.US-WEST-1.AMAZONAWS.COM./{KEY}",
    f"https://lora-files.s3.us-west-1.amazonaws.com:443/{KEY}#download",
    f"http://lora-files.s3.us-west-1.amazonaws.com:80/{KEY}",
    f"https://lora-files.s3.us-west-1.amazonaws.com:/{KEY}",
    "https://lora-files.s3.us-west-1.amazonaws.com/styles%2Fstyle%5F1_vV7%2Esafetensors?x-id=GetObject",
]


@pytest.mark.parametrize("url", SPELLINGS_OF_ONE_OBJECT)
def test_every_spelling_of_an_object_has_one_identity(url: str) -> None:
    address = parse_object_url(url)
    assert isinstance(address, ObjectAddress)
    assert address.ref == REF
    assert address.version_id is None
    assert address.region_hint == ("us-west-1" if "us-west-1" in url.lower() else None)


@pytest.mark.parametrize(
    ("url", "ref"),
    [
        ("s3://b/my+style %41#x?y.pt", ObjectRef("s3/aws", "b", "my+style %41#x?y.pt")),
        ("https://b.s3.amazonaws.com/my+style%2B%2541.pt", ObjectRef("s3/aws", "b", "my style+%41.pt")),
        ("https://b.s3.amazonaws.com/my style é.pt", ObjectRef("s3/aws", "b", "my style é.pt")),
        ("https://b.s3.amazonaws.com//a//./../b/", ObjectRef("s3/aws", "b", "/a//./../b/")),
        ("https://b.s3.amazonaws.com/e%CC%81", ObjectRef("s3/aws", "b", "e\u0301")),
        ("https://b.s3.amazonaws.com/%C3%A9", ObjectRef("s3/aws", "b", "\u00e9")),
        ("https://s3.us-east-1.amazonaws.com/Old_Bucket/A", ObjectRef("s3/aws", "Old_Bucket", "A")),
        ("https://s3.s3.us-west-2.amazonaws.com/a", ObjectRef("s3/aws", "s3", "a")),
        ("https://a.s3.eu-west-1.s3.us-west-2.amazonaws.com/a", ObjectRef("s3/aws", "a.s3.eu-west-1", "a")),
        ("https://s3-us-west-1.s3.amazonaws.com/a", ObjectRef("s3/aws", "s3-us-west-1", "a")),
        ("https://b.s3.cn-north-1.amazonaws.com.cn/a", ObjectRef("s3/aws-cn", "b", "a")),
        ("https://b.s3.us-gov-west-1.amazonaws.com/a", ObjectRef("s3/aws-us-gov", "b", "a")),
        ("https://b.s3-fips-us-gov-west-1.amazonaws.com/a", ObjectRef("s3/aws-us-gov", "b", "a")),
        ("gs://b/a+b", ObjectRef("gs", "b", "a+b")),
        ("https://storage.googleapis.com/b/a+b%20c", ObjectRef("gs", "b", "a+b c")),
        ("https://my.b.storage.googleapis.com/a", ObjectRef("gs", "my.b", "a")),
        (
            f"https://{R2_ACCOUNT}.r2.cloudflarestorage.com/b/a+b",
            ObjectRef(f"r2/{R2_ACCOUNT}/default", "b", "a+b"),
        ),
        (f"https://{R2_ACCOUNT}.eu.r2.cloudflarestorage.com/b/a", ObjectRef(f"r2/{R2_ACCOUNT}/eu", "b", "a")),
        (
            f"https://b.{R2_ACCOUNT}.us.r2.cloudflarestorage.com/a",
            ObjectRef(f"r2/{R2_ACCOUNT}/us", "b", "a"),
        ),
        (
            "https://xyz1.public.blob.vercel-storage.com/training/u-1.zip?download=1",
            ObjectRef("vercel-blob/xyz1", "xyz1", "training/u-1.zip"),
        ),
    ],
)
def test_keys_buckets_and_namespaces_are_kept_apart(url: str, ref: ObjectRef) -> None:
    address = parse_object_url(url)
    assert isinstance(address, ObjectAddress)
    assert address.ref == ref


@pytest.mark.parametrize(
    ("query", "version_id"),
    [
        ("versionId=L4kqtJlcpXroDTDmpUMLUo", "L4kqtJlcpXroDTDmpUMLUo"),
        ("versionId=null", "null"),
        ("X-Amz-Date=1&versionId=abc%2B1&X-Amz-Signature=f00d", "abc+1"),
        ("%76ersionId=v", "v"),
        ("foo=bar&response-content-type=%FF", None),
        ("", None),
    ],
)
def test_only_the_object_version_of_a_query_is_kept(query: str, version_id: str | None) -> None:
    assert parse_object_url(f"https://lora-files.s3.amazonaws.com/{KEY}?{query}") == ObjectAddress(
        REF, version_id
    )


def test_a_google_generation_is_the_object_version() -> None:
    address = parse_object_url("https://storage.googleapis.com/b/a?generation=17&versionId=x")
    assert address == ObjectAddress(ObjectRef("gs", "b", "a"), "17")


HOST_CONFUSION = [
    "https://evil.example/lora-files.s3.amazonaws.com/a",
    "https://lora-files.s3.amazonaws.com.evil.example/a",
    "https://lora-files.s3.amazonaws.com.cn.evil.example/a",
    "https://lora-files.s3.us-west-1.amazonaws.com@evil.example/a",
    "https://evil.example@lora-files.s3.amazonaws.com/a",
    "https://evil.example\\@lora-files.s3.amazonaws.com/a",
    "https://evil.example\\.s3.amazonaws.com/a",
    "https://lora-files.s3.amazonaws.com\\a",
    "https://lora-files.s3.amazonaws.com/a\\b",
    "https://evil.example/\t@lora-files.s3.amazonaws.com/a",
    "https://lora-files.s3.amazon\taws.com/a",
    "https://lora-files.s3.amazonaws.com\n.evil.example/a",
    "https://lora-files.s3.amazonaws.com%2eevil.example/a",
    "https://lora-files.s3.amazonaws.com%00.evil.example/a",
    "https://lora-files.s3.amazonaws.com../a",
    "https://lora-files..s3.amazonaws.com/a",
    "https://.s3.amazonaws.com/a",
    "https://lora-files.s3.amazonaws.com:8443/a",
    "https://lora-files.s3.amazonaws.com:80/a",
    "http://lora-files.s3.amazonaws.com:443/a",
    "https://lora-files.s3.amazonaws.com:99999/a",
    "https://lora-files.s3.amazonaws.com:4٤3/a",
    "https://lora-files.s3.amazonaws.com:x@evil.example/a",
    "https://lora-files.xs3.amazonaws.com/a",
    "https://lora-files.s3x.amazonaws.com/a",
    "https://lora-files.s3amazonaws.com/a",
    "https://lora-files.s3.amazonaws.org/a",
    "https://lora-files.s3.us-west-1.amazonaws.co/a",
    "https://lora-files.s3.cn-north-1.amazonaws.com/a",
    "https://lora-files.s3.us-west-1.amazonaws.com.cn/a",
    "https://lora-files.s3.us-iso-east-1.amazonaws.com/a",
    "https://lora-files.s3.am\u0430zonaws.com/a",
    "https://lora-files.s3.ama\uff5aonaws.com/a",
    "https://lora-files\u3002s3.amazonaws.com/a",
    "https://lora-files.s3.xn--mazonaws-2yh.com/a",
    "https://[::ffff:s3.amazonaws.com]/a",
    "https:/lora-files.s3.amazonaws.com/a",
    "https:////lora-files.s3.amazonaws.com/a",
    "//lora-files.s3.amazonaws.com/a",
    "javascript://lora-files.s3.amazonaws.com/a",
    "s3://evil@lora-files/a",
    "s3://lora-files:9000/a",
    "s3://lora-files\u0000/a",
]


@pytest.mark.parametrize("url", HOST_CONFUSION)
def test_a_look_alike_host_is_never_amazon_s3(url: str) -> None:
    try:
        found = parse_object_url(url)
    except IdentityError:
        return
    assert isinstance(found, Unresolved)


NO_OBJECT = [
    "",
    "   ",
    "not a url",
    "style_1_vV7.safetensors",
    "file:///lora-files/a",
    "s3://",
    "s3://lora-files",
    "s3://lora-files/",
    "s3:///a",
    "s3://../a",
    "s3://lora files/a",
    "https://s3.us-west-1.amazonaws.com/",
    "https://s3.us-west-1.amazonaws.com/lora-files",
    "https://s3.us-west-1.amazonaws.com//lora-files/a",
    "https://s3.us-west-1.amazonaws.com/lora%2Ffiles/a",
    "https://lora-files.s3.amazonaws.com",
    "https://lora-files.s3.amazonaws.com/?list-type=2",
    "https://s3-website-us-west-1.amazonaws.com/a",
    "https://my.bucket.s3-accelerate.amazonaws.com/a",
    "https://s3-accelerate.amazonaws.com/my.bucket/a",
    "https://lora-files.s3.amazonaws.com/%FF%FE",
    "https://lora-files.s3.amazonaws.com/100%.pt",
    "https://lora-files.s3.amazonaws.com/a%00b",
    "https://lora-files.s3.amazonaws.com/a\ud800",
    "s3://lora-files/a\ud800",
    "https://lora-files.s3.amazonaws.com/" + "é" * 513,
    "https://lora-files.s3.amazonaws.com/a?versionId=1&versionId=1",
    "https://lora-files.s3.amazonaws.com/a?versionId=",
    "https://lora-files.s3.amazonaws.com/a?versionId=%FF",
    *(
        f"https://lora-files.s3.amazonaws.com/a?{query}"
        for query in ("acl", "tagging=", "torrent", "attributes", "partNumber=1", "x=1&uploadId=2", "%61cl")
    ),
]


@pytest.mark.parametrize("url", NO_OBJECT)
def test_what_is_no_object_is_refused(url: str) -> None:
    with pytest.raises(IdentityError, match=r"No valid object address: got .* Expected .*\. \w+"):
        parse_object_url(url)


def test_a_stored_null_is_refused_as_an_identity_error() -> None:
    stored: Any = None
    with pytest.raises(IdentityError, match="NoneType"):
        parse_object_url(stored)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://d111111abcdef8.cloudfront.net/a", "alias"),
        ("https://pub-0123.r2.dev/a", "alias"),
        ("https://cdn.example.com/a", "alias or endpoint"),
        ("http://localhost:9000/b/a", "alias or endpoint"),
        ("https://b.nyc3.digitaloceanspaces.com/a", "endpoint"),
        ("https://b.nyc3.cdn.digitaloceanspaces.com/a", "alias"),
        ("https://b.s3.us-west-004.backblazeb2.com/a", "endpoint"),
        ("https://ap-123456789012.s3-accesspoint.us-west-2.amazonaws.com/a", "access point"),
        ("https://x.mrap.accesspoint.s3-global.amazonaws.com/a", "access point"),
        ("https://ap-0123.op-01.s3-outposts.us-west-2.amazonaws.com/a", "access point"),
        ("https://ap-1a2b-s3alias.s3.us-west-2.amazonaws.com/a", "access_points"),
        ("https://s3.us-west-2.amazonaws.com/ap-1a2b-s3alias/a", "access_points"),
        ("s3://ap-1a2b--ol-s3/a", "access_points"),
        ("s3://arn:aws:s3:us-west-2:123456789012:accesspoint/ap/a", "ARN"),
        ("http://site.s3-website-us-west-1.amazonaws.com/models/", "index document"),
        ("https://storage.googleapis.com/storage/v1/b/bucket/o/a?alt=media", "gs://"),
        ("https://nohexaccount.r2.cloudflarestorage.com/b/a", "account"),
        (f"https://{R2_ACCOUNT}.mars.r2.cloudflarestorage.com/b/a", "jurisdiction"),
        ("https://replicate.delivery/xezq/nAhW/trained_model.tar", "archive"),
        ("https://lora-files.s3.amazonaws.com:8443/a", "port"),
        ("https://storage.googleapis.com:8443/b/a", "port"),
        (f"http://{R2_ACCOUNT}.r2.cloudflarestorage.com:9000/b/a", "port"),
    ],
)
def test_what_only_configuration_could_resolve_stays_unresolved(url: str, reason: str) -> None:
    found = parse_object_url(url)
    assert isinstance(found, Unresolved)
    assert reason in found.reason
    assert found.url == url.split("?")[0]


# Keys as a store may hold them; raw control characters are refused in addresses, since they are copying noise.
KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=60)


@given(KEYS)
def test_an_s3_address_leads_back_to_its_object(key: str) -> None:
    ref = ObjectRef("s3/aws", "lora-files", key)
    assert parse_object_url(object_uri(ref)) == ObjectAddress(ref)


def test_an_object_elsewhere_has_no_s3_address() -> None:
    assert object_uri(ObjectRef("gs", "b", "k")) == "gs://b/k"
    with pytest.raises(IdentityError, match="aws-cn"):
        object_uri(ObjectRef("s3/aws-cn", "b", "k"))


@pytest.mark.parametrize(("bucket", "key"), [("b", "a\n"), ("b", ""), ("b/c", "k"), ("ap-s3alias", "k")])
def test_no_address_is_given_that_would_not_lead_back(bucket: str, key: str) -> None:
    with pytest.raises(IdentityError):
        object_uri(ObjectRef("s3/aws", bucket, key))


def test_two_unicode_forms_and_two_cases_are_different_objects() -> None:
    refs = {ObjectRef("s3/aws", "b", key) for key in ("\u00e9", "e\u0301", "\u00c9")}
    assert len(refs) == 3


VECTORS = Path(__file__).resolve().parents[3] / "shared" / "facts" / "s3_url_vectors.json"


@pytest.mark.skipif(not VECTORS.is_file(), reason="the collected vectors are not beside the repository")
def test_all_collected_vectors_pass() -> None:
    wrong = []
    for case in json.loads(VECTORS.read_text()):
        expected = tuple(case[field] for field in ("bucket", "key", "region", "version_id"))
        if _as_amazon(case["url"]) != expected:
            wrong.append((case["note"], case["url"], _as_amazon(case["url"])))
    assert wrong == []


def _as_amazon(url: str) -> tuple[str | None, ...]:
    try:
        found = parse_object_url(url)
    except IdentityError:
        return (None,) * 4
    if isinstance(found, Unresolved) or not found.ref.namespace.startswith("s3/"):
        return (None,) * 4
    return found.ref.bucket, found.ref.key, found.region_hint, found.version_id
