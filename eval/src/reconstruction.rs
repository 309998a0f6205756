//! Evaluation of a tokenizer on a data set: images to tokens and back.
//!
//! Images are decoded by threads while the model works; pictures of one size go through it in batches. Nothing is kept but
//! sums, and a few pairs at either end of the scale.
//!
//! The metrics are those of the reference: Inception and LPIPS see floats, the tokenizer's input and its clamped output; PSNR
//! and SSIM see both truncated to 8 bits. Shape suffixes: `b` batch, `c` channels, `h w` pixels or grid.

use crate::EvalError;
use crate::Inception;
use crate::codebook::{CodeCounter, CodebookUse};
use crate::collect::rows;
use crate::extremes::{Extremes, Pair};
use crate::frechet::frechet_distance;
use crate::inception::POOL3;
use crate::measure::{Measure, Numbered, Survey};
use crate::moments::Moments;
use crate::pass_memory::PassMemory;
use crate::peers::Peers;
use crate::perceptual::{LpipsSum, Net};
use crate::pictures::Pictures;
use crate::progress::{BadImage, Watch};
use crate::ssim::ssim;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use tokengrid_ingest::{BadPolicy, psnr};
use tokengrid_model::guard::guarded;
use tokengrid_model::perceptual::Backbone;
use tokengrid_model::tokenizer::{Pass, pass};
use tokengrid_model::{Picture, Runtime, Tokenizer};

/// Codes of more bits would need more than 2 GiB of counters.
const COUNTED_BITS_MAX: u32 = 28;

/// Everything that the evaluation needs.
pub struct ReconstructionJob<'a> {
    /// The images, cut as the tokenizer is to see them.
    pub pictures: Pictures,
    /// The model, on its device.
    pub tokenizer: &'a Tokenizer,
    /// Device and precision.
    pub runtime: Runtime,
    /// Pictures of one size per call; on the CPU every picture is a separate call.
    pub batch_size: usize,
    /// The network for rFID, if it is wanted.
    pub inception: Option<&'a Inception>,
    /// Perceptual distances to compute.
    pub lpips: Vec<Net<'a>>,
    /// What to do with broken images.
    pub bad_policy: BadPolicy,
    /// Pairs to keep at either end of the scale.
    pub kept_pairs: usize,
}

/// The metrics. Those that could not be computed are `None`; [`ReconstructionReport::absent`] says why.
#[derive(Debug, Serialize)]
pub struct ReconstructionReport {
    /// Images that were measured.
    pub images: usize,
    /// Frechet distance between the pool3 features of reconstructions and images.
    pub rfid: Option<f64>,
    /// Mean over images of the peak signal-to-noise ratio, in dB.
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
    /// Seconds from the first image to the last metric.
    pub seconds: f64,
    /// Metrics that could not be computed, and why.
    #[serde(skip)]
    pub absent: Vec<(&'static str, String)>,
    /// The pairs at either end of the scale.
    #[serde(skip)]
    pub extremes: Extremes,
}

impl ReconstructionJob<'_> {
    /// Runs the evaluation. Returns the metrics at rank 0 of `peers`, `None` elsewhere.
    ///
    /// # Errors
    /// Too many images are bad, or none is good; the device fails; [`EvalError::Stopped`]; another process is gone.
    pub fn run(&self, peers: &dyn Peers, watch: &mut Watch) -> Result<Option<ReconstructionReport>, EvalError> {
        let started = Instant::now();
        let mut sums = Sums::new(self)?;
        let memory = PassMemory::new(self.tokenizer, self.runtime.device);
        let accept = Arc::new(move |width, height| memory.check(width, height));
        let (pictures, policy, batch_size) = (&self.pictures, self.bad_policy, self.batch_size);
        let survey = Survey { pictures, accept, policy, batch_size, peers };
        let mut passes = Passes { job: self, extremes: Extremes::new(self.kept_pairs) };
        let bad = survey.run(&mut passes, watch, &mut |figures| {
            sums.add(figures);
            Ok(())
        })?;
        let extremes = passes.extremes.of_all(peers)?;
        if !peers.is_first() {
            return Ok(None);
        }
        if sums.images == 0 {
            return Err(EvalError::TooFew { count: 0, needed: 1, what: "an evaluation" });
        }
        let mut report = sums.finish(bad, extremes)?;
        report.seconds = started.elapsed().as_secs_f64();
        Ok(Some(report))
    }
}

/// Measurements of one image.
#[derive(Serialize, Deserialize)]
struct Figures {
    psnr: f64,
    /// None for an image smaller than SSIM's window.
    ssim: Option<f64>,
    tokens: Vec<i64>,
    /// Features of the image, and of its reconstruction.
    features: Option<(Vec<f32>, Vec<f32>)>,
    /// By net.
    lpips: Vec<Option<f64>>,
}

/// Takes pictures through the tokenizer.
struct Passes<'a> {
    job: &'a ReconstructionJob<'a>,
    /// The pairs of this process at either end of the scale.
    extremes: Extremes,
}

impl Measure for Passes<'_> {
    type Figures = Figures;

    fn measure(&mut self, pictures: Vec<Numbered>) -> Result<Vec<Figures>, EvalError> {
        let runtime = self.job.runtime;
        // On the CPU one by one: libraries choose their algorithms by the size of a batch, and their roundings differ.
        let calls = if runtime.route.whole_batches { pictures.len().max(1) } else { 1 };
        let mut figures = vec![];
        for named in pictures.chunks(calls) {
            let pictures: Vec<&Picture> = named.iter().map(|numbered| &numbered.picture).collect();
            let pass = guarded(|| pass(&pictures, self.job.tokenizer, runtime))?;
            figures.extend(self.figures(named, &pass)?);
        }
        Ok(figures)
    }
}

impl Passes<'_> {
    fn figures(&mut self, named: &[Numbered], pass: &Pass) -> Result<Vec<Figures>, EvalError> {
        let tokens = pass.tokens()?;
        let mut tokens = tokens.chunks_exact(tokens.len() / named.len()).map(<[i64]>::to_vec);
        let mut features = match self.job.inception {
            None => None,
            Some(inception) => {
                let rows_of = |input_bchw| rows(&inception.features_of_input(input_bchw)?.pool3);
                let originals = rows_of(&pass.original_bchw)?;
                Some(originals.into_iter().zip(rows_of(&pass.reconstruction_bchw)?))
            }
        };
        let nets = self.job.lpips.iter();
        let distances = nets.map(|net| net.distances(&pass.original_bchw, &pass.reconstruction_bchw));
        let distances: Vec<Vec<Option<f64>>> = distances.collect::<Result<_, EvalError>>()?;
        let pictures: Vec<(Picture, Picture)> = pass.originals().into_iter().zip(pass.reconstructions()).collect();
        let similar = |(a, b): &(Picture, Picture)| ssim(&a.rgb, &b.rgb, a.width, a.height);
        let ssims: Vec<Option<f64>> = pictures.par_iter().map(similar).collect();
        let images = named.iter().zip(pictures).zip(ssims).enumerate();
        let figures = images.map(|(at, ((Numbered { index, key, .. }, (original, reconstruction)), ssim))| {
            let psnr = psnr(&original.rgb, &reconstruction.rgb);
            self.extremes.push(&Pair { index: *index, key: key.clone(), psnr, original, reconstruction });
            let tokens = tokens.next().expect("tokens of every image");
            let features = features.as_mut().and_then(Iterator::next);
            Figures { psnr, ssim, tokens, features, lpips: distances.iter().map(|net| net[at]).collect() }
        });
        Ok(figures.collect())
    }
}

/// Sums over the images.
struct Sums<'a> {
    images: usize,
    psnr: f64,
    ssim: f64,
    /// Images too small for SSIM's window.
    without_ssim: usize,
    codes: CodeCounter,
    /// Features of the images, and of their reconstructions.
    features: Option<[Moments; 2]>,
    lpips: Vec<LpipsSum<'a>>,
}

impl<'a> Sums<'a> {
    fn new(job: &ReconstructionJob<'a>) -> Result<Sums<'a>, EvalError> {
        let bits = job.tokenizer.architecture.z_channels as u32;
        if bits > COUNTED_BITS_MAX {
            let what =
                format!("tokens of {bits} bits are too many to count; at most {COUNTED_BITS_MAX} can be evaluated");
            return Err(EvalError::Misfit { what });
        }
        Ok(Sums {
            images: 0,
            psnr: 0.0,
            ssim: 0.0,
            without_ssim: 0,
            codes: CodeCounter::new(bits),
            features: job.inception.map(|_| [(); 2].map(|()| Moments::new(POOL3))),
            lpips: job.lpips.iter().map(|net| LpipsSum::new(*net)).collect(),
        })
    }

    /// Adds an image: in the order of the set, so that the sums depend neither on batches nor on processes.
    fn add(&mut self, figures: Figures) {
        self.images += 1;
        self.psnr += figures.psnr;
        self.ssim += figures.ssim.unwrap_or(0.0);
        self.without_ssim += usize::from(figures.ssim.is_none());
        self.codes.push(&figures.tokens);
        if let (Some([originals, reconstructions]), Some((original, reconstruction))) =
            (&mut self.features, figures.features)
        {
            originals.push(original.into_iter().map(f64::from));
            reconstructions.push(reconstruction.into_iter().map(f64::from));
        }
        self.lpips.iter_mut().zip(figures.lpips).for_each(|(sum, distance)| sum.add(distance));
    }

    fn finish(self, bad: Vec<BadImage>, extremes: Extremes) -> Result<ReconstructionReport, EvalError> {
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
            extremes,
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
    features: Option<[Moments; 2]>,
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
    frechet_distance(&originals.finish()?, &reconstructions.finish()?).map(Some)
}
