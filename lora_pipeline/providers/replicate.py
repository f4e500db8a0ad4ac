"""Trainings at Replicate, or at its simulator: each method is one conversation with every way it can end.

Requests that change something are made by the official client (`replicate_client`), reads by `replicate_wire`;
answers are understood in `replicate_answers` and `replicate_refusals`. What they mean for a training run is decided
elsewhere. `created_at` differs between two answers about one training: nothing may be matched on it.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Self

from lora_pipeline.identity import IdentityError, ModelRef, VersionRef, parse_model, parse_version
from lora_pipeline.providers.answers import Answer, succeeded
from lora_pipeline.providers.protocol import (
    NameBurned,
    NotFound,
    ProviderUnavailable,
    ProviderVersion,
    Refused,
    TrainingJob,
    TrainingPage,
    TrainingRequest,
    UploadedFile,
)
from lora_pipeline.providers.replicate_answers import (
    MalformedTraining,
    parse_training,
    parse_version_item,
    training_input_schema,
)
from lora_pipeline.providers.replicate_client import OfficialClient
from lora_pipeline.providers.replicate_refusals import creation_outcome, refusal, told
from lora_pipeline.providers.replicate_wire import Wire
from lora_pipeline.providers.secrets import secret_values

log = logging.getLogger(__name__)

SIMULATED_HEADER = "lora-pipeline-simulator"
DESTINATION_HARDWARE = "gpu-t4"
"""A model cannot be made without naming hardware; Replicate overrides it for fine-tuned models."""
WEBHOOK_EVENTS = ["start", "completed"]
"""Not `logs` and `output`: their bodies carry the whole log each time."""
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class ReplicateProvider:
    """Replicate's trainings, safe for several threads. See `protocol.TrainingProvider` for what each method promises."""

    name = "replicate"

    def __init__(self, base_url: str, token: str, *, timeout: float, owner: str | None = None) -> None:
        """`timeout` bounds one request in seconds; `owner` is the account of destinations, the token's own if None.

        Raises ValueError for an address or a token that cannot be one.
        """
        self._wire = Wire(base_url, token, timeout)
        self._owner = owner
        self._lock = threading.Lock()
        self._account: tuple[str, bool] | None = None
        self._schemas: dict[str, dict[str, Any]] = {}
        self._client = OfficialClient(self._wire)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._wire.close()

    @property
    def simulated(self) -> bool:
        """Whether a simulator answers."""
        return self._ask_account()[1]

    def owner(self) -> str:
        """The owner of destinations: the setting, else the token's account."""
        return self._owner or self._ask_account()[0]

    def input_schema(self, trainer: str) -> dict[str, Any]:
        """The trainer's inputs as a JSON schema object with `properties` and `required`."""
        version = _trainer(trainer)
        with self._lock:
            known = self._schemas.get(version.hash)
        if known is None:
            what = f"the inputs of trainer {version}"
            known = training_input_schema(self._read(f"/v1/{version.api_path}", what))
            if known is None:
                raise Refused(
                    f"{version} describes no training inputs: LORA_TRAINER must name a trainer's version"
                )
            with self._lock:
                self._schemas[version.hash] = known
        return copy.deepcopy(known)

    def ensure_destination(self, destination: str, *, description: str) -> None:
        """Create the private destination model unless it exists; it costs nothing and may be asked for repeatedly."""
        model = _model(destination)
        answer = self._client.repeatable(
            f"the creation of model {model}",
            lambda client: client.models.create(
                owner=model.owner,
                name=model.name,
                visibility="private",
                hardware=DESTINATION_HARDWARE,
                description=description,
            ),
        )
        if answer.status == 409:
            if self._exists(model):
                return
            raise NameBurned(
                f"Replicate says that {model} exists, and does not show it to this account: its name was used "
                "before. Give the model another key, or set LORA_REPLICATE_OWNER to the account that has it"
            )
        if answer.status == 404:
            raise Refused(f"Replicate cannot create {model} ({told(answer)}). Check LORA_REPLICATE_OWNER")
        if not succeeded(answer):
            raise refusal(answer, f"the creation of model {model}")

    def upload_file(self, name: str, content: BinaryIO) -> UploadedFile:
        """Hand a dataset of at most 100 MB to the provider, which keeps it for a day."""
        what = f"the upload of {name}"
        answer = self._client.repeatable(
            what,
            lambda client: client.files.create(content, filename=name, content_type="application/zip"),
        )
        if not succeeded(answer):
            raise refusal(answer, what)
        document = answer.document() or {}
        file_id, urls = document.get("id"), document.get("urls")
        url = urls.get("get") if isinstance(urls, dict) else None
        if not isinstance(file_id, str) or not isinstance(url, str):
            raise ProviderUnavailable(
                f"Replicate's answer to {what} names no file; it will be uploaded again"
            )
        return UploadedFile(file_id, url)

    def create_training(self, request: TrainingRequest) -> TrainingJob:
        """Start a paid training: sent exactly once. A 4xx surely started nothing, UnknownOutcome may have."""
        trainer, destination = _trainer(request.trainer), str(_model(request.destination))
        try:
            json.dumps(dict(request.input), allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError):
            raise Refused(
                "the training's input is not JSON (a file, a date, a NaN?); nothing was sent"
            ) from None
        webhook: dict[str, Any] = (
            {"webhook": request.webhook, "webhook_events_filter": WEBHOOK_EVENTS} if request.webhook else {}
        )
        what = f"the creation of a training for {destination}"
        answer = self._client.once(
            what,
            lambda client: client.trainings.create(
                model=(trainer.owner, trainer.name),
                version=trainer.hash,
                input=dict(request.input),
                destination=destination,
                **webhook,
            ),
        )
        return creation_outcome(answer, what, [*secret_values(request.input), request.webhook or ""])

    def get_training(self, job_id: str) -> TrainingJob:
        """One training with its logs."""
        what = f"training {job_id}"
        return _readable(self._read(f"/v1/trainings/{_checked(job_id)}", what), what)

    def list_trainings(self) -> Iterator[TrainingPage]:
        """The account's trainings, newest first, a request a page as the iterator advances."""
        for results in self._pages("/v1/trainings", "the list of trainings"):
            jobs, malformed = [], []
            for item in results:
                try:
                    jobs.append(parse_training(item))
                except MalformedTraining as error:
                    malformed.append(str(error))
            yield TrainingPage(tuple(jobs), tuple(malformed))

    def cancel_training(self, job_id: str) -> TrainingJob:
        """Ask for a cancel; asking again is harmless, and it bills until a terminal state is seen."""
        what = f"the cancel of training {job_id}"
        checked = _checked(job_id)
        answer = self._client.repeatable(what, lambda client: client.trainings.cancel(checked))
        document = answer.document()
        if not succeeded(answer) or document is None:
            raise refusal(answer, what)
        return _readable(document, what)

    def webhook_secret(self) -> str:
        """What this account's webhooks are signed with, `whsec_…`; asked for anew each time, for it can be changed."""
        what = "the webhooks' signing secret"
        key = self._read("/v1/webhooks/default/secret", what).get("key")
        if not isinstance(key, str) or not key.startswith("whsec_"):
            raise ProviderUnavailable(f"Replicate's answer for {what} has no key that begins with whsec_")
        return key

    def list_versions(self, model: str) -> Iterator[ProviderVersion]:
        """Versions of `owner/name`, newest first, over all pages."""
        ref = _model(model)
        for results in self._pages(f"/v1/models/{ref}/versions", f"the versions of {ref}"):
            for item in results:
                version = parse_version_item(item)
                if version is None:
                    log.warning("an item in the versions of %s is no version; it was left out", ref)
                else:
                    yield version

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded dataset; one that is already gone is fine."""
        self._delete(f"/v1/files/{_checked(file_id)}", f"the deletion of file {file_id}")

    def has_version(self, version: str) -> bool:
        """Whether `owner/name:hash` is there."""
        ref = _version(version)
        try:
            self._read(f"/v1/{ref.api_path}", f"a version of {ref.owner}/{ref.name}")
        except NotFound:
            return False
        return True

    def delete_version(self, version: str) -> None:
        """Ask for a version's deletion; it takes minutes until `has_version` says no."""
        ref = _version(version)
        self._delete(f"/v1/{ref.api_path}", f"the deletion of a version of {ref.owner}/{ref.name}")

    def delete_model(self, model: str) -> None:
        """Delete a model that has no versions left; one that is already gone is fine."""
        ref = _model(model)
        self._delete(f"/v1/models/{ref}", f"the deletion of model {ref}")

    def _delete(self, path: str, what: str) -> None:
        """A deletion that was taken, or that found nothing."""
        answer = self._wire.read(path, what, method="DELETE")
        gone = answer.status == 404 and answer.document() is not None
        if not (gone or succeeded(answer)):
            raise refusal(answer, what)

    def download(self, url: str) -> Iterator[bytes]:
        """Stream an output file; nothing is asked for before the first chunk is taken."""
        return self._wire.download(url)

    def _ask_account(self) -> tuple[str, bool]:
        with self._lock:
            known = self._account
        if known is None:
            what = "the account"
            answer = self._wire.read("/v1/account", what)
            name = self._document(answer, what).get("username")
            if not isinstance(name, str) or not name:
                raise ProviderUnavailable("Replicate's answer about the account has no username")
            known = name, answer.headers.get(SIMULATED_HEADER) == "true"
            with self._lock:
                self._account = known
        return known

    def _exists(self, model: ModelRef) -> bool:
        try:
            self._read(f"/v1/models/{model}", f"model {model}")
        except NotFound:
            return False
        return True

    def _read(self, path_or_url: str, what: str) -> dict[str, Any]:
        return self._document(self._wire.read(path_or_url, what), what)

    def _document(self, answer: Answer, what: str) -> dict[str, Any]:
        document = answer.document()
        if answer.status != 200 or document is None:
            raise refusal(answer, what)
        return document

    def _pages(self, path: str, what: str) -> Iterator[list[Any]]:
        following: str | None = path
        seen: set[str] = set()
        while following is not None:
            if following in seen:
                raise ProviderUnavailable(f"Replicate's pages of {what} lead round in a circle")
            seen.add(following)
            page = self._read(following, what)
            results, following = page.get("results"), page.get("next") or None
            if not isinstance(results, list) or not isinstance(following, str | None):
                raise ProviderUnavailable(
                    f"Replicate's answer for {what} is no page: expected results and next"
                )
            yield results


def _readable(document: dict[str, Any], what: str) -> TrainingJob:
    try:
        return parse_training(document)
    except MalformedTraining as error:
        raise ProviderUnavailable(f"Replicate's answer for {what} makes no sense: {error}") from None


def _trainer(text: str) -> VersionRef:
    return _version(text, "the trainer")


def _version(text: str, what: str = "the version") -> VersionRef:
    try:
        version = parse_version(text)
        _ = version.qualified
    except IdentityError as error:
        raise Refused(f"{what} cannot be asked: {error}") from None
    return version


def _model(text: str) -> ModelRef:
    try:
        return parse_model(text)
    except IdentityError as error:
        raise Refused(f"the model cannot be asked for: {error}") from None


def _checked(identity: str) -> str:
    """An id that can stand in a path as it is."""
    if not _JOB_ID.fullmatch(identity):
        raise NotFound(f"Replicate has nothing with the id {identity[:140]!r}: expected letters and digits")
    return identity
