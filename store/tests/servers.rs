//! Buckets on real servers, behind a network that fails.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use std::path::Path;
use std::time::Duration;
use tokengrid_store::{Bucket, Fetch, IN_FLIGHT_DEFAULT, PART_BYTES, Place, StoreError};
use tokengrid_test_support::alone;
use tokengrid_test_support::buckets::{Answer, Fate, Kind, ObjectServer, Proxy, Request};

/// A server, and its bucket behind a proxy. The variables belong to the process, which must be the test's own.
#[track_caller]
fn connect(
    kind: Kind,
    fate: impl Fn(usize, &Request) -> Fate + Send + Sync + 'static,
) -> Option<(ObjectServer, Proxy, Bucket)> {
    let server = ObjectServer::start(kind)?;
    let proxy = Proxy::start(server.address(), fate);
    for (name, value) in server.variables(proxy.address()) {
        // SAFETY: this process has no other thread that reads variables: the test is alone in it, and no request has been made yet.
        unsafe { std::env::set_var(name, value) };
    }
    let place = Place::parse(Path::new(&server.url("x"))).unwrap().unwrap();
    let bucket = Bucket::of(&place).unwrap();
    Some((server, proxy, bucket))
}

fn content(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|i| (i * i / 1000) as u8).collect()
}

/// One request in three goes wrong.
fn faults(number: usize, request: &Request) -> Fate {
    match number % 13 {
        2 => Fate::Answer(Answer::status_only("500 Internal Server Error")),
        4 => Fate::Answer(Answer::status_only("503 Slow Down")),
        6 => Fate::Answer(Answer::status_only("429 Too Many Requests")),
        8 if request.method() == "GET" => Fate::Tear,
        // Answers come in another order than the requests.
        10 => Fate::Slow(Duration::from_millis(100)),
        _ => Fate::Pass,
    }
}

#[track_caller]
fn a_bucket_does_what_it_should_in_spite_of_faults(kind: Kind) {
    let Some((server, proxy, bucket)) = connect(kind, faults) else { return };
    let folder = tempfile::tempdir().unwrap();
    large_files_go_up_in_parts_and_come_down_in_ranges(&server, &bucket, folder.path());
    conditional_writes_keep_writers_apart(&bucket);
    many_ranges_are_read_at_once(&server, &proxy, &bucket);
    listings_are_whole_and_sorted(&server, &bucket);
    if matches!(kind, Kind::Moto | Kind::SeaweedFs) {
        unfinished_uploads_are_aborted(&server, &bucket);
    }
    let missing = bucket.fetch("x/none", 0..10, None).unwrap().wait().unwrap_err();
    let url = server.url("x/none");
    assert!(matches!(missing, StoreError::NotFound { .. }) && missing.to_string().contains(&url), "{missing}");
    assert!(bucket.read("x/none").unwrap().is_none() && bucket.head("x/none").unwrap().is_none());
}

#[test]
fn moto() {
    alone!();
    a_bucket_does_what_it_should_in_spite_of_faults(Kind::Moto);
}

#[test]
fn seaweedfs() {
    alone!();
    a_bucket_does_what_it_should_in_spite_of_faults(Kind::SeaweedFs);
}

#[test]
fn azurite() {
    alone!();
    a_bucket_does_what_it_should_in_spite_of_faults(Kind::Azurite);
}

#[test]
fn google() {
    alone!();
    a_bucket_does_what_it_should_in_spite_of_faults(Kind::FakeGcs);
}

/// The third part, or the request that completes an upload, is refused.
#[track_caller]
fn a_failed_upload_leaves_nothing(kind: Kind, is_refused: fn(&Request) -> bool) {
    let refuse = move |_: usize, request: &Request| match is_refused(request) {
        true => Fate::Answer(Answer::status_only("400 Bad Request")),
        false => Fate::Pass,
    };
    let Some((server, _proxy, bucket)) = connect(kind, refuse) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    std::fs::write(&path, content(2 * PART_BYTES + 12_345)).unwrap();
    let error = bucket.upload(&path, "x/large").unwrap_err().to_string();
    assert!(error.contains(&server.url("x/large")) && error.contains("400"), "{error}");
    assert_eq!(server.num_uploads(), 0, "the parts are removed");
    assert!(bucket.head("x/large").unwrap().is_none(), "no partial object counts");
}

fn is_third_part(request: &Request) -> bool {
    request.method() == "PUT" && request.path().contains("partNumber=3")
}

fn is_completion(request: &Request) -> bool {
    request.method() == "POST" && request.path().contains("uploadId=")
}

#[test]
fn moto_keeps_nothing_of_a_failed_upload() {
    alone!();
    a_failed_upload_leaves_nothing(Kind::Moto, is_third_part);
}

#[test]
fn google_keeps_nothing_of_an_upload_without_its_third_part() {
    alone!();
    a_failed_upload_leaves_nothing(Kind::FakeGcs, is_third_part);
}

#[test]
fn google_keeps_nothing_of_an_upload_that_is_not_completed() {
    alone!();
    a_failed_upload_leaves_nothing(Kind::FakeGcs, is_completion);
}

fn large_files_go_up_in_parts_and_come_down_in_ranges(server: &ObjectServer, bucket: &Bucket, folder: &Path) {
    let (path, bytes) = (folder.join("large"), content(2 * PART_BYTES + 12_345));
    std::fs::write(&path, &bytes).unwrap();
    bucket.upload(&path, "x/large").unwrap();
    assert_eq!(server.num_uploads(), 0, "nothing is left open");
    let object = bucket.head("x/large").unwrap().unwrap();
    let (mut download, mut got) = (bucket.download(&object), Vec::new());
    while let Some(part) = download.next_range().unwrap() {
        got.extend_from_slice(&part);
    }
    assert!(got == bytes);
    bucket.delete(&["x/large".to_owned(), "x/none".to_owned()]).unwrap();
    assert!(bucket.head("x/large").unwrap().is_none());
}

fn conditional_writes_keep_writers_apart(bucket: &Bucket) {
    // A retry of a write that was not taken is no second write.
    let first = bucket.create("x/one", "a".into()).unwrap().expect("there was none");
    assert!(bucket.create("x/one", "b".into()).unwrap().is_none());
    let second = bucket.replace("x/one", "c".into(), &first).unwrap().expect("nobody was faster");
    assert!(bucket.replace("x/one", "d".into(), &first).unwrap().is_none());
    let (text, version) = bucket.read_version("x/one").unwrap().unwrap();
    assert_eq!((&text[..], version), (&b"c"[..], second));
}

fn many_ranges_are_read_at_once(server: &ObjectServer, proxy: &Proxy, bucket: &Bucket) {
    let bytes = content(200_000);
    server.put("x/ranges", &bytes);
    let range = |number: u64| number * 1000..number * 1000 + 777;
    let fetches: Vec<Fetch> = (0..200).map(|i| bucket.fetch("x/ranges", range(i), None).unwrap()).collect();
    for (number, fetch) in (0..).zip(fetches) {
        let (start, end) = (range(number).start as usize, range(number).end as usize);
        assert!(fetch.wait().unwrap() == bytes[start..end], "range {number}");
    }
    let most = proxy.most_in_flight();
    assert!((2..=IN_FLIGHT_DEFAULT).contains(&most), "{most} at once");
}

fn listings_are_whole_and_sorted(server: &ObjectServer, bucket: &Bucket) {
    for number in 0..30 {
        server.put(&format!("y/{}/{number:02}", number % 3), b"z");
    }
    server.put("y/top", b"zz");
    server.put("yy/other", b"z");
    let found = bucket.list("y").unwrap();
    assert_eq!(found.len(), 31);
    assert!(found.windows(2).all(|pair| pair[0].key < pair[1].key));
    assert_eq!(found.iter().map(|object| object.bytes).sum::<u64>(), 32);
}

fn unfinished_uploads_are_aborted(server: &ObjectServer, bucket: &Bucket) {
    for key in ["u/a", "u/b/c", "v/d"] {
        server.begin_upload(key);
    }
    assert_eq!(bucket.abort_uploads("u").unwrap(), 2);
    assert_eq!((server.num_uploads(), bucket.abort_uploads("u").unwrap()), (1, 0));
}
