//! `cache clean`: removes what killed jobs left in a bucket.

use crate::args::Global;
use crate::exit::Usage;
use crate::terminal::{bytes, counted, print_json};
use std::path::Path;
use tokengrid_cache::clean_bucket;
use tokengrid_store::is_remote;

pub(super) fn clean(url: &Path, unfinished: bool, global: &Global) -> anyhow::Result<()> {
    if !is_remote(url) {
        let text = "a local folder cleans itself when its job goes on; give the URL of a cache in a bucket";
        return Err(Usage(format!("{}: {text}", url.display())).into());
    }
    let cleaned = clean_bucket(url, unfinished)?;
    if global.json {
        return print_json(&cleaned);
    }
    let (objects, uploads) = (counted(cleaned.objects, "object"), counted(cleaned.uploads, "unfinished upload"));
    println!("{objects} ({}) and {uploads} removed", bytes(cleaned.bytes));
    Ok(())
}
