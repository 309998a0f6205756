// How the codes and their bits are used.

import { get, hasPictures, picture } from "./api.js";
import { bars, logCurve, matrix } from "./charts.js";
import { counted } from "./counting.js";
import { chartFiles, count, counts, figure, h, pager, percent } from "./dom.js";
import { bitsOf } from "./tokens.js";

const CODES = 12;

export async function show(context) {
  const { figures, curve } = await counted("Codebook", context);
  const dead = figures.dead_bits;
  const bits = figures.bit_balance.length;
  context.main.replaceChildren(
    h("h1", {}, "Codebook"),
    h("p", { class: "lead" }, `${count(figures.distinct_codes)} of ${count(figures.codebook_size)} codes occur in ${counts(figures.tokens, "token")}.`),
    dead.length > 0 && h("p", { class: "note bad", role: "alert" }, `Dead bits: ${dead.join(", ")}. They have the same value in every token, so at most ${count(figures.codebook_size / 2 ** dead.length)} codes can occur.`) || "",
    h("div", { class: "tiles" },
      tile(percent(figures.codebook_utilization), "of the codes are used"), tile(figures.code_entropy_bits.toFixed(2), `bits of entropy per token, of ${bits}`),
      perplexity(figures), tile(dead.length === 0 ? "none" : dead.join(", "), "dead bits", dead.length > 0)),
    h("div", { class: "cards" }, use(figures), ranks(curve)),
    h("div", { class: "cards" }, balance(figures), correlation(figures)),
    h("div", { class: "cards" }, await codes(context, "most", bits, figures), await codes(context, "least", bits, figures)));
}

/** How many codes would have the entropy, if all were used equally often. */
function perplexity({ tokens, code_entropy_bits: entropy }) {
  const codes = tokens === 0 ? 0 : Math.round(2 ** entropy);
  return tile(count(codes), "perplexity (2^entropy), in codes");
}

const tile = (value, label, isBad = false) => h("div", { class: `card tile ${isBad ? "bad" : ""}` }, h("b", {}, value), h("span", {}, label));

function use({ code_histogram: histogram }) {
  const range = (i) => (i === 0 ? "0" : i === 1 ? "1" : `${count(2 ** (i - 1))}–${count(2 ** i - 1)}`);
  const rows = histogram.map((codes, i) => ({ times: range(i), codes }));
  const used = histogram.slice(1);
  const chart = bars(used, { x: "occurrences of a code, lower end of each range", y: "codes", names: (i) => count(2 ** i), titles: (i) => `${range(i + 1)} times: ${counts(used[i], "code")}` });
  return figure("Codes by how often they occur", chart, chartFiles("code-use", rows, chart, ["times", "codes"]), `${counts(histogram[0] ?? 0, "code")} ${histogram[0] === 1 ? "does" : "do"} not occur.`);
}

function ranks(curve) {
  const chart = logCurve(curve, { x: "rank of the code, the most frequent one first", y: "tokens" });
  const rows = curve.map(([rank, tokens]) => ({ rank, tokens }));
  return figure("Tokens of each code", chart, [...chartFiles("code-ranks", rows, chart, ["rank", "tokens"]), ["All", "api/codes?format=csv"]], "Both axes are logarithmic.");
}

function balance({ bit_balance: shares, dead_bits: dead }) {
  const rows = shares.map((ones, bit) => ({ bit, ones, dead: dead.includes(bit) }));
  const chart = bars(shares, { x: "bit", y: "share of tokens", names: String, titles: (i) => `bit ${i}: 1 in ${percent(shares[i], 3)} of the tokens`, marks: (i) => dead.includes(i), top: 1, line: 0.5 });
  return figure("Share of ones", chart, chartFiles("bit-balance", rows, chart), "The dashed line is one half, at which a bit carries most information.");
}

function correlation({ bit_correlation: values }) {
  const rows = values.flatMap((row, i) => row.map((correlation, j) => ({ bit: i, other: j, correlation })));
  const off = rows.filter(({ bit, other, correlation }) => bit < other && correlation !== null);
  const most = off.reduce((best, pair) => (Math.abs(pair.correlation) > Math.abs(best.correlation) ? pair : best), { correlation: 0 });
  const chart = matrix(values, { title: (i, j, value) => `bits ${i} and ${j}: ${value === null ? "one of them is dead" : value.toFixed(3)}` });
  const hint = off.length ? `The strongest pair: bits ${most.bit} and ${most.other}, ${most.correlation?.toFixed(3)}.` : "There are no two live bits.";
  return figure("Correlation of the bits", chart, chartFiles("bit-correlation", rows, chart), hint);
}

async function codes({ signal }, sort, bits, { distinct_codes: total }) {
  const box = h("div", { class: "scroll" });
  const fill = async (offset) => {
    const { items } = await get("api/codes", { sort, offset, limit: CODES }, { signal });
    const line = ({ code, count: times, row, position }) => h("tr", {},
      hasPictures() && h("td", {}, h("a", { href: `sample/${row}` }, h("img", { class: "patch", src: picture("patch", row, position), alt: `where code ${code} stands first`, title: "The token and the eight around it", loading: "lazy" }))),
      h("td", { class: "number mono" }, h("a", { href: `grid?code=${code}`, title: "All rows with this code" }, code)), h("td", { class: "mono" }, bitsOf(code, bits)), h("td", { class: "number" }, count(times)),
      h("td", { class: "number" }, h("a", { href: `sample/${row}` }, count(row))));
    const heading = [hasPictures() && h("th", {}, "Where"), h("th", { class: "number" }, "Code"), h("th", {}, "Bits from 0"), h("th", { class: "number" }, "Tokens"), h("th", { class: "number" }, "First in row")];
    box.replaceChildren(h("table", {}, h("tr", {}, heading), items.map(line)), pager(offset, CODES, total, fill) ?? "");
  };
  await fill(0);
  return figure(sort === "most" ? "Most used codes" : "Least used codes", box, [["CSV", `api/codes?sort=${sort}&format=csv`], ["JSON", `api/codes?sort=${sort}&limit=1000`]]);
}
