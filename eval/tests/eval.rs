//! Evaluation against numbers of the reference's tools: FID, PSNR, SSIM, Inception features and score.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::inception;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tokengrid_eval::collect::{Collected, Figures, Reader};
use tokengrid_eval::inception::{FILE_NAME, SPATIAL};
use tokengrid_eval::ssim::ssim;
use tokengrid_eval::statistics::{Saved, of_features};
use tokengrid_eval::{Inception, Protocol, frechet_distance};
use tokengrid_ingest::psnr;
use tokengrid_model::{Params, Picture, Runtime, Weights};
use tokengrid_sample::arrays::Npz;
use tokengrid_sample::arrays::{Dtype, NamedArray, write_npy, write_npz};
use tokengrid_test_support::{GOLDEN_FEATURES, golden, golden_features, golden_json};

#[track_caller]
fn assert_relative(what: &str, got: f64, want: f64, tolerance: f64) {
    let difference = (got - want).abs() / want.abs();
    assert!(difference <= tolerance, "{what}: {got}, expected {want}, differs by {difference:e}");
}

fn metrics() -> (Weights, serde_json::Value) {
    (Weights::open(&golden("metrics.safetensors")).unwrap(), golden_json("metrics.json"))
}

/// Writes the first `rows` of a golden matrix as a `.npy` file.
fn write_features(path: &Path, values: &[f64], rows: usize) {
    let columns = GOLDEN_FEATURES[1];
    let bytes: Vec<u8> = values[..rows * columns].iter().flat_map(|value| value.to_le_bytes()).collect();
    write_npy(path, Dtype::F64, &[rows, columns], &bytes).unwrap();
}

#[test]
fn fid_of_given_features_also_where_they_are_fewer_than_dimensions() {
    let folder = tempfile::tempdir().unwrap();
    let (path, json) = (folder.path().join("features.npy"), golden_json("metrics.json"));
    for (rows, key) in [(500, "fid"), (40, "fid_first40")] {
        let [a, b] = golden_features().map(|values| {
            write_features(&path, &values, rows);
            of_features(&path).unwrap()
        });
        assert_relative(key, frechet_distance(&a, &b).unwrap(), json[key].as_f64().unwrap(), 1e-6);
        assert_relative("swapped", frechet_distance(&b, &a).unwrap(), json[key].as_f64().unwrap(), 1e-6);
        assert!(frechet_distance(&a, &a).unwrap() < 1e-6, "a set is at no distance from itself");
    }
}

/// Golden images `[B, 3, H, W]` of bytes as pictures.
fn pictures(data: &Weights, name: &str) -> Vec<Picture> {
    let images_bhwc = data.tensor(name).unwrap().permute([0, 2, 3, 1]).contiguous();
    let (_, height, width, _) = images_bhwc.size4().unwrap();
    let bytes = Vec::<u8>::try_from(&images_bhwc.view([-1])).unwrap();
    let (width, height) = (width as usize, height as usize);
    bytes.chunks_exact(width * height * 3).map(|rgb| Picture::new(width, height, rgb.to_vec())).collect()
}

#[test]
fn psnr_and_ssim_of_given_pictures() {
    let (data, json) = metrics();
    for (i, (a, b)) in pictures(&data, "image").iter().zip(pictures(&data, "noisy")).enumerate() {
        let want = |key: &str| json[key][i].as_f64().unwrap();
        let difference = (psnr(&a.rgb, &b.rgb) - want("psnr")).abs();
        assert!(difference < 1e-4, "psnr {i}: {difference:e}");
        let difference = (ssim(&a.rgb, &b.rgb, a.width, a.height).unwrap() - want("ssim")).abs();
        assert!(difference < 1e-5, "ssim {i}: {difference:e}");
    }
}

fn collect(inception: &Inception, pictures: &[Picture], batch_size: usize) -> Collected {
    let wanted = Figures { spatial: true, splits: Some(1), features: true };
    let reader = Reader { inception, protocol: Protocol::PytorchFid, wanted };
    let mut collected = Collected::new(wanted);
    for batch in pictures.chunks(batch_size) {
        let rows = reader.read(&batch.iter().collect::<Vec<_>>()).unwrap();
        rows.into_iter().for_each(|row| collected.add(row));
    }
    collected
}

#[test]
fn inception_features_and_logits_whatever_the_batch() {
    let (data, json) = (Weights::open(&golden("inception.safetensors")).unwrap(), golden_json("inception.json"));
    let (inception, pictures) = (inception(&json), pictures(&data, "images_u8"));
    let all: Vec<u8> = pictures.iter().flat_map(|picture| &picture.rgb).copied().collect();
    let features = inception.features(&all, 256, 256, Protocol::PytorchFid).unwrap();
    // Of the same network in PyTorch: Mixed_6d's 1x1 branch after its ReLU, 7 channels, by row, column, channel.
    let spatial = Weights::open(&golden("inception_spatial.safetensors")).unwrap();
    let parts = [("pool3", &data, &features.pool3), ("logits", &data, &features.logits)];
    for (name, file, got) in parts.into_iter().chain([("spatial", &spatial, &features.spatial)]) {
        let want = file.tensor(name).unwrap();
        let scale = want.abs().max().double_value(&[]);
        let difference = (got - want).abs().max().double_value(&[]);
        assert!(difference <= 1e-4 * scale, "{name}: differs by {difference:e} of {scale:e}");
    }
    assert_eq!(features.spatial.size(), [2, SPATIAL as i64]);

    let (one, two) = (collect(&inception, &pictures, 1), collect(&inception, &pictures, 2));
    assert!(one.features().unwrap().equal(&two.features().unwrap()), "a picture does not depend on its batch");
    assert!(one.features().unwrap().equal(&features.pool3));
    assert_eq!(one.score(), two.score());
    let adm = inception.features(&all[..256 * 256 * 3], 256, 256, Protocol::Adm).unwrap();
    assert!(!adm.pool3.equal(&features.pool3.narrow(0, 0, 1)), "another resize, other features");
}

#[test]
fn a_missing_network_is_named_with_where_it_is_published_and_another_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Inception::open(&folder.path().join("no.pth"), Runtime::EXACT).err().unwrap().to_string();
    for word in ["no.pth", "--inception", FILE_NAME, "pytorch-fid/releases"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let error = Inception::open(&golden("tok_f4.ckpt"), Runtime::EXACT).err().unwrap().to_string();
    assert!(error.contains("tok_f4.ckpt") && error.contains("Inception"), "{error}");
    let short: Params =
        [("fc.bias".to_string(), Tensor::zeros([1008], (Kind::Float, Device::Cpu)))].into_iter().collect();
    assert!(Inception::from_params(&short, "short".as_ref(), Runtime::EXACT).is_err());
}

/// Statistics that pytorch-fid would save: deflated.
fn deflated(path: &Path, arrays: &[(&str, &[usize], &[f64])]) {
    let scratch = path.with_extension("npy");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, shape, values) in arrays {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        write_npy(&scratch, Dtype::F64, shape, &bytes).unwrap();
        zip.start_file(format!("{name}.npy"), options).unwrap();
        std::io::Write::write_all(&mut zip, &std::fs::read(&scratch).unwrap()).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn statistics_are_written_and_read_back_also_deflated_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    let read = || Saved::read(&mut Npz::open(&path).unwrap());
    deflated(&path, &[("mu", &[2], &[1.0, 2.0]), ("sigma", &[2, 2], &[4.0, 0.0, 0.0, 9.0])]);
    let saved = read().unwrap().unwrap();
    assert!(saved.spatial.is_none());
    Saved::write(&path, &saved.pool3, Some(&saved.pool3)).unwrap();
    let again = read().unwrap().unwrap();
    assert!(again.pool3.mean.equal(&saved.pool3.mean) && again.pool3.covariance.equal(&saved.pool3.covariance));
    // Standard deviations 2 and 3 against themselves moved by 3 and 4: only the means differ.
    let mut moved = again.spatial.unwrap();
    moved.mean += Tensor::from_slice(&[3.0, 4.0]);
    assert_relative("distance", frechet_distance(&saved.pool3, &moved).unwrap(), 25.0, 1e-12);

    for (arrays, word) in [
        (vec![("mu", &[2usize][..], &[1.0, 2.0][..])], "sigma"),
        (vec![("mu", &[2], &[1.0, 2.0]), ("sigma", &[4], &[1.0; 4])], "[D, D]"),
        (vec![("mu", &[1], &[f64::NAN]), ("sigma", &[1, 1], &[1.0])], "not finite"),
    ] {
        deflated(&path, &arrays);
        let error = read().unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("stats.npz"), "{error}");
    }
    let other = NamedArray { name: "other", dtype: Dtype::U8, shape: vec![1], bytes: vec![0] };
    write_npz(&path, &[other]).unwrap();
    assert!(read().unwrap().is_none());
}
