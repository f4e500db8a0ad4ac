"""Replicate models, `owner/name`, and the pages and API addresses that name one.

RunPod has endpoints, not models: nothing here concerns it.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from lora_pipeline.identity.errors import IdentityError, refusal, require_text
from lora_pipeline.identity.kinds import MODEL_PART, KindName, is_model, kind_of
from lora_pipeline.identity.urls import split_url

_WEB_HOSTS = ("replicate.com", "www.replicate.com")
_API_HOST = "api.replicate.com"
_MODEL_EXPECTED = "owner/name, or the model's page https://replicate.com/owner/name"
_NO_PAGE = "A weights or dataset address names neither model nor version; copy the address of the page."
_PAGE_EXPECTED = "https://replicate.com/owner/name, with /versions/<hash> for a version"

# First segments of replicate.com that are pages of the site, not owners.
_SITE_PAGE = re.compile(
    "about|account|blog|changelog|collections|deployments|docs|explore|guides|home|p|playground|pricing|signin"
    "|terms|trainings"
)
_MODEL_TABS = frozenset(["api", "examples", "readme", "train", "versions"])

_ADVICE: dict[KindName, str] = {
    "training_id": "Read the training: its output.version starts with the model.",
    "runpod_id": "RunPod jobs have no model; look the training up by this id.",
    "version": "Leave out the colon and the hash.",
    "hash": "A hash does not say its model; look the version up in the registry.",
    "hash_length": "A hash does not say its model; look the version up in the registry.",
}


@dataclass(frozen=True, slots=True, order=True)
class ModelRef:
    """A Replicate model. Owner and name are lower case, as Replicate has them."""

    owner: str
    name: str

    def __post_init__(self) -> None:
        for part in (self.owner, self.name):
            if not MODEL_PART.fullmatch(part) or part != part.lower():
                raise refusal(
                    "model",
                    f"{self.owner}/{self.name}",
                    "a model spelled otherwise",
                    "lower-case owner and name",
                    "Read it with parse_model.",
                )

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def page_url(self) -> str:
        """The model's page for people."""
        return f"https://replicate.com/{self}"


def parse_model(text: str) -> ModelRef:
    """The model that `text` names: `owner/name`, or the address of its page or of its API resource.

    A version is refused, with the model it belongs to left to the caller: which of both was meant is not
    for a parser to guess. Raises IdentityError.
    """
    text = require_text(text, "model", _MODEL_EXPECTED).strip()
    if looks_like_page(text):
        page = parse_page(text, "model")
        if page.version is None:
            return page.model
        raise refusal(
            "model", text, "the page of one version", _MODEL_EXPECTED, f"The model is {page.model}."
        )
    if "/" in text and is_model(text):
        owner, _, name = text.lower().partition("/")
        return ModelRef(owner, name)
    kind = kind_of(text)
    advice = _ADVICE.get(kind.name, "Copy owner and name from the model's page at replicate.com.")
    raise refusal("model", text, kind.words, _MODEL_EXPECTED, advice)


class ModelPage(NamedTuple):
    """What an address at Replicate names: a model, and the version's text where the address has one."""

    model: ModelRef
    version: str | None


def looks_like_page(text: str) -> bool:
    """Whether `text` is to be read as an address: it has a scheme, or starts with one of Replicate's hosts."""
    return "://" in text or text.lower().startswith(tuple(f"{host}/" for host in (*_WEB_HOSTS, _API_HOST)))


def parse_page(text: str, meant: str) -> ModelPage:
    """The model, and version if any, of an address at replicate.com or api.replicate.com.

    Raises IdentityError for other hosts, other pages of the site, and trainings and predictions.
    """
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower() not in ("http", "https"):
        raise refusal(meant, text, "the address of a file or object", _PAGE_EXPECTED, _NO_PAGE)
    url = split_url(text if separator else f"https://{text}", meant)
    if url.host_and_port not in (*_WEB_HOSTS, _API_HOST):
        raise refusal(meant, text, f"a URL of {url.host_and_port}", _PAGE_EXPECTED, _NO_PAGE)
    segments = url.path.removesuffix("/").split("/")[1:]
    if url.host == _API_HOST:
        segments = _below_models(segments, text, meant)
    elif segments and _SITE_PAGE.fullmatch(segments[0].lower()):
        raise _no_model_page(text, meant, segments)
    if len(segments) < 2:
        raise _no_model_page(text, meant, segments)
    owner, name, *rest = segments
    name, _, hash_after_colon = name.partition(":")
    if not (MODEL_PART.fullmatch(owner) and MODEL_PART.fullmatch(name)):
        raise _no_model_page(text, meant, segments)
    model = ModelRef(owner.lower(), name.lower())
    if hash_after_colon and not rest:
        return ModelPage(model, hash_after_colon)
    match rest:
        case [] | ["versions"]:
            return ModelPage(model, None)
        case ["versions", version]:
            return ModelPage(model, version)
        case ["versions", version, tab] if tab in _MODEL_TABS:
            return ModelPage(model, version)
        case [tab] if tab in _MODEL_TABS:
            return ModelPage(model, None)
    raise _no_model_page(text, meant, segments)


def _below_models(segments: list[str], text: str, meant: str) -> list[str]:
    if segments[:2] == ["v1", "models"]:
        return segments[2:]
    raise _no_model_page(text, meant, segments)


def _no_model_page(text: str, meant: str, segments: list[str]) -> IdentityError:
    if "trainings" in segments:
        return refusal(
            meant,
            text,
            "the address of a training",
            _PAGE_EXPECTED,
            "Read the training: its output.version is the trained version.",
        )
    if "predictions" in segments or segments[:1] == ["p"]:
        return refusal(
            meant,
            text,
            "the address of a prediction",
            _PAGE_EXPECTED,
            "Open the prediction and copy the address of its model.",
        )
    return refusal(
        meant, text, "an address at Replicate that names no model", _PAGE_EXPECTED, "Copy the model's page."
    )
