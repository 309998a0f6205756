// Elements, numbers, and files for downloading.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("a", {href: "/", class: "brand", onclick: f, style: {left: "5%"}}, "text", child, [more])`. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function s(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    // By the object model and not as an attribute, which the page's policy forbids.
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** 1281167 as 1,281,167. */
export const count = (number) => Number(number).toLocaleString("en-US");

/** `1 row`, `2 rows`. */
export const counts = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A share as per cent, with enough digits that small ones are not 0. */
export function percent(share, digits = 2) {
  const value = 100 * share;
  return `${value !== 0 && Math.abs(value) < 10 ** -digits ? value.toPrecision(1) : value.toFixed(digits)} %`;
}

export function bytes(number) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= 1000 && unit + 1 < units.length) {
    number /= 1000;
    unit += 1;
  }
  return unit === 0 ? `${number} B` : `${number.toFixed(1)} ${units[unit]}`;
}

/** Saves a blob, or a text, under a name. */
export function save(name, content, type = "text/plain") {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Rows of objects with the same fields as comma-separated values, below their names: also where there is no row. */
export function csv(rows, names = Object.keys(rows[0] ?? {})) {
  const quoted = (value) => {
    const written = value === null || value === undefined ? "" : String(value);
    // A text that a spreadsheet would execute becomes a text, and what a terminal would obey is replaced.
    const guard = typeof value === "string" && /^[=+\-@\t\r]/.test(written) ? "'" : "";
    const text = guard + written.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g, "\ufffd");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
}

/** An SVG element as a file of its own: colours that the page's style gives it are written into it. */
export function svgText(element) {
  const copy = element.cloneNode(true);
  const [originals, copies] = [element, copy].map((node) => [node, ...node.querySelectorAll("*")]);
  originals.forEach((original, i) => {
    const style = getComputedStyle(original);
    copies[i].removeAttribute("style");
    for (const name of ["fill", "stroke", "opacity", "font-size", "font-family", "text-anchor"]) {
      copies[i].setAttribute(name, style.getPropertyValue(name));
    }
  });
  const [, , width, height] = copy.getAttribute("viewBox").split(" ");
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const paper = s("rect", { x: 0, y: 0, width, height, fill: getComputedStyle(document.body).backgroundColor });
  copy.prepend(paper);
  return new XMLSerializer().serializeToString(copy);
}

/** An SVG element as a PNG, twice as large. */
export async function svgPng(element) {
  const image = new Image();
  const url = URL.createObjectURL(new Blob([svgText(element)], { type: "image/svg+xml" }));
  image.src = url;
  await image.decode();
  const canvas = h("canvas", { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(url);
  return new Promise((resolve) => canvas.toBlob(resolve));
}

/** A figure with a title and buttons that save what it shows. `files`: [label, function] or [label, address] each. */
export function figure(title, content, files = [], hint = null) {
  const button = ([label, action]) =>
    typeof action === "string" ? h("a", { href: action, download: "" }, label) : h("button", { type: "button", onclick: action, "aria-label": `Save as ${label}` }, label);
  return h("figure", { class: "card" },
    h("figcaption", {}, h("h2", {}, title), h("div", { class: "downloads" }, files.map(button))),
    content, hint && h("p", { class: "hint" }, hint));
}

/** The files of a chart: CSV and JSON of its data, SVG and PNG of the picture. */
export function chartFiles(name, rows, element, names) {
  return [
    ["CSV", () => save(`${name}.csv`, csv(rows, names), "text/csv")],
    ["JSON", () => save(`${name}.json`, JSON.stringify(rows, null, 1), "application/json")],
    ["SVG", () => save(`${name}.svg`, svgText(element), "image/svg+xml")],
    ["PNG", async () => save(`${name}.png`, await svgPng(element))],
  ];
}

/** A pager over a list; `go(offset)` shows another part. */
export function pager(offset, limit, total, go) {
  if (total <= limit) return null;
  const last = Math.floor((total - 1) / limit) * limit;
  const button = (text, to, enabled, key) => h("button", { type: "button", disabled: !enabled, onclick: () => go(to), "data-key": key }, text);
  return h("div", { class: "pager" },
    button("First", 0, offset > 0), button("Previous", Math.max(0, offset - limit), offset > 0, "ArrowLeft"),
    h("span", {}, `${count(offset + 1)} to ${count(Math.min(offset + limit, total))} of ${count(total)}`),
    button("Next", offset + limit, offset + limit < total, "ArrowRight"), button("Last", last, offset < last));
}
