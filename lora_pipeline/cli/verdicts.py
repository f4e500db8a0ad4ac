"""What verdicts and outcomes of a sync mean for a command's exit code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lora_pipeline.cli.exits import Exit, most_serious

if TYPE_CHECKING:
    from lora_pipeline.versions.drift import Verdict


def exit_of(verdicts: Iterable[Verdict]) -> Exit:
    """3 where something needs a sync, 6 where the provider has trouble, 1 for every other error."""
    return most_serious(_code(verdict) for verdict in verdicts)


def _code(verdict: Verdict) -> Exit:
    from lora_pipeline.versions.drift import WORDS, Verdict, Word

    if verdict is Verdict.PROVIDER_ERROR:
        return Exit.TRY_AGAIN
    codes = {Word.ERROR: Exit.ERROR, Word.NEEDS_SYNC: Exit.DRIFT}
    word = WORDS[verdict]
    return codes.get(word, Exit.FINE) if word is not None else Exit.FINE
