"""The start of an evaluation: what Spark scores with, from the database."""

from collections.abc import Mapping
from dataclasses import dataclass

from flead.analysis.evaluation import Scoring, usable
from flead.contracts.analysis import ModelEvaluation
from flead.storage import evaluations, models
from flead.storage.connection import connect
from flead.storage.evaluations import TAKEN_BACK, EvaluationRun


class NothingToScoreError(Exception):
    """Every version that was due was taken back since the evaluation was planned."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A planned evaluation; `not_scored` are versions taken back since, with the reason."""

    run: EvaluationRun
    scoring: Scoring
    not_scored: Mapping[int, str]


def prepare(database_url: str, config: ModelEvaluation) -> Prepared:
    """Load the models of an evaluation, and its devices' moments as of before the window.

    Raises
    ------
    LookupError
        There is no such evaluation, or one of its versions is not stored any more.
    NothingToScoreError
        All versions that were due were taken back meanwhile.
    UnusableModelError
        A version cannot be scored.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        run = evaluations.get(cursor, config.evaluation_run_id)
        stored = models.models(cursor, run.versions)
        moments = evaluations.moments_before(
            cursor, run.feature_schema, run.start_offsets, max(run.versions)
        )
    if missing := sorted(set(run.versions) - stored.keys()):
        raise LookupError(
            f"versions {missing} of evaluation {run.evaluation_run_id} are not stored any more"
        )
    not_scored = {
        version: stored[version].model.status.value
        for version in run.due_versions
        if stored[version].model.status in TAKEN_BACK
    }
    due = [stored[version].model for version in run.due_versions if version not in not_scored]
    if not due:
        raise NothingToScoreError(
            f"versions {run.due_versions} of evaluation {run.evaluation_run_id} were all taken back"
        )
    wanted = {version for model in due for version in (model.version, model.parent_version)}
    wanted -= not_scored.keys()
    scored = [stored[version].model for version in run.versions if version in wanted]
    scoring = Scoring(
        features=scored[-1].feature_names,
        models=[usable(model, run.feature_schema) for model in scored],
        start_offsets=run.start_offsets,
        moments=moments,
        sampled_rows=config.feedback_rows,
    )
    return Prepared(run, scoring, not_scored)
