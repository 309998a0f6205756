//! Commands about single rows of a cache: `cache show`, `head`, `find`.

use super::table::Table;
use crate::terminal::counted;
use crate::args::{FindArgs, Global, ShowArgs};
use crate::exit::Usage;
use crate::printable;
use crate::signals::{self, Stopped};
use crate::terminal::{Meter, print_json};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::Path;
use tokengrid_cache::{
    CacheError, ClassIndex, ClassNames, QuarantineReader, QuarantineRecord, RowFilter, RowMeta, RowReader, TokenCache,
    find_rows_with_progress,    unpack,
};

pub(crate) fn show(args: &ShowArgs, global: &Global) -> anyhow::Result<()> {
    let (dir, index) = (&args.dir, args.index);
    let cache = RowReader::open(dir)?;
    if index >= cache.num_rows() {
        let rows = cache.num_rows();
        return Err(Usage(format!("--index {index}: {} has {rows} rows, counted from 0", dir.display())).into());
    }
    let metas = cache.metas(index..index + 1)?;
    let (meta, grid) = (&metas[0], cache.grid());
    let (mut tokens, mut packed) = (vec![0u32; grid.num_tokens()], Vec::new());
    cache.check_tokens(index..index + 1)?;
    cache.read_packed(&[index], &mut packed)?;
    unpack(&packed, grid.bits, &mut tokens);
    let rows: Vec<&[u32]> = tokens.chunks(grid.width as usize).collect();
    if global.json {
        let mut object = entry(&cache, &Splits::of(&cache), index, meta);
        object["tokens"] = json!(rows);
        return print_json(&object);
    }
    println!("row {index}: {}", meta.key);
    println!("  label {} ({})", meta.label, class_name(&cache, meta.label).unwrap_or("unknown"));
    println!("  view {}, crop at {}", meta.view, crop(meta));
    if let Some(split) = Splits::of(&cache).name(index) {
        println!("  split {split}");
    }
    if needs_torch(args) {
        return crate::torch::show_picture(cache.manifest(), &tokens, args, global);
    }
    let digits = (1u64 << grid.bits).saturating_sub(1).to_string().len();
    for row in rows {
        println!("  {}", row.iter().map(|token| format!("{token:>digits$}")).collect::<Vec<_>>().join(" "));
    }
    Ok(())
}

pub(super) fn crop(meta: &RowMeta) -> String {
    format!("({}, {}){}", meta.crop_x, meta.crop_y, if meta.flip { ", mirrored" } else { "" })
}

fn class_name(cache: &RowReader, label: i32) -> Option<&str> {
    cache.manifest().classes.get(usize::try_from(label).ok()?).map(String::as_str)
}

/// The splits of a cache, by rows.
pub(super) struct Splits<'a> {
    images: Vec<(&'a str, Range<usize>)>,
    num_views: usize,
}

impl Splits<'_> {
    pub(super) fn of(cache: &RowReader) -> Splits<'_> {
        Splits { images: cache.splits(), num_views: cache.num_views() }
    }

    /// The split of a row; `None` in a cache without splits.
    fn name(&self, row: usize) -> Option<&str> {
        let image = row / self.num_views.max(1);
        self.images.iter().find(|(_, images)| images.contains(&image)).map(|(name, _)| *name)
    }
}

/// One row for scripts, without its tokens.
pub(super) fn entry(cache: &RowReader, splits: &Splits, row: usize, meta: &RowMeta) -> Value {
    json!({
        "index": row, "key": meta.key, "label": meta.label, "class": class_name(cache, meta.label), "view": meta.view,
        "crop_x": meta.crop_x, "crop_y": meta.crop_y, "flip": meta.flip, "split": splits.name(row),
    })
}

/// Rows that are read and printed at a time.
const BLOCK_ROWS: usize = 4096;

pub(crate) fn head(dir: &Path, rows: usize, global: &Global) -> anyhow::Result<()> {
    let cache = RowReader::open(dir)?;
    let rows = 0..rows.min(cache.num_rows());
    if global.json {
        return print_json_rows(&cache, rows, "");
    }
    // Neighbours: few row groups.
    print_rows(&cache, rows, Tokens::Checked)
}

pub(crate) fn find(args: &FindArgs, global: &Global) -> anyhow::Result<()> {
    let cache = RowReader::open(&args.dir)?;
    let label = args.class.as_deref().map(|class| label_of(&cache, class, &args.dir)).transpose()?;
    let filter = RowFilter { label, view: args.view, key: args.key.clone(), ..RowFilter::default() };
    let found = match cache.find(&filter, signals::flag())? {
        Some(found) => found,
        None => {
            let cache = TokenCache::open(&args.dir)?;
            let mut meter = Meter::new(global, "keys");
            let mut progress = |done, total| meter.update(done, total, "");
            find_rows_with_progress(&cache, &ClassIndex::of(&cache), &filter, signals::flag(), &mut progress)?
        }
    };
    let quarantined = Quarantined::find(&cache, args.key.as_deref());
    let num_listed = found.len().min(args.limit);
    let listed = (0..num_listed).filter_map(|place| found.get(place));
    if global.json {
        let records = serde_json::to_string(&quarantined.listed)?;
        return print_json_rows(&cache, listed, &format!("  \"found\": {},\n  \"quarantined\": {records},\n", found.len()));
    }
    // They may be of as many row groups as there are rows.
    print_rows(&cache, listed, Tokens::AsTheyAre)?;
    if num_listed < found.len() {
        println!("{num_listed} of {} rows; --limit N lists more", found.len());
    } else {
        println!("{}", counted(found.len(), "row"));
    }
    quarantined.print();
    Ok(())
}

/// Quarantined inputs, which have no rows, whose keys contain the searched text.
#[derive(Default)]
struct Quarantined {
    count: usize,
    /// The first ones.
    listed: Vec<QuarantineRecord>,
}

impl Quarantined {
    /// A search by key only: nothing else is known of them. A list that cannot be read keeps nobody from finding rows.
    fn find(cache: &RowReader, text: Option<&str>) -> Quarantined {
        let Some(text) = text else { return Quarantined::default() };
        Self::read(cache, text).unwrap_or_else(|error| {
            tracing::warn!("the list of quarantined inputs was not searched: {:#}", anyhow::Error::from(error));
            Quarantined::default()
        })
    }

    fn read(cache: &RowReader, text: &str) -> Result<Quarantined, CacheError> {
        const LISTED: usize = 10;
        let mut found = Quarantined::default();
        for record in QuarantineReader::open(cache.local_dir(), cache.manifest())? {
            let record = record?;
            if record.key.contains(text) {
                found.count += 1;
                if found.listed.len() < LISTED {
                    found.listed.push(record);
                }
            }
        }
        Ok(found)
    }

    fn print(&self) {
        if self.count == 0 {
            return;
        }
        println!("{} of such a key in quarantine, which have no rows:", counted(self.count, "input"));
        for QuarantineRecord { key, stage, reason, .. } in &self.listed {
            println!("  {}: {stage}: {}", printable::line(key), printable::line(reason));
        }
        if self.listed.len() < self.count {
            println!("  and {} more: see quarantine.jsonl", self.count - self.listed.len());
        }
        println!("{QUARANTINE_ADVICE}");
    }
}

/// Advice about an image that could not be decoded.
pub(crate) const QUARANTINE_ADVICE: &str = "to have rows of such an image, mend or replace it in the source; then tokenize the source \
anew, or the image alone and add it with `cache merge`";

/// What is known of rows in any order: those that lie near each other are read together.
pub(super) fn metas_of(cache: &RowReader, rows: &[usize]) -> anyhow::Result<Vec<RowMeta>> {
    const SPAN_ROWS: usize = 16_384;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|place| rows[*place]);
    let mut metas = vec![None; rows.len()];
    let mut rest = order.as_slice();
    while let Some(first) = rest.first().map(|place| rows[*place]) {
        let near = rest.partition_point(|place| rows[*place] < first + SPAN_ROWS);
        let last = rows[rest[near - 1]];
        let read = cache.metas(first..last + 1)?;
        rest[..near].iter().for_each(|place| metas[*place] = Some(read[rows[*place] - first].clone()));
        rest = &rest[near..];
    }
    Ok(metas.into_iter().flatten().collect())
}

/// What is done with each block of rows: their indices and what a cache says of them.
type EachBlock<'a> = dyn FnMut(&[(usize, RowMeta)]) -> anyhow::Result<()> + 'a;

/// Calls `each` with what is known of rows in ascending order, some at a time; neighbours are read together.
fn visit_blocks(cache: &RowReader, mut rows: impl Iterator<Item = usize>, each: &mut EachBlock) -> anyhow::Result<()> {
    loop {
        let block: Vec<usize> = rows.by_ref().take(BLOCK_ROWS).collect();
        if signals::cancelled() {
            return Err(Stopped.into());
        }
        if block.is_empty() {
            return Ok(());
        }
        let mut found = Vec::with_capacity(block.len());
        for run in block.chunk_by(|a, b| a + 1 == *b) {
            found.extend((run[0]..).zip(cache.metas(run[0]..run[0] + run.len())?));
        }
        each(&found)?;
    }
}

/// Prints `{"rows": [...]}`, with `first` as further fields in front. The object is never in memory as a whole.
fn print_json_rows(cache: &RowReader, rows: impl Iterator<Item = usize>, first: &str) -> anyhow::Result<()> {
    // Nothing is printed before the first rows are read: what is damaged is an error, not half an object.
    let splits = Splits::of(cache);
    let mut before = format!("{{\n{first}  \"rows\": [");
    visit_blocks(cache, rows, &mut |block| {
        for (row, meta) in block {
            print!("{before}\n    {}", serde_json::to_string(&entry(cache, &splits, *row, meta))?);
            before = ",".to_owned();
        }
        Ok(())
    })?;
    if before != "," {
        print!("{before}");
    }
    println!("\n  ]\n}}");
    Ok(())
}

/// A class by name or index.
fn label_of(cache: &RowReader, class: &str, dir: &Path) -> anyhow::Result<i32> {
    let classes = &cache.manifest().classes;
    let by_name = classes.iter().position(|name| name == class).map(|label| label as i32);
    let by_index = || class.parse().ok().filter(|label| *label >= -1);
    let by_meaning = || match ClassNames::load(cache.local_dir(), classes)?.find(class).as_slice() {
        [label] => Some(*label),
        _ => None,
    };
    let label = by_name.or_else(by_index).or_else(by_meaning);
    let refuse =
        || Usage(format!("--class {class}: {} has no class of this name; {} are listed", dir.display(), classes.len()));
    label.ok_or_else(|| refuse().into())
}

/// Whether printed tokens are compared with the checksums of their row groups, which are read for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tokens {
    Checked,
    AsTheyAre,
}

fn print_rows(cache: &RowReader, rows: impl Iterator<Item = usize>, tokens_are: Tokens) -> anyhow::Result<()> {
    let splits = Splits::of(cache);
    let mut columns = vec!["#row", "key", "label", "#view", "crop", "first tokens"];
    if !splits.images.is_empty() {
        columns.insert(3, "split");
    }
    let mut table = Table::new(&columns);
    let (mut tokens, mut packed) = (vec![0; cache.grid().num_tokens()], Vec::new());
    let row_bytes = cache.grid().row_bytes();
    visit_blocks(cache, rows, &mut |block| {
        // Read, not mapped: rows are printed once, so their pages need not stay in memory.
        let rows: Vec<usize> = block.iter().map(|(row, _)| *row).collect();
        if tokens_are == Tokens::Checked {
            let mut runs = rows.chunk_by(|row, next| row + 1 == *next);
            runs.try_for_each(|run| cache.check_tokens(run[0]..run[0] + run.len()))?;
        }
        cache.read_packed(&rows, &mut packed)?;
        for ((row, meta), grid) in block.iter().zip(packed.chunks_exact(row_bytes)) {
            unpack(grid, cache.grid().bits, &mut tokens);
            let first: Vec<_> = tokens.iter().take(4).map(u32::to_string).collect();
            let name = class_name(cache, meta.label).map(|name| format!(" ({name})")).unwrap_or_default();
            let (number, label, view) = (row.to_string(), format!("{}{name}", meta.label), meta.view.to_string());
            let mut cells = vec![number, meta.key.clone(), label, view, crop(meta), first.join(" ")];
            if !splits.images.is_empty() {
                cells.insert(3, splits.name(*row).unwrap_or_default().to_owned());
            }
            table.push(cells);
        }
        table.print_part();
        Ok(())
    })?;
    table.print_part();
    Ok(())
}

/// Whether the command also shows the row as a picture.
pub(crate) fn needs_torch(args: &ShowArgs) -> bool {
    args.image.is_some()
}
