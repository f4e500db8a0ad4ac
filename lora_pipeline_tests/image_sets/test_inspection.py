"""What files are, whatever their names say, and the normalised pictures that trainers get."""

from __future__ import annotations

import hashlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from lora_pipeline.image_sets.findings import Finding, Severity
from lora_pipeline.image_sets.inspection import Inspection, inspect
from lora_pipeline.image_sets.likeness import bits_apart
from lora_pipeline_tests.image_sets.pictures import (
    VARIATIONS,
    Pixels,
    bomb,
    encoded,
    exif,
    heic,
    jpeg,
    opened,
    photograph,
    pixels,
    png_by_hand,
    scene,
    sixteen_bit_rgb,
    with_segment,
)


def finding(inspection: Inspection, code: str) -> Finding:
    found = {finding.code: finding for finding in inspection.findings}
    assert code in found, f"expected {code}, found {sorted(found)}"
    return found[code]


def normalised(inspection: Inspection) -> bytes:
    assert inspection.normalised is not None, inspection.findings
    return inspection.normalised.data


def close(one: Pixels, other: Pixels) -> bool:
    return float(np.abs(one - other).mean()) < 3


# What is no usable image


@pytest.mark.parametrize("cut", [2, 50_000])
@pytest.mark.parametrize("size", [(640, 600), (4100, 2100)])
def test_a_jpeg_that_ends_too_early_is_excluded_as_damaged(cut: int, size: tuple[int, int]) -> None:
    data = jpeg(1, size)
    result = inspect(data[:-cut])
    assert finding(result, "damaged").severity is Severity.EXCLUDE
    assert result.normalised is None
    assert result.format == "JPEG"


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "HEIF"])
def test_other_formats_cut_in_half_are_excluded_as_damaged(image_format: str) -> None:
    picture = photograph(size=(640, 520))
    data = heic(picture) if image_format == "HEIF" else encoded(picture, image_format)
    result = inspect(data[: len(data) // 2])
    assert finding(result, "damaged").severity is Severity.EXCLUDE


def test_a_pixel_bomb_is_refused_by_its_header_with_the_numbers() -> None:
    tracemalloc.start()
    result = inspect(bomb())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    refused = finding(result, "too_many_pixels")
    assert (refused.severity, refused.value, refused.threshold) == (
        Severity.EXCLUDE,
        3_600_000_000,
        89_000_000,
    )
    assert refused.remedy
    assert peak < 10_000_000


def test_a_picture_just_over_the_limit_is_refused_though_pillow_would_only_warn() -> None:
    result = inspect(png_by_hand((9_500, 9_500)))
    assert finding(result, "too_many_pixels").value == 90_250_000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"Dear diary, this is text and no photograph.\n" * 20, "not_an_image"),
        (b"", "empty_file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not_an_image"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ", "apple_double"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    ],
)
def test_what_is_no_image_is_excluded_with_the_reason(data: bytes, code: str) -> None:
    result = inspect(data)
    assert finding(result, code).severity is Severity.EXCLUDE
    assert finding(result, code).remedy
    assert result.normalised is None
    assert result.sha256 == hashlib.sha256(data).hexdigest()


def test_a_png_whose_text_unpacks_without_end_is_excluded() -> None:
    text = zlib.compress(b"a" * 5_000_000)
    chunk = b"zTXt" + b"Comment\0\0" + text
    data = jpeg_like_png_with(chunk)
    assert inspect(data).normalised is None


def jpeg_like_png_with(chunk: bytes) -> bytes:
    plain = png_by_hand((10, 10), pixels=(b"\0" + b"\x80" * 30) * 10)
    packed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return plain[:33] + packed + plain[33:]


# What is put right


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_rotated_photograph_is_turned_upright(orientation: int) -> None:
    stored = photograph(size=(640, 520))
    result = inspect(encoded(stored, quality=95, exif=exif(orientation, gps=True)))
    expected = opened(encoded(stored, quality=95, exif=exif(orientation)))
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(expected)
    assert upright is not None
    assert (result.width, result.height) == upright.size
    assert close(pixels(normalised(result)), np.asarray(upright.convert("RGB")).astype(np.int16))
    assert finding(result, "turned_upright").value == orientation


def test_heic_as_phones_send_it_becomes_an_upright_jpeg() -> None:
    picture = photograph(size=(640, 520))
    result = inspect(heic(picture, exif=exif(6, "2024:05:17", gps=True).tobytes()))
    assert result.format == "HEIF"
    assert (result.width, result.height) == (520, 640)
    assert result.captured_on == "2024-05-17"
    assert finding(result, "converted_format").severity is Severity.FIXED
    turned = np.asarray(picture.transpose(Image.Transpose.ROTATE_270)).astype(np.int16)
    assert close(pixels(normalised(result)), turned)


@pytest.mark.parametrize("image_format", ["AVIF", "BMP", "GIF", "TIFF", "WEBP", "PNG"])
def test_other_formats_become_jpeg(image_format: str) -> None:
    result = inspect(encoded(photograph(size=(640, 520)), image_format))
    assert result.format == image_format
    assert opened(normalised(result)).format == "JPEG"
    assert finding(result, "converted_format").value == image_format


def test_transparency_is_laid_on_white() -> None:
    picture = Image.new("RGBA", (600, 600), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 300, 600))
    result = inspect(encoded(picture, "PNG"))
    finding(result, "flattened_alpha")
    out = pixels(normalised(result))
    assert np.abs(out[300, 500] - 255).max() <= 2
    assert np.abs(out[300, 100] - (0, 0, 255)).max() <= 3


def test_a_png_with_an_opaque_alpha_channel_reports_no_transparency() -> None:
    result = inspect(encoded(photograph().convert("RGBA"), "PNG"))
    assert "flattened_alpha" not in {finding.code for finding in result.findings}


def test_cmyk_becomes_rgb() -> None:
    original = photograph(size=(640, 520))
    result = inspect(encoded(original.convert("CMYK"), "JPEG", quality=95))
    assert finding(result, "converted_colour").value == "CMYK"
    assert opened(normalised(result)).mode == "RGB"
    assert close(pixels(normalised(result)), np.asarray(original).astype(np.int16))


def test_sixteen_bits_become_eight_with_the_same_brightness() -> None:
    result = inspect(sixteen_bit_rgb((600, 600), (0x8000, 0x4000, 0xFFFF)))
    assert finding(result, "converted_colour").value == "16-bit"
    assert np.abs(pixels(normalised(result))[300, 300] - (128, 64, 255)).max() <= 2


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_greyscale_keeps_its_brightness(image_format: str) -> None:
    grey = Image.fromarray(np.full((600, 600), 0x8000, dtype=np.uint16))
    result = inspect(encoded(grey, image_format))
    assert finding(result, "converted_colour").value == "16-bit"
    assert np.abs(pixels(normalised(result))[300, 300] - 128).max() <= 2


def test_a_foreign_colour_profile_is_applied_and_removed() -> None:
    # XYZ-like primaries by swapping: Lab would not do, so a real second RGB profile is made from sRGB's bytes.
    source = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = swap_red_and_blue(source)
    picture = Image.new("RGB", (600, 600), (200, 30, 30))
    result = inspect(encoded(picture, "JPEG", quality=95, icc_profile=swapped))
    assert finding(result, "converted_profile").severity is Severity.FIXED
    assert np.abs(pixels(normalised(result))[300, 300] - (30, 30, 200)).max() <= 6
    assert "icc_profile" not in opened(normalised(result)).info


def swap_red_and_blue(profile: bytes) -> bytes:
    """A profile under another name whose red primary is sRGB's blue and the reverse."""
    data = bytearray(profile)
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_a_large_picture_is_scaled_to_at_most_2048_pixels() -> None:
    for size in ((4032, 3024), (6000, 4000), (2049, 1000), (300, 5000)):
        result = inspect(encoded(Image.linear_gradient("L").convert("RGB").resize(size), quality=80))
        out = opened(normalised(result))
        assert 1920 <= max(out.size) <= 2048
        assert (result.width, result.height) == size
        assert finding(result, "scaled_down").value == max(size)


def test_a_conforming_jpeg_keeps_its_compressed_pixels() -> None:
    data = encoded(photograph(), quality=83, exif=exif(1, "2024:05:17", gps=True), comment=b"SecretComment")
    result = inspect(data)
    assert np.array_equal(pixels(normalised(result)), pixels(data))
    assert len(normalised(result)) < len(data)
    assert [finding.code for finding in result.findings] == ["metadata_stripped"]


def test_the_first_picture_of_several_is_taken_and_noted() -> None:
    frames = [scene(seed, (600, 600)) for seed in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    result = inspect(data)
    noted = finding(result, "several_pictures")
    assert (noted.severity, noted.value) == (Severity.NOTE, 3)
    assert float(np.abs(pixels(normalised(result)) - np.asarray(frames[0])).mean()) < 30


def test_a_phone_jpeg_with_a_second_picture_inside_is_one_jpeg() -> None:
    data = encoded(photograph(), "MPO", save_all=True, append_images=[scene(1)], quality=90)
    result = inspect(data)
    assert result.format == "JPEG"
    assert np.array_equal(pixels(normalised(result)), pixels(data))
    assert len(normalised(result)) < len(data)


# What may not be left behind


XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'>SecretXmp</x:xmpmeta>"


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(640, 600), (2400, 1100)])
def test_no_metadata_is_left_in_a_normalised_jpeg(orientation: int, size: tuple[int, int]) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(
        photograph(size=size),
        exif=exif(orientation, "2024:05:17", gps=True),
        comment=b"SecretComment",
        icc_profile=profile,
    )
    result = inspect(with_segment(data, 0xE1, XMP))
    out = normalised(result)
    for leak in (b"Exif", b"Secret", b"GPS", b"xmpmeta", b"ICC_PROFILE", b"2024"):
        assert leak not in out
    info = opened(out).info
    assert not {"exif", "comment", "icc_profile", "xmp"} & set(info)
    assert finding(result, "metadata_stripped").value == "GPS, EXIF, XMP, ICC, comment"


def test_no_text_is_left_of_a_png() -> None:
    row = b"\0" + b"\x80\x40\x20" * 600
    result = inspect(png_by_hand((600, 600), pixels=row * 600, text=b"SecretPrompt"))
    assert b"Secret" not in normalised(result)
    assert finding(result, "metadata_stripped").value == "text"


def test_the_zip_facts_are_those_of_the_normalised_bytes() -> None:
    result = inspect(jpeg(5))
    assert result.normalised is not None
    data = result.normalised.data
    assert result.normalised.sha256 == hashlib.sha256(data).hexdigest()
    assert result.normalised.crc32 == zlib.crc32(data)
    assert result.normalised.size == len(data)


def test_the_same_bytes_are_inspected_the_same_way_twice() -> None:
    data = encoded(photograph(), exif=exif(8))
    assert inspect(data) == inspect(data)


# What is measured


@pytest.mark.parametrize("variation", list(VARIATIONS))
@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
def test_a_variation_stays_within_six_bits(name: str, variation: str) -> None:
    original = photograph(name)
    one, other = (inspect(encoded(p, quality=92)) for p in (original, VARIATIONS[variation](original)))
    assert one.phash is not None
    assert other.phash is not None
    assert bits_apart(one.phash, other.phash) <= 6


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
def test_the_mirror_hash_is_the_hash_of_the_mirror_image(name: str) -> None:
    original = photograph(name)
    mirrored = original.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    one, other = (inspect(encoded(picture, quality=92)) for picture in (original, mirrored))
    assert one.phash is not None
    assert one.phash_mirror is not None
    assert other.phash is not None
    assert bits_apart(one.phash_mirror, other.phash) <= 2
    assert bits_apart(one.phash, other.phash) > 10


def test_different_photographs_are_far_apart() -> None:
    names = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"]
    hashes = [inspect(encoded(photograph(name), quality=92)).phash or "" for name in names]
    assert all(bits_apart(a, b) > 20 for a in hashes for b in hashes if a != b)


def test_a_rotated_copy_has_the_hash_of_the_upright_one() -> None:
    upright = photograph(size=(640, 520))
    sideways = upright.transpose(Image.Transpose.ROTATE_90)
    one = inspect(encoded(upright, quality=92))
    other = inspect(encoded(sideways, quality=92, exif=exif(6)))
    assert bits_apart(one.phash or "", other.phash or "") <= 2


def test_blur_lowers_the_sharpness_below_the_warning() -> None:
    sharp = photograph()
    blurred = sharp.filter(ImageFilter.GaussianBlur(8))
    assert (inspect(encoded(sharp)).sharpness or 0) > 60
    assert (inspect(encoded(blurred)).sharpness or 0) < 20


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "yesterday", ""])
def test_a_capture_day_that_is_none_is_not_taken_for_one(text: str) -> None:
    data = Image.Exif()
    data.get_ifd(0x8769)[0x9003] = text
    assert inspect(encoded(scene(1), exif=data)).captured_on is None


def test_damaged_exif_does_not_cost_the_photograph() -> None:
    broken = with_segment(jpeg(1), 0xE1, b"Exif\0\0MM\x00*\xff\xff\xff\xff garbage")
    result = inspect(broken)
    assert result.normalised is not None
    assert b"garbage" not in normalised(result)


def test_one_pixel_is_an_image_too() -> None:
    result = inspect(encoded(Image.new("RGB", (1, 1)), "PNG"))
    assert (result.width, result.height) == (1, 1)
    assert io.BytesIO(normalised(result)).getbuffer().nbytes > 0
