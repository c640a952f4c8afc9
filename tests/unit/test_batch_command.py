"""`flead batch` on a stack that cannot analyse a day, and what it says of one that was."""

from datetime import date

import pytest
import typer

from flead.cli.batch import past_day, summary
from flead.stack.batch import AnalysisReport
from flead.stack.home import Home
from flead.storage.analysis_days import DayState
from tests.conftest import run_flead

DAY = date(2026, 3, 2)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-02-30", "02.03.2026", ""])
def test_what_is_no_day_is_refused_with_an_example(text):
    with pytest.raises(typer.BadParameter, match="is no day: write 2026-03-02"):
        past_day(text, today=DAY)


def test_a_day_that_has_not_begun_is_refused():
    with pytest.raises(typer.BadParameter, match=r"2026-03-03 has not begun: it is 2026-03-02"):
        past_day("2026-03-03", today=DAY)


def test_today_and_days_before_it_are_taken():
    assert past_day("2026-03-02", today=DAY) == DAY
    assert past_day("1970-01-01", today=DAY) == date(1970, 1, 1)


def test_a_stack_that_does_not_run_is_told_at_once(tmp_path):
    shared = Home.from_environment()
    home = Home(root=tmp_path / "nothing", envs=shared.envs, jars=shared.jars)

    ran = run_flead(home, "batch", "--date", DAY.isoformat(), "--json")

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("flead: postgres, airflow-api-server, ")
    assert ran.stderr.endswith(" of the stack do not run: start it with `flead up`\n")
    assert not home.root.exists()


def report(**changes):
    values = {
        "analysis_date": DAY,
        "state": DayState.DONE,
        "dag_run_id": "manual__1",
        "rows": 44_640_000,
        "devices": 240_700,
        "batch_rows": 240_700,
        "model_version": 1234,
        "reference_model_version": 1240,
        "needs_rerun": False,
        "seconds": 21_599.94,
    }
    return AnalysisReport(**values | changes)


def test_what_came_out_is_said_in_lines_of_80_columns():
    lines = summary(report(needs_rerun=True)).splitlines()

    assert lines == [
        "2026-03-02: 44,640,000 rows of 240,700 devices",
        "240,700 results, anomalies by model 1234, in 21599.9 s",
        "rows have come since: run it again",
    ]


def test_an_empty_day_says_so():
    empty = report(state=DayState.EMPTY, rows=0, devices=0, batch_rows=0, model_version=None)

    assert summary(empty) == "2026-03-02: no rows"
