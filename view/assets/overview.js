// The cache as a whole.

import { about, get, post } from "./api.js";
import { bars } from "./charts.js";
import { bytes, chartFiles, count, csv, figure, h, percent, save } from "./dom.js";

export async function show({ main, signal }) {
  about.overview = await get("/api/overview", {}, { signal });
  const { info } = about.overview;
  main.replaceChildren(
    h("h1", {}, about.overview.dir.split("/").pop() || about.overview.dir),
    h("p", { class: "lead mono" }, about.overview.dir),
    ...troubles(),
    h("div", { class: "tiles" },
      tile(count(info.images), "images"), tile(count(info.rows), info.views === 1 ? "rows" : `rows, ${info.views} views an image`),
      tile(`${info.grid[0]} × ${info.grid[1]}`, `tokens of ${info.bits} bits`), tile(count(info.classes), "classes"),
      tile(bytes(info.bytes), `${info.bytes_per_row.toFixed(0)} bytes a row`),
      tile(count(info.quarantined), "in quarantine", info.quarantined > 0)),
    h("div", { class: "cards" }, origin(info), health(signal)),
    h("div", { class: "cards" }, margins(info), shards(info)));
}

const tile = (value, label, isBad = false) => h("div", { class: `card tile ${isBad ? "bad" : ""}` }, h("b", {}, value), h("span", {}, label));

/** What keeps parts of the pages from working. */
function troubles() {
  const { cache, source } = about.overview;
  return [["The cache cannot be opened", cache], ["The source cannot be opened", source]]
    .filter(([, part]) => part?.state === "failed")
    .map(([what, part]) => h("p", { class: "note bad", role: "alert" }, `${what}: ${part.error}`));
}

function origin(info) {
  const { tokenizer, source, recipe } = info;
  const facts = [
    ["Tokenizer", `${tokenizer.name} (${tokenizer.variant}, ${tokenizer.precision})`],
    ["Fingerprint", h("span", { class: "mono" }, tokenizer.fingerprint)],
    ["Recipe", h("span", { class: "mono" }, Object.entries(recipe).map(([name, value]) => `${name} ${value}`).join(" · ") || "not known")],
    ["Source", `${source.kind}: ${source.location}`],
    ["Inputs", `${count(source.images)}, ${count(source.excluded)} left out on purpose, ${count(info.quarantined)} in quarantine`],
    ["Content hash", h("span", { class: "mono" }, info.content_hash)],
    ["Format", `version ${info.format_version}`],
    ["Pictures by", about.overview.pictures ?? "no tokenizer was given: start with --tokenizer"],
    ["Originals", about.overview.source ? (about.overview.source.images ? `${count(about.overview.source.images)} images` : about.overview.source.state) : "no source was given: start with --source"],
  ];
  return figure("What it is made of", h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    [["JSON", () => save("overview.json", JSON.stringify(about.overview, null, 1), "application/json")]]);
}

/** Verifies on request, and shows how far that is. */
function health(signal) {
  const box = h("div", { id: "health" });
  const again = (text) => h("button", { type: "button", class: "first", onclick: () => run(true) }, text);
  const draw = (state) => {
    if (state.state === "idle") return [h("p", {}, "Reads every byte and compares every checksum and count."), again("Verify now")];
    if (state.state === "running") {
      const share = state.total ? state.done / state.total : 0;
      return [h("p", {}, `Verifying: ${bytes(state.done)} of ${bytes(state.total)}`), h("progress", { max: 1, value: share })];
    }
    if (state.state === "failed") return [h("p", { class: "bad-text" }, state.error), again("Try again")];
    if (state.ok) return [h("p", { class: "good" }, `Whole: ${count(state.rows)} rows, ${bytes(state.bytes)}, every checksum holds.`), again("Verify again")];
    const list = state.problems.map(({ shard, row_group, what }) => h("tr", {}, h("td", { class: "mono" }, shard), h("td", { class: "number" }, row_group ?? ""), h("td", {}, what)));
    return [h("p", { class: "bad-text" }, `${state.problems.length} problems. \`tokengrid cache repair\` encodes what is damaged anew.`),
      h("table", {}, h("tr", {}, h("th", {}, "File"), h("th", { class: "number" }, "Row group"), h("th", {}, "What is wrong")), list), h("p", {}, again("Verify again"))];
  };
  const run = async (isStart) => {
    let state = isStart ? await post("/api/health") : about.overview.health;
    for (;;) {
      box.replaceChildren(...draw(state));
      if (state.state !== "running" || signal.aborted) return;
      await new Promise((resolve) => setTimeout(resolve, 300));
      state = await get("/api/health", {}, { signal });
    }
  };
  run(false).catch(() => {});
  return figure("Health", box, [["JSON", async () => save("health.json", JSON.stringify(await get("/api/health"), null, 1), "application/json")]]);
}

function margins(info) {
  const title = "How near to 0 the bits were";
  const all = info.margins.reduce((sum, part) => sum + part, 0);
  if (all === 0) return figure(title, h("p", { class: "soft" }, "Whoever made the tokens did not say."));
  const edges = about.overview.margin_edges.map((edge) => edge.toExponential(0));
  const name = (i) => (i < edges.length ? `≤ ${edges[i]}` : `> ${edges.at(-1)}`);
  const rows = info.margins.map((bits, i) => ({ h: name(i), bits, share: bits / all }));
  const chart = bars(info.margins, { label: "|h| of a bit", names: name, titles: (i) => `${name(i)}: ${count(info.margins[i])} bits, ${percent(rows[i].share, 4)}`, marks: (i) => i < 4 });
  const near = info.margins.slice(0, 4).reduce((sum, part) => sum + part, 0);
  return figure(title, chart, chartFiles("margins", rows, chart), `${count(near)} of ${count(all)} bits (${percent(near / all, 4)}) lie within 1e-3 of 0, where another device may round them the other way.`);
}

function shards(info) {
  const near = (i) => about.overview.shard_margins[i].slice(0, 4).reduce((sum, part) => sum + part, 0);
  const rows = info.shards.map((shard, i) => ({ ...shard, near_0: near(i) }));
  const line = (shard, i) => h("tr", {},
    h("td", { class: "mono" }, h("a", { href: `/grid?shard=${i}` }, shard.file)), h("td", { class: "number" }, count(shard.rows)), h("td", { class: "number" }, shard.row_groups),
    h("td", { class: "number" }, bytes(shard.bytes)), h("td", { class: "number" }, count(shard.near_0)));
  const heading = ["File", "Rows", "Row groups", "Size", "Bits near 0"].map((name, i) => h("th", { class: i ? "number" : "" }, name));
  const box = h("div", { class: "scroll", style: { maxHeight: "260px" } }, h("table", {}, h("tr", {}, heading), rows.map(line)));
  return figure(`${count(rows.length)} shard${rows.length === 1 ? "" : "s"}`, box, [["CSV", () => save("shards.csv", csv(rows), "text/csv")], ["JSON", () => save("shards.json", JSON.stringify(rows, null, 1), "application/json")]]);
}
