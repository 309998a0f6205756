// Rows as pictures in a page, with the box that chooses them.

import { about, besidePicture, className, get, hasPictures, picture } from "./api.js";
import * as chosen from "./chosen.js";
import { count, h } from "./dom.js";
import { canvas, colour } from "./tokens.js";

/** The box in a corner of a row's picture. `choose(event)` is what a click does. */
export function tick(row, choose) {
  const click = (event) => {
    // The box lies in a link to the row.
    event.preventDefault();
    event.stopPropagation();
    choose(event);
  };
  return h("button", { type: "button", class: "tick", "aria-pressed": String(chosen.has(row)), "aria-label": `Select row ${row}`, title: "Select (x); with the shift key, all up to here", onclick: click }, "✓");
}

/** Shows whether a row is chosen. */
export function mark(cell, row) {
  const is = chosen.has(row);
  cell.classList.toggle("chosen", is);
  cell.querySelector(".tick")?.setAttribute("aria-pressed", String(is));
}

/** What is known of a row, for a tooltip. */
export const lines = (row) => [`row ${count(row.row)}`, row.key, `${className(row.label)}${row.key === null ? "" : `, view ${row.view}`}`, row.entropy !== undefined && `entropy ${row.entropy.toFixed(2)} bits per token, ${row.class_distance.toFixed(0)} bits from its class's mean`, row.damage].filter(Boolean);

/** A row's picture: decoded, as colours where there is no tokenizer, or why there is none. */
export function image(row, signal) {
  if (row.key === null) return h("span", { class: "missing" }, "damaged");
  if (hasPictures()) return h("img", { src: picture("decoded", row.row), alt: "decoded", decoding: "async", loading: "lazy" });
  const box = h("canvas", { width: 1, height: 1 });
  get(`api/row/${row.row}`, {}, { signal }).then(({ tokens }) => box.replaceWith(canvas(tokens, colour))).catch(() => {});
  return box;
}

/** The row of the other cache that goes with a row. */
export function besideImage(row, signal) {
  const { beside } = about.overview;
  if (row.beside === null || row.beside === undefined) return h("span", { class: "missing" }, "not there");
  if (beside.pictures !== null) return h("img", { src: besidePicture("decoded", row.beside), alt: "of the other cache", decoding: "async", loading: "lazy" });
  const box = h("canvas", { width: 1, height: 1 });
  get(`beside/api/row/${row.beside}`, {}, { signal }).then(({ tokens }) => box.replaceWith(canvas(tokens, colour))).catch(() => {});
  return box;
}

/** Rows side by side, in lines; `below(row)` is what stands under a picture. */
export function shelf(rows, signal, below) {
  const cells = rows.map((row) => {
    const cell = h("a", { class: "cell", href: `sample/${row.row}`, title: lines(row).join("\n") },
      h("div", { class: "pair" }, image(row, signal)), tick(row.row, () => chosen.toggle(row.row)),
      row.damage && h("span", { class: "badge bad" }, "damaged"), h("div", { class: "under" }, below(row)));
    mark(cell, row.row);
    return cell;
  });
  chosen.onChange(() => cells.forEach((cell, i) => mark(cell, rows[i].row)), signal);
  return h("div", { class: "shelf" }, cells);
}
