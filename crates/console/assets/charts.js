// The overview's charts, fed by an event stream while the page is open and shown. A hidden page lets go of the stream.
"use strict";

(() => {
  const root = document.getElementById("charts");
  if (!root || !window.uPlot) return;
  // Five minutes, one point a second.
  const KEEP = 300;
  const names = ["started", "completed", "compensated", "in_flight", "stuck", "p50", "p99"];
  const points = { at: [], ...Object.fromEntries(names.map((name) => [name, []])) };
  const kinds = [
    ["rates", [["started", "--busy"], ["completed", "--good"], ["compensated", "--undone"]]],
    ["flight", [["in_flight", "--busy"], ["stuck", "--bad"]]],
    ["latency", [["p50", "--busy"], ["p99", "--back"]]],
  ];
  const words = { in_flight: "in flight", p50: "median, ms", p99: "99 %, ms" };
  // Not by colour alone.
  const dashes = [[], [6, 4], [2, 3]];
  // As everywhere on the pages: UTC.
  const clock = (_, ticks) => ticks.map((at) => new Date(at * 1000).toISOString().slice(11, 19));
  let charts = [];

  const data = (lines) => [points.at, ...lines.map(([name]) => points[name])];

  const draw = () => {
    charts.forEach(({ chart }) => chart.destroy());
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    charts = kinds.map(([id, lines]) => {
      const box = document.getElementById(id);
      const series = lines.map(([name, hue], at) => ({ label: words[name] ?? name, stroke: colour(hue), width: 2, dash: dashes[at], points: { show: false } }));
      const options = {
        width: box.clientWidth, height: 160, series: [{}, ...series], axes: [{ ...axis, values: clock, space: 80 }, { ...axis, size: 46 }],
        padding: [8, 32, 0, 0],
        legend: { live: false }, cursor: { show: false }, scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
      };
      return { box, lines, chart: new uPlot(options, data(lines), box) };
    });
  };

  const add = (numbers) => {
    points.at.push(numbers.at);
    names.forEach((name) => points[name].push(numbers[name]));
    if (points.at.length > KEEP) [points.at, ...names.map((name) => points[name])].forEach((list) => list.shift());
    charts.forEach(({ chart, lines }) => chart.setData(data(lines)));
  };

  const link = document.getElementById("link");
  const parts = document.getElementById("parts");
  let source = null;
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(root.dataset.events);
    source.addEventListener("open", () => { link.textContent = "live"; });
    source.addEventListener("numbers", (event) => add(JSON.parse(event.data)));
    source.addEventListener("parts", (event) => {
      // Written by the server, every text in it escaped. What is in use is left alone.
      if (!parts.contains(document.activeElement)) parts.innerHTML = event.data;
    });
    source.addEventListener("error", () => {
      link.textContent = "not live: trying again";
      if (source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(open, 5000);
      }
    });
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return open();
    source?.close();
    source = null;
  });
  window.addEventListener("resize", () => charts.forEach(({ box, chart }) => chart.setSize({ width: box.clientWidth, height: 160 })));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
  open();
})();
