// Everything foreign is put on the page by textContent: nothing of it is ever parsed as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { tests, uses } = data;
  const $ = (id) => document.getElementById(id);
  const PAGE = 200; // rows: more at once would make the table slow
  const STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power); // round as memory is

  // -- words for figures -----------------------------------------------------------------------------------------

  const size = (bytes) => {
    const of = (factor, unit) => `${(bytes / factor).toFixed(1)} ${unit}`;
    const magnitude = Math.abs(bytes);
    if (magnitude >= 2 ** 30) return of(2 ** 30, "GiB");
    if (magnitude >= 2 ** 20) return of(2 ** 20, "MiB");
    return magnitude >= 1024 ? of(1024, "KiB") : `${bytes} B`;
  };
  const time = (seconds) => {
    if (seconds >= 1) return `${seconds.toFixed(2)} s`;
    const milliseconds = seconds * 1000;
    return milliseconds >= 10 ? `${milliseconds.toFixed(0)} ms` : `${milliseconds.toFixed(1)} ms`;
  };
  const laneName = (lane) => {
    const [run, ...worker] = data.lanes[lane].split(" ");
    const parts = [data.runs.length > 1 ? data.runs[run].name : "", worker.join(" ")].filter(Boolean);
    return parts.join(", ") || "this run";
  };
  const element = (tag, text = "", kind = "") => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  // -- the head --------------------------------------------------------------------------------------------------

  $("headline").textContent = data.headline;
  $("headline").classList.toggle("bad", data.leaks_found > 0);
  $("facts").textContent = data.facts.join(" · ");
  const partial = data.runs.filter((run) => run.partial).map((run) => `${run.name} is not whole: ${run.partial}`);
  for (const note of [...data.notes, ...partial]) $("notes").append(element("li", note));
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  let dark = prefersDark.matches;

  // -- the chart -------------------------------------------------------------------------------------------------

  const testsOf = new Map(); // of each lane: its tests by their start
  tests.lane.forEach((lane, test) => {
    if (tests.start[test] < 0) return;
    if (!testsOf.has(lane)) testsOf.set(lane, []);
    testsOf.get(lane).push(test);
  });
  for (const found of testsOf.values()) found.sort((a, b) => tests.start[a] - tests.start[b]);
  const usesOf = new Map(); // of each lane and device: its uses by their start
  uses.test.forEach((test, use) => {
    if (tests.start[test] < 0) return;
    const key = `${tests.lane[test]} ${uses.device[use]}`;
    if (!usesOf.has(key)) usesOf.set(key, []);
    usesOf.get(key).push(use);
  });
  for (const found of usesOf.values()) found.sort((a, b) => tests.start[uses.test[a]] - tests.start[uses.test[b]]);
  const leaksOf = new Map();
  data.leaks.forEach((leak) => leaksOf.set(leak[0], [...(leaksOf.get(leak[0]) || []), leak]));
  const useAt = new Map(uses.test.map((test, use) => [`${test} ${uses.device[use]}`, use]));

  const fixtures = [...data.fixtures].sort((a, b) => a[4] - b[4] || b[5] - a[5]);

  let plot = null;
  const lane = () => Number($("lane").value);
  const device = () => Number($("device").value);

  const points = () => {
    const [x, held, peak] = [[], [], []];
    const add = (at, now, most) => {
      x.push(x.length && at <= x[x.length - 1] ? x[x.length - 1] + 1e-7 : at);
      held.push(now);
      peak.push(most);
    };
    for (const use of usesOf.get(`${lane()} ${device()}`) || []) {
      const test = uses.test[use];
      const [start, end] = [tests.start[test], tests.start[test] + tests.seconds[test]];
      const most = uses.peak[use] < 0 ? null : uses.peak[use];
      add(start, uses.begin[use], null);
      add(start + (end - start) * 0.01, uses.begin[use], most);
      add(end - (end - start) * 0.01, uses.end[use], most);
      add(end, uses.end[use], null);
    }
    const last = (testsOf.get(lane()) || []).at(-1);
    if (x.length && last !== undefined) add(tests.start[last] + tests.seconds[last], held[held.length - 1], null);
    return [x, held, peak];
  };

  const indexAt = (found, seconds) => {
    let [low, high] = [0, found.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (tests.start[found[middle]] <= seconds) low = middle;
      else high = middle - 1;
    }
    return low;
  };

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const marks = (u) => {
    const { ctx, bbox } = u;
    const found = testsOf.get(lane()) || [];
    const x = (seconds) => u.valToPos(seconds, "x", true);
    const [from, to] = [u.scales.x.min, u.scales.x.max];
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const pixels = devicePixelRatio || 1;
    const [first, last] = found.length ? [indexAt(found, from), indexAt(found, to)] : [0, -1];
    for (let at = first; at <= last; at++) {
      const test = found[at];
      const leaks = (leaksOf.get(test) || []).filter((leak) => leak[2] === data.devices[device()]);
      const begin = x(tests.start[test]);
      const width = Math.max(2 * pixels, x(tests.start[test] + tests.seconds[test]) - begin);
      if (leaks.length) {
        ctx.fillStyle = color("--bad");
        ctx.globalAlpha = leaks.some((leak) => !leak[5]) ? 0.25 : 0.08;
        ctx.fillRect(begin, bbox.top, width, bbox.height);
        ctx.globalAlpha = 1;
        ctx.fillRect(begin, bbox.top, width, 4 * pixels);
      }
      if (last - first < 80) { // few enough to tell them apart
        ctx.fillStyle = color("--line");
        ctx.fillRect(begin, bbox.top, pixels, bbox.height);
      }
    }
    ctx.fillStyle = color("--fixture");
    ctx.font = `${10 * pixels}px system-ui, sans-serif`;
    const ends = [];
    for (const [name, scope, , ofLane, start, end] of fixtures) {
      if (ofLane !== lane() || end < from || start > to) continue;
      let row = ends.findIndex((taken) => taken <= start);
      if (row < 0) row = ends.length;
      if (row > 5) continue; // more than that hide the memory
      ends[row] = end;
      const top = bbox.top + (8 + row * 14) * pixels;
      const [left, right] = [Math.max(x(start), bbox.left), x(end)];
      ctx.globalAlpha = 0.7;
      ctx.fillRect(left, top, Math.max(2 * pixels, right - left), 2 * pixels);
      ctx.globalAlpha = 1;
      if (right - left > 60 * pixels) ctx.fillText(`${name} (${scope})`.slice(0, 60), left + 3 * pixels, top + 12 * pixels);
    }
    ctx.restore();
  };

  const tell = (u) => {
    const found = testsOf.get(lane()) || [];
    if (u.cursor.left < 0 || !found.length) return;
    const test = found[indexAt(found, u.posToVal(u.cursor.left, "x"))];
    const use = useAt.get(`${test} ${device()}`);
    const figures = use === undefined ? "did not use this device" :
      `${size(uses.begin[use])} → ${size(uses.end[use])}` + (uses.peak[use] < 0 ? "" : `, peak ${size(uses.peak[use])}`) +
      `, reserved ${size(uses.reserved[use])}`;
    const leaks = (leaksOf.get(test) || []).map((leak) => `\n${leak[1]}${leak[4] && `, held by ${leak[4]}`}${leak[5] && `, ${leak[5]}`}`);
    $("under").textContent = `${tests.name[test]} (${data.outcomes[tests.outcome[test]]}, ${time(tests.seconds[test])}): ${figures}${leaks.join("")}`;
  };

  const draw = () => {
    if (plot) plot.destroy();
    plot = null;
    $("chart").replaceChildren();
    const series = points();
    if (!series[0].length) {
      $("chart").append(element("p", "nothing was measured here", "hint"));
      return;
    }
    const axis = { stroke: color("--text"), grid: { stroke: color("--line"), width: 0.5 }, ticks: { stroke: color("--line") } };
    plot = new uPlot({
      width: $("chart").clientWidth || 800,
      height: 320,
      scales: { x: { time: false }, y: { range: (_, __, most) => [0, most * 1.15 || 1] } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((tick) => `${+tick.toFixed(3)} s`) },
        { ...axis, size: 80, incrs: STEPS, values: (_, ticks) => ticks.map(size) },
      ],
      series: [
        { label: "time", value: (_, at) => (at == null ? "" : `${at.toFixed(3)} s`) },
        { label: "in use", stroke: color("--held"), width: 1.5, points: { show: false }, value: (_, now) => (now == null ? "" : size(now)) },
        { label: "peak of a test", stroke: color("--peak"), width: 1, points: { show: false }, value: (_, now) => (now == null ? "" : size(now)) },
      ],
      hooks: { drawClear: [marks], setCursor: [tell] },
    }, series, $("chart"));
  };

  const fillDevices = () => {
    const kept = $("device").value;
    $("device").replaceChildren();
    data.devices.forEach((name, number) => {
      if (usesOf.has(`${lane()} ${number}`)) $("device").append(new Option(name, number));
    });
    if ([...$("device").options].some((option) => option.value === kept)) $("device").value = kept;
  };
  // First what leaked most, or else what used most.
  const weight = new Map();
  const add = (test, name, bytes) => {
    const key = `${tests.lane[test]} ${data.devices.indexOf(name)}`;
    weight.set(key, (weight.get(key) || 0) + bytes);
  };
  for (const [test, , name, bytes] of data.leaks) add(test, name, bytes * 2 ** 10);
  uses.test.forEach((test, use) => add(test, data.devices[uses.device[use]], Math.max(uses.peak[use], uses.end[use]) / 2 ** 20));
  [...testsOf.keys()].sort((a, b) => a - b).forEach((number) => $("lane").append(new Option(laneName(number), number)));
  const [heaviest] = [...weight].filter(([key]) => usesOf.has(key)).sort((a, b) => b[1] - a[1])[0] || [""];
  if (heaviest) $("lane").value = heaviest.split(" ")[0];
  fillDevices();
  if (heaviest) $("device").value = heaviest.split(" ")[1];
  $("lane").addEventListener("change", () => { fillDevices(); draw(); });
  $("device").addEventListener("change", draw);
  let resizing = 0;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(draw, 100); });

  const zoomTo = (test) => {
    if (tests.start[test] < 0) return;
    $("lane").value = tests.lane[test];
    fillDevices();
    const used = data.devices.findIndex((_, number) => useAt.has(`${test} ${number}`));
    if (used >= 0 && !useAt.has(`${test} ${device()}`)) $("device").value = used;
    draw();
    const around = Math.max(tests.seconds[test] * 2, 0.01);
    if (plot) plot.setScale("x", { min: tests.start[test] - around, max: tests.start[test] + tests.seconds[test] + around });
    $("timeline").scrollIntoView({ behavior: "smooth" });
  };

  // -- the tables ------------------------------------------------------------------------------------------------

  const peaks = new Map();
  const moved = new Map();
  uses.test.forEach((test, use) => {
    peaks.set(test, Math.max(peaks.get(test) ?? -1, uses.peak[use]));
    moved.set(test, (moved.get(test) || 0) + uses.end[use] - uses.begin[use]);
  });
  const numbers = (count) => Array.from({ length: count }, (_, number) => number);
  const known = (bytes) => (bytes < 0 ? "" : size(bytes));
  const all = numbers(tests.name.length);
  const NAME = "name";
  const NUMBER = "number";
  const column = (title, value, kind = "", text = String) => ({ title, value, kind, text });
  const testColumn = column("test", (test) => tests.name[test] + (tests.attempt[test] > 1 ? ` (attempt ${tests.attempt[test]})` : ""), NAME);
  const outcomeColumn = column("outcome", (test) => data.outcomes[tests.outcome[test]]);
  const costColumn = column("cost", (test) => tests.cost[test], NUMBER, time);
  const given = column("given back", (test) => tests.given[test], NUMBER, size);
  const itself = (test) => test;
  const tables = [
    { name: "Leaks", rows: data.leaks, test: (row) => row[0], sort: 1, columns: [
      column("test", (row) => tests.name[row[0]], NAME), column("leaked", (row) => row[3], NUMBER, size), column("what", (row) => row[1]),
      column("held by", (row) => row[4], NAME), column("excused", (row) => row[5]), column("at", (row) => row[6]),
    ] },
    { name: "Tests", rows: all, test: itself, sort: -1, columns: [
      testColumn, outcomeColumn, column("took", (test) => tests.seconds[test], NUMBER, time),
      column("peak", (test) => peaks.get(test) ?? -1, NUMBER, known), column("kept", (test) => moved.get(test) || 0, NUMBER, size),
      given, costColumn, column("worker", (test) => laneName(tests.lane[test])),
    ] },
    { name: "Given back", rows: all.filter((test) => tests.given[test] > 0), test: itself, sort: 1, columns: [testColumn, given, costColumn] },
    { name: "Processes", rows: data.left, sort: -1, columns: [
      column("by", (row) => row[0], NAME), column("what became of it", (row) => row[1]), column("command", (row) => row[2], NAME),
      column("still there", (row) => (row[3] ? "yes" : "")),
    ] },
    { name: "Cost", rows: all, test: itself, sort: 1, columns: [testColumn, costColumn,
      column("of its time", (test) => (tests.seconds[test] ? tests.cost[test] / tests.seconds[test] : 0), NUMBER, (share) => `${(100 * share).toFixed(1)} %`)] },
    { name: "Cleaning", rows: data.steps, sort: 3, columns: [
      column("step", (row) => row[0]), column("times", (row) => row[1], NUMBER), column("given back", (row) => row[2], NUMBER, size),
      column("took", (row) => row[3], NUMBER, time), column("failed", (row) => row[4], NUMBER),
    ] },
    { name: "Fixtures", rows: data.fixtures, sort: -1, columns: [
      column("fixture", (row) => row[0], NAME), column("scope", (row) => row[1]), column("of", (row) => row[2], NAME),
      column("lived", (row) => row[5] - row[4], NUMBER, time), column("worker", (row) => laneName(row[3])),
    ] },
    { name: "Trouble", rows: data.problems, sort: -1, columns: [column("test", (row) => row[0], NAME), column("trouble", (row) => row[1])] },
    { name: "Not measured", rows: data.gaps, sort: -1, columns: [column("what", (row) => row[0]), column("why", (row) => row[1])] },
  ].filter((table) => table.rows.length || table.name === "Tests");

  let table = tables[0];
  let order = { by: table.sort, down: true };
  let shown = PAGE;

  const rowsNow = () => {
    const words = $("filter").value.toLowerCase().split(" ").filter(Boolean);
    let rows = table.rows;
    if (words.length) {
      rows = rows.filter((row) => {
        const text = table.columns.filter((one) => one.kind !== NUMBER).map((one) => one.value(row)).join("\n").toLowerCase();
        return words.every((word) => text.includes(word));
      });
    }
    const by = table.columns[order.by];
    if (!by) return rows;
    const sign = order.down ? -1 : 1;
    return rows.map((row) => [by.value(row), row])
      .sort(([a], [b]) => sign * (by.kind === NUMBER ? a - b : String(a).localeCompare(String(b)))).map(([, row]) => row);
  };

  const fill = () => {
    const rows = rowsNow();
    const head = document.createElement("tr");
    table.columns.forEach((one, number) => {
      const cell = document.createElement("th");
      const sorted = order.by === number;
      const button = element("button", one.title + (sorted ? (order.down ? " ↓" : " ↑") : ""));
      cell.setAttribute("aria-sort", sorted ? (order.down ? "descending" : "ascending") : "none");
      button.addEventListener("click", () => {
        order = { by: number, down: sorted ? !order.down : one.kind === NUMBER };
        fill();
      });
      cell.append(button);
      head.append(cell);
    });
    $("table").tHead.replaceChildren(head);
    const body = rows.slice(0, shown).map((row) => {
      const line = document.createElement("tr");
      for (const one of table.columns) line.append(element("td", one.text(one.value(row)), one.kind));
      if (table.test) {
        line.className = "go";
        line.title = "show in the chart";
        line.addEventListener("click", () => zoomTo(table.test(row)));
      }
      return line;
    });
    $("table").tBodies[0].replaceChildren(...body);
    $("count").textContent = `${rows.length.toLocaleString("en")} of ${table.rows.length.toLocaleString("en")}`;
    $("more").hidden = rows.length <= shown;
    for (const tab of $("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.name === table.name));
  };

  for (const one of tables) {
    const tab = element("button", `${one.name} ${one.rows.length.toLocaleString("en")}`);
    tab.dataset.name = one.name;
    tab.setAttribute("role", "tab");
    tab.addEventListener("click", () => {
      table = one;
      order = { by: one.sort, down: true };
      shown = PAGE;
      fill();
    });
    $("tabs").append(tab);
  }
  $("filter").addEventListener("input", () => { shown = PAGE; fill(); });
  $("more").addEventListener("click", () => { shown += 5 * PAGE; fill(); });

  const paint = () => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    draw();
  };
  $("theme").addEventListener("click", () => { dark = !dark; paint(); });
  prefersDark.addEventListener("change", (event) => { dark = event.matches; paint(); });
  paint();
  fill();
})();
