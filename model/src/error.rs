//! Errors of reading weights, choosing a device, and computing.

use std::path::PathBuf;

/// Errors of this crate. The text says what was wrong, where, and what to do; the cause is in `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The device's memory, or the machine's, does not suffice.
    #[error("out of memory: {reason}; a smaller batch takes less (--batch-size, train.batch_size)")]
    OutOfMemory {
        /// libtorch's words.
        reason: String,
    },
    /// libtorch refused, or the device failed.
    #[error("the computation failed: {reason}")]
    DeviceFailed {
        /// libtorch's words.
        reason: String,
    },
    /// A file could not be opened or read.
    #[error("cannot read {}: {action}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is neither a PyTorch checkpoint nor safetensors.
    #[error(
        "{} is not a checkpoint: {found}; expected a PyTorch `.ckpt` / `.pt` / `.pth` or a `.safetensors` file",
        path.display()
    )]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like.
        found: String,
    },
    /// The file starts like a checkpoint but its contents are damaged.
    #[error("{} is damaged or incomplete: {what}; download or copy it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The broken part.
        what: String,
    },
    /// A file that is whole, and may hold weights, but of a kind that is not read.
    #[error("{} is {found}; {advice}", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
        /// How to convert it.
        advice: &'static str,
    },
    /// A checkpoint without named tensors.
    #[error(
        "{} holds no named tensors{}; expected a dictionary of them, such as `torch.save(model.state_dict(), FILE)` writes",
        path.display(),
        reason
    )]
    NoTensors {
        /// The file.
        path: PathBuf,
        /// What it holds instead, as far as that is clear, in parentheses; or nothing.
        reason: &'static str,
    },
    /// Weights of a tokenizer that cannot be built.
    #[error("{} holds a tokenizer that cannot be built: {what}", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The number that is out of range.
        what: String,
    },
    /// Weights with values that are not finite, as a diverged training leaves them.
    #[error(
        "{}: {count} of {numel} values of tensor `{name}` are not finite; nothing that is computed with such weights means anything: \
         take an earlier checkpoint",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The first such tensor.
        name: String,
        /// Values of it that are infinite or NaN.
        count: i64,
        /// All its values.
        numel: i64,
    },
    /// Tensors of an element type that is not supported.
    #[error("{} holds tensors of type {kind}, which cannot be read; save it again as float32", path.display())]
    UnsupportedType {
        /// The file.
        path: PathBuf,
        /// The element type, as the file calls it.
        kind: String,
    },
    /// A checkpoint written on a machine of the other byte order.
    #[error("{} was written on a big-endian machine; save it as safetensors there", path.display())]
    BigEndian {
        /// The file.
        path: PathBuf,
    },
    /// The pickle names something that would run code.
    #[error(
        "{} asks to run `{symbol}` while being read; refusing (no weights need that: get the file from a source you trust)",
        path.display()
    )]
    HostilePickle {
        /// The file.
        path: PathBuf,
        /// The forbidden symbol.
        symbol: String,
    },
    /// Tensors that the architecture needs are not in the file.
    #[error("{} has no tensor `{name}`{}; it does not hold {wanted}", path.display(), more(*others))]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The first missing name.
        name: String,
        /// How many more are missing.
        others: usize,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A tensor has another shape than the rest of the file implies.
    #[error("{}: tensor `{name}` has shape {actual:?}, expected {expected:?}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Shape in the file.
        actual: Vec<i64>,
        /// Shape that the architecture implies.
        expected: Vec<i64>,
    },
    /// Tensors that nothing accounts for.
    #[error("{} holds {count} tensors that no part of the model accounts for: {names}", path.display())]
    UnexplainedTensors {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first few names.
        names: String,
    },
    /// Weights of another model than the requested one.
    #[error("{} holds {holds}; {advice}", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// What it is.
        holds: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// `--variant ema` on a file without EMA weights.
    #[error("{} has no EMA weights (`model_ema.*`); use `--variant raw`", path.display())]
    NoEma {
        /// The file.
        path: PathBuf,
    },
    /// An image size that the tokenizer cannot divide into a grid.
    #[error("size {size} does not fit the tokenizer: it must be a multiple of its downsampling factor {factor}")]
    Size {
        /// Requested side in pixels.
        size: u32,
        /// Pixels per token, along one side.
        factor: u32,
    },
    /// The requested device cannot be used.
    #[error("device `{device}` cannot be used: {reason}")]
    Device {
        /// As typed.
        device: String,
        /// Why.
        reason: String,
    },
    /// A setting with an unknown value.
    #[error("`{value}` is not a {what}; expected {expected}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// As typed.
        value: String,
        /// The accepted values.
        expected: &'static str,
    },
    /// The tensor library failed.
    #[error("libtorch failed while {action}: {}", first_line(source))]
    Torch {
        /// What was being computed.
        action: &'static str,
        /// Its own words; only the first line is shown.
        source: tch::TchError,
    },
    /// Hyper-parameters that no model can have, or that are not known.
    #[error("{place}: {what}")]
    Config {
        /// The file or flag, and the key.
        place: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A folder or file that should be a checkpoint of a run.
    #[error("{} is not a checkpoint of this program: {what}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Weights of the perceptual loss are missing.
    #[error("perceptual weights {}: {what}", path.display())]
    Perceptual {
        /// What was given.
        path: PathBuf,
        /// What is missing, under which name it is published, and where to put it.
        what: String,
    },
}

fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more)") }
}

fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

impl ModelError {
    /// Whether it is about what was typed: a name, a number or a flag.
    pub fn is_usage(&self) -> bool {
        matches!(self, ModelError::Setting { .. } | ModelError::Size { .. } | ModelError::Config { .. })
    }

    /// Wraps a failure of the tensor library with what was being computed.
    pub fn torch(action: &'static str) -> impl Fn(tch::TchError) -> ModelError {
        move |source| ModelError::Torch { action, source }
    }
}
