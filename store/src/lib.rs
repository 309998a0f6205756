//! Where bytes lie: local files, `s3://`, `gs://`, `az://`, `https://`, behind one small synchronous interface.
//!
//! | to | see | module |
//! |---|---|---|
//! | tell a URL from a path | [`Place`], [`is_remote`] | `place` |
//! | list, read and write objects | [`Bucket`], [`Object`], [`Version`] | `bucket`, `connect`, `contact`, `settings` |
//! | read ranges, many at a time | [`Fetch`] | `fetch` |
//! | stream an object, write a file as one | [`Download`], [`Bucket::upload`] | `download`, `upload` |
//! | read a file or an object by position | [`Blob`] | `blob` |
//! | have objects as local files | [`stage()`], [`Staged`]; one after the other: [`Staging`]; one alone: [`LocalFile`] | `stage` |
//! | count requests and bytes | [`traffic()`] | `traffic` |
//! | know what went wrong | [`StoreError`] | `error` |
//!
//! Requests run on a private runtime (module `runtime`); callers wait for them on their own threads. A request that a server
//! answers with 429, 5xx or not at all is made again, up to [`RETRIES_MAX`] times with growing, random pauses; a server that has
//! never answered is given up after a second (module `contact`); a warning says that requests are repeated (`retry_log`). A body that ends early is continued at its end by another request.
//! Memory is bounded: [`in_flight_max`] reads at a time, and for a stream [`READ_AHEAD`] + 1 ranges of [`RANGE_BYTES`].
//!
//! Credentials and endpoints come from the usual variables of each cloud (docs/src/object-stores.md). The crate depends on no
//! other crate of the workspace.

mod blob;
mod bucket;
mod connect;
mod contact;
mod download;
mod error;
mod fetch;
mod place;
mod retry_log;
mod runtime;
mod settings;
mod stage;
mod traffic;
mod upload;

pub use blob::Blob;
pub use bucket::{Bucket, Object, Version};
pub use connect::RETRIES_MAX;
pub use download::{Download, RANGE_BYTES, READ_AHEAD};
pub use error::StoreError;
pub use fetch::{Fetch, IN_FLIGHT_DEFAULT, allow_in_flight, forget_outage, in_flight_max, outage};
pub use place::{Place, Scheme, is_remote};
pub use runtime::{cancel_with, is_cancelled};
pub use stage::{
    Fetching, LocalFile, Progress, StageFile, Staged, Staging, on_stage, stage, stage_folder, stage_in, stage_room,
};
pub use traffic::{Traffic, traffic};
pub use upload::PART_BYTES;
