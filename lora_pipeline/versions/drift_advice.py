"""What to do about each verdict: the next command, and what to look at, in the words of the troubleshooting guide."""

from __future__ import annotations

from lora_pipeline.versions.drift import Verdict, Word

TITLES: dict[Word | None, str] = {
    Word.UP_TO_DATE: 'If User Shows "Up to Date" But Quality is Still Bad',
    Word.NEEDS_SYNC: "After Syncing",
    Word.ERROR: 'If User Shows "Error"',
    None: "If No Users Show Up",
}

_QUALITY = (
    "Check if version hash matches Replicate's latest: both are shown above",
    "Check if trigger word is correct: every prompt must contain it",
    "Check if LoRA scale is appropriate: 1.0 is what it was trained for; lower it where images look overdone",
    "User might need to retrain with better images (not a sync issue): lora-pipeline train {model}",
)
_AFTER = (
    "User's replicate_version_id is updated to latest",
    "User's lora_weights_url is updated to match new version",
    'User should now show as "Up to Date"',
)

ADVICE: dict[Verdict, tuple[str, ...]] = {
    Verdict.UP_TO_DATE: _QUALITY,
    Verdict.PINNED: (
        "It is behind on purpose: no sync moves it. See who pinned it, and why: lora-pipeline history {model}",
        "Let it follow the latest again: lora-pipeline unpin {model}, then lora-pipeline sync {model}",
        *_QUALITY[1:],
    ),
    Verdict.AHEAD: ("Nothing to do: the provider's list will show it within the hour", *_QUALITY[1:]),
    Verdict.BEHIND: _AFTER,
    Verdict.MISSING_VERSION: _AFTER,
    Verdict.MALFORMED_VERSION: _AFTER,
    Verdict.TRAINER_VERSION: _AFTER,
    Verdict.PROVIDER_ERROR: (
        "Check Replicate API token is valid: lora-pipeline doctor",
        "Check server logs for specific error: it is quoted above",
        "If it is passing, try again: lora-pipeline why {model}",
    ),
    Verdict.MODEL_NOT_FOUND: (
        "Check if model exists on Replicate, under the account of REPLICATE_API_TOKEN",
        "If it was deleted there, only a retrain brings it back: lora-pipeline train {model}",
    ),
    Verdict.MALFORMED_MODEL_ID: (
        "Check model ID format is correct: replicate_model_id must be owner/name, not a training id and not null",
        "Let sync find it out from the version or the training: lora-pipeline sync {model}",
    ),
    Verdict.NO_VERSIONS: (
        "Its trainings never succeeded, or its versions were deleted: lora-pipeline trainings list --model {model}",
        "Only a retrain makes a version: lora-pipeline train {model}",
    ),
    Verdict.WEIGHTS_MISSING: (
        "Look for its training's weights again: lora-pipeline sync {model}",
        "Where no training has them, serve another version: lora-pipeline activate {model} VERSION",
        "Or make new ones: lora-pipeline train {model}",
    ),
    Verdict.NEVER_TRAINED: (
        "Check if any users have training_status = 'completed'",
        "Check if replicate_model_id is not null",
        "Check database connection: lora-pipeline doctor",
        "See its trainings: lora-pipeline trainings list --model {model}",
    ),
}

NOBODY_LISTED = (
    "Check if any users have training_status = 'completed'",
    "Check if replicate_model_id is not null",
    "Check database connection: lora-pipeline doctor",
)
"""What to look at where a report lists nobody."""


def advice(verdict: Verdict, model_key: str) -> tuple[str, ...]:
    """What to do, most useful first, with the model's key in the commands."""
    return tuple(text.format(model=model_key) for text in ADVICE[verdict])


def next_command(verdict: Verdict, model_key: str) -> str | None:
    """The one command that helps most; None where nothing is to be done."""
    commands: dict[Verdict, str] = {
        Verdict.PROVIDER_ERROR: "lora-pipeline doctor",
        Verdict.MODEL_NOT_FOUND: f"lora-pipeline train {model_key}",
        Verdict.NO_VERSIONS: f"lora-pipeline trainings list --model {model_key}",
        Verdict.NEVER_TRAINED: f"lora-pipeline trainings list --model {model_key}",
        Verdict.PINNED: f"lora-pipeline history {model_key}",
    }
    if verdict in (Verdict.UP_TO_DATE, Verdict.AHEAD):
        return None
    return commands.get(verdict, f"lora-pipeline sync {model_key}")
