//! Image source, crop recipe and policy for bad images: shared by all commands that read images.

use clap::{Args, ValueEnum};
use std::path::PathBuf;
use tokengrid_ingest::{RecipeError, Resize};

/// Image source and crop recipe.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Images: class folders, a flat folder, a list (.txt), ILSVRC2012_img_train.tar or _val.tar, WebDataset shards
    /// ({000..099}.tar), Parquet in the Hugging Face layout. Nothing is unpacked.
    pub source: PathBuf,
    /// Side of the square images in pixels.
    #[arg(long, default_value_t = 256, value_name = "PIXELS")]
    pub size: u32,
    /// Views per image: center, center+flip, random-crop:K, ten-crop, ten-crop:1.1.
    #[arg(long, default_value = "center", value_name = "RECIPE")]
    pub views: String,
    /// Seed of random crops: the same seed, image and view give the same crop everywhere.
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// `exact`: torchvision's Resize and CenterCrop. `adm`: center_crop_arr of ADM, DiT, LlamaGen, MAR and RAR (halve, then
    /// bicubic, then a square from the centre). Both as Pillow computes them, to the bit.
    #[arg(long, default_value = "exact", value_name = "exact|adm", value_parser = resize)]
    pub resize: Resize,
    /// `ignore` takes pixels as stored, as the reference does; `apply` rotates and mirrors them as their EXIF tag says.
    #[arg(long, default_value = "ignore", value_name = "POLICY")]
    pub exif_orientation: OrientationArg,
    /// Class labels from a file instead of the source's own: `key label` lines, LOC_val_solution.csv, or one wnid per line.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Parquet: the column of pictures [default: `image`, `img` and the like]. WebDataset: the ending of a sample's picture,
    /// such as left.jpg.
    #[arg(long, value_name = "NAME")]
    pub image_column: Option<String>,
    /// Parquet: the column of labels, class indices or names [default: `label`]. WebDataset: the field of the .json, or an
    /// ending. `none`: no labels.
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// `open-magvit2`: leave out the image that the reference leaves out (n06596364_9591.JPEG).
    #[arg(long, value_name = "NAME")]
    pub preset: Option<PresetArg>,
    /// Leave out images of this key or file name; may be repeated. @FILE: of the names in a file, a line each.
    #[arg(long, value_name = "NAME|@FILE")]
    pub exclude: Vec<String>,
    /// Only the first N images.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// An image with more pixels than this is bad.
    #[arg(long, default_value_t = tokengrid_ingest::MAX_PIXELS, value_name = "PIXELS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pixels: u64,
}

/// `--exif-orientation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrientationArg {
    /// As stored.
    Ignore,
    /// As the EXIF tag says.
    Apply,
}

/// `--preset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PresetArg {
    /// The data set of Open-MAGVIT2.
    OpenMagvit2,
}

/// Policy for images that cannot be decoded.
#[derive(Debug, Args)]
pub(crate) struct BadArgs {
    /// Images that cannot be decoded: `quarantine` records them and continues, `fail` stops at the first.
    #[arg(long, default_value = "quarantine", value_name = "POLICY")]
    pub on_bad: OnBadArg,
    /// Stop when more than this share of all images is bad [default: 0.01 for `tokenize`, where ten are always allowed; no
    /// limit for `ingest`].
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub max_bad_fraction: Option<f64>,
}

/// `--on-bad`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnBadArg {
    /// Record and continue.
    Quarantine,
    /// Stop at the first.
    Fail,
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a number from 1".into())
}

fn resize(text: &str) -> Result<Resize, RecipeError> {
    text.parse()
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "expected a share from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("expected a share from 0 to 1".into()) }
}

/// `ingest`.
#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// Source and recipe.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Bad images.
    #[command(flatten)]
    pub bad: BadArgs,
    /// Write lossless PNGs `<key>.<view>.png` to this folder. Running the same command again makes what is missing.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// With --out: start again where there are PNGs of another recipe.
    #[arg(long, requires = "out")]
    pub overwrite: bool,
    /// Write the report (the object that --json prints) to this file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}
