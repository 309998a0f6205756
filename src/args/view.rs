//! `view`.

use clap::Args;
use std::path::PathBuf;

/// `view`.
#[derive(Debug, Args)]
pub(crate) struct ViewArgs {
    /// The cache's folder. Pictures show the tokens as they are: the page of a row says whether its row group is damaged, and the
    /// first page checks everything.
    pub dir: PathBuf,
    /// Tokenizer that turns tokens into pictures: weights, or `tiny`, which is built in.
    #[arg(long, value_name = "WEIGHTS")]
    pub tokenizer: Option<PathBuf>,
    /// Which copy of the weights: raw, or ema (their moving average).
    #[arg(long, default_value = "raw", value_name = "raw|ema", requires = "tokenizer")]
    pub variant: String,
    /// Device.
    #[command(flatten)]
    pub device: super::DeviceArgs,
    /// The images that the cache was made from, to show beside their tokens. For a cache with splits one source per split:
    /// train=DIR; for a merged cache those of all parts, in order.
    #[arg(long, value_name = "[SPLIT=]SOURCE")]
    pub source: Vec<PathBuf>,
    /// Its --labels, if given.
    #[arg(long, value_name = "FILE", requires = "source")]
    pub labels: Option<PathBuf>,
    /// Its --image-column, if given.
    #[arg(long, value_name = "NAME", requires = "source")]
    pub image_column: Option<String>,
    /// Its --label-column, if given.
    #[arg(long, value_name = "NAME", requires = "source")]
    pub label_column: Option<String>,
    /// Another cache of the same images to show beside this one: of another tokenizer, or other views.
    #[arg(long, value_name = "DIR")]
    pub beside: Option<PathBuf>,
    /// Tokenizer of the other cache [default: that of this one, where both were made with it].
    #[arg(long, value_name = "WEIGHTS", requires = "beside")]
    pub beside_tokenizer: Option<PathBuf>,
    /// Readable names of the classes: lines of a class and its name, lines of names, or JSON. They are kept beside the cache.
    #[arg(long, value_name = "FILE")]
    pub class_names: Option<PathBuf>,
    /// The port; 0 takes any that is free.
    #[arg(long, default_value_t = 8080, value_name = "N")]
    pub port: u16,
    /// The address to listen on. The default accepts only connections from this machine; through another one, everybody who
    /// can reach it sees the cache.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: String,
    /// The path prefix of the page, for a reverse proxy that does not strip it.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PATH")]
    pub prefix: String,
    /// Another accepted host name, such as a reverse proxy's; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// The folder below which the page may write caches of selected images. Without it, the page writes nothing.
    #[arg(long, value_name = "DIR")]
    pub export_dir: Option<PathBuf>,
}
