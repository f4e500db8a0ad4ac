"""What a command's end means: the one mapping from errors to exit codes and messages."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """The exit codes. `most_serious` says which one wins."""

    FINE = 0
    ERROR = 1
    """Also where one item of a batch failed and the others did not."""
    WRONG_USE = 2
    DRIFT = 3
    """Drift or duplicates were found."""
    REFUSED = 5
    """A check said no; nothing was changed or paid."""
    TRY_AGAIN = 6
    """A provider has trouble; the same command may succeed later."""


_MOST_SERIOUS_FIRST = (Exit.ERROR, Exit.WRONG_USE, Exit.TRY_AGAIN, Exit.REFUSED, Exit.DRIFT, Exit.FINE)

CODES = {
    "lora_pipeline.identity.errors.IdentityError": Exit.WRONG_USE,
    "lora_pipeline.settings.SettingsError": Exit.WRONG_USE,
    "lora_pipeline.database.observing.Observing": Exit.REFUSED,
    "pydantic_core._pydantic_core.ValidationError": Exit.WRONG_USE,
    "lora_pipeline.providers.protocol.ProviderUnavailable": Exit.TRY_AGAIN,
    "lora_pipeline.providers.protocol.UnknownOutcome": Exit.TRY_AGAIN,
    "lora_pipeline.providers.protocol.InsufficientCredit": Exit.TRY_AGAIN,
    "lora_pipeline.providers.protocol.Unauthenticated": Exit.WRONG_USE,
    "lora_pipeline.trainings.intents.TrainingRefused": Exit.REFUSED,
    "lora_pipeline.trainings.parameters.ParametersRefused": Exit.REFUSED,
    "lora_pipeline.image_sets.inbox.IntakeError": Exit.REFUSED,
    "lora_pipeline.image_sets.freezing.SetBlocked": Exit.REFUSED,
    "lora_pipeline.trainings.listing.TrainingNotFound": Exit.WRONG_USE,
    "lora_pipeline.versions.lookup.ModelNotFound": Exit.WRONG_USE,
    "lora_pipeline.versions.version_lookup.VersionNotFound": Exit.WRONG_USE,
    "lora_pipeline.versions.history.TimeNotUnderstood": Exit.WRONG_USE,
    "lora_pipeline.versions.pinning.ChoiceRefused": Exit.REFUSED,
    "lora_pipeline.inventory.sselfie_tables.SourceRefused": Exit.WRONG_USE,
    "lora_pipeline.inventory.named_objects.RegistrationRefused": Exit.REFUSED,
    "lora_pipeline.inventory.plan_store.PlanNotFound": Exit.WRONG_USE,
    "lora_pipeline.inventory.plan_store.PlanRefused": Exit.REFUSED,
    "lora_pipeline.erasure.belongings.UserNotFound": Exit.WRONG_USE,
    "lora_pipeline.erasure.belongings.ErasureRefused": Exit.REFUSED,
    "lora_pipeline.erasure.receipts.ReceiptNotFound": Exit.WRONG_USE,
    "lora_pipeline.access.keys.KeyRefused": Exit.WRONG_USE,
    "lora_pipeline.lineage.meanings.LineageNotFound": Exit.WRONG_USE,
    "lora_pipeline.lineage.meanings.AmbiguousId": Exit.WRONG_USE,
    "lora_pipeline.stack.ports.PortTaken": Exit.WRONG_USE,
}
"""Class → code; a subclass has its parent's, and what is not here is an error. Names, because importing the
classes would load what the command did not need: an error that was raised has its class loaded anyway."""


def exit_code_of(error: BaseException) -> Exit:
    """The exit code that an error ends a command with."""
    for parent in type(error).__mro__:
        code = CODES.get(f"{parent.__module__}.{parent.__qualname__}")
        if code is not None:
            return code
    return Exit.ERROR


def most_serious(codes: Iterable[Exit]) -> Exit:
    """The one code for a command that did several things."""
    return min(codes, key=_MOST_SERIOUS_FIRST.index, default=Exit.FINE)


def message_of(error: BaseException) -> str:
    """The error in one message for a person, without a traceback or an address with a password."""
    name = type(error).__qualname__
    if name == "ValidationError":
        return _settings_message(error)
    driver = getattr(error, "orig", None)
    if driver is not None and type(error).__module__.startswith("sqlalchemy."):
        # SQLAlchemy appends statement, parameters and a link; the driver's own words are the cause.
        cause = str(driver).strip().splitlines()[0].rstrip(".")
        return f"the database could not do it: {cause}. Check DATABASE_URL, then: lora-pipeline doctor"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return (
            f"{error.filename} cannot be used: {error.strerror}. Look who may write there (LORA_HOME says where "
            "everything is kept), then: lora-pipeline doctor"
        )
    text = str(error).strip()
    return text or f"{name}, without a word. See where with LORA_DEBUG=1"


def _settings_message(error: BaseException) -> str:
    """Every setting that could not be read. The value is not shown: it may be a secret."""
    lines = []
    for problem in getattr(error, "errors", list[dict[str, Any]])():
        name = ".".join(str(part) for part in problem["loc"])
        known = name if name.isupper() else f"LORA_{name.upper()}"
        lines.append(f"{known}: {problem['msg']}")
    return "settings that cannot be read:\n  " + "\n  ".join(lines) if lines else str(error)
