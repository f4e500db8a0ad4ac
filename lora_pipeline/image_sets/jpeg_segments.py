"""Take the metadata out of a JPEG without touching its pixels: a walk over the segments before the image data.

Kept is what decoding needs; dropped is whatever else a camera or program wrote (EXIF with GPS and thumbnail, XMP,
ICC profile, IPTC, comments, maker notes) and everything after the end of the picture (a phone's gain map or video).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_APP0, _APP14 = 0xE0, 0xEE
_RESTARTS = range(0xD0, 0xD8)
# Frames, Huffman and arithmetic tables, quantisation, restart interval, number of lines, scans.
_PICTURE = frozenset([*range(0xC0, 0xC8), *range(0xC9, 0xD0), 0xDB, 0xDC, 0xDD, _SOS])


class NotWalkable(ValueError):
    """The segments do not follow the standard; re-encoding is the way out."""


@dataclass(frozen=True)
class Segment:
    """One marker segment: where it lies (`start` is its 0xFF), and its payload after the length."""

    marker: int
    start: int
    end: int
    payload: bytes


def without_metadata(data: bytes) -> bytes:
    """The same picture, bit for bit, with nothing in it but the picture."""
    parts = [b"\xff\xd8"]
    for segment in segments(data):
        if segment.marker == _APP0:
            parts.append(_bare_jfif(segment.payload))
        elif segment.marker == _APP14 and segment.payload.startswith(b"Adobe"):
            # Says how the colours are coded: without it an RGB-coded JPEG shows false colours.
            parts.append(b"\xff\xee\x00\x0e" + segment.payload[:12])
        elif segment.marker in _PICTURE:
            parts.append(data[segment.start : segment.end])
    return b"".join([*parts, b"\xff\xd9"])


def segments(data: bytes) -> Iterator[Segment]:
    """Every segment between start and end of the first picture; one with image data reaches to the next marker."""
    if data[:2] != b"\xff\xd8":
        raise NotWalkable("no start of image")
    position = 2
    while True:
        position = _next_marker(data, position)
        marker = data[position + 1]
        if marker == _EOI:
            return
        if marker in (_SOI, _TEM) or marker in _RESTARTS:
            raise NotWalkable(f"marker {marker:#04x} out of place")
        payload_end = _payload_end(data, position)
        end = _scan_end(data, payload_end) if marker == _SOS else payload_end
        yield Segment(marker, position, end, data[position + 4 : payload_end])
        position = end


def _next_marker(data: bytes, position: int) -> int:
    if data[position : position + 1] != b"\xff":
        raise NotWalkable(f"no marker at byte {position}")
    while data[position + 1 : position + 2] == b"\xff":  # fill bytes are allowed before a marker
        position += 1
    if position + 1 >= len(data):
        raise NotWalkable("the end of the image is missing")
    return position


def _payload_end(data: bytes, position: int) -> int:
    length = int.from_bytes(data[position + 2 : position + 4], "big")
    end = position + 2 + length
    if length < 2 or end > len(data):
        raise NotWalkable(f"the segment at byte {position} runs past the end")
    return end


def _scan_end(data: bytes, position: int) -> int:
    """Where the compressed data ends: at the first 0xFF that is neither stuffed nor a restart."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            raise NotWalkable("the end of the image is missing")
        follower = data[position + 1]
        if follower == 0xFF:
            position += 1
        elif follower == 0 or follower in _RESTARTS:
            position += 2
        else:
            return position


def _bare_jfif(payload: bytes) -> bytes:
    """The JFIF header without its thumbnail; nothing for a JFXX extension, which is one."""
    if not payload.startswith(b"JFIF\0") or len(payload) < 14:
        return b""
    return b"\xff\xe0\x00\x10" + payload[:12] + b"\0\0"
