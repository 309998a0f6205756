// Rows that are another's, nearly another's, or in the wrong class.

import { className, get, hasPictures, picture } from "./api.js";
import { counted } from "./counting.js";
import { count, figure, h, pager, percent } from "./dom.js";

const LIMIT = 20;
const KINDS = { exact: "Duplicates", near: "Near-duplicates", labels: "Labels" };

export async function show(context) {
  const { main, query, signal, remember } = context;
  const { figures } = await counted("Duplicates", context);
  const kind = KINDS[query.get("kind")] ? query.get("kind") : "exact";
  const numbers = { exact: figures.duplicates.rows + figures.duplicates.rows_within_image, near: figures.near_duplicates.pairs, labels: figures.label_conflicts.images };
  const tab = ([name, text]) => h("a", { href: `duplicates?kind=${name}`, "aria-current": name === kind ? "page" : null }, `${text} `, h("span", { class: `badge ${numbers[name] ? "bad" : ""}` }, count(numbers[name])));
  const box = h("div");
  const fill = async (offset) => {
    const { address, item, parameters = {} } = LISTS[kind];
    const found = await get(address, { ...parameters, offset, limit: LIMIT }, { signal });
    remember(`duplicates?${new URLSearchParams({ kind, offset })}`);
    box.replaceChildren(found.items.length ? h("div", {}, found.items.map((entry) => item(entry, found))) : h("p", { class: "soft" }, "None."), pager(offset, LIMIT, found.total, fill) ?? "");
  };
  await fill(Number(query.get("offset")) || 0);
  main.replaceChildren(h("h1", {}, "Duplicates"), h("div", { class: "tabs" }, Object.entries(KINDS).map(tab)),
    figure(KINDS[kind], box, [["CSV", `${LISTS[kind].address}?format=csv`], ["JSON", `${LISTS[kind].address}?limit=1000`]], hint(kind, figures)));
}

function hint(kind, { duplicates, near_duplicates: near, label_conflicts: labels }) {
  if (kind === "exact") return `${count(duplicates.rows)} rows have the grid of another image, ${count(duplicates.rows_within_image)} that of another view of the same image.`;
  if (kind === "near") return `Pairs of images whose first views have the same token at half of all positions or more, the nearest pair first.${near.is_cut_short ? " There may be more: only some of the pairs were compared." : ""}`;
  return labels.compared ? `${count(labels.compared)} images lie in a folder with the name of a class; these have another label.` : "No image lies in a folder with the name of a class of the cache, so labels cannot be compared.";
}

const image = ({ row }) => (hasPictures() ? h("a", { href: `sample/${row}` }, h("img", { class: "picture", src: picture("decoded", row), alt: `row ${row}`, loading: "lazy" })) : h("span"));
const words = (entry) => h("div", {}, h("a", { href: `sample/${entry.row}` }, `row ${count(entry.row)}`), h("div", { class: "mono" }, entry.key), h("div", { class: "soft" }, `${className(entry.label)}, view ${entry.view}`));
const pair = ({ first, row }, more) => h("div", { class: "pair-row" }, image(first), words(first), image(row), words(row), h("div", { class: "number soft" }, more));

const LISTS = {
  exact: { address: "api/duplicates", item: (entry) => pair(entry, entry.same_image ? "same image" : first(entry) ? "other label" : "") },
  near: { address: "api/near-duplicates", item: (entry, { tokens, bits }) => pair(entry, [h("div", {}, `${percent(entry.equal_tokens / tokens, 0)} of the tokens`), h("div", {}, `${percent(entry.equal_bits / bits, 1)} of the bits`), first(entry) ? h("div", { class: "bad-text" }, "other label") : null]) },
  labels: {
    address: "api/label-conflicts",
    item: (entry) => h("div", { class: "pair-row" }, image(entry), words(entry), h("span"), h("div", {}, `the folder has the name of ${className(entry.folder)}`), h("span")),
  },
};

/** Whether a pair has two labels. */
function first({ first: one, row: other }) {
  return one.label !== other.label;
}
