//! `cache import` and `cache export`: caches from and to other programs' files.

use super::made::{check_apart, mode, report};
use super::made_by::MadeBy;
use crate::args::{ExportArgs, ExportFormat, Global, ImportArgs, ImportFormat};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::{Copying, counted, print_json};
use clap::ValueEnum;
use serde_json::json;
use std::path::{Path, PathBuf};
use tokengrid_cache::{
    BitOrder, BitProfile, Finished, FrameSet, ImportOptions, TokenCache, TokenType, export_1x, export_jsonl,
    export_llamagen, export_memmap, export_npy, export_npz, export_parquet, export_webdataset, holds_npz, import_1x,
    import_arrow, import_jsonl, import_llamagen, import_memmap, import_npy, import_npy_pairs, import_npz,
    import_parquet, import_webdataset, is_data_set,
};

/// Frames by which the order of bits is found.
const SAMPLED_FRAMES: usize = 1024;

/// Rows of an exported WebDataset shard.
const SHARD_ROWS: u32 = 10_000;

pub(super) fn import(args: &ImportArgs, global: &Global) -> anyhow::Result<()> {
    let input = args.input.as_ref().or(args.tokens.as_ref()).expect("the parser asks for one of them");
    let format = match args.format {
        Some(format) => format,
        None => format_of(input, args)?,
    };
    refuse_unused(format, args)?;
    let copying = Copying::shown(global);
    let finished = match format {
        ImportFormat::OneX => import_frames(input, args, global)?,
        _ => import_rows(input, format, args, global)?,
    };
    drop(copying);
    report(&finished, &args.out, global)
}

/// Refuses flags that the format has no use for: what they say would be lost.
fn refuse_unused(format: ImportFormat, args: &ImportArgs) -> anyhow::Result<()> {
    use ImportFormat::{Arrow, Jsonl, Llamagen, Memmap, Npy, Npz, OneX, Parquet, Webdataset};
    let rows = [Npy, Parquet, Llamagen, Jsonl, Webdataset, Memmap, Npz, Arrow];
    let flags: [(&str, bool, &[ImportFormat]); 9] = [
        ("--labels", args.labels.is_some(), &[Npy, Llamagen, Memmap]),
        ("--keys", args.keys.is_some(), &[Npy, Memmap]),
        ("--grid", args.grid.is_some(), &rows),
        ("--bits", args.bits.is_some(), &rows),
        ("--views", args.views.is_some(), &[Npy, Parquet, Llamagen, Jsonl, Webdataset, Memmap, Arrow]),
        ("--tokens-column", args.tokens_column.is_some(), &[Parquet, Npz, Arrow]),
        ("--label-column", args.label_column.is_some(), &[Parquet, Arrow]),
        ("--dtype", args.dtype.is_some(), &[Memmap]),
        ("--bit-order", args.bit_order.is_some(), &[OneX]),
    ];
    for (flag, is_given, formats) in flags {
        if is_given && !formats.contains(&format) {
            let name = |format: &ImportFormat| format.to_possible_value().map_or(String::new(), |value| value.get_name().into());
            let formats: Vec<String> = formats.iter().map(name).collect();
            let text = format!("{flag} is for {}, not for {}", formats.join(", "), name(&format));
            return Err(Usage(text).into());
        }
    }
    Ok(())
}

/// What a path holds, by its name. Frames of video are never guessed: it matters what their bits mean.
fn format_of(input: &Path, args: &ImportArgs) -> anyhow::Result<ImportFormat> {
    if !input.exists() {
        return Err(anyhow::anyhow!("{}: there is no such file or folder", input.display()));
    }
    // What was compressed is what the name in front of its ending says.
    let unpacked = if is_compressed(input) { input.with_extension("") } else { input.to_path_buf() };
    let ending = unpacked.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    match ending.as_str() {
        _ if input.join("metadata.json").exists() => {
            let text = format!("{}: a folder with metadata.json; give --format 1x for video frames", input.display());
            Err(Usage(text).into())
        }
        _ if is_data_set(input) => Ok(ImportFormat::Arrow),
        _ if input.is_dir() && !files_of(input, "parquet")?.is_empty() => Ok(ImportFormat::Parquet),
        _ if input.is_dir() && !files_of(input, "tar")?.is_empty() => Ok(ImportFormat::Webdataset),
        _ if input.is_dir() && holds_npz(input) => Ok(ImportFormat::Npz),
        _ if input.is_dir() && (args.labels.is_some() || is_llamagen(input)) => Ok(ImportFormat::Llamagen),
        _ if input.is_dir() => {
            let text = format!(
                "{}: a folder of no known format: it has no .parquet, no .tar, no state.json of save_to_disk, no class folders with \
                 .npz, no NAME_codes and NAME_labels; give --format, or one of the folders in it",
                input.display()
            );
            Err(Usage(text).into())
        }
        "parquet" => Ok(ImportFormat::Parquet),
        "jsonl" => Ok(ImportFormat::Jsonl),
        "tar" | "tgz" => Ok(ImportFormat::Webdataset),
        "bin" => Ok(ImportFormat::Memmap),
        _ => Ok(ImportFormat::Npy),
    }
}

/// Whether there is a folder `NAME_codes`.
fn is_llamagen(folder: &Path) -> bool {
    let names = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().ends_with("_codes"))
}

/// Whether a file is compressed as a whole, by its name.
fn is_compressed(path: &Path) -> bool {
    let endings = ["gz", "zst", "xz", "bz2"];
    path.extension().is_some_and(|found| endings.iter().any(|ending| found.eq_ignore_ascii_case(ending)))
}

fn import_rows(input: &Path, format: ImportFormat, args: &ImportArgs, global: &Global) -> anyhow::Result<Finished> {
    use ImportFormat::{Arrow, Jsonl, Llamagen, Npz, Webdataset};
    if is_compressed(input) && !matches!(format, ImportFormat::Jsonl | ImportFormat::Webdataset) {
        let text = format!("{}: a compressed file: unpack it first (of gzip, jsonl and webdataset are read as they are)", input.display());
        return Err(Usage(text).into());
    }
    let infers_grid = match format {
        Llamagen => args.labels.is_none(),
        _ => [Jsonl, Webdataset, Npz, Arrow].contains(&format),
    };
    let grid = match args.grid {
        Some(grid) => grid,
        None if infers_grid => (0, 0),
        None => return Err(Usage("--grid HxW is needed: the height and width of a grid, in tokens".into()).into()),
    };
    let made_by = MadeBy::of(args, global)?;
    let options = ImportOptions {
        grid,
        bits: made_by.bits(args.bits)?,
        views: args.views.unwrap_or_default(),
        tokenizer: made_by.tokenizer,
        key_prefix: args.key_prefix.clone().unwrap_or_default(),
        tokens_column: args.tokens_column.clone(),
        label_column: args.label_column.clone(),
        ..ImportOptions::default()
    };
    let (labels, keys, mode) = (args.labels.as_deref(), args.keys.as_deref(), mode(args.overwrite));
    let out = &args.out;
    let files = |ending| match files_of(input, ending)? {
        files if files.is_empty() => Err(CheckFailed(format!("no rows in {}: there is no .{ending} in it", input.display())).into()),
        files => anyhow::Ok(files),
    };
    Ok(match (format, labels) {
        (ImportFormat::Npy, _) => import_npy(input, labels, keys, &options, out, mode)?,
        (ImportFormat::Parquet, _) => import_parquet(&files("parquet")?, &options, out, mode)?,
        (ImportFormat::Webdataset, _) => import_webdataset(&files("tar")?, &options, out, mode)?,
        (ImportFormat::Llamagen, Some(labels)) => import_npy_pairs(input, labels, &options, out, mode)?,
        (ImportFormat::Llamagen, None) if holds_arrays(input) => {
            return Err(Usage("--labels is needed: the folder of <i>.npy with a label each".into()).into());
        }
        (ImportFormat::Llamagen, None) => import_llamagen(input, &options, out, mode)?,
        (ImportFormat::Jsonl, _) => import_jsonl(input, &options, out, mode)?,
        (ImportFormat::Memmap, _) => import_memmap(input, args.dtype.unwrap_or(TokenType::U16), labels, keys, &options, out, mode)?,
        (ImportFormat::Npz, _) => import_npz(input, &options, out, mode)?,
        (ImportFormat::Arrow, _) => import_arrow(input, &options, out, mode)?,
        (ImportFormat::OneX, _) => unreachable!("frames are imported elsewhere"),
    })
}

/// Whether the folder itself has arrays, and not folders of them.
fn holds_arrays(folder: &Path) -> bool {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.take(1000).any(|entry| entry.path().extension().is_some_and(|ending| ending == "npy"))
}

/// The files of an ending, perhaps with `.gz` or the like behind it, in a folder and in its folder `data`, in the order of their names; a file
/// stands for itself.
fn files_of(folder: &Path, wanted: &str) -> anyhow::Result<Vec<PathBuf>> {
    if folder.is_file() {
        return Ok(vec![folder.to_path_buf()]);
    }
    let mut files = Vec::new();
    for folder in [folder.to_path_buf(), folder.join("data")].iter().filter(|folder| folder.is_dir()) {
        for entry in folder.read_dir()? {
            files.push(entry?.path());
        }
    }
    let is_wanted = |path: &Path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(wanted));
    files.retain(|path| is_wanted(path) || is_compressed(path) && is_wanted(&path.with_extension("")));
    files.sort();
    Ok(files)
}

fn import_frames(input: &Path, args: &ImportArgs, global: &Global) -> anyhow::Result<Finished> {
    let set = FrameSet::open(input)?.with_key_prefix(args.key_prefix.as_deref().unwrap_or_default());
    let made_by = MadeBy::of(args, global)?;
    made_by.bits(Some(set.grid().bits))?;
    let order = match args.bit_order {
        _ if !set.has_bits() => None,
        Some(order) => Some(order),
        None => {
            let (order, why) = find_order(&set, args, global)?;
            if !global.quiet {
                let place = if order == BitOrder::LowFirst { "lowest" } else { "highest" };
                eprintln!("channel 0 is the {place} bit ({order}): {why}");
            }
            Some(order)
        }
    };
    Ok(import_1x(&set, order, made_by.tokenizer, &args.out, mode(args.overwrite))?)
}

/// The order of a set's bits, and why.
fn find_order(set: &FrameSet, args: &ImportArgs, global: &Global) -> anyhow::Result<(BitOrder, String)> {
    let cannot_tell = |why: String| {
        CheckFailed(format!(
            "cannot tell which bit of a token channel 0 is: {why}. Give --like CACHE (a cache of the same tokenizer, with whose \
             channels those of the set are compared), --tokenizer WEIGHTS (those that made the set: frames that it decodes are \
             smooth only in the right order), or --bit-order high-first or low-first where it is known (sets made with code of \
             Open-MAGVIT2 before September 2024, those of 1X among them, are high-first)"
        ))
    };
    if args.tokenizer.is_some() {
        let (order, why) = crate::torch::bit_order(set, args, global)?;
        return Ok((order.ok_or_else(|| cannot_tell(why.clone()))?, why));
    }
    let Some(like) = &args.like else {
        let text = "the tokens alone do not say it, since the other order only numbers the same channels the other way round";
        return Err(cannot_tell(text.into()).into());
    };
    let reference = TokenCache::open(like)?;
    let found = BitProfile::of_cache(&reference).order_of(&set.sample(SAMPLED_FRAMES)?, set.grid());
    let why = format!("{found}, by {}", like.display());
    Ok((found.order.ok_or_else(|| cannot_tell(why.clone()))?, why))
}

pub(super) fn export(args: &ExportArgs, global: &Global) -> anyhow::Result<()> {
    let (out, mode) = (&args.out, mode(args.overwrite));
    for (flag, is_given, format) in [
        ("--bit-order", args.bit_order.is_some(), ExportFormat::OneX),
        ("--dtype", args.dtype.is_some(), ExportFormat::Memmap),
        ("--shard-rows", args.shard_rows.is_some(), ExportFormat::Webdataset),
    ] {
        if is_given && args.format != format {
            return Err(Usage(format!("{flag} has no effect on this format")).into());
        }
    }
    check_apart(out, &[&args.dir])?;
    let cache = TokenCache::open(&args.dir)?;
    let copying = Copying::shown(global);
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let files = match args.format {
        ExportFormat::Npy => {
            export_npy(&cache, out, mode)?;
            own(&["tokens.npy", "labels.npy", "keys.txt"])
        }
        ExportFormat::ParquetList => {
            export_parquet(&cache, out, mode)?;
            own(&["tokens.parquet"])
        }
        ExportFormat::OneX => export_1x(&cache, args.bit_order, out, mode)?,
        ExportFormat::Llamagen => export_llamagen(&cache, out, mode)?,
        ExportFormat::Jsonl => export_jsonl(&cache, out, mode)?,
        ExportFormat::Npz => export_npz(&cache, out, mode)?,
        ExportFormat::Webdataset => {
            export_webdataset(&cache, args.shard_rows.unwrap_or(SHARD_ROWS) as usize, out, mode)?
        }
        ExportFormat::Memmap => export_memmap(&cache, args.dtype.unwrap_or(TokenType::U32), out, mode)?,
    };
    drop(copying);
    let rows = cache.num_rows();
    if global.json {
        return print_json(
            &json!({ "rows": rows, "files": files.iter().map(|name| out.join(name)).collect::<Vec<_>>() }),
        );
    }
    println!("{} in {}: {}", counted(rows, "row"), out.display(), files.join(", "));
    Ok(())
}
