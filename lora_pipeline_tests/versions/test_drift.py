"""Drift verdicts as a rule: precedence, the three words, and what is never called up to date."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.versions.drift import (
    AHEAD_FOR,
    WORDS,
    Drift,
    ProviderView,
    ServedVersion,
    Trouble,
    Verdict,
    Word,
    judge,
    never_trained,
)
from lora_pipeline.versions.drift_advice import ADVICE, TITLES, advice, next_command
from lora_pipeline.versions.formats import KNOWN_TRAINERS, read_stored

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OLD, MIDDLE, NEW = "a" * 64, "b" * 64, "c" * 64
MODEL = "acme/user-50c-selfie-lora"
TRAINER = KNOWN_TRAINERS[0].hash
SEEN = ProviderView(latest=NEW, latest_at=NOW - timedelta(days=1), known=frozenset([OLD, MIDDLE, NEW]))


def served(version: str | None = OLD, model: str | None = MODEL, **facts: object) -> ServedVersion:
    values = {"weights_url": "s3://loras/x.safetensors"} | facts
    return ServedVersion(read_stored(model, version), **values)  # type: ignore[arg-type]


def verdict(of: ServedVersion, view: ProviderView = SEEN) -> Verdict:
    return judge(of, view, NOW).verdict


def test_the_latest_is_up_to_date_and_an_old_one_is_behind() -> None:
    assert verdict(served(NEW)) is Verdict.UP_TO_DATE
    assert verdict(served(OLD)) is Verdict.BEHIND


@pytest.mark.parametrize("spelled", [f"user-50c-selfie-lora:{NEW}", f"{MODEL}:{NEW}", NEW.upper()])
def test_a_spelling_is_no_drift(spelled: str) -> None:
    assert verdict(served(spelled)) is Verdict.UP_TO_DATE


def test_what_is_stored_wrongly_needs_sync() -> None:
    assert verdict(served(None, weights_url=None)) is Verdict.MISSING_VERSION
    assert verdict(served("925da5f5")) is Verdict.MALFORMED_VERSION
    assert verdict(served(TRAINER)) is Verdict.TRAINER_VERSION


def test_a_pin_is_a_choice_and_not_drift() -> None:
    assert verdict(served(OLD, pinned=True)) is Verdict.PINNED
    assert verdict(served(NEW, pinned=True)) is Verdict.UP_TO_DATE


def test_a_pin_does_not_hide_what_is_malformed() -> None:
    assert verdict(served("925da5f5", pinned=True)) is Verdict.MALFORMED_VERSION
    assert verdict(served(TRAINER, pinned=True)) is Verdict.TRAINER_VERSION


def test_a_version_whose_training_has_just_succeeded_is_ahead() -> None:
    fresh = served("d" * 64, succeeded_at=NOW - timedelta(minutes=5))
    assert verdict(fresh) is Verdict.AHEAD
    assert verdict(fresh, ProviderView(latest=None, known=frozenset())) is Verdict.AHEAD


def test_a_version_that_left_the_providers_list_is_behind() -> None:
    gone = judge(served("d" * 64, succeeded_at=NOW - AHEAD_FOR * 2), SEEN, NOW)
    assert gone.verdict is Verdict.BEHIND
    assert "no longer at the provider" in gone.detail


def test_an_older_version_in_the_list_is_never_ahead() -> None:
    assert verdict(served(OLD, succeeded_at=NOW)) is Verdict.BEHIND


@pytest.mark.parametrize("trouble", Trouble)
@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("version", [NEW, OLD, None, TRAINER, "925da5f5"])
def test_trouble_at_the_provider_is_an_error_whatever_is_stored(
    trouble: Trouble, pinned: bool, version: str | None
) -> None:
    found = judge(served(version, pinned=pinned), ProviderView(trouble=trouble, message="why"), NOW)
    assert (found.word, found.needs_sync, found.detail) == (Word.ERROR, None, "why")


def test_errors_of_our_own_rows() -> None:
    assert verdict(served(NEW, model="k8sy6bgx31rm80cr2cwbn2bqkw")) is Verdict.MALFORMED_MODEL_ID
    assert verdict(served(NEW, model=None)) is Verdict.MALFORMED_MODEL_ID
    assert verdict(served(NEW), ProviderView()) is Verdict.NO_VERSIONS
    assert verdict(served(NEW, weights_url=None)) is Verdict.WEIGHTS_MISSING
    assert verdict(served(NEW, weights_state="missing")) is Verdict.WEIGHTS_MISSING
    assert verdict(served(NEW, weights_url=f"https://replicate.delivery/xezq/{NEW}/trained_model.tar")) is (
        Verdict.WEIGHTS_MISSING
    )


def test_the_vocabulary_and_its_words_are_complete() -> None:
    assert [word.value for word in Word] == ["Up to Date", "Needs Sync", "Error"]
    assert set(WORDS) == set(Verdict) == set(ADVICE)
    by_word = {word: {verdict for verdict, shown in WORDS.items() if shown is word} for word in (*Word, None)}
    assert by_word[Word.UP_TO_DATE] == {Verdict.UP_TO_DATE, Verdict.PINNED, Verdict.AHEAD}
    assert by_word[Word.NEEDS_SYNC] == {
        Verdict.BEHIND,
        Verdict.MISSING_VERSION,
        Verdict.MALFORMED_VERSION,
        Verdict.TRAINER_VERSION,
    }
    assert by_word[None] == {Verdict.NEVER_TRAINED}
    assert set(TITLES) == {*Word, None}


@pytest.mark.parametrize("of", Verdict)
def test_every_verdict_says_what_to_do(of: Verdict) -> None:
    texts = advice(of, "user-50c")
    assert texts
    assert not any("{" in text for text in texts)
    if Drift(of, "").word is not Word.UP_TO_DATE:
        assert next_command(of, "user-50c")


@given(
    version=st.sampled_from([None, OLD, NEW, TRAINER, "short", f"{MODEL}:{NEW}"]),
    model=st.sampled_from([MODEL, None, "nonsense id"]),
    weights=st.sampled_from([None, "unknown", "s3://b/k"]),
    state=st.sampled_from([None, "unverified", "verified", "missing"]),
    pinned=st.booleans(),
    succeeded=st.none() | st.sampled_from([NOW, NOW - timedelta(days=9)]),
    latest=st.sampled_from([None, NEW]),
    known=st.sampled_from([None, frozenset[str](), frozenset([OLD, NEW])]),
    trouble=st.none() | st.sampled_from(Trouble),
)
def test_up_to_date_only_where_everything_is_well(
    version: str | None,
    model: str | None,
    weights: str | None,
    state: str | None,
    pinned: bool,
    succeeded: datetime | None,
    latest: str | None,
    known: frozenset[str] | None,
    trouble: Trouble | None,
) -> None:
    of = ServedVersion(read_stored(model, version), weights, state, pinned, succeeded)
    view = ProviderView(latest, None, known, trouble, "why")
    found = judge(of, view, NOW)
    if found.word is Word.UP_TO_DATE:
        assert trouble is None
        assert of.stored.canonical_version
        assert weights == "s3://b/k"
        assert state != "missing"
    if found.verdict is Verdict.UP_TO_DATE:
        assert of.stored.version is not None
        assert of.stored.version.hash == latest
    # A pin changes nothing but drift itself.
    unpinned = judge(replace(of, pinned=False), view, NOW)
    if unpinned.verdict not in (Verdict.BEHIND, Verdict.AHEAD):
        assert unpinned.verdict is found.verdict or not pinned


def test_never_trained_is_listed_nowhere() -> None:
    assert never_trained("pending").word is None
    assert never_trained("pending").needs_sync is None


def test_precedence_over_every_combination() -> None:
    """Error, then what is stored, then the pin, then what is newer."""
    rank = {Word.ERROR: 0, Word.NEEDS_SYNC: 1, Word.UP_TO_DATE: 2}
    for version, pinned in product([None, "short", TRAINER], [True, False]):
        assert rank[judge(served(version, pinned=pinned), SEEN, NOW).word or Word.ERROR] == 1
