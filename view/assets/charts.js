// Charts as SVG: bars, a curve, a matrix.

import { count, s } from "./dom.js";

const WIDTH = 560;
const LEFT = 80;
const BOTTOM = 38;

/** Numbers for an axis from 0 to about `most`. */
function ticks(most) {
  const step = 10 ** Math.floor(Math.log10(most || 1));
  const size = [0.1, 0.2, 0.5, 1, 2, 5].map((factor) => factor * step).find((size) => most / size <= 5) ?? step;
  return Array.from({ length: Math.floor(most / size + 1e-9) + 1 }, (_, i) => i * size);
}

/** A number at an axis: as everywhere up to a million, then in millions (M) and billions (G), for which there is room. */
const short = (number) =>
  number >= 1e9 ? `${+(number / 1e9).toPrecision(3)} G` : number >= 1e6 ? `${+(number / 1e6).toPrecision(3)} M` : number >= 1000 ? count(Math.round(number)) : `${+number.toPrecision(4)}`;

/** An empty chart with what its axes count, units included. */
function frame(height, xLabel, yLabel) {
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${height}`, role: "img" });
  chart.append(s("text", { x: (LEFT + WIDTH) / 2, y: height - 3, "text-anchor": "middle" }, xLabel));
  chart.append(upright(yLabel, (height - BOTTOM) / 2 + 5));
  return chart;
}

/** A label beside the y axis, read from below. */
const upright = (text, middle) => s("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(11 ${middle}) rotate(-90)` }, text);

function rule(chart, y, text) {
  chart.append(
    s("line", { x1: LEFT, x2: WIDTH, y1: y, y2: y, style: { stroke: "var(--line)" } }),
    s("text", { x: LEFT - 7, y: y + 4, "text-anchor": "end" }, text));
}

/**
 * One bar per value. `x` and `y` say what the axes count; `names(i)` is below some bars, `titles(i)` is shown by the mouse;
 * `marks(i)` colours one in warning; `link(i)` is where a click leads.
 */
export function bars(values, { x: xLabel, y: yLabel, names, titles, marks = () => false, top = null, height = 210, line = null, link = null }) {
  const chart = frame(height, xLabel, yLabel);
  const most = top ?? Math.max(...values, 0) * 1.04;
  const [plot, base] = [height - BOTTOM - 10, height - BOTTOM];
  const y = (value) => base - (most > 0 ? (value / most) * plot : 0);
  ticks(most).forEach((tick) => rule(chart, y(tick), short(tick)));
  const step = (WIDTH - LEFT) / Math.max(values.length, 1);
  const gap = Math.min(step * 0.18, 3);
  values.forEach((value, i) => {
    const colour = marks(i) ? "var(--bad)" : "var(--accent)";
    // A bar is at least visible, or somebody would think it is not there.
    const high = value > 0 ? Math.max(base - y(value), 0.8) : 0;
    const bar = s("rect", { x: LEFT + i * step + gap / 2, y: base - high, width: Math.max(step - gap, 0.5), height: high, style: { fill: colour } });
    const area = s("rect", { x: LEFT + i * step, y: 10, width: step, height: plot, style: { fill: "transparent" } }, s("title", {}, titles(i)));
    const both = [bar, area];
    chart.append(link ? s("a", { href: link(i) }, both) : s("g", {}, both));
  });
  const every = Math.max(1, Math.ceil(values.length / 18));
  values.forEach((_, i) => {
    if (i % every === 0) chart.append(s("text", { x: LEFT + (i + 0.5) * step, y: base + 16, "text-anchor": "middle" }, names(i)));
  });
  if (line !== null) chart.append(s("line", { x1: LEFT, x2: WIDTH, y1: y(line), y2: y(line), "stroke-dasharray": "3 4", style: { stroke: "var(--soft)" } }));
  return chart;
}

/** Points (x, y), both from 1 on, on logarithmic axes. */
export function logCurve(points, { x: xLabel, y: yLabel, height = 210 }) {
  const chart = frame(height, xLabel, yLabel);
  if (points.length === 0) return chart;
  const base = height - BOTTOM;
  const [xMost, yMost] = [0, 1].map((axis) => Math.max(...points.map((point) => Math.log10(point[axis])), 0.3));
  const x = (value) => LEFT + (Math.log10(value) / xMost) * (WIDTH - LEFT - 8);
  const y = (value) => base - (Math.log10(value) / yMost) * (base - 10);
  for (let power = 0; power <= yMost; power += 1) rule(chart, y(10 ** power), short(10 ** power));
  for (let power = 0; power <= xMost; power += 1) chart.append(s("text", { x: x(10 ** power), y: base + 15, "text-anchor": "middle" }, short(10 ** power)));
  const path = points.map((point, i) => `${i === 0 ? "M" : "L"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
  chart.append(s("path", { d: path, "stroke-width": 2, style: { stroke: "var(--accent)", fill: "none" } }));
  points.forEach((point, i) => {
    if (i % Math.ceil(points.length / 40) === 0) chart.append(s("circle", { cx: x(point[0]), cy: y(point[1]), r: 5, style: { fill: "transparent" } }, s("title", {}, `${count(point[0])}: ${count(point[1])}`)));
  });
  return chart;
}

/** A square matrix of values from -1 to 1; `null` is shown as absent. */
export function matrix(values, { title }) {
  const bits = values.length;
  const size = Math.min(28, Math.floor((WIDTH - 40) / bits));
  const [left, top] = [(WIDTH - size * bits) / 2, 18];
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${top + size * bits + 30}`, role: "img" });
  values.forEach((row, i) => {
    chart.append(
      s("text", { x: left - 6, y: top + (i + 0.5) * size + 4, "text-anchor": "end" }, i),
      s("text", { x: left + (i + 0.5) * size, y: top - 6, "text-anchor": "middle" }, i));
    row.forEach((value, j) => {
      const strength = value === null ? 0 : Math.min(1, Math.abs(value));
      const colour = value === null ? "var(--line)" : `color-mix(in srgb, ${value < 0 ? "var(--warm)" : "var(--accent)"} ${(100 * Math.sqrt(strength)).toFixed(0)}%, var(--faint))`;
      chart.append(s("rect", { x: left + j * size + 0.5, y: top + i * size + 0.5, width: size - 1, height: size - 1, rx: 2, style: { fill: colour } }, s("title", {}, title(i, j, value))));
    });
  });
  chart.append(s("text", { x: WIDTH / 2, y: top + size * bits + 22, "text-anchor": "middle" }, "bit (blue: positive correlation, orange: negative)"));
  chart.append(s("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(${Math.max(11, left - 34)} ${top + (size * bits) / 2}) rotate(-90)` }, "bit"));
  return chart;
}
