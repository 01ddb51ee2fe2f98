"use strict";

/* Draws the charts of a page from the data in it.

A chart has lines; each is a series of steps and values. Where a point stands for several values, it
is their mean, and a band around the line reaches from their lowest to their highest. The closer the
zoom, the fewer values a point stands for. Zooming is shared: all charts show the same steps. */

(() => {
  const page = JSON.parse(document.getElementById("ttl-data").textContent);
  const root = document.documentElement;
  const format = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const maxPoints = 240; // of a line on the screen, above which points stand for several values
  const charts = [];

  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const color = (line) => style(`--line-${line.color % 10}`);

  function text(value) {
    if (typeof value !== "number") return value ?? "–"; // "nan" and "inf" are texts
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e7) ? value.toExponential(2) : format.format(value);
  }

  /* A label of an axis: as short as possible, with enough digits to tell it from its neighbours. */
  function tick(value) {
    if (value == null) return "";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e7)) return String(Number(value.toPrecision(3)).toExponential());
    if (size >= 1e4) return `${Number((value / 1e3).toPrecision(5))}k`;
    return String(Number(value.toPrecision(5)));
  }

  function element(tag, className, content = "") {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = content;
    return made;
  }

  // -- the steps that all charts show ----------------------------------------------------------

  const steps = page.series.flatMap(({ steps }) => (steps.length ? [steps[0], steps.at(-1)] : []));
  const whole = { min: Math.min(...steps), max: Math.max(...steps) };
  if (whole.min === whole.max) whole.max += 1;
  let range = { ...whole };

  function zoomTo(min, max) {
    const width = Math.min(Math.max(max - min, 1), whole.max - whole.min);
    const start = Math.min(Math.max(min, whole.min), whole.max - width);
    range = { min: start, max: start + width };
    for (const chart of charts) chart.zoom();
    for (const button of document.querySelectorAll('[data-zoom="reset"], [data-zoom="out"]')) {
      button.disabled = width === whole.max - whole.min;
    }
  }

  const zooms = {
    in: () => zoomBy(0.5),
    out: () => zoomBy(2),
    left: () => shiftBy(-0.25),
    right: () => shiftBy(0.25),
    reset: () => zoomTo(whole.min, whole.max),
  };
  const keys = {
    "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", 0: "reset", Escape: "reset",
  };

  function zoomBy(factor) {
    const middle = (range.min + range.max) / 2;
    const half = ((range.max - range.min) / 2) * factor;
    zoomTo(middle - half, middle + half);
  }

  function shiftBy(share) {
    const shift = (range.max - range.min) * share;
    zoomTo(range.min + shift, range.max + shift);
  }

  /* Return a series with neighbouring points joined, so that few enough of them are shown. */
  function reduced({ steps, values, low = values, high = values }) {
    const shown = steps.filter((step) => step >= range.min && step <= range.max).length;
    const size = Math.ceil(shown / maxPoints);
    if (size <= 1) return low === values ? { steps, values, low: [], high: [] } : { steps, values, low, high };
    const result = { steps: [], values: [], low: [], high: [] };
    for (let start = 0; start < steps.length; start += size) {
      const end = Math.min(start + size, steps.length);
      const finite = values.slice(start, end).filter((value) => value !== null);
      const some = finite.length > 0;
      const extreme = (choose, column) => choose(...column.slice(start, end).filter((value) => value !== null));
      result.steps.push(steps[end - 1]);
      result.values.push(some ? finite.reduce((sum, value) => sum + value, 0) / finite.length : null);
      result.low.push(some ? extreme(Math.min, low) : null);
      result.high.push(some ? extreme(Math.max, high) : null);
    }
    return result;
  }

  // -- a chart ---------------------------------------------------------------------------------

  class Chart {
    constructor(figure) {
      const { lines } = page.charts[figure.dataset.chart];
      this.lines = lines.map((line) => ({ ...line, data: page.series[line.series], shown: true }));
      this.lines.sort((one, other) => other.is_background - one.is_background); // those first: behind
      this.holder = figure.querySelector(".plot");
      this.isLog = false;
      let column = 1; // of the line's values; those of a band are the two behind them
      for (const line of this.lines) {
        line.isBanded = "low" in line.data || line.data.steps.length > maxPoints;
        line.column = column;
        column += line.isBanded ? 3 : 1;
      }
      this.addLegend(figure.querySelector(".legend"));
      this.addLogButton(figure.querySelector(".log"));
      this.holder.addEventListener("keydown", (event) => {
        const zoom = keys[event.key];
        if (!zoom || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        zooms[zoom]();
      });
      new ResizeObserver(() => this.fit()).observe(this.holder);
    }

    /* Return all lines on one axis of steps, as uPlot draws them. At steps that a line has no value
    of it is undefined, and the line continues; where a value was not finite it is null, a gap. */
    points() {
      const tables = this.lines.map(({ data, isBanded }) => {
        const { steps, values, low, high } = reduced(data);
        return isBanded ? [steps, values, low, high] : [steps, values];
      });
      return tables.length > 1 ? uPlot.join(tables) : tables[0];
    }

    addLegend(legend) {
      for (const line of this.lines) {
        line.button = element("button", `key color-${line.color % 10}`);
        line.button.classList.toggle("background", line.is_background);
        line.output = element("span", "value");
        line.button.append(element("span", "swatch"), element("span", "name", line.label || "value"), line.output);
        line.button.type = "button";
        line.button.setAttribute("aria-pressed", "true");
        line.button.addEventListener("click", () => {
          if (page.kind === "comparison") showRun(line.label, !line.shown);
          else this.show(line.label, !line.shown);
        });
        legend.append(line.button);
      }
    }

    show(label, shown) {
      for (const line of this.lines.filter((each) => each.label === label)) {
        line.shown = shown;
        line.button.setAttribute("aria-pressed", String(shown));
        this.columns(line).forEach((column) => this.plot.setSeries(column, { show: shown }));
      }
    }

    columns(line) {
      return line.isBanded ? [line.column, line.column + 1, line.column + 2] : [line.column];
    }

    addLogButton(button) {
      const lowest = Math.min(...this.lines.map(({ data }) => (data.lowest ? data.lowest[0] : Infinity)));
      button.hidden = !(lowest > 0 && lowest < Infinity);
      button.addEventListener("click", () => {
        this.isLog = !this.isLog;
        button.setAttribute("aria-pressed", String(this.isLog));
        this.draw();
      });
    }

    draw() {
      this.plot?.destroy();
      this.plot = new uPlot(this.options(), this.points(), this.holder);
      this.showValues(null);
    }

    zoom() {
      this.plot.batch(() => {
        this.plot.setData(this.points(), false);
        this.plot.setScale("x", range);
      });
    }

    fit() {
      const { width, height } = this.size();
      if (this.plot && width && this.plot.width !== width) this.plot.setSize({ width, height });
    }

    size() {
      return { width: this.holder.clientWidth, height: 240 };
    }

    options() {
      const series = [{}];
      const bands = [];
      for (const line of this.lines) {
        const stroke = color(line);
        const show = line.shown;
        const quiet = line.is_background;
        const width = quiet ? 1 : line.isBanded ? 1.5 : 2;
        const alpha = quiet ? 0.55 : 1;
        // one alone has no line; otherwise uPlot shows points where there is room between them
        const isAlone = line.data.values.filter((value) => value !== null).length === 1;
        const points = { size: 6, fill: stroke, stroke, ...(isAlone && { show: true }) };
        const dash = line.color >= 10 ? [6, 4] : undefined; // there are ten colors
        series.push({ stroke, alpha, width, show, dash, pxAlign: false, points: quiet && !isAlone ? { show: false } : points });
        if (line.isBanded) {
          const edge = { show, width: 0, stroke: "transparent", points: { show: false } };
          series.push({ ...edge }, { ...edge });
          bands.push({ series: [line.column + 2, line.column + 1], fill: `${stroke}${quiet ? "26" : "33"}` });
        }
      }
      const axis = {
        stroke: style("--muted"),
        font: `12px ${style("--font")}`,
        grid: { stroke: style("--grid"), width: 1 },
        ticks: { show: false },
      };
      const isHelper = (_, column) => !this.lines.some((line) => line.column === column);
      return {
        ...this.size(),
        series,
        bands,
        legend: { show: false },
        padding: [10, 22, 0, 0],
        scales: {
          x: { time: false, min: range.min, max: range.max },
          y: this.isLog ? { distr: 3, range: (_, min, max) => uPlot.rangeLog(min, max, 10, false) } : {},
        },
        axes: [
          { ...axis, label: "step", labelSize: 18, labelGap: 0, labelFont: axis.font, size: 28, gap: 6, space: 70, incrs: [1, 2, 5].flatMap((i) =>
            [...Array(13).keys()].map((power) => i * 10 ** power)).sort((a, b) => a - b),
            values: (_, values) => values.map(tick) },
          { ...axis, size: 58, gap: 8, space: 34, values: (_, values) => values.map(tick) },
        ],
        cursor: {
          y: false,
          points: { size: (plot, column) => (isHelper(plot, column) ? 0 : 8) },
          drag: { x: true, y: false, setScale: false },
          bind: { dblclick: () => zooms.reset },
          sync: { key: "steps", scales: ["x", null], filters: { pub: (type) => type !== "mouseup" && type !== "mousedown" } },
        },
        hooks: {
          setCursor: [(plot) => this.showValues(plot.cursor.idx)],
          setSelect: [(plot) => this.zoomToSelection(plot)],
          draw: [(plot) => this.markNonFinite(plot)],
        },
      };
    }

    zoomToSelection(plot) {
      const { left, width } = plot.select;
      if (width < 4) return; // a click
      plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      zoomTo(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
    }

    /* Show the values at the cursor in the legend, or the last ones where there is none. */
    showValues(index) {
      for (const line of this.lines) {
        const values = this.plot.data[line.column];
        let at = index;
        while (at > 0 && values[at] == null) at -= 1;
        line.output.textContent = text(at == null ? line.data.last : values[at]);
      }
    }

    markNonFinite(plot) {
      const { ctx, bbox } = plot;
      const size = 5 * devicePixelRatio;
      ctx.save();
      ctx.fillStyle = style("--bad");
      for (const { data, shown } of this.lines) {
        for (const [step] of shown ? data.non_finite : []) {
          if (step < range.min || step > range.max) continue;
          const x = plot.valToPos(step, "x", true);
          const y = bbox.top + bbox.height;
          ctx.beginPath();
          ctx.moveTo(x, y - 1.6 * size);
          ctx.lineTo(x + size, y);
          ctx.lineTo(x - size, y);
          ctx.fill();
        }
      }
      ctx.restore();
    }
  }

  /* Show or hide a run of a comparison everywhere. */
  function showRun(label, shown) {
    for (const chart of charts) chart.show(label, shown);
    for (const button of document.querySelectorAll("[data-run]")) {
      if (button.dataset.run === label) button.setAttribute("aria-pressed", String(shown));
    }
  }

  // -- the page --------------------------------------------------------------------------------

  const drawAll = () => charts.forEach((chart) => chart.draw());

  for (const figure of document.querySelectorAll("figure[data-chart]")) charts.push(new Chart(figure));
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", zooms[button.dataset.zoom]);
  }
  for (const button of document.querySelectorAll("[data-run]")) {
    button.addEventListener("click", () =>
      showRun(button.dataset.run, button.getAttribute("aria-pressed") !== "true"));
  }
  drawAll();
  zooms.reset();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  for (const [event, isPrinting] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => {
      root.toggleAttribute("data-printing", isPrinting); // the light colors, on paper
      drawAll();
    });
  }
})();
