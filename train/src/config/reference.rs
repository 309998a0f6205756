//! Configurations of the reference: its YAML files, as far as their keys have a counterpart here.
//!
//! A file is flattened to leaves with dotted names. A rule says what becomes of each; a leaf without one is reported, so
//! that nothing that a file asks for is dropped in silence.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use toml::{Table, Value};

/// Which files of the reference a configuration can be made from.
#[derive(Debug)]
pub struct Reference {
    /// End of `model.class_path`.
    pub class: &'static str,
    /// The command that takes it.
    pub command: &'static str,
    /// What becomes of its leaves: the first that fits.
    pub rules: &'static [(&'static str, Rule)],
}

/// What becomes of a leaf, or, if the name ends in `.*`, of all leaves below.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Its value is that of this key.
    Key(&'static str),
    /// The precision: half precision becomes the one that is given here.
    Precision(&'static str),
    /// What happens in any case, if this is its value.
    Always(&'static str),
    /// Not honoured, for this reason.
    Not(&'static str),
}

const CLASS_PATH: &str = "model.class_path";
const PRECISION: &str = "train.precision";
const FAMILY: &str = "Open_MAGVIT2";

const ONE_PROCESS: &str = "a run is one process, and the batch size that of a process";
const FOLDER: &str = "checkpoints and metrics are written to the run's folder";
const PROGRESS: &str = "learning rate and all metrics are always logged";

/// Rules for what both kinds of files say about the trainer.
const COMMON: &[(&str, Rule)] = &[
    (CLASS_PATH, Rule::Not("")),
    ("trainer.max_epochs", Rule::Key("train.epochs")),
    ("trainer.log_every_n_steps", Rule::Key("train.log_every")),
    ("data.init_args.batch_size", Rule::Key("train.batch_size")),
    ("seed_everything", Rule::Key("train.seed")),
    ("trainer.accelerator", Rule::Not("`--device` chooses it")),
    ("trainer.strategy", Rule::Not(ONE_PROCESS)),
    ("trainer.devices", Rule::Not(ONE_PROCESS)),
    ("trainer.num_nodes", Rule::Not(ONE_PROCESS)),
    ("trainer.callbacks.*", Rule::Not(FOLDER)),
    ("trainer.logger.*", Rule::Not(PROGRESS)),
    ("trainer.num_sanity_val_steps", Rule::Not("nothing is validated before the first step")),
    ("data.init_args.num_workers", Rule::Not("there is a decoding thread for every core")),
    ("data.class_path", Rule::Always("main.DataModuleFromConfig")),
    ("ckpt_path", Rule::Not("a run continues from its folder; `train.init_from` starts from weights")),
];

/// `imagenet_conditional_llama_*.yaml`.
pub static AR: Reference = Reference {
    class: "Net2NetTransformer",
    command: "train ar",
    rules: &[
        ("model.init_args.learning_rate", Rule::Key("train.peak_lr")),
        ("model.init_args.weight_decay", Rule::Key("train.weight_decay")),
        ("model.init_args.wp", Rule::Key("train.warmup_epochs")),
        ("model.init_args.wp0", Rule::Key("train.wp0")),
        ("model.init_args.wpe", Rule::Key("train.wpe")),
        // The decay at the end; 0 leaves it constant.
        ("model.init_args.twde", Rule::Always("0")),
        ("model.init_args.first_stage_key", Rule::Always("image")),
        ("model.init_args.cond_stage_key", Rule::Always("class_label")),
        ("model.init_args.token_factorization", Rule::Always("true")),
        ("model.init_args.transformer_config.target", Rule::Always("src.Open_MAGVIT2.modules.transformer.gpt.GPT")),
        ("model.init_args.transformer_config.params.dim", Rule::Key("model.dim")),
        ("model.init_args.transformer_config.params.n_head", Rule::Key("model.n_head")),
        ("model.init_args.transformer_config.params.spatial_n_layer", Rule::Key("model.spatial_n_layer")),
        ("model.init_args.transformer_config.params.factorized_n_layer", Rule::Key("model.factorized_n_layer")),
        ("model.init_args.transformer_config.params.factorized_bits", Rule::Key("model.factorized_bits")),
        ("model.init_args.transformer_config.params.block_size", Rule::Key("model.block_size")),
        ("model.init_args.transformer_config.params.class_num", Rule::Key("model.class_num")),
        ("model.init_args.transformer_config.params.token_drop", Rule::Key("model.token_drop")),
        ("model.init_args.transformer_config.params.resid_dropout_p", Rule::Key("model.resid_dropout")),
        ("model.init_args.transformer_config.params.ffn_dropout_p", Rule::Key("model.ffn_dropout")),
        ("model.init_args.transformer_config.params.token_factorization", Rule::Always("true")),
        (
            "model.init_args.transformer_config.params.vocab_size",
            Rule::Not("`model.factorized_bits` are the vocabularies"),
        ),
        ("model.init_args.transformer_config.params.cond_dim", Rule::Not("classes are embedded at `model.dim`")),
        ("model.init_args.first_stage_config.*", Rule::Not("the tokenizer is that of the cache")),
        ("model.init_args.cond_stage_config.*", Rule::Not("labels are those of the cache")),
        ("model.init_args.permuter_config.*", Rule::Not("the class has an embedding of its own")),
        ("data.init_args.train.*", Rule::Not("tokens come from `--cache`")),
        ("data.init_args.validation.*", Rule::Not("tokens come from `--val-cache`")),
        ("data.init_args.test.*", Rule::Not("see `eval ar`")),
        ("trainer.max_steps", Rule::Key("train.max_steps")),
        ("trainer.accumulate_grad_batches", Rule::Key("train.grad_accum")),
        ("trainer.gradient_clip_val", Rule::Key("train.grad_clip")),
        ("trainer.precision", Rule::Precision("bf16")),
        ("trainer.check_val_every_n_epoch", Rule::Not("see `train.val_every`")),
    ],
};

/// `imagenet_lfqgan_*.yaml`.
pub static TOKENIZER: Reference = Reference {
    class: "VQModel",
    command: "train tokenizer",
    rules: &[
        ("model.init_args.ddconfig.ch", Rule::Key("model.ch")),
        ("model.init_args.ddconfig.ch_mult", Rule::Key("model.ch_mult")),
        ("model.init_args.ddconfig.num_res_blocks", Rule::Key("model.num_res_blocks")),
        ("model.init_args.ddconfig.z_channels", Rule::Key("model.z_channels")),
        ("model.init_args.ddconfig.double_z", Rule::Always("false")),
        ("model.init_args.ddconfig.in_channels", Rule::Always("3")),
        ("model.init_args.ddconfig.out_ch", Rule::Always("3")),
        ("model.init_args.ddconfig.resolution", Rule::Not("the network takes any size; see `train.image_size`")),
        (
            "model.init_args.lossconfig.target",
            Rule::Always("src.Open_MAGVIT2.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"),
        ),
        ("model.init_args.lossconfig.params.disc_conditional", Rule::Always("false")),
        ("model.init_args.lossconfig.params.disc_in_channels", Rule::Always("3")),
        ("model.init_args.lossconfig.params.disc_start", Rule::Key("loss.disc_start")),
        ("model.init_args.lossconfig.params.disc_num_layers", Rule::Key("loss.disc_num_layers")),
        ("model.init_args.lossconfig.params.disc_ndf", Rule::Key("loss.disc_ndf")),
        ("model.init_args.lossconfig.params.disc_loss", Rule::Key("loss.disc_loss")),
        (
            "model.init_args.lossconfig.params.disc_weight",
            Rule::Not("the adversarial loss has the weight `loss.gen_loss_weight`"),
        ),
        ("model.init_args.lossconfig.params.gen_loss_weight", Rule::Key("loss.gen_loss_weight")),
        ("model.init_args.lossconfig.params.lecam_loss_weight", Rule::Key("loss.lecam_loss_weight")),
        ("model.init_args.lossconfig.params.perceptual_weight", Rule::Key("loss.perceptual_weight")),
        ("model.init_args.lossconfig.params.codebook_weight", Rule::Key("loss.codebook_weight")),
        ("model.init_args.lossconfig.params.commit_weight", Rule::Key("loss.commit_weight")),
        ("model.init_args.lossconfig.params.codebook_enlarge_ratio", Rule::Key("loss.codebook_enlarge_ratio")),
        ("model.init_args.lossconfig.params.codebook_enlarge_steps", Rule::Key("loss.codebook_enlarge_steps")),
        ("model.init_args.n_embed", Rule::Not("the codebook has 2^`model.z_channels` codes")),
        ("model.init_args.embed_dim", Rule::Not("it is `model.z_channels`")),
        ("model.init_args.learning_rate", Rule::Key("train.lr")),
        ("model.init_args.lr_drop_epoch", Rule::Key("train.lr_drop_epochs")),
        ("model.init_args.lr_drop_rate", Rule::Key("train.lr_drop_rate")),
        ("model.init_args.sample_minimization_weight", Rule::Always("1")),
        ("model.init_args.batch_maximization_weight", Rule::Always("1")),
        ("model.init_args.scheduler_type", Rule::Always("None")),
        ("model.init_args.use_ema", Rule::Always("true")),
        ("data.init_args.train.params.config.size", Rule::Key("train.image_size")),
        ("data.init_args.train.*", Rule::Not("images come from `--data`")),
        ("data.init_args.validation.*", Rule::Not("images come from `--val`, at `train.image_size`")),
        ("data.init_args.test.*", Rule::Not("see `eval reconstruction`")),
        ("trainer.max_steps", Rule::Not("it counts two a batch; set `train.max_steps`, which counts batches")),
        ("trainer.precision", Rule::Precision("fp16")),
        ("trainer.check_val_every_n_epoch", Rule::Always("1")),
    ],
};

/// What a file became.
#[derive(Debug, Default)]
pub(super) struct Converted {
    /// The configuration.
    pub table: Table,
    /// One line for each leaf, or group of leaves, that is not honoured.
    pub not_honoured: Vec<String>,
}

/// Whether a file of this name is one of the reference's.
pub(super) fn is_yaml(path: &std::path::Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| ["yaml", "yml"].iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// Converts a file. `knows` says whether there is such a key.
///
/// # Errors
/// What is wrong: no YAML, a value that TOML cannot express, or a model of another kind.
pub(super) fn convert(text: &str, reference: &Reference, knows: impl Fn(&str) -> bool) -> Result<Converted, String> {
    let documents = Yaml::load_from_str(text).map_err(|e| e.to_string())?;
    let [document] = &documents[..] else { return Err(format!("{} YAML documents; expected one", documents.len())) };
    let mut leaves = vec![];
    flatten("", document, &mut leaves)?;
    check_class(&leaves, reference)?;
    let mut converted = Converted::default();
    for (name, value) in &leaves {
        match rule_for(name, reference) {
            Some((_, Rule::Key(key))) if knows(key) && fits(key, value) => {
                put(&mut converted.table, key, value.clone())
            }
            Some((_, Rule::Precision(half))) if knows(PRECISION) => converted.precision(name, value, half),
            Some((_, Rule::Always(expected))) if plain(value) == expected => {}
            Some((_, Rule::Not(""))) => {}
            Some((pattern, Rule::Not(reason))) => converted.not(pattern, value, reason),
            Some((_, Rule::Key(key))) if knows(key) => {
                converted.not(name, value, &format!("`{key}` cannot have this value"));
            }
            Some((_, Rule::Always(expected))) => converted.not(name, value, &format!("it is always {expected}")),
            Some((_, Rule::Key(_) | Rule::Precision(_))) | None => {
                converted.not(name, value, "there is no such setting")
            }
        }
    }
    Ok(converted)
}

impl Converted {
    fn precision(&mut self, name: &str, value: &Value, half: &str) {
        let precision = match plain(value).as_str() {
            "16-mixed" | "16-true" | "16" => half,
            "bf16-mixed" | "bf16-true" | "bf16" => "bf16",
            "32-true" | "32" => "fp32",
            _ => return self.not(name, value, "set `train.precision`"),
        };
        if half != "fp16" && plain(value).starts_with("16") {
            self.not(name, value, &format!("{half} takes its place; `train.precision=fp16` is what it asks for"));
        }
        put(&mut self.table, PRECISION, Value::String(precision.into()));
    }

    /// A group is reported once.
    fn not(&mut self, name: &str, value: &Value, reason: &str) {
        let line = match name.strip_suffix(".*") {
            Some(group) => format!("{group}: {reason}"),
            None => format!("{name} = {}: {reason}", plain(value)),
        };
        if !self.not_honoured.contains(&line) {
            self.not_honoured.push(line);
        }
    }
}

fn check_class(leaves: &[(String, Value)], reference: &Reference) -> Result<(), String> {
    let class = leaves.iter().find(|(name, _)| name == CLASS_PATH).map(|(_, value)| plain(value));
    let Some(class) = class else {
        return Err(format!("no `{CLASS_PATH}`: YAML is read only where it is a configuration of the reference"));
    };
    if !class.contains(FAMILY) {
        return Err(format!("`{class}` is no model of Open-MAGVIT2, the only ones that there are here"));
    }
    match [&AR, &TOKENIZER].into_iter().find(|known| class.ends_with(known.class)) {
        Some(known) if known.class == reference.class => Ok(()),
        Some(known) => Err(format!("it configures `{class}`: use `{}`", known.command)),
        None => Err(format!("`{class}` is a model that is not here")),
    }
}

fn rule_for(name: &str, reference: &Reference) -> Option<(&'static str, Rule)> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    reference.rules.iter().chain(COMMON).copied().find(|(pattern, _)| fits(pattern))
}

/// A seed may be `true`, which asks for any; numbers and lists fit everywhere else, and are checked with the configuration.
fn fits(key: &str, value: &Value) -> bool {
    key != "train.seed" || value.is_integer()
}

fn put(table: &mut Table, key: &str, value: Value) {
    let (section, key) = key.split_once('.').expect("rules name section and key");
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Some(section) = section.as_table_mut() {
        section.insert(key.to_string(), value);
    }
}

/// The leaves below `node`: scalars and lists of scalars. What is empty asks for nothing.
fn flatten(name: &str, node: &Yaml, leaves: &mut Vec<(String, Value)>) -> Result<(), String> {
    let below = |part: &str| if name.is_empty() { part.to_string() } else { format!("{name}.{part}") };
    match node {
        Yaml::Mapping(mapping) => {
            for (key, value) in mapping {
                let key = key.as_str().ok_or_else(|| format!("`{name}` has a key that is no text"))?;
                flatten(&below(key), value, leaves)?;
            }
        }
        Yaml::Sequence(items) if items.iter().any(|item| item.is_mapping() || item.is_sequence()) => {
            for (i, item) in items.iter().enumerate() {
                flatten(&below(&i.to_string()), item, leaves)?;
            }
        }
        Yaml::Sequence(items) => {
            let values = items.iter().filter_map(|item| scalar(name, item).transpose());
            leaves.push((name.to_string(), Value::Array(values.collect::<Result<_, _>>()?)));
        }
        _ => leaves.extend(scalar(name, node)?.map(|value| (name.to_string(), value))),
    }
    Ok(())
}

fn scalar(name: &str, node: &Yaml) -> Result<Option<Value>, String> {
    match node {
        Yaml::Value(Scalar::Null) => Ok(None),
        Yaml::Value(Scalar::Boolean(value)) => Ok(Some(Value::Boolean(*value))),
        Yaml::Value(Scalar::Integer(value)) => Ok(Some(Value::Integer(*value))),
        Yaml::Value(Scalar::FloatingPoint(value)) => Ok(Some(Value::Float(value.into_inner()))),
        // The reference's files write booleans as Python does.
        Yaml::Value(Scalar::String(value)) if *value == "True" || *value == "False" => {
            Ok(Some(Value::Boolean(*value == "True")))
        }
        Yaml::Value(Scalar::String(value)) => Ok(Some(Value::String(value.to_string()))),
        _ => Err(format!("`{name}` has a value that cannot be read")),
    }
}

/// A value as people write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Float(number) => number.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
