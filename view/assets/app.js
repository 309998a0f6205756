// The frame: which page, navigation, keys.

import { about, get, isOpening, reason, root } from "./api.js";
import { count, h } from "./dom.js";
import * as map from "./map.js";
import * as overview from "./overview.js";
import * as grid from "./grid.js";
import * as sample from "./sample.js";
import * as codebook from "./codebook.js";
import * as classes from "./classes.js";
import * as chosen from "./chosen.js";
import * as duplicates from "./duplicates.js";
import * as quarantine from "./quarantine.js";
import * as selection from "./selection.js";
import * as similar from "./similar.js";

const PAGES = [
  { path: "", name: "Overview", key: "o", page: overview },
  { path: "grid", name: "Grid", key: "g", page: grid },
  { path: "map", name: "Map", key: "m", page: map },
  { path: "sample", name: "Sample", key: "s", page: sample },
  { path: "codebook", name: "Codebook", key: "b", page: codebook },
  { path: "classes", name: "Classes", key: "c", page: classes },
  { path: "duplicates", name: "Duplicates", key: "d", page: duplicates },
  { path: "quarantine", name: "Quarantine", key: "q", page: quarantine },
  { path: "selection", name: "Selection", key: "e", page: selection },
  // Led to from a sample, not from the list of pages.
  { path: "similar", name: "Similar", key: null, page: similar },
];

// The document's base was relative to the address that it was loaded from, which is about to change.
document.querySelector("base").href = root;

const main = document.getElementById("page");
const help = document.getElementById("help");
let current = null;

/** The parts of the address after the server's root. */
const parts = () => location.pathname.slice(root.length).split("/").filter(Boolean);
const entryOf = ([first]) => PAGES.find((entry) => entry.path === first) ?? PAGES[0];

function markCurrent(entry) {
  for (const link of document.querySelectorAll("#nav a")) link.toggleAttribute("aria-current", link.getAttribute("href") === (entry.path || "./"));
}

/** Shows the page of the address. Whatever the one before still waits for is given up. */
async function show() {
  current?.abort.abort();
  current = { abort: new AbortController(), keys: {} };
  const mine = current;
  const entry = entryOf(parts());
  markCurrent(entry);
  document.title = `${entry.name} · tokengrid`;
  main.classList.toggle("wide", entry.page.isWide === true);
  main.replaceChildren(h("p", { class: "soft" }, "…"));
  const context = {
    main,
    signal: mine.abort.signal,
    path: parts().slice(1),
    query: new URLSearchParams(location.search),
    keys: mine.keys,
    go,
    // Changes the address without showing the page anew.
    remember: (address) => history.replaceState(null, "", address),
  };
  try {
    if (about.overview === null || isOpening()) about.overview = await get("api/overview");
    await entry.page.show(context);
  } catch (error) {
    if (!mine.abort.signal.aborted) main.replaceChildren(h("h1", {}, entry.name), h("p", { class: "note bad", role: "alert" }, error.message));
  }
}

function go(address) {
  history.pushState(null, "", address);
  scrollTo(0, 0);
  return show();
}

function navigation() {
  const badges = { quarantine: ["badge bad", about.overview?.info.quarantined], selection: ["badge", about.overview && chosen.size()] };
  document.getElementById("nav").replaceChildren(...PAGES.filter(({ key }) => key !== null).map(({ path, name, key }) => {
    const [kind, few] = badges[path] ?? [];
    return h("a", { href: path || "./", title: `g ${key}` }, name, few ? h("span", { class: kind }, count(few)) : null);
  }));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (link?.classList.contains("skip")) {
    event.preventDefault();
    main.focus();
    return;
  }
  const address = link && new URL(link.href.baseVal ?? link.href, document.baseURI);
  const isHere = address && address.origin === location.origin && address.pathname.startsWith(root);
  const isPage = isHere && !/^(api|picture|assets)\//.test(address.pathname.slice(root.length)) && !address.hash;
  if (isPlain && isPage && !link.hasAttribute("download")) {
    event.preventDefault();
    go(address.pathname + address.search);
  }
});

document.getElementById("jump").addEventListener("submit", (event) => {
  event.preventDefault();
  const row = document.getElementById("jump-row").value.trim();
  if (/^\d+$/.test(row)) go(`sample/${row}`);
});

// In the place of a picture that cannot be had stands why.
document.addEventListener("error", async ({ target: image }) => {
  if (image.tagName !== "IMG" || image.classList.contains("broken")) return;
  image.classList.add("broken");
  const why = await reason(image.src);
  image.replaceWith(h("span", { class: `missing ${image.className}`, title: why }, image.closest(".frame") ? why : "no picture"));
}, true);
addEventListener("popstate", show);

// What fails after a page is shown, such as the next part of a list, is said above it.
addEventListener("unhandledrejection", ({ reason: error }) => {
  if (error?.name === "AbortError") return;
  document.getElementById("notice")?.remove();
  main.prepend(h("p", { id: "notice", class: "note bad", role: "alert" }, error?.message ?? String(error)));
});

function showHelp() {
  const keys = (...names) => names.map((name, i) => [i ? " " : "", h("kbd", {}, name)]);
  help.replaceChildren(
    h("h2", {}, "Keys"),
    h("table", {}, [
      ...PAGES.filter(({ key }) => key !== null).map(({ name, key }) => [keys("g", key), name]),
      [keys("r"), "Go to a row"], [keys("/"), "Filter the grid by key"],
      [keys("←", "→"), "The previous and the next row, or part of a list"], [keys("↑", "↓"), "In the grid: a line up and down"],
      [keys("↵"), "In the grid: open the row"],
      [keys("x"), "Select the row, or give it up"], [keys("n"), "On a sample: similar rows"], [keys("?"), "This list"],
    ].map(([key, text]) => h("tr", {}, h("td", {}, key), h("td", {}, text)))),
    h("form", { method: "dialog", class: "pager" }, h("button", {}, "Close")));
  help.showModal();
}

let isAfterG = false;
document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (isTyping || event.metaKey || event.ctrlKey || event.altKey || help.open) return;
  const entry = isAfterG && PAGES.find(({ key }) => key === event.key);
  isAfterG = event.key === "g" && !isAfterG;
  if (entry) go(entry.path);
  else if (event.key === "?") showHelp();
  else if (event.key === "r") document.getElementById("jump-row").focus();
  else if (event.key === "/") current?.keys["/"] ? current.keys["/"]() : go("grid?focus=key");
  else if (current?.keys[event.key]) current.keys[event.key]();
  else if (document.querySelector(`[data-key="${CSS.escape(event.key)}"]:enabled`)) document.querySelector(`[data-key="${CSS.escape(event.key)}"]`).click();
  else return;
  event.preventDefault();
});

navigation();
chosen.onChange(() => {
  navigation();
  markCurrent(entryOf(parts()));
});
show().then(navigation).then(() => markCurrent(entryOf(parts())));
