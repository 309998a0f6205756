// The cache as a whole.

import { about, get, nearZero, post } from "./api.js";
import { bars } from "./charts.js";
import { bytes, chartFiles, count, counts, csv, figure, h, percent, save } from "./dom.js";

export async function show({ main, signal }) {
  about.overview = await get("api/overview", {}, { signal });
  const { info } = about.overview;
  main.replaceChildren(
    h("h1", {}, about.overview.dir.split("/").pop() || about.overview.dir),
    h("p", { class: "lead mono" }, about.overview.dir),
    ...troubles(),
    h("div", { class: "tiles" },
      tile(count(info.images), info.images === 1 ? "image" : "images"), tile(count(info.rows), info.views === 1 ? (info.rows === 1 ? "row" : "rows") : `rows, ${info.views} views per image`),
      tile(`${info.grid[0]} × ${info.grid[1]}`, `tokens of ${info.bits} bits`), classes(about.overview.classes),
      tile(bytes(info.bytes), `${info.bytes_per_row.toFixed(0)} bytes per row`),
      tile(count(info.quarantined), "in quarantine", info.quarantined > 0)),
    h("div", { class: "cards" }, origin(info), health(signal)),
    h("div", { class: "cards" }, margins(info), shards(info)),
    about.overview.splits.length > 0 && h("div", { class: "cards" }, splits()) || "");
}

const tile = (value, label, isBad = false) => h("div", { class: `card tile ${isBad ? "bad" : ""}` }, h("b", {}, value), h("span", {}, label));

/** As many classes as the list of classes has, with and without names. */
function classes({ all, named }) {
  const word = (all ?? named) === 1 ? "class" : "classes";
  const note = all === null || all === named ? "" : named === 0 ? ", without names" : `, ${count(all - named)} without names`;
  return all === null && named === 0 ? tile("?", "classes, not counted yet") : tile(count(all ?? named), `${word}${note}`);
}

/** What keeps parts of the pages from working. */
function troubles() {
  const { cache, source } = about.overview;
  const failed = [["The cache cannot be opened", cache], ["There are no originals", source]]
    .filter(([, part]) => part?.state === "failed")
    .map(([what, part]) => h("p", { class: "note bad", role: "alert" }, `${what}: ${part.error}`));
  return source?.doubt ? [...failed, h("p", { class: "note bad", role: "alert" }, source.doubt)] : failed;
}

const NOT_KNOWN = "not known";

/** A recipe is an object, or null where somebody else made the tokens. */
const recipeText = (recipe) => Object.entries(recipe ?? {}).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ") || NOT_KNOWN;

function tokenizerText({ name, variant, precision }) {
  const details = [variant, precision].filter(Boolean).join(", ");
  return name ? `${name}${details && ` (${details})`}` : NOT_KNOWN;
}

function origin(info) {
  const { tokenizer, source, recipe } = info;
  const facts = [
    ["Tokenizer", tokenizerText(tokenizer)],
    ["Fingerprint", h("span", { class: "mono" }, tokenizer.fingerprint || NOT_KNOWN)],
    ["Recipe", h("span", { class: "mono" }, recipeText(recipe))],
    ["Source", [source.kind, source.location].filter(Boolean).join(": ") || NOT_KNOWN],
    ["Inputs", `${count(source.images)}, ${count(source.excluded)} excluded, ${count(info.quarantined)} in quarantine`],
    ["Content hash", h("span", { class: "mono" }, info.content_hash)],
    ["Format", `version ${info.format_version}`],
    ["Pictures by", about.overview.pictures ?? "no tokenizer was given: start with --tokenizer"],
    ...(about.overview.beside ? [["Beside", h("span", { class: "mono" }, about.overview.beside.dir)]] : []),
    ["Originals", about.overview.source ? sourceText(about.overview.source) : "no source was given: start with --source"],
  ];
  return figure("Origin", h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    [["JSON", () => save("overview.json", JSON.stringify(about.overview, null, 1), "application/json")]]);
}

const sourceText = ({ state, images }) => (state === "done" ? counts(images, "image") : state === "failed" ? "the source cannot be used, see above" : "the source is being read");

/** Verifies on request, and shows how far that is. */
function health(signal) {
  const box = h("div", { id: "health" });
  const again = (text) => h("button", { type: "button", class: "first", onclick: () => run(true) }, text);
  const draw = (state) => {
    if (state.state === "idle") return [h("p", {}, "Reads every byte and compares all checksums and counts."), again("Verify now")];
    if (state.state === "running") {
      const share = state.total ? state.done / state.total : 0;
      return [h("p", {}, `Verifying: ${bytes(state.done)} of ${bytes(state.total)}`), h("progress", { max: 1, value: share })];
    }
    if (state.state === "failed") return [h("p", { class: "bad-text" }, state.error), again("Try again")];
    if (state.ok) return [h("p", { class: "good" }, `Intact: ${counts(state.rows, "row")}, ${bytes(state.bytes)}, all checksums match.`), again("Verify again")];
    const list = state.problems.map(({ shard, row_group, what }) => h("tr", {}, h("td", { class: "mono" }, shardLink(shard)), h("td", { class: "number" }, row_group === null || row_group === undefined ? "" : count(row_group)), h("td", {}, what)));
    return [h("p", { class: "bad-text" }, `${counts(state.problems.length, "problem")}. \`tokengrid cache repair\` encodes damaged row groups again. Their rows are marked in the grid.`),
      h("table", {}, h("tr", {}, h("th", {}, "File"), h("th", { class: "number" }, "Row group"), h("th", {}, "What is wrong")), list), h("p", {}, again("Verify again"))];
  };
  const run = async (isStart) => {
    let state = isStart ? await post("api/health") : about.overview.health;
    for (;;) {
      box.replaceChildren(...draw(state));
      if (state.state !== "running" || signal.aborted) return;
      await new Promise((resolve) => setTimeout(resolve, 300));
      state = await get("api/health", {}, { signal });
    }
  };
  run(false).catch(() => {});
  return figure("Health", box, [["JSON", async () => save("health.json", JSON.stringify(await get("api/health"), null, 1), "application/json")]]);
}

function shardLink(file) {
  const place = about.overview.info.shards.findIndex((shard) => shard.file === file);
  return place < 0 ? file : h("a", { href: `grid?shard=${place}` }, file);
}

/** Named parts of the cache. */
function splits() {
  const rows = about.overview.splits.map(({ name, images: [first, end], rows }) => ({ name, first, end, rows }));
  const line = ({ name, first, end, rows }) => h("tr", {}, h("td", {}, h("a", { href: `grid?${new URLSearchParams({ split: name })}` }, name)),
    h("td", { class: "number" }, end > first ? `${count(first)} to ${count(end - 1)}` : "none"), h("td", { class: "number" }, rows === null ? NOT_KNOWN : count(rows)));
  const heading = ["Split", "Inputs", "Rows"].map((name, i) => h("th", { class: i ? "number" : "" }, name));
  return figure(counts(rows.length, "split"), h("table", {}, h("tr", {}, heading), rows.map(line)), [["CSV", () => save("splits.csv", csv(rows), "text/csv")], ["JSON", () => save("splits.json", JSON.stringify(rows, null, 1), "application/json")]]);
}

function margins(info) {
  const title = "Margins of the bits";
  const all = info.margins.reduce((sum, part) => sum + part, 0);
  if (all === 0) return figure(title, h("p", { class: "soft" }, "Not recorded for these tokens."));
  const edges = about.overview.margin_edges.map((edge) => edge.toExponential(0));
  const name = (i) => (i < edges.length ? `≤ ${edges[i]}` : `> ${edges.at(-1)}`);
  const rows = info.margins.map((bits, i) => ({ h: name(i), bits, share: bits / all }));
  const chart = bars(info.margins, { x: "|h|, the encoder's output before its sign is taken", y: "bits", names: name, titles: (i) => `${name(i)}: ${count(info.margins[i])} bits, ${percent(rows[i].share, 4)}`, marks: (i) => i < 4 });
  const near = info.margins.slice(0, 4).reduce((sum, part) => sum + part, 0);
  return figure(title, chart, chartFiles("margins", rows, chart), `${count(near)} of ${count(all)} bits (${percent(near / all, 4)}) lie within 1e-3 of 0, where another device may round them the other way.`);
}

function shards(info) {
  const near = nearZero;
  const rows = info.shards.map((shard, i) => ({ ...shard, near_0: near(i) }));
  const line = (shard, i) => h("tr", {},
    h("td", { class: "mono" }, h("a", { href: `grid?shard=${i}` }, shard.file)), h("td", { class: "number" }, count(shard.rows)), h("td", { class: "number" }, count(shard.row_groups)),
    h("td", { class: "number" }, bytes(shard.bytes)), h("td", { class: "number" }, shard.near_0 === null ? NOT_KNOWN : count(shard.near_0)));
  const heading = ["File", "Rows", "Row groups", "Size", "Bits near 0"].map((name, i) => h("th", { class: i ? "number" : "" }, name));
  const box = h("div", { class: "scroll", style: { maxHeight: "260px" } }, h("table", {}, h("tr", {}, heading), rows.map(line)));
  return figure(counts(rows.length, "shard"), box, [["CSV", () => save("shards.csv", csv(rows, ["file", "rows", "row_groups", "bytes", "blake3", "near_0"]), "text/csv")], ["JSON", () => save("shards.json", JSON.stringify(rows, null, 1), "application/json")]]);
}
