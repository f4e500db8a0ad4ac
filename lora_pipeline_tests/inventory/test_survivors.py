"""One entry out of several: field by field, with a reason, and nothing lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.inventory.entries import MERGED_IDS, is_empty
from lora_pipeline.inventory.survivors import choose_survivor, merged_entry
from lora_pipeline_tests.inventory.trees import SYNCED_ENTRY, WEBHOOK_ENTRY


def merge(*entries: dict[str, Any], renamed: tuple[int, ...] = ()) -> dict[str, Any]:
    return merged_entry(entries, choose_survivor(entries, range(len(entries)), renamed))


def test_the_webhooks_entry_stays_and_takes_what_only_the_listing_knew() -> None:
    merged = merge(SYNCED_ENTRY, WEBHOOK_ENTRY)
    assert merged == {
        **WEBHOOK_ENTRY,
        "lastSynced": SYNCED_ENTRY["lastSynced"],
        "description": "Synced from S3",
        MERGED_IDS: ["style_1_vV7"],
    }


def test_every_field_says_where_it_came_from_and_why() -> None:
    survivor = choose_survivor([WEBHOOK_ENTRY, SYNCED_ENTRY], (0, 1))
    reasons = {choice.field: (choice.source, choice.reason) for choice in survivor.fields}
    assert reasons["parameters"] == (0, "the entry with detailed parameters")
    assert reasons["id"] == (0, "the provider's job: webhooks find it by this id")
    assert reasons["lastSynced"] == (1, "the latest sync")
    assert set(reasons) == set(WEBHOOK_ENTRY) | set(SYNCED_ENTRY)


def test_a_verdict_on_the_poorer_copy_survives() -> None:
    assert merge(WEBHOOK_ENTRY, {**SYNCED_ENTRY, "isGood": False})["isGood"] is False


def test_completed_at_comes_before_newest() -> None:
    older = {
        "id": "a",
        "timestamp": "2025-01-01T00:00:00Z",
        "completedAt": "2025-01-01T01:00:00Z",
        "name": "old",
    }
    newer = {"id": "b", "timestamp": "2025-06-01T00:00:00.000000Z", "name": "new"}
    assert merge(newer, older)["name"] == "old"
    assert merge(newer, {**older, "completedAt": None})["name"] == "new"


def test_parameters_are_completed_and_never_erased() -> None:
    merged = merge(
        {**WEBHOOK_ENTRY, "parameters": {"network_dim": 16}},
        {**SYNCED_ENTRY, "parameters": {"network_dim": 8, "class_tokens": "style1"}, "completedAt": ""},
    )
    assert merged["parameters"] == {"network_dim": 16, "class_tokens": "style1"}


def test_todays_unsigned_address_is_kept() -> None:
    signed = {**WEBHOOK_ENTRY, "loraUrl": f"{WEBHOOK_ENTRY['loraUrl']}?X-Amz-Signature=0f1e"}
    assert merge(signed, SYNCED_ENTRY)["loraUrl"] == SYNCED_ENTRY["loraUrl"]
    assert merge(WEBHOOK_ENTRY, SYNCED_ENTRY, renamed=(0,))["loraUrl"] == SYNCED_ENTRY["loraUrl"]


def test_a_pending_entry_of_a_completed_job_becomes_completed() -> None:
    assert merge({**WEBHOOK_ENTRY, "status": "pending"}, SYNCED_ENTRY)["status"] == "completed"


def test_somebodys_words_are_kept_before_the_listings() -> None:
    assert (
        merge(
            {**WEBHOOK_ENTRY, "description": "Synced from S3"}, {**SYNCED_ENTRY, "description": "the best"}
        )["description"]
        == "the best"
    )


_values = st.sampled_from(
    [None, "", "x", "2025-01-01T00:00:00Z", "2025-03-01T00:00:00+00:00", 0, False, True]
)
_KEYS = ("completedAt", "timestamp", "lastSynced", "isGood", "description", "own", "loraUrl")
_entries = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from(["a", "b", "3e248bb6-012c-4384-ae6c-4b19c126d093-e1"])},
        optional={
            "parameters": st.dictionaries(st.sampled_from("pqr"), st.integers(0, 3)),
            "status": st.sampled_from(["completed", "pending", "odd"]),
            **dict.fromkeys(_KEYS, _values),
            MERGED_IDS: st.lists(st.sampled_from("xyz")),
        },
    ),
    min_size=1,
    max_size=4,
)


@given(_entries)
def test_no_field_is_lost(entries: list[dict[str, Any]]) -> None:
    merged = merge(*entries)
    for entry in entries:
        for key, value in entry.items():
            assert key in merged or key == MERGED_IDS
            if not is_empty(value):
                assert not is_empty(merged[key])
        for key in entry.get("parameters", {}):
            assert key in merged["parameters"]
        assert {entry["id"], *entry.get(MERGED_IDS, [])} <= {merged["id"], *merged.get(MERGED_IDS, [])}


@given(_entries, st.randoms(use_true_random=False))
def test_the_order_of_the_entries_does_not_matter(entries: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)
    one, other = merge(*entries), merge(*shuffled)
    assert set(one.pop(MERGED_IDS, [])) == set(other.pop(MERGED_IDS, []))
    assert one == other


@given(_entries)
def test_merging_the_survivor_again_changes_nothing(entries: list[dict[str, Any]]) -> None:
    merged = merge(*entries)
    assert merge(merged) == merged
    if len(entries) > 1:
        assert merge(merged, merged) == merged
