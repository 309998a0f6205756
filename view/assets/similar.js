// Rows that are similar to one.

import { className, get } from "./api.js";
import * as chosen from "./chosen.js";
import { count, counts, figure, h, pager, percent } from "./dom.js";
import { image, shelf } from "./shelf.js";

const LIMIT = 60;
/** As many as the server names. */
const ALL = 1000;

export async function show({ main, path, query, signal, remember }) {
  const row = path[0] ?? "0";
  const [found, first] = await Promise.all([get(`api/row/${row}`, {}, { signal }), get(`api/similar/${row}`, { limit: LIMIT, offset: query.get("offset") ?? 0 }, { signal })]);
  const box = h("div");
  const under = (near) => [h("span", {}, className(near.label)), h("span", { title: `${percent(near.distance / first.bits, 1)} of ${count(first.bits)} bits differ` }, count(near.distance))];
  const draw = (part) => box.replaceChildren(
    part.items.length ? shelf(part.items, signal, under) : h("p", { class: "soft" }, "There is no other row."),
    pager(part.offset, LIMIT, part.total, async (offset) => {
      draw(await get(`api/similar/${row}`, { limit: LIMIT, offset }, { signal }));
      remember(`similar/${row}?offset=${offset}`);
    }) ?? "");
  draw(first);
  main.replaceChildren(
    h("h1", {}, `Similar to row ${count(found.row)}`),
    h("div", { class: "bar" }, h("a", { class: "cell query", href: `sample/${found.row}` }, h("div", { class: "pair" }, image(found, signal))),
      h("div", {}, h("div", { class: "mono" }, found.key), h("div", { class: "soft" }, `${className(found.label)}, view ${found.view}`), within(row, first, signal))),
    figure("Nearest rows", box, [["CSV", `api/similar/${row}?format=csv`], ["JSON", `api/similar/${row}?limit=${ALL}`]],
      `The number under a picture says how many of the grid's ${count(first.bits)} bits differ (Hamming distance). Every row was compared. Grids that have nothing to do with each other differ in about half of their bits: ${count(Math.round(first.bits / 2))}.`));
}

/** Chooses all rows up to a distance. */
function within(row, { bits }, signal) {
  const distance = h("input", { type: "number", id: "within", min: 0, max: bits, value: Math.round(bits / 10), size: 6 });
  const words = h("span", { class: "soft", role: "status" });
  const choose = async () => {
    const { items, total } = await get(`api/similar/${row}`, { limit: ALL }, { signal });
    const near = items.filter((item) => item.distance <= Number(distance.value));
    chosen.add([Number(row), ...near.map((item) => item.row)]);
    words.textContent = `${counts(near.length, "similar row")} and the row itself selected.${near.length === total && total > 0 ? " There may be more: only the nearest are listed." : ""}`;
  };
  return h("p", {}, h("label", {}, "Bits that differ, at most", distance), " ", h("button", { type: "button", id: "select-similar", onclick: choose }, "Select"), " ", words);
}
