"""What the demonstration shows while it runs."""

import re

import msgspec
import pytest
from rich.console import Console

from flead.cli.demo import render, summary
from flead.stack.demonstration import DemonstrationOptions, Progress
from flead.storage.progress import MadeVersion

LARGE = Progress(
    seconds=86_399.0,
    rows=999_999_999,
    local_updates=9_999_999,
    versions=[MadeVersion(1234, 20_000, 240_700, 0.98765, 0.12345, 9_999_999)],
    flink_job_state="RUNNING",
    checkpoints_completed=17_280,
    dead_letters=0,
    seconds_to_first_version=87.0,
    consumer_lag_rows_max=9_999_999,
    consumer_lag_rows_end=9_999_999,
    peak_memory_mb=12_345.0,
    devices=240_700,
    evaluations=1234,
    feedback_rows=1_203_500,
    stream_windows=99_999_999,
    batch_rows=240_700,
    quality_results=12_345,
    checked_evaluations=9_999,
    tuning_decisions=99,
    decisions_on_trials=99,
    trial_updates=999_999,
)
ALL = DemonstrationOptions(with_analysis=True, until_decision=True)
ANALYSIS = re.compile("window|evaluated|results|predictions")
DECISION = re.compile("checked|trials|decisions")


def drawn(options):
    console = Console(width=200, color_system=None)
    before = msgspec.structs.replace(LARGE, seconds=LARGE.seconds - 2, rows=0)
    with console.capture() as capture:
        console.print(render(LARGE, before, options))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_each_line_fits_a_terminal_of_80_columns():
    assert max(map(len, drawn(ALL))) <= 80


def test_what_the_analysis_has_written_and_what_was_decided_is_shown():
    lines = drawn(ALL)

    assert "         99,999,999 windows, 240,700 results of the day" in lines
    assert "         1,234 versions evaluated, 1,203,500 predictions kept" in lines
    assert "         9,999 evaluations checked, 999,999 updates of trials, 99 decisions" in lines
    assert summary(LARGE, ALL).endswith(
        ", 99,999,999 windows, 240,700 results of the day, 1,234 versions evaluated,"
        " 1,203,500 predictions kept, 9,999 evaluations checked, 999,999 updates of trials,"
        " 99 decisions"
    )


@pytest.mark.parametrize("draw", [drawn, lambda options: [summary(LARGE, options)]])
@pytest.mark.parametrize(
    ("name", "said"), [("with_analysis", ANALYSIS), ("until_decision", DECISION)]
)
def test_of_what_is_not_asked_for_nothing_is_said(draw, name, said):
    without = msgspec.structs.replace(ALL, **{name: False})

    assert [line for line in draw(without) if said.search(line)] == []
    assert [line for line in draw(ALL) if said.search(line)] != []
