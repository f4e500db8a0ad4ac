"""Taking the one .safetensors file out of a provider's tar while it is being downloaded; nothing is extracted.

The walk over the members is our own, on the standard library's header parser. ``tarfile`` in stream mode ends
silently at a cut between members and at a block of garbage, so that a truncated or mixed delivery looks complete;
and it reads the payload of name extensions into memory whole, whatever size they announce.
"""

import re
import tarfile
from dataclasses import dataclass
from typing import BinaryIO

from lora_pipeline.versions.byte_stream import PIECE_SIZE, ByteStream
from lora_pipeline.versions.refusal import Refusal, WeightsRefused

BLOCK = 512
END_BLOCK = bytes(BLOCK)
MAX_MEMBERS = 20_000
"""A delivery holds the weights, a config and a caption for each picture: some dozens to some hundreds."""
MAX_EXTENSIONS = 8
"""Name extensions in front of one member; writers use one or two."""
MAX_EXTENSION_BYTES = 64 * 1024

_GNU_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PAX_RECORD = re.compile(rb"(\d{1,6}) ([^=\n]+)=")


@dataclass(frozen=True)
class Member:
    """One entry of the archive: name and size after its extensions."""

    name: str
    size: int
    kind: bytes

    @property
    def shown(self) -> str:
        """The name as an error message may carry it."""
        return repr(self.name if len(self.name) <= 200 else f"{self.name[:200]}…")


def starts_a_tar(block: bytes) -> bool:
    """Whether a download's first 512 bytes are a tar header (or the end mark of an empty tar)."""
    if block == END_BLOCK:
        return True
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def take_weights(stream: ByteStream, out: BinaryIO, *, cap_bytes: int) -> None:
    """Write the archive's only .safetensors file to ``out``, reading the stream to its very end.

    Raises WeightsRefused. ``out`` may hold a part of the file then.
    """
    found: Member | None = None
    for _ in range(MAX_MEMBERS):
        member = _next_member(stream)
        if member is None:
            break
        _check_member(member)
        if member.kind not in _REGULAR or not member.name.lower().endswith(".safetensors"):
            _pass(stream, member, None)
            continue
        _check_weights_member(member, found, cap_bytes)
        found = member
        _pass(stream, member, out)
    else:
        raise WeightsRefused(
            Refusal.TOO_LARGE,
            f"The archive has more than {MAX_MEMBERS:,} members; expected one .safetensors file and some captions."
            " Look at what the training delivered",
        )
    _expect_the_end(stream)
    if found is None:
        raise WeightsRefused(
            Refusal.NO_WEIGHTS,
            "The archive holds no .safetensors file; expected exactly one. Look at the training's log",
        )


def _next_member(stream: ByteStream) -> Member | None:
    """The next header with its name extensions applied, or None at the first block of the end mark."""
    extended: dict[str, str] = {}
    for _ in range(MAX_EXTENSIONS + 1):
        block = _exactly(stream, BLOCK)
        if block == END_BLOCK:
            return None
        info = _header(block)
        if info.type in _GNU_LONG:
            payload = _extension_payload(stream, info.size)
            extended[_GNU_LONG[info.type]] = payload.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif info.type in _PAX:
            extended |= _pax_records(
                _extension_payload(stream, info.size), whole_archive=info.type == tarfile.XGLTYPE
            )
        else:
            return Member(extended.get("path", info.name), _size(info, extended), info.type)
    raise _damaged(f"more than {MAX_EXTENSIONS} name extensions in front of one member")


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise _damaged(f"a member's header is unreadable ({error})") from None
    if info.size < 0:
        raise _damaged("a member has a negative size")
    return info


def _size(info: tarfile.TarInfo, extended: dict[str, str]) -> int:
    text = extended.get("size")
    if text is None:
        return info.size
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise _damaged("a member's extended size is no number")
    return int(text)


def _extension_payload(stream: ByteStream, size: int) -> bytes:
    if size > MAX_EXTENSION_BYTES:
        raise _damaged(f"a name extension of {size:,} bytes (at most {MAX_EXTENSION_BYTES:,} are read)")
    return _exactly(stream, size + _padding(size))[:size]


def _pax_records(payload: bytes, *, whole_archive: bool) -> dict[str, str]:
    """The records ``<length> <name>=<value>`` that matter; the length counts the whole record with its newline."""
    records: dict[str, str] = {}
    at = 0
    while at < len(payload) and payload[at] != 0:
        match = _PAX_RECORD.match(payload, at)
        end = at + int(match[1]) if match else 0
        if match is None or end > len(payload) or end <= match.end() or payload[end - 1 : end] != b"\n":
            raise _damaged("a name extension is unreadable")
        name = match[2].decode("utf-8", "surrogateescape")
        if name.startswith("GNU.sparse."):
            raise WeightsRefused(
                Refusal.UNSAFE_MEMBER, "The archive holds a sparse file; expected plain files"
            )
        if name in ("path", "size", "linkpath"):
            records[name] = payload[match.end() : end - 1].decode("utf-8", "surrogateescape")
        at = end
    if whole_archive and records:
        raise _damaged("one name or size is given to all members")
    return records


def _check_member(member: Member) -> None:
    """Refuse what no trainer packs: nothing is extracted, but such an archive deserves no trust."""
    parts = member.name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or _DRIVE.match(member.name):
        problem = "has an absolute name or one with '..'"
    elif _CONTROL.search(member.name):
        problem = "has a control character in its name"
    elif member.kind == tarfile.DIRTYPE and member.size:
        problem = "is a folder with content"
    elif member.kind not in (*_REGULAR, tarfile.DIRTYPE):
        problem = "is a link, a device or another special file"
    else:
        return
    raise WeightsRefused(
        Refusal.UNSAFE_MEMBER,
        f"The archive's member {member.shown} {problem}; expected plain files and folders."
        " Look at what the training delivered before anything uses it",
    )


def _check_weights_member(member: Member, found: Member | None, cap_bytes: int) -> None:
    if found is not None:
        raise WeightsRefused(
            Refusal.TWO_MEMBERS,
            f"The archive holds two .safetensors files, {found.shown} and {member.shown}; expected exactly one."
            " Which of them is the trained one must be decided by a person",
        )
    if member.size > cap_bytes:
        raise WeightsRefused(
            Refusal.TOO_LARGE,
            f"The weights {member.shown} are {member.size:,} bytes, the limit is {cap_bytes:,}."
            " If weights of this size are expected, raise the limit",
        )


def _pass(stream: ByteStream, member: Member, out: BinaryIO | None) -> None:
    """Go past a member's content, writing it to ``out`` where that is given."""
    remaining = member.size
    while remaining:
        piece = stream.some(min(remaining, PIECE_SIZE))
        if not piece:
            raise _truncated(f"{remaining:,} of the {member.size:,} bytes of {member.shown} are missing")
        if out is not None:
            out.write(piece)
        remaining -= len(piece)
    _exactly(stream, _padding(member.size))


def _expect_the_end(stream: ByteStream) -> None:
    """A tar ends with two empty blocks and, up to the writer's record size, nothing but zeros."""
    if _exactly(stream, BLOCK) != END_BLOCK:
        raise _damaged("its end mark is only half there")
    for piece in stream.rest():
        if piece.count(0) != len(piece):
            raise _damaged("something follows its end mark")


def _exactly(stream: ByteStream, size: int) -> bytes:
    data = stream.up_to(size)
    if len(data) < size:
        raise _truncated("its end mark is missing")
    return data


def _padding(size: int) -> int:
    return -size % BLOCK


def _truncated(what: str) -> WeightsRefused:
    return WeightsRefused(
        Refusal.TRUNCATED,
        f"The tar archive is cut off: {what}. Download it again while the provider still has it",
    )


def _damaged(what: str) -> WeightsRefused:
    return WeightsRefused(Refusal.DAMAGED_ARCHIVE, f"The tar archive is damaged: {what}. Download it again")
