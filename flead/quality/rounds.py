"""The check of a round's updates before they are averaged."""

import logging
from datetime import UTC, datetime
from typing import Final

from flead.quality.batches import read_batch
from flead.quality.gate import rows_of
from flead.quality.suites import load
from flead.quality.validation import validate
from flead.storage import quality, rounds
from flead.storage.connection import connect
from flead.storage.rounds import RoundState

SUITE: Final = "local_models"

logger = logging.getLogger(__name__)


class BadRoundError(Exception):
    """A round must not be averaged; the message names the rules that its updates break."""


def check_round(database_url: str, number: int, dag_run_id: str | None) -> None:
    """Judge the updates of an open round; what was found is stored, whatever it is.

    Raises
    ------
    BadRoundError
        A critical rule is broken; the round stays open.
    LookupError
        There is no such round.
    """
    run = f"round-{number}"
    with connect(database_url) as connection, connection.cursor() as cursor:
        if rounds.get(cursor, number).state is not RoundState.OPEN:
            return
        batch = read_batch(cursor, SUITE, {"rounds": [number]})
        findings = validate(run, [(load(SUITE), batch)])
        quality.replace_results(cursor, run, dag_run_id, rows_of(findings), datetime.now(UTC))
    for finding in findings:
        if finding.is_warning:
            logger.warning("%s: %s", finding, finding.why)
    if failed := [finding for finding in findings if finding.is_critical]:
        raise BadRoundError(
            f"round {number} is not averaged and stays open, its updates break"
            f" {'; '.join(map(str, failed))}: see the Triage of this DAG"
        )
