"use strict";
(() => {
  const result = JSON.parse(document.getElementById("result").textContent);
  const main = document.getElementById("report");
  const COLOURS = ["#2f7ed8", "#d8572f", "#3a9b5c", "#8e5bd0", "#b58a00", "#4aa3a3", "#c2508f"];

  const node = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const add = (parent, tag, text, className) => parent.appendChild(node(tag, text, className));
  const number = (value, digits = 1) =>
    value === null || value === undefined ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: digits });

  const table = (parent, heads, rows) => {
    const made = add(parent, "table");
    const head = made.createTHead().insertRow();
    heads.forEach((one) => head.appendChild(node("th", one)));
    const body = made.createTBody();
    rows.forEach((row) => {
      const line = body.insertRow();
      row.forEach((cell) => { line.insertCell().textContent = typeof cell === "number" ? number(cell, 3) : cell; });
    });
  };

  const ink = () => getComputedStyle(document.body).getPropertyValue("--ink").trim() || "#000";
  const plots = [];
  const chart = (parent, id, title, x, lines, options = {}) => {
    const place = add(parent, "div", undefined, "chart");
    place.id = id;
    if (!x.length) { add(place, "p", `${title}: nothing was measured`, "dim"); return; }
    const axis = { stroke: ink, grid: { stroke: "#8884", width: 1 }, ticks: { stroke: "#8884" } };
    const width = () => Math.max(place.clientWidth, 280);
    const plot = new uPlot({
      title, width: width(), height: 240,
      scales: { x: { time: false, ...(options.x || {}) }, y: options.y || {} },
      axes: [{ ...axis, ...(options.xAxis || {}), label: options.xLabel || "s" }, { ...axis, size: 70 }],
      series: [
        { label: options.xLabel || "s" },
        ...lines.map(([label, _values], place) => ({
          label, stroke: COLOURS[place % COLOURS.length], width: 1.5, spanGaps: true,
          ...(options.bars ? { paths: uPlot.paths.bars({ size: [0.7, 60] }), fill: `${COLOURS[place % COLOURS.length]}66` } : {}),
        })),
      ],
    }, [x, ...lines.map(([_label, values]) => values)], place);
    plots.push(() => plot.setSize({ width: width(), height: 240 }));
  };

  const fromZero = { y: { range: (_plot, _low, high) => [0, high * 1.1 || 1] } };
  const named = (names) => ({ values: (_plot, ticks) => ticks.map((tick) => names[tick] || ""), rotate: names.length > 6 ? -60 : 0,
    size: names.length > 6 ? 90 : 40, splits: () => names.map((_name, place) => place) });

  const head = () => {
    add(main, "h1", result.name);
    add(main, "p", result.about, "dim");
    const broken = result.violations;
    const verdict = add(main, "p", `${broken.length} violations in ${number(result.checked.operations, 0)} operations`,
      broken.length ? "bad" : "good");
    verdict.id = "verdict";
    if (broken.length) {
      const list = add(main, "ul", undefined, "bad");
      list.id = "violations";
      broken.slice(0, 100).forEach((one) => add(list, "li", one));
    }
  };

  const runs = (title, of) => {
    add(main, "h2", title);
    table(main, ["run", "confirmed/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "released", "not confirmed"], of.map((run, place) => [
      String(place + 1), run.confirmed_per_s, run.latency_ms.p50, run.latency_ms.p99, run.latency_ms.p99_9,
      run.latency_ms.max, run.released,
      Object.entries(run.not_201).map(([status, count]) => `${status}: ${count}`).join(", ") || "–",
    ]));
  };

  const ratios = () => {
    if (!result.ratios) return;
    table(main, [`by ${result.against.name}`, "median", "least", "most"],
      Object.entries(result.ratios).map(([name, one]) => [name, one.median, one.least, one.most]));
  };

  const charts = (parent, run) => {
    parent.replaceChildren();
    plots.length = 0;
    const { answers, processes } = run.over_time;
    chart(parent, "throughput", "Confirmed bindings a second", answers.t, [["confirmed/s", answers.confirmed_per_s]], fromZero);
    chart(parent, "latency", "Latency, ms", answers.t, [["p50", answers.p50_ms], ["p99", answers.p99_ms]], fromZero);
    const places = run.distribution.map(([share]) => Math.log10(100 / Math.max(100 - share, 0.005)));
    chart(parent, "distribution", "Latency distribution, ms", places, [["ms", run.distribution.map(([, ms]) => ms)]], {
      xLabel: "percentile", xAxis: {
        splits: () => [0, 1, 2, 3, 4].filter((at) => at <= places[places.length - 1] + 0.5),
        values: (_plot, ticks) => ticks.map((at) => `${(100 - 100 / 10 ** at).toFixed(Math.max(at - 2, 0))} %`),
      },
    });
    chart(parent, "cpu", "Processors busy, by process", processes.t, Object.entries(processes.cores), fromZero);
    chart(parent, "wal", "WAL, MiB a second", processes.t,
      [["MiB/s", processes.wal_bytes_per_s.map((one) => (one === null ? null : one / 2 ** 20))]], fromZero);
    chart(parent, "memory", "Memory of a worker, MiB", processes.t, [["MiB", processes.worker_mib]], fromZero);
    const batches = ((run.cost || {}).statements || []).filter((one) => one.rows_per_call > 1).slice(0, 8);
    chart(parent, "batches", "Rows a statement (batch sizes)", batches.map((_one, place) => place),
      [["rows", batches.map((one) => one.rows_per_call)]], {
        ...fromZero, bars: true, x: { range: () => [-0.5, batches.length - 0.5] },
        xLabel: "statement", xAxis: named(batches.map((one) => one.name)),
      });
  };

  const pools = () => {
    const of = (result.pools || []).slice(0, 20);
    if (!of.length) return;
    add(main, "h2", "Pools: X in use against X*, the least that any choice would need");
    const place = add(main, "div", undefined, "charts");
    chart(place, "pools", "X numbers of the fullest pools", of.map((_one, at) => at),
      [["X in use", of.map((one) => one.in_use)], ["X*", of.map((one) => one.least)]], {
        ...fromZero, x: { range: () => [-0.5, of.length - 0.5] },
        xLabel: "pool", xAxis: named(of.map((one) => one.pool)),
      });
    table(main, ["pool", "live lines", "X in use", "X*", "X in all"],
      of.map((one) => [one.pool, one.lines, one.in_use, one.least, one.numbers]));
  };

  const cost = (run) => {
    if (!run.cost) return;
    add(main, "h2", "Cost of a confirmed binding, last run");
    table(main, ["", "per binding"], [
      ...Object.entries(run.cost.cpu_us).map(([role, us]) => [`CPU µs, ${role}`, us]),
      ["WAL bytes", run.cost.wal_bytes], ["SQL round trips", run.cost.sql_flights], ["rows written", run.cost.rows_written],
      ["CPU s that others took", run.cost.others_cpu_s],
    ]);
    add(main, "h2", "Top statements, last run");
    table(main, ["statement", "calls", "rows/call", "mean ms", "µs/binding", "WAL bytes/binding"],
      run.cost.statements.slice(0, 15).map((one) =>
        [one.name, one.calls, one.rows_per_call, one.mean_ms, one.exec_us, one.wal_bytes]));
  };

  const facts = (title, of) => {
    if (!of) return;
    add(main, "h2", title);
    const flat = (value, name) => (value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.entries(value).flatMap(([key, inner]) => flat(inner, name ? `${name}.${key}` : key))
      : [[name, value === null ? "–" : Array.isArray(value) ? value.join(", ") : String(value)]]);
    table(main, ["", ""], flat(of, ""));
  };

  head();
  runs("Runs", result.runs);
  if (result.against) runs(`In turn with ${result.against.name}`, result.against.runs);
  ratios();
  const last = result.runs[result.runs.length - 1];
  add(main, "h2", "Over time");
  const choice = add(main, "select");
  choice.setAttribute("aria-label", "run");
  result.runs.forEach((_run, place) => { const one = add(choice, "option", `run ${place + 1}`); one.value = String(place); });
  choice.value = String(result.runs.length - 1);
  const shown = add(main, "div", undefined, "charts");
  choice.addEventListener("change", () => charts(shown, result.runs[Number(choice.value)]));
  charts(shown, last);
  pools();
  cost(last);
  facts("Machine", result.machine);
  facts("PostgreSQL", result.postgres);
  facts("Scenario", result.scenario);
  window.addEventListener("resize", () => plots.forEach((fit) => fit()));
})();
