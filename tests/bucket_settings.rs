//! Settings of the clouds that are missing or wrong: one line, at the start, that names the variable.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::tokengrid;
use std::net::SocketAddr;
use tokengrid_test_support::buckets::{Answer, Fate, Proxy, s3_variables};

const S3: &str = "s3://data/train";
const GOOGLE: &str = "gs://data/train";
const AZURE: &str = "az://data/train";

/// The message of `ingest URL`, or of another command, with these variables and no others of any cloud.
#[track_caller]
fn message(url: &str, variables: &[(&str, &str)]) -> String {
    message_of(&["ingest", url], url, variables)
}

#[track_caller]
fn message_of(arguments: &[&str], url: &str, variables: &[(&str, &str)]) -> String {
    let mut command = tokengrid();
    let home = tempfile::tempdir().unwrap();
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["AWS_", "GOOGLE_", "AZURE_", "GCE_", "IDENTITY_", "SERVICE_ACCOUNT"]
            .iter()
            .any(|cloud| text.starts_with(cloud))
        {
            command.env_remove(&name);
        }
    }
    // No machine's own credentials: of the user, or of the cloud that it is in.
    command.env("HOME", home.path()).env("AWS_EC2_METADATA_DISABLED", "true").env("NO_GCE_CHECK", "true");
    command.envs(variables.iter().copied()).args(arguments).arg("--quiet");
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.contains(url), "{stderr}");
    stderr
}

/// A server that gives the same answer to every request.
fn server(status: &str, body: &str) -> Proxy {
    let answer = Answer::new(status, "Content-Type: application/xml\r\n", body.as_bytes());
    Proxy::serve(|_, _| Fate::Pass, move |_| answer.clone())
}

#[track_caller]
fn assert_says(said: &str, expected: &[&str]) {
    for words in expected {
        assert!(said.contains(words), "`{words}` is missing: {said}");
    }
}

#[test]
fn missing_credentials_are_named_for_each_cloud() {
    let [s3, google, azure] = [S3, GOOGLE, AZURE].map(|url| message(url, &[]));
    assert_says(&s3, &["no credentials", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SKIP_SIGNATURE=true"]);
    assert_says(&google, &["no credentials", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SKIP_SIGNATURE=true"]);
    assert_says(
        &azure,
        &["AZURE_STORAGE_ACCOUNT_NAME is missing", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_SKIP_SIGNATURE=true"],
    );
}

#[cfg(feature = "torch")]
#[test]
fn a_job_is_told_before_it_encodes_anything() {
    let photos = common::repository("data/photos");
    let fixed = ["tokenize", common::text(&photos), "--tokenizer", "tiny", "--size", "32", "--out"];
    for (url, expected) in [(S3, "AWS_ACCESS_KEY_ID"), (AZURE, "AZURE_STORAGE_ACCOUNT_NAME is missing")] {
        assert_says(&message_of(&[&fixed[..], &[url]].concat(), url, &[]), &[expected]);
    }
}

#[test]
fn what_is_missing_beside_other_credentials_is_named() {
    for (url, variables, expected) in [
        (S3, &[("AWS_ACCESS_KEY_ID", "key")][..], "AWS_SECRET_ACCESS_KEY is missing beside AWS_ACCESS_KEY_ID"),
        (S3, &[("AWS_SECRET_ACCESS_KEY", "s")], "AWS_ACCESS_KEY_ID is missing beside AWS_SECRET_ACCESS_KEY"),
        (S3, &[("AWS_ACCESS_KEY_ID", "")], "no credentials"),
        (
            GOOGLE,
            &[("GOOGLE_APPLICATION_CREDENTIALS", "/none/key.json")],
            "GOOGLE_APPLICATION_CREDENTIALS names the file \"/none/key.json\", which is not there",
        ),
        (GOOGLE, &[("GOOGLE_SERVICE_ACCOUNT", "/none/key.json")], "GOOGLE_SERVICE_ACCOUNT names the file"),
        (AZURE, &[("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")], "AZURE_STORAGE_ACCOUNT_NAME is missing"),
        (AZURE, &[("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a")], "AZURE_STORAGE_CONNECTION_STRING is not read"),
        (AZURE, &[("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_CLIENT_SECRET", "s")], "AZURE_CLIENT_ID is missing"),
    ] {
        assert_says(&message(url, variables), &[expected]);
    }
}

#[test]
fn a_metadata_server_without_credentials_is_no_denial_of_the_bucket() {
    for status in ["403 Forbidden", "404 Not Found"] {
        let server = server(status, "no role is attached");
        let address = server.address().to_string();
        let url = format!("http://{address}");
        let identity = format!("{url}/metadata/identity/oauth2/token");
        for (bucket, variables, expected) in [
            (S3, &[("AWS_METADATA_ENDPOINT", url.as_str())][..], "AWS_ACCESS_KEY_ID"),
            (
                GOOGLE,
                &[("GCE_METADATA_HOST", &address), ("GCE_METADATA_IP", &address)],
                "GOOGLE_APPLICATION_CREDENTIALS",
            ),
            (
                AZURE,
                &[("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("IDENTITY_ENDPOINT", &identity)],
                "AZURE_STORAGE_ACCOUNT_KEY",
            ),
        ] {
            assert_says(&message(bucket, variables), &["no credentials", "metadata server", expected]);
        }
    }
}

#[test]
fn an_address_without_tls_names_the_variable_that_allows_it() {
    let key = r#"{"gcs_base_url": "http://127.0.0.1:9", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}"#;
    let [id, secret] = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let account = [("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")];
    let http = "http://127.0.0.1:9";
    for (url, variables, expected) in [
        (
            S3,
            vec![id, secret, ("AWS_ENDPOINT_URL", http)],
            ["AWS_ENDPOINT_URL is http://127.0.0.1:9", "AWS_ALLOW_HTTP=true"],
        ),
        (S3, vec![id, secret, ("AWS_ENDPOINT_URL_S3", http)], ["AWS_ENDPOINT_URL_S3 is", "AWS_ALLOW_HTTP=true"]),
        (S3, vec![id, secret, ("AWS_ENDPOINT_URL", http), ("AWS_ALLOW_HTTP", "false")], [http, "AWS_ALLOW_HTTP=true"]),
        (S3, vec![id, secret, ("AWS_ENDPOINT_URL", "127.0.0.1:9")], ["AWS_ENDPOINT_URL is 127.0.0.1:9", "https://"]),
        (
            AZURE,
            [&account[..], &[("AZURE_STORAGE_ENDPOINT", http)]].concat(),
            ["AZURE_STORAGE_ENDPOINT is", "AZURE_ALLOW_HTTP=true"],
        ),
        (
            GOOGLE,
            vec![("GOOGLE_BEARER_TOKEN", "t"), ("GOOGLE_BASE_URL", http)],
            ["GOOGLE_BASE_URL is", "GOOGLE_ALLOW_HTTP=true"],
        ),
        (GOOGLE, vec![("GOOGLE_SERVICE_ACCOUNT_KEY", key)], ["begins with http://", "GOOGLE_ALLOW_HTTP=true"]),
    ] {
        assert_says(&message(url, &variables), &expected);
    }
}

#[test]
fn denied_without_credentials_is_told_apart_from_denied_with_them() {
    let denied = server("403 Forbidden", "<Error><Code>AccessDenied</Code><Message>No.</Message></Error>");
    let variables = |address: SocketAddr| s3_variables(address).map(|(name, value)| (name, value));
    let given = variables(denied.address());
    let mut given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_says(&message(S3, &given), &["access is denied", "do not permit this"]);
    given.push(("AWS_SKIP_SIGNATURE", "true"));
    assert_says(&message(S3, &given), &["access is denied", "AWS_SKIP_SIGNATURE=true", "AWS_ACCESS_KEY_ID"]);
}

#[test]
fn a_switch_that_is_neither_on_nor_off_is_named() {
    let variables = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SKIP_SIGNATURE", "maybe")];
    assert_says(
        &message(S3, &variables),
        &["a setting in the environment cannot be used (failed to parse \"maybe\" as boolean)", "AWS_*"],
    );
}
