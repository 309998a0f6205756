//! Shards of more than one part are published in a bucket, and nothing of a publication that failed stays.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokengrid_cache::{GridSpec, JobSpec, Manifest, OpenMode, verify};
use tokengrid_store::{PART_BYTES, stage_in};
use tokengrid_test_support::alone;
use tokengrid_test_support::buckets::{Answer, Fate, Kind, ObjectServer, Proxy};

/// 20 grids of 590 kB in one shard.
fn large_job() -> JobSpec {
    let mut job = JobSpec::new(GridSpec { height: 512, width: 512, bits: 18 }, 20, 1);
    job.tokenizer.name = "tiny".into();
    job
}

/// The first request that completes an upload is refused; the job that is run again succeeds.
#[track_caller]
fn a_shard_of_several_parts_is_published(kind: Kind) {
    let Some(server) = ObjectServer::start(kind) else { return };
    let is_refused = Arc::new(AtomicBool::new(false));
    let refused = Arc::clone(&is_refused);
    let proxy = Proxy::start(server.address(), move |_, request| {
        let completes = request.method() == "POST" && request.path().contains("uploadId=");
        match completes && !refused.swap(true, Ordering::SeqCst) {
            true => Fate::Answer(Answer::status_only("400 Bad Request")),
            false => Fate::Pass,
        }
    });
    for (name, value) in server.variables(proxy.address()) {
        // SAFETY: the test is alone in its process, and no request has been made yet.
        unsafe { std::env::set_var(name, value) };
    }
    let folder = tempfile::tempdir().unwrap();
    stage_in(Some(folder.path().join("stage")), None);
    let (job, local, url) = (large_job(), folder.path().join("local"), server.url("cache"));
    run(&local, &job, OpenMode::Resume).unwrap();
    let shard = std::fs::metadata(local.join("shard-00000-00000.parquet")).unwrap().len();
    assert!(shard > PART_BYTES, "one part would do for {shard} bytes");
    let error = run(Path::new(&url), &job, OpenMode::Resume).unwrap_err();
    assert!(is_refused.load(Ordering::SeqCst) && chain(&error).contains("400"), "{}", chain(&error));
    assert_eq!(server.num_uploads(), 0, "the parts are removed");
    assert!(server.keys("cache/shard-").is_empty() && server.get("cache/manifest.json").is_none());
    assert!(run(Path::new(&url), &job, OpenMode::Resume).unwrap().published);
    let hash = |dir: &Path| Manifest::read(dir).unwrap().content_hash;
    assert_eq!(hash(Path::new(&url)), hash(&local));
    assert_eq!(server.num_uploads(), 0);
    assert!(verify(Path::new(&url), &mut |_, _| {}).unwrap().is_ok());
}

#[test]
fn in_google_cloud_storage() {
    alone!();
    a_shard_of_several_parts_is_published(Kind::FakeGcs);
}

#[test]
fn in_s3() {
    alone!();
    a_shard_of_several_parts_is_published(Kind::Moto);
}
