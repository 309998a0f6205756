// Rows that somebody chose: kept as long as the browser's session, for each cache.

import { about } from "./api.js";

const listeners = new Set();
let rows = null;
let isStoring = false;

const name = () => `tokengrid-chosen-${about.overview.info.content_hash}`;

/** What a browser keeps for a session; private windows and some settings refuse. */
function stored(write) {
  try {
    return write === undefined ? sessionStorage.getItem(name()) : sessionStorage.setItem(name(), write);
  } catch {
    return null;
  }
}

/** `0-5,9,12-20` as rows. Anything else, or what the cache does not have, is left out. */
export function* parse(text) {
  const end = about.overview.info.rows;
  for (const part of text.split(",")) {
    const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(part.trim()) ?? [];
    for (let row = Number(first ?? end); row <= Number(last) && row < end; row += 1) yield row;
  }
}

/** Rows as a text, in which neighbours are a range. */
export function text(list) {
  const sorted = Uint32Array.from(list).sort();
  const parts = [];
  for (let i = 0; i < sorted.length; i += 1) {
    const first = sorted[i];
    while (sorted[i + 1] === sorted[i] + 1) i += 1;
    parts.push(first === sorted[i] ? `${first}` : `${first}-${sorted[i]}`);
  }
  return parts.join(",");
}

function all() {
  rows ??= new Set(parse(stored() ?? ""));
  return rows;
}

export const size = () => all().size;
export const has = (row) => all().has(row);
export const list = () => Uint32Array.from(all()).sort();

/** Calls `heard` whenever rows are chosen or given up. */
export function onChange(heard, signal) {
  const entry = { heard, signal };
  listeners.add(entry);
}

function changed() {
  for (const entry of listeners) {
    if (entry.signal?.aborted) listeners.delete(entry);
    else entry.heard();
  }
  // Somebody who draws a line around a million points changes them many times.
  if (isStoring) return;
  isStoring = true;
  setTimeout(() => {
    isStoring = false;
    stored(text(all()));
  }, 200);
}

export function add(more) {
  for (const row of more) all().add(row);
  changed();
}

export function remove(others) {
  for (const row of others) all().delete(row);
  changed();
}

export function toggle(row) {
  if (!all().delete(row)) all().add(row);
  changed();
}

export function replace(others) {
  rows = new Set(others);
  changed();
}
