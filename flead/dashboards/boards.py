"""What all dashboards share: links, variables, the range of time, and the order of panels."""

from collections.abc import Iterable
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    Panel,
    VariableHide,
    VariableModel,
    VariableRefresh,
)

from flead.dashboards.queries import SOURCE, Events, sql

TAG: Final = "flead"
AIRFLOW: Final = "http://127.0.0.1:8080"
FLEET_PAGES: Final = "${airflow}/flead/"
DEVICE_DASHBOARD: Final = "flead-device-performance"
DEVICE_LINK: Final = (
    f"/d/{DEVICE_DASHBOARD}?var-device=${{__value.raw:percentencode}}&${{__url_time_range}}",
    "How this device performs",
)

Variable = Builder[VariableModel]


def board(
    uid: str,
    title: str,
    description: str,
    panels: Iterable[Builder[Panel]],
    *,
    page: str,
    variables: Iterable[Variable] = (),
    events: tuple[str, str, str] | None = None,
    since: str = "now-24h",
) -> Dashboard:
    """Return a dashboard whose panels are numbered and follow each other from left to right.

    Parameters
    ----------
    page
        Of the fleet pages in Airflow, where one can act on what the dashboard shows.
    events
        Name of what is marked on the panels over time, its query, and its colour.
    since
        Start of the range of time that is shown at first.
    """
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("1m")
        .link(
            dashboard.DashboardLink("FLEAD")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
            .icon("dashboard")
        )
        .link(
            dashboard.DashboardLink("Fleet page")
            .type(DashboardLinkType.LINK)
            .url(f"{FLEET_PAGES}{page}")
            .tooltip("The page in Airflow, where one can act")
            .target_blank(True)
            .icon("external link")
        )
    )
    for variable in (*variables, _airflow()):
        made = made.with_variable(variable)
    if events is not None:
        name, query, colour = events
        made = made.annotation(
            dashboard.AnnotationQuery()
            .name(name)
            .datasource(SOURCE)
            .enable(True)
            .icon_color(colour)
            .target(Events(query))
        )
    for number, panel in enumerate(panels, 1):
        panel.build().id_val = number
        made = made.with_panel(panel)
    return made.build()


def features() -> Variable:
    """Return the choice of a feature list: each has a lineage of models of its own."""
    return _choice("features", "Features", "Feature list of the models", "variables/feature_lists")


def device() -> Variable:
    """Return the choice of a device, searched for by the beginning of its name."""
    return _choice("device", "Device", "Type the beginning of its name", "variables/devices")


def window() -> Variable:
    """Return the choice of a window of the stream analysis."""
    return _choice(
        "window", "Window (s)", "Seconds of a window of the stream analysis", "variables/windows"
    )


def versions() -> Variable:
    """Return the choice of model versions, all at first."""
    return (
        _choice("version", "Versions", "Global models that were evaluated", "variables/versions")
        .multi(True)
        .include_all(True)
    )


def _choice(name: str, label: str, description: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query(sql(query))
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
    )


def _airflow() -> Variable:
    return (
        dashboard.TextBoxVariable("airflow")
        .label("Airflow")
        .description("Address of Airflow, for links to the fleet page")
        .default_value(AIRFLOW)
        .hide(VariableHide.DONT_HIDE)
    )
