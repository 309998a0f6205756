//! `view`.

use clap::Args;
use std::path::PathBuf;

/// `view`.
#[derive(Debug, Args)]
pub(crate) struct ViewArgs {
    /// The cache's folder.
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
    /// The images that the cache was made of, to show beside their tokens. For a cache with splits one for each: train=DIR;
    /// for a merged one those of all parts, in their order.
    #[arg(long, value_name = "[SPLIT=]SOURCE")]
    pub source: Vec<PathBuf>,
    /// The labels that were given with it.
    #[arg(long, value_name = "FILE", requires = "source")]
    pub labels: Option<PathBuf>,
    /// The column of pictures that was given with it.
    #[arg(long, value_name = "NAME", requires = "source")]
    pub image_column: Option<String>,
    /// The column of labels that was given with it.
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
    /// The address to listen at. The default lets nobody in but this machine; anybody who reaches another one sees the cache.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: String,
    /// The path below which a reverse proxy shows the page, where it passes that path on. Others need none.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PATH")]
    pub prefix: String,
    /// A further name to answer under, such as a reverse proxy's; any number of times.
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// The folder below which the page may write caches of selected images. Without it, the page writes nothing.
    #[arg(long, value_name = "DIR")]
    pub export_dir: Option<PathBuf>,
}
