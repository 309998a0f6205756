//! Rotary position embedding of a 2-D grid.
//!
//! Half of a head's pairs rotate by the row, half by the column. Row 0 of the table belongs to the class position and
//! is all zeros, cosines included: queries and keys of that position vanish, so everything attends to it with logit 0.

use super::config::ModelConfig;
use tch::{Device, Kind, Tensor};

/// Complex factors `[side * side + 1, head_dim / 2]`; row t >= 1 is grid cell t - 1.
#[derive(Debug)]
pub(super) struct Rope(Tensor);

impl Rope {
    /// The table for grids of `side * side` cells.
    pub(super) fn new(side: i64, head_dim: i64, device: Device) -> Rope {
        const BASE: f64 = 10000.0;
        let quarter = head_dim / 4;
        let index = Tensor::arange(quarter, (Kind::Float, Device::Cpu));
        let exponent = (index * 2.0) / (head_dim / 2);
        let frequency = Tensor::from(BASE as f32).pow(&exponent).reciprocal();
        let angle_sf = Tensor::arange(side, (Kind::Float, Device::Cpu)).outer(&frequency);
        let row = angle_sf.unsqueeze(1).expand([side, side, quarter], false);
        let column = angle_sf.unsqueeze(0).expand([side, side, quarter], false);
        let angle = Tensor::cat(&[row, column], -1).view([side * side, 2 * quarter]);
        let factor = Tensor::stack(&[angle.cos(), angle.sin()], -1);
        let class = Tensor::zeros([1, 2 * quarter, 2], (Kind::Float, Device::Cpu));
        Rope(Tensor::cat(&[class, factor], 0).view_as_complex().to_device(device))
    }

    /// Factors of the position that `at`, int64 `[1]`, holds, complex `[1, head_dim / 2]`.
    pub(super) fn row_at(&self, at: &Tensor) -> Tensor {
        self.0.index_select(0, at)
    }

    /// Factors of `len` positions from `from` on, complex `[len, head_dim / 2]`.
    pub(super) fn rows(&self, from: i64, len: i64) -> Tensor {
        self.0.narrow(0, from, len)
    }
}

/// Rotates `x [B, T, H, hd]` by the factors of its T positions. Computed in fp32, returned in x's kind.
pub(super) fn rotate(x_bthd: &Tensor, factors: &Tensor) -> Tensor {
    let (b, t, h, d) = x_bthd.size4().expect("queries and keys have four dimensions");
    let pairs = x_bthd.to_kind(Kind::Float).contiguous().view([b, t, h, d / 2, 2]).view_as_complex();
    let rotated = pairs * factors.unsqueeze(1);
    rotated.view_as_real().view([b, t, h, d]).to_kind(x_bthd.kind())
}

/// Cosines and sines `[T, head_dim / 2]` of the positions.
#[derive(Debug)]
pub struct Rotation {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
}

impl Rotation {
    /// The table for a model's grid.
    ///
    /// # Panics
    /// When memory for the table cannot be had.
    pub fn new(config: &ModelConfig) -> Rotation {
        let factors =
            Rope::new(config.side(), config.head_dim(), Device::Cpu).rows(0, config.block_size).view_as_real();
        let part = |i: i64| -> Vec<f32> {
            let values = factors.select(-1, i).contiguous().to_kind(Kind::Float).view([-1]);
            Vec::try_from(&values).expect("a table of floats copies to the host")
        };
        Rotation { cos: part(0), sin: part(1), pairs: (config.head_dim() / 2) as usize }
    }

    /// Cosines and sines of a position, `[head_dim / 2]` each.
    pub fn of(&self, position: usize) -> (&[f32], &[f32]) {
        let place = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[place.clone()], &self.sin[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_position_vanishes_and_the_first_cell_is_the_identity() {
        let rope = Rope::new(4, 8, Device::Cpu);
        let x = Tensor::rand([1, 2, 3, 8], (Kind::Float, Device::Cpu));
        let y = rotate(&x, &rope.rows(0, 2));
        assert_eq!(y.narrow(1, 0, 1).abs().sum(Kind::Float).double_value(&[]), 0.0);
        assert!(y.narrow(1, 1, 1).equal(&x.narrow(1, 1, 1)));
    }

    #[test]
    fn first_pairs_follow_the_row_and_the_rest_the_column() {
        let rope = Rope::new(4, 8, Device::Cpu);
        // Cell (2, 3) is row 1 + 2 * 4 + 3; the slowest frequency of each half is index 0: angle = coordinate.
        let factors = rope.rows(12, 1).view_as_real();
        assert!((factors.double_value(&[0, 0, 0]) - 2f64.cos()).abs() < 1e-6);
        assert!((factors.double_value(&[0, 2, 1]) - 3f64.sin()).abs() < 1e-6);
    }
}
