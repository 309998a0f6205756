//! Pictures in terminals: `cache show --image`.

mod blocks;
mod kitty;
mod sixel;

use crate::args::{DeviceArgs, Global, ImageArg, TokenizerArgs};
use crate::commands::cache::table::terminal_columns;
use crate::torch::decoder::TokenDecoder;
use tokengrid_cache::TokenCache;

/// Columns of a picture of half blocks where the terminal does not say how many it has.
const COLUMNS: usize = 80;

/// Decodes a grid and prints its picture.
pub fn print(
    cache: &TokenCache,
    tokens: &[u32],
    how: ImageArg,
    weights: &TokenizerArgs,
    device: &DeviceArgs,
    global: &Global,
) -> anyhow::Result<()> {
    let picture = TokenDecoder::open(cache.manifest(), weights, device, global)?.picture(tokens);
    let how = if how == ImageArg::Auto { known_by(&|name| std::env::var(name).ok()) } else { how };
    let text = match how {
        ImageArg::Kitty => kitty::text(&picture),
        ImageArg::Sixel => sixel::text(&picture),
        ImageArg::Blocks | ImageArg::Auto => {
            let columns = terminal_columns();
            blocks::text(&picture, if columns == usize::MAX { COLUMNS } else { columns })
        }
    };
    crate::output::print_raw(&format!("{text}\n"));
    Ok(())
}

/// What the terminal can, going by what it says of itself in the environment. Asking it would need an answer, which not
/// every terminal gives.
fn known_by(variable: &dyn Fn(&str) -> Option<String>) -> ImageArg {
    let (term, program) = (variable("TERM").unwrap_or_default(), variable("TERM_PROGRAM").unwrap_or_default());
    // Within these, the outer terminal's abilities do not count.
    if term.starts_with("screen") || term.starts_with("tmux") {
        return ImageArg::Blocks;
    }
    let is_kitty = term.contains("kitty") || term.contains("ghostty") || variable("KITTY_WINDOW_ID").is_some();
    if is_kitty || ["ghostty", "WezTerm"].contains(&program.as_str()) {
        return ImageArg::Kitty;
    }
    let is_sixel = term.contains("sixel") || term.starts_with("foot") || term.starts_with("mlterm");
    if is_sixel { ImageArg::Sixel } else { ImageArg::Blocks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_their_environment() {
        let known = |pairs: &[(&str, &str)]| {
            known_by(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(known(&[("TERM", "xterm-kitty")]), ImageArg::Kitty);
        assert_eq!(known(&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "WezTerm")]), ImageArg::Kitty);
        assert_eq!(known(&[("TERM", "tmux-256color"), ("KITTY_WINDOW_ID", "1")]), ImageArg::Blocks);
        assert_eq!(known(&[("TERM", "foot")]), ImageArg::Sixel);
        assert_eq!(known(&[("TERM", "xterm-256color")]), ImageArg::Blocks);
        assert_eq!(known(&[]), ImageArg::Blocks);
    }
}
