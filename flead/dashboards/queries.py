"""SQL of panels, variables and alerts: `sql/dashboards`, with Grafana's macros for parameters."""

from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import AnnotationTarget, DataSourceRef

from flead.health.rules import INTERVALS, READING_SECONDS, READINGS_IN_A_ROW

DIRECTORY: Final = Path(__file__).parents[2] / "sql" / "dashboards"
SOURCE: Final = DataSourceRef(type_val="grafana-postgresql-datasource", uid="flead")
"""The data source of `grafana/provisioning/datasources/flead.yaml`."""
FRESH_SECONDS: Final = READINGS_IN_A_ROW * READING_SECONDS
"""Age of a reading from which it says nothing of now: none is written while nothing should run."""

PARAMETERS: Final = {
    "time_from": "$__timeFrom()",
    "time_to": "$__timeTo()",
    "interval": "'$__interval'",
    "feature_schema": "${features:sqlstring}",
    "device": "${device:sqlstring}",
    "versions": "array_remove(ARRAY[${version:sqlstring}]::TEXT[], '')::BIGINT[]",
    "window_seconds": "${window:sqlstring}",
    "typed": "'$__searchFilter'",
    "intervals": str(INTERVALS),
    "fresh_seconds": f"{FRESH_SECONDS:g}",
}
"""What Grafana replaces before it sends a query, by the parameter's name in the files.

Macros: https://grafana.com/docs/grafana/latest/datasources/postgres/; the format `sqlstring` quotes
and escapes: https://grafana.com/docs/grafana/latest/dashboards/variables/variable-syntax/
"""


def sql(name: str) -> str:
    """Return the query of the file `sql/dashboards/NAME.sql` for Grafana."""
    text = (DIRECTORY / f"{name}.sql").read_text(encoding="utf-8")
    return (text % PARAMETERS).rstrip(";\n")


class Query(Dataquery, Builder[Dataquery]):
    """A query of Grafana's PostgreSQL data source, for which the SDK has no model.

    Parameters
    ----------
    name
        Of the file below `sql/dashboards`, without its ending.
    is_series
        Whether it has a column `time`, its other texts name series and its numbers are values.
    """

    def __init__(self, name: str, *, is_series: bool = False) -> None:
        self._document: dict[str, Any] = {
            "refId": "A",
            "datasource": SOURCE,
            "editorMode": "code",
            "format": "time_series" if is_series else "table",
            "rawQuery": True,
            "rawSql": sql(name),
        }

    def build(self) -> Dataquery:
        """Return the query."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return its document."""
        return self._document


class Events(AnnotationTarget, Builder[AnnotationTarget]):
    """A query of annotations, with the columns `time`, `text` and `tags`.

    The SDK has a model for those of Grafana's own source alone.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._query = Query(name)

    def build(self) -> AnnotationTarget:
        """Return the query."""
        return self

    def to_json(self) -> dict[str, object]:
        """Return its document."""
        return self._query.to_json()
