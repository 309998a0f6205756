//! The autoregressive model's hyper-parameters.

use crate::section;
use toml::{Table, Value};

section! {
    /// Hyper-parameters of the model; the defaults are the reference's B.
    ModelConfig {
        /// Width.
        dim: i64 = 1024,
        /// Attention heads; `dim / n_head` must be a multiple of 4.
        n_head: i64 = 16,
        /// Blocks over the positions of the grid.
        spatial_n_layer: i64 = 24,
        /// Blocks over the two sub-tokens of a position.
        factorized_n_layer: i64 = 2,
        /// Bits of the two sub-tokens, low bits first.
        factorized_bits: [u32; 2] = [6, 12],
        /// Tokens per image: a square number.
        block_size: i64 = 256,
        /// Classes; one more embedding stands for "no class".
        class_num: i64 = 1000,
        /// Dropout on the embedded sequence.
        token_drop: f64 = 0.1,
        /// Dropout after attention.
        resid_dropout: f64 = 0.1,
        /// Dropout after the feed-forward network.
        ffn_dropout: f64 = 0.1,
        /// Share of labels replaced by "no class", for classifier-free guidance.
        class_dropout: f64 = 0.1,
    }
}

/// Names of the presets, for messages.
pub const PRESETS: &str = "`B`, `L`, `XL` and `tiny`";

/// The sections of a training's configuration.
const SECTIONS: [&str; 3] = ["model", "train", "data"];

/// The TOML that a preset stands for: the reference's published models and how they were trained, and a small one. `None` for
/// an unknown name.
pub fn preset(name: &str) -> Option<&'static str> {
    Some(match name {
        "B" => include_str!("presets/B.toml"),
        "L" => include_str!("presets/L.toml"),
        "XL" => include_str!("presets/XL.toml"),
        "tiny" => include_str!("presets/tiny.toml"),
        _ => return None,
    })
}

impl ModelConfig {
    /// Side of the grid, in tokens.
    pub fn side(&self) -> i64 {
        (self.block_size as f64).sqrt().round() as i64
    }

    /// Width of a head.
    pub(crate) fn head_dim(&self) -> i64 {
        self.dim / self.n_head
    }

    /// Inner width of the feed-forward network: 8/3 of the model's, rounded up to a multiple of 256.
    pub fn ffn_dim(&self) -> i64 {
        (8 * self.dim / 3 + 255) / 256 * 256
    }

    /// Vocabularies of the two sub-tokens.
    pub fn vocab(&self) -> [i64; 2] {
        self.factorized_bits.map(|bits| 1 << bits)
    }

    /// Bits per token.
    pub fn bits(&self) -> u32 {
        self.factorized_bits.iter().sum()
    }

    /// Checks that such a model can be built.
    ///
    /// # Errors
    /// The key and what would be right.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let positive = [
            ("model.dim", self.dim, 1 << 16),
            ("model.n_head", self.n_head, 1 << 14),
            ("model.spatial_n_layer", self.spatial_n_layer, 1 << 10),
            ("model.factorized_n_layer", self.factorized_n_layer, 1 << 10),
            ("model.block_size", self.block_size, 1 << 20),
            ("model.class_num", self.class_num, 1 << 24),
        ];
        if let Some((key, value, most)) = positive.into_iter().find(|(_, value, most)| *value < 1 || value > most) {
            return Err((key, format!("{value} is out of range: 1 to {most}")));
        }
        if self.dim % self.n_head != 0 || self.head_dim() % 4 != 0 {
            let what = format!("{} does not divide dim {} into heads of a multiple of 4", self.n_head, self.dim);
            return Err(("model.n_head", what));
        }
        if self.side() * self.side() != self.block_size {
            return Err(("model.block_size", format!("{} is not a square number: grids are square", self.block_size)));
        }
        if self.factorized_bits.iter().any(|&bits| bits == 0 || bits > 16) {
            return Err(("model.factorized_bits", "each part takes 1 to 16 bits".into()));
        }
        let rates = [
            ("model.token_drop", self.token_drop),
            ("model.resid_dropout", self.resid_dropout),
            ("model.ffn_dropout", self.ffn_dropout),
            ("model.class_dropout", self.class_dropout),
        ];
        match rates.into_iter().find(|(_, rate)| !(0.0..1.0).contains(rate)) {
            Some((key, rate)) => Err((key, format!("{rate} is not a rate in [0, 1)"))),
            None => Ok(()),
        }
    }

    /// The model of a training's configuration, as TOML: its section `model`, with the preset that it names.
    ///
    /// # Errors
    /// Text that is no such configuration, or a model that cannot be built.
    pub(crate) fn of_toml(text: &str) -> Result<ModelConfig, String> {
        let mut table: Table = text.parse().map_err(|e: toml::de::Error| e.message().to_string())?;
        if let Some(other) = table.keys().find(|section| !SECTIONS.contains(&section.as_str())) {
            return Err(format!("unknown section `{other}`"));
        }
        let mut typed = match table.remove("model").unwrap_or(Value::Table(Table::new())) {
            Value::Table(typed) => typed,
            _ => return Err("`model` is no section".into()),
        };
        let mut model = match typed.remove("preset") {
            Some(name) => of_preset(name.as_str().unwrap_or_default())?,
            None => Table::new(),
        };
        model.extend(typed);
        if let Some(other) = model.keys().find(|key| !ModelConfig::KEYS.contains(&key.as_str())) {
            return Err(format!("[model]: unknown key `{other}`"));
        }
        let model: ModelConfig = model.try_into().map_err(|e: toml::de::Error| e.message().to_string())?;
        model.validate().map_err(|(key, what)| format!("`{key}`: {what}"))?;
        Ok(model)
    }
}

/// The section `model` of a preset.
fn of_preset(name: &str) -> Result<Table, String> {
    let text = preset(name).ok_or_else(|| format!("unknown preset `{name}`; there are {PRESETS}"))?;
    let table: Table = text.parse().map_err(|e: toml::de::Error| e.message().to_string())?;
    Ok(table.get("model").and_then(Value::as_table).cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_a_configuration_is_its_section_over_its_preset() {
        let model = ModelConfig::of_toml("[model]\npreset = \"L\"\nclass_num = 7\n[train]\nbatch_size = 3\n").unwrap();
        assert_eq!((model.dim, model.n_head, model.class_num), (1280, 20, 7));
        assert_eq!(ModelConfig::of_toml("").unwrap(), ModelConfig::default());
        for (text, word) in [
            ("no TOML", "expected"),
            ("[package]\n", "unknown section `package`"),
            ("model = 3\n", "no section"),
            ("[model]\nheads = 3\n", "unknown key `heads`"),
            ("[model]\npreset = \"S\"\n", "there are `B`"),
            ("[model]\nn_head = \"many\"\n", "many"),
            ("[model]\nn_head = 0\n", "`model.n_head`"),
        ] {
            let error = ModelConfig::of_toml(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
