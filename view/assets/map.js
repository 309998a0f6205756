// The map: every row as a point, similar grids near each other.

import { about, className, get, numbers } from "./api.js";
import * as chosen from "./chosen.js";
import { surveyed } from "./counting.js";
import { count, counts, h } from "./dom.js";
import { NONE, painter } from "./points.js";
import { image } from "./shelf.js";

export const isWide = true;

/** More points than that are drawn every second, every third one... A line around points finds the others as well. */
const POINTS_MAX = 2_000_000;
/** Fewer are not drawn, however long they take. */
const POINTS_MIN = 5000;
/** The least frames per second while the map is moved. */
const FRAMES = 30;
/** Corners of a line that is drawn by hand; the server takes more. */
const CORNERS_MAX = 2000;

export async function show(context) {
  const { rows } = await surveyed("Map", context);
  const { main, query, signal } = context;
  if (rows === 0) return main.replaceChildren(h("h1", {}, "Map"), h("p", { class: "soft" }, "The cache has no rows."));
  const step = Math.ceil(rows / POINTS_MAX);
  const points = shuffled(await numbers(`api/map/points?step=${step}`, signal), step);
  const canvas = h("canvas", { class: "map", tabindex: 0, "aria-label": "Rows as points" });
  const line = h("canvas", { class: "map line" });
  const card = h("div", { class: "card tip", hidden: true });
  const box = h("div", { class: "map-box" }, canvas, line, card);
  const number = (name, otherwise) => (query.get(name) === null ? otherwise : Number(query.get(name)));
  const view = { x: number("x", 0.5), y: number("y", 0.5), zoom: number("zoom", 1), size: number("size", rows > 200_000 ? 2 : rows > 20_000 ? 3 : 5), only: number("only", NONE) };
  const state = { context, view, points, step, rows, canvas, line, card, box, isLasso: false, flags: new Uint8Array(points.count) };
  main.replaceChildren(controls(state), box);
  state.painter = painter(canvas, points.data);
  state.budget = points.count;
  const flag = () => {
    const { flags } = state;
    for (let i = 0; i < flags.length; i += 1) flags[i] = chosen.has(points.rows[i]) ? 1 : 0;
    state.painter.choose(flags);
    redraw(state);
  };
  chosen.onChange(flag, signal);
  flag();
  listen(state);
  resize(state);
  return undefined;
}

/** Points in a random order, so that the first ones are a picture of all: that is what is drawn while there is no time for more. */
function shuffled(buffer, step) {
  const count = Math.floor(buffer.byteLength / 8);
  const words = new Uint32Array(buffer, 0, 2 * count);
  const rows = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) rows[i] = i * step;
  let seed = 0x2545f491;
  for (let i = count - 1; i > 0; i -= 1) {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    const j = (seed >>> 0) % (i + 1);
    const [place, label, row] = [words[2 * i], words[2 * i + 1], rows[i]];
    words[2 * i] = words[2 * j];
    words[2 * i + 1] = words[2 * j + 1];
    rows[i] = rows[j];
    words[2 * j] = place;
    words[2 * j + 1] = label;
    rows[j] = row;
  }
  return { count, rows, data: new Uint8Array(buffer, 0, 8 * count), places: new Uint16Array(buffer, 0, 4 * count), labels: new Int32Array(buffer, 0, 2 * count) };
}

function controls(state) {
  const { view, rows, step, points, context } = state;
  const highest = Math.max(about.overview.class_names.length, about.overview.readable_class_names?.length ?? 0, about.overview.classes.all ?? 0);
  const labels = Array.from({ length: Math.min(highest, 5000) }, (_, label) => label);
  const only = (event) => {
    view.only = event.target.value === "" ? NONE : Number(event.target.value);
    redraw(state);
  };
  const size = (event) => {
    view.size = Number(event.target.value);
    redraw(state);
  };
  const lasso = h("button", { type: "button", id: "lasso", "aria-pressed": "false", title: "Draw a line around points; also by dragging with the shift key", onclick: () => setLasso(state, !state.isLasso) }, "Lasso");
  state.lassoButton = lasso;
  const whole = () => {
    Object.assign(view, { x: 0.5, y: 0.5, zoom: 1 });
    redraw(state);
  };
  const link = h("a", { href: "selection" });
  const none = h("button", { type: "button", onclick: () => chosen.replace([]) }, "Select none");
  const draw = () => {
    link.textContent = chosen.size() ? `${count(chosen.size())} selected` : "";
    none.toggleAttribute("hidden", chosen.size() === 0);
  };
  draw();
  chosen.onChange(draw, context.signal);
  Object.assign(context.keys, { l: () => setLasso(state, !state.isLasso), Home: whole, "+": () => zoomAt(state, 1.5), "-": () => zoomAt(state, 1 / 1.5) });
  const words = step === 1 ? counts(rows, "row") : `${count(points.count)} of ${counts(rows, "row")} are drawn; a line selects all of them`;
  return h("div", { class: "bar" }, h("h1", {}, "Map"), h("span", { class: "soft", role: "status" }, words),
    h("label", {}, "Class", h("select", { id: "only", onchange: only }, h("option", { value: "" }, "all, by colour"), labels.map((label) => h("option", { value: label, selected: label === view.only }, className(label))))),
    h("label", {}, "Points", h("input", { type: "range", min: 1, max: 12, value: view.size, oninput: size })),
    lasso, h("button", { type: "button", onclick: whole }, "Whole map"), none, link);
}

function setLasso(state, is) {
  state.isLasso = is;
  state.lassoButton.setAttribute("aria-pressed", String(is));
  state.box.classList.toggle("lasso", is);
}

/** Pixels per unit of the map, which is one by one. */
const scale = ({ canvas, view }) => Math.min(canvas.width, canvas.height) * view.zoom;

function resize(state) {
  const { width, height } = state.box.getBoundingClientRect();
  for (const canvas of [state.canvas, state.line]) {
    canvas.width = Math.max(1, Math.round(width * devicePixelRatio));
    canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
  }
  redraw(state);
}

/** Draws in the next frame. While frames come too slowly, only as many points as there is time for; then all of them. */
function redraw(state, isMoving = false) {
  state.isMoving = isMoving;
  if (state.isAsked) return;
  state.isAsked = true;
  requestAnimationFrame(() => {
    state.isAsked = false;
    if (state.context.signal.aborted) return;
    const { view, points } = state;
    const number = state.isMoving ? Math.ceil(state.budget) : points.count;
    const began = performance.now();
    state.painter.draw({ ...view, scale: scale(state), size: view.size * devicePixelRatio }, number);
    if (state.isMoving) {
      state.painter.finish();
      adapt(state, performance.now() - began);
    }
    clearTimeout(state.rest);
    if (state.isMoving) state.rest = setTimeout(() => redraw(state), 180);
    else remember(state);
  });
}

/** As many points as there is time for, of which drawing may take two thirds. */
function adapt(state, took) {
  const most = 670 / FRAMES;
  if (took > most) state.budget = Math.max(POINTS_MIN, state.budget * Math.max(0.1, most / took));
  else if (took < most / 2) state.budget = Math.min(state.points.count, state.budget * 1.3);
}

function remember({ context, view }) {
  const short = (value) => String(Number(value.toPrecision(6)));
  const parts = { x: short(view.x), y: short(view.y), zoom: short(view.zoom), ...(view.only === NONE ? {} : { only: view.only }) };
  const isWhole = view.x === 0.5 && view.y === 0.5 && view.zoom === 1 && view.only === NONE;
  context.remember(isWhole ? "map" : `map?${new URLSearchParams(parts)}`);
}

/** A place on the screen as one on the map. */
function toMap(state, event) {
  const area = state.box.getBoundingClientRect();
  const [dx, dy] = [event.clientX - area.left - area.width / 2, event.clientY - area.top - area.height / 2];
  const unit = scale(state) / devicePixelRatio;
  return [state.view.x + dx / unit, state.view.y + dy / unit];
}

function zoomAt(state, factor, place = [state.view.x, state.view.y]) {
  const { view } = state;
  const zoom = Math.max(0.5, Math.min(5000, view.zoom * factor));
  const kept = view.zoom / zoom;
  view.x = place[0] + (view.x - place[0]) * kept;
  view.y = place[1] + (view.y - place[1]) * kept;
  view.zoom = zoom;
  redraw(state, true);
}

function listen(state) {
  const { box, view, context } = state;
  const options = { signal: context.signal };
  box.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomAt(state, Math.exp(-event.deltaY / 400), toMap(state, event));
  }, { ...options, passive: false });
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || state.card.contains?.(event.target)) return;
    box.setPointerCapture(event.pointerId);
    clearTimeout(state.hovering);
    state.card.hidden = true;
    state.drag = { at: [event.clientX, event.clientY], far: 0, corners: state.isLasso || event.shiftKey ? [toMap(state, event)] : null, isRemoved: event.altKey };
  }, options);
  box.addEventListener("pointermove", (event) => {
    const { drag } = state;
    if (!drag) return hover(state, event);
    const [dx, dy] = [event.clientX - drag.at[0], event.clientY - drag.at[1]];
    drag.far += Math.abs(dx) + Math.abs(dy);
    drag.at = [event.clientX, event.clientY];
    if (drag.corners) {
      drag.corners.push(toMap(state, event));
      return drawLine(state, drag.corners);
    }
    const unit = scale(state) / devicePixelRatio;
    view.x -= dx / unit;
    view.y -= dy / unit;
    return redraw(state, true);
  }, options);
  box.addEventListener("pointerup", (event) => {
    const { drag } = state;
    state.drag = null;
    if (!drag) return;
    if (drag.corners?.length > 2 && drag.far > 8) lasso(state, drag.corners.map(([x, y]) => [x * 65535, y * 65535]), drag.isRemoved);
    else if (drag.far < 4) open(state, event);
    drawLine(state, []);
  }, options);
  box.addEventListener("pointerleave", () => { state.card.hidden = true; }, options);
  addEventListener("resize", () => resize(state), options);
  // For tests, which have no pointer.
  globalThis.mapForTests = { lasso: (corners) => lasso(state, corners, false), state, redraw };
}

function drawLine({ line, view, canvas }, corners) {
  const context = line.getContext("2d");
  context.clearRect(0, 0, line.width, line.height);
  if (corners.length < 2) return;
  const unit = scale({ canvas, view });
  context.beginPath();
  corners.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"]((x - view.x) * unit + line.width / 2, (y - view.y) * unit + line.height / 2));
  context.closePath();
  context.strokeStyle = "#c2571a";
  context.fillStyle = "rgb(194 87 26 / .1)";
  context.lineWidth = 2;
  context.fill();
  context.stroke();
}

/** Selects the rows inside a line, or gives them up. */
async function lasso(state, corners, isRemoved) {
  const every = Math.ceil(corners.length / CORNERS_MAX);
  const body = JSON.stringify({ corners: corners.filter((_, i) => i % every === 0) });
  const { rows } = await get("api/map/lasso", {}, { method: "POST", body, signal: state.context.signal });
  if (isRemoved) chosen.remove(chosen.parse(rows));
  else chosen.add(chosen.parse(rows));
}

/** The point nearest to the pointer, if one is near. */
function nearest(state, event) {
  const { points } = state;
  const { places, count: all } = points;
  const [x, y] = toMap(state, event).map((value) => value * 65535);
  const reach = ((8 * devicePixelRatio) / scale(state)) * 65535;
  let best = null;
  let least = reach * reach;
  for (let i = 0; i < all; i += 1) {
    const dx = places[4 * i] - x;
    const dy = places[4 * i + 1] - y;
    const far = dx * dx + dy * dy;
    if (far < least) {
      best = i;
      least = far;
    }
  }
  return best;
}

/** Shows the row under the pointer, once the pointer rests. */
function hover(state, event) {
  clearTimeout(state.hovering);
  state.hovering = setTimeout(async () => {
    const found = nearest(state, event);
    state.card.hidden = found === null;
    if (found === null || found === state.shown) return;
    state.shown = found;
    const row = rowAt(state, found);
    const { items } = await get("api/rows", { rows: row }, { signal: state.context.signal });
    if (state.shown !== found || items.length === 0) return;
    const area = state.box.getBoundingClientRect();
    const [left, top] = [event.clientX - area.left, event.clientY - area.top];
    Object.assign(state.card.style, { left: `${Math.min(left + 16, area.width - 190)}px`, top: `${Math.min(top + 16, area.height - 230)}px` });
    state.card.replaceChildren(h("div", { class: "pair" }, image(items[0], state.context.signal)), h("div", {}, className(items[0].label)), h("div", { class: "soft mono" }, items[0].key ?? ""), h("div", { class: "soft" }, `row ${count(row)}`));
  }, 60);
}

const rowAt = (state, place) => state.points.rows[place];

function open(state, event) {
  const found = nearest(state, event);
  if (found !== null) state.context.go(`sample/${rowAt(state, found)}`);
}
