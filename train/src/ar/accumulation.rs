//! Gradient accumulation: the number of micro-batches per step.

use serde::{Deserialize, Serialize};
use std::fmt;
use toml::Value;

/// Samples per step in the reference's training: B on 32 devices with 24 each, L on 64 with 12, XL on 96 with 8.
pub const REFERENCE_GLOBAL_BATCH: usize = 768;

/// How [`GradAccum::Auto`] is written in a configuration.
const AUTO: &str = "auto";

/// `train.grad_accum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum GradAccum {
    /// This many micro-batches per step and process.
    Count(usize),
    /// As many as the global batch needs: `train.global_batch`, else [`REFERENCE_GLOBAL_BATCH`].
    Auto,
}

impl GradAccum {
    /// Samples per step, of all processes together, where `train.global_batch` is not set: `world_size` processes with
    /// micro-batches of `batch_size` samples.
    pub fn global_batch(self, batch_size: usize, world_size: usize) -> usize {
        match self {
            GradAccum::Count(count) => batch_size * count * world_size,
            GradAccum::Auto => REFERENCE_GLOBAL_BATCH,
        }
    }

    /// Micro-batches per step and process, if the number is fixed.
    pub fn count(self) -> Option<usize> {
        match self {
            GradAccum::Count(count) => Some(count),
            GradAccum::Auto => None,
        }
    }
}

impl From<usize> for GradAccum {
    fn from(count: usize) -> GradAccum {
        GradAccum::Count(count)
    }
}

impl TryFrom<Value> for GradAccum {
    type Error = String;

    fn try_from(value: Value) -> Result<GradAccum, String> {
        let count = value.as_integer().and_then(|count| usize::try_from(count).ok());
        match count {
            Some(count) => Ok(GradAccum::Count(count)),
            None if value.as_str() == Some(AUTO) => Ok(GradAccum::Auto),
            None => Err(format!("grad_accum is {value}; expected a number of micro-batches, or \"{AUTO}\"")),
        }
    }
}

impl From<GradAccum> for Value {
    fn from(grad_accum: GradAccum) -> Value {
        match grad_accum {
            GradAccum::Count(count) => Value::Integer(i64::try_from(count).unwrap_or(i64::MAX)),
            GradAccum::Auto => Value::from(AUTO),
        }
    }
}

impl fmt::Display for GradAccum {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            GradAccum::Count(count) => count.fmt(f),
            GradAccum::Auto => AUTO.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_auto_round_trips() {
        for (value, wanted) in [(Value::from(4), GradAccum::Count(4)), (Value::from("auto"), GradAccum::Auto)] {
            assert_eq!(GradAccum::try_from(value.clone()), Ok(wanted));
            assert_eq!(Value::from(wanted), value);
        }
        for other in [Value::from(-1), Value::from(1.5), Value::from("automatic"), Value::from(true)] {
            let error = GradAccum::try_from(other).unwrap_err();
            assert!(error.contains("expected a number of micro-batches, or \"auto\""), "{error}");
        }
    }

    #[test]
    fn auto_is_the_references_batch_on_any_number_of_processes() {
        assert_eq!([1, 5, 32].map(|world_size| GradAccum::Auto.global_batch(24, world_size)), [768; 3]);
        assert_eq!(GradAccum::Count(4).global_batch(24, 8), REFERENCE_GLOBAL_BATCH);
    }
}
