// What the server knows.

/** The overview, read once; pages may rely on it. */
export const about = { overview: null };

const STOPPED = "The server does not answer: it was stopped, or the connection to it was lost. Start `tokengrid view` again, then reload this page.";

/** Where the server's pages begin: a proxy may show them below a path of its own. */
export const root = new URL(document.baseURI).pathname;

/** Asks for JSON; an error carries the server's own words. */
export async function get(path, parameters = {}, options = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  const address = query.size ? `${path}?${query}` : path;
  const response = await fetch(address, options).catch((error) => {
    // Whoever gave the request up knows why; all that the browser says of the rest is that it failed.
    throw options.signal?.aborted ? error : new Error(STOPPED);
  });
  const answer = await response.json().catch(() => ({ error: `the server answered with status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** Sends a text and resolves to the file that is made of it. */
export async function sent(path, body) {
  const response = await fetch(path, { method: "POST", body }).catch(() => {
    throw new Error(STOPPED);
  });
  if (response.ok) return response.blob();
  const answer = await response.json().catch(() => ({ error: `the server answered with status ${response.status}` }));
  throw new Error(answer.error);
}

export const post = (path) => get(path, {}, { method: "POST" });

/** The address of a picture. Its version makes pictures of another cache, other weights or another start other pictures. */
export const picture = (kind, ...path) => `picture/${kind}/${path.join("/")}.png?v=${about.overview.id}`;

/** The same of the other cache, where there is one. */
export const besidePicture = (...path) => `beside/picture/${path[0]}/${path.slice(1).join("/")}.png?v=${about.overview.beside.id}`;
export const hasBeside = () => Boolean(about.overview.beside);

/** Why a picture cannot be had. */
export const reason = (address) => get(address).then(() => "This picture cannot be shown.", (error) => error.message);

/** Whether tokens become pictures, and whether there are originals. */
export const hasPictures = () => about.overview.pictures !== null;
export const hasSource = () => about.overview.source !== null && about.overview.source.state !== "failed";

/** Why there are no originals. */
export function noSource() {
  const { source } = about.overview;
  return source === null ? "Start with --source SOURCE to see what the tokens were made of." : `The source that was given cannot be used: ${source.error}`;
}

/** Whether the cache or the source is still being opened: what the overview says will change. */
export const isOpening = () => [about.overview.cache, about.overview.source].some((part) => part?.state === "running");

/** What a class is called, where names were given. */
export const readableName = (label) => about.overview.readable_class_names?.[label] ?? undefined;

/** `tench (0)`, `n01440764 (0)`, or what else is known of a label. */
export function className(label) {
  if (label < 0) return "no class";
  const name = readableName(label) ?? about.overview.class_names[label];
  return name === undefined ? `class ${label}` : `${name} (${label})`;
}

/** How many bits of a shard were near 0; null where whoever made the tokens did not say. */
export function nearZero(shard) {
  const margins = about.overview.shard_margins[shard];
  const sum = (parts) => parts.reduce((total, part) => total + part, 0);
  return sum(margins) === 0 ? null : sum(margins.slice(0, 4));
}

/** Has the rows counted, where that was not done, and waits for it; `show(done, total)` meanwhile. Resolves to the statistics. */
export const statistics = (signal, show) => done("api/statistics", signal, show);

/** Has the rows surveyed, in the same way. */
export const surveyed = (signal, show) => done("api/map", signal, show);

async function done(path, signal, show) {
  let found = await get(path, {}, { method: "POST", signal });
  for (;;) {
    if (found.state === "done") return found;
    if (found.state === "failed") throw new Error(found.error);
    show(found.done ?? 0, found.total ?? 0);
    await new Promise((resolve) => setTimeout(resolve, 250));
    found = await get(path, {}, { signal });
  }
}

/** A file of numbers. */
export async function numbers(path, signal) {
  const response = await fetch(path, { signal }).catch((error) => {
    throw signal?.aborted ? error : new Error(STOPPED);
  });
  if (response.ok) return response.arrayBuffer();
  throw new Error((await response.json().catch(() => ({ error: `the server answered with status ${response.status}` }))).error);
}
