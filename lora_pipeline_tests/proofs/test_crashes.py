"""Every crash schedule of a training's life: paid once, never forgotten, and at its true end or held.

The provider is inside the test process (see `account`): thousands of schedules over HTTP would take an hour. What is
killed, paused and answered here is the package's own submission, following, reconciliation, finalisation,
activation and outbox, on SQLite; a sample runs on SQLite files and PostgreSQL. The number of schedules is printed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from lora_pipeline.providers.protocol import JobState
from lora_pipeline_tests.proofs.account import Answer, Conditions, Delivery, Leaves
from lora_pipeline_tests.proofs.exploration import Explorer
from lora_pipeline_tests.proofs.invariants import Course, broken_rules, states_of, unfinished
from lora_pipeline_tests.proofs.schedules import Setting, world_of
from lora_pipeline_tests.proofs.steps import SteppedDatabase, Steps
from lora_pipeline_tests.proofs.world import MAX_TICKS, QUIET, Fate, Path, World

A, D, L = Answer, Delivery, Leaves
RUNPOD = Conditions("runpod")
LAGS = (0.0, 90.0, 2_000.0, 10_800.0)
HALF_HOUR, DAY = 1_800.0, 86_400.0

PAIRS = [
    Setting(Conditions(deliveries=(D.CUT,))),
    Setting(Conditions(answers=(A.LOST,), presigns=False, lag=2_000)),
]
SINGLES = [
    Setting(Conditions(answers=(A.LOST,), lag=90), "hasty"),
    Setting(Conditions(answers=(A.LOST,), lag=10_800, presigns=False), "hasty"),
    Setting(Conditions(answers=(A.LATE,), late=5_000, lag=90)),
    Setting(Conditions(answers=(A.LATE,), late=1_000, deliveries=(D.CUT,))),
    Setting(Conditions(answers=(A.NEVER,))),
    Setting(Conditions(answers=(A.THROTTLED, A.LOST), presigns=False)),
    Setting(Conditions(answers=(A.NO_MODEL, A.LATE), lag=2_000)),
    Setting(Conditions(answers=(A.REFUSED,), presigns=False)),
    Setting(Conditions(answers=(A.BROKE, A.LOST))),
    Setting(Conditions(answers=(A.LOCKED_OUT,), uploads=(False,), presigns=False)),
    Setting(Conditions(deliveries=(D.PAGE, D.GONE, D.CUT), output_after=900)),
    Setting(Conditions(deliveries=(D.CUT,) * 6)),
    Setting(Conditions(answers=(A.LOST,), outcome=JobState.ABORTED, busy=3, pages_fail=5)),
    Setting(Conditions(outcome=JobState.CANCELED, answers=(A.LOST,), page_seconds=30)),
    Setting(Conditions(), store_fails=3),
    Setting(Conditions(answers=(A.NEVER,)), "asleep"),
    Setting(Conditions(answers=(A.LOST,), busy=3), "asleep"),
]
UNLISTED = [
    Setting(replace(RUNPOD, answers=(A.LOST,), leaves=L.UNNAMED, looks=(False, True, False)), "hasty"),
    Setting(replace(RUNPOD, answers=(A.LOST,), length=2_400, looks=(True, True, False)), "away"),
    Setting(replace(RUNPOD, answers=(A.LATE,), late=5_000, webhooks=True), resubmit_after=600),
    Setting(replace(RUNPOD, length=5_000, vanishes=300, deliveries=(D.CUT,))),
    Setting(replace(RUNPOD, outcome=JobState.FAILED), "asleep"),
    Setting(
        replace(RUNPOD, answers=(A.THROTTLED,), reads=(A.NEVER, A.LOCKED_OUT, A.GIVEN), leaves=L.NOTHING)
    ),
]
HEARD = Setting(replace(RUNPOD, answers=(A.LOST,), outcome=JobState.FAILED))
"""A job that is cut off and leaves its weights all the same."""
OVERTAKEN = Setting(Conditions(answers=(A.LOST,), uploads=(False,), presigns=False, lag=2_000))
"""The first upload fails while a second submitter's request is under way, and the list shows it late."""


def named(setting: object) -> str | None:
    return setting.name or "usual" if isinstance(setting, Setting) else None


def explore(
    world: World,
    setting: Setting,
    disturbances: int,
    pauses: tuple[float, ...] = (),
    pause_until: int = MAX_TICKS,
    webhooks: bool = False,
) -> int:
    """All schedules; fails with one line for each thing that went wrong, which `replay` runs again."""
    found = Explorer(
        world, disturbances=disturbances, pauses=pauses, pause_until=pause_until, webhooks=webhooks
    ).explore()
    kinds = "crashes, pauses or webhooks" if webhooks else "crashes or pauses"
    print(f"{found.schedules:,} schedules of at most {disturbances} {kinds}, through {found.states:,} states")
    wrong = [f"{problem}\n  {setting.line(path)}" for problem, path in found.wrong.items()]
    assert not wrong, "\n".join(wrong)
    return found.schedules


@pytest.mark.parametrize("setting", PAIRS, ids=named)
def test_no_two_crashes_pay_twice_or_forget(setting: Setting, new_world: Callable[..., World]) -> None:
    assert explore(new_world(setting), setting, 2) > 400


@pytest.mark.parametrize("setting", [*SINGLES, *UNLISTED], ids=named)
def test_no_crash_pays_twice_or_forgets(setting: Setting, new_world: Callable[..., World]) -> None:
    assert explore(new_world(setting), setting, 1) > 5


def test_no_webhook_at_any_moment_pays_twice_or_forgets(new_world: Callable[..., World]) -> None:
    assert explore(new_world(HEARD), HEARD, 1, webhooks=True, pause_until=3) > 80


def test_a_process_that_sleeps_beyond_its_lease_while_another_works_undoes_nothing(
    new_world: Callable[..., World],
) -> None:
    assert explore(new_world(OVERTAKEN), OVERTAKEN, 1, (400.0,), pause_until=2) > 50


WAIT = 600.0


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(answers=(A.LOST,), lag=90),
        Conditions(answers=(A.LATE,), late=400, lag=90),
        # The list takes longer to read than the wait is long: it says nothing about what came meanwhile.
        Conditions(answers=(A.LOST,), lag=90, page_seconds=700),
        # What cannot be read may be the very training that is missed.
        Conditions(answers=(A.LOST,), garbled=6),
    ],
    ids=["listed late", "landing late", "read slowly", "unreadable"],
)
def test_an_opted_in_resubmission_pays_once_where_it_waits_longer_than_the_provider_takes(
    conditions: Conditions, new_world: Callable[..., World]
) -> None:
    setting = Setting(conditions, resubmit_after=WAIT)
    assert explore(new_world(setting), setting, 1) > 20


def test_an_opted_in_resubmission_pays_twice_where_the_list_lags_longer_than_it_waits(
    new_world: Callable[..., World],
) -> None:
    """Why it is opted in to: no provider promises how late a training is listed or a request lands."""
    setting = Setting(Conditions(answers=(A.LOST,), lag=2_000), resubmit_after=WAIT)
    found = Explorer(new_world(setting), disturbances=0, may_pay_twice=False).explore()
    assert "run 1 was paid 2 times" in found.wrong


@pytest.mark.deep
@pytest.mark.parametrize(
    ("lag", "presigns", "cadence"),
    [(90.0, False, "calm"), (2_000.0, True, "hasty"), (10_800.0, False, "calm")],
)
@pytest.mark.parametrize("answer", [A.GIVEN, A.LOST, A.LATE, A.NEVER, A.THROTTLED, A.NO_MODEL])
def test_no_two_crashes_pay_twice_or_forget_whatever_the_provider_does(
    answer: Answer, lag: float, presigns: bool, cadence: str, new_world: Callable[..., World]
) -> None:
    conditions = Conditions(answers=(answer,), lag=lag, presigns=presigns, late=lag + 100)
    setting = Setting(conditions, cadence)
    explore(new_world(setting), setting, 2)


BEGUN = (A.GIVEN, A.LOST, A.LATE)
"""Answers after which a job is at work: only then can it end in different ways."""
AT_RUNPOD = [
    *(
        (answer, leaves, end)
        for answer in BEGUN
        for leaves in L
        for end in (JobState.SUCCEEDED, JobState.FAILED)
    ),
    *((answer, L.NAMED, JobState.SUCCEEDED) for answer in (A.NEVER, A.THROTTLED, A.BROKE)),
]


@pytest.mark.deep
@pytest.mark.parametrize("cadence", ["calm", "away"])
@pytest.mark.parametrize(("answer", "leaves", "outcome"), AT_RUNPOD)
def test_no_two_crashes_pay_twice_or_forget_whatever_runpod_does(
    answer: Answer, leaves: Leaves, outcome: JobState, cadence: str, new_world: Callable[..., World]
) -> None:
    conditions = replace(RUNPOD, answers=(answer,), leaves=leaves, outcome=outcome, length=2_400, late=1_300)
    setting = Setting(conditions, cadence)
    explore(new_world(setting), setting, 2)


@pytest.mark.deep
@pytest.mark.parametrize(("answer", "tells_token"), [(A.GIVEN, True), (A.LOST, False), (A.LATE, False)])
@pytest.mark.parametrize(("outcome", "cadence"), [(JobState.SUCCEEDED, "hasty"), (JobState.FAILED, "away")])
@pytest.mark.parametrize("leaves", list(L))
def test_no_webhook_pays_twice_or_forgets_whatever_runpod_does(
    answer: Answer,
    leaves: Leaves,
    outcome: JobState,
    cadence: str,
    tells_token: bool,
    new_world: Callable[..., World],
) -> None:
    conditions = replace(RUNPOD, answers=(answer,), leaves=leaves, outcome=outcome, tells_token=tells_token)
    setting = Setting(replace(conditions, webhooks=True), cadence)
    explore(new_world(setting), setting, 1, webhooks=True)


@pytest.mark.deep
@pytest.mark.parametrize("setting", [PAIRS[0], UNLISTED[0], HEARD], ids=named)
def test_no_crash_and_webhook_together_pay_twice_or_forget(
    setting: Setting, new_world: Callable[..., World]
) -> None:
    explore(new_world(setting), setting, 2, webhooks=True)


@pytest.mark.deep
@pytest.mark.parametrize("pause", [0.0, 400.0, 1_000.0])
@pytest.mark.parametrize("setting", [OVERTAKEN, *PAIRS, *UNLISTED[:3], HEARD], ids=named)
def test_no_pause_of_any_length_pays_twice_or_forgets(
    setting: Setting, pause: float, new_world: Callable[..., World]
) -> None:
    explore(new_world(setting), setting, 1, (pause,))


@pytest.mark.deep
def test_no_three_crashes_pay_twice_or_forget(new_world: Callable[..., World]) -> None:
    setting = Setting(Conditions(answers=(A.LOST,), presigns=False, lag=2_000))
    assert explore(new_world(setting), setting, 3) > 5_000


@pytest.mark.parametrize("setting", [PAIRS[1]], ids=named)
def test_a_kill_at_any_boundary_leaves_a_state_that_was_explored(
    setting: Setting, new_world: Callable[..., World]
) -> None:
    """A real exception at every boundary: before each effect, after it, and before each commit."""
    world = new_world(setting)
    explorer = Explorer(world, disturbances=1)
    start = explorer.place(())
    explorer.explore()
    explorer.restore(start)
    kills = 0
    while not world.settled():
        before = explorer.place(())
        world.disturbed_tick(QUIET)
        boundaries = world.steps.all
        for at in range(boundaries):
            explorer.restore(before)
            world.disturbed_tick(Fate(killed_before=at))
            assert world.steps.all == at + 1, "it went on after it was killed"
            world.wait()
            assert explorer.knows(explorer.place(())), setting.line(
                (*(QUIET,) * world.ticks, Fate(killed_before=at))
            )
            kills += 1
        explorer.restore(before)
        world.disturbed_tick(QUIET)
        world.wait()
    assert kills > 80


@pytest.mark.deep
@pytest.mark.parametrize("setting", [*PAIRS, *SINGLES[::5], *UNLISTED[::3]], ids=named)
def test_a_process_killed_at_any_boundary_forgets_nothing(
    setting: Setting, new_world: Callable[..., World]
) -> None:
    boundaries = quiet_boundaries(new_world(setting))
    for tick, count in enumerate(boundaries):
        for at in range(count):
            path = (*(QUIET,) * tick, Fate(killed_before=at))
            run(new_world(setting), setting, path)


@pytest.mark.parametrize(
    ("provider", "seed"),
    [
        *(("replicate", seed) for seed in range(8)),
        ("runpod", 1),
        ("runpod", 2),
        *(pytest.param("runpod", seed, marks=pytest.mark.deep) for seed in range(3, 20)),
    ],
)
def test_sampled_schedules_on_both_databases(provider: str, seed: int, database_address: str) -> None:
    chance = random.Random(seed)
    database = SteppedDatabase(database_address, Steps())
    answer = chance.choice([A.GIVEN, A.LOST, A.LATE, A.NEVER, A.THROTTLED])
    lag = chance.choice(LAGS)
    conditions = Conditions(
        answers=(answer,), lag=lag, late=chance.choice((100.0, 3_000.0)), presigns=chance.random() < 0.5
    )
    if provider == "runpod":
        leaves, told = chance.choice(list(L)), chance.random() < 0.5
        conditions = replace(conditions, provider=provider, presigns=True, leaves=leaves, webhooks=told)
    setting = Setting(conditions, chance.choice(["hasty", "calm"]))
    path = tuple(random_fate(chance) for _ in range(chance.randint(1, 4)))
    run(world_of(setting, database), setting, path)
    database.close()


def random_fate(chance: random.Random) -> Fate:
    return chance.choice(
        [
            QUIET,
            Fate(killed=chance.randint(0, 9)),
            Fate(killed_before=chance.randint(0, 20)),
            Fate(heard=chance.randint(0, 9)),
        ]
    )


def run(world: World, setting: Setting, path: Path) -> None:
    """One schedule from the start, then quiet ticks to the end; the rules hold after each tick."""
    course = Course()
    wrong: list[str] = []
    while not world.settled():
        assert world.ticks < MAX_TICKS, f"never at rest: {setting.line(path)}"
        world.disturbed_tick(path[world.ticks] if world.ticks < len(path) else QUIET)
        wrong += [*course.step(states_of(world)), *broken_rules(world)]
        world.wait()
    wrong += unfinished(world)
    assert not wrong, f"{wrong}\n  {setting.line(path)}"


def quiet_boundaries(world: World) -> list[int]:
    """How many boundaries each tick of a life without crashes has."""
    counts = []
    while not world.settled():
        world.disturbed_tick(QUIET)
        counts.append(world.steps.all)
        world.wait()
    return counts
