//! The network as a table: blocks, their branches, and the layers of each branch. Names are those of the published weights.

use super::{CLASSES, POOL3};

/// The block whose first branch gives the spatial features (`mixed_6` in TensorFlow's count).
pub(super) const SPATIAL_BLOCK: &str = "Mixed_6d";

/// A convolution without bias, a BatchNorm and a ReLU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    pub name: &'static str,
    pub channels_out: i64,
    /// Height and width.
    pub kernel: [i64; 2],
    pub stride: i64,
    pub padding: [i64; 2],
}

/// What is done to a branch's input before its first layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    None,
    /// 3x3, stride 1, the padding left out of the mean.
    Average,
    /// 3x3, stride 1.
    Max,
    /// 3x3, stride 2, no padding.
    MaxHalf,
}

/// A pool and a chain of layers. `heads`, if there are any, all take the end of the chain, and their outputs are
/// concatenated.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub pool: Pool,
    pub chain: Vec<Layer>,
    pub heads: Vec<Layer>,
}

/// Branches over one input; their outputs are concatenated in this order.
#[derive(Debug, Clone)]
pub(super) struct BlockLayout {
    /// Stands before the names of its layers, with a dot; empty for the stem.
    pub name: &'static str,
    pub branches: Vec<Branch>,
}

/// A layer that keeps the size.
fn same(name: &'static str, channels_out: i64, kernel: [i64; 2]) -> Layer {
    Layer { name, channels_out, kernel, stride: 1, padding: [kernel[0] / 2, kernel[1] / 2] }
}

/// A layer without padding.
fn valid(name: &'static str, channels_out: i64, kernel: [i64; 2], stride: i64) -> Layer {
    Layer { name, channels_out, kernel, stride, padding: [0, 0] }
}

fn branch(pool: Pool, chain: Vec<Layer>) -> Branch {
    Branch { pool, chain, heads: vec![] }
}

fn layers(chain: Vec<Layer>) -> Branch {
    branch(Pool::None, chain)
}

const K1: [i64; 2] = [1, 1];
const K3: [i64; 2] = [3, 3];
const K5: [i64; 2] = [5, 5];
const ROW3: [i64; 2] = [1, 3];
const COLUMN3: [i64; 2] = [3, 1];
const ROW7: [i64; 2] = [1, 7];
const COLUMN7: [i64; 2] = [7, 1];

/// The whole network up to the last feature map, in order.
pub(super) fn blocks() -> Vec<BlockLayout> {
    let mut blocks = stem();
    blocks.extend([("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)].map(|(name, pool)| block_5(name, pool)));
    blocks.push(block_6a());
    let inner = [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)];
    blocks.extend(inner.map(|(name, channels)| block_6(name, channels)));
    blocks.push(block_7a());
    blocks.extend([("Mixed_7b", Pool::Average), ("Mixed_7c", Pool::Max)].map(|(name, pool)| block_7(name, pool)));
    blocks
}

fn stem() -> Vec<BlockLayout> {
    let first =
        vec![valid("Conv2d_1a_3x3", 32, K3, 2), valid("Conv2d_2a_3x3", 32, K3, 1), same("Conv2d_2b_3x3", 64, K3)];
    let second = vec![valid("Conv2d_3b_1x1", 80, K1, 1), valid("Conv2d_4a_3x3", 192, K3, 1)];
    let stem = |branch| BlockLayout { name: "", branches: vec![branch] };
    vec![stem(layers(first)), stem(branch(Pool::MaxHalf, second)), stem(branch(Pool::MaxHalf, vec![]))]
}

fn block_5(name: &'static str, pool_channels: i64) -> BlockLayout {
    let branches = vec![
        layers(vec![same("branch1x1", 64, K1)]),
        layers(vec![same("branch5x5_1", 48, K1), same("branch5x5_2", 64, K5)]),
        layers(vec![same("branch3x3dbl_1", 64, K1), same("branch3x3dbl_2", 96, K3), same("branch3x3dbl_3", 96, K3)]),
        branch(Pool::Average, vec![same("branch_pool", pool_channels, K1)]),
    ];
    BlockLayout { name, branches }
}

fn block_6a() -> BlockLayout {
    let branches = vec![
        layers(vec![valid("branch3x3", 384, K3, 2)]),
        layers(vec![
            same("branch3x3dbl_1", 64, K1),
            same("branch3x3dbl_2", 96, K3),
            valid("branch3x3dbl_3", 96, K3, 2),
        ]),
        branch(Pool::MaxHalf, vec![]),
    ];
    BlockLayout { name: "Mixed_6a", branches }
}

fn block_6(name: &'static str, inner: i64) -> BlockLayout {
    let branches = vec![
        layers(vec![same("branch1x1", 192, K1)]),
        layers(vec![
            same("branch7x7_1", inner, K1),
            same("branch7x7_2", inner, ROW7),
            same("branch7x7_3", 192, COLUMN7),
        ]),
        layers(vec![
            same("branch7x7dbl_1", inner, K1),
            same("branch7x7dbl_2", inner, COLUMN7),
            same("branch7x7dbl_3", inner, ROW7),
            same("branch7x7dbl_4", inner, COLUMN7),
            same("branch7x7dbl_5", 192, ROW7),
        ]),
        branch(Pool::Average, vec![same("branch_pool", 192, K1)]),
    ];
    BlockLayout { name, branches }
}

fn block_7a() -> BlockLayout {
    let branches = vec![
        layers(vec![same("branch3x3_1", 192, K1), valid("branch3x3_2", 320, K3, 2)]),
        layers(vec![
            same("branch7x7x3_1", 192, K1),
            same("branch7x7x3_2", 192, ROW7),
            same("branch7x7x3_3", 192, COLUMN7),
            valid("branch7x7x3_4", 192, K3, 2),
        ]),
        branch(Pool::MaxHalf, vec![]),
    ];
    BlockLayout { name: "Mixed_7a", branches }
}

fn block_7(name: &'static str, pool: Pool) -> BlockLayout {
    let forked = |chain, heads| Branch { pool: Pool::None, chain, heads };
    let branches = vec![
        layers(vec![same("branch1x1", 320, K1)]),
        forked(
            vec![same("branch3x3_1", 384, K1)],
            vec![same("branch3x3_2a", 384, ROW3), same("branch3x3_2b", 384, COLUMN3)],
        ),
        forked(
            vec![same("branch3x3dbl_1", 448, K1), same("branch3x3dbl_2", 384, K3)],
            vec![same("branch3x3dbl_3a", 384, ROW3), same("branch3x3dbl_3b", 384, COLUMN3)],
        ),
        branch(pool, vec![same("branch_pool", 192, K1)]),
    ];
    BlockLayout { name, branches }
}

impl BlockLayout {
    /// The published name of one of its layers.
    pub(crate) fn full_name(&self, layer: &Layer) -> String {
        if self.name.is_empty() { layer.name.to_string() } else { format!("{}.{}", self.name, layer.name) }
    }

    /// Layers with their input channels, and the output channels of the block.
    fn walk(&self, channels_in: i64) -> (Vec<(&Layer, i64)>, i64) {
        let (mut found, mut out) = (vec![], 0);
        for branch in &self.branches {
            let mut channels = channels_in;
            for layer in &branch.chain {
                found.push((layer, channels));
                channels = layer.channels_out;
            }
            found.extend(branch.heads.iter().map(|head| (head, channels)));
            let heads: i64 = branch.heads.iter().map(|head| head.channels_out).sum();
            out += if branch.heads.is_empty() { channels } else { heads };
        }
        (found, out)
    }
}

/// Names and shapes of all tensors that the network needs.
pub(super) fn tensors(blocks: &[BlockLayout]) -> Vec<(String, Vec<i64>)> {
    let mut tensors = vec![];
    let mut channels = 3;
    for block in blocks {
        let (layers, out) = block.walk(channels);
        for (layer, channels_in) in layers {
            let name = block.full_name(layer);
            let [height, width] = layer.kernel;
            tensors.push((format!("{name}.conv.weight"), vec![layer.channels_out, channels_in, height, width]));
            let norm = ["weight", "bias", "running_mean", "running_var"];
            tensors.extend(norm.map(|part| (format!("{name}.bn.{part}"), vec![layer.channels_out])));
        }
        channels = out;
    }
    tensors.push(("fc.weight".into(), vec![CLASSES as i64, POOL3 as i64]));
    tensors.push(("fc.bias".into(), vec![CLASSES as i64]));
    tensors
}
