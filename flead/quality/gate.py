"""The gate behind an evaluation: what has passed is released, the rest is kept in quarantine."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from flead.quality import pages
from flead.quality.batches import read_batch
from flead.quality.suites import load
from flead.quality.validation import Finding, validate
from flead.storage import quality
from flead.storage.connection import connect
from flead.storage.copying import Jsonb
from flead.storage.quality import QualityStatus

SUITES: Final = (
    "model_evaluations",
    "model_feedback",
    "federated_models",
    "local_models",
    "stream_analysis_results",
    "batch_analysis_results",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an evaluation run.

    `messages` is how many devices are told; `failed` are the critical findings, `warned` the
    others that somebody should look at.
    """

    evaluation_run_id: str
    status: QualityStatus
    messages: int
    failed: list[Finding]
    warned: list[Finding]


def check_evaluation(
    database_url: str, evaluation_run_id: str, docs_directory: Path, dag_run_id: str | None
) -> Verdict:
    """Judge the rows of an evaluation, and release or quarantine them, in one transaction.

    One critical finding quarantines the whole run: its rows stay, and no reader of
    `passed_evaluations` and `passed_feedback` sees them. It may be checked again, and is released
    once it passes.

    Raises
    ------
    LookupError
        There is no such run, or it has no evaluations yet.
    flead.quality.validation.CheckError
        A rule could not be judged; nothing was decided.
    """
    folder = pages.folder_of(docs_directory, evaluation_run_id)
    with connect(database_url) as connection, connection.cursor() as cursor:
        versions = quality.lock_run(cursor, evaluation_run_id)
        parameters = {"run": evaluation_run_id, "rounds": quality.rounds_of(cursor, versions)}
        judged = [(load(name), read_batch(cursor, name, parameters)) for name in SUITES]
        findings = validate(evaluation_run_id, judged, folder)
        failed = [finding for finding in findings if finding.is_critical]
        status = QualityStatus.QUARANTINED if failed else QualityStatus.PASSED
        now = datetime.now(UTC)
        quality.replace_results(cursor, evaluation_run_id, dag_run_id, rows_of(findings), now)
        messages = quality.decide(cursor, evaluation_run_id, status, now)
    pages.remove_old(docs_directory)
    warned = [finding for finding in findings if finding.is_warning]
    _tell(evaluation_run_id, status, findings, failed, warned)
    return Verdict(evaluation_run_id, status, messages, failed, warned)


def rows_of(findings: Iterable[Finding]) -> Iterator[Sequence[object]]:
    """Yield findings as rows of `data_quality_results`; a suite is named as its table."""
    for finding in findings:
        yield (
            finding.suite,
            finding.suite,
            finding.rule,
            finding.expectation,
            finding.severity,
            finding.success,
            finding.why,
            finding.element_count,
            finding.unexpected_count,
            Jsonb(finding.examples),
        )


def _tell(
    run: str,
    status: QualityStatus,
    findings: Sequence[Finding],
    failed: Sequence[Finding],
    warned: Sequence[Finding],
) -> None:
    logger.info("Evaluation %s: %s rules judged, %s", run, len(findings), status)
    for finding in failed:
        logger.error("%s: %s", finding, finding.why)
    for finding in warned:
        logger.warning("%s: %s", finding, finding.why)
