//! `sample`.

use super::{ArModelArgs, DeviceArgs, TokenizerArgs};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `--preset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SamplePresetArg {
    /// 343 million parameters.
    B,
    /// 804 million parameters.
    L,
    /// 1.5 billion parameters.
    Xl,
}

/// `--cfg-schedule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScheduleArg {
    /// The full value at every token.
    Constant,
    /// In equal steps from 1 to the full value.
    Linear,
    /// Along half a cosine period: slow at both ends.
    Cosine,
}

/// `sample`.
#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// A run's folder, one of its checkpoints, or a file (.safetensors, or the reference's .ckpt), or `tiny`, which is built
    /// in.
    #[arg(long, value_name = "FILE|DIR")]
    pub checkpoint: PathBuf,
    /// Which of a run's weights: raw, or ema (their moving average, see `train.ema_decay`) [default: ema where the checkpoint has
    /// it].
    #[arg(long, value_name = "raw|ema")]
    pub model_variant: Option<String>,
    /// Tokenizer.
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// On a GPU: capture the step of a token as a CUDA graph and repeat it. No GPU has run it yet.
    #[arg(long)]
    pub cuda_graph: bool,
    /// `all`, or classes by index or name: 207,88 or tench,goldfish. Names: those of --class-names, else those beside the
    /// cache that the run was trained on.
    #[arg(long, default_value = "all", value_name = "LIST")]
    pub classes: String,
    /// Images per class.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub num_per_class: u32,
    /// Guidance and temperature of the published results of this model; explicit options override them.
    #[arg(long, value_name = "B|L|XL", ignore_case = true)]
    pub preset: Option<SamplePresetArg>,
    /// Classifier-free guidance for low and high bits: 1 is the class alone, 0 no class [default: 1,1].
    #[arg(long, value_name = "A,B")]
    pub cfg_scale: Option<String>,
    /// How the guidance scale goes from 1 at the first token to its full value at the last.
    #[arg(long, default_value = "constant", value_name = "constant|linear|cosine")]
    pub cfg_schedule: ScheduleArg,
    /// Temperature for low and high bits; 0 is greedy [default: 1,1].
    #[arg(long, value_name = "A,B")]
    pub temperature: Option<String>,
    /// Most likely tokens to choose from, for low and high bits; 0 is all, 1,1 is greedy [default: 0,0].
    #[arg(long, value_name = "A,B")]
    pub top_k: Option<String>,
    /// Probability mass to choose from, for low and high bits; 1 is all [default: 1,1].
    #[arg(long, value_name = "A,B")]
    pub top_p: Option<String>,
    /// Random seed. An image depends on the seed, its class and its number, not on the batch.
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Images per batch.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: u32,
    /// Model settings that the checkpoint does not record.
    #[command(flatten)]
    pub model: ArModelArgs,
    /// Folder for pictures, tokens and the grid. Running the same command again continues.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Also write all images as one npz (`arr_0`, bytes [N, H, W, 3]) for the ADM evaluation suite, in a random order that
    /// depends on the seed and is recorded in sample.json.
    #[arg(long, value_name = "FILE")]
    pub npz: Option<PathBuf>,
    /// Also write all tokens as one array, int32 [N, H*W], class by class.
    #[arg(long, value_name = "FILE.npy")]
    pub tokens: Option<PathBuf>,
    /// Also make a token cache of all tokens: a folder, as `tokenize` makes it.
    #[arg(long, value_name = "DIR")]
    pub cache_out: Option<PathBuf>,
    /// Names of the classes: a line each, lines of a class and its name (LOC_synset_mapping.txt), or JSON
    /// (imagenet_class_index.json) [default: those of the cache that the run was trained on, if it is still there].
    #[arg(long, value_name = "FILE")]
    pub class_names: Option<PathBuf>,
    /// Also write the distributions that tokens were drawn from: entropy and probabilities, as a picture and as JSON beside
    /// each image.
    #[arg(long)]
    pub diagnostics: bool,
    /// This process, counted from 0 [default: RANK, then SLURM_PROCID, then 0].
    #[arg(long, value_name = "R")]
    pub rank: Option<u32>,
    /// Processes that share the run [default: WORLD_SIZE, then SLURM_NTASKS, then 1].
    #[arg(long, value_name = "W")]
    pub world_size: Option<u32>,
    /// Replace the images of another run in the folder, and the files of --npz, --tokens and --cache-out.
    #[arg(long)]
    pub overwrite: bool,
}
