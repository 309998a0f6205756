//! `eval reconstruction` against the reference's results: inputs of the networks, truncation to 8 bits, and padding of pictures
//! of any size.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{inception, lpips, tokenizer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokengrid_eval::perceptual::Net;
use tokengrid_eval::pictures::{Cut, Pictures};
use tokengrid_eval::progress::Watch;
use tokengrid_eval::reconstruction::{ReconstructionJob, ReconstructionReport};
use tokengrid_eval::{Alone, Inception};
use tokengrid_ingest::{BadPolicy, Limits, Recipe, Source, SourceOptions, decode_rgb, views_of_file};
use tokengrid_model::perceptual::{Backbone, Lpips};
use tokengrid_model::tokenizer::pass;
use tokengrid_model::{Picture, Runtime, Tokenizer, Weights};
use tokengrid_test_support::{golden, golden_json};

const RUNTIME: Runtime = Runtime::EXACT;

/// One of the two sets of the golden.
struct Case {
    name: &'static str,
    json: serde_json::Value,
    files: Vec<PathBuf>,
    cut: Cut,
}

impl Case {
    fn new(name: &'static str, cut: Cut) -> Case {
        let json = golden_json("protocol.json")[name].clone();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ingest/tests/fixtures/preprocess/in");
        let names = json["images"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        let files = names.map(|name| fixtures.join(name)).collect();
        Case { name, json, files, cut }
    }

    fn tokenizer(&self) -> Tokenizer {
        tokenizer(self.json["tokenizer_tensors"].as_str().unwrap(), self.json["salt"].as_str().unwrap())
    }

    fn picture(&self, index: usize) -> Picture {
        let bytes = std::fs::read(&self.files[index]).unwrap();
        if let Cut::Center(size) = self.cut {
            let recipe = Recipe { size, ..Recipe::default() };
            let view = views_of_file(&bytes, "", &recipe, &Limits::default()).unwrap().remove(0);
            return Picture::new(size as usize, size as usize, view.pixels);
        }
        let image = decode_rgb(&bytes, &Limits::default()).unwrap();
        Picture::new(image.width as usize, image.height as usize, image.pixels)
    }

    fn evaluate(&self, inception: &Inception, nets: &[(Backbone, Lpips)]) -> ReconstructionReport {
        let folder = tempfile::tempdir().unwrap();
        for file in &self.files {
            std::fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        let source = Arc::new(Source::open(folder.path(), &SourceOptions::default()).unwrap());
        let job = ReconstructionJob {
            pictures: Pictures::Source { source, cut: self.cut, threads: 1, limits: Limits::default() },
            tokenizer: &self.tokenizer(),
            runtime: RUNTIME,
            batch_size: 1,
            inception: Some(inception),
            lpips: nets.iter().map(|(backbone, lpips)| Net { backbone: *backbone, lpips }).collect(),
            bad_policy: BadPolicy::default(),
            kept_pairs: self.files.len(),
        };
        let watch = &mut Watch { cancel: &AtomicBool::new(false), progress: &mut |_| {} };
        job.run(&Alone, watch).unwrap().expect("of one process")
    }

    #[track_caller]
    fn near(&self, what: &str, got: Option<f64>, tolerance: f64) {
        let (got, want) = (got.unwrap(), self.json[what].as_f64().unwrap());
        assert!((got - want).abs() <= tolerance, "{} {what}: {got}, expected {want}", self.name);
    }

    /// PSNR 1e-3 dB, SSIM 1e-5, rFID 2e-3 relative: six vectors leave the covariance far from full rank.
    fn check(&self, report: &ReconstructionReport) {
        let want = |what: &str| self.json[what].as_f64().unwrap();
        assert_eq!((report.images, report.bad.len()), (self.files.len(), 0));
        self.near("psnr_mean", report.psnr, 1e-3);
        self.near("ssim_mean", report.ssim, 1e-5);
        self.near("rfid", report.rfid, 2e-3 * want("rfid"));
        assert_eq!(report.codebook.distinct_codes as f64, want("codes"), "{}", self.name);
        for (key, psnr) in report.extremes.worst() {
            let index = self.files.iter().position(|file| file.file_name().unwrap() == key).unwrap();
            let want = self.json["psnr"][index].as_f64().unwrap();
            assert!((psnr - want).abs() <= 1e-3, "{key}: {psnr} dB, expected {want}");
        }
    }

    /// How many values of each original lose a level.
    fn check_lowered_levels(&self) {
        let tokenizer = self.tokenizer();
        for (index, want) in self.json["levels_of_the_original_lowered"].as_array().unwrap().iter().enumerate() {
            let picture = self.picture(index);
            let truncated = pass(&[&picture], &tokenizer, Runtime::EXACT).originals().remove(0);
            let lowered = picture.rgb.iter().zip(&truncated.rgb).filter(|(was, is)| **was == **is + 1).count();
            assert_eq!(lowered as u64, want.as_u64().unwrap(), "{} {index}", self.name);
        }
    }

    /// Features of the first picture, to 1e-4 of the largest value.
    fn check_features(&self, inception: &Inception) {
        let data = Weights::open(&golden("protocol.safetensors")).unwrap();
        let pass = pass(&[&self.picture(0)], &self.tokenizer(), Runtime::EXACT);
        let sides = [("pool3_original", &pass.original_bchw), ("pool3_reconstruction", &pass.reconstruction_bchw)];
        for (side, input_bchw) in sides {
            let want = data.tensor(&format!("{}.{side}", self.name)).unwrap().get(0);
            let got = inception.features_of_input(input_bchw).unwrap().pool3.get(0);
            let scale = want.abs().max().double_value(&[]);
            let difference = (got - want).abs().max().double_value(&[]);
            assert!(difference <= 1e-4 * scale, "{} {side}: differs by {difference:e} of {scale:e}", self.name);
        }
    }
}

#[test]
fn squares_of_128_pixels() {
    let case = Case::new("128", Cut::Center(128));
    let inception = inception(&golden_json("inception.json"));
    let nets = [Backbone::Vgg16, Backbone::AlexNet].map(|backbone| (backbone, lpips(backbone)));
    let report = case.evaluate(&inception, &nets);
    case.check(&report);
    for (what, got) in [("lpips_vgg_mean", report.lpips_vgg), ("lpips_alex_mean", report.lpips_alex)] {
        case.near(what, got, 1e-4 * case.json[what].as_f64().unwrap());
    }
    case.check_features(&inception);
}

#[test]
fn whole_pictures_with_a_margin_of_mid_grey() {
    let case = Case::new("original", Cut::Whole);
    let inception = inception(&golden_json("inception.json"));
    case.check(&case.evaluate(&inception, &[]));
    case.check_features(&inception);
    case.check_lowered_levels();
}
