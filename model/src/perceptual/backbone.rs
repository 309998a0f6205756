//! The two convolutional nets whose features LPIPS compares, as tables: torchvision's layer numbers and sizes.

use std::str::FromStr;

/// A net with five tapped layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backbone {
    /// VGG16: what the reference trains with.
    Vgg16,
    /// AlexNet: the default of LPIPS, for evaluations.
    AlexNet,
}

/// The layers up to one tap: an optional max pool, then convolutions with a ReLU after each.
#[derive(Debug)]
pub(super) struct Slice {
    /// Side and stride of the max pool in front.
    pub pool: Option<(i64, i64)>,
    /// The convolutions; the tap is the last one's ReLU.
    pub convs: &'static [ConvSpec],
}

/// One convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvSpec {
    /// Position in torchvision's `features`.
    pub index: usize,
    /// Input and output channels.
    pub channels: (i64, i64),
    /// Side of the kernel.
    pub kernel: i64,
    pub stride: i64,
    pub padding: i64,
}

/// A convolution that keeps the size.
const fn same(index: usize, input: i64, output: i64, kernel: i64) -> ConvSpec {
    ConvSpec { index, channels: (input, output), kernel, stride: 1, padding: kernel / 2 }
}

const VGG16: [Slice; 5] = [
    Slice { pool: None, convs: &[same(0, 3, 64, 3), same(2, 64, 64, 3)] },
    Slice { pool: Some((2, 2)), convs: &[same(5, 64, 128, 3), same(7, 128, 128, 3)] },
    Slice { pool: Some((2, 2)), convs: &[same(10, 128, 256, 3), same(12, 256, 256, 3), same(14, 256, 256, 3)] },
    Slice { pool: Some((2, 2)), convs: &[same(17, 256, 512, 3), same(19, 512, 512, 3), same(21, 512, 512, 3)] },
    Slice { pool: Some((2, 2)), convs: &[same(24, 512, 512, 3), same(26, 512, 512, 3), same(28, 512, 512, 3)] },
];

const ALEX_NET: [Slice; 5] = [
    Slice { pool: None, convs: &[ConvSpec { index: 0, channels: (3, 64), kernel: 11, stride: 4, padding: 2 }] },
    Slice { pool: Some((3, 2)), convs: &[same(3, 64, 192, 5)] },
    Slice { pool: Some((3, 2)), convs: &[same(6, 192, 384, 3)] },
    Slice { pool: None, convs: &[same(8, 384, 256, 3)] },
    Slice { pool: None, convs: &[same(10, 256, 256, 3)] },
];

impl Backbone {
    /// `vgg` or `alex`.
    pub fn name(self) -> &'static str {
        match self {
            Backbone::Vgg16 => "vgg",
            Backbone::AlexNet => "alex",
        }
    }

    /// The smallest side of an image, in pixels, that leaves at least one position at every tap.
    pub fn min_side(self) -> i64 {
        match self {
            Backbone::Vgg16 => 16,
            Backbone::AlexNet => 31,
        }
    }

    /// Name of torchvision's file with the convolutions.
    pub fn published_convolutions(self) -> &'static str {
        match self {
            Backbone::Vgg16 => "vgg16-397923af.pth",
            Backbone::AlexNet => "alexnet-owt-7be5be79.pth",
        }
    }

    /// Name of the file with the weights of the five taps, as LPIPS publishes it.
    pub fn published_taps(self) -> &'static str {
        match self {
            Backbone::Vgg16 => "vgg.pth",
            Backbone::AlexNet => "alex.pth",
        }
    }

    pub(super) fn slices(self) -> &'static [Slice; 5] {
        match self {
            Backbone::Vgg16 => &VGG16,
            Backbone::AlexNet => &ALEX_NET,
        }
    }

    /// Name and shape of every weight, in the naming of the reference's checkpoints.
    pub fn tensors(self) -> Vec<(String, Vec<i64>)> {
        let mut list = vec![];
        for (k, slice) in self.slices().iter().enumerate() {
            let mut width = 0;
            for conv in slice.convs {
                let name = conv_name(k, conv.index);
                let (input, output) = conv.channels;
                list.push((format!("{name}.weight"), vec![output, input, conv.kernel, conv.kernel]));
                list.push((format!("{name}.bias"), vec![output]));
                width = output;
            }
            list.push((tap_name(k), vec![1, width, 1, 1]));
        }
        list
    }
}

impl FromStr for Backbone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Backbone::Vgg16, Backbone::AlexNet];
        all.into_iter().find(|b| b.name() == text).ok_or_else(|| format!("`{text}` is neither `vgg` nor `alex`"))
    }
}

/// Name of a convolution of slice `k`, counted from 0.
pub(super) fn conv_name(k: usize, index: usize) -> String {
    format!("net.slice{}.{index}", k + 1)
}

/// Name of the weights of tap `k`, counted from 0.
pub(super) fn tap_name(k: usize) -> String {
    format!("lin{k}.model.1.weight")
}
