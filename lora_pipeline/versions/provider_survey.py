"""Looking at the provider: what it has of each model, with as few requests as leave no doubt.

The trainings list is read first: it tells the newest version of a hundred models in one request. A model about
which it leaves a doubt is asked for by itself; a deep survey asks for every model. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lora_pipeline.providers.protocol import TrainingProvider
from lora_pipeline.versions.asking import Asking, Seen
from lora_pipeline.versions.drift import ProviderView
from lora_pipeline.versions.patience import Patience
from lora_pipeline.versions.reading_along import ReadingAlong
from lora_pipeline.versions.sync_targets import SyncTarget
from lora_pipeline.versions.trainings_index import ListedTraining, TrainingsIndex

FEW = 20
"""So many models are asked for one by one: it costs a second, and counts their versions."""
ROUND = 200
_STEP = 300
_LATER = timedelta(hours=1)
"""What a row's own time must exceed the newest training's by before it counts as newer: clocks differ, and older
applications wrote local time as if it were UTC."""


@dataclass
class Survey:
    """What one look at the provider brought."""

    index: TrainingsIndex
    seen: dict[int, Seen] = field(default_factory=dict)
    """By our model's id; models whose own id is malformed are not in it."""
    asked: int = 0

    @property
    def requests(self) -> int:
        """Requests for pages and for single models (one with more than a page of versions takes more)."""
        return self.index.requests + self.asked


@dataclass(frozen=True)
class SurveyRules:
    """How to look."""

    deep: bool = False
    registered: Callable[[Sequence[str]], set[str]] = field(default=lambda _: set())
    """Which of these `owner/name:hash` the registry has: one that it has and does not serve raises a doubt."""
    counted_since: datetime | None = None
    """A deep survey that was interrupted goes on: what was counted since then is not asked for again."""
    go_on: Callable[[], bool] = field(default=lambda: True)
    """Asked between pages and rounds; False ends the survey early."""
    say: Callable[[str], object] = field(default=lambda _: None)
    on_seen: Callable[[dict[int, Seen]], object] = field(default=lambda _: None)
    """Takes what each step brought (by model id), so that it survives an interruption."""


def survey(
    provider: TrainingProvider,
    targets: Sequence[SyncTarget],
    rules: SurveyRules,
    patience: Patience,
    clock: Callable[[], datetime],
) -> Survey:
    """Look at every model that has a readable id. Raises nothing of the provider's: each model says its own."""
    found, steps = survey_in_steps(provider, targets, rules, patience, clock)
    for _ in steps:
        pass
    return found


def survey_in_steps(
    provider: TrainingProvider,
    targets: Sequence[SyncTarget],
    rules: SurveyRules,
    patience: Patience,
    clock: Callable[[], datetime],
) -> tuple[Survey, Iterator[list[SyncTarget]]]:
    """The same step by step: each step is some targets about which all is known now, and every target comes once.

    The list is read on while the caller works on a step: what waits for the provider and what waits for the
    database need not wait for each other.
    """
    models = {target.model for target in targets if target.model is not None}
    found = Survey(TrainingsIndex(provider, models, patience))
    return found, _steps(found, targets, rules, Asking(provider, patience, clock), clock)


def _steps(
    found: Survey,
    targets: Sequence[SyncTarget],
    rules: SurveyRules,
    asking: Asking,
    clock: Callable[[], datetime],
) -> Iterator[list[SyncTarget]]:
    yield [target for target in targets if target.model is None]
    askable = [target for target in targets if target.model is not None]
    if rules.deep or len(askable) <= FEW:
        doubtful = _not_yet_counted(found, askable, rules)
        yield [target for target in askable if target.model_id in found.seen]
    else:
        doubtful = yield from _from_list(found, askable, rules, clock)
    yield from _ask(found, doubtful, rules, asking)


def doubt(target: SyncTarget, listed: ListedTraining | None, *, registered: bool) -> str | None:
    """Why the trainings list alone does not tell a model's latest version; None where it does."""
    if listed is None:
        return "the list shows no training of it that says which version it made"
    served = target.served
    version = served.stored.version
    if version is not None and version.hash == listed.version:
        return None
    if registered:
        return "we have had this version and serve another: it may have been deleted"
    # The registry copies the provider's times; a row that nothing is registered for has its own clock's.
    ours = served.succeeded_at or (target.completed_at - _LATER if target.completed_at else None)
    if listed.completed_at is None or (ours is not None and ours > listed.completed_at):
        return "what is served seems newer than the newest training in the list"
    return None


def _from_list(
    found: Survey, targets: Sequence[SyncTarget], rules: SurveyRules, clock: Callable[[], datetime]
) -> Generator[list[SyncTarget], None, list[SyncTarget]]:
    """Steps of targets whose latest version the list tells; returns those about which it leaves a doubt."""
    index, waiting, doubtful = found.index, list(targets), list[SyncTarget]()
    with ReadingAlong(index, _enough(index, targets, rules)) as reading:
        for _ in reading.pages():
            if index.models_seen - (len(targets) - len(waiting)) < _STEP:
                continue
            ready = [target for target in waiting if index.is_behind(str(target.model))]
            waiting = [target for target in waiting if not index.is_behind(str(target.model))]
            doubtful += _take_from_list(found, ready, rules, clock())
            yield [target for target in ready if target.model_id in found.seen]
    if index.error is not None:
        rules.say(f"the list of trainings could not be read to its end: {index.error}")
    doubtful += _take_from_list(found, waiting, rules, clock())
    yield [target for target in waiting if target.model_id in found.seen]
    return doubtful


def _enough(index: TrainingsIndex, targets: Sequence[SyncTarget], rules: SurveyRules) -> Callable[[], bool]:
    """Until every model was seen, or until asking for the rest one by one is cheaper than reading on."""
    wanted = len({target.model for target in targets})
    seen: list[int] = []

    def enough() -> bool:
        seen.append(index.models_seen)
        if len(seen) % 10 == 0:
            rules.say(f"{index.requests} pages of trainings read, {seen[-1]} of {wanted} models seen")
        return seen[-1] == wanted or not _worth_reading_on(seen, wanted) or not rules.go_on()

    return enough


def _worth_reading_on(seen: Sequence[int], wanted: int) -> bool:
    """Whether a page still shows about one more model: less costs more than asking. `seen` is the count by page.

    Judged over a stretch of pages that is longer the more is missing: other trainings may lie before ours.
    """
    stretch = 5 + (wanted - seen[-1]) // 50
    return len(seen) <= stretch or seen[-1] - seen[-1 - stretch] >= stretch


def _take_from_list(
    found: Survey, targets: Sequence[SyncTarget], rules: SurveyRules, now: datetime
) -> list[SyncTarget]:
    newest = {target.model_id: found.index.newest(str(target.model)) for target in targets}
    known = rules.registered(
        [f"{one.model}:{one.version}" for target in targets if (one := newest[target.model_id]) is not None]
    )
    seen: dict[int, Seen] = {}
    doubtful = []
    for target in targets:
        listed = newest[target.model_id]
        registered = listed is not None and f"{listed.model}:{listed.version}" in known
        if listed is None or doubt(target, listed, registered=registered) is not None:
            doubtful.append(target)
            continue
        view = ProviderView(listed.version, listed.completed_at)
        seen[target.model_id] = Seen(view, now, listed=listed)
    found.seen.update(seen)
    rules.on_seen(seen)
    return doubtful


def _not_yet_counted(found: Survey, targets: Sequence[SyncTarget], rules: SurveyRules) -> list[SyncTarget]:
    left = []
    for target in targets:
        sighting = target.sighting
        counted = sighting.counted_at if sighting and sighting.provider_model == target.model else None
        if sighting and counted and rules.counted_since and counted >= rules.counted_since:
            view = ProviderView(sighting.latest, sighting.latest_at)
            found.seen[target.model_id] = Seen(view, counted, sighting.total, sighting.newest)
        else:
            left.append(target)
    return left


def _ask(
    found: Survey, targets: Sequence[SyncTarget], rules: SurveyRules, asking: Asking
) -> Iterator[list[SyncTarget]]:
    """Ask for these models one by one, a step a round. Models of one name are asked for once."""
    by_name: dict[str, list[SyncTarget]] = {}
    for target in targets:
        by_name.setdefault(str(target.model), []).append(target)
    names = list(by_name)
    for start in range(0, len(names), ROUND):
        if not rules.go_on():
            asking.stop("this survey was ended before it came to this model")
        answers = list(asking.many(names[start : start + ROUND]))
        seen = {target.model_id: answer for name, answer in answers for target in by_name[name]}
        found.seen.update(seen)
        found.asked = asking.asked
        rules.on_seen(seen)
        if len(names) > ROUND:
            rules.say(f"asked for {asking.asked} of {len(names)} models")
        yield [target for name, _ in answers for target in by_name[name]]
