// What the views of the page share: requests with the token, texts, elements.

const KEPT = "golibx-token";

/** An answer that is not what was asked for. `status` is 0 where there is none at all. */
export class Failed extends Error {
  constructor(status, text, body = null) {
    super(text);
    this.status = status;
    this.body = body;
  }
}

// The token is behind the #, which stays in the browser, and in this tab. It is no cookie: those are
// sent to every port of the machine.
function takeToken() {
  const found = /^#token=([^&]+)/.exec(location.hash);
  if (found) {
    sessionStorage.setItem(KEPT, found[1]);
    history.replaceState(null, "", location.pathname);
  }
}
takeToken();
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) {
    takeToken();
    location.reload();
  }
});

export const setToken = (token) => sessionStorage.setItem(KEPT, token);
export const hasToken = () => Boolean(sessionStorage.getItem(KEPT));

const PATIENCE_MS = 8000;

async function ask(path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEPT) ?? ""}` };
  const options = { headers, cache: "no-store", credentials: "omit", redirect: "error" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  options.signal = AbortSignal.timeout(PATIENCE_MS);
  let answer;
  try {
    answer = await fetch(path, options);
    if (answer.ok) {
      return answer;
    }
  } catch {
    throw new Failed(0, "the process does not answer");
  }
  const problem = await answer.json().catch(() => ({}));
  throw new Failed(answer.status, problem.error ?? `${answer.status} ${answer.statusText}`, problem);
}

/** What the process answers, an object. A body makes it a POST. Throws Failed. */
export async function api(path, body) {
  const answer = await ask(path, body);
  try {
    return await answer.json();
  } catch {
    throw new Failed(0, "the process has not answered to the end");
  }
}

/** As api(), for a file. */
export async function file(path) {
  return (await ask(path)).blob();
}

export const $ = (id) => document.getElementById(id);

/** An element with text and children; all of it is text, whatever it looks like. */
export function element(name, classes = "", ...children) {
  const made = document.createElement(name);
  if (classes) {
    made.className = classes;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Has `text` as its text; the page is left alone where it has. */
export function setText(where, text) {
  if (where.textContent !== text) {
    where.textContent = text;
  }
}

const places = (value) => (value >= 100 ? 0 : value >= 10 ? 1 : 2);
const trimmed = (value) => String(Number(value.toFixed(places(Math.abs(value)))));

function scaled(value, units) {
  if (value === null || value === undefined || Number.isNaN(value)) {
    return "–";
  }
  const size = Math.abs(value);
  for (const [factor, unit] of units) {
    if (size >= factor) {
      return `${trimmed(value / factor)}${unit}`;
    }
  }
  return size === 0 ? `0${units.at(-1)[2] ?? ""}` : `${trimmed(value / units.at(-1)[0])}${units.at(-1)[1]}`;
}

export const formatNs = (ns) =>
  scaled(ns, [[3.6e12, " h"], [60e9, " min"], [1e9, " s"], [1e6, " ms"], [1e3, " µs"], [1, " ns"]]);
export const formatCount = (n) => scaled(n, [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]]);
export const formatWhole = (n) =>
  n === null || n === undefined ? "–" : n < 1e6 ? n.toLocaleString("en") : formatCount(n);
export const formatRate = (n) => (n === null || n === undefined ? "–" : `${formatCount(n)}/s`);
export const formatBytes = (n) =>
  scaled(n, [[2 ** 40, " TiB"], [2 ** 30, " GiB"], [2 ** 20, " MiB"], [2 ** 10, " KiB"], [1, " B"]]);

/** How long, in words as short as "3 min 20 s". */
export function formatSpan(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) {
    return `${whole} s`;
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  }
  if (whole < 86400) {
    return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  }
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
export const baseName = (path) => path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A number that is the same for the same text. */
export function hash(text) {
  let number = 0;
  for (let i = 0; i < text.length; i += 1) {
    number = (Math.imul(number, 31) + text.charCodeAt(i)) >>> 0;
  }
  return number;
}
