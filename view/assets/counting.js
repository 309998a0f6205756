// The wait for the statistics, which are counted once.

import { statistics, surveyed as untilSurveyed } from "./api.js";
import { count, h } from "./dom.js";

/** Resolves to the statistics; shows how far the counting is until then. */
export const counted = (title, context) => shown(title, context, "Reading the statistics…", "Counting all rows, once", statistics);

/** The same for the survey: where rows lie on the map, their entropies, their distances from the means of their classes. */
export const surveyed = (title, context) => shown(title, context, "Reading the survey…", "Surveying all rows, once", untilSurveyed);

async function shown(title, { main, signal }, first, going, wait) {
  const bar = h("progress", { max: 1, value: 0 });
  const words = h("p", { class: "soft", role: "status" }, first);
  const waiting = [h("h1", {}, title), h("div", { class: "card" }, words, bar)];
  return wait(signal, (done, total) => {
    if (!waiting[0].isConnected) main.replaceChildren(...waiting);
    words.textContent = total ? `${going}: ${count(done)} of ${count(total)}` : "Starting…";
    bar.value = total ? done / total : 0;
  });
}
