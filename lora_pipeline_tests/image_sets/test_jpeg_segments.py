"""Metadata leaves a JPEG, its pixels stay bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.image_sets.jpeg_segments import NotWalkable, segments, without_metadata
from lora_pipeline_tests.image_sets.pictures import (
    encoded,
    exif,
    jpeg,
    photograph,
    pixels,
    scene,
    with_segment,
)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_pixels_are_the_same_without_the_metadata(progressive: bool, subsampling: int) -> None:
    data = encoded(
        photograph(),
        progressive=progressive,
        subsampling=subsampling,
        restart_marker_rows=1,
        exif=exif(gps=True),
        comment=b"SecretComment",
    )
    stripped = without_metadata(data)
    assert np.array_equal(pixels(stripped), pixels(data))
    assert b"Secret" not in stripped
    assert b"Exif" not in stripped


@pytest.mark.parametrize(
    ("marker", "payload"),
    [
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>SecretXmp</x:xmpmeta>"),
        (0xE2, b"ICC_PROFILE\0\x01\x01SecretIcc"),
        (0xE2, b"MPF\0SecretMpf"),
        (0xED, b"Photoshop 3.0\x008BIMSecretIptc"),
        (0xEB, b"SecretMakerNote"),
        (0xFE, b"SecretComment"),
        (0xE0, b"JFXX\0\x13SecretThumbnail"),
        (0xF7, b"SecretReserved"),
    ],
)
def test_every_kind_of_metadata_is_dropped(marker: int, payload: bytes) -> None:
    data = with_segment(jpeg(), marker, payload)
    assert b"Secret" in data
    assert without_metadata(data) == without_metadata(jpeg())


def test_of_adobes_segment_only_what_says_how_colours_are_coded_stays() -> None:
    stripped = without_metadata(with_segment(jpeg(), 0xEE, b"Adobe\0\x64\0\0\0\0\x01SecretTail"))
    assert b"Adobe" in stripped
    assert b"Secret" not in stripped


def test_what_follows_the_picture_is_dropped() -> None:
    data = jpeg()
    assert without_metadata(data + b"a video of the same moment") == without_metadata(data)


def test_the_thumbnail_inside_the_jfif_header_is_dropped() -> None:
    data = jpeg()
    jfif = next(segment for segment in segments(data) if segment.marker == 0xE0)
    thumbnail = jfif.payload[:12] + b"\x01\x01" + b"SEC"
    fat = with_segment(data[:2] + data[jfif.end :], 0xE0, thumbnail)
    assert b"SEC" not in without_metadata(fat)
    assert without_metadata(fat) == without_metadata(data)


def test_a_jpeg_coded_in_rgb_keeps_its_colours() -> None:
    data = encoded(scene(3), keep_rgb=True, quality=95)
    assert np.array_equal(pixels(without_metadata(data)), pixels(data))


def test_stripping_twice_changes_nothing_more() -> None:
    once = without_metadata(encoded(scene(1), exif=exif(6)))
    assert without_metadata(once) == once


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_walked_or_refused(data: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\xff\xd8\xff\xda\x00\x02"):
        try:
            without_metadata(start + data)
        except NotWalkable:
            continue


@given(st.integers(0, 2_000))
def test_a_jpeg_cut_anywhere_is_refused(cut: int) -> None:
    data = encoded(scene(2, (64, 64)), quality=50)
    with pytest.raises(NotWalkable):
        without_metadata(data[: min(cut, len(data) - 2)])
