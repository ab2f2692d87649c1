// The controls: every value that may change while the program runs, and who has changed one.

import { $, api, clock, element, setText } from "./common.js";

const STEPS = 1000;
const TITLES = {
  runtime: "Runtime", sysmon: "Sysmon", preempt: "Preemption", retake: "Retakes", netpoll: "Network", native: "Native lane",
};
const controls = new Map(); // by the key
let fail;
let mayTune = true;
let isBuilt = false;

// The sliders are logarithmic: most ranges go from microseconds to seconds.
const shift = (low) => (low <= 0 ? 1 - low : 0);
function toStep(value, low, high) {
  const more = shift(low);
  const share = Math.log((value + more) / (low + more)) / Math.log((high + more) / (low + more));
  return Math.round(Math.min(Math.max(share, 0), 1) * STEPS);
}
function fromStep(step, low, high) {
  const more = shift(low);
  return Math.round((low + more) * ((high + more) / (low + more)) ** (step / STEPS) - more);
}

const UNITS = [[3600e9, "h"], [60e9, "m"], [1e9, "s"], [1e6, "ms"], [1e3, "us"], [1, "ns"]];

/** A number as one writes it in golib.toml, with two digits that count. */
function writtenAs(number, isDuration) {
  const size = 10 ** Math.max(Math.floor(Math.log10(Math.max(number, 1))) - 1, 0);
  const round = Math.round(number / size) * size;
  if (!isDuration) {
    return String(round);
  }
  const [factor, unit] = UNITS.find(([each]) => round >= each) ?? [1, "ns"];
  return `${Number((round / factor).toFixed(3))}${unit}`;
}

class Control {
  constructor(found) {
    this.key = found.key;
    this.input = element("input");
    this.input.type = "text";
    this.input.spellcheck = false;
    this.input.size = 9;
    this.input.setAttribute("aria-label", found.key);
    this.slider = element("input");
    this.slider.type = "range";
    this.slider.min = 0;
    this.slider.max = STEPS;
    this.slider.setAttribute("aria-label", `${found.key}, as a slider`);
    this.set = element("button", "", "Set");
    this.set.type = "submit";
    this.reset = element("button", "", "Reset");
    this.reset.type = "button";
    this.range = element("span", "quiet");
    this.now = element("b", "now");
    this.problem = element("p", "error");
    this.problem.setAttribute("role", "alert");
    const name = element("code", "", found.key);
    const head = element("div", "key", element("div", "", name, " ", this.now), element("p", "quiet", plain(found.description)));
    const form = element("form", "setting", this.slider, this.input, this.set, this.reset, this.range);
    this.root = element("div", "control", head, form, this.problem);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.apply(this.input.value);
    });
    this.reset.addEventListener("click", () => this.apply(this.found.configured));
    this.input.addEventListener("input", () => this.mark(true));
    this.slider.addEventListener("input", () => {
      const [, low, high] = this.found.numbers;
      this.input.value = this.clamped(fromStep(Number(this.slider.value), low, high));
      this.mark(true);
    });
    this.slider.addEventListener("change", () => this.apply(this.input.value));
    this.isDirty = false;
    this.update(found);
  }

  clamped(number) {
    const { numbers: [, low, high], is_duration: isDuration } = this.found;
    if (number <= low) {
      return this.found.low;
    }
    return number >= high ? this.found.high : writtenAs(number, isDuration);
  }

  mark(isDirty) {
    this.isDirty = isDirty;
    this.root.classList.toggle("dirty", isDirty);
    this.set.classList.toggle("primary", isDirty);
  }

  update(found) {
    this.found = found;
    const [value, low, high] = found.numbers;
    setText(this.now, found.value);
    const zero = found.zero ? `, or 0: ${found.zero}` : "";
    setText(this.range, `${found.low} to ${found.high}${zero}`);
    if (!this.isDirty) {
      if (document.activeElement !== this.input) {
        this.input.value = found.value;
      }
      this.slider.value = toStep(value, low, high);
    }
    for (const each of [this.input, this.slider, this.set]) {
      each.disabled = !mayTune;
    }
    this.reset.disabled = !mayTune || found.value === found.configured;
    this.reset.title = `back to ${found.configured}, which the run began with`;
  }

  async apply(text) {
    try {
      await api("/api/tune", { changes: { [this.key]: text } });
      setText(this.problem, "");
      this.mark(false);
      this.input.blur();
      await update();
    } catch (problem) {
      if (problem.status === 401 || !problem.status) {
        fail(problem);
        return;
      }
      setText(this.problem, `Refused: ${problem.message}`);
    }
  }
}

/** Markdown's marks off: `a` is a. */
const plain = (text) => text.replaceAll("`", "");

function build(keys) {
  controls.clear();
  const cards = new Map();
  for (const found of keys) {
    const table = found.key.split(".")[0];
    if (!cards.has(table)) {
      cards.set(table, element("section", "card", element("h2", "", TITLES[table] ?? table)));
    }
    const control = new Control(found);
    controls.set(found.key, control);
    cards.get(table).append(control.root);
  }
  $("controls").replaceChildren(...cards.values());
}

export function begin(about, onFailure) {
  fail = onFailure;
  mayTune = about.may_tune;
  isBuilt = false;
  $("tuning-note").hidden = mayTune;
  setText($("tuning-note"), "[plugins.dashboard] tune = false: this page shows the values, and changes none.");
}

export async function update() {
  const { keys, changes } = await api("/api/tuning");
  if (!isBuilt) {
    build(keys);
    isBuilt = true;
  }
  for (const found of keys) {
    controls.get(found.key)?.update(found);
  }
  $("no-changes").hidden = changes.length > 0;
  $("changes").hidden = !changes.length;
  const rows = changes.toReversed().map(({ time, who, key, old, new: now }) =>
    element("tr", "", ...[clock(time), who, key, old, now].map((text) => element("td", "", text))));
  $("changes").tBodies[0].replaceChildren(...rows);
}
