//! Tokens to pictures, on one thread: a decoder has all cores to itself, and its tensors stay where they are.

use super::Picture;
use super::recent::Recent;
use crate::lock::lock;
use crate::reply::{Refusal, panic_text};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Pictures that wait for the decoder; later requests are refused, to be repeated.
const QUEUE: usize = 256;

/// Memory for decoded pictures: some 300 of 256 x 256.
const RECENT_BYTES: usize = 64 << 20;

/// What turns a grid into a picture: a tokenizer's decoder.
pub trait Decode: Send {
    /// The picture of a grid, tokens in raster order. Every grid gives a picture of the same size.
    fn decode(&mut self, tokens: &[u32]) -> Picture;
}

/// A decoder at work.
#[derive(Debug)]
pub(crate) struct Decoding {
    queue: Mutex<Option<SyncSender<Job>>>,
    recent: Arc<Mutex<Recent>>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Job {
    row: usize,
    tokens: Vec<u32>,
    /// Set when no client waits for the picture any more.
    is_unwanted: Arc<AtomicBool>,
    answer: SyncSender<Result<Arc<Picture>, Refusal>>,
}

impl Decoding {
    /// Starts the thread, where `open` makes the decoder: it may take seconds.
    pub(crate) fn start(open: impl FnOnce() -> Box<dyn Decode> + Send + 'static) -> Decoding {
        let (queue, jobs) = sync_channel(QUEUE);
        let recent = Arc::new(Mutex::new(Recent::new(RECENT_BYTES)));
        let worker = std::thread::spawn({
            let recent = Arc::clone(&recent);
            move || work(open(), &jobs, &recent)
        });
        Decoding { queue: Mutex::new(Some(queue)), recent, worker: Mutex::new(Some(worker)) }
    }

    /// The picture of a row, whose tokens `tokens` reads where they are needed.
    ///
    /// # Errors
    /// Those of `tokens`; [`Refusal::Busy`] when too many wait; [`Refusal::NotYet`] when it was given up;
    /// [`Refusal::Internal`] when the decoder panics.
    pub(crate) fn picture(
        &self,
        row: usize,
        tokens: impl FnOnce() -> Result<Vec<u32>, Refusal>,
        is_unwanted: &Arc<AtomicBool>,
    ) -> Result<Arc<Picture>, Refusal> {
        if let Some(picture) = lock(&self.recent).get(row) {
            return Ok(picture);
        }
        let (answer, picture) = sync_channel(1);
        let job = Job { row, tokens: tokens()?, is_unwanted: Arc::clone(is_unwanted), answer };
        let sent = lock(&self.queue).as_ref().map(|queue| queue.try_send(job));
        match sent {
            Some(Ok(())) => picture.recv().unwrap_or_else(|_| Err(Refusal::NotYet("the picture was given up".into()))),
            Some(Err(TrySendError::Full(_))) => Err(Refusal::Busy),
            Some(Err(TrySendError::Disconnected(_))) | None => Err(Refusal::NotYet("the decoder has ended".into())),
        }
    }

    /// Ends the thread after the current picture.
    pub(crate) fn end(&self) {
        lock(&self.queue).take();
        if let Some(worker) = lock(&self.worker).take() {
            let _ = worker.join();
        }
    }
}

fn work(mut decoder: Box<dyn Decode>, jobs: &Receiver<Job>, recent: &Mutex<Recent>) {
    for job in jobs {
        if job.is_unwanted.load(Ordering::Relaxed) {
            continue;
        }
        // Others may have waited for the same one.
        let known = lock(recent).get(job.row);
        let picture = known.map_or_else(|| decoded(decoder.as_mut(), &job.tokens), Ok);
        if let Ok(picture) = &picture {
            lock(recent).insert(job.row, Arc::clone(picture));
        }
        // Whoever asked may have gone.
        let _ = job.answer.try_send(picture);
    }
}

/// A decoder that panics at one picture goes on with the next.
fn decoded(decoder: &mut dyn Decode, tokens: &[u32]) -> Result<Arc<Picture>, Refusal> {
    let picture = catch_unwind(AssertUnwindSafe(|| decoder.decode(tokens)));
    picture.map(Arc::new).map_err(|payload| Refusal::Internal(panic_text(payload.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    static DECODED: AtomicUsize = AtomicUsize::new(0);

    struct Gray;

    impl Decode for Gray {
        fn decode(&mut self, tokens: &[u32]) -> Picture {
            DECODED.fetch_add(1, Ordering::Relaxed);
            Picture { width: 1, height: 1, rgb: vec![tokens[0] as u8; 3] }
        }
    }

    #[test]
    fn a_row_is_decoded_once_and_not_for_closed_requests() {
        let decoding = Decoding::start(|| Box::new(Gray));
        let (wanted, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        for _ in 0..3 {
            assert_eq!(decoding.picture(5, || Ok(vec![9]), &wanted).unwrap().rgb, [9, 9, 9]);
        }
        assert_eq!(DECODED.load(Ordering::Relaxed), 1);
        assert!(decoding.picture(6, || Ok(vec![1]), &left).is_err());
        decoding.end();
        assert!(matches!(decoding.picture(7, || Ok(vec![1]), &wanted), Err(Refusal::NotYet(_))));
        assert!(decoding.picture(5, || Ok(vec![9]), &wanted).is_ok(), "it is still cached");
        assert_eq!(DECODED.load(Ordering::Relaxed), 1);
    }
    struct Picky;

    impl Decode for Picky {
        fn decode(&mut self, tokens: &[u32]) -> Picture {
            assert_ne!(tokens[0], 99, "a token that this decoder refuses");
            Picture { width: 1, height: 1, rgb: vec![tokens[0] as u8; 3] }
        }
    }

    #[test]
    fn a_panic_costs_one_picture() {
        let decoding = Decoding::start(|| Box::new(Picky));
        let wanted = Arc::new(AtomicBool::new(false));
        let failed = decoding.picture(0, || Ok(vec![99]), &wanted);
        assert!(matches!(&failed, Err(Refusal::Internal(text)) if text.contains("refuses")), "{failed:?}");
        assert_eq!(decoding.picture(1, || Ok(vec![9]), &wanted).unwrap().rgb, [9, 9, 9]);
        let refused = decoding.picture(2, || Err(Refusal::Busy), &wanted);
        assert_eq!(refused, Err(Refusal::Busy));
    }
}
