//! Environment variables of this program with a fixed set of values. Any other value is refused before anything is done: it would
//! otherwise count as unset, without a word.

use crate::exit::Usage;
use std::env;
use tracing_subscriber::EnvFilter;

/// The filter of the log.
pub(crate) const LOG: &str = "TOKENGRID_LOG";

/// Variables and their values; an empty one counts as unset.
const CHOICES: [(&str, [&str; 2]); 2] = [("TOKENGRID_ROUTE", ["host", "device"]), ("TOKENGRID_BACKEND", ["nccl", "gloo"])];

/// Checks all of them.
pub(crate) fn check() -> Result<(), Usage> {
    for (name, choices) in CHOICES {
        let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { continue };
        if !choices.iter().any(|choice| value == *choice) {
            let text = format!("{name}={}: expected {}", value.to_string_lossy(), choices.join(" or "));
            return Err(Usage(text));
        }
    }
    let Some(filter) = env::var_os(LOG) else { return Ok(()) };
    let filter = filter.to_string_lossy();
    EnvFilter::try_new(&filter).map(drop).map_err(|error| {
        Usage(format!("{LOG}={filter}: {error}; expected a level or a filter, for example info or tokengrid_tokenize=debug"))
    })
}
