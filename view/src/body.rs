//! Bodies of answers: all at once, or part by part as the client takes them.
//!
//! A list as a file may be far larger than a page. Its parts are made one at a time, each when the one before was sent: a slow
//! client costs one part of memory, and no thread.

use crate::files::FileSlot;
use crate::reply::Refusal;
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// A part of a body, or why it could not be made.
type Part = Result<Vec<u8>, Refusal>;

/// Makes the parts of a body, one after the other.
pub(crate) type Parts = Box<dyn Iterator<Item = Part> + Send>;

/// A body as hyper sends it.
pub(crate) enum Sent {
    Whole(Full<Bytes>),
    Parts {
        parts: PartByPart,
        /// Counts the file as being sent until this is dropped.
        _slot: FileSlot,
    },
}

/// A body whose next part is made when it is asked for, where work may block.
pub(crate) enum PartByPart {
    Waiting(Parts),
    Making(JoinHandle<(Parts, Option<Part>)>),
    Ended,
}

/// Why an answer ends early: its beginning was sent already, so that no status can report it.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub(crate) struct BrokenOff(String);

impl Body for Sent {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Sent::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Sent::Parts { parts, .. } => parts.poll_part(cx).map(|part| part.map(|part| part.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Sent::Whole(body) => body.is_end_stream(),
            Sent::Parts { parts, .. } => matches!(parts, PartByPart::Ended),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Sent::Whole(body) => body.size_hint(),
            Sent::Parts { .. } => SizeHint::default(),
        }
    }
}

impl PartByPart {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        loop {
            match std::mem::replace(self, PartByPart::Ended) {
                PartByPart::Ended => return Poll::Ready(None),
                PartByPart::Waiting(mut parts) => {
                    let make = move || {
                        let part = parts.next();
                        (parts, part)
                    };
                    *self = PartByPart::Making(tokio::task::spawn_blocking(make));
                }
                PartByPart::Making(mut task) => match Pin::new(&mut task).poll(cx) {
                    Poll::Pending => {
                        *self = PartByPart::Making(task);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((_, None))) => return Poll::Ready(None),
                    Poll::Ready(Ok((parts, Some(Ok(part))))) => {
                        *self = PartByPart::Waiting(parts);
                        return Poll::Ready(Some(Ok(part.into())));
                    }
                    Poll::Ready(Ok((_, Some(Err(refusal))))) => {
                        tracing::warn!("a list broke off: {}", refusal.text());
                        return Poll::Ready(Some(Err(BrokenOff(refusal.text().to_owned()))));
                    }
                    // The program's hook has reported the panic.
                    Poll::Ready(Err(panic)) => return Poll::Ready(Some(Err(BrokenOff(panic.to_string())))),
                },
            }
        }
    }
}
