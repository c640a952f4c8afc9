"""Another way to aggregate, tried on stored rounds and scored on the rows that came after each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from flead.analysis import due
from flead.analysis.due import Offsets, Ranges, Trained
from flead.analysis.evaluation import Scoring, evaluate_devices, usable
from flead.analysis.paired import LossDifference, added_up, difference_of, pairs_of
from flead.analysis.sent_rows import read_rows, rows_between
from flead.contracts.messages import Moments
from flead.contracts.schema import ROLLING_ROWS
from flead.contracts.topics import Topic
from flead.federation.gate import PairedLoss
from flead.federation.strategy import Strategy
from flead.learning.fleet import PublishedModel
from flead.messaging.client import Properties
from flead.messaging.reading import offset_ranges
from flead.rounds.replay import NotReplayableError, weights_by
from flead.settings import Settings
from flead.stack.addresses import Addresses
from flead.stack.home import Home
from flead.stack.service import StackError
from flead.storage import evaluations, models
from flead.storage.connection import Cursor, connect
from flead.storage.migrations import migrate
from flead.storage.models import StoredModel

TRIED: Final = 0
"""Version of the model that was never published: no stored one has it."""

NO_ROWS: Final = "no row with a label has come since"


class TriedRound(msgspec.Struct, frozen=True):
    """A round with both results on the labelled rows between its version and the next.

    `strategy` and `options` are those that it was made with. `difference` is None where the round
    cannot be compared, for the `reason`.
    """

    round: int
    version: int
    strategy: str
    options: Mapping[str, Any]
    difference: LossDifference | None
    reason: str | None


class TriedStrategy(msgspec.Struct, frozen=True):
    """What a strategy would have made of each round, oldest first, and all of them together.

    In `difference` the model is the one that was tried, the reference the one that was made.
    """

    strategy: str
    options: Mapping[str, Any]
    rounds: list[TriedRound]
    difference: LossDifference


@dataclass(frozen=True, slots=True)
class _Window:
    """A round's two models, and the rows to score them on: those from `start` to before `end`."""

    made: StoredModel
    tried: PublishedModel
    warm_up: Offsets
    start: Offsets
    end: Offsets
    moments: Mapping[str, Moments]


def try_strategy(home: Home, strategy: Strategy, count: int) -> TriedStrategy:
    """Aggregate the newest stored rounds again with a strategy, and compare it with what they made.

    Each round goes on from the parent that it had. Both results are scored, as `model_evaluation`
    scores versions, on rows that neither was trained on, up to where the training of the next
    version ended. Nothing is stored or adopted.

    Raises
    ------
    StackError
        There is no model, or no labelled row to compare any of the rounds by.
    TopicRewoundError
        A version was trained beyond the end of the topic.
    """
    addresses, settings = Addresses.of(home), Settings.from_environment()
    kafka = {"bootstrap.servers": addresses.kafka_bootstrap}
    migrate(addresses.database_url)
    windows, reasons = [], {}
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        head = models.newest_head(cursor)
        if head is None:
            raise StackError("there is no model yet: aggregation_round makes the first")
        ranges = offset_ranges(kafka, Topic.TELEMETRY)
        schema = models.models(cursor, [head])[head].model.feature_schema
        made = models.newest_aggregated(cursor, schema, count)[::-1]
        trained = [
            Trained(each.model.version, each.model.parent_version, each.input_offsets)
            for each in made
        ]
        for each, bounds in zip(made, due.consecutive(trained, ranges), strict=True):
            try:
                windows.append(_window(cursor, each, strategy, ranges, bounds, settings))
            except NotReplayableError as reason:
                reasons[each.model.version] = str(reason)
    pairs = _scored(kafka, windows)
    scored = [pair for found in pairs.values() for pair in found]
    if not scored:
        raise StackError(
            f"none of the last {len(made)} rounds can be compared: "
            + next(iter(reasons.values()), NO_ROWS)
        )
    return TriedStrategy(
        strategy=strategy.name,
        options=msgspec.to_builtins(strategy.options),
        rounds=[
            _tried(each, pairs.get(each.model.version, []), reasons.get(each.model.version))
            for each in made
        ],
        difference=difference_of(added_up(scored)),
    )


def _tried(made: StoredModel, pairs: Sequence[PairedLoss], reason: str | None) -> TriedRound:
    return TriedRound(
        round=made.model.aggregation_round,
        version=made.model.version,
        strategy=made.model.strategy,
        options=made.options,
        difference=difference_of(pairs) if pairs else None,
        reason=None if pairs else reason or NO_ROWS,
    )


def _window(
    cursor: Cursor,
    made: StoredModel,
    strategy: Strategy,
    ranges: Ranges,
    bounds: tuple[Offsets, Offsets],
    settings: Settings,
) -> _Window:
    """Aggregate a round anew, and gather what its rows are scored with."""
    model, (start, end) = made.model, bounds
    weights = weights_by(cursor, model.aggregation_round, strategy)
    history = evaluations.history_offsets(
        cursor, model.feature_schema, start, ROLLING_ROWS, settings.evaluation_warm_up_rows
    )
    until_next = {partition: (first, end[partition]) for partition, first in start.items()}
    return _Window(
        made=made,
        tried=usable(model, model.feature_schema)._replace(version=TRIED, weights=weights),
        warm_up=due.warm_up(start, ranges, history, settings.evaluation_warm_up_rows),
        start=start,
        end=due.oldest_first(start, until_next, settings.evaluation_max_rows),
        moments=evaluations.moments_before(cursor, model.feature_schema, start, model.version),
    )


def _scored(kafka: Properties, windows: Sequence[_Window]) -> dict[int, list[PairedLoss]]:
    """Score each window by both of its models; by version, for each device with labelled rows."""
    if not windows:
        return {}
    rows = read_rows(
        kafka,
        {number: min(each.warm_up[number] for each in windows) for number in windows[0].start},
        {number: max(each.end[number] for each in windows) for number in windows[0].start},
    )
    found = {}
    for each in windows:
        model = each.made.model
        scoring = Scoring(
            features=model.feature_names,
            models=[each.tried, usable(model, model.feature_schema)],
            start_offsets=each.start,
            moments=each.moments,
            sampled_rows=0,
        )
        scored = evaluate_devices(rows_between(rows, each.warm_up, each.end), scoring)
        found[model.version] = pairs_of(scored, TRIED, model.version)
    return found
