// The wait for the statistics, which are counted once.

import { statistics } from "./api.js";
import { count, h } from "./dom.js";

/** Resolves to the statistics; shows how far the counting is until then. */
export async function counted(title, { main, signal }) {
  const bar = h("progress", { max: 1, value: 0 });
  const words = h("p", { class: "soft", role: "status" }, "Reading the statistics…");
  const wait = [h("h1", {}, title), h("div", { class: "card" }, words, bar)];
  return statistics(signal, (done, total) => {
    if (!wait[0].isConnected) main.replaceChildren(...wait);
    words.textContent = total ? `Counting all rows, once: ${count(done)} of ${count(total)}` : "Starting to count…";
    bar.value = total ? done / total : 0;
  });
}
