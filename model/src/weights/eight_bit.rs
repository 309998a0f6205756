//! Weights stored in 8 bits, as the program ships its own: a matrix `NAME` as integers of 8 bits, and `NAME.scale`, one factor in
//! half precision for each of its rows (its first axis).

use super::Weights;
use super::safetensors::to_safetensors;
use crate::ModelError;
use std::collections::{BTreeMap, HashMap};
use tch::{Kind, Tensor};

const SCALE: &str = ".scale";

/// The same file with fp32 in place of integers and their factors; all else is unchanged. The products are exact: 8 bits
/// times 11 fit into the 24 of fp32.
pub(crate) fn expanded(name: &str, stored: &'static [u8]) -> Result<Vec<u8>, ModelError> {
    let stored = Weights::from_static(name, stored)?;
    let mut tensors = BTreeMap::new();
    for name in stored.names().filter(|name| !name.ends_with(SCALE)) {
        let values = stored.tensor(name)?;
        let scale = format!("{name}{SCALE}");
        let values = if stored.contains(&scale) { scaled(&values, &stored.tensor(&scale)?) } else { values };
        tensors.insert(name, values);
    }
    let facts: HashMap<_, _> = stored.facts().map(|(key, text)| (key.to_string(), text.to_string())).collect();
    Ok(to_safetensors(tensors.iter().map(|(name, tensor)| (*name, tensor)), facts))
}

/// Every row of `values` times its factor, in fp32.
fn scaled(values: &Tensor, scale: &Tensor) -> Tensor {
    let mut per_row = vec![1; values.dim()];
    per_row[0] = -1;
    values.to_kind(Kind::Float) * scale.to_kind(Kind::Float).reshape(per_row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_multiplied_by_their_factors_and_the_rest_stays() {
        let tensors = [
            ("matrix", Tensor::from_slice(&[1i8, -2, 127, 0]).reshape([2, 2])),
            ("matrix.scale", Tensor::from_slice(&[0.5f32, 0.25]).to_kind(Kind::Half)),
            ("vector", Tensor::from_slice(&[3.0f32]).to_kind(Kind::Half)),
        ];
        let facts = HashMap::from([("key".to_string(), "text".to_string())]);
        let file = to_safetensors(tensors.iter().map(|(name, tensor)| (*name, tensor)), facts);
        let bytes = expanded("stored", file.leak()).unwrap();
        let read = Weights::from_static("expanded", bytes.leak()).unwrap();
        assert_eq!(read.names().collect::<Vec<_>>(), ["matrix", "vector"]);
        assert_eq!(read.fact("key"), Some("text"));
        assert_eq!(read.tensor("matrix").unwrap(), Tensor::from_slice(&[0.5f32, -1.0, 31.75, 0.0]).reshape([2, 2]));
        assert!(read.tensor("vector").unwrap().equal(&tensors[2].1));
    }
}
