"""From an address to a store."""

import subprocess
import sys
from pathlib import Path

import pytest

from lora_pipeline.objects import InvalidKey, StoreRefused, StoreUnavailable, open_store

ENV = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


def test_a_folder_has_three_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in (
        str(tmp_path / "ö x"),
        (tmp_path / "ö x").as_uri(),
        "ö x",
        f"file://localhost{tmp_path}/ö%20x",
    ):
        assert open_store(address).root == (tmp_path / "ö x").as_uri()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "root"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://my.bucket/a/b/", "s3://my.bucket/a/b"),
        ("s3://bucket/a?b#c", "s3://bucket/a?b#c"),
    ],
)
def test_a_bucket_may_have_a_prefix(address: str, root: str) -> None:
    assert open_store(address, env=ENV).root == root


@pytest.mark.parametrize(
    "address",
    ["", " ", "gs://bucket/x", "http://host/x", "file://host/x", "file:relative", "s3://", "s3:///key"],
)
def test_an_address_of_no_store_is_refused_with_examples(address: str) -> None:
    with pytest.raises(StoreRefused, match="Give s3://bucket/prefix"):
        open_store(address, env=ENV)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(StoreRefused) as raised:
        open_store("ftp://user:hunter2@host/x")
    assert "hunter2" not in str(raised.value)


def test_a_prefix_cannot_climb() -> None:
    with pytest.raises(InvalidKey):
        open_store("s3://bucket/a/../b", env=ENV)


def test_an_endpoint_must_be_an_address() -> None:
    with pytest.raises(StoreRefused, match="no http:// or https:// address"):
        open_store("s3://bucket", env={**ENV, "AWS_ENDPOINT_URL": "minio:9000"})


def test_the_endpoint_comes_from_the_standard_settings() -> None:
    env = {**ENV, "AWS_ENDPOINT_URL": "http://127.0.0.1:2", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1/"}
    with pytest.raises(StoreUnavailable, match=r"http://127.0.0.1:1 is unreachable"):
        open_store("s3://bucket", env=env).head("k")


def test_importing_the_object_store_loads_no_client() -> None:
    code = (
        "import sys, lora_pipeline.objects; lora_pipeline.objects.open_store('/tmp');"
        "print([m for m in ('obstore', 'boto3', 'httpx', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
