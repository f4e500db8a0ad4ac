"""The exploration catches wrong algorithms: what it does not find in ours, it would find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lora_pipeline.providers.protocol import JobState
from lora_pipeline_tests.proofs import mutants
from lora_pipeline_tests.proofs.account import Answer, Conditions, Delivery, Leaves
from lora_pipeline_tests.proofs.exploration import Explorer
from lora_pipeline_tests.proofs.schedules import Setting
from lora_pipeline_tests.proofs.unlisted import UnlistedProvider
from lora_pipeline_tests.proofs.world import OURS, Operations, World

RUNPOD = Conditions("runpod")
JOB = UnlistedProvider.new_id(0)
LATE = Conditions(answers=(Answer.LATE,), late=60, lag=30)


def problems(
    new_world: Callable[..., World],
    setting: Setting,
    operations: Operations,
    disturbances: int = 0,
    pauses: tuple[float, ...] = (),
    until: str | None = None,
) -> dict[str, str]:
    """What goes wrong, each with the schedule that shows it."""
    world = new_world(setting, operations)
    found = Explorer(world, disturbances=disturbances, pauses=pauses, until=until).explore()
    return {problem: setting.line(path) for problem, path in found.wrong.items()}


@pytest.mark.parametrize(
    ("mutant", "setting", "disturbances", "pauses", "problem"),
    [
        pytest.param(
            mutants.BLIND_RETRY,
            Setting(Conditions(answers=(Answer.LOST,))),
            0,
            (),
            "run 1 was paid 2 times",
            id="blind retry after an unclear outcome",
        ),
        pytest.param(
            mutants.RESUBMIT_WITHOUT_LOOKING,
            Setting(Conditions(lag=90)),
            1,
            (),
            "run 1 was paid 2 times",
            id="resubmit without reconciling",
        ),
        pytest.param(mutants.NO_LEASE, Setting(), 1, (0.0,), "run 1 was paid 2 times", id="no lease"),
        pytest.param(
            mutants.HOLD_AFTER_ANY_WALK,
            Setting(Conditions(answers=(Answer.LOST,), busy=3, pages_fail=20)),
            0,
            (),
            "run 1 is held as absent although job0 is listed",
            id="hold without a covering walk",
        ),
        pytest.param(
            mutants.FIXED_CADENCE,
            Setting(LATE, "hasty"),
            0,
            (),
            "run 1 was paid 2 times",
            id="fixed cadence",
        ),
        pytest.param(
            mutants.ACKNOWLEDGE_WHAT_IS_EMITTED,
            Setting(),
            1,
            (),
            "acknowledged, and Dagster never stored it: ['training:1:submitted']",
            id="acknowledge in the emitting evaluation",
        ),
        pytest.param(
            mutants.SERVE_THEN_VERIFY,
            Setting(Conditions(deliveries=(Delivery.CUT,))),
            0,
            (),
            "user-0 serves V1, whose weights are unverified",
            id="activate before verification",
        ),
        pytest.param(
            mutants.TRUST_THE_EMPTY_LIST,
            Setting(replace(RUNPOD, answers=(Answer.LOST,)), resubmit_after=600),
            0,
            (),
            "run 1 was paid 2 times",
            id="resubmit because the list is empty",
        ),
        pytest.param(
            mutants.TRUST_THE_EMPTY_LIST,
            Setting(replace(RUNPOD, answers=(Answer.LOST,))),
            0,
            (),
            f"run 1 is held, and {JOB} is forgotten",
            id="ignore the object of an unknown submission",
        ),
        pytest.param(
            mutants.FAIL_WHAT_IS_DENIED,
            Setting(RUNPOD, "asleep"),
            0,
            (),
            f"run 1 is failed, and the weights of {JOB} are forgotten",
            id="404 means failed",
        ),
        pytest.param(
            mutants.BELIEVE_THE_STATUS,
            Setting(replace(RUNPOD, outcome=JobState.FAILED)),
            0,
            (),
            f"run 1 is failed, and the weights of {JOB} are forgotten",
            id="timed out means failed",
        ),
        pytest.param(
            mutants.REGISTER_WHAT_IS_COMPLETED,
            Setting(replace(RUNPOD, leaves=Leaves.NOTHING)),
            0,
            (),
            "user-0 serves V1, whose weights are unverified",
            id="completed means that the object is there",
        ),
        pytest.param(
            mutants.NOTE_THE_LOOK_FIRST,
            Setting(replace(RUNPOD, answers=(Answer.LOST,), length=2_400), "away"),
            1,
            (),
            f"run 1 is held, and {JOB} is forgotten",
            id="a look is noted before its find is adopted",
        ),
    ],
)
def test_a_wrong_algorithm_is_caught(
    mutant: Operations,
    setting: Setting,
    disturbances: int,
    pauses: tuple[float, ...],
    problem: str,
    new_world: Callable[..., World],
) -> None:
    assert problem in problems(new_world, setting, mutant, disturbances, pauses, until=problem)


@pytest.mark.parametrize(
    "conditions",
    [
        LATE,
        Conditions(answers=(Answer.LOST,), busy=3, pages_fail=20),
        replace(RUNPOD, answers=(Answer.LOST,)),
    ],
    ids=["late", "cut list", "no list"],
)
def test_the_right_algorithm_is_not(conditions: Conditions, new_world: Callable[..., World]) -> None:
    assert not problems(new_world, Setting(conditions, "hasty"), OURS)


def test_a_fixed_cadence_would_let_a_mutant_live(new_world: Callable[..., World]) -> None:
    """Why the cadence varies: at a steady thirty seconds, counting looks cannot be told from measuring time."""
    assert not problems(new_world, Setting(LATE, "steady"), mutants.FIXED_CADENCE)
