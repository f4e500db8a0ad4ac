"""Provider versions: `owner/name:64hex` in every spelling that occurs, and given out as each endpoint wants it.

Whether a version exists, is current or may be served is not decided here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lora_pipeline.identity.errors import IdentityError, refusal, require_text
from lora_pipeline.identity.kinds import HASH, MODEL_PART, KindName, is_model, kind_of
from lora_pipeline.identity.models import ModelRef, looks_like_page, parse_page

_EXPECTED = "owner/name:hash or a bare hash (64 hexadecimal digits), or https://replicate.com/owner/name/versions/<hash>"
# `sha256:…` and `md5:…` are checksums of files, which have the shape of `model:hash`.
_CHECKSUM_NAMES = frozenset(["md5", "sha1", "sha256"])

_ADVICE: dict[KindName, str] = {
    "training_id": "Read the training: its output.version is the trained version; its version is the trainer's.",
    "runpod_id": "RunPod jobs have no version; look the training up by this id.",
    "hash_length": "Find the whole hash in the model's list of versions; a part of it may fit several.",
    "model": "Add a colon and the hash, from the model's list of versions.",
    "url": "Copy the address of the version's page at replicate.com.",
    "token": "Remove it from there, and revoke it if others can read that place.",
}


@dataclass(frozen=True, slots=True)
class VersionRef:
    """One provider version. The hash alone identifies it; owner and name are what its spelling told."""

    hash: str
    """64 lower-case hexadecimal digits."""
    owner: str | None = None
    """None where the spelling did not say; never known without `name`."""
    name: str | None = None

    def __post_init__(self) -> None:
        parts = [part for part in (self.owner, self.name) if part is not None]
        well_formed = (
            HASH.fullmatch(self.hash) is not None
            and all(MODEL_PART.fullmatch(part) for part in parts)
            and all(part == part.lower() for part in (self.hash, *parts))
            and not (self.owner is not None and self.name is None)
        )
        if not well_formed:
            raise refusal(
                "version",
                ":".join([*parts, self.hash]),
                "a version spelled otherwise",
                _EXPECTED,
                "Read it with parse_version.",
            )

    def __str__(self) -> str:
        """The canonical form: everything that is known, `owner/name:hash`, `name:hash` or the bare hash."""
        prefix = "/".join(part for part in (self.owner, self.name) if part is not None)
        return f"{prefix}:{self.hash}" if prefix else self.hash

    @property
    def model(self) -> ModelRef | None:
        """The model, where owner and name are both known."""
        return ModelRef(self.owner, self.name) if self.owner is not None and self.name is not None else None

    @property
    def for_predictions(self) -> str:
        """The form `POST /v1/predictions` takes whatever is known of the model: the bare hash.

        It refuses `name:hash`, the form that older applications stored.
        """
        return self.hash

    @property
    def qualified(self) -> str:
        """`owner/name:hash`: what is stored, and what the client's `run` takes.

        Raises IdentityError where owner or name is unknown; complete it with `of_model`.
        """
        return f"{self._known_model()}:{self.hash}"

    @property
    def api_path(self) -> str:
        """`models/owner/name/versions/hash`, below `/v1/`: to read or delete it, or to train with a trainer.

        Raises IdentityError where owner or name is unknown; complete it with `of_model`.
        """
        return f"models/{self._known_model()}/versions/{self.hash}"

    @property
    def page_url(self) -> str:
        """The version's page for people. Raises IdentityError where owner or name is unknown."""
        return f"{self._known_model().page_url}/versions/{self.hash}"

    def of_model(self, model: ModelRef) -> "VersionRef":
        """This version completed by its model.

        Raises IdentityError where the spelling named another one: the two were mixed up somewhere.
        """
        if (self.owner or model.owner, self.name or model.name) != (model.owner, model.name):
            raise refusal(
                "version",
                str(self),
                "a version of another model",
                f"a version of {model}",
                "Find out which of the two is right; nothing was completed.",
            )
        return VersionRef(self.hash, model.owner, model.name)

    def _known_model(self) -> ModelRef:
        model = self.model
        if model is None:
            raise refusal(
                "qualified version",
                str(self),
                "a version without its owner",
                "owner/name:hash",
                "Complete it with the model it belongs to: version.of_model(model).",
            )
        return model


def parse_version(text: str) -> VersionRef:
    """The provider version that `text` names.

    Takes a bare hash, `model:hash`, `owner/name:hash`, the same with its prefix doubled, and the address of
    the version's page or API resource; upper case and surrounding space are noise. Raises IdentityError with
    what the text is instead: a training id, a short hash, an address elsewhere.
    """
    text = require_text(text, "version", _EXPECTED).strip()
    if looks_like_page(text):
        page = parse_page(text, "version")
        if page.version is None:
            raise refusal("version", text, "the page of a model", _EXPECTED, _ADVICE["model"])
        if not HASH.fullmatch(page.version):
            raise _refused(text, page.version)
        return VersionRef(page.version.lower(), page.model.owner, page.model.name)
    *prefixes, digits = text.split(":")
    if not HASH.fullmatch(digits):
        raise _refused(text, text)
    owner, name = _agreed_model(prefixes, text)
    return VersionRef(digits.lower(), owner, name)


def _agreed_model(prefixes: list[str], text: str) -> tuple[str | None, str | None]:
    """The one model that all prefixes of a version name."""
    owners: set[str] = set()
    names: set[str] = set()
    for prefix in prefixes:
        if not is_model(prefix) or HASH.fullmatch(prefix) or prefix.lower() in _CHECKSUM_NAMES:
            raise refusal(
                "version",
                text,
                "a hash after something that is no model",
                _EXPECTED,
                "A file's checksum is no version; otherwise correct what stands before the colon.",
            )
        owner, _, name = prefix.lower().rpartition("/")
        names.add(name)
        if owner:
            owners.add(owner)
    if len(owners) > 1 or len(names) > 1:
        raise refusal(
            "version", text, "a hash under two different models", _EXPECTED, "Find out whose version it is."
        )
    return next(iter(owners), None), next(iter(names), None)


def _refused(text: str, version_part: str) -> IdentityError:
    kind = kind_of(version_part)
    advice = _ADVICE.get(kind.name, "Copy the version from the model's list of versions.")
    return refusal("version", text, kind.words, _EXPECTED, advice)


def is_trainer_version(version: VersionRef, known_trainers: Iterable[VersionRef]) -> bool:
    """Whether `version` is a trainer's, stored where a trained version should stand.

    A training's own `version` field is its trainer's, which older applications stored by mistake. It is
    recognised by hash, and by the trainer's model where another version of the same trainer was used.
    """
    return any(
        version.hash == trainer.hash or (version.model is not None and version.model == trainer.model)
        for trainer in known_trainers
    )
