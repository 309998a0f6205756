//! Where the weights come from: one file in the reference's naming, or torchvision's file and LPIPS's.

use super::Backbone;
use crate::{ModelError, Params, Weights};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// Buffers that a file may have beside the weights.
pub(super) const BUFFERS: [&str; 2] = ["scaling_layer.shift", "scaling_layer.scale"];

/// The weights (and buffers, where stored) under the reference's names, f32.
pub(super) fn load(backbone: Backbone, path: &Path) -> Result<Params, ModelError> {
    let mut files = Files::default();
    for path in given(path) {
        files.open(backbone, &path)?;
    }
    // Either half may have been named alone; the other is looked for beside it under its published name.
    for part in [Part::Convolutions, Part::Taps] {
        let beside = path.with_file_name(part.published(backbone));
        if files.find(&part.first(backbone)).is_none() && beside.is_file() {
            files.open(backbone, &beside)?;
        }
    }
    let weights = backbone.tensors().into_iter().map(|(name, shape)| {
        let part = if name.starts_with("lin") { Part::Taps } else { Part::Convolutions };
        let tensor = files.tensor(&name, &shape)?.ok_or_else(|| part.missing(backbone, path, &name))?;
        Ok((name, tensor))
    });
    let mut params = weights.collect::<Result<Vec<_>, ModelError>>()?;
    for name in BUFFERS {
        params.extend(files.tensor(name, &[1, 3, 1, 1])?.map(|tensor| (name.to_string(), tensor)));
    }
    Ok(params.into_iter().collect())
}

/// One path, or two with a comma between them.
fn given(path: &Path) -> Vec<PathBuf> {
    match path.to_str().and_then(|text| text.split_once(',')) {
        Some((first, second)) if !path.exists() => vec![first.trim().into(), second.trim().into()],
        _ => vec![path.into()],
    }
}

/// The opened files, and where in them each of the reference's names is.
#[derive(Default)]
struct Files {
    files: Vec<Weights>,
    index: HashMap<String, (usize, String)>,
}

impl Files {
    fn open(&mut self, backbone: Backbone, path: &Path) -> Result<(), ModelError> {
        if !path.exists() {
            let net = backbone.name();
            let [convolutions, taps] = [Part::Convolutions, Part::Taps].map(|part| part.described(backbone));
            let what = format!("there is no such file; LPIPS ({net}) needs {convolutions} and {taps}");
            return Err(ModelError::Perceptual { path: path.into(), what });
        }
        let weights = Weights::open(path)?;
        for stored in weights.names() {
            if let Some(name) = own_name(backbone, stored) {
                self.index.entry(name).or_insert_with(|| (self.files.len(), stored.to_string()));
            }
        }
        self.files.push(weights);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<(&Weights, &str)> {
        self.index.get(name).map(|(file, stored)| (&self.files[*file], stored.as_str()))
    }

    fn tensor(&self, name: &str, expected: &[i64]) -> Result<Option<Tensor>, ModelError> {
        let Some((file, stored)) = self.find(name) else { return Ok(None) };
        let tensor = file.parameter(stored)?.to_kind(Kind::Float);
        if tensor.numel() as i64 != expected.iter().product::<i64>() || tensor.dim() > expected.len() {
            let (path, name) = (file.path().into(), stored.to_string());
            let wrong = ModelError::WrongShape { path, name, actual: tensor.size(), expected: expected.into() };
            return Err(wrong);
        }
        Ok(Some(tensor.view(expected)))
    }
}

/// The reference's name of a stored tensor with any prefix; `None` for tensors of another network.
fn own_name(backbone: Backbone, stored: &str) -> Option<String> {
    let parts: Vec<&str> = stored.split('.').collect();
    let tail = |n: usize| parts.len().checked_sub(n).map(|from| &parts[from..]);
    if let Some(["net", slice, index, kind]) = tail(4) {
        return slice.starts_with("slice").then(|| format!("net.{slice}.{index}.{kind}"));
    }
    if let Some(["lins", k, "model", "1", "weight"]) = tail(5) {
        return Some(format!("lin{k}.model.1.weight"));
    }
    match tail(4) {
        Some([lin, "model", "1", "weight"]) if lin.starts_with("lin") => return Some(format!("{lin}.model.1.weight")),
        _ => {}
    }
    if let Some(["scaling_layer", buffer]) = tail(2) {
        return Some(format!("scaling_layer.{buffer}"));
    }
    let Some(["features", index, kind]) = tail(3) else { return None };
    let index: usize = index.parse().ok()?;
    let mut slices = backbone.slices().iter().enumerate();
    let (k, _) = slices.find(|(_, slice)| slice.convs.iter().any(|conv| conv.index == index))?;
    Some(format!("{}.{kind}", super::backbone::conv_name(k, index)))
}

/// The two halves of LPIPS, which are published apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Convolutions,
    Taps,
}

impl Part {
    fn published(self, backbone: Backbone) -> &'static str {
        match self {
            Part::Convolutions => backbone.published_convolutions(),
            Part::Taps => backbone.published_taps(),
        }
    }

    /// A tensor that stands for the part.
    fn first(self, backbone: Backbone) -> String {
        match self {
            Part::Convolutions => {
                format!("{}.weight", super::backbone::conv_name(0, backbone.slices()[0].convs[0].index))
            }
            Part::Taps => super::backbone::tap_name(0),
        }
    }

    fn described(self, backbone: Backbone) -> String {
        let file = self.published(backbone);
        match self {
            Part::Convolutions => format!("`{file}` (torchvision's ImageNet weights)"),
            Part::Taps => format!("`{file}` (version 0.1, in the `lpips` package of PerceptualSimilarity)"),
        }
    }

    fn missing(self, backbone: Backbone, path: &Path, name: &str) -> ModelError {
        let described = self.described(backbone);
        let what =
            format!("tensor `{name}` is missing; put {described} into the same folder, or give both files as `A,B`");
        ModelError::Perceptual { path: path.into(), what }
    }
}
