"""What the fleet trains with, on its way to `training-control`."""

import msgspec

from flead.contracts.messages import CONTROL_KEY, Hyperparameters, TrainingControl
from flead.contracts.topics import Topic
from flead.storage import outbox
from flead.storage.connection import Cursor
from flead.storage.locks import Lock, lock_for_transaction
from flead.storage.outbox import OutboxMessage


def queue_hyperparameters(cursor: Cursor, hyperparameters: Hyperparameters) -> TrainingControl:
    """Queue hyperparameters for the whole fleet under the next revision, and return the message.

    The revision is one above the highest that the outbox has ever held, so that it names these
    hyperparameters and no others.
    """
    # Until the transaction ends: of two at the same time, the later has the higher revision.
    lock_for_transaction(cursor, Lock.CONTROL)
    cursor.execute(
        """
        SELECT coalesce(max((value::jsonb ->> 'revision')::bigint), 0) + 1
        FROM outbox WHERE topic = %s AND key = %s
        """,
        (Topic.CONTROL.value, CONTROL_KEY),
    )
    [(revision,)] = cursor.fetchall()
    control = TrainingControl(revision, hyperparameters)
    value = msgspec.json.encode(control).decode()
    outbox.add(cursor, [OutboxMessage(Topic.CONTROL, CONTROL_KEY, value)])
    return control
