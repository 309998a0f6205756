// As much of a browser as the inspector's pages use: a document without layout, addresses, timers, requests.
// `ask(method, target, body)` comes from the test: it asks the server and returns [status, head, body] as texts.

const request = (method, target, sent = "") => {
  const [status, kind, body] = ask(method, target, sent);
  return [Number(status), kind, body];
};
/** What a session keeps; a test may look into it. */
const kept = {};
globalThis.sessionStorage = { getItem: (name) => kept[name] ?? null, setItem: (name, text) => { kept[name] = text; } };
/** Files that the page has saved: [name, text] each. */
globalThis.saved = [];
globalThis.Blob = class {
  constructor(parts) { this.content = parts.join(""); }
};
const failures = [];
const timers = [];
let now = 0;

globalThis.setTimeout = (work, delay = 0) => timers.push({ at: now + delay, work, id: timers.length + 1 });
globalThis.clearTimeout = () => {};
globalThis.requestAnimationFrame = (work) => setTimeout(() => work(now), 16);
globalThis.performance = { now: () => now };
globalThis.devicePixelRatio = 1;
globalThis.runTimers = () => {
  timers.sort((a, b) => a.at - b.at);
  const timer = timers.shift();
  if (timer === undefined) return false;
  now = timer.at;
  timer.work();
  return true;
};

class SearchParams {
  constructor(init = "") {
    const decode = (text) => decodeURIComponent(text.replaceAll("+", " "));
    if (typeof init === "string") {
      const pairs = init.replace(/^\?/, "").split("&").filter(Boolean).map((pair) => pair.split("="));
      this.list = pairs.map(([name, value = ""]) => [decode(name), decode(value)]);
    } else {
      this.list = (Array.isArray(init) ? init : Object.entries(init)).map(([name, value]) => [String(name), String(value)]);
    }
  }
  get size() { return this.list.length; }
  get(name) { return this.list.find(([other]) => other === name)?.[1] ?? null; }
  toString() {
    const encode = (text) => encodeURIComponent(text).replaceAll("%20", "+");
    return this.list.map((pair) => pair.map(encode).join("=")).join("&");
  }
}
globalThis.URLSearchParams = SearchParams;

globalThis.URL = class {
  constructor(text, base) {
    const absolute = /^([a-z]+:\/\/[^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?$/.exec(text);
    const [, host, path, search = "", hash = ""] = absolute ?? URL.relative(text, new URL(base));
    Object.assign(this, { origin: host, pathname: path || "/", search, hash });
  }
  get href() { return this.origin + this.pathname + this.search + this.hash; }
  static relative(text, base) {
    const [, path, search = "", hash = ""] = /^([^?#]*)(\?[^#]*)?(#.*)?$/.exec(text);
    if (path === "") return [null, base.origin, base.pathname, search || base.search, hash];
    const parts = [];
    for (const part of (path.startsWith("/") ? path : base.pathname.replace(/[^/]*$/, "") + path).split("/").slice(1)) {
      if (part === "..") parts.pop();
      else if (part !== ".") parts.push(part);
    }
    if (/(^|\/)\.{1,2}$/.test(path)) parts.push("");
    return [null, base.origin, `/${parts.join("/")}`, search, hash];
  }
  static createObjectURL({ content }) {
    URL.content = content;
    return "blob:saved";
  }
  static revokeObjectURL() {}
};

class AbortSignal {
  aborted = false;
}
globalThis.AbortController = class {
  signal = new AbortSignal();
  abort() { this.signal.aborted = true; }
};

globalThis.fetch = async (address, { method = "GET", body: sent, signal } = {}) => {
  if (signal?.aborted) throw Object.assign(new Error("given up"), { name: "AbortError" });
  const { pathname, search } = new URL(address, document.baseURI);
  const [status, kind, body] = request(method, pathname + search, sent);
  // As browsers say it.
  if (status === 0) throw new TypeError("Failed to fetch");
  return { status, ok: status < 300, headers: { get: () => kind }, json: async () => JSON.parse(body), text: async () => body, arrayBuffer: async () => new ArrayBuffer(8 * Math.floor(body.length / 8)), blob: async () => new Blob([body]) };
};

class Target {
  listeners = {};
  addEventListener(name, listener, { signal } = {}) { (this.listeners[name] ??= []).push({ listener, signal }); }
  fire(name, event) {
    for (const { listener, signal } of this.listeners[name] ?? []) {
      if (!signal?.aborted) listener.call(this, event);
    }
  }
}

class Node extends Target {
  parent = null;
  get isConnected() { return this === document.body || (this.parent?.isConnected ?? false); }
  remove() {
    if (this.parent) this.parent.nodes = this.parent.nodes.filter((node) => node !== this);
    this.parent = null;
  }
  replaceWith(...others) {
    const { parent } = this;
    if (!parent) return;
    const place = parent.nodes.indexOf(this);
    this.remove();
    parent.insert(place, others);
  }
}

class Text extends Node {
  constructor(text) { super(); this.textContent = String(text); }
}

class Element extends Node {
  nodes = [];
  attributes = {};
  style = {};
  scrollTop = 0;
  clientWidth = 1200;
  clientHeight = 800;
  constructor(tag) { super(); this.tagName = tag.toUpperCase(); }
  get children() { return this.nodes.filter((node) => node instanceof Element); }
  get textContent() { return this.nodes.map((node) => node.textContent).join(""); }
  set textContent(text) { this.replaceChildren(text); }
  insert(place, others) {
    const nodes = others.map((other) => (other instanceof Node ? other : new Text(other)));
    nodes.forEach((node) => { node.remove(); node.parent = this; });
    this.nodes.splice(place, 0, ...nodes);
  }
  append(...others) { this.insert(this.nodes.length, others); }
  prepend(...others) { this.insert(0, others); }
  replaceChildren(...others) {
    this.nodes.forEach((node) => { node.parent = null; });
    this.nodes = [];
    this.append(...others);
  }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  getAttribute(name) { return this.attributes[name] ?? null; }
  hasAttribute(name) { return name in this.attributes; }
  removeAttribute(name) { delete this.attributes[name]; }
  toggleAttribute(name, is) { if (is) this.setAttribute(name, ""); else this.removeAttribute(name); }
  get id() { return this.attributes.id ?? ""; }
  get className() { return this.attributes.class ?? ""; }
  get classList() {
    const all = () => this.className.split(/\s+/).filter(Boolean);
    const set = (names) => this.setAttribute("class", names.join(" "));
    const toggle = (name, is) => set([...all().filter((other) => other !== name), ...(is ? [name] : [])]);
    return { contains: (name) => all().includes(name), add: (name) => toggle(name, true), remove: (name) => toggle(name, false), toggle };
  }
  get dataset() { return new Proxy({}, { get: (_, name) => this.attributes[`data-${name}`] }); }
  get href() { return new URL(this.attributes.href, document.baseURI).href; }
  set href(address) { this.attributes.href = new URL(address, document.baseURI).href; }
  get src() { return new URL(this.attributes.src, document.baseURI).href; }
  get value() { return this.typed ?? this.attributes.value ?? ""; }
  set value(text) { this.typed = text; }
  get width() { return Number(this.attributes.width); }
  get height() { return Number(this.attributes.height); }
  set width(size) { this.attributes.width = String(size); }
  set height(size) { this.attributes.height = String(size); }
  setPointerCapture() {}
  set hidden(is) { this.toggleAttribute("hidden", is); }
  *all() {
    for (const child of this.children) {
      yield child;
      yield* child.all();
    }
  }
  fits(selector) {
    const [, tag, id, name] = /^([a-z0-9]*)(?:#([\w-]+))?(?:\.([\w-]+))?/.exec(selector);
    return (!tag || this.tagName === tag.toUpperCase()) && (!id || this.id === id) && (!name || this.classList.contains(name));
  }
  closest(selector) { return this.fits(selector) ? this : (this.parent?.closest(selector) ?? null); }
  querySelectorAll(selector) {
    const steps = selector.split(" ");
    const last = steps.pop();
    const isBelow = (node) => steps.length === 0 || node.parent?.closest(steps.at(-1));
    return [...this.all()].filter((node) => node.fits(last) && isBelow(node));
  }
  querySelector(selector) { return this.querySelectorAll(selector)[0] ?? null; }
  getBoundingClientRect() { return { left: 0, top: 0, width: this.clientWidth, height: this.clientHeight }; }
  getContext(kind) {
    // Pages must do without a graphics card.
    if (kind !== "2d") return null;
    const size = () => this.width * this.height * 4;
    return { createImageData: () => ({ data: new Uint8ClampedArray(size()) }), putImageData() {}, drawImage() {}, clearRect() {}, beginPath() {}, moveTo() {}, lineTo() {}, closePath() {}, stroke() {}, fill() {} };
  }
  click() { clicked(this); }
  focus() { document.focused = this; }
  showModal() { this.open = true; }
}

class Base extends Element {
  get href() { return new URL(this.attributes.href, location.href).href; }
  set href(address) { this.attributes.href = new URL(address, location.href).href; }
}

/** A click as a browser passes it on: to the element and all around it, then to the document. */
globalThis.clicked = (element, keys = {}) => {
  let isStopped = false;
  const event = { target: element, button: 0, isPrevented: false, preventDefault() { event.isPrevented = true; }, stopPropagation() { isStopped = true; }, ...keys };
  if (element.getAttribute?.("download") && element.href.includes("blob:saved")) saved.push([element.getAttribute("download"), URL.content]);
  for (let node = element; node && !isStopped; node = node.parent) node.fire?.("click", event);
  if (!isStopped) document.fire("click", event);
};
globalThis.typed = (element, text) => {
  element.value = text;
  element.fire("change", { target: element });
};
/** What a browser does about a picture that does not load. */
globalThis.brokenPictures = () => {
  for (const image of document.querySelectorAll("img")) {
    const { pathname, search } = new URL(image.src);
    if (pathname.includes("/picture/") && request("GET", pathname + search)[0] !== 200) document.fire("error", { target: image });
  }
};

class Page extends Target {
  body = new Element("body");
  title = "";
  get baseURI() { return this.querySelector("base").href; }
  createElement(tag) { return new Element(tag); }
  createElementNS(_, tag) { return new Element(tag); }
  getElementById(id) { return this.body.querySelector(`#${id}`); }
  querySelectorAll(selector) { return this.body.querySelectorAll(selector); }
  querySelector(selector) { return this.body.querySelector(selector); }
}
globalThis.document = new Page();
globalThis.CSS = { escape: (text) => text };
globalThis.matchMedia = () => ({ matches: false });
globalThis.scrollTo = () => {};
globalThis.window = new Target();
globalThis.addEventListener = (name, listener, options) => window.addEventListener(name, listener, options);

/** A promise that failed where nobody waits for it. */
globalThis.unhandled = (error) => {
  if (error?.name === "AbortError" || error?.message === "given up") return;
  failures.push(`${error?.message ?? error}\n${error?.stack ?? ""}`);
  window.fire("unhandledrejection", { reason: error });
};
globalThis.failures = failures;
// A promise may fail before somebody waits for it; what is still unhandled when all has run is an error.
const pending = new Set();
globalThis.mayBeUnhandled = (error) => pending.add(error);
globalThis.isHandled = (error) => pending.delete(error);
globalThis.reportUnhandled = () => {
  const found = [...pending];
  pending.clear();
  found.forEach(unhandled);
  return found.length > 0;
};

/** Loads the document: `html` as the server sent it for `address`. */
globalThis.load = (address, html) => {
  const go = (target) => Object.assign(location, (({ origin, pathname, search, href }) => ({ origin, pathname, search, href }))(new URL(target, location.href === undefined ? address : document.baseURI)));
  globalThis.location = {};
  go(address);
  globalThis.history = { pushState: (_, __, target) => go(target), replaceState: (_, __, target) => go(target) };
  const base = new Base("base");
  base.attributes.href = /<base href="([^"]*)">/.exec(html)[1];
  document.body.append(base);
  for (const [tag, id] of [["nav", "nav"], ["form", "jump"], ["input", "jump-row"], ["main", "page"], ["dialog", "help"]]) {
    if (!html.includes(`<${tag} id="${id}"`)) throw new Error(`the document has no ${tag} #${id}`);
    const element = new Element(tag);
    element.setAttribute("id", id);
    document.body.append(element);
  }
};
