// What the server knows.

/** The overview, read once; pages may rely on it. */
export const about = { overview: null };

/** Asks for JSON; an error carries the server's own words. */
export async function get(path, parameters = {}, options = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  const address = query.size ? `${path}?${query}` : path;
  const response = await fetch(address, options);
  const answer = await response.json().catch(() => ({ error: `the server answered with status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

export const post = (path) => get(path, {}, { method: "POST" });

/** The address of a picture. Its version makes pictures of other caches other pictures. */
export const picture = (kind, ...path) => `/picture/${kind}/${path.join("/")}.png?v=${about.overview.id}`;

/** Whether tokens become pictures, and whether there are originals. */
export const hasPictures = () => about.overview.pictures !== null;
export const hasSource = () => about.overview.source !== null && about.overview.source.state !== "failed";

/** `0 (n01440764)`, or what else is known of a label. */
export function className(label) {
  if (label < 0) return "no class";
  const name = about.overview.class_names[label];
  return name === undefined ? `class ${label}` : `${name} (${label})`;
}

/** Waits until the rows are counted; `show(done, total)` meanwhile. Resolves to the statistics. */
export async function statistics(signal, show) {
  for (;;) {
    const found = await get("/api/statistics", {}, { signal });
    if (found.state === "done") return found;
    if (found.state === "failed") throw new Error(found.error);
    show(found.done ?? 0, found.total ?? 0);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}
