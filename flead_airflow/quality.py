"""Check evaluations from a task, and lead from it to the pages of what was found."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from airflow.sdk import BaseOperator, BaseOperatorLink, Context
from airflow.sdk.configuration import conf

from flead.settings import Settings
from flead_airflow.connections import servers

URL_PREFIX: Final = "/flead/data-docs"
"""Where `flead_airflow.data_docs` is mounted in Airflow's API server."""

logger = logging.getLogger(__name__)


def page_of(run: str) -> str:
    """Return the address of the pages of a run."""
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    return f"{base}{URL_PREFIX}/{quote(run)}/index.html"


class DataDocsLink(BaseOperatorLink):
    """From a check to the pages of the evaluation that it judged last."""

    name = "Data Docs"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the page, "" when nothing was judged."""
        return getattr(operator, "page", None) or ""


class CheckEvaluationsOperator(BaseOperator):
    """Judge evaluations, and release or quarantine each; returns what became of them.

    Each is `{"evaluation_run_id", "status", "messages", "failed", "warned"}`; the last two are
    lists of what was found.

    Parameters
    ----------
    evaluation_run_ids : list of str
        May be the result of another task.
    """

    template_fields: Sequence[str] = ("evaluation_run_ids",)
    operator_extra_links = (DataDocsLink(),)
    ui_color = "#e8eefc"

    def __init__(self, *, evaluation_run_ids: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluation_run_ids = evaluation_run_ids
        self.page: str | None = None

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Judge one after the other, oldest first."""
        from flead.quality.gate import check_evaluation  # noqa: PLC0415 - heavy, a DAG imports us

        database_url = servers().database_url
        directory = Path(Settings.from_environment().data_docs_dir)
        verdicts = []
        for run in self.evaluation_run_ids:
            verdict = check_evaluation(database_url, run, directory, context["run_id"])
            self.page = page_of(run)
            logger.info("Data Docs of %s: %s, files in %s", run, self.page, directory / run)
            verdicts.append(
                {
                    "evaluation_run_id": run,
                    "status": verdict.status.value,
                    "messages": verdict.messages,
                    "failed": [str(finding) for finding in verdict.failed],
                    "warned": [str(finding) for finding in verdict.warned],
                }
            )
        return verdicts
