// The rows that were chosen: what they are, and what can be made of them.

import { about, className, get, sent } from "./api.js";
import * as chosen from "./chosen.js";
import { count, counts, figure, h, pager, save } from "./dom.js";
import { shelf } from "./shelf.js";

const LIMIT = 60;
/** Longer lists do not become part of the address. */
const ADDRESS_MAX = 1500;

export async function show(context) {
  const { main, query, signal, remember } = context;
  if (query.get("rows")) chosen.replace(chosen.parse(query.get("rows")));
  const box = h("div");
  const lead = h("p", { class: "lead" });
  const fill = async (offset) => {
    const list = chosen.list();
    const written = chosen.text(list);
    const { views } = about.overview.info;
    const images = new Set(list.map((row) => Math.floor(row / views))).size;
    lead.textContent = list.length === 0 ? "No row is selected. Select rows in the grid, on the map, or among rows that are similar to one." : `${counts(list.length, "row")}${views > 1 ? ` of ${counts(images, "image")}` : ""}. The selection is kept until this browser window is closed${written.length <= ADDRESS_MAX ? ", and is part of the address of this page" : ""}.`;
    if (written.length <= ADDRESS_MAX) remember(written ? `selection?rows=${written}` : "selection");
    else remember("selection");
    if (list.length === 0) return box.replaceChildren();
    const part = list.slice(offset, offset + LIMIT);
    const { items } = await get("api/rows", { rows: chosen.text(part), limit: LIMIT }, { signal });
    const under = (row) => [h("span", {}, className(row.label)), h("span", {}, count(row.row))];
    return box.replaceChildren(shelf(items, signal, under), pager(offset, LIMIT, list.length, fill) ?? "");
  };
  const clear = () => {
    chosen.replace([]);
    return context.go("selection");
  };
  await fill(0);
  main.replaceChildren(h("h1", {}, "Selection"), lead,
    chosen.size() > 0 && h("div", { class: "cards" }, files(), subset(signal)) || "",
    figure("Rows", [h("div", { class: "bar" }, h("a", { href: "grid?selected=1" }, "Show in the grid"), h("button", { type: "button", id: "clear", onclick: clear }, "Select none")), box]));
}

const body = () => chosen.text(chosen.list());

function files() {
  const saved = (name, path) => [name, async () => save(name, await sent(path, body()))];
  const words = [
    h("p", {}, h("b", {}, "keys.txt"), " has the key of every selected image, a line each; ", h("code", {}, "tokengrid cache subset DIR --keys keys.txt --out NEW"), " makes a cache of them."),
    h("p", {}, h("b", {}, "exclude.txt"), " is the same list for leaving them out: ", h("code", {}, "tokengrid tokenize SOURCE --exclude @exclude.txt ..."), "."),
    h("p", {}, h("b", {}, "rows.csv"), " has everything that the grid shows of each row."),
  ];
  return figure("Files", words, [saved("keys.txt", "api/selection/keys"), saved("exclude.txt", "api/selection/keys?name=exclude"), saved("rows.csv", "api/selection/rows")]);
}

/** Has a cache written of the images, and shows how far that is. */
function subset(signal) {
  const { export_dir: folder } = about.overview;
  if (folder === null) return figure("A cache of these images", h("p", { class: "soft" }, "Start with --export-dir DIR to have this page write one below DIR."));
  const name = h("input", { id: "subset-name", placeholder: "name of the new folder", size: 26 });
  const state = h("div", { role: "status" });
  const draw = (found) => {
    if (found.state === "running") return [h("p", {}, "Writing…"), h("progress", {})];
    if (found.state === "failed") return [h("p", { class: "bad-text" }, found.error)];
    if (found.state === "done") return [h("p", { class: "good" }, `${counts(found.images, "image")}, ${counts(found.rows, "row")} in ${found.dir}.`), h("p", { class: "mono" }, `tokengrid view ${found.dir}`)];
    return [];
  };
  const follow = async (first) => {
    for (let found = first; ; found = await get("api/subset", {}, { signal })) {
      state.replaceChildren(...draw(found));
      if (found.state !== "running" || signal.aborted) return;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  };
  const write = async () => {
    try {
      await follow(await get("api/subset", {}, { method: "POST", body: JSON.stringify({ rows: body(), name: name.value.trim() }) }));
    } catch (error) {
      state.replaceChildren(h("p", { class: "bad-text" }, error.message));
    }
  };
  get("api/subset", {}, { signal }).then(follow).catch(() => {});
  return figure("A cache of these images", [h("p", {}, h("label", {}, `${folder}/`, name), " ", h("button", { type: "button", id: "write-subset", onclick: write }, "Write")), state],
    [], "All views of every selected image; keys, labels and crops stay as they are. The same selection under the same name goes on where it was stopped; another one under that name is refused.");
}
