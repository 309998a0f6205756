// The classes: sizes, entropies, mean pictures.

import { get, hasPictures, picture } from "./api.js";
import { bars } from "./charts.js";
import { counted } from "./counting.js";
import { chartFiles, count, counts, figure, h, pager } from "./dom.js";

const LIMIT = 50;
const CHART = 1000;

export async function show(context) {
  const { main, query, signal, remember } = context;
  await counted("Classes", context);
  let sort = query.get("sort") ?? "label";
  const all = await get("api/classes", { sort: "rows", limit: CHART }, { signal });
  const box = h("div");
  const fill = async (offset) => {
    const { items, total } = await get("api/classes", { sort, offset, limit: LIMIT }, { signal });
    remember(`classes?${new URLSearchParams({ sort, offset })}`);
    const by = (name, text, kind = "") => h("th", { class: kind }, h("button", { type: "button", "aria-pressed": String(sort === name), onclick: () => order(name) }, text));
    box.replaceChildren(
      h("table", {}, h("tr", {}, hasPictures() && h("th", { class: "tight" }, "Mean"), by("label", "Class", "number tight"), by("name", "Name"), by("rows", "Rows", "number"), h("th", { class: "number" }, "Codes"), by("entropy", "Entropy, bits", "number")), items.map(line)),
      pager(offset, LIMIT, total, fill) ?? "");
  };
  const order = (name) => {
    sort = name;
    return fill(0);
  };
  const words = [counts(all.total, "class", "classes"), all.empty && `${count(all.empty)} of them without rows`, all.unlabelled_rows && `${counts(all.unlabelled_rows, "row")} without a class`].filter(Boolean);
  main.replaceChildren(h("h1", {}, "Classes"), h("p", { class: "lead" }, `${words.join(", ")}.`), h("div", { class: "cards" }, sizes(all.items), entropies(all.items)),
    figure("All classes", box, [["CSV", "api/classes?format=csv"], ["JSON", "api/classes?limit=1000"]],
      "Entropy: of the codes in the class's rows, in bits per token. A class with few tokens has a low entropy for that reason alone. Mean: of up to 16 pictures, taken evenly from the class."));
  await fill(Number(query.get("offset")) || 0);
}

const line = ({ label, name, class_name: readable, rows, distinct_codes: codes, code_entropy_bits: entropy }) => h("tr", {},
  hasPictures() && h("td", {}, rows > 0 && h("img", { class: "small", src: picture("class", label), alt: `mean of class ${label}`, loading: "lazy" })),
  h("td", { class: "number" }, label), h("td", {}, h("a", { href: `grid?label=${label}` }, readable ?? name ?? `class ${label}`), readable && name ? h("span", { class: "soft mono" }, ` ${name}`) : null),
  h("td", { class: "number" }, count(rows)), h("td", { class: "number" }, count(codes)), h("td", { class: "number" }, entropy.toFixed(2)));

function sizes(items) {
  const rows = items.map(({ label, name, rows }) => ({ label, name, rows }));
  const chart = bars(items.map((item) => item.rows), { x: "class index, the largest class first", y: "rows", names: (i) => items[i].label, titles: (i) => `${items[i].class_name ?? items[i].name ?? items[i].label}: ${count(items[i].rows)} rows`, marks: (i) => items[i].rows === 0, link: (i) => `grid?label=${items[i].label}` });
  return figure("Rows per class", chart, chartFiles("class-rows", rows, chart, ["label", "name", "rows"]));
}

function entropies(items) {
  const sorted = items.filter((item) => item.rows > 0).sort((a, b) => a.code_entropy_bits - b.code_entropy_bits);
  const rows = sorted.map(({ label, name, code_entropy_bits: entropy }) => ({ label, name, entropy }));
  const chart = bars(sorted.map((item) => item.code_entropy_bits), { x: "class index, the lowest entropy first", y: "bits per token", names: (i) => sorted[i].label, titles: (i) => `${sorted[i].class_name ?? sorted[i].name ?? sorted[i].label}: ${sorted[i].code_entropy_bits.toFixed(2)} bits`, link: (i) => `grid?label=${sorted[i].label}` });
  return figure("Entropy per class", chart, chartFiles("class-entropy", rows, chart, ["label", "name", "entropy"]));
}
