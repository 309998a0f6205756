//! Readable names of classes: `cache names`.

use super::table::Table;
use crate::args::Global;
use crate::terminal::print_json;
use serde_json::json;
use std::path::Path;
use tokengrid_cache::{ClassNames, Manifest};

pub(super) fn names(dir: &Path, file: Option<&Path>, remove: bool, global: &Global) -> anyhow::Result<()> {
    let classes = Manifest::read(dir)?.classes;
    if remove {
        ClassNames::remove(dir)?;
    }
    if let Some(file) = file {
        ClassNames::read(file, &classes)?.store(dir, &classes)?;
    }
    let names = ClassNames::load(dir, &classes).unwrap_or_default();
    let labels = 0..classes.len().max(names.len());
    let class = |label: usize| classes.get(label).map(String::as_str);
    if global.json {
        let entry = |label| json!({ "label": label, "class": class(label), "name": names.get(label as i32) });
        let entries: Vec<_> = labels.map(entry).collect();
        return print_json(&json!({ "classes": classes.len(), "named": names.count(), "names": entries }));
    }
    if file.is_none() && !remove {
        let mut table = Table::new(&["#label", "class", "name"]);
        for label in labels {
            let cells = [class(label), names.get(label as i32)].map(|text| text.unwrap_or_default().to_owned());
            table.push([label.to_string()].into_iter().chain(cells).collect());
        }
        table.print();
    }
    println!("{} of {} classes have readable names", names.count(), classes.len().max(names.len()));
    Ok(())
}
