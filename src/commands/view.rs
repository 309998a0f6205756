//! `tokengrid view`: the inspector in a browser.

use super::cache::inspection_folder;
use crate::args::{Global, ViewArgs};
use crate::signals::{self, Stopped};
use crate::terminal::print_json;
use serde_json::json;
use tokengrid_ingest::{Source, SourceOptions};
use tokengrid_view::{Decode, OpenSource, Server, ViewConfig};

/// Runs the command: until Ctrl-C.
pub fn run(args: &ViewArgs, global: &Global) -> anyhow::Result<()> {
    let config = ViewConfig {
        host: args.host.clone(),
        port: args.port,
        source: source(args),
        decoder: decoder(args, global)?,
        inspection_folder: inspection_folder(),
        threads: global.threads.map(usize::from),
        ..ViewConfig::new(args.dir.clone())
    };
    let server = Server::bind(config)?;
    let address = server.address();
    if !address.ip().is_loopback() {
        tracing::warn!("{address} is no loopback address: whoever reaches it sees the cache");
    }
    if global.json {
        print_json(&json!({ "address": format!("http://{address}") }))?;
    } else {
        println!("http://{address}  (Ctrl-C ends it)");
    }
    server.run(signals::flag());
    Err(Stopped.into())
}

/// How the source is opened: in the background, since a large one takes a while.
fn source(args: &ViewArgs) -> Option<OpenSource> {
    let path = args.source.clone()?;
    let options = SourceOptions {
        labels: args.labels.clone(),
        image_column: args.image_column.clone(),
        label_column: args.label_column.clone(),
        ..SourceOptions::default()
    };
    let open = move || {
        Source::open_until(&path, &options, signals::flag())
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    };
    Some(Box::new(open))
}

#[cfg(not(feature = "torch"))]
fn decoder(_: &ViewArgs, _: &Global) -> anyhow::Result<Option<(String, Box<dyn Decode>)>> {
    Ok(None)
}

#[cfg(feature = "torch")]
fn decoder(args: &ViewArgs, global: &Global) -> anyhow::Result<Option<(String, Box<dyn Decode>)>> {
    use super::decoder::TokenDecoder;
    let Some(tokenizer) = &args.tokenizer else { return Ok(None) };
    let manifest = tokengrid_cache::Manifest::read(&args.dir)?;
    let weights = crate::args::TokenizerArgs { tokenizer: tokenizer.clone(), variant: args.variant.clone() };
    let decoder = TokenDecoder::open(&manifest, &weights, &args.device, global)?;
    Ok(Some((tokenizer.display().to_string(), Box::new(decoder))))
}

#[cfg(feature = "torch")]
impl Decode for super::decoder::TokenDecoder {
    fn decode(&mut self, tokens: &[u32]) -> tokengrid_view::Picture {
        let tokengrid_tokenize::Picture { width, height, rgb } = self.picture(tokens);
        tokengrid_view::Picture { width, height, rgb }
    }
}
