"""What Grafana sends to PostgreSQL for a query of a dashboard.

First the browser replaces variables, then the server the interval and the macros, as these say:
https://grafana.com/docs/grafana/latest/dashboards/variables/variable-syntax/ (`sqlstring`), and in
the repository grafana/grafana `packages/grafana-data/src/utils/variables.ts` (`$__searchFilter`: a
`%` behind what is typed), `pkg/tsdb/grafana-postgresql-datasource/sqleng/sql_engine.go`
(`Interpolate`) and, beside its folder, `macros.go`. Only what the dashboards use is known here;
anything else is an error.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Context:
    """Values of variables, a text or, of one with many, a list; the range of time; the interval."""

    variables: dict[str, str | list[str]]
    start: datetime
    end: datetime
    interval: str
    typed: str = ""

    def expand(self, sql: str) -> str:
        """Return the query as PostgreSQL gets it."""
        sql = re.sub(r"\$\{(\w+):sqlstring\}", lambda found: self._quoted(found[1]), sql)
        sql = sql.replace("$__searchFilter", self.typed.replace("'", "''") + "%").replace(
            "$__interval", self.interval
        )
        macros = {"$__timeFrom()": self.start, "$__timeTo()": self.end}
        for macro, moment in macros.items():
            text = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
            sql = sql.replace(macro, f"'{text}'")
        if left := re.findall(r"\$\w*\(?", sql):
            raise ValueError(f"Grafana would not know {left} in {sql}")
        return sql

    def _quoted(self, name: str) -> str:
        value = self.variables[name]
        values = [value] if isinstance(value, str) else value
        return ",".join("'" + each.replace("'", "''") + "'" for each in values)
