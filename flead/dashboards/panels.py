"""Panels of one look, by colours of Grafana's palette, which suit its dark and light themes."""

from collections.abc import Sequence
from typing import Any, Final, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import (
    barchart,
    common,
    dashboard,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import trend as trends
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from flead.dashboards.queries import SOURCE, Query

GOOD: Final = "green"
DOUBTFUL: Final = "orange"
BAD: Final = "red"
QUIET: Final = "text"
SHARE: Final = "percentunit"
SECONDS: Final = "s"
NATS: Final = "nats a row"
ROWS_PER_SECOND: Final = "rowsps"
COUNT: Final = "short"
TIME: Final = "dateTimeAsIso"
"""Units of Grafana; `nats a row` is none of them and is shown as it is."""

WIDTH: Final = 24
"""Columns of a dashboard."""
NO_LABELS: Final = "No labelled rows"
EMPTY: Final = "none"

Limits = Sequence[tuple[float, str]]


class Column:
    """How a column of a query is shown.

    Parameters
    ----------
    name, title
        In the query, and on the page.
    unit
        Of Grafana; None for texts and identifiers.
    colours
        By value, for texts that are states.
    link
        Path that a click opens, with Grafana's variables, and what it is called.
    """

    def __init__(
        self,
        name: str,
        title: str,
        unit: str | None = None,
        *,
        decimals: int | None = None,
        limits: Limits = (),
        colours: dict[str, str] | None = None,
        link: tuple[str, str] | None = None,
        width: int | None = None,
    ) -> None:
        self.name = name
        settings: dict[str, Any] = {"displayName": title}
        if unit is not None:
            settings["unit"] = unit
        if decimals is not None:
            settings["decimals"] = decimals
        if limits:
            settings["thresholds"] = thresholds(limits).build()
            settings["color"] = {"mode": FieldColorModeId.THRESHOLDS}
        if colours is not None:
            settings["mappings"] = states(colours)
        if limits or colours is not None:
            settings["custom.cellOptions"] = {"type": "color-text"}
        if link is not None:
            settings["links"] = [{"title": link[1], "url": link[0]}]
        if width is not None:
            settings["custom.width"] = width
        self.properties = [DynamicConfigValue(id_val, value) for id_val, value in settings.items()]


class _Panel(Protocol):
    """What all panels of the SDK have in common."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: DataSourceRef) -> Self: ...
    def with_target(self, target: Builder[Dataquery]) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def override_by_name(self, name: str, properties: list[DynamicConfigValue]) -> Self: ...


_Kind = TypeVar("_Kind", bound=_Panel)


def thresholds(limits: Limits) -> dashboard.ThresholdsConfig:
    """Return good below the first limit, then the colour of each limit from it on."""
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=None, color=GOOD), *(Threshold(*limit) for limit in limits)])
    )


def states(colours: dict[str, str]) -> list[ValueMap]:
    """Return the colours of texts."""
    options = {
        text: ValueMappingResult(color=colour, index=index)
        for index, (text, colour) in enumerate(colours.items())
    }
    return [ValueMap(options=options)]


def series(
    name: str,
    title: str,
    description: str,
    columns: Sequence[Column] = (),
    *,
    unit: str,
    span: int = WIDTH // 2,
    height: int = 8,
    limits: Limits = (),
    lowest: float | None = 0,
    top: float | None = None,
    as_bars: bool = False,
    no_value: str = "No data",
    days: int | None = None,
) -> timeseries.Panel:
    """Return lines over time; dashed lines are limits.

    Parameters
    ----------
    lowest, top
        Ends of the scale; None where it follows the values.
    days
        Back from now, instead of the dashboard's range.
    """
    panel = _described(timeseries.Panel(), name, title, description, columns, is_series=True)
    panel = panel.span(span).height(height).unit(unit).no_value(no_value)
    panel = panel.legend(_legend()).tooltip(_tooltip()).line_width(1).fill_opacity(8)
    # a version, a round or an evaluation is a point; the line only joins them
    panel = panel.show_points(shared.VisibilityMode.AUTO).span_nulls(True)
    if as_bars:
        panel = panel.draw_style(shared.GraphDrawStyle.BARS).fill_opacity(60)
        panel = panel.stacking(common.StackingConfig().mode(shared.StackingMode.NORMAL))
    if limits:
        panel = panel.thresholds(thresholds(limits)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(shared.GraphTresholdsStyleMode.DASHED)
        )
    if lowest is not None:
        panel = panel.min(lowest)
    if top is not None:
        panel = panel.max(top)
    return panel if days is None else panel.time_from(f"{days}d")


def figures(
    name: str,
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    span: int = WIDTH,
    height: int = 4,
    no_value: str = EMPTY,
) -> stat.Panel:
    """Return the figures of one row, side by side; `no_value` stands for a missing one, too."""
    panel = _described(stat.Panel(), name, title, description, columns)
    panel = (
        panel.span(span).height(height).no_value(no_value).graph_mode(shared.BigValueGraphMode.NONE)
    )
    panel = panel.color_mode(shared.BigValueColorMode.VALUE).thresholds(thresholds([]))
    # by default a stat shows only numbers; states are texts
    reduced = common.ReduceDataOptions().values(False).calcs(["lastNotNull"]).fields("/.*/")
    panel = panel.reduce_options(reduced).orientation(shared.VizOrientation.VERTICAL)
    return panel.color_scheme(
        dashboard.FieldColor().mode(FieldColorModeId.FIXED).fixed_color(QUIET)
    )


def rows(
    name: str,
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    span: int = WIDTH,
    height: int = 9,
    no_value: str = EMPTY,
) -> table.Panel:
    """Return a table; `no_value` stands in an empty cell, too."""
    panel = _described(table.Panel(), name, title, description, columns)
    return panel.span(span).height(height).no_value(no_value).show_header(True)


def bars(
    name: str,
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    unit: str,
    span: int = WIDTH // 2,
    height: int = 8,
    no_value: str = "No data",
) -> barchart.Panel:
    """Return bars, one group for each text of the first column."""
    panel = _described(barchart.Panel(), name, title, description, columns)
    panel = panel.span(span).height(height).unit(unit).min(0).no_value(no_value)
    panel = panel.show_value(shared.VisibilityMode.NEVER).fill_opacity(60)
    return panel.legend(_legend()).tooltip(_tooltip()).x_tick_label_spacing(100)


def curve(
    name: str,
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    x: str,
    unit: str,
    as_bars: bool = False,
    span: int = WIDTH // 2,
    height: int = 8,
    no_value: str = NO_LABELS,
) -> trends.Panel:
    """Return lines over the numbers of a column `x`, which rise."""
    panel = _described(trends.Panel(), name, title, description, columns)
    panel = panel.span(span).height(height).unit(unit).no_value(no_value).x_field(x)
    panel = panel.legend(_legend()).tooltip(_tooltip()).line_width(1)
    panel = panel.show_points(shared.VisibilityMode.AUTO).span_nulls(True)
    if as_bars:
        panel = panel.draw_style(shared.GraphDrawStyle.BARS).fill_opacity(60)
    return panel


def timeline(
    name: str,
    title: str,
    description: str,
    column: Column,
    *,
    span: int = WIDTH,
    height: int = 5,
    no_value: str = "No data",
) -> statetimeline.Panel:
    """Return the states of one thing over time."""
    panel = _described(statetimeline.Panel(), name, title, description, [column])
    panel = panel.span(span).height(height).no_value(no_value).fill_opacity(70)
    return panel.merge_values(True).show_value(shared.VisibilityMode.AUTO).legend(_legend())


def _described(
    panel: _Kind,
    name: str,
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    is_series: bool = False,
) -> _Kind:
    panel = panel.title(title).description(description).datasource(SOURCE)
    panel = panel.with_target(Query(name, is_series=is_series))
    for column in columns:
        panel = panel.override_by_name(column.name, column.properties)
    return panel


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(shared.LegendDisplayMode.LIST)
        .placement(shared.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(shared.TooltipDisplayMode.MULTI)
