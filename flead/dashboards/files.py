"""The files of `grafana/` that are made from code."""

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from flead.dashboards.accuracy import accuracy
from flead.dashboards.alerts import rule_group
from flead.dashboards.anomalies import anomalies
from flead.dashboards.device import device_performance
from flead.dashboards.feedback import feedback
from flead.dashboards.improvement import improvement
from flead.dashboards.pipeline import pipeline_health
from flead.dashboards.quality import data_quality
from flead.dashboards.tuning import tuning
from flead.settings import Settings

ALERTS: Final = "provisioning/alerting/flead.yaml"
OF_VARIABLES: Final = {"id", "auto", "auto_min", "auto_count"}
NOTE: Final = "# Made by `make dashboards` from flead/dashboards/alerts.py: change it there.\n"


def files(settings: Settings) -> Mapping[str, str]:
    """Return the content of each file by its path below `grafana/`, with limits of `settings`."""
    boards = (
        accuracy(),
        feedback(),
        improvement(),
        anomalies(),
        device_performance(),
        pipeline_health(settings),
        data_quality(),
        tuning(),
    )
    made = {f"dashboards/{board.uid}.json": _json(_current(board)) for board in boards}
    rules = json.loads(_json(rule_group(settings)))
    return made | {ALERTS: NOTE + yaml.dump(rules, Dumper=_Readable, sort_keys=False, width=100)}


class _Readable(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
    """Writes texts of several lines, such as queries, as they are."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Readable.add_representer(str, _Readable.represent_text)


def _current(board: Dashboard) -> dict[str, Any]:
    """Return a dashboard without what the SDK's models have and Grafana's schema no longer has."""
    document: dict[str, Any] = json.loads(_json(board))
    del document["style"]
    document["templating"]["list"] = [
        {name: value for name, value in variable.items() if name not in OF_VARIABLES}
        for variable in document["templating"]["list"]
    ]
    return document


def _json(document: object) -> str:
    return json.dumps(document, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
