// The charts: what uPlot draws of the points that the process keeps. Nothing here grows: a point that
// comes in pushes the oldest one out.

import {
  $, api, clock, colour, element, formatBytes, formatCount, formatNs, formatRate, formatWhole, setText,
} from "./common.js";

const SLOTS = 8;
const HEIGHT = 190;
const SHORTEST_S = 30;
const WINDOWS = [["1 min", 60], ["5 min", 300], ["all", 0]];

const CHARTS = [
  { title: "Goroutines by state", stacked: true, format: formatWhole, wide: true },
  {
    title: "Run queues", unit: "goroutines that are ready", format: formatWhole,
    series: [["runq", "Python"], ["native_queue_local", "native, local"], ["native_queue_global", "native, global"]],
  },
  {
    title: "Scheduling latency", unit: "from ready to running", format: formatNs, log: true, latency: true,
    series: [["latency_p50_ns", "p50"], ["latency_p99_ns", "p99"]],
    empty: "Nobody has waited for a turn in this time.",
  },
  {
    title: "Preemptions", unit: "a second", format: formatRate, tick: formatCount,
    series: [
      ["preemptions_per_s", "gave way"], ["handoffs_per_s", "handed off"], ["native_preemptions_per_s", "native"],
    ],
  },
  {
    title: "Retakes from blocking calls", unit: "a second", format: formatRate, tick: formatCount,
    series: [["retakes_per_s", "Python"], ["retakes_in_vain_per_s", "of these in vain"], ["native_retakes_per_s", "native"]],
  },
  {
    title: "Waits for the GIL", unit: "waited in a second, all threads together", format: formatNs,
    series: [["gil_waited_ns_per_s", "waited"]], least: 1e6,
    besides: [["gil_waits_per_s", "waits", formatRate]],
  },
  {
    title: "Switches", unit: "a second", format: formatRate, tick: formatCount,
    series: [["switches_per_s", "switches"], ["spawns_per_s", "starts"], ["native_switches_per_s", "native switches"]],
  },
  {
    title: "Threads", unit: "OS threads of the runtime", format: formatWhole,
    series: [["threads", "all"], ["threads_idle", "idle"], ["threads_blocked", "blocked"]],
  },
  {
    title: "Network", unit: "goroutines woken a second", format: formatRate, tick: formatCount,
    series: [["netpoll_wakeups_per_s", "wake-ups"]], besides: [["timers", "pending timers", formatWhole]],
  },
  { title: "CPU", unit: "processors used", format: formatCount, series: [["cpus", "processors"]] },
  { title: "Memory", unit: "resident", format: formatBytes, series: [["memory_bytes", "resident"]], bytes: true, least: 2 ** 20 },
];

const TILES = [
  ["goroutines", "goroutines", formatWhole], ["runq", "ready", formatWhole],
  ["latency_p99_ns", "latency p99", formatNs], ["switches_per_s", "switches", formatRate],
  ["threads", "threads", formatWhole], ["cpus", "CPUs", formatCount],
];

const state = {
  about: null, points: [], newest: 0, run: "", seconds: 300, paused: false, charts: [], tiles: [], columns: {},
  slots: new Map(),
};

// ---- one chart ----

/** Ticks at powers of ten; uPlot's own have lines for all digits. */
function logSplits(_, __, min, max) {
  const splits = [];
  for (let at = 10 ** Math.ceil(Math.log10(min) - 1e-9); at <= max * 1.001; at *= 10) {
    splits.push(at);
  }
  return splits;
}

/** Ticks at powers of two of bytes. */
function byteSplits(_, __, min, max) {
  const step = 2 ** Math.ceil(Math.log2((max - min) / 4 || 1));
  const splits = [];
  for (let at = Math.ceil(min / step) * step; at <= max; at += step) {
    splits.push(at);
  }
  return splits;
}

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.series = spec.series ?? Array.from({ length: SLOTS }, (_, slot) => [slot, ""]);
    this.root = element("section", spec.wide ? "card chart wide" : "card chart");
    const unit = spec.unit ? element("span", "quiet", spec.unit) : null;
    this.legend = element("div", "legend");
    this.plot = element("div", "plot");
    this.plot.setAttribute("role", "img");
    this.plot.setAttribute("aria-label", spec.unit ? `${spec.title}: ${spec.unit}` : spec.title);
    this.empty = element("p", "empty", spec.empty ?? "Nothing yet.");
    this.root.append(element("header", "", element("h2", "", spec.title), unit), this.legend, this.plot, this.empty);
    this.items = this.series.map(([, label], i) => this.item(label, i));
    for (const [, label] of spec.besides ?? []) {
      this.items.push(this.item(label, -1));
    }
    this.data = [[]];
    this.raw = [];
    this.hovered = null;
    this.range = [0, 1];
    this.draw();
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  item(label, slot) {
    const marker = slot < 0 ? null : element("i", `marker slot${slot}`);
    const name = element("span", "", label);
    const value = element("b", "", "");
    const root = element("span", "item", marker, name, value);
    this.legend.append(root);
    return { root, name, value };
  }

  draw() {
    this.uplot?.destroy();
    const line = colour("grid");
    const axis = {
      stroke: colour("quiet"), grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 },
      font: "11px system-ui, sans-serif",
    };
    const { spec } = this;
    const order = spec.stacked ? [...this.series.keys()].reverse() : [...this.series.keys()];
    const series = order.map((slot) => this.drawn(slot));
    const splits = spec.bytes ? { splits: byteSplits } : spec.log ? { splits: logSplits, filter: (_, all) => all } : {};
    const tick = spec.tick ?? spec.format;
    const options = {
      width: Math.max(this.plot.clientWidth, 200),
      height: HEIGHT,
      legend: { show: false },
      cursor: {
        drag: { x: false, y: false }, y: false, points: { show: !spec.stacked, size: 7 },
        sync: { key: "golibx", setSeries: false },
      },
      scales: { x: { time: true, range: () => this.range }, y: this.scale() },
      axes: [
        { ...axis, values: (_, values) => values.map((value) => clock(value)), space: 90, size: 30 },
        { ...axis, values: (_, values) => values.map((v) => (v === null ? "" : tick(v))), size: 62, space: 34, ...splits },
      ],
      series: [{}, ...series],
      hooks: { setCursor: [(plot) => this.hover(plot.cursor.idx)] },
    };
    this.uplot = new uPlot(options, this.data, this.plot);
  }

  drawn(slot) {
    const tint = colour(`slot${slot}`);
    if (this.spec.stacked) {
      return { stroke: colour("surface"), fill: tint, width: 1.5, points: { show: false } };
    }
    const fill = this.series.length === 1 ? `${tint}28` : undefined;
    return { stroke: tint, fill, width: 2, points: { show: false }, spanGaps: true };
  }

  scale() {
    if (this.spec.log) {
      const range = (_, min, max) =>
        min === null || min <= 0 ? [1e3, 1e6] : [10 ** Math.floor(Math.log10(min)), 10 ** Math.ceil(Math.log10(max * 1.01))];
      return { distr: 3, log: 10, range };
    }
    const least = this.spec.least ?? 1;
    return { range: (_, __, max) => [0, Math.max((max ?? 0) * 1.08, least)] };
  }

  resize() {
    const width = this.plot.clientWidth;
    if (width > 0 && width !== this.uplot.width) {
      this.uplot.setSize({ width, height: HEIGHT });
    }
  }

  /** Shows those points. */
  show(points, range) {
    const { columns } = state;
    this.range = range;
    const times = points.map((point) => point[columns.time]);
    if (this.spec.stacked) {
      this.stack(points, times);
    } else {
      this.raw = this.series.map(([name]) => points.map((point) => point[columns[name]]));
      // Programs without native goroutines need no lines at nought for them.
      this.series.forEach(([name], i) => {
        const isUsed = !name.startsWith("native") || this.raw[i].some((value) => value > 0);
        this.items[i].root.hidden = !isUsed;
        this.raw[i] = isUsed ? this.raw[i] : this.raw[i].map(() => null);
      });
      this.data = [times, ...this.raw];
      this.others = (this.spec.besides ?? []).map(([name, , format]) => [
        points.map((point) => point[columns[name]]), format,
      ]);
    }
    const hasAny = this.raw.some((values) => values.some((value) => value !== null && value !== undefined));
    this.empty.hidden = hasAny;
    this.plot.classList.toggle("without", !hasAny);
    this.uplot.setData(this.data);
    this.tell();
  }

  /** The states that most goroutines are in, each with a colour of its own while it is among them. */
  stack(points, times) {
    const last = state.columns.states;
    const sums = new Map();
    for (const point of points) {
      for (const [name, count] of Object.entries(point[last])) {
        sums.set(name, (sums.get(name) ?? 0) + count);
      }
    }
    const most = [...sums].sort((a, b) => b[1] - a[1]).map(([name]) => name).filter((name) => name !== "other");
    const named = most.slice(0, SLOTS - 1);
    for (const name of [...state.slots.keys()]) {
      if (!named.includes(name)) {
        state.slots.delete(name);
      }
    }
    for (const name of named) {
      if (!state.slots.has(name)) {
        const taken = [...state.slots.values()];
        state.slots.set(name, Array.from({ length: SLOTS - 1 }, (_, i) => i).find((i) => !taken.includes(i)));
      }
    }
    const names = Array(SLOTS).fill("");
    for (const [name, slot] of state.slots) {
      names[slot] = name;
    }
    const has = sums.has("other") || most.length > named.length;
    names[SLOTS - 1] = has ? "other" : "";
    this.raw = names.map((name, slot) => {
      if (!name) {
        return times.map(() => null);
      }
      return points.map((point) => {
        const counts = point[last];
        if (slot < SLOTS - 1) {
          return counts[name] ?? 0;
        }
        return Object.entries(counts).reduce((sum, [each, n]) => (state.slots.has(each) ? sum : sum + n), 0);
      });
    });
    const heights = times.map(() => 0);
    const tops = this.raw.map((values) => values.map((value, i) => (value === null ? null : (heights[i] += value))));
    this.data = [times, ...tops.reverse()];
    names.forEach((name, slot) => {
      setText(this.items[slot].name, name);
      this.items[slot].root.hidden = !name;
    });
  }

  hover(index) {
    this.hovered = index ?? null;
    this.tell();
  }

  /** The legend: what is under the pointer, or else the last point. */
  tell() {
    const at = this.hovered ?? (this.data[0].length - 1);
    this.raw.forEach((values, i) => setText(this.items[i].value, this.spec.format(values[at] ?? null)));
    (this.others ?? []).forEach(([values, format], i) =>
      setText(this.items[this.raw.length + i].value, format(values[at] ?? null)));
  }
}

// ---- all of them ----

export function begin(about) {
  state.about = about;
  state.run = about.run;
  state.points = [];
  state.newest = 0;
  state.columns = Object.fromEntries(about.columns.map((name, i) => [name, i]));
  if (state.charts.length) {
    return;
  }
  for (const [label, seconds] of WINDOWS) {
    const button = element("button", "", label);
    button.type = "button";
    button.setAttribute("aria-pressed", String(seconds === state.seconds));
    button.addEventListener("click", () => {
      state.seconds = seconds;
      for (const each of $("windows").children) {
        each.setAttribute("aria-pressed", String(each === button));
      }
      show();
    });
    $("windows").append(button);
  }
  for (const [name, label, format] of TILES) {
    const value = element("b", "", "–");
    $("tiles").append(element("div", "tile", value, element("span", "quiet", label)));
    state.tiles.push([name, value, format]);
  }
  for (const spec of CHARTS) {
    const text = "[plugins.dashboard] latency = false: it is not measured.";
    const chart = new Chart(spec.latency && !about.has_latency ? { ...spec, empty: text } : spec);
    state.charts.push(chart);
    $("chart-grid").append(chart.root);
  }
  $("pause").addEventListener("click", () => {
    state.paused = !state.paused;
    $("pause").setAttribute("aria-pressed", String(state.paused));
    setText($("pause"), state.paused ? "Go on" : "Pause");
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    state.charts.forEach((chart) => chart.draw());
    show();
  });
}

/** Fetches what is new. False if it is another run that answers. */
export async function update() {
  const found = await api(`/api/points?run=${state.run}&since=${state.newest}`);
  if (found.run !== state.run) {
    return false;
  }
  if (found.newest < state.newest || found.points.length > state.about.points) {
    state.points = [];
  }
  state.newest = found.newest;
  state.points.push(...found.points);
  state.points.splice(0, Math.max(state.points.length - state.about.points, 0));
  if (found.points.length && !state.paused) {
    show();
  }
  return true;
}

export function opened() {
  state.charts.forEach((chart) => chart.resize());
  show();
}

function show() {
  const last = state.points.at(-1);
  if (last) {
    for (const [name, where, format] of state.tiles) {
      setText(where, format(last[state.columns[name]]));
    }
  }
  if ($("charts").hidden || state.paused) {
    return;
  }
  const to = last ? last[0] : Date.now() / 1000;
  const whole = state.about.points * state.about.interval_s;
  const age = Math.max(to - (state.points[0]?.[0] ?? to), SHORTEST_S);
  const seconds = Math.min(state.seconds || whole, whole, age);
  const points = state.points.filter((point) => point[0] >= to - seconds);
  state.charts.forEach((chart) => chart.show(points, [to - seconds, to]));
}
