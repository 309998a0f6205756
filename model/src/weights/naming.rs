//! Names as other training programs write them: with a common prefix (`model.`), with the segments that wrappers of PyTorch
//! modules insert (`module.`, `_orig_mod.`), and averaged weights as a second set under their own name.
//!
//! Names are changed only where the tensors form a known model with the new names alone, and two names never become one.

use super::layout::{EMA_PREFIX, Part};
use std::collections::{BTreeMap, BTreeSet};

/// What `DistributedDataParallel`, `torch.compile`, FSDP and activation checkpointing put into names, anywhere.
const MODULE_WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Keys under which training programs save the weights, and attributes under which their modules hold the network.
pub(super) const WRAPPERS: &[&str] = &[
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "generator",
    "tokenizer",
    "autoencoder",
    "vae",
    "vqmodel",
    "vq_model",
    "vqgan",
    "gpt",
    "weights",
    "params",
    "state",
];

/// The same for averaged weights.
pub(super) const EMA_WRAPPERS: &[&str] = &[
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema_state_dict",
    "ema_params",
    "params_ema",
];

/// Segments of a prefix.
const PREFIX_SEGMENTS_MAX: usize = 3;

/// Where the model's own names are in a file.
#[derive(Debug, Default, PartialEq)]
struct Prefixes {
    /// Prefix of the model's own names, with its dot; may be empty.
    weights: String,
    /// Prefix of the names of averaged weights.
    averages: Option<String>,
}

/// New names by old ones, as far as they change, and notes for messages.
pub(super) fn renamed<'a>(names: impl Iterator<Item = &'a str>) -> (BTreeMap<String, String>, Vec<String>) {
    let names: Vec<&str> = names.collect();
    let unwrapped: Vec<String> = names.iter().map(|name| without_wrappers(name)).collect();
    let Some(prefixes) = prefixes(&unwrapped) else { return Default::default() };
    let new: Vec<String> = unwrapped.iter().map(|name| prefixes.apply(name)).collect();
    let is_one_to_one = new.iter().collect::<BTreeSet<_>>().len() == new.len();
    let changed: BTreeMap<String, String> = names
        .iter()
        .zip(&new)
        .filter(|(old, new)| *old != new)
        .map(|(old, new)| (old.to_string(), new.clone()))
        .collect();
    if changed.is_empty() || !is_one_to_one {
        return Default::default();
    }
    let mut notes = vec![];
    let left_out = |segments: &str| format!("`{}` is left out of the tensors' names", segments.escape_debug());
    for wrapper in MODULE_WRAPPERS {
        if names.iter().any(|name| name.split('.').any(|part| part == wrapper)) {
            notes.push(left_out(&format!("{wrapper}.")));
        }
    }
    if !prefixes.weights.is_empty() {
        notes.push(left_out(&prefixes.weights));
    }
    if let Some(averages) = &prefixes.averages {
        notes.push(format!("`{}*` are the averaged weights (--variant ema)", averages.escape_debug()));
    }
    (changed, notes)
}

/// `name` without the segments of module wrappers.
fn without_wrappers(name: &str) -> String {
    let kept: Vec<&str> = name.split('.').filter(|part| !MODULE_WRAPPERS.contains(part)).collect();
    kept.join(".")
}

/// The prefixes of the model; `None` if there is no model, or more than one.
fn prefixes(names: &[String]) -> Option<Prefixes> {
    let found: BTreeSet<&str> = names.iter().filter_map(|name| prefix_of(name)).collect();
    let is_of_averages = |prefix: &&&str| EMA_WRAPPERS.contains(&prefix.split('.').next().unwrap_or_default());
    let averages: Vec<&&str> = found.iter().filter(is_of_averages).collect();
    let weights: Vec<&&str> = found.iter().filter(|prefix| !is_of_averages(prefix)).collect();
    let prefixes = match (weights.as_slice(), averages.as_slice()) {
        ([weights], []) => Prefixes { weights: weights.to_string(), averages: None },
        ([weights], [averages]) => Prefixes { weights: weights.to_string(), averages: Some(averages.to_string()) },
        ([], [averages]) => Prefixes { weights: averages.to_string(), averages: None },
        _ => return None,
    };
    let is_known = |part: &str| part.is_empty() || WRAPPERS.contains(&part) || EMA_WRAPPERS.contains(&part);
    let is_common = names.iter().all(|name| name.starts_with(&prefixes.weights));
    (is_common || prefixes.weights.split('.').all(is_known)).then_some(prefixes)
}

/// The prefix before a tokenizer's or an autoregressive model's own name; `None` for other names.
fn prefix_of(name: &str) -> Option<&str> {
    let starts = name.match_indices('.').map(|(at, _)| at + 1).take(PREFIX_SEGMENTS_MAX);
    // Without a dot behind it, the averages' prefix is the reference's own.
    let is_plain =
        matches!(Part::of(name), Part::Loss) || name.strip_prefix(EMA_PREFIX).is_some_and(|rest| !rest.contains('.'));
    if is_plain {
        return None;
    }
    let at = std::iter::once(0).chain(starts).find(|&at| is_model(&name[at..]))?;
    Some(&name[..at])
}

/// Whether only our models use such a name. `norm.` and `head.` are too common to be conclusive.
fn is_model(name: &str) -> bool {
    match Part::of(name) {
        Part::Tokenizer => true,
        Part::Autoregressive => !name.starts_with("norm.") && !name.starts_with("head."),
        _ => false,
    }
}

impl Prefixes {
    fn apply(&self, name: &str) -> String {
        if let Some(inner) = self.averages.as_ref().and_then(|prefix| name.strip_prefix(prefix.as_str())) {
            return format!("{EMA_PREFIX}{}", inner.replace('.', ""));
        }
        name.strip_prefix(self.weights.as_str()).unwrap_or(name).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::renamed;

    /// Old and new names of a file, and the number of notes.
    fn rename(names: &[&str]) -> (Vec<String>, usize) {
        let (changed, notes) = renamed(names.iter().copied());
        let new = names.iter().map(|name| changed.get(*name).cloned().unwrap_or(name.to_string()));
        (new.collect(), notes.len())
    }

    #[test]
    fn one_common_prefix_goes() {
        let own =
            ["encoder.conv_in.weight", "decoder.norm_out.bias", "loss.discriminator.main.0.weight", "model_ema.decay"];
        for prefix in ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.module.", "anything.at.all."] {
            let names = own.map(|name| format!("{prefix}{name}"));
            let names = names.each_ref().map(String::as_str);
            let (new, notes) = rename(&names);
            assert_eq!(new, own, "{prefix}");
            assert!(notes >= 1, "{prefix} is not mentioned in the notes");
        }
        assert_eq!(
            rename(&["encoder._orig_mod.conv_in.weight", "decoder.module.x"]).0,
            ["encoder.conv_in.weight", "decoder.x"]
        );
        assert_eq!(
            rename(&["model.first_stage_model.encoder.x", "model.transformer.norm.weight", "loss.a"]).0,
            ["first_stage_model.encoder.x", "transformer.norm.weight", "loss.a"]
        );
        assert_eq!(rename(&["module.pre_emb.weight", "module.norm.weight"]).0, ["pre_emb.weight", "norm.weight"]);
    }

    #[test]
    fn a_second_set_under_an_averages_name_is_the_averages() {
        for (weights, ema) in [("", "ema."), ("model.", "ema."), ("model.", "model_ema."), ("", "ema.module.")] {
            let names = [format!("{weights}encoder.conv_in.weight"), format!("{ema}encoder.conv_in.weight")];
            let (new, _) = rename(&[&names[0], &names[1]]);
            assert_eq!(new, ["encoder.conv_in.weight", "model_ema.encoderconv_inweight"], "{weights} {ema}");
        }
        assert_eq!(rename(&["ema.encoder.x", "ema.decoder.y"]).0, ["encoder.x", "decoder.y"]);
    }

    #[test]
    fn names_that_need_no_change_keep_theirs() {
        for names in [
            &["encoder.x", "model_ema.encoderx", "model_ema.decay", "loss.module_list.y"][..],
            &["transformer.pre_emb.weight", "first_stage_model.encoder.x"],
            // An optimizer's moments are two sets, and neither is a model.
            &["exp_avg.encoder.x", "exp_avg_sq.encoder.x", "step"],
            &["final.encoder.x", "losses"],
            &["features.module.0.weight", "classifier.weight"],
            // Two names would become one.
            &["module.encoder.x", "encoder.x"],
            &["a.encoder.x", "b.encoder.x"],
            &["net.slice1.0.weight", "lin0.model.1.weight"],
        ] {
            assert_eq!(rename(names), (names.iter().map(|name| name.to_string()).collect(), 0));
        }
    }
}
