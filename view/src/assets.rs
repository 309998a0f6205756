//! The page: files that are part of the program.

use crate::reply::{Reply, asset, whole};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Name, type, content.
static FILES: &[(&str, &str, &str)] = &[
    ("style.css", CSS, include_str!("../assets/style.css")),
    ("app.js", JS, include_str!("../assets/app.js")),
    ("dom.js", JS, include_str!("../assets/dom.js")),
    ("api.js", JS, include_str!("../assets/api.js")),
    ("charts.js", JS, include_str!("../assets/charts.js")),
    ("tokens.js", JS, include_str!("../assets/tokens.js")),
    ("counting.js", JS, include_str!("../assets/counting.js")),
    ("overview.js", JS, include_str!("../assets/overview.js")),
    ("grid.js", JS, include_str!("../assets/grid.js")),
    ("sample.js", JS, include_str!("../assets/sample.js")),
    ("codebook.js", JS, include_str!("../assets/codebook.js")),
    ("classes.js", JS, include_str!("../assets/classes.js")),
    ("duplicates.js", JS, include_str!("../assets/duplicates.js")),
    ("quarantine.js", JS, include_str!("../assets/quarantine.js")),
    ("chosen.js", JS, include_str!("../assets/chosen.js")),
    ("shelf.js", JS, include_str!("../assets/shelf.js")),
    ("similar.js", JS, include_str!("../assets/similar.js")),
    ("selection.js", JS, include_str!("../assets/selection.js")),
    ("map.js", JS, include_str!("../assets/map.js")),
    ("points.js", JS, include_str!("../assets/points.js")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")),
];

/// First parts of the addresses of pages, all of which are the same document: its script shows the right one.
pub(crate) const PAGES: &[&str] =
    &["grid", "sample", "codebook", "classes", "duplicates", "quarantine", "selection", "similar", "map"];

/// The document, with addresses that are relative to the server's root as seen from `path`: a proxy may show the page below a
/// path that this server does not know.
pub(crate) fn page(path: &str) -> Reply {
    let depth = path.bytes().filter(|byte| *byte == b'/').count();
    let root = if depth <= 1 { "./".to_owned() } else { "../".repeat(depth - 1) };
    whole(HTML, include_str!("../assets/index.html").replace("{root}", &root).into())
}

/// A file by its name.
pub(crate) fn file(name: &str) -> Option<Reply> {
    FILES.iter().find(|(known, ..)| *known == name).map(|(_, kind, text)| asset(kind, text))
}
