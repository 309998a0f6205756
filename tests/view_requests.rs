//! Requests to the inspector that no page makes.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/viewer.rs"]
mod viewer;

use viewer::{Viewer, made_cache};

/// Unusual requests: every answer is a message, none is an error of the server, none hangs.
#[test]
fn requests_that_make_no_sense() {
    let temp = tempfile::tempdir().unwrap();
    made_cache(temp.path(), 40, |_, _, _| {});
    let viewer = Viewer::start(temp.path(), &[]);
    viewer.counted();
    let numbers = [
        "-1",
        "99999999999999999999999",
        "NaN",
        "1e9",
        "0x10",
        "1.5",
        "%31%00",
        "%F0%9F%A6%A6",
        "..%2f..%2fetc%2fpasswd",
        "%",
        "%zz",
        "'",
        "%3Cscript%3E",
    ];
    let lists = ["rows", "codes", "classes", "duplicates", "near-duplicates", "label-conflicts", "quarantine"];
    let mut bad: Vec<String> = Vec::new();
    for number in numbers {
        for list in lists {
            bad.extend(["offset", "limit"].map(|name| format!("/api/{list}?{name}={number}")));
        }
        for name in ["view", "shard"] {
            bad.push(format!("/api/rows?{name}={number}"));
        }
        bad.push(format!("/api/near-duplicates?least={number}"));
    }
    for list in [&lists[..], &["similar/0"]].concat() {
        bad.extend(["limit=1;2", "format=csv&limit=1", "format=csv;limit=1"].map(|part| format!("/api/{list}?{part}")));
    }
    bad.extend(
        ["/api/row/0;1", "/api/code/1;2", "/api/map/points?step=1;2", "/picture/class/0;1.png"].map(str::to_owned),
    );
    bad.extend(["NaN", "-2", "unicorn", "99999999999", "%ff"].map(|class| format!("/api/rows?class={class}")));
    bad.extend([
        "/api/codes?sort=sideways".to_owned(),
        "/api/classes?format=xml".to_owned(),
        "/api/rows?limit=501".to_owned(),
        "/api/rows?colour=red".to_owned(),
        "/api/rows?limit=1&limit=2".to_owned(),
        "/api/overview?x".to_owned(),
        format!("/api/rows?key={}", "x".repeat(2000)),
        format!("/{}", "x".repeat(5000)),
        "/api/row/-1".to_owned(),
        "/api/row/one".to_owned(),
        "/picture/decoded/NaN.png".to_owned(),
        "/picture/class/x.png".to_owned(),
        "/api/code/262144".to_owned(),
    ]);
    for target in &bad {
        let (status, answer) = viewer.ask(target);
        let message = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && !message.is_empty() && !message.contains('\0'), "{target}: {status} {answer}");
    }
    for target in [
        "/api/row/40",
        "/api/row/9223372036854775807",
        "/picture/decoded/1",
        "/picture/nothing/1.png",
        "/nothing",
        "/api",
        "/assets/../manifest.json",
        "/assets/..%2f..%2fmanifest.json",
        "/assets/%2e%2e/inspect.json",
        "/manifest.json",
        "/picture/decoded/../../x.png",
        "/picture/class/7.png",
        "/picture/decoded/1.png",
        "/picture/original/1.png",
    ] {
        let (status, answer) = viewer.ask(target);
        assert!(status == 404 && answer["error"].as_str().is_some(), "{target}: {status} {answer}");
    }
    for target in [
        "/api/rows?class=2147483647",
        "/api/rows?shard=99",
        "/api/rows?view=4294967295",
        "/api/rows?key=%C3%A9",
        "/api/rows?offset=9223372036854775807",
    ] {
        assert_eq!(viewer.json(target)["items"], serde_json::json!([]), "{target}");
    }
    let host = &viewer.address;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(), 403),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 400),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n",
                host.rsplit(':').next().unwrap()
            ),
            200,
        ),
        (
            format!(
                "POST /api/health HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ),
            403,
        ),
        (format!("DELETE /api/rows HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"), 405),
        ("no HTTP at all\r\n\r\n".to_owned(), 400),
    ] {
        assert_eq!(viewer.send(&request).0, status, "{request}");
    }
    assert_eq!(viewer.json("/api/rows?limit=0")["total"], 40, "it still answers");
}
