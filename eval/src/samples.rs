//! Comparison of a set of pictures, or saved statistics, with another.

use crate::EvalError;
use crate::collect::{Collected, Figures, Reader};
use crate::frechet::frechet_distance;
use crate::inception::{Inception, Protocol};
use crate::manifold::{NEIGHBOURS, PrecisionRecall, precision_recall};
use crate::measure::Survey;
use crate::moments::Gaussian;
use crate::peers::Peers;
use crate::pictures::{Cut, NPZ_PICTURES, Pictures};
use crate::progress::{BadImage, Watch};
use crate::score::{Score, usual_splits};
use crate::statistics::Saved;
use std::path::Path;
use std::sync::Arc;
use tokengrid_ingest::{BadPolicy, Limits, Source, SourceOptions};
use tokengrid_sample::arrays::{ArrayError, Npz};

/// How the pictures of a side are read.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// Which part of a source's images is used; arrays are used as they are.
    pub cut: Cut,
    /// Largest number of pictures.
    pub limit: Option<usize>,
    /// Decoding threads; 0: one per core.
    pub threads: usize,
    /// Limits on memory and time for one file.
    pub limits: Limits,
}

/// One of the two sets: pictures, saved statistics, or (in the ADM suite's reference files) both.
pub struct Side {
    pictures: Option<Pictures>,
    saved: Option<Saved>,
}

impl Side {
    /// Opens a source of images, or an `.npz` file with pictures (`arr_0`), statistics (`mu`, `sigma`), or both.
    ///
    /// # Errors
    /// The path is unreadable, or holds neither pictures nor statistics.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Side, EvalError> {
        let is_npz = path.is_file() && path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz"));
        if !is_npz {
            let select = SourceOptions { limit: options.limit, ..SourceOptions::default() };
            let source = Arc::new(Source::open(path, &select)?);
            let ReadOptions { cut, threads, limits, .. } = *options;
            return Ok(Side { pictures: Some(Pictures::Source { source, cut, threads, limits }), saved: None });
        }
        let mut npz = Npz::open(path)?;
        let saved = Saved::read(&mut npz)?;
        let pictures = npz.has(NPZ_PICTURES).then(|| Pictures::of_npz(path, options.limit)).transpose()?;
        if saved.is_none() && pictures.is_none() {
            let what = format!("it holds {}; expected pictures (`arr_0`) or statistics (`mu`, `sigma`)", npz.names());
            return Err(ArrayError::Content { path: path.into(), what }.into());
        }
        Ok(Side { pictures, saved })
    }

    /// A description, to be compared with those of other processes.
    pub fn describe(&self) -> String {
        let pictures = self.pictures.as_ref().map_or("no pictures".into(), Pictures::describe);
        format!("{pictures}, {} statistics", if self.saved.is_some() { "with" } else { "without" })
    }
}

/// Everything that the evaluation needs.
pub struct SamplesJob<'a> {
    /// The network.
    pub inception: &'a Inception,
    /// The suite whose protocol is followed.
    pub protocol: Protocol,
    /// Pictures of one size per call.
    pub batch_size: usize,
    /// Splits of the inception score; `None`: one for every 5,000 pictures.
    pub splits: Option<usize>,
    /// Whether features are kept for precision and recall.
    pub precision_recall: bool,
    /// What to do with broken images.
    pub bad_policy: BadPolicy,
    /// The processes that share the work; rank 0 gets the results.
    pub peers: &'a dyn Peers,
}

/// Measurements of a side.
pub struct Measured {
    /// Statistics of pool3; `None` for fewer than two pictures.
    pub pool3: Option<Gaussian>,
    /// Statistics of the spatial features.
    pub spatial: Option<Gaussian>,
    /// The inception score, where there were pictures.
    pub score: Option<Score>,
    /// Pictures that went through the network.
    pub images: usize,
    /// Pictures that could not be used.
    pub bad: Vec<BadImage>,
    features: Option<tch::Tensor>,
}

/// Metrics of one side against the other.
#[derive(Debug, Default)]
pub struct Compared {
    /// Frechet distance of pool3 features.
    pub fid: Option<f64>,
    /// Frechet distance of spatial features.
    pub sfid: Option<f64>,
    /// Precision and recall.
    pub manifold: Option<PrecisionRecall>,
    /// Metrics that could not be computed, and why.
    pub absent: Vec<(&'static str, String)>,
}

impl SamplesJob<'_> {
    /// Measures a side's pictures where its saved statistics do not suffice. A score is wanted of the evaluated side only.
    ///
    /// # Errors
    /// Too many images are bad; the device fails; [`EvalError::Stopped`]; another process is gone.
    pub fn measure(&self, side: Side, want_score: bool, watch: &mut Watch) -> Result<Measured, EvalError> {
        let Side { pictures, saved } = side;
        let needed = saved.is_none() || want_score || self.precision_recall;
        let mut measured = Measured { pool3: None, spatial: None, score: None, images: 0, bad: vec![], features: None };
        if let Some(pictures) = pictures.filter(|_| needed) {
            let (collected, bad) = self.collect(&pictures, saved.is_none(), want_score, watch)?;
            measured = Measured::of(collected, bad)?;
        }
        // Saved statistics are of the whole data set, where the pictures beside them may be a part of it.
        if let Some(Saved { pool3, spatial }) = saved {
            (measured.pool3, measured.spatial) = (Some(pool3), spatial);
        }
        Ok(measured)
    }

    fn collect(
        &self,
        pictures: &Pictures,
        want_spatial: bool,
        want_score: bool,
        watch: &mut Watch,
    ) -> Result<(Collected, Vec<BadImage>), EvalError> {
        // More splits than pictures stay empty, and each takes memory.
        let splits = self.splits.unwrap_or_else(|| usual_splits(pictures.len())).min(pictures.len());
        let wanted =
            Figures { spatial: want_spatial, splits: want_score.then_some(splits), features: self.precision_recall };
        let mut reader = Reader { inception: self.inception, protocol: self.protocol, wanted };
        let mut collected = Collected::new(wanted);
        let (policy, batch_size, peers) = (self.bad_policy, self.batch_size, self.peers);
        let survey = Survey { pictures, accept: Arc::new(|_, _| Ok(())), policy, batch_size, peers };
        let bad = survey.run(&mut reader, watch, &mut |row| {
            collected.add(row);
            Ok(())
        })?;
        Ok((collected, bad))
    }

    /// The metrics of `generated` against `reference`.
    ///
    /// # Errors
    /// The statistics are of different networks, or an eigenvalue routine fails.
    pub fn compare(&self, generated: &Measured, reference: &Measured) -> Result<Compared, EvalError> {
        let mut compared = Compared::default();
        match (&generated.pool3, &reference.pool3) {
            (Some(a), Some(b)) => compared.fid = Some(frechet_distance(a, b)?),
            _ => compared.absent.push(("fid", "one picture has no covariance; at least two are needed".into())),
        }
        match (&generated.spatial, &reference.spatial) {
            (Some(a), Some(b)) => compared.sfid = Some(frechet_distance(a, b)?),
            _ => compared.absent.push(("sfid", "saved statistics without `mu_s` and `sigma_s` cannot say".into())),
        }
        match (&generated.features, &reference.features) {
            (Some(a), Some(b)) if generated.images.min(reference.images) > NEIGHBOURS => {
                compared.manifold = Some(precision_recall(a, b)?);
            }
            (Some(_), Some(_)) => {
                let why = format!("at least {} pictures on either side are needed", NEIGHBOURS + 1);
                compared.absent.push(("precision and recall", why));
            }
            _ if self.precision_recall => {
                compared.absent.push(("precision and recall", "they need pictures on both sides".into()));
            }
            _ => {}
        }
        Ok(compared)
    }
}

impl Measured {
    fn of(collected: Collected, bad: Vec<BadImage>) -> Result<Measured, EvalError> {
        let images = collected.pool3.count() as usize;
        let (score, features) = (collected.score(), collected.features());
        let Collected { pool3, spatial, .. } = collected;
        let has_covariance = images >= 2;
        let pool3 = if has_covariance { Some(pool3.finish()?) } else { None };
        let spatial = spatial.filter(|_| has_covariance).map(|spatial| spatial.finish()).transpose()?;
        Ok(Measured { pool3, spatial, score, images, bad, features })
    }
}
