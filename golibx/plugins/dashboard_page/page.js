// The page: who may see it, which view is open, and when the process is asked for more.

import { $, api, clock, Failed, formatSpan, hasToken, setText, setToken } from "./common.js";
import * as charts from "./charts.js";
import * as flame from "./flame.js";
import * as goroutines from "./goroutines.js";
import * as tuning from "./tuning.js";

const VIEWS = { charts, goroutines, flame, tuning };
const LONGEST_PAUSE_MS = 5000;

const page = { about: null, view: "", answeredAt: 0, failures: 0 };

// ---- what goes wrong ----

function showProblem(text) {
  $("banner").hidden = !text;
  setText($("banner"), text);
  document.body.classList.toggle("stale", Boolean(text));
}

function fail(problem) {
  if (!(problem instanceof Failed)) {
    showProblem(`This page has a fault: ${problem}`);
    throw problem;
  }
  if (problem.status === 401) {
    login(hasToken() ? "That is not this process's token. A new process has a new one." : "");
    return;
  }
  page.failures += 1;
  if (problem.status !== 0) {
    showProblem(`The process refuses: ${problem.message}`);
    return;
  }
  const since = page.answeredAt ? ` since ${clock(page.answeredAt / 1000)}` : "";
  const who = page.about ? `Process ${page.about.pid}` : "The process";
  showProblem(
    `${who} has not answered${since}. It has ended, or C code keeps the interpreter's lock. ` +
      "What is shown is what was; trying again …",
  );
}

function login(problem) {
  page.about = null;
  showProblem("");
  show("login");
  setText($("login-error"), problem);
  setText($("about"), "");
  $("token").focus();
}

$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value.trim());
  $("token").value = "";
  wake();
});

// ---- views ----

function show(name) {
  page.view = name;
  for (const view of ["login", ...Object.keys(VIEWS)]) {
    $(view).hidden = view !== name;
  }
  for (const link of $("tabs").children) {
    const isThis = link.hash === `#${name}`;
    link.classList.toggle("here", isThis);
    isThis ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  $("tabs").hidden = name === "login";
  VIEWS[name]?.opened?.();
}

const wanted = () => (location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "charts");
addEventListener("hashchange", () => {
  if (page.about) {
    show(wanted());
    wake();
  }
});

async function begin() {
  page.about = await api("/api/about");
  const { program, pid, golibx, python, began } = page.about;
  setText($("program"), program || "golibx");
  document.title = `${program.slice(program.lastIndexOf("/") + 1) || "golibx"} (${pid}) – golibx`;
  page.describe = () =>
    setText(
      $("about"),
      `process ${pid} · running for ${formatSpan(Date.now() / 1000 - began)} · golibx ${golibx} · Python ${python}`,
    );
  for (const view of Object.values(VIEWS)) {
    view.begin(page.about, fail, wake);
  }
  show(wanted());
}

// ---- asking ----

let timer = 0;
let isAsking = false;
let isWanted = false; // meanwhile

async function round() {
  isWanted = isAsking;
  if (isAsking || document.hidden) {
    return;
  }
  isAsking = true;
  clearTimeout(timer);
  try {
    if (!page.about) {
      await begin();
    }
    const isSame = await charts.update();
    if (!isSame) {
      page.about = null; // another process answers here
      await begin();
    } else if (page.view !== "charts") {
      await VIEWS[page.view]?.update();
    }
    page.failures = 0;
    page.answeredAt = Date.now();
    page.describe();
    showProblem("");
  } catch (problem) {
    fail(problem);
  } finally {
    isAsking = false;
    const pause = (page.about?.interval_s ?? 1) * 1000;
    const slower = Math.min(pause * 2 ** Math.min(page.failures, 3), Math.max(pause, LONGEST_PAUSE_MS));
    if (page.view !== "login") {
      timer = setTimeout(round, isWanted ? 0 : slower);
    }
  }
}

/** Asks at once. */
function wake() {
  clearTimeout(timer);
  timer = setTimeout(round, 0);
}

document.addEventListener("visibilitychange", wake);
wake();
