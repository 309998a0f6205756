//! What a run's metrics are written to beside `metrics.jsonl`.

use serde::{Deserialize, Serialize};

/// `metrics.jsonl`, which is always written.
const JSONL: &str = "jsonl";

/// TensorBoard's event files.
const TENSORBOARD: &str = "tensorboard";

/// `train.logger`: a name, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "Vec<String>")]
pub struct Loggers(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Loggers {
    fn from(typed: OneOrMany) -> Loggers {
        match typed {
            OneOrMany::One(name) => Loggers(vec![name]),
            OneOrMany::Many(names) => Loggers(names),
        }
    }
}

impl From<Loggers> for Vec<String> {
    fn from(loggers: Loggers) -> Vec<String> {
        loggers.0
    }
}

impl Default for Loggers {
    fn default() -> Self {
        Loggers([JSONL, TENSORBOARD].map(String::from).to_vec())
    }
}

impl Loggers {
    /// Whether event files for TensorBoard are written.
    pub fn tensorboard(&self) -> bool {
        self.0.iter().any(|name| name == TENSORBOARD)
    }

    /// Checks the names.
    ///
    /// # Errors
    /// The first that is not known, and which ones are.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        let Some(other) = self.0.iter().find(|name| ![JSONL, TENSORBOARD].contains(&name.as_str())) else {
            return Ok(());
        };
        let mut what = format!("`{other}` is not a logger; expected `{JSONL}` or `{TENSORBOARD}`");
        if other == "wandb" {
            what += "; metrics.jsonl can be sent to Weights & Biases, see the guide, Watching a run";
        }
        Err(("train.logger", what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(toml: &str) -> Loggers {
        #[derive(Deserialize)]
        struct Section {
            logger: Loggers,
        }
        toml::from_str::<Section>(toml).unwrap().logger
    }

    #[test]
    fn a_name_is_a_list_of_one() {
        assert_eq!(of("logger = \"tensorboard\""), of("logger = [\"tensorboard\"]"));
        assert!(of("logger = \"tensorboard\"").tensorboard() && Loggers::default().tensorboard());
        assert!(!of("logger = \"jsonl\"").tensorboard() && !of("logger = []").tensorboard());
    }

    #[test]
    fn other_names_are_refused() {
        assert_eq!(of("logger = [\"jsonl\", \"tensorboard\"]").validate(), Ok(()));
        let (key, what) = of("logger = [\"jsonl\", \"wandb\"]").validate().unwrap_err();
        assert!(key == "train.logger" && what.contains("`wandb` is not") && what.contains("metrics.jsonl"), "{what}");
        assert!(of("logger = \"csv\"").validate().unwrap_err().1.contains("expected `jsonl` or `tensorboard`"));
    }
}
