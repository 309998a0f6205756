//! The job that writes a cache.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::identity::{JobIdentity, SourceInfo, TokenizerInfo};
use crate::format::split::{Split, check_splits};
use serde_json::Value;
use std::ops::Range;

/// Rows of a full row group: 9.4 MB of 576-byte grids, the unit of loss when a job is killed.
pub const DEFAULT_ROWS_PER_GROUP: usize = 16_384;

/// Row groups of a full shard: 38 MB files, some 200 of them for ten views of ImageNet.
pub const DEFAULT_GROUPS_PER_SHARD: usize = 4;

/// Everything that decides what a cache contains and how it is laid out.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// Shape of every grid.
    pub grid: GridSpec,
    /// Who makes the tokens.
    pub tokenizer: TokenizerInfo,
    /// The recipe: size, views, seed, orientation policy.
    pub recipe: Value,
    /// Rows of every image, at least 1: views `first_view .. first_view + num_views`.
    pub num_views: u32,
    /// The first view of every image: 0 but in a cache that holds what another one lacks, to be merged with it.
    pub first_view: u32,
    /// Where the images come from.
    pub source: SourceInfo,
    /// Class names (wnids) by index; empty when there are none.
    pub classes: Vec<String>,
    /// Named parts of the images in order, which leave none out; empty for a cache that is one whole.
    pub splits: Vec<Split>,
    /// This process, `0..world_size`: it owns images `rank * N / world_size .. (rank + 1) * N / world_size`.
    pub rank: u32,
    /// Processes that share the job.
    pub world_size: u32,
    /// Rows of a full row group ([`DEFAULT_ROWS_PER_GROUP`]); fewer where images or the size limit demand it.
    pub rows_per_group: usize,
    /// Row groups of a full shard ([`DEFAULT_GROUPS_PER_SHARD`]).
    pub groups_per_shard: usize,
}

impl JobSpec {
    /// A job of one process over `images` inputs with `num_views` rows each; the rest is default and may be set after.
    pub fn new(grid: GridSpec, images: usize, num_views: u32) -> JobSpec {
        JobSpec {
            grid,
            tokenizer: TokenizerInfo::default(),
            recipe: Value::Null,
            num_views,
            first_view: 0,
            source: SourceInfo { images, ..SourceInfo::default() },
            classes: Vec::new(),
            splits: Vec::new(),
            rank: 0,
            world_size: 1,
            rows_per_group: DEFAULT_ROWS_PER_GROUP,
            groups_per_shard: DEFAULT_GROUPS_PER_SHARD,
        }
    }

    pub(crate) fn from_identity(identity: JobIdentity) -> Result<JobSpec, CacheError> {
        let grid = GridSpec::parse(&identity.grid, identity.bits)?;
        Ok(JobSpec {
            tokenizer: identity.tokenizer,
            recipe: identity.recipe,
            first_view: identity.first_view,
            source: identity.source,
            classes: identity.classes,
            splits: identity.splits,
            ..JobSpec::new(grid, 0, identity.views)
        })
    }

    /// The images that this rank owns.
    pub fn images(&self) -> Range<usize> {
        // 128 bits: rank * images must not wrap for any input.
        let bound = |rank: u32| (self.source.images as u128 * u128::from(rank) / u128::from(self.world_size)) as usize;
        bound(self.rank)..bound(self.rank + 1)
    }

    /// # Errors
    /// [`CacheError::InvalidGrid`], [`CacheError::InvalidJob`].
    pub(crate) fn validate(&self) -> Result<(), CacheError> {
        self.grid.validate()?;
        let at_least_one: [(&'static str, usize); 4] = [
            ("num_views", self.num_views as usize),
            ("world_size", self.world_size as usize),
            ("rows_per_group", self.rows_per_group),
            ("groups_per_shard", self.groups_per_shard),
        ];
        for (field, value) in at_least_one {
            if value == 0 {
                return Err(CacheError::InvalidJob { field, expected: "at least 1".into(), actual: "0".into() });
            }
        }
        if self.num_views > VIEWS_MAX || self.first_view > VIEWS_MAX - self.num_views {
            let expected = format!("views below {VIEWS_MAX}");
            let actual = format!("{} from {}", self.num_views, self.first_view);
            return Err(CacheError::InvalidJob { field: "num_views", expected, actual });
        }
        if let Err(actual) = check_splits(&self.splits, self.source.images) {
            let expected = format!("named ranges that tile images 0..{}", self.source.images);
            return Err(CacheError::InvalidJob { field: "splits", expected, actual });
        }
        if self.rank >= self.world_size {
            let expected = format!("less than world_size {}", self.world_size);
            return Err(CacheError::InvalidJob { field: "rank", expected, actual: self.rank.to_string() });
        }
        Ok(())
    }

    pub(crate) fn identity(&self) -> JobIdentity {
        JobIdentity {
            grid: self.grid.to_string(),
            bits: self.grid.bits,
            views: self.num_views,
            first_view: self.first_view,
            tokenizer: self.tokenizer.clone(),
            recipe: self.recipe.clone(),
            source: self.source.clone(),
            classes: self.classes.clone(),
            splits: self.splits.clone(),
        }
    }
}

/// Views of an image: a bound on row groups, which hold whole images.
pub const VIEWS_MAX: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::identity::canonical_json;
    use crate::format::split::Split;
    use serde_json::json;

    fn job() -> JobSpec {
        let mut job = JobSpec::new(GridSpec { height: 16, width: 16, bits: 18 }, 1_281_167, 10);
        job.tokenizer.fingerprint = "abc".into();
        job.recipe = json!({"size": 256, "views": "ten-crop", "scale": 1.1, "seed": 7});
        job.classes = vec!["n01440764".into(), "n01443537".into()];
        job
    }

    #[test]
    fn ranks_tile_the_images() {
        for world_size in [1, 2, 3, 7, 8, 4096] {
            let mut next = 0;
            for rank in 0..world_size {
                let images = JobSpec { rank, world_size, ..job() }.images();
                assert_eq!(images.start, next);
                assert!(images.len().abs_diff(1_281_167 / world_size as usize) <= 1);
                next = images.end;
            }
            assert_eq!(next, 1_281_167);
        }
    }

    #[test]
    fn a_difference_is_named() {
        let same = job().identity();
        assert_eq!(same.first_difference(&job().identity()), None);
        let mut other = job();
        other.tokenizer.fingerprint = "xyz".into();
        let (field, there, here) = same.first_difference(&other.identity()).unwrap();
        assert_eq!((field.as_str(), there.as_str(), here.as_str()), ("tokenizer.fingerprint", "\"abc\"", "\"xyz\""));
        let mut other = job();
        other.recipe["scale"] = json!(1.05);
        assert_eq!(same.first_difference(&other.identity()).unwrap().0, "recipe.scale");
        let mut other = job();
        other.classes[1] = "n01484850".into();
        assert_eq!(same.first_difference(&other.identity()).unwrap().0, "classes[1]");
        assert_ne!(same.id(), other.identity().id());
    }

    #[test]
    fn a_job_without_splits_keeps_its_id() {
        let identity = job().identity();
        assert!(!serde_json::to_string(&identity).unwrap().contains("splits"));
        assert_eq!(identity.id(), "dd1b17859178de6ac9e7ff661613b291c8414f60fc9dedfc680b3831758d3cbd");
        let split = JobSpec { splits: vec![Split { name: "train".into(), images: [0, 1_281_167] }], ..job() };
        assert_ne!(identity.id(), split.identity().id());
        assert_ne!(identity.id(), JobSpec { first_view: 1, ..job() }.identity().id());
    }

    #[test]
    fn splits_tile_the_images() {
        let split = |name: &str, start, end| Split { name: name.into(), images: [start, end] };
        let (train, val) = (split("train", 0, 7), split("val", 7, 10));
        let good = [train.clone(), val.clone()];
        assert_eq!(check_splits(&good, 10), Ok(()));
        assert_eq!(check_splits(&[], 10), Ok(()));
        assert_eq!([0, 6, 7, 9, 10].map(|image| Split::name_of(&good, image)), ["train", "train", "val", "val", ""]);
        for (splits, images) in [
            (vec![train.clone()], 10),
            (good.to_vec(), 11),
            (vec![val.clone(), train.clone()], 10),
            (vec![train.clone(), split("val", 6, 10)], 10),
            (vec![train.clone(), split("train", 7, 10)], 10),
            (vec![train.clone(), split("", 7, 10)], 10),
            (vec![split("train", 0, 10), split("val", 10, 5)], 5),
        ] {
            assert!(check_splits(&splits, images).is_err(), "{splits:?}");
        }
    }

    #[test]
    fn ranks_and_layout_are_not_part_of_the_identity() {
        let other = JobSpec { rank: 1, world_size: 4, rows_per_group: 5, groups_per_shard: 9, ..job() };
        assert_eq!(job().identity().id(), other.identity().id());
    }

    #[test]
    fn canonical_json_sorts_keys_at_every_depth() {
        let value: Value = serde_json::from_str(r#"{"b": [ {"z": 1, "a": "\""} ], "a": null}"#).unwrap();
        assert_eq!(canonical_json(&value), r#"{"a":null,"b":[{"a":"\"","z":1}]}"#);
    }
}
