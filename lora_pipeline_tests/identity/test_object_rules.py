"""Aliases, endpoints, access points and renames of an installation."""

import pytest

from lora_pipeline.identity import (
    Endpoint,
    IdentityError,
    ObjectAddress,
    ObjectPrefix,
    ObjectRef,
    ObjectUrlRules,
    PrefixRename,
    Unresolved,
    object_uri,
    parse_object_url,
)

RULES = ObjectUrlRules(
    aliases={
        "CDN.example.com.": ObjectPrefix("s3/aws", "lora-files", "public/"),
        "pub-1.r2.dev": ObjectPrefix("r2/acc/eu", "files"),
    },
    endpoints={
        "localhost:9000": Endpoint("minio"),
        "store.example:80": Endpoint("store"),
        "nyc3.digitaloceanspaces.com": Endpoint("do/nyc3", "virtual"),
        "b.nyc3.digitaloceanspaces.com": Endpoint("do/special", "virtual"),
        "bucket.vpce-1.s3.us-west-2.vpce.amazonaws.com": Endpoint("s3/aws", "virtual"),
    },
    access_points={"ap-1a2b-s3alias": ObjectPrefix("s3/aws", "lora-files")},
)


@pytest.mark.parametrize(
    ("url", "ref"),
    [
        ("https://cdn.example.com/a+b.pt?Signature=x", ObjectRef("s3/aws", "lora-files", "public/a b.pt")),
        ("https://pub-1.r2.dev/a+b.pt", ObjectRef("r2/acc/eu", "files", "a+b.pt")),
        ("http://localhost:9000/b/a+b%20c", ObjectRef("minio", "b", "a+b c")),
        ("http://store.example/b/k", ObjectRef("store", "b", "k")),
        ("https://nyc3.digitaloceanspaces.com/b/k", ObjectRef("do/nyc3", "b", "k")),
        ("https://my.b.nyc3.digitaloceanspaces.com/k", ObjectRef("do/special", "my", "k")),
        ("https://c.nyc3.digitaloceanspaces.com/k", ObjectRef("do/nyc3", "c", "k")),
        ("https://b.bucket.vpce-1.s3.us-west-2.vpce.amazonaws.com/a+b", ObjectRef("s3/aws", "b", "a b")),
        ("s3://ap-1a2b-s3alias/k", ObjectRef("s3/aws", "lora-files", "k")),
        ("https://ap-1a2b-s3alias.s3.us-west-2.amazonaws.com/k", ObjectRef("s3/aws", "lora-files", "k")),
    ],
)
def test_configuration_resolves_what_the_address_alone_cannot(url: str, ref: ObjectRef) -> None:
    assert isinstance(parse_object_url(url), Unresolved)
    found = parse_object_url(url, RULES)
    assert isinstance(found, ObjectAddress)
    assert found.ref == ref


@pytest.mark.parametrize(
    "url",
    [
        "https://sub.cdn.example.com/a",
        "https://cdn.example.com:8443/a",
        "https://cdn.example.com.evil.example/a",
        "http://b.localhost:9000/k",
        "http://localhost:9001/b/k",
        "http://localhost/b/k",
        "s3://other-s3alias/k",
    ],
)
def test_a_rule_covers_only_the_host_it_names(url: str) -> None:
    assert isinstance(parse_object_url(url, RULES), Unresolved)


@pytest.mark.parametrize(
    "url", ["https://cdn.example.com/", "https://cdn.example.com", "http://localhost:9000/b"]
)
def test_a_configured_host_without_a_key_is_no_object(url: str) -> None:
    with pytest.raises(IdentityError):
        parse_object_url(url, RULES)


def test_a_bucket_named_like_an_alias_is_still_that_bucket() -> None:
    found = parse_object_url("s3://cdn.example.com/k", RULES)
    assert found == ObjectAddress(ObjectRef("s3/aws", "cdn.example.com", "k"))


def test_an_s3_address_means_the_store_of_the_installation() -> None:
    rules = ObjectUrlRules(s3_namespace="minio")
    ref = ObjectRef("minio", "b", "k")
    assert parse_object_url("s3://b/k", rules) == ObjectAddress(ref)
    assert object_uri(ref, rules) == "s3://b/k"
    aws = parse_object_url("https://b.s3.amazonaws.com/k", rules)
    assert aws == ObjectAddress(ObjectRef("s3/aws", "b", "k"))


@pytest.mark.parametrize(
    ("key", "renamed"),
    [
        ("styles_maker_user/m/a.pt", "actor_maker_user/m/a.pt"),
        ("actor_maker_user/m/a.pt", "actor_maker_user/m/a.pt"),
        ("styles_maker_user_2/a.pt", "styles_maker_user_2/a.pt"),
        ("x/styles_maker_user/a.pt", "x/styles_maker_user/a.pt"),
        ("styles_maker_user", "styles_maker_user"),
    ],
)
def test_a_renamed_folder_is_found_under_its_new_name(key: str, renamed: str) -> None:
    rules = ObjectUrlRules(renames=(PrefixRename("b", "styles_maker_user", "actor_maker_user/"),))
    found = parse_object_url(f"https://b.s3.us-west-1.amazonaws.com/{key}?versionId=7", rules)
    assert found == ObjectAddress(ObjectRef("s3/aws", "b", renamed), "7", "us-west-1")
    elsewhere = parse_object_url(f"s3://other/{key}", rules)
    assert elsewhere == ObjectAddress(ObjectRef("s3/aws", "other", key))


def test_renames_follow_one_another_in_the_order_in_which_they_happened() -> None:
    rules = ObjectUrlRules(renames=(PrefixRename("b", "one", "two"), PrefixRename("b", "two", "three")))
    for folder in ("one", "two", "three"):
        assert parse_object_url(f"s3://b/{folder}/k", rules) == ObjectAddress(
            ObjectRef("s3/aws", "b", "three/k")
        )


@pytest.mark.parametrize("host", ["https://cdn.example.com", "cdn.example.com/path", "cdn example", ""])
def test_a_rule_for_something_that_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(IdentityError):
        ObjectUrlRules(aliases={host: ObjectPrefix("s3/aws", "b")})


def test_a_rename_of_the_whole_bucket_is_refused() -> None:
    with pytest.raises(IdentityError):
        PrefixRename("b", "/", "new")
