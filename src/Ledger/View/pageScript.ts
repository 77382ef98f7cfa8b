/**
 * pageScript: the script of the page: plain DOM of any browser since 2022, without a library. It is a string here because it runs
 * there.
 *
 * DESIGN. The entries come as rows of numbers that point into a table of strings (page.ts). Only the visible rows are in the
 * document, all of one height, between two spacers; the whole list is an array of indices that is sorted, and then filtered.
 * Text is inserted as `textContent` and style through the CSSOM, so nothing of a snapshot is ever parsed (INVARIANT View-3), and
 * the page's policy can forbid all other script and style (INVARIANT View-5).
 */

export const script = String.raw`"use strict";
(() => {
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("ledger").textContent);
const { strings, rows, states, span, load } = data;
const STATE = 1, KIND = 2, NAME = 3, OWNER = 4, FIBER = 5, SPAN = 6, SITE = 7, ATTRIBUTES = 8, CAUSE = 9,
  REQUESTED = 10, HELD = 11, RELEASING = 12, END = 13, BLOCKED = 14, BLOCKERS = 15, WAITING = 16, WAITERS = 17;
const text = (row, field) => strings[row[field]];
const total = rows.length;
const isLive = (row) => row[STATE] < 3;

// Numbers and times, as in format.ts; not the text of its functions, which depends on the compiler, as the page must not (View-1).
const trimmed = (value, digits) => String(Number(value.toFixed(digits)));
const two = (n) => String(n).padStart(2, "0");
const duration = (ms) => {
  if (ms < 9.995) return trimmed(ms, 2) + " ms";
  if (ms < 999.5) return Math.round(ms) + " ms";
  if (ms < 9995) return (ms / 1000).toFixed(2) + " s";
  if (ms < 59950) return (ms / 1000).toFixed(1) + " s";
  const s = Math.round(ms / 1000);
  if (s < 3600) return Math.floor(s / 60) + " m " + two(s % 60) + " s";
  const m = Math.round(ms / 60000);
  if (m < 1440) return Math.floor(m / 60) + " h " + two(m % 60) + " m";
  const h = Math.round(ms / 3600000);
  return Math.floor(h / 24) + " d " + two(h % 24) + " h";
};
const count = (n) => String(n).replace(/\B(?=(?:\d{3})+(?!\d))/g, ",");
const tickLabel = (ms) => ms < 1000 ? trimmed(ms, 3) + " ms" : ms < 60000 ? trimmed(ms / 1000, 3) + " s" : duration(ms).replace(/ 00 [a-z]$/, "");
const instant = (at) => Math.abs(at) <= 8.64e15 ? new Date(at).toISOString() : "an unknown time";
const shortSite = (site) => {
  const first = site.split("\n", 1)[0];
  const found = /([^/\\()\s]+?:\d+)(?::\d+)?\)?$/.exec(first);
  return found ? found[1] : first;
};

// Elements.
const el = (tag, className, ...inside) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...inside);
  return made;
};
const svg = (tag, attributes, ...inside) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  made.append(...inside);
  return made;
};
const icon = (name, className) => svg("svg", { class: "icon " + (className === undefined ? name : className), "aria-hidden": "true" }, svg("use", { href: "#i-" + name }));
const button = (className, label, act) => {
  const made = el("button", className, label);
  made.type = "button";
  made.addEventListener("click", (event) => { event.stopPropagation(); act(made); });
  return made;
};
// A name may run from right to left; it must not change the direction of its neighbours.
const own = (content) => el("bdi", "", content);

// Durations of an entry.
const waited = (row) => (row[HELD] < 0 ? row[END] : row[HELD]) - row[REQUESTED];
const heldFor = (row) => row[HELD] < 0 ? -1 : (row[RELEASING] < 0 ? row[END] : row[RELEASING]) - row[HELD];
const tookToRelease = (row) => row[RELEASING] < 0 ? -1 : row[END] - row[RELEASING];
const indexById = new Map();
rows.forEach((row, i) => indexById.set(row[0], i));

// The header.
$("headline").prepend(icon(data.icon));
$("stats").append(...data.stats.map(([label, value, tone]) => el("div", value === 0 ? "none" : "", el("dt", "", label), el("dd", value === 0 ? "" : tone, count(value)))));

// Problems.
// An entry is always [5], a fiber #5.
const entryLink = (id, label = "[" + id + "]") => indexById.has(id) ? button("link", label, () => select(indexById.get(id), true)) : document.createTextNode(label);
const nameOf = (row) => text(row, KIND) + " “" + text(row, NAME) + "”";
const circle = (waits) => el("ol", "circle", ...waits.map(([waiter, holder]) => {
  const wanted = rows[indexById.get(waiter)], held = rows[indexById.get(holder)];
  const line = el("li", "");
  if (wanted === undefined) { line.append("waits: ", entryLink(waiter)); return line; }
  line.append("fiber " + (text(wanted, FIBER) || "?") + " waits for ", entryLink(waiter, nameOf(wanted)),
    ", which fiber " + (held && text(held, FIBER) || "?") + " holds as ", entryLink(holder));
  if (wanted[SITE]) line.append(el("div", "soft mono", own(text(wanted, SITE).split("\n", 1)[0])));
  return line;
}));
const problems = $("problems");
for (const { fibers, waits } of data.deadlocks) {
  const drawn = circle(waits);
  if (fibers > waits.length) drawn.append(el("li", "soft", "… and " + count(fibers - waits.length) + " more fibers in it"));
  problems.append(el("li", "", icon("deadlock"), el("div", "", el("h3", "", "Deadlock of " + count(fibers) + (fibers === 1 ? " fiber" : " fibers")), drawn)));
}
if (data.moreDeadlocks > 0) problems.append(el("li", "", icon("deadlock"), el("p", "", "… and " + count(data.moreDeadlocks) + " more deadlocks")));
for (const { state, kind, cause, ids, many, failedToRelease } of data.problems) {
  const what = state === 5 ? "abandoned" : failedToRelease ? "failed to release" : "failed to acquire";
  const title = el("h3", "", button("link", (many > 1 ? count(many) + " × " : "") + strings[kind] + " " + what, () => only(state, kind)));
  const body = el("div", "", title);
  const names = el("span", "which");
  ids.forEach((id, i) => { const row = rows[indexById.get(id)]; names.append(i ? ", " : "", entryLink(id, text(row, NAME))); });
  if (many > ids.length) names.append(" and " + count(many - ids.length) + " more");
  title.append(names);
  if (cause) body.append(el("p", "cause", own(strings[cause].split("\n", 1)[0])));
  problems.append(el("li", "", icon(states[state]), body));
}
if (data.moreProblems > 0) problems.append(el("li", "", icon("failed"), el("p", "", "… and " + count(data.moreProblems) + " more of other kinds and causes")));
if (!problems.firstChild) {
  $("pair").classList.add("calm");
  problems.append(el("li", "", icon("released"), el("p", "", "No deadlock, nothing abandoned, no release failed; of the " + count(total) + " entries here none failed to acquire.")));
}

// Totals by kind.
$("kinds").append(...data.kinds.map(([kind, ...sums]) => el("tr", "", el("td", "", own(kind)), ...sums.map((n, i) => el("td", n === 0 ? "zero" : i > 2 ? "bad" : "", count(n))))));
if (!data.kinds.length) $("kinds").append(el("tr", "", el("td", "soft", "none yet")));

// The entries held for longest.
const oldest = rows.filter((row) => row[STATE] === 1).sort((a, b) => a[HELD] - b[HELD] || a[0] - b[0]).slice(0, 5);
$("oldest").append(...oldest.map((row) => el("li", "", el("span", "what", entryLink(row[0], own(text(row, NAME))), el("span", "soft", " " + text(row, KIND))), el("span", "", duration(heldFor(row))))));
$("oldestcard").hidden = !oldest.length;

// Sorting and filtering.
// Texts sort without case and with numbers by value; the same in every locale.
const natural = (content) => content.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(15, "0"));
const ranked = (field) => {
  let ranks;
  return (row) => {
    if (!ranks) {
      const used = Array.from(new Set(rows.map((one) => one[field]))).filter(Boolean).map((at) => [natural(strings[at]), at]);
      used.sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0);
      ranks = new Map(used.map(([key, at], i) => [at, i]));
    }
    return row[field] ? ranks.get(row[field]) : -1;
  };
};
const severity = data.severity;
const keys = {
  state: (row) => severity[row[STATE]],
  kind: ranked(KIND),
  name: ranked(NAME),
  owner: ranked(OWNER),
  fiber: ranked(FIBER),
  waited,
  held: heldFor,
  release: tookToRelease,
  time: (row) => row[REQUESTED]
};
const chosen = { column: "state", down: false, states: new Set(), kinds: new Set(), terms: [], from: 0, to: span };
let order = new Uint32Array(total), shown = order;
const sort = () => {
  const key = keys[chosen.column], sign = chosen.down ? -1 : 1;
  const values = new Float64Array(total);
  for (let i = 0; i < total; i++) values[i] = key(rows[i]);
  const next = Array.from({ length: total }, (_, i) => i);
  // Missing values come last in both directions; equal ones by the time of their requests.
  next.sort((a, b) => {
    const x = values[a], y = values[b];
    if (x !== y) return x === -1 ? 1 : y === -1 ? -1 : (x - y) * sign;
    return rows[a][REQUESTED] - rows[b][REQUESTED] || rows[a][0] - rows[b][0];
  });
  order = Uint32Array.from(next);
};
let haystacks;
const haystack = (i) => {
  if (!haystacks) {
    haystacks = rows.map((row) => ["[" + row[0] + "]", states[row[STATE]], text(row, KIND), text(row, NAME), text(row, OWNER), "fiber " + text(row, FIBER), text(row, SPAN), text(row, SITE), text(row, ATTRIBUTES), text(row, CAUSE)].join("\n").toLowerCase());
  }
  return haystacks[i];
};
const isWhole = () => chosen.from <= 0 && chosen.to >= span;
const matches = (i) => {
  const row = rows[i];
  if (chosen.states.size && !chosen.states.has(row[STATE])) return false;
  if (chosen.kinds.size && !chosen.kinds.has(row[KIND])) return false;
  if (!isWhole() && (row[END] < chosen.from || row[REQUESTED] > chosen.to)) return false;
  for (const term of chosen.terms) if (!haystack(i).includes(term)) return false;
  return true;
};
const filter = () => {
  const narrowed = chosen.states.size || chosen.kinds.size || chosen.terms.length || !isWhole();
  shown = narrowed ? order.filter(matches) : order;
  $("count").textContent = narrowed ? count(shown.length) + " of " + count(total) : count(total) + (total === 1 ? " entry" : " entries");
  $("clear").hidden = !narrowed;
  $("nothing").hidden = shown.length > 0;
  $("nothing").textContent = total ? "No entry matches." : "The ledger has no entries.";
  $("entries").setAttribute("aria-rowcount", String(shown.length + 1));
};

// Bars.
const segment = (className, a, b) => {
  if (b < 0 || a > 100) return [];
  const made = el("i", className), left = Math.max(0, a);
  made.style.left = "min(" + left + "%, 100% - 2px)";
  made.style.width = Math.min(100, b) - left + "%";
  return [made];
};
const bars = (row, from, to) => {
  const lane = el("div", "lane");
  const percent = (at) => (at - from) / (to - from) * 100;
  const [requested, held, releasing, end] = [row[REQUESTED], row[HELD], row[RELEASING], row[END]];
  if (held < 0 || held > requested) lane.append(...segment("s-acquiring", percent(requested), percent(held < 0 ? end : held)));
  if (held >= 0) lane.append(...segment("s-held", percent(held), percent(releasing < 0 ? end : releasing)));
  if (releasing >= 0 && releasing < end) lane.append(...segment("s-releasing", percent(releasing), percent(end)));
  const at = percent(end), state = states[row[STATE]];
  if (at >= 0 && at <= 100 && state !== "released") {
    const mark = icon(isLive(row) ? "goes" : state, "m " + (isLive(row) ? "go" : "halo " + state));
    mark.style.left = isLive(row) ? at + "%" : "clamp(6px, " + at + "%, 100% - 6px)";
    lane.append(mark);
  }
  return lane;
};

// The visible rows.
const body = $("body"), over = 8;
const pads = [el("tr", "pad", el("td", "")), el("tr", "pad", el("td", ""))];
for (const pad of pads) pad.setAttribute("aria-hidden", "true");
body.append(...pads);
const painted = new Map();
let selected = -1, cursor = 0;
const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
let height = rowHeight();
const cell = (className, ...inside) => { const td = el("td", className, ...inside); td.setAttribute("role", "cell"); return td; };
const number = (className, value) => cell("num " + className + (value < 0 ? " none" : ""), value < 0 ? "–" : duration(value));
// Long names are shortened in the middle, because their ends tell most.
const ends = (name) => {
  const letters = Array.from(name);
  if (letters.length < 22) return own(name);
  const at = letters.length - 10;
  return el("bdi", "ends", el("span", "", letters.slice(0, at).join("")), el("span", "", letters.slice(at).join("")));
};
const makeRow = (at) => {
  const i = shown[at], row = rows[i], state = states[row[STATE]];
  const tr = el("tr", "");
  tr.setAttribute("role", "row");
  tr.setAttribute("aria-rowindex", String(at + 2));
  tr.setAttribute("aria-selected", String(i === selected));
  tr.dataset.at = String(at);
  const open = button("open", ends(text(row, NAME)), () => { cursor = at; select(i, false); });
  open.tabIndex = at === cursor ? 0 : -1;
  open.setAttribute("aria-label", text(row, KIND) + " " + text(row, NAME) + ", " + state);
  const named = el("div", "named", open), name = cell("name", named);
  // If there is little room its beginning is cut, because the line number tells most.
  if (row[SITE]) named.append(el("span", "at", own(shortSite(text(row, SITE)))));
  const owner = text(row, OWNER) || "";
  const at2 = owner.lastIndexOf(" › ") + 1;
  const last = owner.slice(at2 && at2 + 2);
  const kind = cell("kind", el("span", "by", state + " · "), own(text(row, KIND)));
  if (owner) kind.append(el("span", "by", " · ", own(last)));
  name.title = text(row, NAME);
  // The innermost owner tells most: the outer ones are cut first.
  const owned = cell("owner" + (owner ? "" : " none"), owner ? el("div", "path", el("span", "outer", own(owner.slice(0, at2))), at2 ? el("span", "sep", "›") : "", el("span", "last", own(last))) : "–");
  owned.title = owner;
  tr.append(cell("state", icon(state), el("span", "", state)), kind, name, owned, cell("fiber" + (row[FIBER] ? "" : " none"), row[FIBER] ? text(row, FIBER) : "–"),
    number("waited", waited(row)), number("held-for", heldFor(row)), number("release", tookToRelease(row)), cell("time", bars(row, chosen.from, chosen.to)));
  return tr;
};
const paint = (afresh) => {
  // Read before rows are removed: a page that is shorter for a moment would be scrolled up.
  const top = body.getBoundingClientRect().top;
  if (afresh) {
    for (const tr of painted.values()) tr.remove();
    painted.clear();
  }
  const first = Math.max(0, Math.min(shown.length, Math.floor(-top / height) - over));
  const last = Math.min(shown.length, Math.max(first, Math.ceil((innerHeight - top) / height) + over));
  for (const [at, tr] of painted) if (at < first || at >= last) { tr.remove(); painted.delete(at); }
  let next = pads[0].nextSibling;
  for (let at = first; at < last; at++) {
    let tr = painted.get(at);
    if (tr === undefined) { tr = makeRow(at); painted.set(at, tr); body.insertBefore(tr, next); }
    else next = tr.nextSibling;
  }
  pads[0].firstChild.style.height = first * height + "px";
  pads[1].firstChild.style.height = (shown.length - last) * height + "px";
};
const repaint = () => paint(true);
const toTop = () => {
  const top = $("sheet").getBoundingClientRect().top - stuck();
  if (top < 0) scrollBy(0, top);
};
const stuck = () => getComputedStyle($("tools")).position === "sticky" ? $("tools").offsetHeight : 0;
const changed = () => { filter(); cursor = 0; toTop(); repaint(); };

// Sorting.
const heads = Array.from(document.querySelectorAll("#entries thead th"));
const showSort = () => {
  for (const th of heads) th.setAttribute("aria-sort", th.dataset.column === chosen.column ? chosen.down ? "descending" : "ascending" : "none");
};
for (const th of heads) {
  th.querySelector("button").addEventListener("click", () => {
    const column = th.dataset.column;
    // Durations sort the longest first.
    chosen.down = chosen.column === column ? !chosen.down : ["waited", "held", "release"].includes(column);
    chosen.column = column;
    sort(); showSort(); changed();
  });
}

// Search and filters.
const chip = (set, value, label, n, first) => {
  const made = button("chip", "", () => {
    if (!set.delete(value)) set.add(value);
    made.setAttribute("aria-pressed", String(set.has(value)));
    changed();
  });
  if (first) made.append(first);
  made.append(el("span", "", own(label)), el("span", "n", count(n)));
  made.setAttribute("aria-pressed", "false");
  made.dataset.value = String(value);
  return made;
};
const tally = (field) => {
  const sums = new Map();
  for (const row of rows) sums.set(row[field], (sums.get(row[field]) || 0) + 1);
  return sums;
};
const stateSums = tally(STATE);
if (!rows.some((row) => row[OWNER])) $("entries").classList.add("ownerless");
$("states").append(...states.map((state, i) => stateSums.has(i) ? chip(chosen.states, i, state, stateSums.get(i), icon(state)) : "").filter(Boolean));
const kindSums = Array.from(tally(KIND)).sort((a, b) => b[1] - a[1] || a[0] - b[0]);
const kindChips = kindSums.map(([kind, n]) => () => chip(chosen.kinds, kind, strings[kind], n));
const openKinds = 8;
$("kindchips").append(...kindChips.slice(0, openKinds).map((make) => make()));
if (kindChips.length > openKinds) {
  const rest = kindChips.slice(openKinds, 200);
  $("kindchips").append(button("chip", "+ " + rest.length + " kinds", (more) => { more.replaceWith(...rest.map((make) => make())); measure(); }));
}
const showChips = () => {
  for (const one of $("states").children) one.setAttribute("aria-pressed", String(chosen.states.has(Number(one.dataset.value))));
  for (const one of $("kindchips").children) if (one.dataset.value) one.setAttribute("aria-pressed", String(chosen.kinds.has(Number(one.dataset.value))));
};
const search = $("search");
let typing;
search.addEventListener("input", () => {
  cancelAnimationFrame(typing);
  typing = requestAnimationFrame(() => {
    chosen.terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    changed();
  });
});
const clear = () => {
  search.value = "";
  chosen.terms = [];
  chosen.states.clear();
  chosen.kinds.clear();
  showChips();
  zoom(0, span);
};
$("clear").addEventListener("click", () => { clear(); search.focus(); });
const only = (state, kind) => {
  clear();
  chosen.states.add(state);
  chosen.kinds.add(kind);
  showChips(); changed();
  $("tools").scrollIntoView();
};

// The load, and the zoomed part of the time.
const graph = $("graph"), brush = $("brush");
const most = Math.max(1, ...load.held, ...load.acquiring);
const outline = (values) => values.map((value, i) => (i ? "L" : "M") + i + " " + (100 - value / most * 96) + "h1").join("");
const n = load.held.length;
const drawing = svg("svg", { viewBox: "0 0 " + n + " 100", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { class: "area", d: outline(load.held) + "V101H0Z" }));
if (load.acquiring.some(Boolean)) drawing.append(svg("path", { class: "line", d: outline(load.acquiring) }));
graph.prepend(drawing);
$("peak").textContent = "held at once: at most " + count(Math.max(0, ...load.held)) + (load.acquiring.some(Boolean) ? " · acquiring (dashed): at most " + count(Math.max(...load.acquiring)) : "");
const ticks = (into, from, to, width) => {
  into.replaceChildren();
  if (!width) return;
  const step = data.steps.find((one) => (to - from) / one <= Math.max(2, width / 84)) || (to - from) / 4;
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    const x = (at - from) / (to - from) * width;
    const label = el("span", x < 14 ? "first" : "", at === 0 ? "0" : "+" + tickLabel(Number(at.toFixed(6))));
    label.style.left = x + "px";
    if (x < width - 18) into.append(label);
  }
  return { step: step / (to - from) * width, offset: (Math.ceil(from / step) * step - from) / (to - from) * width };
};
const measure = () => {
  height = rowHeight();
  const root = document.documentElement.style;
  root.setProperty("--tools", stuck() + "px");
  ticks($("whole"), 0, span, $("whole").clientWidth);
  const grid = ticks($("ticks"), chosen.from, chosen.to, $("ticks").clientWidth);
  if (grid) { root.setProperty("--step", grid.step + "px"); root.setProperty("--offset", grid.offset + "px"); }
};
const least = Math.max(span / 1e6, 1e-3);
const zoom = (from, to) => {
  const wide = Math.min(span, Math.max(least, to - from));
  chosen.from = Math.max(0, Math.min(span - wide, from));
  chosen.to = chosen.from + wide;
  const whole = isWhole();
  brush.hidden = whole;
  brush.style.left = chosen.from / span * 100 + "%";
  brush.style.width = "max(3px, " + (chosen.to - chosen.from) / span * 100 + "%)";
  $("all").disabled = $("out").disabled = whole;
  $("window").textContent = whole ? "drag to look closer" : duration(chosen.to - chosen.from) + " from +" + duration(chosen.from);
  measure(); changed();
};
const zoomBy = (factor) => {
  const middle = (chosen.from + chosen.to) / 2, half = (chosen.to - chosen.from) / 2 * factor;
  zoom(middle - half, middle + half);
};
const moveBy = (part) => { const by = (chosen.to - chosen.from) * part; zoom(chosen.from + by, chosen.to + by); };
$("in").addEventListener("click", () => zoomBy(.5));
$("out").addEventListener("click", () => zoomBy(2));
$("all").addEventListener("click", () => zoom(0, span));
let dragFrom;
const timeAt = (event) => { const box = graph.getBoundingClientRect(); return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * span; };
graph.addEventListener("pointerdown", (event) => { if (event.button === 0) { dragFrom = timeAt(event); graph.setPointerCapture(event.pointerId); } });
graph.addEventListener("pointermove", (event) => {
  if (dragFrom === undefined) return;
  const at = timeAt(event);
  brush.hidden = false;
  brush.style.left = Math.min(at, dragFrom) / span * 100 + "%";
  brush.style.width = Math.abs(at - dragFrom) / span * 100 + "%";
});
const endDrag = (event) => {
  if (dragFrom === undefined) return;
  const at = timeAt(event), from = Math.min(at, dragFrom), to = Math.max(at, dragFrom);
  dragFrom = undefined;
  if (event.type === "pointerup" && to - from > span / 200) zoom(from, to);
  else zoom(chosen.from, chosen.to);
};
graph.addEventListener("pointerup", endDrag);
graph.addEventListener("pointercancel", endDrag);
graph.addEventListener("dblclick", () => zoom(0, span));
graph.addEventListener("keydown", (event) => {
  const acts = { "+": () => zoomBy(.5), "=": () => zoomBy(.5), "-": () => zoomBy(2), ArrowLeft: () => moveBy(-.25), ArrowRight: () => moveBy(.25), Escape: () => zoom(0, span), Home: () => zoom(0, span) };
  if (acts[event.key]) { event.preventDefault(); event.stopPropagation(); acts[event.key](); }
});

// One entry.
const detail = $("detail");
const field = (label, ...inside) => [el("dt", "", label), el("dd", "", ...inside)];
const wideField = (label, content) => el("div", "wide", el("dt", "", label), el("pre", "", content));
const moment = (at) => "+" + duration(at) + ", " + instant(data.from + at);
const links = (ids, many) => ids.flatMap((id, i) => {
  const row = rows[indexById.get(id)];
  return [i ? ", " : "", entryLink(id, "[" + id + "]" + (row && row[FIBER] ? " of fiber " + text(row, FIBER) : ""))];
}).concat(many > ids.length ? " and " + count(many - ids.length) + " more" : "");
const describe = (row) => {
  const state = states[row[STATE]];
  const list = el("dl", "");
  list.append(...field("state", icon(state), " " + state + (isLive(row) ? " for " + duration(Math.max(0, span - [row[REQUESTED], row[HELD], row[RELEASING]][row[STATE]])) : "")));
  if (row[OWNER]) list.append(...field("owner", own(text(row, OWNER))));
  if (row[FIBER]) list.append(...field("fiber", text(row, FIBER)));
  if (row[SPAN]) list.append(...field("span", own(text(row, SPAN))));
  list.append(...field("requested", moment(row[REQUESTED])), ...field("waited", duration(waited(row)) + (row[HELD] < 0 ? isLive(row) ? " so far" : ", never held" : "")));
  if (row[HELD] >= 0) list.append(...field("held", duration(heldFor(row)) + (state === "held" ? " so far" : "")));
  if (row[RELEASING] >= 0) list.append(...field("release", duration(tookToRelease(row)) + (state === "releasing" ? " so far" : "")));
  if (!isLive(row)) list.append(...field("ended", moment(row[END])));
  if (row[BLOCKERS] > 0) list.append(...field("waits for", ...links(row[BLOCKED], row[BLOCKERS])));
  if (row[WAITERS] > 0) list.append(...field("waited for by", ...links(row[WAITING], row[WAITERS])));
  if (row[SITE]) list.append(wideField("requested at", text(row, SITE)));
  if (row[CAUSE]) list.append(wideField("cause", text(row, CAUSE)));
  if (row[ATTRIBUTES]) list.append(wideField("attributes", text(row, ATTRIBUTES)));
  return list;
};
/** The bars of one entry, as wide as there is room. */
const closeUp = (row) => {
  const edge = Math.max(row[END] - row[REQUESTED], least) * .04;
  return bars(row, row[REQUESTED] - edge, row[END] + edge);
};
const select = (i, jump) => {
  const row = rows[i];
  if (jump && shown[cursor] !== i) {
    let at = shown.indexOf(i);
    if (at < 0) { clear(); at = shown.indexOf(i); }
    cursor = at;
    scrollTo(0, tableTop() + (at - 1) * height - stuck());
  }
  selected = i;
  repaint();
  const close = button("close", "Close", hide);
  detail.replaceChildren(el("div", "top", el("div", "", el("div", "soft", own(text(row, KIND)), " [" + row[0] + "]"), el("h2", "", own(text(row, NAME)))), close), closeUp(row), describe(row));
  detail.hidden = false;
  detail.scrollTop = 0;
  detail.setAttribute("aria-label", nameOf(row));
  // From a row, keys move on through the rows; from elsewhere, focus goes to the details.
  if (jump) close.focus({ preventScroll: true }); else focusRow();
};
const hide = () => {
  if (detail.hidden) return;
  detail.hidden = true;
  selected = -1;
  repaint();
  focusRow();
};
const tableTop = () => $("sheet").getBoundingClientRect().top + scrollY;
const show = (at) => {
  const top = tableTop() + $("entries").tHead.offsetHeight + at * height;
  const head = stuck() + $("entries").tHead.offsetHeight;
  if (top < scrollY + head) scrollTo(0, top - head);
  else if (top + height > scrollY + innerHeight) scrollTo(0, top + height - innerHeight + 8);
  paint(false);
};
const focusRow = () => {
  const tr = painted.get(cursor);
  if (tr) tr.querySelector("button").focus({ preventScroll: true });
};
body.addEventListener("click", (event) => {
  const tr = event.target.closest("tr[data-at]");
  if (tr && !String(getSelection())) { cursor = Number(tr.dataset.at); select(shown[cursor], false); }
});
body.addEventListener("keydown", (event) => {
  const page = Math.max(1, Math.floor((innerHeight - 160) / height));
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -total, End: total };
  const by = steps[event.key];
  if (by === undefined || !shown.length) return;
  event.preventDefault();
  cursor = Math.max(0, Math.min(shown.length - 1, cursor + by));
  show(cursor);
  if (!detail.hidden) select(shown[cursor], false); else repaint();
  focusRow();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !detail.hidden) { hide(); return; }
  if (event.key === "/" && document.activeElement !== search && !event.ctrlKey && !event.metaKey) { event.preventDefault(); search.focus(); search.select(); }
});

let isScheduled = false;
const soon = () => { if (!isScheduled) { isScheduled = true; requestAnimationFrame(() => { isScheduled = false; paint(false); }); } };
addEventListener("scroll", soon, { passive: true });
addEventListener("resize", () => { measure(); repaint(); });
sort(); showSort(); zoom(0, span);
document.documentElement.dataset.ready = "";
})();`
