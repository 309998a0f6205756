//! Unreachable servers: an error in one line, without the retries that a server gets which has answered before.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use tokengrid_store::{Bucket, Place, RETRIES_MAX, StoreError, traffic};
use tokengrid_test_support::alone;
use tokengrid_test_support::buckets::web_server;

/// The error of the first contact with the server of a URL. Requests are counted process-wide, so the test needs its own process.
#[track_caller]
fn first_contact(url: &str) -> String {
    let place = Place::parse(Path::new(url)).unwrap().unwrap();
    let before = traffic().requests;
    let error = Bucket::of(&place).unwrap().head(place.key()).unwrap_err();
    let requests = (traffic().requests - before) as usize;
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!((1..1 + RETRIES_MAX).contains(&requests), "{requests} requests: {error}");
    error.to_string()
}

#[test]
fn an_unreachable_server_is_an_error_at_once() {
    alone!();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(first_contact(&format!("http://{unused}/a")).contains("refused"));
    first_contact("http://no-such-host.invalid/a");
    let closes = web_server(vec![("a".to_owned(), vec![0; 8])]);
    for without_tls in [closes.address(), server_that_answers_in_plain_text()] {
        let said = first_contact(&format!("https://{without_tls}/a"));
        assert!(said.contains("may not speak TLS") && said.contains("http://"), "{said}");
    }
}

/// Answers as nginx and other servers do to a request that they cannot parse.
fn server_that_answers_in_plain_text() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            // Closed with bytes unread, the connection would be reset, and the answer lost.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}
