// All rows as pictures, of which only those on the screen are there.

import { about, className, get, hasBeside, hasPictures, hasSource, nearZero, picture, readableName, sent } from "./api.js";
import * as chosen from "./chosen.js";
import { surveyed } from "./counting.js";
import { count, counts, h, save } from "./dom.js";
import { besideImage, image as rowImage, lines, mark, tick } from "./shelf.js";

export const isWide = true;

/** Rows that are asked for at a time. */
const PART = 60;
/** Parts that are kept. */
const PARTS_MAX = 60;
/** Browsers give elements no more than some 30 million pixels. Above this, scrolling is in proportion. */
const HEIGHT_MAX = 8_000_000;
const GAP = 10;

const FILTERS = ["class", "label", "view", "shard", "split", "key", "code", "rows", "sort", "order", "selected"];

/** Orders, and whether they need a survey of all rows. */
const ORDERS = [["", "as in the cache"], ["entropy", "entropy of the codes"], ["distance", "distance from the class's mean"], ["margin", "bits near 0 in the shard"]];
const SURVEYED = ["entropy", "distance"];

export async function show(context) {
  const { main, query } = context;
  const filter = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
  if (SURVEYED.includes(filter.sort)) await surveyed("Grid", context);
  const state = { context, filter, size: Number(query.get("size")) || 150, first: Number(query.get("row")) || 0, both: hasSource(), parts: new Map(), total: 0, current: null };
  const status = h("span", { class: "end", role: "status" });
  const cells = h("div", { class: "cells" });
  const spacer = h("div");
  const scroller = h("div", { class: "grid", tabindex: 0, "aria-label": "Rows" }, cells, spacer);
  const note = h("div", { role: "alert" });
  Object.assign(state, { scroller, spacer, cells, status, note });
  // Rows that are given up while they are shown stay, so that they can be taken back.
  if (filter.selected) state.list = chosen.list();
  main.replaceChildren(filters(state), note, h("div", { class: "bar" }, sizes(state), choices(state), status), scroller);
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

/** Several classes are typed one after the other, with this between them: names have commas. */
const SEPARATOR = ";";

/** The label of a class that is typed as the pages show it; null where it is not. */
function shownLabel(text) {
  if (text === className(-1)) return -1;
  const [, index] = text.match(/^class (\d+)$/) ?? text.match(/ \((\d+)\)$/) ?? [];
  return index !== undefined && className(Number(index)) === text ? Number(index) : null;
}

/** Shows the class that somebody typed: its name, its index, both as the pages show them, or a part of its name that only it has. */
function chooseClass(state, text) {
  const names = about.overview.class_names;
  if (text.includes(SEPARATOR) && !names.includes(text)) return chooseClasses(state, text.split(SEPARATOR).map((part) => part.trim()).filter(Boolean));
  const to = (filter) => address({ ...state, first: 0, filter: { ...state.filter, class: "", label: "", ...filter } });
  const isExact = text === "" || names.includes(text) || /^-?\d+$/.test(text);
  if (isExact) return state.context.go(to({ class: text }));
  const shown = shownLabel(text);
  if (shown !== null) return state.context.go(to({ label: String(shown) }));
  const found = labelsWith(text);
  if (found.length === 1) return state.context.go(to({ label: String(found[0]) }));
  if (found.length === 0) return say(state, `No class has “${text}” in its name.`);
  const links = found.slice(0, CANDIDATES).map((label) => [" ", h("a", { href: to({ label: String(label) }) }, className(label))]);
  return say(state, `${count(found.length)} classes have “${text}” in their names:`, links, found.length > CANDIDATES ? " …" : "");
}

/** The labels that a text may mean. */
function labelsOf(text) {
  const names = about.overview.class_names;
  const exact = names.indexOf(text);
  if (exact >= 0) return [exact];
  const shown = shownLabel(text);
  if (shown !== null) return [shown];
  if (/^-?\d+$/.test(text)) return [Number(text)];
  return labelsWith(text);
}

/** The classes with a text in one of their names. */
function labelsWith(text) {
  const part = text.toLowerCase();
  const has = (name) => name?.toLowerCase().includes(part);
  const { class_names: names, readable_class_names: readable } = about.overview;
  const labels = Array.from({ length: Math.max(names.length, readable?.length ?? 0) }, (_, label) => label);
  return labels.filter((label) => has(names[label]) || has(readable?.[label]));
}

/** Shows the rows of several classes, each of which is typed so that only one is meant. */
function chooseClasses(state, texts) {
  const found = texts.map((text) => [text, labelsOf(text)]);
  const [text, labels] = found.find(([, labels]) => labels.length !== 1) ?? [null, []];
  if (text !== null && labels.length === 0) return say(state, `No class has “${text}” in its name.`);
  if (text !== null) return say(state, `${count(labels.length)} classes have “${text}” in their names: ${labels.slice(0, CANDIDATES).map(className).join(", ")}${labels.length > CANDIDATES ? " …" : ""}`);
  const label = [...new Set(found.map(([, [label]]) => label))].join(",");
  return state.context.go(address({ ...state, first: 0, filter: { ...state.filter, class: "", label } }));
}

/** Chooses what is shown, and shows what is chosen. */
function choices(state) {
  const { context, filter } = state;
  const every = async () => {
    if (filter.selected) return chosen.add(state.list);
    const { rows } = await get("api/row-numbers", filter, { signal: context.signal });
    return chosen.add(chosen.parse(rows));
  };
  const link = h("a", { href: "selection" });
  const only = h("a", {});
  const none = h("button", { type: "button", id: "select-none", onclick: () => chosen.replace([]) }, "Select none");
  const draw = () => {
    const number = chosen.size();
    link.textContent = number ? `${count(number)} selected` : "";
    none.toggleAttribute("hidden", number === 0);
    only.textContent = filter.selected ? "Show all" : number ? "Show these alone" : "";
    only.setAttribute("href", filter.selected ? "grid" : "grid?selected=1");
    [...state.cells.children].forEach((cell) => mark(cell, Number(cell.dataset.row)));
  };
  draw();
  chosen.onChange(draw, context.signal);
  const file = filter.selected
    ? h("button", { type: "button", onclick: async () => save("rows.csv", await sent("api/selection/rows", chosen.text(state.list))) }, "CSV")
    : h("a", { href: `api/rows?${new URLSearchParams([...asked(filter), ["format", "csv"]])}`, download: "" }, "CSV");
  return [h("button", { type: "button", id: "select-all", onclick: every }, "Select all of these"), none, link, only, h("span", { class: "downloads" }, file)];
}

/** The parameters of a filter that are set. */
const asked = (filter) => Object.entries(filter).filter(([, value]) => value !== "");

/** A click that chooses: a row, or with the shift key all from the last one on. */
async function choose(state, place, row, isRange) {
  const from = state.anchor ?? place;
  state.anchor = place;
  if (!isRange || from === place) return chosen.toggle(row);
  const [offset, limit] = [Math.min(from, place), Math.abs(from - place) + 1];
  if (state.filter.selected) return chosen.add(state.list.slice(offset, offset + limit));
  const { rows } = await get("api/row-numbers", { ...state.filter, offset, limit }, { signal: state.context.signal });
  return chosen.add(chosen.parse(rows));
}

function filters(state) {
  const { filter, context } = state;
  const { info, class_names: names, first_view: first, splits } = about.overview;
  const set = (name) => (event) => context.go(address({ ...state, first: 0, filter: { ...filter, [name]: event.target.value.trim() } }));
  const select = (name, label, options) => h("label", {}, label, h("select", { onchange: set(name) },
    h("option", { value: "" }, "all"), options.map(([value, text]) => h("option", { value, selected: String(value) === filter[name] }, text))));
  const list = h("datalist", { id: "class-names" }, names.slice(0, 2000).map((name, label) => h("option", { value: readableName(label) === undefined ? name : className(label) })));
  const shards = info.shards.map((shard, i) => [i, nearZero(i) === null ? shard.file : `${shard.file} (${count(nearZero(i))} bits near 0)`]);
  const classes = filter.label === "" ? filter.class : filter.label.split(",").map((label) => className(Number(label))).join(`${SEPARATOR} `);
  if (filter.selected) return h("div", { class: "bar" }, h("span", {}, `The ${counts(state.list.length, "row")} that ${state.list.length === 1 ? "is" : "are"} selected`));
  context.keys["/"] = () => document.getElementById("filter-key").focus();
  return h("div", { class: "bar" },
    h("label", {}, "Key", h("input", { id: "filter-key", value: filter.key, placeholder: "part of it", size: 22, onchange: set("key") })),
    h("label", {}, "Class", h("input", { id: "filter-class", value: classes, list: "class-names", placeholder: "name; another", title: "Names or indices of classes, with ; between them", size: 14, onchange: (event) => chooseClass(state, event.target.value.trim()) }), list),
    info.views > 1 && select("view", "View", Array.from({ length: info.views }, (_, i) => [first + i, first + i])),
    splits.length > 0 && select("split", "Split", splits.map(({ name }) => [name, name])),
    info.shards.length > 1 && select("shard", "Shard", shards),
    h("label", {}, "Code", h("input", { id: "filter-code", value: filter.code, inputmode: "numeric", placeholder: "any", title: "Rows in which this code occurs", size: 7, onchange: set("code") })),
    h("label", {}, "Order", h("select", { id: "sort", onchange: set("sort") }, ORDERS.map(([value, text]) => h("option", { value, selected: value === filter.sort }, text)))),
    filter.sort && h("button", { type: "button", id: "turn", title: "Turn the order around", onclick: () => context.go(address({ ...state, first: 0, filter: { ...filter, order: filter.order === "down" ? "" : "down" } })) }, filter.order === "down" ? "largest first" : "smallest first"),
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
    hasBeside() && h("span", { class: "soft" }, `On the right: ${about.overview.beside.dir}`),
    !hasPictures() && h("span", { class: "soft" }, "Tokens as colours; --tokenizer WEIGHTS shows pictures")];
}

/** Asks for some rows of the list. */
async function rowsOf(state, offset) {
  const { signal } = state.context;
  if (!state.filter.selected) return get("api/rows", { ...state.filter, offset, limit: PART }, { signal });
  const part = state.list.slice(offset, offset + PART);
  const { items } = part.length ? await get("api/rows", { rows: chosen.text(part), limit: PART }, { signal }) : { items: [] };
  return { total: state.list.length, items };
}

/** The part of the list that has place `start`. */
function part(state, start) {
  const number = Math.floor(start / PART);
  if (!state.parts.has(number)) {
    const found = rowsOf(state, number * PART);
    found.catch(() => state.parts.delete(number));
    state.parts.set(number, found);
    if (state.parts.size > PARTS_MAX) state.parts.delete(state.parts.keys().next().value);
  }
  return state.parts.get(number);
}

/** Pictures of a row, side by side: original, decoded, that of the other cache. */
const across = (state) => 1 + Number(state.both && hasSource()) + Number(hasBeside());

/** Sizes everything, and goes on showing what was shown. */
function layout(state) {
  const { scroller, spacer, cells } = state;
  const number = across(state);
  const between = 3 * (number - 1);
  state.columns = Math.max(1, Math.floor((scroller.clientWidth + GAP) / (number * state.size + between + 12 + GAP)));
  const width = (scroller.clientWidth - GAP * (state.columns - 1)) / state.columns;
  state.cellHeight = (width - 12 - between) / number + 12 + 18 + GAP;
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
  // A click with a key held chooses; a browser would open the row elsewhere.
  scroller.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell || !(event.shiftKey || event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    event.stopPropagation();
    choose(state, Number(cell.dataset.place), Number(cell.dataset.row), event.shiftKey);
  }, { signal: context.signal });
  scroller.addEventListener("scroll", scrolled, { signal: context.signal });
  scroller.addEventListener("wheel", wheel, { signal: context.signal, passive: false });
  addEventListener("resize", () => layout(state), { signal: context.signal });
  Object.assign(context.keys, {
    ArrowLeft: step(-1), ArrowRight: step(1), ArrowUp: () => step(-state.columns)(), ArrowDown: () => step(state.columns)(),
    PageUp: () => move(1 - state.linesShown), PageDown: () => move(state.linesShown - 1), Home: () => move(-state.lines), End: () => move(state.lines),
    x: async () => {
      const at = state.current ?? state.first;
      const found = (await part(state, at)).items[at % PART];
      if (found) await choose(state, at, found.row, false);
    },
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
      found.setAttribute("data-place", start + i);
      found.classList.toggle("current", start + i === state.current);
      mark(found, row.row);
      return found;
    }));
  } catch (error) {
    if (!state.context.signal.aborted) state.status.textContent = error.message;
  }
}

function cell(state, row, id, pair) {
  const isReadable = row.key !== null;
  const original = () => h("img", { src: picture("original", row.row), alt: "original", decoding: "async" });
  const number = { entropy: row.entropy?.toFixed(2), distance: row.class_distance?.toFixed(0) }[state.filter.sort];
  const under = h("div", { class: "under" }, h("span", {}, className(row.label)), h("span", {}, number ?? (row.flip ? `${count(row.row)} ⇋` : count(row.row))));
  const box = h("a", { class: "cell", href: `sample/${row.row}`, "data-id": id, "data-row": row.row, title: lines(row).join("\n") },
    h("div", { class: "pair" }, pair && isReadable && original(), rowImage(row, state.context.signal), hasBeside() && besideImage(row, state.context.signal)),
    tick(row.row, (event) => choose(state, Number(box.dataset.place), row.row, event.shiftKey)),
    row.damage && h("span", { class: "badge bad" }, "damaged"), under);
  return box;
}
