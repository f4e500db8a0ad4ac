from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.versions.rollbacks import PastActivation, step_back


def history(versions: list[int], without_weights: frozenset[int] = frozenset()) -> list[PastActivation]:
    return [
        PastActivation(place, version, version, version not in without_weights, None)
        for place, version in enumerate(versions, 1)
    ]


def rolled_back(past: list[PastActivation]) -> list[PastActivation] | None:
    """The history after one rollback; None where there is nothing to go back to."""
    to = step_back(past).to
    if to is None:
        return None
    return [*past, replace(to, activation_id=len(past) + 1, restores_id=to.place)]


VERSIONS = st.lists(st.integers(1, 4), min_size=1, max_size=12)


@given(VERSIONS, VERSIONS, st.integers(0, 4), st.frozensets(st.integers(1, 4)))
def test_rollbacks_walk_back_through_what_was_served_and_come_to_an_end(
    before: list[int], after: list[int], rollbacks_between: int, without_weights: frozenset[int]
) -> None:
    past = history(before, without_weights)
    for _ in range(rollbacks_between):
        past = rolled_back(past) or past
    past += [
        replace(one, activation_id=len(past) + i) for i, one in enumerate(history(after, without_weights), 1)
    ]
    places = [past[-1].place]
    while (further := rolled_back(past)) is not None:
        past = further
        assert past[-1].version_id != past[-2].version_id
        assert past[-1].has_weights
        places.append(past[-1].place)
    assert places == sorted(places, reverse=True)
    assert len(set(places)) == len(places), "it never comes back to where it was"


@given(VERSIONS)
def test_without_earlier_rollbacks_it_goes_through_every_change_once(versions: list[int]) -> None:
    past = history(versions)
    seen = [versions[-1]]
    while (further := rolled_back(past)) is not None:
        past = further
        seen.append(past[-1].version_id)
    changes = [version for i, version in enumerate(versions) if i == 0 or version != versions[i - 1]]
    assert seen == changes[::-1]
