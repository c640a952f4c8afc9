"""What the fleet trains with, on its way to `training-control`."""

from collections.abc import Sequence
from typing import Final

import msgspec

from flead.contracts.messages import CONTROL_KEY, Hyperparameters, TrainingControl, Trial
from flead.contracts.topics import Topic
from flead.storage import outbox
from flead.storage.connection import Cursor
from flead.storage.locks import Lock, lock_for_transaction
from flead.storage.outbox import OutboxMessage

_CONTROL: Final = msgspec.json.Decoder(TrainingControl)


def queue_hyperparameters(
    cursor: Cursor,
    hyperparameters: Hyperparameters,
    trials: Sequence[Trial] = (),
    *,
    unchanged_since: int | None = None,
) -> TrainingControl:
    """Queue hyperparameters for the whole fleet under the next revision, and return the message.

    `trials` are what parts of the fleet try instead. Where they begin or end, or a deployment is
    taken back, and the fleet keeps what it has, `unchanged_since` says since which revision:
    devices then keep their own rates.
    """
    control = TrainingControl(
        next_revision(cursor), hyperparameters, list(trials), fleet_revision=unchanged_since
    )
    value = msgspec.json.encode(control).decode()
    outbox.add(cursor, [OutboxMessage(Topic.CONTROL, CONTROL_KEY, value)])
    return control


def next_revision(cursor: Cursor) -> int:
    """Return the revision that names the next hyperparameters and no others.

    It is one above the highest that the outbox has ever held or a decision has taken, and nobody
    else's until the transaction ends.
    """
    lock_for_transaction(cursor, Lock.CONTROL)
    cursor.execute(
        """
        SELECT greatest(
            (
                SELECT max((value::jsonb ->> 'revision')::bigint)
                FROM outbox WHERE topic = %s AND key = %s
            ),
            (SELECT max(revision) FROM tuning_decisions),
            0
        ) + 1
        """,
        (Topic.CONTROL.value, CONTROL_KEY),
    )
    [(revision,)] = cursor.fetchall()
    return int(revision)


def newest_control(cursor: Cursor) -> TrainingControl | None:
    """Return what was queued last, published or not; None before the first deployment."""
    value = outbox.newest_value(cursor, Topic.CONTROL, CONTROL_KEY)
    return None if value is None else _CONTROL.decode(value)
