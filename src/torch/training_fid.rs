//! The FID of images that are sampled during a training run.
//!
//! Sample i has class i mod the number of classes, always with the same random numbers. The processes divide the batches of
//! samples among them and add up the statistics of their features: count, mean and scatter matrix.

use super::training_samples::tokenizer;
use crate::args::TokenizerArgs;
use crate::exit::CheckFailed;
use crate::signals;
use std::path::Path;
use tokengrid_eval::collect::{Collected, Figures, Reader};
use tokengrid_eval::inception::POOL3;
use tokengrid_eval::statistics::Saved;
use tokengrid_eval::{Gaussian, Inception, Protocol, frechet_distance};
use tokengrid_model::ar::ArModel;
use tokengrid_model::tokenizer::{decode, tokens_tensor};
use tokengrid_model::{Precision, Runtime, Tokenizer};
use tokengrid_sample::arrays::Npz;
use tokengrid_sample::sampler::SampleRequest;
use tokengrid_sample::{Sampler, SamplerConfig};
use tokengrid_store::LocalFile;
use tokengrid_train::ar::{ArConfig, FidFn, HookError};
use tokengrid_train::process_group::ProcessGroup;

/// Samples per batch.
pub(super) const BATCH: usize = 16;

/// State that is constant over the run.
struct FidJob {
    tokenizer: Tokenizer,
    inception: Inception,
    reference: Gaussian,
    settings: SamplerConfig,
    num_samples: usize,
    runtime: Runtime,
}

/// The function for [`tokengrid_train::ar::Trainer::fid_with`].
///
/// # Errors
/// Weights or statistics are missing or of another network; the tokenizer is not that of the cache, whose fingerprint is
/// `trained_on`.
pub(super) fn fid(
    args: &TokenizerArgs,
    inception: &Path,
    config: &ArConfig,
    trained_on: &str,
    runtime: &Runtime,
) -> anyhow::Result<FidFn> {
    let runtime = Runtime { precision: Precision::Fp32, ..*runtime };
    let train = &config.train;
    let inception = Inception::open(inception, runtime)?;
    let reference = reference(Path::new(train.fid_reference.as_deref().unwrap_or_default()))?;
    let (cfg_scale, seed) = (train.fid_cfg_scale, train.seed as u64);
    let job = FidJob {
        tokenizer: tokenizer(args, trained_on, &runtime)?,
        inception,
        reference,
        settings: SamplerConfig { cfg_scale, seed, ..SamplerConfig::default() },
        num_samples: train.fid_samples,
        runtime,
    };
    Ok(Box::new(move |model, processes| job.compute(model, processes)))
}

/// Statistics of pool3 features from a file.
fn reference(path: &Path) -> anyhow::Result<Gaussian> {
    let file = LocalFile::of(path)?;
    let read = |path: &Path| -> anyhow::Result<Option<Saved>> { Ok(Saved::read(&mut Npz::open(path)?)?) };
    let saved = match read(file.path()) {
        // The copy of an object has a path that nobody typed.
        Err(error) if file.is_copy() => return Err(anyhow::anyhow!(file.as_typed(&format!("{error:#}")))),
        read => read?,
    };
    let refuse = |what: String| CheckFailed(format!("train.fid_reference, {}: {what}", path.display()));
    let Saved { pool3, .. } = saved.ok_or_else(|| refuse("no statistics, `mu` and `sigma`, in it".into()))?;
    if pool3.dims() != POOL3 {
        let what = format!("statistics of {} values; expected {}, those of Inception", pool3.dims(), POOL3);
        return Err(refuse(what).into());
    }
    Ok(pool3)
}

impl FidJob {
    fn compute(&self, model: &ArModel, processes: &dyn ProcessGroup) -> Result<Option<f64>, HookError> {
        let wanted: Vec<SampleRequest> =
            (0..self.num_samples as u64).map(|i| wanted(i, model.config.class_num)).collect();
        let mut sampler = Sampler::new(model, self.settings.clone(), self.runtime)?;
        let figures = Figures::default();
        let reader = Reader { inception: &self.inception, protocol: Protocol::PytorchFid, wanted: figures };
        let mut collected = Collected::new(figures);
        let batches: Vec<&[SampleRequest]> = wanted.chunks(BATCH).collect();
        for round in batches.chunks(processes.world_size()) {
            // All processes stop in the same round, since each waits for the sums of all.
            if processes.any(signals::cancelled())? {
                return Ok(None);
            }
            let Some(batch) = round.get(processes.rank()) else { continue };
            let tokens = sampler.sample(batch)?;
            let tokens_bhw = tokens_tensor(&tokens, model.config.side(), self.runtime.device);
            let pictures = decode(&self.tokenizer, &tokens_bhw, self.runtime);
            reader.read(&pictures.iter().collect::<Vec<_>>())?.into_iter().for_each(|row| collected.add(row));
        }
        let mut moments = collected.pool3;
        if processes.world_size() > 1 {
            moments.share(|tensor| processes.sum(tensor))?;
        }
        Ok(Some(frechet_distance(&moments.finish()?, &self.reference)?))
    }
}

/// Sample number `i`.
fn wanted(i: u64, class_num: i64) -> SampleRequest {
    let classes = class_num.max(1) as u64;
    SampleRequest { class: (i % classes) as i64, index: i / classes }
}
