// Draws the charts that a page describes as JSON, and the tables of the same figures.
(function () {
  "use strict";
  const FORMATS = {
    percent: (value) => `${(100 * value).toFixed(1)} %`,
    decimals: (value) => value.toFixed(4),
    count: (value) => Math.round(value).toLocaleString("en"),
    rate: (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(3))),
    seconds: (value) => `${+value.toPrecision(3)} s`,
    number: (value) => String(+value.toPrecision(4)),
  };
  const drawn = new Map();

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function moment(milliseconds) {
    return new Date(milliseconds).toISOString().slice(0, 19).replace("T", " ");
  }

  function specification(id) {
    const element = document.getElementById(id);
    return element && JSON.parse(element.textContent);
  }

  function xText(spec, x) {
    return spec.x === "time" ? `${moment(x)} UTC` : `version ${x}`;
  }

  function seriesOption(series) {
    const isPoints = series.draw === "points";
    const paint = colour(series.colour);
    return {
      name: series.name,
      type: isPoints ? "scatter" : "line",
      data: series.points,
      yAxisIndex: series.axis,
      symbol: series.symbol,
      symbolSize: isPoints ? 9 : 4,
      showSymbol: isPoints || (series.symbol !== "none" && series.points.length < 2),
      step: series.draw === "steps" ? "end" : false,
      connectNulls: false,
      lineStyle: { width: series.colour === "line" ? 1.25 : 2, color: paint },
      itemStyle: { color: paint, borderColor: paint, borderWidth: series.symbol.startsWith("empty") ? 2 : 0 },
      areaStyle: series.draw === "area" ? { color: paint, opacity: 0.12 } : undefined,
      z: isPoints ? 3 : 2,
      emphasis: { focus: "none" },
    };
  }

  function option(spec) {
    const text = colour("muted");
    const grid = colour("rule");
    const named = spec.series.filter((series) => series.colour !== "line");
    return {
      animation: false,
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: text },
      aria: { enabled: true, label: { description: describe(spec) } },
      grid: { left: 8, right: 16, top: named.length > 1 || spec.y[0].name ? 44 : 16, bottom: 8, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
      legend: {
        show: named.length > 1,
        data: named.map((series) => series.name),
        top: 0,
        left: 0,
        itemWidth: 14,
        itemHeight: 9,
        textStyle: { color: text },
        inactiveColor: grid,
      },
      tooltip: {
        trigger: "axis",
        renderMode: "richText",
        backgroundColor: colour("panel"),
        borderColor: colour("rule"),
        textStyle: { color: colour("text"), fontSize: 12 },
        axisPointer: { lineStyle: { color: text } },
        formatter: (hovered) => tooltip(spec, hovered),
      },
      xAxis: {
        type: spec.x === "time" ? "time" : "value",
        min: spec.x === "time" ? spec.ends?.[0] : "dataMin",
        max: spec.x === "time" ? spec.ends?.[1] : "dataMax",
        minInterval: spec.x === "time" ? undefined : 1,
        useUTC: true,
        axisLine: { lineStyle: { color: grid } },
        axisTick: { show: false },
        axisLabel: { color: text, hideOverlap: true },
        splitLine: { show: false },
      },
      yAxis: spec.y.map((axis, place) => ({
        type: "value",
        name: axis.name,
        nameTextStyle: { color: text, align: place ? "right" : "left" },
        nameGap: 10,
        scale: axis.low === null,
        min: axis.low === null ? undefined : axis.low,
        max: axis.high === null ? undefined : axis.high,
        splitNumber: 4,
        axisLabel: { color: text, formatter: (value) => axisText(axis, value) },
        splitLine: { show: place === 0, lineStyle: { color: grid } },
        alignTicks: place > 0,
      })),
      useUTC: true,
      series: spec.series.map((series, place) => ({
        ...seriesOption(series),
        markLine: place === 0 && spec.marks ? marked(spec.marks) : undefined,
      })),
    };
  }

  function marked(levels) {
    return {
      silent: true,
      symbol: "none",
      label: { color: colour("muted"), formatter: "{c}", position: "insideEndTop" },
      lineStyle: { color: colour("muted"), type: "dashed", width: 1 },
      data: levels.map((level) => ({ yAxis: level })),
    };
  }

  function axisText(axis, value) {
    if (axis.format === "percent") return `${+(100 * value).toFixed(1)} %`;
    if (axis.format === "seconds") return `${+value.toPrecision(3)} s`;
    return value >= 10000 ? value.toLocaleString("en") : String(+value.toPrecision(4));
  }

  function tooltip(spec, hovered) {
    if (!hovered.length) return "";
    const lines = [xText(spec, hovered[0].value[0])];
    for (const point of hovered) {
      const series = spec.series[point.seriesIndex];
      if (series.colour === "line" || point.value[1] === null) continue;
      lines.push(`${series.name}: ${FORMATS[spec.y[series.axis].format](point.value[1])}`);
    }
    return lines.join("\n");
  }

  function describe(spec) {
    const parts = spec.series
      .filter((series) => series.colour !== "line")
      .map((series) => {
        const known = series.points.filter((point) => point[1] !== null);
        if (!known.length) return `${series.name}: no figures`;
        const last = known[known.length - 1];
        const format = FORMATS[spec.y[series.axis].format];
        return `${series.name}: ${known.length} figures, the last ${format(last[1])} at ${xText(spec, last[0])}`;
      });
    return `${spec.title}. ${parts.join(". ")}. The table below has all figures.`;
  }

  function draw(element) {
    const spec = specification(element.dataset.chart);
    if (!spec) return;
    let chart = drawn.get(element);
    if (!chart) {
      chart = echarts.init(element, null, { renderer: "canvas" });
      drawn.set(element, chart);
      new ResizeObserver(() => chart.resize()).observe(element);
    }
    element.setAttribute("role", "img");
    chart.setOption(option(spec), { notMerge: false, replaceMerge: ["series", "yAxis"] });
  }

  function cell(tag, content, isNumber) {
    const made = document.createElement(tag);
    made.textContent = content;
    if (isNumber) made.className = "number";
    return made;
  }

  function tabulate(details) {
    const spec = specification(details.dataset.figures);
    const place = details.querySelector("div");
    if (!spec || !details.open) return;
    const named = spec.series.filter((series) => series.colour !== "line");
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    head.append(cell("th", spec.x === "time" ? "time (UTC)" : "version"));
    for (const series of named) head.append(cell("th", series.name, true));
    for (const header of head.cells) header.scope = "col";
    const rows = new Map();
    named.forEach((series, column) => {
      for (const [x, y] of series.points) {
        if (!rows.has(x)) rows.set(x, new Array(named.length).fill(null));
        rows.get(x)[column] = y;
      }
    });
    const body = table.createTBody();
    for (const x of [...rows.keys()].sort((a, b) => b - a)) {
      const line = body.insertRow();
      const first = cell("th", spec.x === "time" ? moment(x) : String(x));
      first.scope = "row";
      line.append(first);
      rows.get(x).forEach((y, column) => {
        const format = FORMATS[spec.y[named[column].axis].format];
        line.append(cell("td", y === null ? "–" : format(y), true));
      });
    }
    place.replaceChildren(table);
  }

  function drawAll() {
    for (const element of [...drawn.keys()]) {
      if (!element.isConnected) {
        drawn.get(element).dispose();
        drawn.delete(element);
      }
    }
    document.querySelectorAll("[data-chart]").forEach(draw);
    document.querySelectorAll("[data-figures]").forEach(tabulate);
  }

  document.addEventListener("toggle", (event) => {
    if (event.target.dataset && event.target.dataset.figures) tabulate(event.target);
  }, true);
  document.addEventListener("htmx:after:swap", drawAll);
  document.addEventListener("flead:theme", drawAll);
  drawAll();
})();
