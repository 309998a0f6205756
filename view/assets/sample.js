// One row: pictures, tokens, bits.

import { about, besidePicture, className, get, hasBeside, hasPictures, hasSource, noSource, picture } from "./api.js";
import * as chosen from "./chosen.js";
import { count, csv, figure, h, percent, save } from "./dom.js";
import { bitsOf, canvas, colour, enlarged } from "./tokens.js";

export async function show({ main, path, signal, keys, go }) {
  const last = about.overview.info.rows - 1;
  if (last < 0) {
    main.replaceChildren(h("h1", {}, "Sample"), h("p", { class: "soft" }, "The cache has no rows."));
    return;
  }
  const row = /^\d+$/.test(path[0] ?? "0") ? Number(path[0] ?? 0) : null;
  const step = (to) => () => to >= 0 && to <= last && go(`sample/${to}`);
  if (row !== null) Object.assign(keys, { ArrowLeft: step(row - 1), ArrowRight: step(row + 1) });
  const choice = h("button", { type: "button", id: "choose", onclick: () => chosen.toggle(row) });
  const showChoice = () => {
    choice.setAttribute("aria-pressed", String(chosen.has(row)));
    choice.textContent = chosen.has(row) ? "Selected ✓" : "Select";
  };
  if (row !== null) {
    showChoice();
    chosen.onChange(showChoice, signal);
    Object.assign(keys, { x: () => chosen.toggle(row), n: () => go(`similar/${row}`) });
  }
  const around = (more) => h("div", { class: "bar" },
    h("button", { onclick: step(row - 1), disabled: row === 0 || row === null }, "← Previous row"),
    h("button", { onclick: step(row + 1), disabled: row === null || row >= last }, "Next row →"), more,
    row !== null && row <= last && [h("a", { href: `similar/${row}` }, "Similar to this"), choice],
    h("span", { class: "end" }, `row ${row === null ? "?" : count(row)} of rows 0 to ${count(last)}`));
  const found = await get(`api/row/${path[0] ?? "0"}`, {}, { signal }).catch((error) => {
    // The rows before and after may be fine.
    if (!signal.aborted) main.replaceChildren(around(null), h("h1", {}, "Sample"), h("p", { class: "note bad", role: "alert" }, error.message));
    return null;
  });
  if (found === null) return;
  const marks = [];
  const view = { found, marks, choose: chooser(found, marks) };
  main.replaceChildren(
    around(found.views.length > 1 && [h("span", { class: "soft" }, "Views"), found.views.map((other, i) => h("a", { href: `sample/${other}`, class: other === found.row ? "badge" : "" }, about.overview.first_view + i))]),
    h("h1", {}, found.key),
    h("p", { class: "lead" }, h("a", { href: `grid?label=${found.label}` }, className(found.label)), found.class_name && found.class && h("span", { class: "mono" }, ` ${found.class}`), found.split !== null && [" · split ", h("a", { href: `grid?${new URLSearchParams({ split: found.split })}` }, found.split)], ` · view ${found.view}`,
      ` · crop at ${found.crop_x}, ${found.crop_y}${found.flip ? ", mirrored" : ""}`, ` · image ${count(found.image)} · ${found.shard}, row group ${found.row_group}`),
    ...notes(found),
    h("div", { class: "pictures" }, original(view), reconstruction(view), difference(view, signal), crop(view)),
    hasBeside() && beside(found, signal) || "",
    h("div", { class: "cards grids" }, colours(view), numbers(view)),
    planes(view));
}

/** What the statistics and the source say of the row. */
function notes({ related, origin, label, damage, shard, row_group: group }) {
  const link = (row) => [" ", h("a", { href: `sample/${row}` }, `row ${count(row)}`)];
  const list = [];
  if (damage) list.push(h("p", { class: "note bad", role: "alert" }, `Row group ${group} of ${shard} is damaged, so what is shown here may be wrong: ${damage}. \`tokengrid cache repair\` encodes it again.`));
  if (related?.same.length) list.push(h("p", { class: "note bad" }, "The same grid:", related.same.map(link)));
  if (related?.near.length) list.push(h("p", { class: "note" }, "Nearly the same grid:", related.near.map((near) => [link(near.row), ` (${count(near.equal_tokens)} tokens agree)`])));
  if (related && related.folder !== null) list.push(h("p", { class: "note bad" }, `The folder has the name of ${className(related.folder)}, the label is ${className(label)}.`));
  if (origin?.error) list.push(h("p", { class: "note bad" }, origin.error));
  if (origin && origin.label !== undefined && origin.label !== label) list.push(h("p", { class: "note bad" }, `The source's label is ${origin.label} (${className(origin.label)}), the cache's ${label}.`));
  return list;
}

/** Marks a token everywhere. */
function chooser({ tokens, counts }, marks) {
  const [height, width] = [tokens.length, tokens[0].length];
  return (position) => {
    const [x, y] = [position % width, Math.floor(position / width)];
    for (const mark of marks) mark(position, { left: `${(100 * x) / width}%`, top: `${(100 * y) / height}%`, width: `${100 / width}%`, height: `${100 / height}%` });
    const code = tokens[y][x];
    const used = counts ? `, used ${count(counts[position])} times in the cache` : "";
    document.getElementById("readout").textContent = `row ${y}, column ${x}: ${code} = ${bitsOf(code, about.overview.info.bits)}${used}`;
  };
}

/** A picture on which the chosen token is marked. */
function frame(view, address, alt, { isMirrored = false } = {}) {
  const marker = h("div", { class: "marker", hidden: true });
  view.marks.push((_, place) => {
    marker.hidden = isMirrored;
    Object.assign(marker.style, place);
  });
  const box = h("div", { class: "frame square" }, h("img", { src: address, alt }), marker);
  const [height, width] = [view.found.tokens.length, view.found.tokens[0].length];
  box.addEventListener("pointermove", (event) => {
    const area = box.getBoundingClientRect();
    const at = (value, size, cells) => Math.max(0, Math.min(cells - 1, Math.floor((value / size) * cells)));
    view.choose(at(event.clientY - area.top, area.height, height) * width + at(event.clientX - area.left, area.width, width));
  });
  return box;
}

const none = (text) => h("div", { class: "frame square" }, h("div", { class: "missing" }, text));
const NO_TOKENIZER = "Start with --tokenizer WEIGHTS to see the decoded picture.";

function original(view) {
  if (!hasSource()) return figure("Original", none(noSource()));
  const address = picture("original", view.found.row);
  return figure("Original", frame(view, address, "The pixels that the tokens were made of"), [["PNG", address]]);
}

function reconstruction(view) {
  if (!hasPictures()) return figure("Reconstruction", none(NO_TOKENIZER));
  const address = picture("decoded", view.found.row);
  return figure("Reconstruction", frame(view, address, "The picture that the tokens decode to"), [["PNG", address]]);
}

function difference(view, signal) {
  if (!hasSource() && about.overview.source !== null) return figure("Difference", none(noSource()));
  if (!hasSource() || !hasPictures()) return figure("Difference", none("Start with --source and --tokenizer to see where the two differ."));
  const address = picture("difference", view.found.row);
  // Empty where there is nothing to compare.
  const hint = h("span");
  get(`picture/compare/${view.found.row}`, {}, { signal }).then(({ psnr }) => {
    hint.textContent = `Differences times 4. PSNR ${psnr === null ? "infinite" : `${psnr.toFixed(2)} dB`}.`;
  }).catch(() => {});
  return figure("Difference", frame(view, address, "Where the two differ"), [["PNG", address]], hint);
}

/** The whole image, and where the view was cut from it. */
function crop({ found }) {
  const { origin, row } = found;
  if (!hasSource()) return figure("Crop", none(noSource()));
  if (!origin?.resized) return figure("Crop", none("The size of the whole image is not known."));
  const [width, height] = origin.resized;
  const address = picture("resized", row);
  const share = (part, all) => `${(100 * part) / all}%`;
  const box = h("div", { class: "crop", style: { left: share(found.crop_x, width), top: share(found.crop_y, height), width: share(origin.size, width), height: share(origin.size, height) } });
  return figure("Crop", h("div", { class: "frame" }, h("img", { src: address, alt: "The whole image" }), box), [["PNG", address]],
    `${origin.size} × ${origin.size} of ${width} × ${height} pixels${found.flip ? ", then mirrored" : ""}.`);
}

/** The same image in the other cache: its picture, and where the tokens differ. */
function beside({ row, tokens }, signal) {
  const { beside: other } = about.overview;
  const box = h("div", { class: "pictures", id: "beside" }, h("p", { class: "soft" }, "…"));
  const differing = ({ each }) => {
    const width = tokens[0].length;
    const lines = Array.from({ length: tokens.length }, (_, y) => each.slice(y * width, (y + 1) * width));
    const shade = (bits) => (bits === 0 ? [238, 236, 232] : [255 - Math.min(bits, 9) * 9, 190 - Math.min(bits, 9) * 17, 120 - Math.min(bits, 9) * 12]);
    return canvas(lines, shade, { class: "colours", role: "img", "aria-label": "Tokens that differ" });
  };
  const draw = async () => {
    const { row: there, unequal } = await get(`api/beside/${row}`, {}, { signal });
    if (there === null) return box.replaceChildren(h("p", { class: "note" }, `${other.dir} has no image of this key.`));
    const found = await get(`beside/api/row/${there}`, {}, { signal });
    const address = other.pictures === null ? null : besidePicture("decoded", there);
    const shown = address === null ? canvas(found.tokens, colour, { class: "colours" }) : h("img", { src: address, alt: "What the other cache's tokens decode to" });
    const words = `row ${count(there)}, view ${found.view}, crop at ${found.crop_x}, ${found.crop_y}${found.flip ? ", mirrored" : ""}, ${found.label === -1 ? "no class" : `class ${found.label}`}`;
    return box.replaceChildren(
      figure("Beside", h("div", { class: "frame square" }, shown), address === null ? [] : [["PNG", address]], `${other.dir}: ${words}.${address === null ? " Start with --beside-tokenizer WEIGHTS to see pictures." : ""}`),
      unequal === null
        ? figure("Tokens that differ", none("The two caches have grids of different shapes."))
        : figure("Tokens that differ", h("div", { class: "frame square" }, differing(unequal)), [], `${count(unequal.tokens)} of ${count(tokens.flat().length)} tokens, ${count(unequal.bits)} bits. Darker: more bits of a token.`));
  };
  draw().catch((error) => {
    if (!signal.aborted) box.replaceChildren(h("p", { class: "note bad", role: "alert" }, error.message));
  });
  return box;
}

function colours(view) {
  const { tokens, row } = view.found;
  const box = canvas(tokens, colour, { class: "colours", role: "img", "aria-label": "Tokens as colours" });
  const width = tokens[0].length;
  const marker = h("div", { class: "marker", hidden: true });
  view.marks.push((_, place) => {
    marker.hidden = false;
    Object.assign(marker.style, place);
  });
  box.addEventListener("pointermove", (event) => {
    const area = box.getBoundingClientRect();
    const at = (value, size, cells) => Math.max(0, Math.min(cells - 1, Math.floor((value / size) * cells)));
    view.choose(at(event.clientY - area.top, area.height, tokens.length) * width + at(event.clientX - area.left, area.width, width));
  });
  return figure("Tokens as colours", [h("div", { class: "frame square", style: { maxWidth: "420px" } }, box, marker), h("p", { class: "readout", id: "readout" }, "Point at a token. Equal colours are equal tokens.")],
    [["PNG", async () => save(`row-${row}-colours.png`, await enlarged(box, 16))]]);
}

function numbers(view) {
  const { tokens, row } = view.found;
  const width = tokens[0].length;
  const digits = String(2 ** about.overview.info.bits - 1).length;
  const spans = tokens.map((line, y) => line.map((code, x) => h("span", { onpointerenter: () => view.choose(y * width + x) }, String(code).padStart(digits))));
  let chosen = null;
  view.marks.push((position) => {
    chosen?.classList.remove("on");
    chosen = spans.flat()[position];
    chosen.classList.add("on");
  });
  const lines = spans.map((line) => [...line.flatMap((span) => [span, " "]), "\n"]);
  const objects = tokens.map((line) => Object.fromEntries(line.map((code, x) => [x, code])));
  return figure("Tokens as numbers", h("div", { class: "scroll" }, h("pre", { class: "numbers" }, lines)),
    [["CSV", () => save(`row-${row}-tokens.csv`, csv(objects), "text/csv")], ["JSON", () => save(`row-${row}-tokens.json`, JSON.stringify(tokens), "application/json")]]);
}

function planes({ found }) {
  const { bits } = about.overview.info;
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const [on, off] = isDark ? [[232, 230, 225], [38, 42, 45]] : [[34, 32, 29], [241, 239, 235]];
  const all = Array.from({ length: bits }, (_, bit) => canvas(found.tokens, (code) => ((code >> bit) & 1 ? on : off)));
  const share = (bit) => found.tokens.flat().filter((code) => (code >> bit) & 1).length / found.tokens.flat().length;
  const plane = (box, bit) => h("div", {}, box, `bit ${bit} · ${percent(share(bit), 0)}`);
  const sheet = async () => {
    const [wide, high] = [found.tokens[0].length * 8, found.tokens.length * 8];
    const columns = 6;
    const large = h("canvas", { width: columns * (wide + 4), height: Math.ceil(bits / columns) * (high + 4) });
    const context = large.getContext("2d");
    context.imageSmoothingEnabled = false;
    all.forEach((box, bit) => context.drawImage(box, (bit % columns) * (wide + 4), Math.floor(bit / columns) * (high + 4), wide, high));
    save(`row-${found.row}-planes.png`, await new Promise((resolve) => large.toBlob(resolve)));
  };
  return figure("Bit planes", h("div", { class: "planes" }, all.map(plane)), [["PNG", sheet]], "Bit 0 is the lowest: the sign of the encoder's first channel. Dark is 1 in light mode, bright is 1 in dark mode. Below: the share of ones.");
}
