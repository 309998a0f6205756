//! `demo`.

use clap::Args;
use std::path::PathBuf;

/// `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder for all output of the demo. The folder of an earlier demo is replaced.
    #[arg(long, default_value = "demo", value_name = "DIR")]
    pub out: PathBuf,
    /// Training steps [default: enough for recognizable samples; minutes on two cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: Option<u32>,
    /// Do not start the inspector, which otherwise shows the result if the program runs in a terminal.
    #[arg(long)]
    pub no_view: bool,
}
