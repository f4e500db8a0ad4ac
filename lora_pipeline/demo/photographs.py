"""From a shot to a file: the same bytes every time with the same Pillow."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lora_pipeline.demo.shots import Defect, DemoModel, Shot

if TYPE_CHECKING:
    from PIL.Image import Image

_QUALITY = 92
_EXIF_ORIENTATION = 0x0112
# "Turn by 90° clockwise to see it": how a phone held upright stores what its lying sensor saw.
_TURN_CLOCKWISE = 6


class PhotographsMissing(Exception):
    """The package that carries the demo's photographs is not installed."""


def photographs(model: DemoModel) -> dict[str, bytes]:
    """The files of a model's set by name."""
    from PIL import Image

    with Image.open(source_file(model.source)) as opened:
        source = opened.convert("RGB")
    files: list[bytes] = []
    for shot in model.shots.values():
        files.append(files[shot.copy_of] if shot.copy_of is not None else _file(source, shot))
    return dict(zip(model.shots, files, strict=True))


def source_file(name: str) -> Path:
    """A picture in scikit-image's wheel, found without importing it (which takes a second)."""
    found = find_spec("skimage")
    for folder in found.submodule_search_locations or [] if found else []:
        path = Path(folder, "data", name)
        if path.is_file():
            return path
    raise PhotographsMissing(
        f"the demo's photograph {name} comes with scikit-image, which is not installed. "
        "Start the demo with `make demo`, or: uv sync --group demo"
    )


def _file(source: Image, shot: Shot) -> bytes:
    from PIL import Image, ImageEnhance

    picture = source.crop(shot.crop)
    if shot.light != 1.0:
        picture = ImageEnhance.Brightness(picture).enhance(shot.light)
    if shot.width is not None:
        height = round(picture.height * shot.width / picture.width)
        picture = picture.resize((shot.width, height), Image.Resampling.LANCZOS)
    exif = b""
    if shot.defect is Defect.SIDEWAYS:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
        exif = _exif(_TURN_CLOCKWISE)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=_QUALITY, exif=exif)
    data = written.getvalue()
    return data[: len(data) // 2] if shot.defect is Defect.CUT_OFF else data


def _exif(orientation: int) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    return exif.tobytes()
