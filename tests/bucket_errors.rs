//! Errors of a bucket are reported in one line, at once.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::tokengrid;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokengrid_test_support::buckets::{Answer, Fate, Proxy, s3_variables, web_server};

/// An answer of S3 with an error.
fn refusal(status: &str, code: &str, more: &str) -> Answer {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>No.</Message>{more}</Error>");
    Answer::new(status, "Content-Type: application/xml\r\n", body.as_bytes())
}

/// A server that gives the same answer to every request.
fn server(answer: Answer) -> Proxy {
    Proxy::serve(|_, _| Fate::Pass, move |_| answer.clone())
}

/// The message of `ingest URL` with a server at `address`.
#[track_caller]
fn message(address: SocketAddr, url: &str) -> String {
    let mut command = tokengrid();
    command.envs(s3_variables(address));
    let output = command.args(["ingest", url, "--quiet"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    stderr
}

#[test]
fn refusals_say_what_and_where_and_what_to_do() {
    let url = "s3://data/train";
    for (status, code, more, expected) in [
        ("403 Forbidden", "InvalidAccessKeyId", "", "AWS_ACCESS_KEY_ID"),
        ("403 Forbidden", "SignatureDoesNotMatch", "", "AWS_SECRET_ACCESS_KEY"),
        ("400 Bad Request", "ExpiredToken", "", "AWS_SESSION_TOKEN"),
        ("403 Forbidden", "AccessDenied", "", "access is denied"),
        ("403 Forbidden", "RequestTimeTooSkewed", "", "clock"),
        ("404 Not Found", "NoSuchBucket", "", "no bucket 'data'"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>", "eu-west-1"),
        ("301 Moved Permanently", "PermanentRedirect", "", "AWS_REGION"),
    ] {
        for url in [url.to_owned(), format!("{url}/"), format!("{url}/{{0..3}}.tar")] {
            let said = message(server(refusal(status, code, more)).address(), &url);
            assert!(said.contains(url.trim_end_matches('/')) && said.contains(expected), "{code}: {said}");
        }
    }
}

#[test]
fn a_server_that_is_not_there_is_named_with_its_setting() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = tokengrid();
    command.envs(s3_variables(unused)).args(["ingest", "s3://data/train/", "--quiet"]);
    let output = command.timeout(Duration::from_secs(300)).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("cannot be reached") && stderr.contains("AWS_ENDPOINT_URL"), "{stderr}");
}

#[test]
fn unknown_urls_and_servers_without_listings_are_refused() {
    let address = web_server(vec![("a.tar".to_owned(), vec![0; 1024])]).address();
    for (url, expected) in [
        ("ftp://host/file", "s3://bucket/prefix"),
        ("s3://", "names no bucket"),
        (&format!("http://{address}/folder/"), "cannot be listed"),
        (&format!("http://{address}/{{b,c}}.tar"), "2 of its 2 files are missing"),
    ] {
        let said = message(address, url);
        assert!(said.contains(expected), "{url}: {said}");
    }
}

#[test]
fn a_request_is_tried_again_and_the_last_answer_is_told() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let busy = Proxy::serve(
        |_, _| Fate::Pass,
        move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            refusal("503 Slow Down", "SlowDown", "")
        },
    );
    let said = message(busy.address(), "s3://data/train/");
    assert!(said.contains("503") && said.contains("s3://data/train") && said.contains("retries"), "{said}");
    assert_eq!(requests.load(Ordering::SeqCst), 1 + tokengrid_store::RETRIES_MAX);
}

#[test]
fn urls_are_refused_by_name_where_they_are_of_no_use() {
    for arguments in [
        &["cache", "repair", "s3://b/cache", "--source", "a", "--tokenizer", "tiny"][..],
        &["cache", "import", "--tokens", "s3://b/t.npy", "--grid", "2x2", "--out", "a"],
        &["cache", "stats", "a", "--plot", "s3://b/p.png"],
        &["cache", "show", "a", "--index", "1", "--tokenizer", "s3://b/t.pt"],
        &["tokenize", "a", "--tokenizer", "s3://b/t.pt", "--out", "b"],
        &["tokenize", "a", "--tokenizer", "tiny", "--out", "b", "--labels", "s3://b/l.txt"],
        &["reconstruct", "s3://b/a.png", "--tokenizer", "tiny", "--out", "b"],
        &["weights", "info", "s3://b/w.pt"],
        &["train", "ar", "--config", "s3://b/c.toml"],
        &["train", "ar", "--cache", "a", "--out", "s3://b/run"],
        &["train", "plot", "s3://b/run", "--out", "a.png"],
        &["sample", "--checkpoint", "s3://b/run", "--tokenizer", "tiny", "--out", "b"],
        &["sample", "--checkpoint", "a", "--tokenizer", "tiny", "--out", "b", "--cache-out", "s3://b/c"],
        &["eval", "samples", "a", "--inception", "s3://b/i.pt"],
        &["eval", "features", "s3://b/a.npy", "b.npy"],
        &["view", "a", "--tokenizer", "s3://b/t.pt"],
        &["ingest", "a", "--stage-dir", "s3://b/stage"],
        &["cache", "merge", "s3://b/out", "a", "b"],
        &["cache", "subset", "a", "--out", "s3://b/out"],
        &["cache", "export", "a", "--out", "gs://b/out"],
        &["ingest", "a", "--out", "az://b/out"],
    ] {
        let output = tokengrid().args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = stderr.lines().next().unwrap();
        let url = arguments.iter().find(|word| word.contains("://")).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(said.contains(url) && said.contains("give a local path"), "{arguments:?}: {stderr}");
    }
    assert!(!std::path::Path::new("s3:").exists() && !std::path::Path::new("az:").exists());
}
