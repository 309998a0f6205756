//! Sources on a web server with TLS, with a certificate of a private authority.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/buckets.rs"]
mod world;

use common::{photos, text, tokengrid};
use std::path::Path;
use tokengrid_test_support::buckets::HttpsServer;
use world::{local_hash, shards, tokenize};

/// Two shards below `wds` on a server with a certificate for `host`.
#[track_caller]
fn serve(folder: &Path, host: &str) -> Option<HttpsServer> {
    let source = photos(folder, 2, 3);
    shards(&source, &folder.join("wds"));
    HttpsServer::start(folder, &folder.join("authority.pem"), host)
}

fn command(folder: &Path) -> assert_cmd::Command {
    let mut command = tokengrid();
    command.env("TOKENGRID_STAGE_DIR", folder.join("stage")).env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command
}

#[test]
fn shards_are_read_from_a_server_whose_authority_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let Some(server) = serve(temp.path(), "127.0.0.1") else { return };
    let expected = local_hash(&temp.path().join("photos"), &temp.path().join("local"));
    let url = format!("https://{}/wds/{{000..001}}.tar", server.address());
    // Whole files, staged, and members by ranges.
    for (out, more) in [("staged", &[][..]), ("ranges", &["--stage-size", "1K"])] {
        let out = temp.path().join(out);
        let mut command = command(temp.path());
        command.env("SSL_CERT_FILE", server.authority()).args(tokenize(&url, text(&out))).args(more).arg("--json");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(made["content_hash"], expected.as_str(), "{more:?}");
    }
}

/// The one line that says why `ingest` of a file of the server stops.
#[track_caller]
fn refusal(folder: &Path, server: &HttpsServer, authority: Option<&Path>) -> String {
    let mut command = command(folder);
    command.envs(authority.map(|file| ("SSL_CERT_FILE", file)));
    let url = format!("https://{}/wds/000.tar", server.address());
    let output = command.args(["ingest", &url, "--quiet"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.lines().count() == 1 && stderr.contains(&url), "one line: {stderr}");
    stderr
}

#[test]
fn a_certificate_that_is_not_accepted_is_one_line_with_the_remedy() {
    let temp = tempfile::tempdir().unwrap();
    let Some(server) = serve(temp.path(), "127.0.0.1") else { return };
    let said = refusal(temp.path(), &server, None);
    assert!(said.contains("certificate is not accepted") && said.contains("UnknownIssuer"), "{said}");
    assert!(said.contains("SSL_CERT_FILE"), "{said}");
    let other = tempfile::tempdir().unwrap();
    let Some(stranger) = serve(other.path(), "example.org") else { return };
    let said = refusal(other.path(), &stranger, Some(stranger.authority()));
    assert!(said.contains("certificate is not accepted") && said.contains("example.org"), "{said}");
}
