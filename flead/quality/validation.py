"""Great Expectations on rows in memory: an ephemeral context, nothing kept but findings and pages.

It takes four seconds and 200 MB to import, so only a call imports it.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from flead.quality.batches import Batch
from flead.quality.overview import make_self_contained, write_overview
from flead.quality.suites import Rule, Severity, Suite

EXAMPLES: Final = 10
"""Rows that break a rule which are kept with its result."""

SITE: Final = "run"

Judged = Sequence[tuple[Suite, Batch]]


class CheckError(Exception):
    """A rule could not be judged; the message names the suite and the rule."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a rule; `examples` are rows that break it, by key and judged value."""

    suite: str
    rule: str
    expectation: str
    severity: Severity
    success: bool
    why: str
    element_count: int
    unexpected_count: int
    examples: list[Any]

    @property
    def is_critical(self) -> bool:
        """Whether nothing may rest on these rows."""
        return not self.success and self.severity is Severity.CRITICAL

    @property
    def is_warning(self) -> bool:
        """Whether somebody should look at these rows."""
        return not self.success and self.severity is Severity.WARNING

    def __str__(self) -> str:
        example = f", {msgspec.json.encode(self.examples[0]).decode()}" if self.examples else ""
        return (
            f"{self.suite}.{self.rule} ({self.unexpected_count} of {self.element_count}{example})"
        )


def library() -> Any:
    """Return Great Expectations, which says nothing to its makers."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # It would list hundreds of its functions in the log of the process that first imports it.
    logging.getLogger("great_expectations._docs_decorators").setLevel(logging.WARNING)
    import great_expectations  # noqa: PLC0415 - heavy

    return great_expectations


def validate(run: str, judged: Judged, pages: Path | None = None) -> list[Finding]:
    """Judge the rows of each suite; one that may be empty and is says nothing.

    Parameters
    ----------
    run
        Names the run in the pages.
    pages
        Folder that Data Docs of this run are written to, in place of what it held.

    Raises
    ------
    CheckError
        A rule could not be judged.
    """
    context = library().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("flead")
    findings: list[Finding] = []
    for suite, batch in judged:
        if batch.rows or not suite.meta.may_be_empty:
            findings += _validate(context, source, run, suite, batch)
    if pages is not None:
        _write_pages(context, run, findings, pages)
    return findings


def _validate(context: Any, source: Any, run: str, suite: Suite, batch: Batch) -> list[Finding]:
    import pandas as pd  # noqa: PLC0415 - heavy, and comes with it

    gx = library()
    expectations = context.suites.add(
        gx.ExpectationSuite(
            name=suite.name,
            expectations=[msgspec.to_builtins(rule) for rule in suite.expectations],
        )
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=suite.name,
            data=source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe(run),
            suite=expectations,
        )
    )
    result = definition.run(
        batch_parameters={"dataframe": pd.DataFrame(batch.rows, columns=batch.columns)},
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": EXAMPLES,
            "unexpected_index_column_names": suite.meta.keys,
        },
        run_id=gx.RunIdentifier(run_name=run),
    )
    by_name = {rule.meta.name: rule for rule in suite.expectations}
    found = result.to_json_dict()["results"]
    return [
        _finding(suite, by_name[each["expectation_config"]["meta"]["name"]], each) for each in found
    ]


def _finding(suite: Suite, rule: Rule, found: Mapping[str, Any]) -> Finding:
    if error := _exception_of(found["exception_info"]):
        raise CheckError(f"{suite.name}.{rule.meta.name} cannot be judged: {error}")
    result = found["result"]
    counted = "element_count" in result
    return Finding(
        suite=suite.name,
        rule=rule.meta.name,
        expectation=rule.type,
        severity=rule.severity,
        success=bool(found["success"]),
        why=rule.meta.why,
        # A rule on the table as a whole has one element, the table.
        element_count=result["element_count"] if counted else 1,
        unexpected_count=result["unexpected_count"] if counted else int(not found["success"]),
        examples=_examples(result) if counted else [{"observed": result["observed_value"]}],
    )


def _examples(result: Mapping[str, Any]) -> list[Any]:
    rows = result.get("partial_unexpected_index_list") or result["partial_unexpected_list"]
    return [_plain(row) for row in list(rows)[:EXAMPLES]]


def _plain(value: Any) -> Any:
    """Return a value without the number types of numpy, which the database does not take."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value.item() if hasattr(value, "item") else value


def _exception_of(info: Mapping[str, Any]) -> str | None:
    """Return what was raised; the information is of the rule, or of each of its metrics."""
    of_metrics = [info] if "raised_exception" in info else list(info.values())
    raised = [each["exception_message"] for each in of_metrics if each["raised_exception"]]
    return str(raised[0]) if raised else None


def _write_pages(context: Any, run: str, findings: Sequence[Finding], pages: Path) -> None:
    # Hidden until they are whole.
    unfinished = pages.with_name(f".{pages.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    context.add_data_docs_site(
        SITE,
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(unfinished.absolute()),
            },
        },
    )
    context.build_data_docs(site_names=[SITE])
    # 4 MB of fonts and pictures, of which the pages show none.
    shutil.rmtree(unfinished / "static", ignore_errors=True)
    make_self_contained(unfinished)
    write_overview(unfinished, run, findings)
    shutil.rmtree(pages, ignore_errors=True)
    unfinished.rename(pages)
