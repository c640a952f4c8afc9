"""Suites are read strictly, and each has a query with the columns that its rules judge."""

import re

import pytest

from flead.quality import batches, suites
from flead.quality.suites import Severity, SuiteError, load

NAMES = sorted(file.stem for file in suites.DIRECTORY.glob("*.json"))
RULE = (
    '{"type": "expect_x", "kwargs": {}, "severity": "critical", "meta": {"name": "a", "why": "b"}}'
)


def test_there_is_a_suite_for_each_table_that_a_decision_reads():
    assert NAMES == [
        "batch_analysis_results",
        "federated_models",
        "local_models",
        "model_evaluations",
        "model_feedback",
        "stream_analysis_results",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_judges_columns_of_its_query_and_has_both_severities(name):
    suite = load(name)
    query = (batches.DIRECTORY / f"{name}.sql").read_text()
    judged = set(suite.meta.keys)
    for rule in suite.expectations:
        judged |= {rule.kwargs[key] for key in ("column",) if key in rule.kwargs}
        judged |= set(rule.kwargs.get("column_list", []))

    assert [column for column in judged if not re.search(rf"\b{column}\b", query)] == []
    assert {rule.severity for rule in suite.expectations} == set(Severity)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "truncated"),
        ('{"name": "x", "expectations": [], "meta": {"keys": ["a"]}}', "length >= 1"),
        (
            f'{{"name": "y", "expectations": [{RULE}],'
            ' "meta": {"keys": ["a"], "may_be_empty": true}}',
            "named y",
        ),
        (
            f'{{"name": "x", "expectations": [{RULE}, {RULE}],'
            ' "meta": {"keys": ["a"], "may_be_empty": true}}',
            "more than one rule is named a",
        ),
        (
            f'{{"name": "x", "expectations": [{RULE.replace("critical", "fatal")}],'
            ' "meta": {"keys": ["a"], "may_be_empty": true}}',
            "fatal",
        ),
    ],
)
def test_a_suite_that_cannot_be_used_is_told_with_its_file(text, told, tmp_path):
    file = tmp_path / "x.json"
    file.write_text(text)

    with pytest.raises(SuiteError, match=told) as raised:
        load("x", tmp_path)

    assert str(file) in str(raised.value)
