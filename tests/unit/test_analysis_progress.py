"""Progress of a Spark application as lines."""

from flead.analysis.progress import Stage, StageReport

COLLECT = Stage(3, "collect at evaluation.py:12", tasks=64, done=0, rows=0)


def test_a_stage_is_reported_with_its_tasks_rows_and_seconds():
    report = StageReport()
    report.lines([COLLECT], now=100.0)

    lines = report.lines([COLLECT._replace(done=12, rows=1_234_567)], now=120.4)

    assert lines == ["stage 3 (collect at evaluation.py:12): 12/64 tasks, 1,234,567 rows, 20 s"]


def test_nothing_is_said_of_a_stage_that_has_not_moved():
    report = StageReport()

    first = report.lines([COLLECT], now=0.0)
    again = report.lines([COLLECT], now=5.0)

    assert first == ["stage 3 (collect at evaluation.py:12): 0/64 tasks, 0 s"]
    assert again == []


def test_each_stage_counts_its_own_seconds():
    report = StageReport()
    report.lines([COLLECT], now=0.0)
    other = Stage(4, "save", tasks=2, done=1, rows=0)

    lines = report.lines([COLLECT._replace(done=1), other], now=10.0)

    assert [line.rpartition(", ")[2] for line in lines] == ["10 s", "0 s"]
