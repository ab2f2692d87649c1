// All goroutines, those that wait at the same place together; what is looked for is looked for by the
// process, so that it is found among all of them.

import { $, api, baseName, element, file, formatNs, formatSpan, formatWhole, setText } from "./common.js";

const groups = new Map(); // by what their members have in common
let fail;
let wake;
let asked = null;
let isDirty = true;

const waited = (seconds) => (seconds < 60 ? formatNs(seconds * 1e9) : formatSpan(seconds));
const keyOf = (group) =>
  JSON.stringify([group.state, group.frames, group.created, group.system, group.locked, group.kept_by]);

function place([name, path, line], classes = "frame") {
  const where = element("span", "quiet", `${baseName(path)}:${line}`);
  where.title = `${path}:${line}`;
  return element("div", classes, element("code", "", name), " ", where);
}

function stateClass(state) {
  if (state.startsWith("running") || state.startsWith("runnable")) {
    return "chip active";
  }
  return state === "syscall" ? "chip blocked" : "chip";
}

class Group {
  constructor(group) {
    this.count = element("b", "count");
    this.wait = element("span", "wait quiet");
    const shown = group.frames[group.at];
    const where = shown ? place(shown, "where") : element("div", "where", element("code", "", group.members[0].name));
    const marks = [];
    if (group.system) {
      marks.push(element("span", "chip", "runtime"));
    }
    if (group.locked) {
      marks.push(element("span", "chip", "locked to its thread"));
    }
    if (group.kept_by) {
      marks.push(element("span", "chip", `keeps its thread for ${group.kept_by}`));
    }
    const chip = element("span", stateClass(group.state), group.state);
    const summary = element("summary", "", this.count, chip, where, ...marks, this.wait);
    const stack = element("div", "stack", ...group.frames.map((frame) => place(frame)));
    if (group.created) {
      stack.append(element("div", "frame created quiet", `started at ${group.created}`));
    }
    this.members = element("tbody");
    this.more = element("p", "quiet");
    const head = element("tr", "", ...["", "name", "waited", "waits on", "labels"].map((text) => element("th", "", text)));
    const table = element("table", "members", element("thead", "", head), this.members);
    this.root = element("details", "card group", summary, element("div", "inside", stack, element("div", "", table, this.more)));
    this.root.addEventListener("toggle", () => this.update(this.group));
    this.update(group);
  }

  update(group) {
    this.group = group;
    setText(this.count, formatWhole(group.count));
    const same = group.count === 1 || waited(group.shortest_s) === waited(group.longest_s);
    const span = same ? waited(group.longest_s) : `${waited(group.shortest_s)} to ${waited(group.longest_s)}`;
    setText(this.wait, group.longest_s > 0 ? span : "");
    if (this.root.open) {
      this.members.replaceChildren(...group.members.map(row));
      const left = group.count - group.members.length;
      setText(this.more, left ? `and ${formatWhole(left)} more, which have waited for less` : "");
    }
  }
}

function row(member) {
  const labels = Object.entries(member.labels).map(([name, value]) => element("span", "chip", `${name}=${value}`));
  const parent = member.parent ? `, started by #${member.parent}` : "";
  const name = element("td", "", member.name, member.priority === "normal" ? "" : ` (${member.priority} priority)`);
  name.title = `goroutine ${member.id}${parent}`;
  return element(
    "tr", "", element("td", "quiet number", `#${member.id}`), name,
    element("td", "number", member.waited_s > 0 ? waited(member.waited_s) : "–"),
    element("td", "", element("code", "", member.waits_on)), element("td", "", ...labels),
  );
}

function show(found) {
  const shown = new Set();
  let after = null;
  for (const group of found.groups) {
    const key = keyOf(group);
    shown.add(key);
    let known = groups.get(key);
    if (known) {
      known.update(group);
    } else {
      known = new Group(group);
      groups.set(key, known);
    }
    // Only what is elsewhere is moved: what is being read stays as it is.
    const next = after ? after.nextElementSibling : $("groups").firstElementChild;
    if (next !== known.root) {
      after ? after.after(known.root) : $("groups").prepend(known.root);
    }
    after = known.root;
  }
  for (const [key, group] of groups) {
    if (!shown.has(key)) {
      group.root.remove();
      groups.delete(key);
    }
  }
  const isSearch = $("search").value.trim() !== "";
  const count = formatWhole(found.matching);
  const goroutines = found.matching === 1 && !isSearch ? "goroutine" : "goroutines";
  const of = isSearch ? `${count} of ${formatWhole(found.looked_at)} goroutines` : `${count} ${goroutines}`;
  setText($("goroutine-count"), `${of} in ${formatWhole(found.groups_total)} group${found.groups_total === 1 ? "" : "s"}`);
  const notes = [];
  if (found.looked_at < found.total) {
    notes.push(
      `Of ${formatWhole(found.total)} goroutines the ${formatWhole(found.looked_at)} oldest were looked at: ` +
        "[plugins.dashboard] goroutines says how many.",
    );
  }
  if (found.groups.length < found.groups_total) {
    notes.push(`The ${found.groups.length} largest groups are shown; a search finds others.`);
  }
  $("goroutine-note").hidden = !notes.length;
  setText($("goroutine-note"), notes.join(" "));
  $("no-groups").hidden = found.groups.length > 0;
  setText($("no-groups"), isSearch ? "No goroutine has all of these words." : "There are no goroutines.");
}

export function begin(_, onFailure, onWish) {
  if (fail) {
    return;
  }
  fail = onFailure;
  wake = onWish;
  let typing = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      isDirty = true;
      wake();
    }, 200);
  });
  for (const id of ["system", "live"]) {
    $(id).addEventListener("change", () => {
      isDirty = true;
      wake();
    });
  }
  $("download").addEventListener("click", () => download().catch(fail));
}

async function download() {
  const address = URL.createObjectURL(await file("/api/stacks"));
  const link = element("a");
  link.href = address;
  link.download = "stacks.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export function opened() {
  isDirty = true;
}

const LOOK_MS = 2000;

export async function update() {
  const due = asked === null || performance.now() - asked >= LOOK_MS;
  if (!isDirty && (!$("live").checked || !due)) {
    return;
  }
  isDirty = false;
  asked = performance.now();
  const query = new URLSearchParams({ q: $("search").value, system: $("system").checked ? "1" : "0" });
  show(await api(`/api/goroutines?${query}`));
}
