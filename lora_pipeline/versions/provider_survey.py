"""Looking at the provider: what it has of each model, with as few requests as leave no doubt.

The trainings list is read first: it tells the newest version of a hundred models in one request. A model about
which it leaves a doubt is asked for by itself; a deep survey asks for every model. Nothing is decided here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lora_pipeline.providers.protocol import (
    InsufficientCredit,
    NotFound,
    ProviderError,
    Throttled,
    TrainingProvider,
    Unauthenticated,
)
from lora_pipeline.versions.drift import ProviderView, Trouble
from lora_pipeline.versions.patience import Patience
from lora_pipeline.versions.sync_targets import SyncTarget
from lora_pipeline.versions.trainings_index import ListedTraining, TrainingsIndex

FEW = 20
"""So many models are asked for one by one: it costs a second, and counts their versions."""
THREADS = 8
NEWEST = 5
MAX_VERSIONS = 2_000
OUTAGE = 10
"""After so many failures in a row nobody is asked any more: the provider has trouble, not the models."""
_ROUND = 200
_LATER = timedelta(hours=1)
"""What a row's own time must exceed the newest training's by before it counts as newer: clocks differ, and older
applications wrote local time as if it were UTC."""


@dataclass(frozen=True)
class Seen:
    """What was seen of one model."""

    view: ProviderView
    seen_at: datetime
    total: int | None = None
    """Versions over all pages; None where they were not counted now."""
    newest: tuple[tuple[str, datetime | None], ...] = ()
    listed: ListedTraining | None = None
    """The newest training of the model, where the trainings list was what told its latest version."""


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
    on_asked: Callable[[dict[int, Seen]], object] = field(default=lambda _: None)
    """Takes what a round of single questions brought, so that it survives an interruption."""


def survey(
    provider: TrainingProvider,
    targets: Sequence[SyncTarget],
    rules: SurveyRules,
    patience: Patience,
    clock: Callable[[], datetime],
) -> Survey:
    """Look at every model that has a readable id. Raises nothing of the provider's: each model says its own."""
    askable = [target for target in targets if target.model is not None]
    found = Survey(TrainingsIndex(provider, {str(target.model) for target in askable}, patience))
    if rules.deep or len(askable) <= FEW:
        doubtful = _not_yet_counted(found, askable, rules)
    else:
        _read_list(found.index, askable, rules)
        doubtful = _take_from_list(found, askable, rules, clock())
    _ask(found, provider, doubtful, rules, patience, clock)
    return found


def ask_model(provider: TrainingProvider, model: str, now: datetime) -> Seen:
    """All versions of one model. Raises Throttled, Unauthenticated and InsufficientCredit; the rest is an answer."""
    newest: list[tuple[str, datetime | None]] = []
    known: set[str] = set()
    try:
        for version in provider.list_versions(model):
            if len(newest) < NEWEST:
                newest.append((version.id, version.created_at))
            known.add(version.id)
            if len(known) >= MAX_VERSIONS:
                break
    except (Throttled, Unauthenticated, InsufficientCredit):
        raise
    except NotFound as error:
        return Seen(ProviderView(trouble=Trouble.MODEL_NOT_FOUND, message=str(error)), now)
    except ProviderError as error:
        return Seen(ProviderView(trouble=Trouble.PROVIDER_ERROR, message=str(error)), now)
    latest, latest_at = newest[0] if newest else (None, None)
    return Seen(ProviderView(latest, latest_at, frozenset(known)), now, len(known), tuple(newest))


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


def _read_list(index: TrainingsIndex, targets: Sequence[SyncTarget], rules: SurveyRules) -> None:
    """Read until every model was seen, or until asking for the rest one by one is cheaper than reading on."""
    wanted = len({target.model for target in targets})
    seen: list[int] = []

    def enough() -> bool:
        seen.append(index.models_seen)
        if len(seen) % 10 == 0:
            rules.say(f"{index.requests} pages of trainings read, {seen[-1]} of {wanted} models seen")
        return seen[-1] == wanted or not _worth_reading_on(seen, wanted) or not rules.go_on()

    index.read(enough)
    if index.error is not None:
        rules.say(f"the list of trainings could not be read to its end: {index.error}")


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
    doubtful = []
    for target in targets:
        listed = newest[target.model_id]
        registered = listed is not None and f"{listed.model}:{listed.version}" in known
        if listed is None or doubt(target, listed, registered=registered) is not None:
            doubtful.append(target)
            continue
        view = ProviderView(listed.version, listed.completed_at)
        found.seen[target.model_id] = Seen(view, now, listed=listed)
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
    found: Survey,
    provider: TrainingProvider,
    targets: Sequence[SyncTarget],
    rules: SurveyRules,
    patience: Patience,
    clock: Callable[[], datetime],
) -> None:
    """Ask for these models one by one, a few at a time. Models of one name are asked for once."""
    asking = _Asking(provider, patience, clock)
    by_name: dict[str, list[SyncTarget]] = {}
    for target in targets:
        by_name.setdefault(str(target.model), []).append(target)
    with ThreadPoolExecutor(THREADS) as pool:
        for names in _rounds(list(by_name)):
            if not rules.go_on():
                asking.stop("this survey was ended before it came to this model")
            answers = zip(names, pool.map(asking.one, names), strict=True)
            seen = {target.model_id: answer for name, answer in answers for target in by_name[name]}
            found.seen.update(seen)
            found.asked = asking.asked
            rules.on_asked(seen)
            if len(by_name) > _ROUND:
                rules.say(f"asked for {asking.asked} of {len(by_name)} models")


def _rounds(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _ROUND):
        yield names[start : start + _ROUND]


class _Asking:
    """Single questions with a memory of how the last ones ended."""

    def __init__(self, provider: TrainingProvider, patience: Patience, clock: Callable[[], datetime]) -> None:
        self._provider = provider
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._stopped: str | None = None
        self.asked = 0

    def stop(self, reason: str) -> None:
        """Ask nothing more; every model left says why."""
        self._stopped = self._stopped or reason

    def one(self, model: str) -> Seen:
        while self._stopped is None:
            with self._lock:
                self.asked += 1
            try:
                answer = ask_model(self._provider, model, self._clock())
            except Throttled as error:
                if not self._patience.outlast(error):
                    self.stop(str(error))
                continue
            except ProviderError as error:
                # The token or the account: true of every model.
                self.stop(str(error))
                break
            self._count(answer)
            return answer
        message = self._stopped or ""
        return Seen(ProviderView(trouble=Trouble.PROVIDER_ERROR, message=message), self._clock())

    def _count(self, answer: Seen) -> None:
        failed = answer.view.trouble is Trouble.PROVIDER_ERROR
        with self._lock:
            self._failures = self._failures + 1 if failed else 0
            if self._failures >= OUTAGE:
                self.stop(
                    f"not asked, since {OUTAGE} requests failed in a row; the last: {answer.view.message}"
                )
