//! `demo`.

use clap::Args;
use std::path::PathBuf;

/// `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder for everything that the demo makes. That of an earlier demo is made anew.
    #[arg(long, default_value = "demo", value_name = "DIR")]
    pub out: PathBuf,
    /// Steps of the training [default: those of a model worth sampling from: minutes on two cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: Option<u32>,
    /// End without the inspector, which otherwise shows the result where a person sits at the terminal.
    #[arg(long)]
    pub no_view: bool,
}
