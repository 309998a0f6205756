//! Signs of life, and the verdict on who failed.
//!
//! A thread with its own connection to the store writes a heartbeat twice a second: a count of its rounds, the exchanges
//! that were started, the steps that were done. Rank 0 reads those of all others, the others read that of rank 0. When an
//! exchange fails, the process reports a suspicion, and a shorter silence counts as a failure. The process that finds a failure
//! writes the verdict, which all poll in every round.

use super::doorkeeper::Doorkeeper;
use super::endpoint::Holder;
use super::store::{ANSWER, Store, StoreError};
use super::verdict::Verdict;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BEAT: Duration = Duration::from_millis(500);

/// Silence after which a process counts as failed: one that may only be slow, ...
const SILENCE: Duration = Duration::from_secs(8);

/// ... and one while an exchange has failed.
const SILENCE_OF_A_SUSPECT: Duration = Duration::from_millis(2500);

/// A process whose own rounds are this far apart was stopped or starved, and cannot judge the others.
const PAUSE: Duration = Duration::from_secs(3);

/// Poll interval of the thread.
const NAP: Duration = Duration::from_millis(50);

/// What the thread and the process share.
#[derive(Debug)]
pub(crate) struct Pulse {
    rank: usize,
    world_size: usize,
    holder: Holder,
    epoch: String,
    exchanges: AtomicU64,
    steps: AtomicU64,
    /// An exchange failed.
    suspects: AtomicBool,
    /// Seconds that an exchange has taken beyond its deadline; 0: none has.
    late_secs: AtomicU64,
    stop: AtomicBool,
    verdict: Mutex<Option<Verdict>>,
}

impl Pulse {
    pub(super) fn new(rank: usize, world_size: usize, holder: Holder, epoch: &str) -> Pulse {
        Pulse {
            rank,
            world_size,
            holder,
            epoch: epoch.into(),
            exchanges: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            suspects: AtomicBool::new(false),
            late_secs: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            verdict: Mutex::new(None),
        }
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.epoch)
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Steps that this process has done.
    pub(crate) fn note_steps(&self, steps: u64) {
        self.steps.store(steps, Ordering::Relaxed);
    }

    pub(crate) fn note_exchange(&self) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that an exchange failed, because a process is gone.
    pub(crate) fn suspect(&self) {
        self.suspects.store(true, Ordering::Relaxed);
    }

    /// Records that an exchange has exceeded its deadline of `seconds`.
    pub(super) fn late(&self, seconds: u64) {
        self.late_secs.store(seconds.max(1), Ordering::Relaxed);
    }

    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first verdict stays.
    pub(super) fn decide(&self, verdict: Verdict) {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(verdict);
    }

    /// Waits for a verdict.
    pub(crate) fn verdict_within(&self, limit: Duration) -> Option<Verdict> {
        let deadline = Instant::now() + limit;
        loop {
            match self.verdict() {
                None if Instant::now() < deadline => std::thread::sleep(NAP),
                verdict => return verdict,
            }
        }
    }

    /// The heartbeat that a process publishes.
    fn sign(&self, round: u64) -> String {
        format!("{round} {} {}", self.exchanges.load(Ordering::Relaxed), self.steps())
    }
}

/// The heartbeat thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    pulse: Arc<Pulse>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// With a `doorkeeper`, the thread also refuses late arrivals.
    pub(super) fn start(pulse: Arc<Pulse>, store: Store, doorkeeper: Option<Doorkeeper>) -> Heartbeat {
        let shared = Arc::clone(&pulse);
        let thread = std::thread::spawn(move || beat(&shared, &store, doorkeeper));
        Heartbeat { pulse, thread: Some(thread) }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.pulse.stop.store(true, Ordering::Relaxed);
        // Each of its requests has a deadline.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn beat(pulse: &Pulse, store: &Store, mut doorkeeper: Option<Doorkeeper>) {
    let mut watch = Watch::new(pulse);
    while !pulse.stop.load(Ordering::Relaxed) && pulse.verdict().is_none() {
        let started = Instant::now();
        let answered = doorkeeper.as_mut().map_or(Ok(()), |doorkeeper| doorkeeper.turn_away(store));
        match answered.and_then(|()| watch.round(pulse, store)) {
            Ok(()) => {}
            Err(_) if pulse.stop.load(Ordering::Relaxed) => return,
            Err(StoreError::Silent) => pulse.decide(Verdict::store_silent(pulse.holder, ANSWER.as_secs())),
            Err(StoreError::Failed(_)) => pulse.decide(Verdict::store_gone(pulse.holder, pulse.steps())),
        }
        let is_urgent = || pulse.suspects.load(Ordering::Relaxed) && !watch.told;
        while started.elapsed() < BEAT && !pulse.stop.load(Ordering::Relaxed) && !is_urgent() {
            std::thread::sleep(NAP);
        }
    }
}

/// The last heartbeat of another process.
#[derive(Debug, Clone, Default)]
struct Sign {
    text: String,
    /// When it was first read.
    since: Option<Instant>,
}

impl Sign {
    /// The number at an index: 0 the round, 1 exchanges, 2 steps.
    fn number(&self, place: usize) -> u64 {
        self.text.split(' ').nth(place).and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

/// State of the thread between rounds.
struct Watch {
    round: u64,
    last_round: Instant,
    signs: Vec<Sign>,
    /// Whether rank 0 knows that this process suspects another.
    told: bool,
}

impl Watch {
    fn new(pulse: &Pulse) -> Watch {
        Watch { round: 0, last_round: Instant::now(), signs: vec![Sign::default(); pulse.world_size], told: false }
    }

    fn round(&mut self, pulse: &Pulse, store: &Store) -> Result<(), StoreError> {
        self.round += 1;
        store.set(&pulse.key(&format!("sign/{}", pulse.rank)), &pulse.sign(self.round))?;
        if let Some(text) = store.get(&pulse.key("verdict"))? {
            pulse.decide(serde_json::from_str(&text).unwrap_or(Verdict::Gone { rank: 0, step: pulse.steps() }));
            return Ok(());
        }
        let is_suspicious = self.suspicion(pulse, store)?;
        let late_secs = pulse.late_secs.load(Ordering::Relaxed);
        let watched = if pulse.rank == 0 || late_secs > 0 { 0..pulse.world_size } else { 0..1 };
        for rank in watched.clone().filter(|&rank| rank != pulse.rank) {
            self.look(rank, store.get(&pulse.key(&format!("sign/{rank}")))?.unwrap_or_default());
        }
        // A process that was stopped and continued has not observed the others meanwhile.
        let pause = self.last_round.elapsed();
        self.last_round = Instant::now();
        if pause > PAUSE {
            self.signs.iter_mut().for_each(|sign| sign.since = Some(Instant::now()));
        }
        let silent =
            watched.filter(|&rank| rank != pulse.rank).find_map(|rank| self.silence(rank, is_suspicious, pulse));
        let verdict = silent.or_else(|| (late_secs > 0).then(|| self.behind(pulse, late_secs)).flatten());
        if let Some(verdict) = verdict {
            publish(pulse, store, verdict)?;
        }
        Ok(())
    }

    /// Whether any process has seen an exchange fail.
    fn suspicion(&mut self, pulse: &Pulse, store: &Store) -> Result<bool, StoreError> {
        let own = pulse.suspects.load(Ordering::Relaxed);
        if own && !self.told {
            store.set(&pulse.key("suspicion"), "1")?;
            self.told = true;
        }
        Ok(own || (pulse.rank == 0 && store.get(&pulse.key("suspicion"))?.is_some()))
    }

    fn look(&mut self, rank: usize, text: String) {
        let sign = &mut self.signs[rank];
        if sign.since.is_none() || sign.text != text {
            *sign = Sign { text, since: Some(Instant::now()) };
        }
    }

    fn silence(&self, rank: usize, is_suspicious: bool, pulse: &Pulse) -> Option<Verdict> {
        let sign = &self.signs[rank];
        // Its last sign may be some steps old; all processes go from step to step together.
        let (silent, step) = (sign.since?.elapsed(), sign.number(2).max(pulse.steps()));
        match is_suspicious {
            true if silent >= SILENCE_OF_A_SUSPECT => Some(Verdict::Gone { rank, step }),
            _ if silent >= SILENCE => Some(Verdict::Silent { rank, step, seconds: SILENCE.as_secs() }),
            _ => None,
        }
    }

    /// The ranks that have started fewer exchanges than this process, which waits for them.
    fn behind(&self, pulse: &Pulse, seconds: u64) -> Option<Verdict> {
        let exchange = pulse.exchanges.load(Ordering::Relaxed);
        let others = self.signs.iter().enumerate().filter(|(rank, _)| *rank != pulse.rank);
        let counts = others.map(|(rank, sign)| (rank, sign.number(1)));
        let ranks: Vec<(usize, u64)> = counts.filter(|(_, count)| *count < exchange).collect();
        (!ranks.is_empty()).then(|| Verdict::Behind { ranks, exchange, step: pulse.steps(), seconds })
    }
}

/// Writes the verdict, for all processes.
pub(super) fn publish(pulse: &Pulse, store: &Store, verdict: Verdict) -> Result<(), StoreError> {
    pulse.decide(verdict.clone());
    let text = serde_json::to_string(&verdict).expect("names and numbers are JSON");
    store.set(&pulse.key("verdict"), &text)
}
