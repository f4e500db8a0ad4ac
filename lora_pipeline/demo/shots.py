"""Which photographs the demo takes: every crop, light and size of every model, as data.

Sources, all in scikit-image's wheel: `astronaut.png` (Eileen Collins, NASA portrait, public domain), `coffee.png`
(Rachel Michetti, CC0), `hubble_deep_field.jpg` (NASA, public domain).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the source."""


class Defect(StrEnum):
    """What is wrong with a file on purpose."""

    SIDEWAYS = "sideways"
    """Stored lying on its side, with the EXIF orientation that says so: what phones do."""
    CUT_OFF = "cut off"
    """A JPEG without its second half, as after a broken transfer."""


@dataclass(frozen=True)
class Shot:
    """One file: a crop of the source, its light (1.0: as it was), and the width it is scaled down to."""

    crop: Box
    light: float = 1.0
    width: int | None = None
    defect: Defect | None = None
    copy_of: int | None = None
    """Index of the shot that this file repeats byte for byte."""


@dataclass(frozen=True)
class DemoModel:
    """One model of the demo, as its `model.toml` describes it, with the files for its inbox folder."""

    key: str
    name: str
    model_type: str
    source: str
    shots: dict[str, Shot]
    user_id: str | None = None
    gender: str | None = None

    @property
    def description(self) -> str:
        """The text of its `model.toml`."""
        said = {
            "model_type": self.model_type,
            "model_name": self.name,
            "gender": self.gender,
            "user_id": self.user_id,
        }
        return "".join(f'{entry} = "{value}"\n' for entry, value in said.items() if value is not None)


_ASTRONAUT = DemoModel(
    key="astronaut",
    name="Astronaut (one NASA portrait in crops)",
    model_type="person",
    source="astronaut.png",
    user_id="user-42",
    gender="woman",
    shots={
        "IMG_0001.jpg": Shot((0, 0, 512, 512)),
        "IMG_0002.jpg": Shot((96, 0, 352, 256)),
        "IMG_0003.jpg": Shot((120, 0, 440, 320), light=0.75),
        "IMG_0004.jpg": Shot((0, 0, 320, 400), light=1.2),
        "IMG_0005.jpg": Shot((60, 10, 460, 290)),
        "IMG_0006.jpg": Shot((70, 20, 380, 400), light=1.15),
        "IMG_0007.jpg": Shot((80, 0, 512, 512), light=0.85, width=288),
        "IMG_0008 sideways.jpg": Shot((20, 0, 380, 270), defect=Defect.SIDEWAYS),
        "IMG_0009 cut off.jpg": Shot((0, 60, 400, 512), defect=Defect.CUT_OFF),
        "IMG_0010 thumbnail.jpg": Shot((96, 0, 352, 256), width=160),
        "IMG_0011 copy of 0002.jpg": Shot((96, 0, 352, 256), copy_of=1),
    },
)

_COFFEE = DemoModel(
    key="coffee-cup",
    name="Coffee cup (one photograph in crops)",
    model_type="object",
    source="coffee.png",
    user_id="user-42",
    shots={
        "cup 1.jpg": Shot((0, 0, 600, 400)),
        "cup 2.jpg": Shot((60, 0, 460, 400)),
        "cup 3.jpg": Shot((160, 0, 480, 300), light=0.7),
        "cup 4.jpg": Shot((100, 60, 500, 380), light=1.2),
        "cup 5.jpg": Shot((0, 100, 420, 400)),
        "cup 6.jpg": Shot((200, 80, 600, 400), light=0.85),
        "cup 7.jpg": Shot((140, 0, 440, 260)),
        "cup 8.jpg": Shot((240, 0, 600, 360), light=1.15, width=300),
    },
)

_DEEP_FIELD = DemoModel(
    key="deep-field",
    name="Deep field (one Hubble image in crops)",
    model_type="style",
    source="hubble_deep_field.jpg",
    shots={
        "field 1.jpg": Shot((0, 0, 500, 436)),
        "field 2.jpg": Shot((500, 0, 1000, 436)),
        "field 3.jpg": Shot((0, 436, 500, 872)),
        "field 4.jpg": Shot((500, 436, 1000, 872)),
        "field 5.jpg": Shot((250, 200, 750, 650), light=1.3),
        "field 6.jpg": Shot((0, 200, 400, 700), light=0.8),
        "field 7.jpg": Shot((600, 150, 1000, 600)),
        "field 8.jpg": Shot((0, 0, 1000, 872), width=600),
    },
)

DEMO_MODELS = (_ASTRONAUT, _COFFEE, _DEEP_FIELD)
PROBLEM_MODEL = _ASTRONAUT
"""The one whose set has a sideways, a corrupt, a too small and a repeated file."""
