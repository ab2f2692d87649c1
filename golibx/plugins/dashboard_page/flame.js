// The flame graph: bars as wide as the time that went to a function and to what it called, those that
// it called below it.

import { $, api, baseName, element, formatNs, formatSpan, formatWhole, hash, setText } from "./common.js";

const ROW = 20;
const NARROWEST = 0.0012; // of the width: what is narrower can't be seen
const [NAME, FILE, LINE, NS, COUNT, BELOW] = [0, 1, 2, 3, 4, 5];
const LEGIBLE = 28; // pixels: in what is narrower no name can be read
const TINTS = 7;

const state = { profile: null, root: null, zoom: null, shown: "", taking: false };
let fail;
let wake;

// ---- drawing ----

/** Each bar with those above it, and where it begins. */
function laidOut(bar, above, start) {
  const made = { bar, above, start, below: [] };
  let at = start;
  for (const inner of bar[BELOW]) {
    made.below.push(laidOut(inner, made, at));
    at += inner[NS];
  }
  return made;
}

function describe({ bar }) {
  const whole = state.root.bar[NS] || 1;
  const where = bar[FILE] ? `, ${bar[FILE]}:${bar[LINE]}` : "";
  const share = ((bar[NS] / whole) * 100).toFixed(1);
  const what = state.profile.kind === "cpu" ? "samples" : "waits";
  return `${bar[NAME]}${where} — ${formatNs(bar[NS])}, ${share} %, ${formatWhole(bar[COUNT])} ${what}`;
}

function draw() {
  const { root, zoom } = state;
  const shown = [];
  let depth = 0;
  for (let each = zoom; each; each = each.above) {
    shown.unshift([each, 0, 1, true]);
  }
  const from = shown.length;
  const width = zoom.bar[NS] || 1;
  const waiting = zoom.below.map((each) => [each, from]);
  while (waiting.length) {
    const [each, level] = waiting.pop();
    const share = each.bar[NS] / width;
    if (share < NARROWEST) {
      continue;
    }
    shown.push([each, (each.start - zoom.start) / width, share, false, level]);
    waiting.push(...each.below.map((inner) => [inner, level + 1]));
  }
  const wanted = $("flame-search").value.trim().toLowerCase();
  const bars = shown.map(([each, left, share, isAbove, level], i) => {
    const made = drawnBar(each, isAbove && each !== zoom, wanted);
    if (share * $("bars").clientWidth < LEGIBLE) {
      made.textContent = "";
    }
    const row = isAbove ? i : level;
    depth = Math.max(depth, row + 1);
    made.style.left = `${left * 100}%`;
    made.style.width = `${share * 100}%`;
    made.style.top = `${row * ROW}px`;
    made.setAttribute("aria-level", String(row + 1));
    return made;
  });
  $("bars").style.height = `${depth * ROW}px`;
  $("bars").replaceChildren(...bars);
  $("unzoom").disabled = zoom === root;
}

function drawnBar(each, isAbove, wanted) {
  const [name, path] = each.bar;
  const tint = each === state.root ? "whole" : `tint${hash(name + path) % TINTS}`;
  const made = element("div", `bar ${tint}`, name);
  made.tabIndex = 0;
  made.setAttribute("role", "treeitem");
  made.title = describe(each);
  made.classList.toggle("above", isAbove);
  if (wanted) {
    const found = `${name} ${path}`.toLowerCase().includes(wanted);
    made.classList.add(found ? "found" : "other");
  }
  const zoom = () => {
    state.zoom = each;
    draw();
  };
  made.addEventListener("click", zoom);
  made.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      zoom();
    }
  });
  const tell = () => setText($("bar-details"), made.title);
  made.addEventListener("mouseenter", tell);
  made.addEventListener("focus", tell);
  return made;
}

function showProfile(found) {
  state.profile = found;
  const key = `${found.number} ${$("by-goroutine").checked}`;
  if (state.shown === key) {
    return;
  }
  state.shown = key;
  const what = { cpu: "computed", block: "waited", mutex: "waited for locks" }[found.kind];
  const all = [`all: ${found.kind}`, "", 0, found.ns, found.count, found.bars];
  state.root = laidOut(all, null, 0);
  state.zoom = state.root;
  const hasAny = found.ns > 0;
  $("no-bars").hidden = hasAny;
  $("bars").hidden = !hasAny;
  const about = `${formatNs(found.ns)} ${what} in ${formatSpan(Math.round(found.took_s))}`;
  const left = found.left_out ? `, ${formatWhole(found.left_out)} small bars left out` : "";
  setText($("bar-details"), hasAny ? `${about}${left}. Choose a bar to have it as wide as the page.` : "");
  if (hasAny) {
    draw();
  } else {
    const nothing = {
      cpu: "No goroutine has computed meanwhile.", block: "No goroutine has waited meanwhile.",
      mutex: "No goroutine has waited for a lock meanwhile.",
    };
    setText($("no-bars"), nothing[found.kind]);
  }
}

// ---- taking ----

function showTaking(found) {
  state.taking = found.state === "taking";
  $("take").disabled = state.taking;
  $("stop").hidden = !state.taking;
  $("progress").hidden = !state.taking;
  $("progress").value = state.taking ? Math.min(found.passed_s / found.seconds, 1) : 0;
}

function say(text) {
  $("flame-note").hidden = !text;
  setText($("flame-note"), text);
}

function show(found) {
  showTaking(found);
  if (found.state === "failed") {
    say(`There is no profile: ${found.problem}`);
  } else if (found.state === "done") {
    showProfile(found);
  }
}

async function take() {
  say("");
  try {
    show(await api("/api/profile", { kind: $("kind").value, seconds: Number($("seconds").value) }));
    wake();
  } catch (problem) {
    if (problem.status === 401 || !problem.status) {
      throw problem;
    }
    say(problem.message);
  }
}

export function begin(about, onFailure, onWish) {
  state.shown = "";
  const [least, most] = about.profile_seconds;
  $("seconds").min = least;
  $("seconds").max = most;
  if (fail) {
    return;
  }
  fail = onFailure;
  wake = onWish;
  $("flame-form").addEventListener("submit", (event) => {
    event.preventDefault();
    take().catch(fail);
  });
  $("stop").addEventListener("click", () => api("/api/profile/stop", {}).then(wake, fail));
  $("by-goroutine").addEventListener("change", wake);
  $("flame-search").addEventListener("input", () => state.root && draw());
  $("unzoom").addEventListener("click", () => {
    state.zoom = state.root;
    draw();
  });
}

export async function update() {
  const key = state.profile ? `${state.profile.number} ${$("by-goroutine").checked}` : "";
  if (state.shown && state.shown === key && !state.taking) {
    return; // it does not change
  }
  show(await api(`/api/profile${$("by-goroutine").checked ? "?by=goroutine" : ""}`));
}
