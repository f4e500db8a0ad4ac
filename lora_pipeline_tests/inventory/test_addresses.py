"""Reading a folder's address once for all its files gives what reading each address gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.entries import Addresses, address_of
from lora_pipeline.inventory.renames import rules_with_renames
from lora_pipeline_tests.inventory.trees import SPELLINGS

RULES = rules_with_renames(["bucket/old=new", "bucket/new/deep=deeper"])
_NAMES = st.sampled_from(
    [
        "style_1_vV7.safetensors",
        "..safetensors",
        "a b.safetensors",
        "%2e.safetensors",
        "+.safetensors",
        "",
        "x",
    ]
)
_FOLDERS = st.sampled_from(
    ["", "old", "old/deep", "new/deep", "a//b", "a b", "a%20b", "a+b", ".", "..", "x" * 890]
)
_ODD = st.sampled_from(
    [
        "https://s3.amazonaws.com",
        "https://bucket-s3alias.s3.us-west-1.amazonaws.com",
        "gs://bucket",
        "s3:/",
        "s3://",
        "https://cdn.example.com/a",
        "https://user@bucket.s3.amazonaws.com",
        "https://bucket.s3.amazonaws.com:8443",
        "https://bucket.s3-website-us-west-1.amazonaws.com",
        "https://x.public.blob.vercel-storage.com",
        "",
        "https://my.bucket.s3-accelerate.amazonaws.com",
        "S3://bucket",
        "https://s3.amazonaws.com/b_",
    ]
)


@given(st.lists(st.tuples(st.sampled_from(SPELLINGS), _FOLDERS, _NAMES), max_size=6))
def test_every_spelling_of_every_folder(parts: list[tuple[str, str, str]]) -> None:
    addresses = Addresses(RULES)
    for spelling, folder, name in parts:
        entry = {"loraUrl": spelling.format(bucket="bucket", key=f"{folder}/{name}".removeprefix("/"))}
        assert addresses.place(entry) == address_of(entry, RULES).place


@given(_ODD, _NAMES)
def test_odd_hosts(host: str, name: str) -> None:
    entry = {"loraUrl": f"{host}/{name}"}
    assert Addresses(RULES).place(entry) == address_of(entry, RULES).place


@pytest.mark.parametrize(
    "url", [None, "", 7, "s3://b/k?versionId=3", "https://b.s3.amazonaws.com/k.safetensors?versionId=3"]
)
def test_what_is_no_plain_address(url: object) -> None:
    rules = ObjectUrlRules()
    assert Addresses(rules).place({"loraUrl": url}) == address_of({"loraUrl": url}, rules).place
