//! Paths that may be URLs: sources, caches that are read, and the output of `tokenize`. The parser refuses all others.

use clap::{Arg, Command};
use std::any::TypeId;
use std::path::PathBuf;
use tokengrid_store::is_remote;

/// Arguments that may name an object store, by command.
const MAY_BE_URLS: [(&str, &[&str]); 23] = [
    ("bench ingest", &["source"]),
    ("bench loader", &["dir"]),
    ("bench train", &["source"]),
    ("cache check", &["dir", "source"]),
    ("cache classes", &["dir"]),
    ("cache clean", &["url"]),
    ("cache diff", &["a", "b"]),
    ("cache export", &["dir"]),
    ("cache find", &["dir"]),
    ("cache head", &["dir"]),
    ("cache info", &["dir"]),
    ("cache leak", &["train", "val"]),
    ("cache repair", &["source"]),
    ("cache show", &["dir"]),
    ("cache stats", &["dir"]),
    ("cache subset", &["dir"]),
    ("cache verify", &["dir"]),
    ("eval ar", &["cache"]),
    ("eval reconstruction", &["source"]),
    ("eval samples", &["a", "b"]),
    ("ingest", &["source"]),
    ("tokenize", &["source", "out"]),
    ("view", &["dir", "source"]),
];

/// The command with every other path made a local one. `name` is that of the command without the program's: `cache info`.
pub(super) fn refuse_elsewhere(command: Command, name: &str) -> Command {
    let allowed = MAY_BE_URLS.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, arguments)| arguments);
    let restrict = |argument: Arg| {
        let is_path = argument.get_value_parser().type_id() == TypeId::of::<PathBuf>();
        let may_be_url = allowed.iter().any(|id| argument.get_id() == id);
        if is_path && !may_be_url { argument.value_parser(local_path) } else { argument }
    };
    let below = |subcommand: Command| {
        let name = format!("{name} {}", subcommand.get_name());
        refuse_elsewhere(subcommand, name.trim_start())
    };
    command.mut_args(restrict).mut_subcommands(below)
}

fn local_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if is_remote(&path) {
        let rule = "only sources and caches are read from a URL, and only `tokenize` writes to a URL";
        return Err(format!("{rule}; give a local path, and copy the file"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_argument_that_may_be_a_url_is_there_and_a_path() {
        for (name, arguments) in MAY_BE_URLS {
            let mut command = crate::args::Cli::command();
            for word in name.split(' ') {
                command = command.find_subcommand(word).unwrap_or_else(|| panic!("no `{name}`")).clone();
            }
            for id in arguments {
                let argument = command.get_arguments().find(|argument| argument.get_id() == id);
                let argument = argument.unwrap_or_else(|| panic!("`{name}` has no {id}"));
                assert!(argument.get_value_parser().type_id() == TypeId::of::<PathBuf>(), "{name} {id}");
            }
        }
    }
}
