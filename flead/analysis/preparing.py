"""The start of an evaluation: what Spark scores with, from the database."""

from collections.abc import Mapping
from dataclasses import dataclass

from flead.analysis.evaluation import Scoring, usable
from flead.contracts.analysis import ModelEvaluation
from flead.learning.fleet import PublishedModel
from flead.storage import evaluations, models
from flead.storage.connection import connect
from flead.storage.evaluations import TAKEN_BACK, EvaluationRun


class NothingToScoreError(Exception):
    """Every version of an evaluation was taken back since it was planned."""


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
        All its versions were taken back meanwhile.
    UnusableModelError
        A version cannot be scored.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        run = evaluations.get(cursor, config.evaluation_run_id)
        stored = models.models(cursor, run.versions)
        moments = evaluations.moments_before(cursor, run.feature_schema, run.start_offsets)
    if missing := sorted(set(run.versions) - stored.keys()):
        raise LookupError(
            f"versions {missing} of evaluation {run.evaluation_run_id} are not stored any more"
        )
    not_scored = {
        version: each.model.status.value
        for version, each in sorted(stored.items())
        if each.model.status in TAKEN_BACK and version in run.due_versions
    }
    scored = [stored[version] for version in run.versions if version not in not_scored]
    if not scored:
        raise NothingToScoreError(
            f"versions {run.versions} of evaluation {run.evaluation_run_id} were all taken back"
        )
    features = scored[-1].model.feature_names
    scoring = Scoring(
        features=features,
        models=[usable(PublishedModel.of(each.model), features) for each in scored],
        start_offsets=run.start_offsets,
        moments=moments,
        sampled_rows=config.feedback_rows,
    )
    return Prepared(run, scoring, not_scored)
