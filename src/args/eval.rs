//! `eval ...`.

use super::source::at_least_one;
use super::{BadArgs, DeviceArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: EvalCommand,
}

/// `eval ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Reconstruction quality of a tokenizer: rFID, PSNR, SSIM, LPIPS, use of the codebook.
    Reconstruction(EvalReconstructionArgs),
    /// Quality of generated pictures: FID, sFID, inception score, precision and recall.
    Samples(EvalSamplesArgs),
    /// The FID of two matrices of features.
    Features {
        /// Features [pictures, values], float32 or float64.
        #[arg(value_name = "A.npy")]
        a: PathBuf,
        /// Features of the same network.
        #[arg(value_name = "B.npy")]
        b: PathBuf,
    },
    /// Teacher-forced loss of an autoregressive model over a cache, in nats per token.
    Ar(EvalArArgs),
}

/// `--size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SizeArg {
    /// The size of each picture.
    Original,
    /// Side of a square in pixels.
    Pixels(u32),
}

/// Longest side that images are resized to.
pub(crate) const SIZE_MAX: u32 = 16_384;

fn size(text: &str) -> Result<SizeArg, String> {
    let pixels = || text.parse().ok().filter(|pixels| (1..=SIZE_MAX).contains(pixels)).map(SizeArg::Pixels);
    if text == "original" { Some(SizeArg::Original) } else { pixels() }
        .ok_or_else(|| format!("expected `original` or a number of pixels from 1 to {SIZE_MAX}"))
}

/// The rank of this process among several.
#[derive(Debug, Args)]
pub(crate) struct AmongArgs {
    /// This process, counted from 0 [default: RANK, then SLURM_PROCID, then 0].
    #[arg(long, value_name = "R")]
    pub rank: Option<u32>,
    /// Processes that share the work [default: WORLD_SIZE, then SLURM_NTASKS, then 1].
    #[arg(long, value_name = "W")]
    pub world_size: Option<u32>,
}

/// `eval reconstruction`.
#[derive(Debug, Args)]
pub(crate) struct EvalReconstructionArgs {
    /// Images: any source, as `tokenize` takes it.
    pub source: PathBuf,
    /// Tokenizer weights: .ckpt / .pt / .pth, .safetensors, or `tiny`, which is built in.
    #[arg(long, value_name = "WEIGHTS")]
    pub tokenizer: PathBuf,
    /// Which copy of the weights: raw, or ema (their moving average) [default: ema where the file has it, as in the published
    /// results].
    #[arg(long, value_name = "raw|ema")]
    pub variant: Option<String>,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Side of the square that is cut out of every image, in pixels; or `original`: whole images in their own size, with a
    /// mid-grey margin on all sides up to a multiple of the tokenizer's factor, measured without that margin.
    #[arg(long, default_value = "256", value_name = "PIXELS|original", value_parser = size)]
    pub size: SizeArg,
    /// For rFID: the published pt_inception-2015-12-05-6726825d.pth.
    #[arg(long, value_name = "FILE")]
    pub inception: Option<PathBuf>,
    /// For LPIPS by VGG16: the published vgg16-397923af.pth with vgg.pth beside it, both as `A,B`, or one file with both.
    #[arg(long, value_name = "FILE")]
    pub lpips_vgg: Option<PathBuf>,
    /// For LPIPS by AlexNet: the published alexnet-owt-7be5be79.pth with alex.pth beside it, both as `A,B`, or one file with
    /// both.
    #[arg(long, value_name = "FILE")]
    pub lpips_alex: Option<PathBuf>,
    /// Images per call of the model on a GPU. On the CPU, and with --size original, every image is a separate call.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch_size: u32,
    /// Parquet: the column of pictures. WebDataset: the ending of a sample's picture.
    #[arg(long, value_name = "NAME")]
    pub image_column: Option<String>,
    /// Only the first N images.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// An image of more pixels is bad.
    #[arg(long, default_value_t = tokengrid_ingest::MAX_PIXELS, value_name = "PIXELS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pixels: u64,
    /// Leave out images of this key or file name; may be repeated. @FILE: of the names in a file, a line each.
    #[arg(long, value_name = "NAME|@FILE")]
    pub exclude: Vec<String>,
    /// Bad images.
    #[command(flatten)]
    pub bad: BadArgs,
    /// Folder for the worst and the best reconstructions: original left, reconstruction right.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// With --out: number of worst pictures to write, and of best ones.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub pairs: u32,
    /// The processes that share the work.
    #[command(flatten)]
    pub among: AmongArgs,
}

/// `--protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProtocolArg {
    /// That of the pytorch-fid program.
    PytorchFid,
    /// That of the ADM evaluation suite and torch-fidelity.
    Adm,
}

/// `eval samples`.
#[derive(Debug, Args)]
pub(crate) struct EvalSamplesArgs {
    /// Generated pictures: a folder or any other source; an .npz file with bytes `arr_0` [N, H, W, 3]; or statistics, an .npz
    /// file with `mu` and `sigma`.
    pub a: PathBuf,
    /// The reference pictures or statistics, in any of these forms.
    pub b: Option<PathBuf>,
    /// The published pt_inception-2015-12-05-6726825d.pth.
    #[arg(long, value_name = "FILE")]
    pub inception: PathBuf,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// How pictures are resized and scaled for the network. Only results and statistics of the same protocol are comparable.
    #[arg(long, default_value = "pytorch-fid", value_name = "NAME")]
    pub protocol: ProtocolArg,
    /// `original`, or the side of a square that is cut out of every image of a source, as `tokenize` does it.
    #[arg(long, default_value = "original", value_name = "PIXELS|original", value_parser = size)]
    pub size: SizeArg,
    /// Splits of the inception score [default: one for every 5,000 pictures].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub splits: Option<usize>,
    /// Also precision and recall. Keeps the features of all pictures: 8 KB each.
    #[arg(long)]
    pub precision_recall: bool,
    /// Write the statistics of A (`mu`, `sigma`, `mu_s`, `sigma_s`) to this .npz file.
    #[arg(long, value_name = "FILE.npz")]
    pub save_stats: Option<PathBuf>,
    /// Images per call of the network on a GPU. On the CPU every image is a separate call.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch_size: u32,
    /// Only the first N pictures of either side.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Bad images.
    #[command(flatten)]
    pub bad: BadArgs,
    /// The processes that share the work.
    #[command(flatten)]
    pub among: AmongArgs,
}

/// `eval ar`.
#[derive(Debug, Args)]
pub(crate) struct EvalArArgs {
    /// A run's folder, one of its checkpoints, a file, or `tiny`.
    #[arg(long, value_name = "FILE|DIR")]
    pub checkpoint: PathBuf,
    /// Which of a run's weights: raw, or ema (their moving average, see `train.ema_decay`) [default: ema where the checkpoint has
    /// it].
    #[arg(long, value_name = "raw|ema", visible_alias = "variant")]
    pub model_variant: Option<String>,
    /// The token cache.
    #[arg(long, value_name = "DIR")]
    pub cache: PathBuf,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Attention heads of the model, where its file does not say. The grid is then the cache's.
    #[arg(long, value_name = "N")]
    pub n_head: Option<i64>,
    /// Only the first N rows.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// The processes that share the work.
    #[command(flatten)]
    pub among: AmongArgs,
}
