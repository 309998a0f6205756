//! Object stores for tests: real servers from PyPI and npm, a proxy that injects faults and counts, web servers.

mod environment;
mod google;
mod google_uploads;
mod message;
mod proxy;
mod server;
mod web;

pub use message::{Answer, Request};
pub use proxy::{Fate, Proxy};
pub use server::{Kind, ObjectServer, s3_variables};
pub use web::{HttpsServer, web_server};
