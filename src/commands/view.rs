//! `tokengrid view`: the inspector in a browser.

use super::cache::inspection_folder;
use super::ingest::named_sources;
use crate::args::{Global, ViewArgs};
use crate::signals::{self, Stopped};
use crate::terminal::print_json;
use anyhow::Context;
use serde_json::json;
use std::path::PathBuf;
use tokengrid_cache::{ClassNames, Manifest};
use tokengrid_ingest::{Source, SourceOptions};
use tokengrid_store::is_remote;
use tokengrid_view::{Beside, Decoder, NamedSource, OpenSource, Server, ViewConfig};

/// Runs the command: until Ctrl-C. Without a `decoder` there are no decoded pictures.
/// `beside` decodes the tokens of the cache beside this one.
pub(crate) fn run(
    args: &ViewArgs,
    decoder: Option<Decoder>,
    beside: Option<Decoder>,
    global: &Global,
) -> anyhow::Result<()> {
    if let Some(dir) = &args.export_dir {
        let metadata = std::fs::metadata(dir).with_context(|| format!("cannot write below {}", dir.display()))?;
        anyhow::ensure!(metadata.is_dir(), "--export-dir {}: not a folder", dir.display());
    }
    let config = ViewConfig {
        host: args.host.clone(),
        port: args.port,
        prefix: args.prefix.clone(),
        allowed_hosts: args.allow_host.clone(),
        source: source(args)?,
        decoder,
        inspection_folder: inspection_folder(),
        threads: global.threads.map(usize::from),
        export_dir: args.export_dir.clone(),
        class_names: class_names(args)?,
        beside: args.beside.clone().map(|dir| Beside { dir, decoder: beside }),
        ..ViewConfig::new(args.dir.clone())
    };
    // A file that shrinks makes one request fail; the server checks before it uses data that it read.
    tokengrid_cache::handle_lost_pages(tokengrid_cache::LostPages::Zeros);
    let server = Server::bind(config)?;
    let address = server.address();
    if !address.ip().is_loopback() {
        tracing::warn!("{address} is not a loopback address: everybody who can reach it sees the cache");
    }
    if global.json {
        print_json(&json!({ "address": format!("http://{address}"), "url": server.url() }))?;
    } else {
        println!("{}  (Ctrl-C ends it)", server.url());
    }
    server.run(signals::flag());
    // The server returns only when it was stopped.
    Err(anyhow::Error::from(Stopped).context("the inspector has stopped"))
}

/// The readable names that were given; they are kept beside the cache where that can be written to.
fn class_names(args: &ViewArgs) -> anyhow::Result<Option<ClassNames>> {
    let Some(file) = &args.class_names else { return Ok(None) };
    let classes = Manifest::read(&args.dir)?.classes;
    let names = ClassNames::read(file, &classes)?;
    if let Err(error) = names.store(&args.dir, &classes) {
        tracing::warn!("the names are shown, and not kept: {:#}", anyhow::Error::from(error));
    }
    Ok(Some(names))
}

/// How the sources are opened: in the background, since a large one takes a while. One that does not exist is refused at once.
fn source(args: &ViewArgs) -> anyhow::Result<Option<OpenSource>> {
    if args.source.is_empty() {
        return Ok(None);
    }
    let named = named_sources(&Manifest::read(&args.dir)?.splits, &args.source)?;
    let paths = named.iter().map(|(_, path)| path).chain(&args.labels);
    for path in paths.filter(|path| !is_remote(path)) {
        std::fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?;
    }
    let options = SourceOptions {
        labels: args.labels.clone(),
        image_column: args.image_column.clone(),
        label_column: args.label_column.clone(),
        // Only the images that are shown are read.
        is_shared: true,
        ..SourceOptions::default()
    };
    let open = move || {
        let open = |(split, path): (String, PathBuf)| match Source::open_until(&path, &options, signals::flag()) {
            Ok(source) => Ok(NamedSource { split, source }),
            Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
        };
        named.into_iter().map(open).collect()
    };
    Ok(Some(Box::new(open)))
}
