"use strict";
(() => {
  const root = document.documentElement;
  const figures = new Map();
  for (const holder of document.querySelectorAll("script[data-figure]")) {
    figures.set(holder.dataset.figure, JSON.parse(holder.textContent));
  }

  // The system chooses the light or dark theme until the button is pressed.
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const button = document.getElementById("theme");

  function themed(layout) {
    const style = getComputedStyle(root);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = (own) => ({
      ...own, gridcolor: color("--line"), linecolor: color("--line"), tickcolor: color("--line"),
    });
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: color("--ink"), family: "system-ui, sans-serif", size: 13 },
      hoverlabel: {
        bgcolor: color("--panel"), bordercolor: color("--line"), align: "left",
        font: { color: color("--ink") },
      },
      xaxis: axis(layout.xaxis),
      yaxis: axis(layout.yaxis),
    };
  }

  // The rows of each chart's table that pass the filter; undefined without a filter.
  const passing = new Map();

  function traces(id) {
    const allowed = passing.get(id);
    if (!allowed) return figures.get(id).data;
    return figures.get(id).data.map((trace) => {
      if (!trace.customdata) return trace;
      const keep = (_, index) => allowed.has(trace.customdata[index]);
      const part = { ...trace };
      for (const name of ["x", "y", "text", "customdata"]) part[name] = trace[name].filter(keep);
      return part;
    });
  }

  // Plotly has no logarithmic axis that includes zero and negative values. So the values are
  // transformed, and the ticks are labeled with the original values.
  const bent = (value, linear) =>
    value === null ? null : Math.sign(value) * Math.log10(1 + Math.abs(value) / linear);

  function logarithmic(data, layout) {
    const linear = layout.meta.linear;
    const values = data.flatMap((trace) => trace.y).filter((value) => value !== null);
    const largest = Math.max(linear, ...values.map(Math.abs));
    const ticks = [0];
    const first = Math.ceil(Math.log10(linear));
    const last = Math.ceil(Math.log10(largest));
    const step = Math.max(1, Math.ceil((last - first) / 6));
    for (let power = first; power <= last; power += step) {
      ticks.push(10 ** power);
      if (values.some((value) => value < -linear)) ticks.push(-(10 ** power));
    }
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (ticks.filter((value) => low <= value && value <= high).length < 2) ticks.push(low, high);
    const yaxis = {
      ...layout.yaxis,
      tickvals: ticks.map((value) => bent(value, linear)),
      ticktext: ticks.map((value) => Number(value.toPrecision(3)).toString()),
    };
    const bend = (trace) => ({ ...trace, y: trace.y.map((value) => bent(value, linear)) });
    return [data.map(bend), { ...layout, yaxis }];
  }

  function draw(id) {
    const config = { displayModeBar: false, responsive: true };
    let [data, layout] = [traces(id), figures.get(id).layout];
    if (paper) layout = { ...layout, width: PAPER, autosize: false };
    if (layout.meta && layout.meta.log) [data, layout] = logarithmic(data, layout);
    return Plotly.react(id, data, themed(layout), config);
  }

  // For printing: light colors and charts that fit on a page.
  const PAPER = 640;
  let paper = false;

  function drawAll() {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colors`);
    return Promise.all([...figures.keys()].map(draw));
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    drawAll();
  });
  system.addEventListener("change", drawAll);

  let chosen;
  window.addEventListener("beforeprint", () => {
    if (paper) return;
    [paper, chosen, root.dataset.theme] = [true, root.dataset.theme, "light"];
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    paper = false;
    if (chosen) root.dataset.theme = chosen;
    else delete root.dataset.theme;
    drawAll();
  });

  // A click on heat maps opens a dialog with the enlarged pictures and their names.
  const dialog = document.getElementById("enlarged");
  for (const cells of document.querySelectorAll("button.cells")) {
    cells.addEventListener("click", () => {
      dialog.querySelector("span").textContent =
        cells.closest(".panel").querySelector("figcaption").innerText;
      dialog.querySelector(".large").replaceChildren(...[...cells.children].map((picture) => {
        const figure = document.createElement("figure");
        const caption = document.createElement("figcaption");
        caption.textContent = picture.title.split(": ").at(-1);
        figure.append(picture.cloneNode(true), caption);
        return figure;
      }));
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.type === "button") dialog.close();
  });

  // The filter of verdicts applies to the chart and to its table.
  for (const form of document.querySelectorAll("form.filter")) {
    const id = form.dataset.chart;
    const rows = [...document.querySelectorAll(`[data-rows="${id}"] tbody tr`)];
    const apply = () => {
      const { client, verdict, log } = form.elements;
      const allowed = new Set();
      rows.forEach((row, index) => {
        const words = row.dataset.verdict.split(" ");
        row.hidden = Boolean(
          (client.value && row.dataset.client !== client.value) ||
          (verdict.value && !words.includes(verdict.value)));
        if (!row.hidden) allowed.add(index);
      });
      passing.set(id, allowed);
      figures.get(id).layout.meta.log = log.checked;
      form.querySelector("output").textContent = `${allowed.size} of ${rows.length} updates`;
      draw(id);
    };
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", apply);
    apply();
  }

  // Arrow keys move through the points of the focused chart and announce them.
  const spoken = document.getElementById("spoken");
  const plain = (text) => new DOMParser().parseFromString(
    String(text).replaceAll("<br>", ". "), "text/html").body.textContent;

  function points(id) {
    const found = [];
    traces(id).forEach((trace, curveNumber) => {
      if (trace.type === "heatmap") return;
      trace.x.forEach((x, pointNumber) => {
        if (trace.y[pointNumber] !== null) found.push({ curveNumber, pointNumber, x, trace });
      });
    });
    return found.sort((a, b) => a.x - b.x || a.curveNumber - b.curveNumber);
  }

  for (const id of figures.keys()) {
    let at = -1;
    document.getElementById(id).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const all = points(id);
      if (!step || !all.length) return;
      event.preventDefault();
      at = (at + step + all.length) % all.length;
      if (at < 0) at = all.length - 1;
      const { curveNumber, pointNumber, x, trace } = all[at];
      Plotly.Fx.hover(id, [{ curveNumber, pointNumber }]);
      const value = trace.text ? trace.text[pointNumber] : `${x}: ${trace.y[pointNumber]}`;
      spoken.textContent = plain(`${trace.name}, ${value}`);
    });
  }

  drawAll().then(() => { root.dataset.ready = "yes"; });
})();
