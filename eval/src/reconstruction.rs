//! A tokenizer over a data set: images to tokens and back, and how much is lost.
//!
//! Images are decoded by threads while the model works; pictures of one size go through it in batches. Nothing is kept but
//! sums, and a few pairs at either end of the scale.
//!
//! The figures are those of the reference: Inception and LPIPS see floats, the tokenizer's input and its clamped output; PSNR
//! and SSIM see both truncated to 8 bits. Shape suffixes: `b` batch, `c` channels, `h w` pixels or grid.

use crate::EvalError;
use crate::codebook::{CodeCounter, CodebookUse};
use crate::collect::{Collector, Wanted};
use crate::extremes::{Extremes, Pair};
use crate::frechet::frechet_distance;
use crate::pass_memory::PassMemory;
use crate::perceptual::{LpipsSum, Net};
use crate::pictures::Pictures;
use crate::progress::{BadImage, Watch, each_good};
use crate::ssim::ssim;
use crate::{BATCH_BYTES_MAX, Inception, Protocol};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use tch::Device;
use tokengrid_ingest::{BadPolicy, psnr};
use tokengrid_model::perceptual::Backbone;
use tokengrid_model::tokenizer::{Pass, pass};
use tokengrid_model::{Picture, Runtime, Tokenizer};

/// Codes of more bits would need more than 2 GB of counters.
const COUNTED_BITS_MAX: u32 = 28;

/// Everything that the evaluation needs.
pub struct ReconstructionJob<'a> {
    /// The images, cut as the tokenizer is to see them.
    pub pictures: Pictures,
    /// The model, on its device.
    pub tokenizer: &'a Tokenizer,
    /// Device and precision.
    pub runtime: Runtime,
    /// Pictures of one size a call; on the CPU every picture is a call of its own.
    pub batch_size: usize,
    /// For rFID.
    pub inception: Option<&'a Inception>,
    /// Perceptual distances that are wanted.
    pub lpips: Vec<Net<'a>>,
    /// What to do with broken images.
    pub bad_policy: BadPolicy,
    /// Pairs to keep at either end of the scale.
    pub kept_pairs: usize,
}

/// The figures. Those that could not be computed are `None`; [`ReconstructionReport::absent`] says why.
#[derive(Debug, Serialize)]
pub struct ReconstructionReport {
    /// Images that were measured.
    pub images: usize,
    /// Frechet distance of the reconstructions' features to the images'.
    pub rfid: Option<f64>,
    /// Peak signal-to-noise ratio in dB: of each image, then the mean.
    pub psnr: Option<f64>,
    /// Structural similarity, up to 1; the mean over images.
    pub ssim: Option<f64>,
    /// Perceptual distance by VGG16; the mean over images.
    pub lpips_vgg: Option<f64>,
    /// Perceptual distance by AlexNet; the mean over images.
    pub lpips_alex: Option<f64>,
    /// Use of the codebook.
    #[serde(flatten)]
    pub codebook: CodebookUse,
    /// Images that were not measured.
    pub bad: Vec<BadImage>,
    /// Seconds from the first image to the last figure.
    pub seconds: f64,
    /// Figures that are not there, and why.
    #[serde(skip)]
    pub absent: Vec<(&'static str, String)>,
    /// The pairs at either end of the scale.
    #[serde(skip)]
    pub extremes: Extremes,
}

impl ReconstructionJob<'_> {
    /// Runs the evaluation.
    ///
    /// # Errors
    /// Too many bad images, no good one, a device that fails, [`EvalError::Stopped`].
    pub fn run(&self, watch: &mut Watch) -> Result<ReconstructionReport, EvalError> {
        let started = Instant::now();
        let mut sums = Sums::new(self)?;
        let mut batch: Vec<(String, Picture)> = vec![];
        let is_full = |batch: &[(String, Picture)]| {
            let bytes: usize = batch.iter().map(|(_, picture)| picture.rgb.len()).sum();
            batch.len() >= self.batch_size || bytes >= BATCH_BYTES_MAX
        };
        let memory = PassMemory::new(self.tokenizer, self.runtime.device);
        let accept = Arc::new(move |width, height| memory.check(width, height));
        let bad = each_good(&self.pictures, accept, self.bad_policy, watch, &mut |key, picture| {
            let size = |picture: &Picture| (picture.width, picture.height);
            if batch.first().is_some_and(|(_, first)| size(first) != size(&picture)) {
                self.measure(std::mem::take(&mut batch), &mut sums)?;
            }
            batch.push((key, picture));
            if is_full(&batch) { self.measure(std::mem::take(&mut batch), &mut sums) } else { Ok(()) }
        })?;
        self.measure(batch, &mut sums)?;
        if sums.images == 0 {
            return Err(EvalError::TooFew { count: 0, needed: 1, what: "an evaluation" });
        }
        let mut report = sums.finish(bad)?;
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Takes pictures of one size through the tokenizer and adds up what became of them.
    fn measure(&self, batch: Vec<(String, Picture)>, sums: &mut Sums) -> Result<(), EvalError> {
        // On the CPU one by one: libraries choose their algorithms by the size of a batch, and their roundings differ.
        let calls = if self.runtime.device == Device::Cpu { 1 } else { batch.len().max(1) };
        for named in batch.chunks(calls) {
            let pictures: Vec<&Picture> = named.iter().map(|(_, picture)| picture).collect();
            let pass = pass(&pictures, self.tokenizer, self.runtime.device);
            sums.add(named.iter().map(|(key, _)| key.clone()), &pass)?;
        }
        Ok(())
    }
}

/// Everything that is added up over the images.
struct Sums<'a> {
    images: usize,
    psnr: f64,
    ssim: f64,
    /// Images too small for SSIM's window.
    without_ssim: usize,
    codes: CodeCounter,
    /// Features of the images, and of their reconstructions.
    features: Option<[Collector<'a>; 2]>,
    lpips: Vec<LpipsSum<'a>>,
    extremes: Extremes,
}

impl<'a> Sums<'a> {
    fn new(job: &ReconstructionJob<'a>) -> Result<Sums<'a>, EvalError> {
        let bits = job.tokenizer.architecture.z_channels as u32;
        if bits > COUNTED_BITS_MAX {
            let what =
                format!("tokens of {bits} bits are too many to count; at most {COUNTED_BITS_MAX} can be evaluated");
            return Err(EvalError::Misfit { what });
        }
        let collector = |inception| Collector::new(inception, Protocol::default(), job.batch_size, Wanted::default());
        Ok(Sums {
            images: 0,
            psnr: 0.0,
            ssim: 0.0,
            without_ssim: 0,
            codes: CodeCounter::new(bits),
            features: job.inception.map(|inception| [collector(inception), collector(inception)]),
            lpips: job.lpips.iter().map(|net| LpipsSum::new(*net)).collect(),
            extremes: Extremes::new(job.kept_pairs),
        })
    }

    fn add(&mut self, keys: impl Iterator<Item = String>, pass: &Pass) -> Result<(), EvalError> {
        self.codes.push(&pass.tokens()?);
        if let Some([originals, reconstructions]) = &mut self.features {
            originals.push_input(&pass.original_bchw)?;
            reconstructions.push_input(&pass.reconstruction_bchw)?;
        }
        for sum in &mut self.lpips {
            sum.add(&pass.original_bchw, &pass.reconstruction_bchw)?;
        }
        let pictures: Vec<(Picture, Picture)> = pass.originals().into_iter().zip(pass.reconstructions()).collect();
        let similar = |(a, b): &(Picture, Picture)| ssim(&a.rgb, &b.rgb, a.width, a.height);
        let ssims: Vec<Option<f64>> = pictures.par_iter().map(similar).collect();
        // Added up image by image: the sums do not depend on where a batch ends.
        for ((key, (original, reconstruction)), ssim) in keys.zip(pictures).zip(ssims) {
            let psnr = psnr(&original.rgb, &reconstruction.rgb);
            self.images += 1;
            self.psnr += psnr;
            self.ssim += ssim.unwrap_or(0.0);
            self.without_ssim += usize::from(ssim.is_none());
            self.extremes.push(&Pair { key, psnr, original, reconstruction });
        }
        Ok(())
    }

    fn finish(self, bad: Vec<BadImage>) -> Result<ReconstructionReport, EvalError> {
        let images = self.images as f64;
        let mut absent = vec![];
        let psnr = Some(self.psnr / images).filter(|psnr| psnr.is_finite());
        if psnr.is_none() {
            absent.push(("psnr", "it is infinite: at least one image came back without any difference".into()));
        }
        let ssim = (self.without_ssim == 0).then_some(self.ssim / images);
        if ssim.is_none() {
            absent.push(("ssim", format!("{} images are smaller than its window of 7 x 7 pixels", self.without_ssim)));
        }
        let [lpips_vgg, lpips_alex] =
            [Backbone::Vgg16, Backbone::AlexNet].map(|backbone| lpips(&self.lpips, backbone, &mut absent));
        Ok(ReconstructionReport {
            images: self.images,
            rfid: rfid(self.features, self.images, &mut absent)?,
            psnr,
            ssim,
            lpips_vgg,
            lpips_alex,
            codebook: self.codes.finish(),
            bad,
            seconds: 0.0,
            absent,
            extremes: self.extremes,
        })
    }
}

fn lpips(sums: &[LpipsSum], backbone: Backbone, absent: &mut Vec<(&'static str, String)>) -> Option<f64> {
    let name = match backbone {
        Backbone::Vgg16 => "lpips_vgg",
        Backbone::AlexNet => "lpips_alex",
    };
    let Some(sum) = sums.iter().find(|sum| sum.backbone() == backbone) else {
        let flag = name.replace('_', "-");
        let (convolutions, taps) = (backbone.published_convolutions(), backbone.published_taps());
        absent.push((name, format!("it needs --{flag} FILE, the published {convolutions} with {taps} beside it")));
        return None;
    };
    sum.mean().map_err(|why| absent.push((name, why))).ok()
}

fn rfid(
    features: Option<[Collector; 2]>,
    images: usize,
    absent: &mut Vec<(&'static str, String)>,
) -> Result<Option<f64>, EvalError> {
    let Some([originals, reconstructions]) = features else {
        let file = super::inception::FILE_NAME;
        absent.push(("rfid", format!("it needs --inception FILE, the published {file}")));
        return Ok(None);
    };
    if images < 2 {
        absent.push(("rfid", "one image has no covariance; at least two are needed".into()));
        return Ok(None);
    }
    let originals = originals.finish()?.pool3.finish()?;
    let reconstructions = reconstructions.finish()?.pool3.finish()?;
    frechet_distance(&originals, &reconstructions).map(Some)
}
