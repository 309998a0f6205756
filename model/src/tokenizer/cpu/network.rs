//! Encoder and decoder, built from the kernels. An image needs the memory of three maps.

use super::super::blocks;
use super::super::{Decoder, Encoder};
use super::map::Map;
use super::norm::Affine;
use super::patches::Patches;
use super::winograd::{Four, Two, Winograd};
use super::{Output, threads};
use crate::kernels::simd::Level;
use crate::kernels::tile::PANEL;
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// Convolutions with at least this many weights (in times out channels) use tiles of 2 x 2: the maps are small where there are
/// many channels, and the weights of tiles of 4 x 4, four times their size, would have to come from memory for each image.
const MANY_WEIGHTS: usize = 512 * 512;

/// A convolution, by the method that suits it.
#[derive(Debug)]
enum Conv {
    Four(Winograd<Four>),
    Two(Winograd<Two>),
    Patches(Patches),
}

impl Conv {
    fn new(conv: &blocks::Conv) -> Conv {
        let size = conv.weight.size();
        let [cout, cin, kernel] = [size[0] as usize, size[1] as usize, size[2] as usize];
        let bias = conv.bias.as_ref().map(floats);
        let whole_panels = cin.is_multiple_of(PANEL) && cout.is_multiple_of(PANEL);
        match (kernel, conv.stride, whole_panels) {
            (3, 1, true) if cin * cout < MANY_WEIGHTS => {
                Conv::Four(Winograd::new(&floats(&conv.weight), bias, cin, cout))
            }
            (3, 1, true) => Conv::Two(Winograd::new(&floats(&conv.weight), bias, cin, cout)),
            _ => {
                let weights = floats(&conv.weight.permute([0, 2, 3, 1]));
                Conv::Patches(Patches::new(&weights, bias, [cout, kernel, cin], conv.stride as usize))
            }
        }
    }

    fn forward(&self, level: Level, x: &Map, y: &mut Map, output: Output) {
        match self {
            Conv::Four(conv) => conv.forward(level, x, y, output),
            Conv::Two(conv) => conv.forward(level, x, y, output),
            Conv::Patches(conv) => conv.forward(level, x, y, output),
        }
    }
}

/// A tensor's values, row-major.
fn floats(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous().view([-1]);
    Vec::<f32>::try_from(&flat).expect("f32 values in memory")
}

/// Group norm and swish.
#[derive(Debug)]
struct NormSwish {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl NormSwish {
    fn new(norm: &blocks::NormSwish) -> NormSwish {
        NormSwish { weight: floats(&norm.weight), bias: floats(&norm.bias) }
    }

    fn of(&self, x: &Map) -> Affine {
        Affine::of(x, &self.weight, &self.bias, true)
    }
}

#[derive(Debug)]
struct ResBlock {
    norm1: NormSwish,
    conv1: Conv,
    norm2: NormSwish,
    conv2: Conv,
    nin_shortcut: Option<Conv>,
}

impl ResBlock {
    fn stack(blocks: &[blocks::ResBlock]) -> Vec<ResBlock> {
        let make = |block: &blocks::ResBlock| ResBlock {
            norm1: NormSwish::new(&block.norm1),
            conv1: Conv::new(&block.conv1),
            norm2: NormSwish::new(&block.norm2),
            conv2: Conv::new(&block.conv2),
            nin_shortcut: block.nin_shortcut.as_ref().map(Conv::new),
        };
        blocks.iter().map(make).collect()
    }

    fn forward(&self, level: Level, maps: &mut Maps) {
        let Maps { x, a, b } = maps;
        self.norm1.of(x).apply(level, x, a);
        self.conv1.forward(level, a, b, Output::Set);
        self.norm2.of(b).apply_in_place(level, b);
        if let Some(nin_shortcut) = &self.nin_shortcut {
            nin_shortcut.forward(level, x, a, Output::Set);
            std::mem::swap(x, a);
        }
        self.conv2.forward(level, b, x, Output::Add);
    }
}

/// The current activations, and two for what lies between.
#[derive(Debug, Default)]
struct Maps {
    x: Map,
    a: Map,
    b: Map,
}

impl Maps {
    fn run(&mut self, level: Level, blocks: &[ResBlock]) {
        blocks.iter().for_each(|block| block.forward(level, self));
    }

    /// A convolution from `x` to `x`.
    fn conv(&mut self, level: Level, conv: &Conv) {
        conv.forward(level, &self.x, &mut self.a, Output::Set);
        std::mem::swap(&mut self.x, &mut self.a);
    }

    /// Takes an image `[C, H, W]`.
    fn load(&mut self, image_chw: &Tensor) {
        let (c, h, w) = image_chw.size3().expect("an image has three dimensions");
        self.x.reshape(h as usize, w as usize, c as usize);
        let count = self.x.data.len();
        image_chw.permute([1, 2, 0]).contiguous().copy_data(&mut self.x.data, count);
    }

    /// The current activations, as `[C, H, W]`.
    fn tensor(&self) -> Tensor {
        let Map { h, w, c, ref data, .. } = self.x;
        Tensor::from_slice(data).view([h as i64, w as i64, c as i64]).permute([2, 0, 1])
    }
}

/// Memory that is kept from call to call. Calls at the same time take one each.
#[derive(Debug, Default)]
struct Memory(Mutex<Vec<Maps>>);

impl Memory {
    /// Runs `work` on each image of `batch`, after `prepare`, and stacks the resulting activations.
    fn each<T: Sync>(
        &self,
        batch: &Tensor,
        prepare: impl Fn(&Tensor) -> T,
        work: impl Fn(&mut Maps, &T) + Sync,
    ) -> Tensor {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut maps = lock().pop().unwrap_or_default();
        let batch = batch.to_kind(Kind::Float);
        let mut results = vec![];
        for index in 0..batch.size()[0] {
            let image_chw = batch.get(index);
            maps.load(&image_chw);
            let prepared = prepare(&image_chw);
            threads().install(|| work(&mut maps, &prepared));
            results.push(maps.tensor());
        }
        lock().push(maps);
        Tensor::stack(&results, 0).contiguous()
    }
}

/// The encoder's kernels, their weights laid out for them.
#[derive(Debug)]
pub(crate) struct CpuEncoder {
    level: Level,
    conv_in: Conv,
    down: Vec<(Vec<ResBlock>, Option<Conv>)>,
    mid_block: Vec<ResBlock>,
    norm_out: NormSwish,
    conv_out: Conv,
    memory: Memory,
}

impl CpuEncoder {
    /// Copies the weights of `encoder`.
    pub(crate) fn new(encoder: &Encoder, level: Level) -> CpuEncoder {
        let stage = |stage: &super::super::encoder::Stage| {
            (ResBlock::stack(&stage.blocks), stage.downsample.as_ref().map(Conv::new))
        };
        CpuEncoder {
            level,
            conv_in: Conv::new(&encoder.conv_in),
            down: encoder.down.iter().map(stage).collect(),
            mid_block: ResBlock::stack(&encoder.mid_block),
            norm_out: NormSwish::new(&encoder.norm_out),
            conv_out: Conv::new(&encoder.conv_out),
            memory: Memory::default(),
        }
    }

    /// As [`Encoder::forward`].
    pub(crate) fn forward(&self, images_bchw: &Tensor) -> Tensor {
        let level = self.level;
        self.memory.each(
            images_bchw,
            |_| (),
            |maps, ()| {
                maps.conv(level, &self.conv_in);
                for (blocks, downsample) in &self.down {
                    maps.run(level, blocks);
                    if let Some(downsample) = downsample {
                        maps.conv(level, downsample);
                    }
                }
                maps.run(level, &self.mid_block);
                self.norm_out.of(&maps.x).apply_in_place(level, &mut maps.x);
                maps.conv(level, &self.conv_out);
            },
        )
    }
}

/// The decoder's kernels, their weights laid out for them.
#[derive(Debug)]
pub(crate) struct CpuDecoder {
    level: Level,
    conv_in: Conv,
    mid_block: Vec<ResBlock>,
    up: Vec<Stage>,
    norm_out: NormSwish,
    conv_out: Conv,
    memory: Memory,
}

#[derive(Debug)]
struct Stage {
    gamma: Linear,
    beta: Linear,
    blocks: Vec<ResBlock>,
    upsample: Option<Conv>,
}

impl CpuDecoder {
    /// Copies the weights of `decoder`.
    pub(crate) fn new(decoder: &Decoder, level: Level) -> CpuDecoder {
        let stage = |stage: &super::super::decoder::Stage| Stage {
            gamma: Linear::new(&stage.adaptive.gamma),
            beta: Linear::new(&stage.adaptive.beta),
            blocks: ResBlock::stack(&stage.blocks),
            upsample: stage.upsample.as_ref().map(Conv::new),
        };
        CpuDecoder {
            level,
            conv_in: Conv::new(&decoder.conv_in),
            mid_block: ResBlock::stack(&decoder.mid_block),
            up: decoder.up.iter().map(stage).collect(),
            norm_out: NormSwish::new(&decoder.norm_out),
            conv_out: Conv::new(&decoder.conv_out),
            memory: Memory::default(),
        }
    }

    /// As [`Decoder::forward`].
    pub(crate) fn forward(&self, code_bzhw: &Tensor) -> Tensor {
        let level = self.level;
        self.memory.each(code_bzhw, statistics, |maps, (deviations, means)| {
            maps.conv(level, &self.conv_in);
            maps.run(level, &self.mid_block);
            for stage in &self.up {
                let (scale, shift) = (stage.gamma.forward(deviations), stage.beta.forward(means));
                Affine::of(&maps.x, &scale, &shift, false).apply_with_sums(level, &mut maps.x);
                maps.run(level, &stage.blocks);
                if let Some(upsample) = &stage.upsample {
                    maps.conv(level, upsample);
                    depth_to_space(&maps.x, &mut maps.a);
                    std::mem::swap(&mut maps.x, &mut maps.a);
                }
            }
            self.norm_out.of(&maps.x).apply_in_place(level, &mut maps.x);
            maps.conv(level, &self.conv_out);
        })
    }
}

/// `[out, in]` weights and biases.
#[derive(Debug)]
struct Linear {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Linear {
    fn new(linear: &super::super::decoder::Linear) -> Linear {
        Linear { weight: floats(&linear.weight), bias: floats(&linear.bias) }
    }

    fn forward(&self, x: &[f64]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(x.len()).zip(&self.bias);
        let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
        rows.map(|(row, bias)| (dot(row) + f64::from(*bias)) as f32).collect()
    }
}

/// Deviation (unbiased, with 1e-6 added to the variance) and mean of each channel of a code.
fn statistics(code_zhw: &Tensor) -> (Vec<f64>, Vec<f64>) {
    let channels = code_zhw.size()[0] as usize;
    let values = floats(code_zhw);
    let count = values.len() / channels;
    let of = |channel: &[f32]| {
        let mean = channel.iter().map(|v| f64::from(*v)).sum::<f64>() / count as f64;
        let squares = channel.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
        ((squares / (count as f64 - 1.0) + 1e-6).sqrt(), mean)
    };
    values.chunks_exact(count).map(of).unzip()
}

/// `[h, w, 4C]` to `[2h, 2w, C]` in DCR order: input channel = (dy * 2 + dx) * C + c. The sums go along.
fn depth_to_space(x: &Map, y: &mut Map) {
    let c = x.c / 4;
    y.reshape(2 * x.h, 2 * x.w, c);
    let row = y.row();
    for (number, line) in y.data.chunks_exact_mut(row).enumerate() {
        for (column, pixel) in line.chunks_exact_mut(c).enumerate() {
            let from = ((number / 2) * x.w + column / 2) * x.c + ((number % 2) * 2 + column % 2) * c;
            pixel.copy_from_slice(&x.data[from..from + c]);
        }
    }
    y.sums.clear();
    // A strip's sums [2][4C] are those of four strips [2][C].
    for strip in x.sums.chunks_exact(2 * x.c) {
        for part in 0..4 {
            y.sums.extend_from_slice(&strip[part * c..][..c]);
            y.sums.extend_from_slice(&strip[x.c + part * c..][..c]);
        }
    }
}
