//! Is a cache right, does it fit, what is in it, how large will it be?
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::path::Path;
use tokengrid_cache::{
    CacheError, CacheStats, CacheWriter, CheckReport, CheckedImage, CheckedView, Disagreement, GridSpec, JobPlan,
    JobSpec, OpenMode, Requirement, Row, Split, TokenCache, check, inspect, stats, write_synthetic_cache,
};

/// The image as the encoder sees it: what [`push`] writes.
fn encoded(job: &JobSpec, image: usize) -> CheckedImage {
    let view = |view: u32| CheckedView {
        tokens: tokens_of(job.grid, image, view),
        uncertain: Vec::new(),
        crop_x: (scramble(image as u64 + 1) % 90) as i32,
        crop_y: view as i32 * 7,
        flip: view % 2 == 1,
    };
    CheckedImage { key: key_of(job, image), label: label_of(job, image), views: (0..job.num_views).map(view).collect() }
}

/// Checks the small cache against an encoder in which `change` had a hand.
fn check_with(dir: &Path, sample: usize, change: impl Fn(GridSpec, &mut CheckedImage)) -> CheckReport {
    let job = small_job();
    let cache = TokenCache::open(dir).unwrap();
    let mut encode = |images: &[usize]| -> Result<Vec<CheckedImage>, Box<dyn std::error::Error + Send + Sync>> {
        assert!(images.is_sorted() && images.iter().all(|image| !BAD_IMAGES.contains(image)));
        let changed = |image: &usize| {
            let mut encoded = encoded(&job, *image);
            change(job.grid, &mut encoded);
            encoded
        };
        Ok(images.iter().map(changed).collect())
    };
    check(&cache, sample, 3, &mut encode).unwrap()
}

fn each_grid(image: &mut CheckedImage, change: impl Fn(&[u32], usize) -> u32) {
    for view in &mut image.views {
        view.tokens = (0..view.tokens.len()).map(|i| change(&view.tokens, i)).collect();
    }
}

#[test]
fn a_good_cache_passes() {
    let (_temp, dir) = small_cache();
    for (sample, images) in [(10, 10), (34, 34), (1000, 34)] {
        let report = check_with(&dir, sample, |_, _| {});
        assert!(report.is_ok(), "{report:?}");
        assert_eq!((report.images, report.rows, report.tokens), (images, 2 * images, 30 * images as u64));
    }
}

#[test]
fn each_way_of_being_wrong_is_found_and_named() {
    let (_temp, dir) = small_cache();
    let kinds = |change: &dyn Fn(GridSpec, &mut CheckedImage)| {
        let report = check_with(&dir, 12, change);
        assert_eq!((report.is_ok(), report.rows_wrong), (false, 24), "{report:?}");
        assert!(!report.mismatches.is_empty() && !report.mismatches[0].key.is_empty());
        report.kinds
    };
    let reversed = kinds(&|_, image| each_grid(image, |tokens, i| tokens[i].reverse_bits() >> 14));
    assert_eq!(reversed, [Disagreement::BitReversed]);
    let mirrored = kinds(&|grid, image| {
        let width = grid.width as usize;
        each_grid(image, |tokens, i| tokens[i / width * width + width - 1 - i % width]);
    });
    assert_eq!(mirrored, [Disagreement::Mirrored]);
    let labels = kinds(&|_, image| image.label -= 1);
    assert_eq!(labels, [Disagreement::LabelShift]);
    let shuffled = kinds(&|_, image| image.label = (image.label + 1) % 4);
    assert_eq!(shuffled, [Disagreement::Label]);
    let crop = kinds(&|_, image| {
        image.views.iter_mut().for_each(|view| view.crop_x += 16);
        // The crop a token further right: every token but the last column is its neighbour.
        each_grid(image, |tokens, i| if i % 3 < 2 { tokens[i + 1] } else { 77 });
    });
    assert_eq!(crop, [Disagreement::Crop, Disagreement::Shifted]);
    let weights = kinds(&|_, image| each_grid(image, |tokens, i| scramble(u64::from(tokens[i])) as u32 & 0x3_FFFF));
    assert_eq!(weights, [Disagreement::Tokens]);
    // Another resize: every third token differs in two bits.
    let resize =
        check_with(&dir, 12, |_, image| each_grid(image, |t, i| if i % 3 == 0 { t[i] ^ 0x1_0001 } else { t[i] }));
    assert_eq!(resize.kinds, [Disagreement::Tokens]);
    assert_eq!(resize.tokens_wrong * 3, resize.tokens);
    assert!((resize.share_of_bits_wrong - 2.0 / 3.0 / 18.0).abs() < 1e-12, "{}", resize.share_of_bits_wrong);
    let key = kinds(&|_, image| image.key.push('x'));
    assert_eq!(key, [Disagreement::Key]);
    let flip = kinds(&|_, image| image.views.iter_mut().for_each(|view| view.flip = !view.flip));
    assert_eq!(flip, [Disagreement::Flip]);
}

#[test]
fn bits_within_the_margin_may_differ_and_no_others() {
    let (_temp, dir) = small_cache();
    let report = |uncertain: u32| {
        check_with(&dir, 34, |_, image| {
            each_grid(image, |tokens, i| tokens[i] ^ 0b100);
            image.views.iter_mut().for_each(|view| view.uncertain = vec![uncertain; 15]);
        })
    };
    let (within, beyond) = (report(0b110), report(0b010));
    assert!(within.is_ok() && within.bits_wrong == 0, "{within:?}");
    assert_eq!(within.bits_within_margin, within.tokens);
    assert!(!beyond.is_ok() && beyond.bits_wrong == beyond.tokens, "{beyond:?}");
}

#[test]
fn an_encoder_that_fails_is_an_error() {
    let (_temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let error = check(&cache, 3, 1, &mut |_| Err("no weights".into())).unwrap_err();
    assert!(chain(&error).contains("no weights"), "{error}");
    let error = check(&cache, 3, 1, &mut |_| Ok(Vec::new())).unwrap_err();
    assert!(matches!(error, CacheError::NotEncoded { .. }), "{error}");
}

#[test]
fn a_cache_that_does_not_fit_is_refused_by_the_field() {
    let (_temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let fits = Requirement {
        grid: Some((5, 3)),
        num_tokens: Some(15),
        bits: Some(18),
        fingerprint: Some("0123abcd".into()),
        num_classes: Some(4),
        content_hash: Some(cache.content_hash().into()),
    };
    cache.require(&fits).unwrap();
    cache.require(&Requirement::default()).unwrap();
    for (wanted, expected) in [
        (Requirement { grid: Some((3, 5)), ..fits.clone() }, "grid is 5x3, expected 3x5"),
        (Requirement { num_tokens: Some(256), ..fits.clone() }, "num_tokens is 15, expected 256"),
        (Requirement { bits: Some(14), ..fits.clone() }, "bits is 18, expected 14"),
        (
            Requirement { fingerprint: Some("ffff".into()), ..fits.clone() },
            "tokenizer.fingerprint is 0123abcd, expected ffff",
        ),
        (Requirement { num_classes: Some(3), ..fits.clone() }, "label is 3, expected less than 3 classes"),
        (Requirement { content_hash: Some("00".into()), ..fits }, "content_hash is"),
    ] {
        let error = cache.require(&wanted).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("does not fit"), "{error} should say {expected}");
    }
}

/// 40 images of 2 views at 4 bits with everything that statistics should find.
fn odd_cache(dir: &Path) -> CacheStats {
    let mut job = JobSpec::new(GridSpec { height: 2, width: 2, bits: 4 }, 40, 2);
    job.classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    job.rows_per_group = 10;
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for image in 0..40usize {
        // Bit 3 is always 1, bit 0 never; images 20 and 30 are image 3 again; image 5 has two equal views.
        let same = if matches!(image, 20 | 30) { 3 } else { image };
        let grid = |view: usize| {
            let view = if same == 5 { 0 } else { view };
            let n = (same * 2 + view) as u32;
            [8 | (n & 3) << 1, 8 | (n >> 2 & 3) << 1, 8 | (n >> 4 & 3) << 1, 8 | (n >> 6 & 3) << 1]
        };
        let (grids, key) = ([grid(0), grid(1)], format!("{image}"));
        let label = if image < 4 { -1 } else { (image % 2) as i32 };
        let row = |view: u32| Row {
            tokens: &grids[view as usize],
            label,
            key: &key,
            view,
            crop_x: 0,
            crop_y: 0,
            flip: false,
        };
        writer.push_image(image, &[row(0), row(1)]).unwrap();
    }
    writer.finish().unwrap();
    stats(&TokenCache::open(dir).unwrap()).unwrap()
}

#[test]
fn statistics_find_what_was_put_there() {
    let temp = tempfile::tempdir().unwrap();
    let found = odd_cache(temp.path());
    assert_eq!((found.rows, found.images, found.views, found.tokens), (80, 40, 2, 320));
    assert_eq!((found.codebook_size, found.distinct_codes, found.codebook_utilization), (16, 4, 0.25));
    assert_eq!(found.dead_bits, [0, 3]);
    assert_eq!((found.bit_balance.len(), found.bit_balance[0], found.bit_balance[3]), (4, 0.0, 1.0));
    assert!(found.bit_balance[1] > 0.2 && found.bit_balance[1] < 0.8);
    assert!(found.code_entropy_bits > 1.0 && found.code_entropy_bits < 2.0, "{}", found.code_entropy_bits);
    assert_eq!(found.code_histogram.iter().sum::<u64>(), 16);
    assert_eq!(found.code_histogram[0], 12);
    let classes: Vec<_> = found.classes.iter().map(|class| (class.name.clone().unwrap(), class.rows)).collect();
    assert_eq!(classes, [("a".into(), 36), ("b".into(), 36), ("c".into(), 0)]);
    assert_eq!((found.unlabelled_rows, found.empty_classes), (8, 1));
    assert_eq!((found.duplicates.rows, found.duplicates.rows_within_image), (4, 1));
    assert_eq!(found.duplicates.first, [(6, 40), (7, 41), (6, 60), (7, 61)]);
    let json = serde_json::to_value(&found).unwrap();
    for field in [
        "rows",
        "images",
        "views",
        "distinct_codes",
        "codebook_size",
        "codebook_utilization",
        "bit_balance",
        "dead_bits",
        "classes",
        "duplicates",
    ] {
        assert!(!json[field].is_null(), "{field}");
    }
    let (_small, dir) = small_cache();
    let clean = stats(&TokenCache::open(&dir).unwrap()).unwrap();
    assert_eq!((clean.dead_bits.len(), clean.duplicates.rows, clean.tokens), (0, 0, 68 * 15));
}

#[test]
fn statistics_of_nothing_are_no_error() {
    let temp = tempfile::tempdir().unwrap();
    run(temp.path(), &JobSpec::new(GridSpec { height: 2, width: 2, bits: 4 }, 0, 1), OpenMode::Resume).unwrap();
    let found = stats(&TokenCache::open(temp.path()).unwrap()).unwrap();
    assert_eq!((found.rows, found.distinct_codes, found.code_entropy_bits), (0, 0, 0.0));
}

/// Rows and files exactly, bytes within one percent, the memory that is stated not exceeded by what is written.
#[test]
fn a_plan_is_what_comes_out() {
    for (views, images, rank_rows, world_size, crops, splits) in [
        (1u32, 50_000usize, 16_384usize, 1u32, true, false),
        (4, 12_000, 16_384, 1, true, false),
        (10, 3_000, 1_000, 2, true, true),
        (2, 9_000, 5_000, 3, false, false),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let mut job = JobSpec::new(GridSpec { height: 16, width: 16, bits: 18 }, images, views);
        job.classes = (0..100).map(|i| format!("n{i:08}")).collect();
        (job.rows_per_group, job.world_size) = (rank_rows, world_size);
        if splits {
            let split = |name: &str, start, end| Split { name: name.into(), images: [start, end] };
            job.splits = vec![split("train", 0, 2_500), split("val", 2_500, 3_000)];
        }
        let keys: Vec<_> = (0..images).map(|image| key_of(&job, image)).collect();
        let plan = JobPlan::new(&job, keys.iter().map(String::as_str)).unwrap();
        let tokens = vec![5; 256];
        for rank in 0..world_size {
            let job = JobSpec { rank, ..job.clone() };
            let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
            for image in writer.images() {
                let crop = |n: u64| if crops { (scramble(image as u64 * 31 + n) % 90) as i32 } else { 0 };
                let row = |view: u32| Row {
                    tokens: &tokens,
                    label: label_of(&job, image),
                    key: &keys[image],
                    view,
                    crop_x: crop(u64::from(view)),
                    crop_y: 0,
                    flip: view % 2 == 1,
                };
                writer.push_image(image, &(0..views).map(row).collect::<Vec<_>>()).unwrap();
            }
            writer.finish().unwrap();
        }
        let info = inspect(temp.path()).unwrap();
        let groups: usize = info.shards.iter().map(|shard| shard.row_groups).sum();
        assert_eq!((plan.rows, plan.row_groups, plan.shards), (info.rows, groups, info.shards.len()), "{views} views");
        assert_eq!(plan.files, names(temp.path()).len());
        let off = plan.bytes as f64 / info.bytes as f64 - 1.0;
        println!("{views} views: {} planned, {} written: {:+.3} %", plan.bytes, info.bytes, 100.0 * off);
        assert!(off.abs() < 0.01, "{views} views: {} planned, {} written", plan.bytes, info.bytes);
        assert!(plan.peak_bytes > plan.bytes && plan.memory_bytes > 1 << 20);
    }
}

/// The private memory (RssAnon) of a process that opens a cache, mapped, and loads from it, does not follow the size of
/// the cache: mapped pages belong to the operating system, and nothing is kept a row.
#[cfg(target_os = "linux")]
#[test]
fn memory_stays_flat_as_the_cache_grows_tenfold() {
    use tokengrid_cache::{Batch, Loader, LoaderConfig};
    const CHILD: &str = "TOKENGRID_TEST_RSS";
    if let Some(dir) = std::env::var_os(CHILD) {
        let cache = std::sync::Arc::new(TokenCache::open(dir.as_ref()).unwrap());
        let config = LoaderConfig { seed: 1, batch_size: 256, rank: 0, world_size: 1 };
        let mut loader = Loader::new(cache, config).unwrap();
        let mut batch = Batch::default();
        (0..1000).for_each(|_| loader.next_batch(&mut batch));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        println!("{}", status.lines().find(|line| line.starts_with("RssAnon")).unwrap());
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let private_kib = |images: usize| {
        let dir = temp.path().join(images.to_string());
        write_synthetic_cache(&dir, images, 4).unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory_stays_flat_as_the_cache_grows_tenfold", "--nocapture"])
            .env(CHILD, &dir)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.split_once("RssAnon:")).unwrap_or_else(|| panic!("{text}")).1;
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let (small, large) = (private_kib(2_000), private_kib(20_000));
    println!("{small} KiB for 4.6 MB of cache, {large} KiB for 46 MB");
    assert!(large < small + 2048, "{small} KiB grew to {large} KiB");
}
