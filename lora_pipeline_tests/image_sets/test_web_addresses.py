"""Which web addresses images may come from."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.image_sets.web_addresses import (
    AddressRefused,
    allowed,
    hosts_of,
    is_public,
    parse_address,
)

PRIVATE = [
    "127.0.0.1",
    "127.255.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1:a9fe:a9:fe00:808:808",
    "fec0::1",
    "5f00::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
]
PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "2606:2800:220:1:248:1893:25c8:1946",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_what_is_not_of_the_public_internet_is_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    with pytest.raises(AddressRefused, match="private network"):
        allowed(parse_address("https://images.example/1.jpg"), [text], frozenset())


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))
    assert allowed(parse_address("https://images.example/1.jpg"), [text], frozenset()) == text


@given(st.ip_addresses(v=4))
def test_an_address_is_as_public_however_it_is_written(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    translated = ipaddress.IPv6Address(f"64:ff9b::{address}")
    assert is_public(mapped) == is_public(address) == is_public(translated)


def test_a_host_with_a_public_and_a_private_address_is_refused() -> None:
    with pytest.raises(AddressRefused, match="private network"):
        allowed(parse_address("https://images.example/1.jpg"), ["8.8.8.8", "10.0.0.1"], frozenset())
    with pytest.raises(AddressRefused, match="no address"):
        allowed(parse_address("https://images.example/1.jpg"), [], frozenset())


def test_a_host_that_the_setting_names_may_be_private() -> None:
    hosts = hosts_of("blobs.internal, 10.0.0.5:9000")
    assert allowed(parse_address("http://blobs.internal/1.jpg"), ["10.0.0.9"], hosts) == "10.0.0.9"
    assert allowed(parse_address("http://10.0.0.5:9000/1.jpg"), ["10.0.0.5"], hosts) == "10.0.0.5"
    with pytest.raises(AddressRefused):
        allowed(parse_address("http://10.0.0.5:22/1.jpg"), ["10.0.0.5"], hosts)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "images.example/1.jpg",
        "file:///etc/passwd",
        "ftp://images.example/1.jpg",
        "gopher://images.example/",
        "data:image/png;base64,AAAA",
        "https://",
        "https:///1.jpg",
        "https://user:password@images.example/1.jpg",
        "https://images.example@10.0.0.1/1.jpg",
        "https://images.example:99999/1.jpg",
        "https://images.example/1 .jpg",
        "https://images.example\\@10.0.0.1/",
        "https://images.example/\r\nHost: x",
        "https://[::1",
        "https://[fe80::1%25eth0]/1.jpg",
        "https://exa\ud800mple/",
        "https://images.example/" + "a" * 5000,
    ],
)
def test_what_is_no_plain_web_address_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        parse_address(url)


def test_what_is_shown_of_an_address_holds_no_signature() -> None:
    address = parse_address("https://Images.Example:8443/a/b.jpg?X-Amz-Signature=abc#frag")
    assert address.shown == "https://images.example:8443/a/b.jpg"
    assert address.target == "/a/b.jpg?X-Amz-Signature=abc"
    assert address.host_header == "images.example:8443"
    assert address.name == "b.jpg"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        address = parse_address(f"https://{text}")
    except AddressRefused:
        return
    assert address.scheme == "https"
    assert "@" not in address.host
