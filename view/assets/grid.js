// All rows as pictures, of which only those on the screen are there.

import { about, className, get, hasPictures, hasSource, nearZero, picture } from "./api.js";
import { count, counts, h } from "./dom.js";
import { canvas, colour } from "./tokens.js";

export const isWide = true;

/** Rows that are asked for at a time. */
const PART = 60;
/** Parts that are kept. */
const PARTS_MAX = 60;
/** Browsers give elements no more than some 30 million pixels. Above this, scrolling is in proportion. */
const HEIGHT_MAX = 8_000_000;
const GAP = 10;

export async function show(context) {
  const { main, query } = context;
  const filter = Object.fromEntries(["class", "label", "view", "shard", "split", "key"].map((name) => [name, query.get(name) ?? ""]));
  const state = { context, filter, size: Number(query.get("size")) || 150, first: Number(query.get("row")) || 0, both: hasSource(), parts: new Map(), total: 0, current: null };
  const status = h("span", { class: "end", role: "status" });
  const cells = h("div", { class: "cells" });
  const spacer = h("div");
  const scroller = h("div", { class: "grid", tabindex: 0, "aria-label": "Rows" }, cells, spacer);
  const note = h("div", { role: "alert" });
  Object.assign(state, { scroller, spacer, cells, status, note });
  main.replaceChildren(filters(state), note, h("div", { class: "bar" }, sizes(state), status), scroller);
  try {
    state.total = (await part(state, 0)).total;
  } catch (error) {
    // An invalid filter can be corrected where it was typed.
    if (context.signal.aborted) throw error;
    say(state, error.message);
  }
  listen(state);
  layout(state);
  if (query.get("focus") === "key") document.getElementById("filter-key").focus();
}

function address({ filter, size, first }) {
  const entries = Object.entries({ ...filter, size: size === 150 ? "" : size, row: first || "" }).filter(([, value]) => value !== "");
  const query = new URLSearchParams(entries);
  return query.size ? `grid?${query}` : "grid";
}

function say(state, ...words) {
  state.note.replaceChildren(h("p", { class: "note bad" }, words));
}

/** Candidates that are named when a part of a name fits several classes. */
const CANDIDATES = 12;

/** The label of a class that is typed as the pages show it; null where it is not. */
function shownLabel(text) {
  if (text === className(-1)) return -1;
  const [, index] = text.match(/^class (\d+)$/) ?? text.match(/ \((\d+)\)$/) ?? [];
  return index !== undefined && className(Number(index)) === text ? Number(index) : null;
}

/** Shows the class that somebody typed: its name, its index, both as the pages show them, or a part of its name that only it has. */
function chooseClass(state, text) {
  const names = about.overview.class_names;
  const to = (filter) => address({ ...state, first: 0, filter: { ...state.filter, class: "", label: "", ...filter } });
  const isExact = text === "" || names.includes(text) || /^-?\d+$/.test(text);
  if (isExact) return state.context.go(to({ class: text }));
  const shown = shownLabel(text);
  if (shown !== null) return state.context.go(to({ label: String(shown) }));
  const part = text.toLowerCase();
  const found = names.flatMap((name, label) => (name.toLowerCase().includes(part) ? [label] : []));
  if (found.length === 1) return state.context.go(to({ label: String(found[0]) }));
  if (found.length === 0) return say(state, `No class has “${text}” in its name.`);
  const links = found.slice(0, CANDIDATES).map((label) => [" ", h("a", { href: to({ label: String(label) }) }, className(label))]);
  return say(state, `${count(found.length)} classes have “${text}” in their names:`, links, found.length > CANDIDATES ? " …" : "");
}

function filters(state) {
  const { filter, context } = state;
  const { info, class_names: names, first_view: first, splits } = about.overview;
  const set = (name) => (event) => context.go(address({ ...state, first: 0, filter: { ...filter, [name]: event.target.value.trim() } }));
  const select = (name, label, options) => h("label", {}, label, h("select", { onchange: set(name) },
    h("option", { value: "" }, "all"), options.map(([value, text]) => h("option", { value, selected: String(value) === filter[name] }, text))));
  const list = h("datalist", { id: "class-names" }, names.slice(0, 2000).map((name) => h("option", { value: name })));
  const shards = info.shards.map((shard, i) => [i, nearZero(i) === null ? shard.file : `${shard.file} (${count(nearZero(i))} bits near 0)`]);
  const chosen = filter.label === "" ? filter.class : className(Number(filter.label));
  context.keys["/"] = () => document.getElementById("filter-key").focus();
  return h("div", { class: "bar" },
    h("label", {}, "Key", h("input", { id: "filter-key", value: filter.key, placeholder: "part of it", size: 22, onchange: set("key") })),
    h("label", {}, "Class", h("input", { id: "filter-class", value: chosen, list: "class-names", placeholder: "name or index", size: 14, onchange: (event) => chooseClass(state, event.target.value.trim()) }), list),
    info.views > 1 && select("view", "View", Array.from({ length: info.views }, (_, i) => [first + i, first + i])),
    splits.length > 0 && select("split", "Split", splits.map(({ name }) => [name, name])),
    info.shards.length > 1 && select("shard", "Shard", shards),
    Object.values(filter).some(Boolean) && h("a", { href: "grid" }, "Show all"));
}

function sizes(state) {
  const slide = (event) => {
    state.size = Number(event.target.value);
    layout(state);
  };
  const both = (event) => {
    state.both = event.target.checked;
    layout(state);
  };
  return [h("label", {}, "Size", h("input", { type: "range", min: 80, max: 400, step: 10, value: state.size, oninput: slide })),
    hasSource() && h("label", {}, h("input", { type: "checkbox", checked: state.both, onchange: both }), "Originals beside them"),
    !hasPictures() && h("span", { class: "soft" }, "Tokens as colours; --tokenizer WEIGHTS shows pictures")];
}

/** The part of the list that has place `start`. */
function part(state, start) {
  const number = Math.floor(start / PART);
  if (!state.parts.has(number)) {
    const asked = get("api/rows", { ...state.filter, offset: number * PART, limit: PART }, { signal: state.context.signal });
    asked.catch(() => state.parts.delete(number));
    state.parts.set(number, asked);
    if (state.parts.size > PARTS_MAX) state.parts.delete(state.parts.keys().next().value);
  }
  return state.parts.get(number);
}

/** Sizes everything, and goes on showing what was shown. */
function layout(state) {
  const { scroller, spacer, cells } = state;
  const pair = state.both && hasSource();
  const width = pair ? 2 * state.size + 3 : state.size;
  state.columns = Math.max(1, Math.floor((scroller.clientWidth + GAP) / (width + 12 + GAP)));
  state.cellHeight = (scroller.clientWidth - GAP * (state.columns - 1)) / state.columns;
  state.cellHeight = (pair ? (state.cellHeight - 15) / 2 : state.cellHeight - 12) + 12 + 18 + GAP;
  state.lines = Math.ceil(state.total / state.columns);
  state.linesShown = Math.ceil(scroller.clientHeight / state.cellHeight) + 1;
  state.height = Math.min(state.lines * state.cellHeight, HEIGHT_MAX);
  cells.style.gridAutoRows = `${state.cellHeight - GAP}px`;
  cells.style.gridTemplateColumns = `repeat(${state.columns}, minmax(0, 1fr))`;
  // The cells stick to the window and take no height of their own.
  cells.style.height = `${scroller.clientHeight}px`;
  spacer.style.height = `${Math.max(0, state.height - scroller.clientHeight)}px`;
  toLine(state, Math.floor(state.first / state.columns));
  draw(state);
}

const lastLine = (state) => Math.max(0, state.lines - Math.floor(state.scroller.clientHeight / state.cellHeight));
const isExact = (state) => state.lines * state.cellHeight <= HEIGHT_MAX;

function toLine(state, line) {
  state.line = Math.max(0, Math.min(line, lastLine(state)));
  const room = state.height - state.scroller.clientHeight;
  state.ignored = Math.round(isExact(state) ? state.line * state.cellHeight : (state.line / Math.max(1, lastLine(state))) * room);
  state.scroller.scrollTop = state.ignored;
}

function listen(state) {
  const { scroller, context } = state;
  const scrolled = () => {
    if (Math.abs(scroller.scrollTop - state.ignored) <= 1) return;
    const room = Math.max(1, state.height - scroller.clientHeight);
    state.line = Math.round(isExact(state) ? scroller.scrollTop / state.cellHeight : (scroller.scrollTop / room) * lastLine(state));
    draw(state);
  };
  const wheel = (event) => {
    if (isExact(state)) return;
    event.preventDefault();
    state.rest = (state.rest ?? 0) + event.deltaY / state.cellHeight;
    const lines = Math.trunc(state.rest);
    state.rest -= lines;
    if (lines) move(lines);
  };
  const move = (lines) => {
    toLine(state, state.line + lines);
    draw(state);
  };
  const step = (places) => () => {
    state.current = Math.max(0, Math.min(state.total - 1, state.current === null ? state.first : state.current + places));
    const line = Math.floor(state.current / state.columns);
    const shown = Math.max(1, Math.floor(scroller.clientHeight / state.cellHeight));
    if (line < state.line) toLine(state, line);
    if (line >= state.line + shown) toLine(state, line - shown + 1);
    draw(state);
  };
  scroller.addEventListener("scroll", scrolled, { signal: context.signal });
  scroller.addEventListener("wheel", wheel, { signal: context.signal, passive: false });
  addEventListener("resize", () => layout(state), { signal: context.signal });
  Object.assign(context.keys, {
    ArrowLeft: step(-1), ArrowRight: step(1), ArrowUp: () => step(-state.columns)(), ArrowDown: () => step(state.columns)(),
    PageUp: () => move(1 - state.linesShown), PageDown: () => move(state.linesShown - 1), Home: () => move(-state.lines), End: () => move(state.lines),
    Enter: async () => {
      const at = state.current ?? state.first;
      const found = (await part(state, at)).items[at % PART];
      if (found) context.go(`sample/${found.row}`);
    },
  });
}

/** Shows the rows of the window. */
async function draw(state) {
  const start = state.line * state.columns;
  const end = Math.min(state.total, start + state.linesShown * state.columns);
  state.first = start;
  state.drawn = (state.drawn ?? 0) + 1;
  const mine = state.drawn;
  state.status.textContent = state.total === 0 ? "no rows" : `${end - start === 1 ? "" : `${count(start + 1)} to `}${count(end)} of ${counts(state.total, "row")}`;
  state.context.remember(address(state));
  const numbers = [...new Set(Array.from({ length: end - start }, (_, i) => Math.floor((start + i) / PART)))];
  // A glance while somebody drags the bar is not worth a request.
  if (numbers.some((number) => !state.parts.has(number))) await new Promise((resolve) => setTimeout(resolve, 60));
  if (mine !== state.drawn || state.context.signal.aborted) return;
  try {
    const parts = new Map(await Promise.all(numbers.map(async (number) => [number, await part(state, number * PART)])));
    if (mine !== state.drawn || state.context.signal.aborted) return;
    const rows = Array.from({ length: end - start }, (_, i) => parts.get(Math.floor((start + i) / PART)).items[(start + i) % PART]);
    const known = new Map([...state.cells.children].map((cell) => [cell.dataset.id, cell]));
    const pair = state.both && hasSource();
    // A cell that stays on the screen stays the same element: its pictures do not load again.
    state.cells.replaceChildren(...rows.map((row, i) => {
      const id = `${row.row}${pair ? "+" : ""}`;
      const found = known.get(id) ?? cell(state, row, id, pair);
      found.classList.toggle("current", start + i === state.current);
      return found;
    }));
  } catch (error) {
    if (!state.context.signal.aborted) state.status.textContent = error.message;
  }
}

function cell(state, row, id, pair) {
  const image = (kind, alt) => h("img", { src: picture(kind, row.row), alt, decoding: "async" });
  const isReadable = row.key !== null;
  const damaged = () => h("span", { class: "missing" }, "damaged");
  const shown = !isReadable ? damaged() : hasPictures() ? image("decoded", "decoded") : placeholder(state, row);
  const under = h("div", { class: "under" }, h("span", {}, className(row.label)), h("span", {}, row.flip ? `${count(row.row)} ⇋` : count(row.row)));
  const lines = [`row ${count(row.row)}`, row.key, `${className(row.label)}${isReadable ? `, view ${row.view}` : ""}`, row.damage].filter(Boolean);

  return h("a", { class: "cell", href: `sample/${row.row}`, "data-id": id, title: lines.join("\n") },
    h("div", { class: "pair" }, pair && isReadable && image("original", "original"), shown),
    row.damage && h("span", { class: "badge bad" }, "damaged"), under);
}

/** The tokens as colours, where there is no tokenizer. */
function placeholder(state, row) {
  const box = h("canvas", { width: 1, height: 1 });
  get(`api/row/${row.row}`, {}, { signal: state.context.signal }).then(({ tokens }) => box.replaceWith(canvas(tokens, colour))).catch(() => {});
  return box;
}
