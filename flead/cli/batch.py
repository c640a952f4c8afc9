"""The command that has a day of rows analysed."""

import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from flead.cli.stack import Json

if TYPE_CHECKING:
    from flead.stack.batch import AnalysisReport

app = typer.Typer()


@app.command(rich_help_panel="Data")
def batch(
    *,
    date: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="The UTC day; today: as far as it is.")
    ],
    json: Json = False,
) -> None:
    """Analyse a day of rows on the running stack: each device's statistics, anomalies and drift.

    Triggers the DAG `daily_batch_analysis`, waits for its end, and shows what came out; the results
    are in the table `batch_analysis_results`, in place of those that the day had. Airflow's
    backfill does the same for a range of days. Ends with 1 when the day was not analysed; a day
    without rows is.

    Prints rows, devices, the model that called anomalies, and whether rows have come since.

    Example: `flead batch --date 2026-03-02`
    """
    day = past_day(date, datetime.now(UTC).date())
    import msgspec

    from flead.cli.progress import say
    from flead.stack.batch import analyse_day
    from flead.stack.home import Home

    report = analyse_day(Home.from_environment(), day, say)
    said = msgspec.json.encode(report).decode() if json else summary(report)
    sys.stdout.write(f"{said}\n")


def past_day(text: str, today: date) -> date:
    """Read a day such as 2026-03-02, which has begun.

    Raises
    ------
    typer.BadParameter
        It is no day, or a later one than `today`.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day: write 2026-03-02") from None
    if day > today:
        raise typer.BadParameter(f"{day} has not begun: it is {today} (UTC)")
    return day


def summary(report: "AnalysisReport") -> str:
    """Say what came out, in lines that fit a terminal of 80 columns."""
    if not report.rows:
        return f"{report.analysis_date}: no rows"
    by = "no model" if report.model_version is None else f"model {report.model_version}"
    lines = [
        f"{report.analysis_date}: {report.rows:,} rows of {report.devices:,} devices",
        f"{report.batch_rows:,} results, anomalies by {by}, in {report.seconds:.1f} s",
    ]
    if report.needs_rerun:
        lines.append("rows have come since: run it again")
    return "\n".join(lines)
