"""Rounds of the running stack: look them up, and replay one from what is stored of it."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from flead.rounds.rejudging import Rejudged, rejudge
from flead.rounds.replay import NotReplayableError, recompute
from flead.settings import Settings
from flead.stack.addresses import Addresses
from flead.stack.home import Home
from flead.stack.service import StackError
from flead.storage import rounds
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead.storage.rounds import Round


class ListedRound(msgspec.Struct, frozen=True):
    """A round; counts are None until it is aggregated, `version` where it made none."""

    round: int
    state: str
    updates: int
    dead_letters: int
    accepted: int | None
    rejected: Mapping[str, int] | None
    version: int | None
    promoted_version: int | None
    dag_run_id: str | None
    attempts: int
    opened_at: datetime
    completed_at: datetime | None


class RoundList(msgspec.Struct, frozen=True):
    """Rounds, newest first."""

    rounds: list[ListedRound]


class ReplayReport(msgspec.Struct, frozen=True):
    """What the replay of a round has come to.

    Of a round that made a version, `sha256` is that of the replay, `stored_sha256` that of the
    artifact which the round made, both in hex digits. Of one that made none, `judged` counts the
    updates of which the judgements are compared. `identical` is None, with the reason, where there
    is nothing to compare: the round has not ended, or is past its retention.
    """

    round: int
    version: int | None
    identical: bool | None
    sha256: str | None
    stored_sha256: str | None
    bytes: int | None
    judged: int | None
    reason: str | None


def list_rounds(home: Home, limit: int) -> RoundList:
    """Return the newest rounds."""
    with connect(_database(home)) as connection, connection.cursor() as cursor:
        return RoundList([_listed(each) for each in rounds.newest_first(cursor, limit)])


def replay_round(home: Home, number: int) -> ReplayReport:
    """Recompute a round and compare it, byte by byte, with what it made.

    Of a round that made no version, compare what became of each update.

    Raises
    ------
    StackError
        There is no such round.
    """
    database_url = _database(home)
    with connect(database_url) as connection, connection.cursor() as cursor:
        try:
            version = rounds.get(cursor, number).version
        except LookupError as missing:
            raise StackError(f"{missing}: see `flead rounds list`") from None
    try:
        if version is None:
            return _rejudged(number, rejudge(database_url, Settings.from_environment(), number))
        replayed = recompute(database_url, number)
    except NotReplayableError as reason:
        return ReplayReport(number, version, None, None, None, None, None, str(reason))
    return ReplayReport(
        round=number,
        version=replayed.version,
        identical=replayed.is_identical,
        sha256=replayed.sha256,
        stored_sha256=replayed.stored_sha256,
        bytes=len(replayed.artifact),
        judged=None,
        reason=None if replayed.is_identical else "the bytes differ",
    )


def _rejudged(number: int, rejudged: Rejudged) -> ReplayReport:
    reason = None
    if rejudged.differing:
        before, now = rejudged.differing[0]
        read = before.read
        reason = (
            f"{len(rejudged.differing)} updates are judged otherwise now, the first of them"
            f" {now.reason or now.status} instead of {before.reason or before.status}:"
            f" {read.topic}/{read.partition}/{read.offset}; FLEAD_MAX_STALENESS or"
            " FLEAD_MAX_UPDATE_NORM may have changed"
        )
    return ReplayReport(
        round=number,
        version=None,
        identical=rejudged.is_identical,
        sha256=None,
        stored_sha256=None,
        bytes=None,
        judged=len(rejudged.stored),
        reason=reason,
    )


def _listed(found: Round) -> ListedRound:
    return ListedRound(
        round=found.number,
        state=found.state.value,
        updates=found.updates,
        dead_letters=found.dead_letters,
        accepted=found.accepted,
        rejected=found.rejected,
        version=found.version,
        promoted_version=found.promoted_version,
        dag_run_id=found.dag_run_id,
        attempts=found.attempts,
        opened_at=found.opened_at,
        completed_at=found.completed_at,
    )


def _database(home: Home) -> str:
    """Return the URL of the database, which has all tables."""
    url = Addresses.of(home).database_url
    migrate(url)
    return url
