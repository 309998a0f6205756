//! `cache ...`.

use clap::{Args, Subcommand};
use std::path::PathBuf;
use tokengrid_cache::{BitOrder, TokenType};

/// `cache`.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// `cache ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Summarize a cache: rows, sizes, tokenizer, recipe, shards.
    Info {
        /// The cache's folder or URL.
        dir: PathBuf,
    },
    /// Check every checksum and every count; exit status 1 names what is damaged.
    Verify {
        /// The cache's folder or URL.
        dir: PathBuf,
    },
    /// Print one row: label, key, view, crop, tokens; with a tokenizer also its picture. Its row group is compared with its
    /// checksums, except in a bucket.
    Show(ShowArgs),
    /// Print the first rows. Tokens are compared with the checksums of their row groups, except in a bucket.
    Head {
        /// The cache's folder or URL.
        dir: PathBuf,
        /// Number of rows.
        #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
        rows: usize,
    },
    /// Rows of a class, of a part of a key, of a view; or rows that are like a row or an image. Without --near the printed tokens are
    /// not compared with their checksums: that would read whole row groups.
    Find(FindArgs),
    /// Rows of one cache that are like rows of another: images of a validation set that are in the training set, too. None
    /// is missed.
    Leak(LeakArgs),
    /// Codebook use, balance of the bits, dead bits, rows per class, duplicates. Counted once, kept in the cache's folder: later calls
    /// read no shard.
    Stats {
        /// The cache's folder or URL.
        dir: PathBuf,
        /// Plot code use, bit balance and class sizes to this file.
        #[arg(long, value_name = "FILE.png")]
        plot: Option<PathBuf>,
    },
    /// Rows and token entropy (in bits) of every class.
    Classes {
        /// The cache's folder or URL.
        dir: PathBuf,
        /// Sort by class index (`label`), largest class first (`rows`), or lowest entropy first (`entropy`).
        #[arg(long, default_value = "label", value_name = "ORDER")]
        sort: ClassOrder,
        /// Plot class sizes and entropies to this file.
        #[arg(long, value_name = "FILE.png")]
        plot: Option<PathBuf>,
    },
    /// Readable names of the classes: lists them, or keeps those of a file beside the cache.
    Names {
        /// The cache's folder.
        dir: PathBuf,
        /// Lines of a class and its name (LOC_synset_mapping.txt), lines of names, or JSON (imagenet_class_index.json).
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Forget the names that are kept.
        #[arg(long, conflicts_with = "file")]
        remove: bool,
    },
    /// Two caches row by row: keys, labels, crops, and how many bits agree. Exit status 1 when they differ.
    Diff {
        /// Folder of the first cache.
        a: PathBuf,
        /// Folder of the second cache.
        b: PathBuf,
        /// At most this many differing rows are listed.
        #[arg(long, default_value_t = 10, value_name = "N")]
        limit: usize,
    },
    /// Make a cache from token arrays.
    Import(ImportArgs),
    /// Write tokens and labels for other programs.
    Export(ExportArgs),
    /// Merge several caches: parts of a data set, splits (train=DIR), or more views of the same images.
    Merge {
        /// The new cache's folder.
        out: PathBuf,
        /// Caches; NAME=DIR makes its images the split NAME.
        #[arg(required = true, value_name = "IN")]
        inputs: Vec<String>,
        /// Start again where there is a cache already.
        #[arg(long)]
        overwrite: bool,
    },
    /// Make a smaller cache: some classes, some views, one split, the first images.
    Subset(SubsetArgs),
    /// Remove what killed jobs left in a bucket: stray files beside a finished cache and incomplete uploads. Unfinished jobs
    /// stay.
    Clean {
        /// The cache's URL.
        url: PathBuf,
        /// Also remove an unfinished job; it can then not be continued.
        #[arg(long)]
        unfinished: bool,
    },
    /// Encode damaged row groups again, to the same bytes.
    Repair {
        /// The cache's folder.
        dir: PathBuf,
        /// The source of the cache.
        #[command(flatten)]
        made_of: MadeOfArgs,
    },
    /// Check against the source: encodes a sample of the images again and compares tokens, keys, labels and crops.
    Check {
        /// The cache's folder or URL.
        dir: PathBuf,
        /// The source of the cache.
        #[command(flatten)]
        made_of: MadeOfArgs,
        /// Number of images to compare.
        #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        sample: u32,
        /// Seed of their choice.
        #[arg(long, default_value_t = 0, value_name = "S")]
        seed: u64,
    },
}

/// `cache show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The cache's folder.
    pub dir: PathBuf,
    /// The row, counted from 0.
    #[arg(long, default_value_t = 0, value_name = "ROW")]
    pub index: usize,
    /// Print the decoded picture: half blocks in 24-bit colours, two pixels per character.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "blocks", value_parser = image_form, requires = "tokenizer")]
    pub image: Option<ImageArg>,
    /// Tokenizer that decodes it: weights, or `tiny`.
    #[arg(long, value_name = "WEIGHTS", requires = "image")]
    pub tokenizer: Option<PathBuf>,
    /// Which copy of the weights: raw, or ema (their moving average).
    #[arg(long, default_value = "raw", value_name = "raw|ema")]
    pub variant: String,
    /// Device.
    #[command(flatten)]
    pub device: super::DeviceArgs,
}

/// `--image`: how the picture is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageArg {
    /// Half blocks in 24-bit colours.
    Blocks,
}

fn image_form(text: &str) -> Result<ImageArg, String> {
    match text {
        "blocks" | "auto" => Ok(ImageArg::Blocks),
        "kitty" | "sixel" => Err("was removed: leave out the value for half blocks; `tokengrid view` shows all pixels".into()),
        _ => Err("expected blocks".into()),
    }
}

/// `cache find`.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// The cache's folder.
    pub dir: PathBuf,
    /// Class, by name or index; -1 for rows without one.
    #[arg(long, value_name = "CLASS", allow_hyphen_values = true)]
    pub class: Option<String>,
    /// Text that is part of the key.
    #[arg(long, value_name = "TEXT")]
    pub key: Option<String>,
    /// View, counted from 0.
    #[arg(long, value_name = "N")]
    pub view: Option<u32>,
    /// Rows whose bits are nearly those of this row, counted from 0, or of this image, the nearest first.
    #[arg(long, value_name = "ROW|IMAGE", conflicts_with_all = ["class", "key", "view"])]
    pub near: Option<String>,
    /// With --near: bits of the grid that may differ [default: one in 23, as 200 of 4608].
    #[arg(long, value_name = "D", requires = "near")]
    pub distance: Option<u32>,
    /// With --near IMAGE: the tokenizer that the cache was made with: weights, or `tiny`.
    #[arg(long, value_name = "WEIGHTS", requires = "near")]
    pub tokenizer: Option<PathBuf>,
    /// Which copy of the weights: raw, or ema (their moving average).
    #[arg(long, default_value = "raw", value_name = "raw|ema")]
    pub variant: String,
    /// Device.
    #[command(flatten)]
    pub device: super::DeviceArgs,
    /// Rows that are listed, of those that are found.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: usize,
}

/// `cache leak`.
#[derive(Debug, Args)]
pub(crate) struct LeakArgs {
    /// The cache of the training set.
    pub train: PathBuf,
    /// The cache of the validation set; the same cache again finds its near-duplicates.
    pub val: PathBuf,
    /// Bits of a grid that may differ [default: one in 23, as 200 of 4608].
    #[arg(long, value_name = "D")]
    pub distance: Option<u32>,
    /// Pairs that are listed, of those that are found.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: usize,
}

/// `--sort` of `cache classes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ClassOrder {
    /// By index.
    Label,
    /// The largest first.
    Rows,
    /// The lowest entropy first.
    Entropy,
}

/// `cache import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file or folder of tokens (also as --tokens).
    #[arg(value_name = "INPUT", required_unless_present = "tokens", conflicts_with = "tokens")]
    pub input: Option<PathBuf>,
    /// What the input is [default: by its name; 1x is never guessed].
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<ImportFormat>,
    /// Integers, N x H*W or images x views x H*W (.npy); Parquet with tokens as lists of int32; or a folder of I.npy, as
    /// LlamaGen writes them.
    #[arg(long, value_name = "FILE|DIR")]
    pub tokens: Option<PathBuf>,
    /// Labels, one per row or image (.npy); with a folder of tokens, the folder of labels. Parquet brings its own.
    #[arg(long, value_name = "FILE|DIR")]
    pub labels: Option<PathBuf>,
    /// Keys, one line per row or image [default: numbers].
    #[arg(long, value_name = "FILE.txt")]
    pub keys: Option<PathBuf>,
    /// Height and width of a grid, in tokens: 16x16. For all but npy, parquet and memmap a square one is found by itself.
    #[arg(long, value_name = "HxW", value_parser = grid)]
    pub grid: Option<(u32, u32)>,
    /// Parquet, arrow, npz: the column or array of tokens [default: tokens, input_ids, codes, token_ids, indices, image_tokens].
    #[arg(long, value_name = "NAME")]
    pub tokens_column: Option<String>,
    /// Parquet, arrow: the column of labels [default: label, labels, class_id, class_label, class].
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// memmap: the type of a token, uint16, uint32, int32 or int64 [default: uint16].
    #[arg(long, value_name = "TYPE", value_parser = token_type)]
    pub dtype: Option<TokenType>,
    /// A name in front of every key, NAME/KEY, so that sets whose keys are numbers can be merged.
    #[arg(long, value_name = "NAME", value_parser = key_prefix)]
    pub key_prefix: Option<String>,
    /// 1x: which bit of a token channel 0 is, for sets of which it is known: low-first or high-first.
    #[arg(long, value_name = "ORDER", value_parser = bit_order)]
    pub bit_order: Option<BitOrder>,
    /// A cache of the same tokenizer, whose name and fingerprint the new cache gets. 1x: without --bit-order, its channels also
    /// tell the order of the bits.
    #[arg(long, value_name = "CACHE")]
    pub like: Option<PathBuf>,
    /// The tokenizer that made the tokens, which is recorded: weights, or `tiny`. 1x: without --bit-order, frames that it decodes also tell
    /// the order of the bits, since they are smooth only in the right one.
    #[arg(long, value_name = "WEIGHTS", conflicts_with = "like")]
    pub tokenizer: Option<PathBuf>,
    /// The fingerprint of the tokenizer that made the tokens, as `cache info` prints it, where its weights are not at hand.
    #[arg(long, value_name = "HASH", conflicts_with_all = ["like", "tokenizer"], value_parser = fingerprint, visible_alias = "tokenizer-fingerprint")]
    pub tokenizer_hash: Option<String>,
    /// Which copy of the tokenizer's weights: raw, or ema (their moving average).
    #[arg(long, default_value = "raw", value_name = "raw|ema")]
    pub variant: String,
    /// Device, for --tokenizer.
    #[command(flatten)]
    pub device: super::DeviceArgs,
    /// Bits of a token [default: as many as the largest one needs].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=24))]
    pub bits: Option<u32>,
    /// Rows of each image, next to each other in the array [default: what its shape says (images x views x H*W, a WebDataset
    /// sample of views x H*W), else 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub views: Option<u32>,
    /// The cache's folder.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Start again where there is a cache already.
    #[arg(long)]
    pub overwrite: bool,
}

/// `cache export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The cache's folder or URL.
    pub dir: PathBuf,
    /// What is written.
    #[arg(long, default_value = "npy", value_name = "FORMAT")]
    pub format: ExportFormat,
    /// The folder for the files. Files that an earlier export wrote are replaced, others are refused.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// 1x: where channel 0 goes, of a cache that was not made of such a set: low-first or high-first.
    #[arg(long, value_name = "ORDER", value_parser = bit_order)]
    pub bit_order: Option<BitOrder>,
    /// memmap: the type of a token, uint16, uint32, int32 or int64 [default: uint32].
    #[arg(long, value_name = "TYPE", value_parser = token_type)]
    pub dtype: Option<TokenType>,
    /// webdataset: rows of a shard [default: 10000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub shard_rows: Option<u32>,
    /// Replace files of these names, even those of other programs.
    #[arg(long)]
    pub overwrite: bool,
}

/// `cache subset`.
#[derive(Debug, Args)]
pub(crate) struct SubsetArgs {
    /// The cache's folder.
    pub dir: PathBuf,
    /// The new cache's folder.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Classes, by name or index: n01440764,n01443537 or 0,1.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub classes: Option<Vec<String>>,
    /// The first N images of what the other conditions leave.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Views A to B-1: A..B.
    #[arg(long, value_name = "A..B", value_parser = view_range)]
    pub views: Option<std::ops::Range<u32>>,
    /// One split.
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// The images of these keys: a file with a key per line, as `view` saves it.
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Start again where there is a cache already.
    #[arg(long)]
    pub overwrite: bool,
}

/// The source of a cache; its size, views and seed are recorded in the cache.
#[derive(Debug, Args)]
pub(crate) struct MadeOfArgs {
    /// The images that the cache was made from. For a cache with splits one source per split: train=DIR; for a merged cache
    /// those of all parts, in order.
    #[arg(long, value_name = "[SPLIT=]SOURCE", required = true)]
    pub source: Vec<PathBuf>,
    /// Its --labels, if given.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Its --image-column, if given.
    #[arg(long, value_name = "NAME")]
    pub image_column: Option<String>,
    /// Its --label-column, if given.
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// Its --preset, if given.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<super::PresetArg>,
    /// The names that were left out.
    #[arg(long, value_name = "NAME|@FILE")]
    pub exclude: Vec<String>,
    /// Its --limit, if given.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Tokenizer.
    #[command(flatten)]
    pub tokenizer: super::TokenizerArgs,
    /// Device.
    #[command(flatten)]
    pub device: super::DeviceArgs,
}

/// `--format` of `cache export`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// tokens.npy (int32, N x H*W), labels.npy, keys.txt.
    Npy,
    /// Parquet, readable by any data set library: tokens as lists of int32.
    ParquetList,
    /// Video frames as the 1X world-model data: video.bin, segment_ids.bin, metadata.json, the other files.
    #[value(name = "1x")]
    OneX,
    /// LlamaGen's: a file per image, `imagenet<SIZE>_codes/I.npy` and `imagenet<SIZE>_labels/I.npy`.
    Llamagen,
    /// RAR's, TiTok's and AliTok's: a line {"class_id": L, "tokens": [...]} per row.
    Jsonl,
    /// tokens.bin without a header, as numpy.memmap reads it, and labels.npy.
    Memmap,
    /// MAR's layout: an .npz per image below class folders, tokens and, of a mirrored second view, tokens_flip.
    Npz,
    /// WebDataset shards: .tokens.npy, .cls and .json per row.
    Webdataset,
}

/// `--format` of `cache import`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ImportFormat {
    /// An array: N x H*W, or images x views x H*W.
    Npy,
    /// Parquet with tokens as lists of integers: a file, or a folder of them (Hugging Face data sets).
    Parquet,
    /// Video frames: a folder with video.bin and metadata.json, as the 1X world-model data.
    #[value(name = "1x")]
    OneX,
    /// A folder with `<NAME>_codes/I.npy` and `<NAME>_labels/I.npy`, or `I.npy` with --labels.
    Llamagen,
    /// A line {"class_id": L, "tokens": [...]} per row (.jsonl, .jsonl.gz).
    Jsonl,
    /// WebDataset: a .tar or .tar.gz or a folder of them, with tokens as .npy or .json and classes as .cls.
    Webdataset,
    /// Tokens one after the other, as numpy.memmap has them; or of nanoGPT's speedruns, with their header of 1024 bytes.
    Memmap,
    /// MAR's layout: an .npz of integers per image below class folders. Latents are no tokens, and are refused.
    Npz,
    /// What save_to_disk of Hugging Face's datasets writes: a folder of .arrow files, or of such folders, which become splits.
    Arrow,
}

/// `16x16`, height and width.
pub(super) fn grid(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(height, width)| Some((height.parse().ok()?, width.parse().ok()?)));
    sides.filter(|(height, width)| *height > 0 && *width > 0).ok_or_else(|| "expected HxW, for example 16x16".into())
}

fn token_type(text: &str) -> Result<TokenType, String> {
    text.parse()
}

fn bit_order(text: &str) -> Result<BitOrder, String> {
    text.parse()
}

/// Slashes at the end are not part of the name: one follows it anyway.
fn key_prefix(text: &str) -> Result<String, String> {
    let name = text.trim_end_matches('/');
    let is_name = !name.is_empty() && !name.starts_with('/') && !name.chars().any(char::is_control);
    is_name.then(|| name.to_owned()).ok_or_else(|| "expected a name, for example night".into())
}

fn fingerprint(text: &str) -> Result<String, String> {
    let is_hash = text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_ascii_lowercase()).ok_or_else(|| "expected hexadecimal digits, as `cache info` prints them".into())
}

fn view_range(text: &str) -> Result<std::ops::Range<u32>, String> {
    let ends = text.split_once("..").and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    ends.filter(|range| !range.is_empty()).ok_or_else(|| "expected A..B, for example 0..4".into())
}

/// How a cache's files are read.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct AccessArgs {
    /// Read the whole cache into the page cache at once, if it fits in memory.
    #[arg(long)]
    pub preload: bool,
    /// Copy the files into memory instead of mapping them, if something may truncate them while they are read.
    #[arg(long, conflicts_with = "preload")]
    pub no_mmap: bool,
}

impl AccessArgs {
    /// The library's value of these options.
    pub(crate) fn access(self) -> tokengrid_cache::Access {
        match self {
            AccessArgs { no_mmap: true, .. } => tokengrid_cache::Access::Copy,
            AccessArgs { preload: true, .. } => tokengrid_cache::Access::Preload,
            _ => tokengrid_cache::Access::Map,
        }
    }
}
