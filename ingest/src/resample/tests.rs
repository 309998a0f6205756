//! The kernels against each other, and against the definition written down once more without any of their tricks.

use super::*;
use proptest::prelude::*;

fn noise(width: u32, height: u32, seed: u64) -> RgbImage {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    };
    let pixels = (0..width as usize * height as usize * 3).map(|_| next()).collect();
    RgbImage { width, height, pixels, warnings: 0 }
}

fn resize(kernel: Kernel, image: &RgbImage, new_size: (u32, u32), region: Region) -> Vec<u8> {
    let mut out = vec![7; 3]; // what the buffer held before must not matter
    Resampler::new(kernel).resize_region(image, new_size, region, &mut out);
    out
}

fn resize_with(filter: Filter, kernel: Kernel, image: &RgbImage, to: (u32, u32), region: Region) -> Vec<u8> {
    let mut out = vec![7; region.width as usize * region.height as usize * 3];
    let plane = Plane { pixels: &image.pixels, stride: image.width as usize * 3, left: 0, top: 0 };
    let resizing = Resizing { from: (image.width, image.height), to, filter };
    Resampler::new(kernel).resize_plane(plane, resizing, region, &mut out);
    out
}

fn supported() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| kernel.is_supported())
}

fn whole(size: (u32, u32)) -> Region {
    Region { left: 0, top: 0, width: size.0, height: size.1 }
}

/// Filters as functions of a distance, written down again: reach and weight.
fn naive_filter(filter: Filter) -> (f64, fn(f64) -> f64) {
    match filter {
        Filter::Box => (0.5, |x| if -0.5 < x && x <= 0.5 { 1.0 } else { 0.0 }),
        Filter::Bilinear => (1.0, |x| (1.0 - x.abs()).max(0.0)),
        Filter::Bicubic => (2.0, |x| match x.abs() {
            x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            _ => 0.0,
        }),
    }
}

/// One axis by the formula of the reference, on `lines` of samples.
fn naive_axis(line: &[u8], n_out: usize, filter: Filter) -> Vec<u8> {
    let n_in = line.len();
    let scale = n_in as f64 / n_out as f64;
    let (reach, weight_at) = naive_filter(filter);
    let support = reach * scale.max(1.0);
    let one = |o: usize| {
        let center = (o as f64 + 0.5) * scale;
        let lo = ((center - support + 0.5) as i64).max(0) as usize;
        let hi = ((center + support + 0.5) as usize).min(n_in);
        let weight = |i: usize| weight_at((i as f64 - center + 0.5) * (1.0 / scale.max(1.0)));
        let sum: f64 = (lo..hi).map(weight).fold(0.0, |a, b| a + b);
        let fixed = |i: usize| {
            let scaled = weight(i) / sum * 4_194_304.0;
            (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i64
        };
        let total: i64 = (lo..hi).map(|i| i64::from(line[i]) * fixed(i)).sum();
        ((total + (1 << 21)) >> 22).clamp(0, 255) as u8
    };
    (0..n_out).map(one).collect()
}

fn naive_pass(image: &RgbImage, n_out: u32, across: bool, filter: Filter) -> RgbImage {
    if n_out == if across { image.width } else { image.height } {
        return image.clone();
    }
    let (width, height) = if across { (n_out, image.height) } else { (image.width, n_out) };
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let lines = if across { image.height } else { image.width } as usize;
    for line in 0..lines {
        for channel in 0..3 {
            let place = |i: usize, width: u32| {
                let (x, y) = if across { (i, line) } else { (line, i) };
                (y * width as usize + x) * 3 + channel
            };
            let n_in = if across { image.width } else { image.height } as usize;
            let samples: Vec<u8> = (0..n_in).map(|i| image.pixels[place(i, image.width)]).collect();
            for (i, sample) in naive_axis(&samples, n_out as usize, filter).into_iter().enumerate() {
                pixels[place(i, width)] = sample;
            }
        }
    }
    RgbImage { width, height, pixels, warnings: 0 }
}

fn naive(image: &RgbImage, new_size: (u32, u32)) -> Vec<u8> {
    naive_with(Filter::Bilinear, image, new_size)
}

fn naive_with(filter: Filter, image: &RgbImage, (width, height): (u32, u32)) -> Vec<u8> {
    if vertical_first(image.width, image.height, width, height) {
        naive_pass(&naive_pass(image, height, false, filter), width, true, filter).pixels
    } else {
        naive_pass(&naive_pass(image, width, true, filter), height, false, filter).pixels
    }
}

fn cut(pixels: &[u8], width: u32, region: Region) -> Vec<u8> {
    let row = |y: u32| {
        let start = (y * width + region.left) as usize * 3;
        &pixels[start..start + region.width as usize * 3]
    };
    region.rows().flat_map(row).copied().collect()
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![Just(Filter::Box), Just(Filter::Bilinear), Just(Filter::Bicubic)]
}

/// Sizes before and after, a region of the latter, and a seed. Small images, and long thin ones that go vertical first.
fn case() -> impl Strategy<Value = ((u32, u32), (u32, u32), Region, u64)> {
    let sizes = ((1u32..90, prop_oneof![1u32..90, 90u32..400]), (1u32..90, 1u32..90));
    sizes.prop_flat_map(|(size, new_size)| {
        let corner = (0..new_size.0, 0..new_size.1);
        corner.prop_flat_map(move |(left, top)| {
            let extent = (1..=new_size.0 - left, 1..=new_size.1 - top, any::<u64>());
            extent.prop_map(move |(width, height, seed)| (size, new_size, Region { left, top, width, height }, seed))
        })
    })
}

proptest! {
    #[test]
    fn every_kernel_and_region_gives_the_same_bits(
        ((width, height), new_size, region, seed) in case(), filter in filter()
    ) {
        let image = noise(width, height, seed);
        let expected = cut(&naive_with(filter, &image, new_size), new_size.0, region);
        for kernel in supported() {
            let pixels = resize_with(filter, kernel, &image, new_size, region);
            prop_assert_eq!(&pixels, &expected, "{:?} {:?}", filter, kernel);
        }
    }

    #[test]
    fn a_part_of_the_image_is_enough(((width, height), new_size, region, seed) in case(), filter in filter()) {
        let image = noise(width, height, seed);
        let resizing = Resizing { from: (width, height), to: new_size, filter };
        let needed = source_region(resizing, region);
        let part = cut(&image.pixels, width, needed);
        let plane =
            Plane { pixels: &part, stride: needed.width as usize * 3, left: needed.left, top: needed.top };
        for kernel in supported() {
            let mut out = vec![7; region.width as usize * region.height as usize * 3];
            Resampler::new(kernel).resize_plane(plane, resizing, region, &mut out);
            let whole = resize_with(filter, kernel, &image, new_size, region);
            prop_assert_eq!(&out, &whole, "{:?} {:?}", filter, kernel);
        }
    }

    #[test]
    fn a_flat_image_stays_flat(value in any::<u8>(), size in (1u32..200, 1u32..200), new_size in (1u32..60, 1u32..60)) {
        let pixels = vec![value; (size.0 * size.1 * 3) as usize];
        let image = RgbImage { width: size.0, height: size.1, pixels, warnings: 0 };
        // Weights are rounded one by one, so that very many of them may sum to a little more or less than 1.
        let out = resize(Kernel::detect(), &image, new_size, whole(new_size));
        prop_assert!(out.iter().all(|v| v.abs_diff(value) <= 1));
    }
}

#[test]
fn extreme_samples_do_not_overflow() {
    for new_size in [(3, 2), (2, 900), (700, 1)] {
        let image = RgbImage { width: 700, height: 900, pixels: vec![255; 700 * 900 * 3], warnings: 0 };
        for kernel in supported() {
            assert!(resize(kernel, &image, new_size, whole(new_size)).iter().all(|&v| v >= 254), "{new_size:?}");
            let bicubic = resize_with(Filter::Bicubic, kernel, &image, new_size, whole(new_size));
            assert!(bicubic.iter().all(|&v| v >= 254), "{new_size:?}");
        }
    }
}

#[test]
fn one_resampler_serves_images_of_all_sizes() {
    let mut resampler = Resampler::default();
    let mut out = Vec::new();
    for (i, size) in [(50, 40), (8, 200), (300, 5), (50, 40)].into_iter().enumerate() {
        let image = noise(size.0, size.1, i as u64);
        resampler.resize_region(&image, (32, 32), whole((32, 32)), &mut out);
        assert_eq!(out, naive(&image, (32, 32)), "{size:?}");
    }
}

#[test]
fn target_sizes_are_torchvisions() {
    assert_eq!(target_size(500, 375, 256), Some((341, 256)));
    assert_eq!(target_size(33, 900, 256), Some((256, 6981)));
    assert_eq!(target_size(256, 256, 256), Some((256, 256)));
    assert_eq!(target_size(1, u32::MAX, 256), None, "2^40 rows cannot be addressed");
    assert_eq!(target_size(0, 5, 256), None);
    assert_eq!(target_size(5, 5, 0), None);
}
