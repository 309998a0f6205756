//! Validation compared with the same metrics computed image by image.

use super::*;
use crate::process_group::OneProcess;
use crate::tokenizer::init::initial_params;
use std::fs;
use std::path::Path;
use tokengrid_model::Architecture;
use tokengrid_model::Runtime;

fn tokenizer() -> Tokenizer {
    let architecture = Architecture { ch: 32, ch_mult: vec![1, 2], num_res_blocks: 1, z_channels: 6 };
    let params = initial_params(&architecture, 3);
    Tokenizer::from_params(architecture, &params)
}

/// Five pictures of different sizes, and a file that is not a picture.
fn images(folder: &Path) {
    for i in 0..5usize {
        let (width, height) = (24 + 3 * i, 20 + i);
        let rgb = (0..width * height * 3).map(|p| ((p * (i + 2) / 5 + p % 7 * 20) % 256) as u8).collect();
        fs::write(folder.join(format!("{i}.png")), Picture::new(width, height, rgb).to_png()).unwrap();
    }
    fs::write(folder.join("2a.png"), b"broken").unwrap();
}

fn options(batch_size: usize) -> ValidationOptions<'static> {
    ValidationOptions { batch_size, runtime: Runtime::EXACT, perceptual: None, num_samples: 4 }
}

#[test]
fn centre_crops_are_in_order_for_any_batch_size() {
    let folder = tempfile::tempdir().unwrap();
    images(folder.path());
    let set = ValidationSet::open(folder.path(), 16, None).unwrap();
    let all = |size| set.batches(size).map(Result::unwrap).collect::<Vec<_>>();
    let sizes = all(2).iter().map(|batch| batch.images).collect::<Vec<_>>();
    assert_eq!(sizes, [2, 2, 1], "the broken one is skipped");
    let whole = all(100).remove(0).pixels;
    assert_eq!(whole.len(), 5 * 16 * 16 * 3);
    assert!(whole == all(2).into_iter().flat_map(|batch| batch.pixels).collect::<Vec<_>>());
    assert_eq!(ValidationSet::open(folder.path(), 16, Some(2)).unwrap().batches(8).count(), 1);
}

#[test]
fn means_are_those_of_single_images() {
    let folder = tempfile::tempdir().unwrap();
    images(folder.path());
    let (tokenizer, set) = (tokenizer(), ValidationSet::open(folder.path(), 16, None).unwrap());
    let distance = |a: &Tensor, b: &Tensor| (a - b).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
    let perceptual = Some(&distance as Perceptual);
    let found = validate(&tokenizer, &set, &ValidationOptions { perceptual, ..options(2) }, &OneProcess).unwrap();

    let _no_grad = tch::no_grad_guard();
    let (mut absolute, mut squared, mut ratio) = (0.0, 0.0, 0.0);
    let mut tokens = vec![];
    for image in set.batches(1) {
        let x = pixels::to_input(&image.unwrap().pixels, 1, 16, 16, Runtime::EXACT);
        let output = tokenizer.decode(&tokenizer.encode(&x));
        absolute += (&x - &output).abs().mean(Kind::Double).double_value(&[]) / 5.0;
        squared += (&x - &output).square().mean(Kind::Double).double_value(&[]) / 5.0;
        let levels = |t: &Tensor| ((t.clamp(-1.0, 1.0) + 1.0) * 127.5 + 1e-3).floor();
        let error = (levels(&x) - ((output.clamp(-1.0, 1.0) + 1.0) / 2.0 * 255.0).floor()).square();
        ratio += 10.0 * (255.0f64.powi(2) / error.mean(Kind::Double).double_value(&[])).log10() / 5.0;
        tokens.extend(Vec::<i64>::try_from(tokenizer.encode(&x).to_kind(Kind::Int64).view([-1])).unwrap());
    }
    for (what, value, want) in [
        ("reconstruct", found.reconstruct_loss, absolute),
        ("perceptual", found.perceptual_loss.unwrap(), squared),
        ("psnr", found.psnr, ratio),
    ] {
        assert!((value - want).abs() < 1e-5 * want.abs().max(1.0), "{what}: {value}, not {want}");
    }
    let different: std::collections::BTreeSet<_> = tokens.iter().collect();
    assert_eq!(found.codes_used, different.len() as u64);
    assert_eq!(found.codebook_utilization, different.len() as f64 / 64.0);
    for (bit, share) in found.bit_balance.iter().enumerate() {
        let ones = tokens.iter().filter(|token| *token >> bit & 1 == 1).count();
        assert_eq!(*share, ones as f64 / tokens.len() as f64, "bit {bit}");
    }
}

#[test]
fn originals_are_above_their_reconstructions() {
    let folder = tempfile::tempdir().unwrap();
    images(folder.path());
    let (tokenizer, set) = (tokenizer(), ValidationSet::open(folder.path(), 16, None).unwrap());
    let samples = validate(&tokenizer, &set, &options(3), &OneProcess).unwrap().samples.unwrap();
    let first = set.batches(4).next().unwrap().unwrap().pixels;
    assert!(samples == reconstructions(&tokenizer, &first, 16, Runtime::EXACT));
    // Four columns and two rows, with gaps of four pixels.
    assert_eq!((samples.width, samples.height), (4 * 20 - 4, 2 * 20 - 4));
    assert_eq!(samples.rgb[..16 * 3], first[..16 * 3], "the first row of the first original");
    let none = ValidationOptions { num_samples: 0, ..options(3) };
    assert!(validate(&tokenizer, &set, &none, &OneProcess).unwrap().samples.is_none());
}

#[test]
fn a_source_without_a_valid_image_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.png"), b"broken").unwrap();
    let set = ValidationSet::open(folder.path(), 16, None).unwrap();
    let error = validate(&tokenizer(), &set, &options(2), &OneProcess).unwrap_err().to_string();
    assert!(error.contains("1 of 1 images are bad") && error.contains("a.png"), "{error}");
}
