// Inputs that have no rows.

import { get } from "./api.js";
import { count, counts, figure, h, pager } from "./dom.js";

const LIMIT = 50;

export async function show({ main, query, signal, remember }) {
  const box = h("div");
  const line = ({ index, key, stage, reason }) => h("tr", {}, h("td", { class: "number" }, count(index)), h("td", { class: "mono" }, key), h("td", {}, stage), h("td", {}, reason));
  const fill = async (offset) => {
    const { items, total } = await get("api/quarantine", { offset, limit: LIMIT }, { signal });
    remember(offset ? `quarantine?offset=${offset}` : "quarantine");
    const table = () => h("table", {}, h("tr", {}, h("th", { class: "number" }, "Input"), h("th", {}, "Key"), h("th", {}, "Stage"), h("th", {}, "Reason")), items.map(line));
    box.replaceChildren(total ? table() : h("p", { class: "soft" }, "Every input was encoded."), pager(offset, LIMIT, total, fill) ?? "");
    return total;
  };
  const total = await fill(Number(query.get("offset")) || 0);
  main.replaceChildren(h("h1", {}, "Quarantine"), h("p", { class: "lead" }, `${counts(total, "input")} could not be decoded and ${total === 1 ? "has" : "have"} no rows.`),
    figure("Inputs without rows", box, total ? [["CSV", "api/quarantine?format=csv"], ["JSON", "api/quarantine?limit=1000"]] : []));
}
