//! Rendezvous of the processes of a run.
//!
//! A store may hold what an earlier start of the same run left in it (that of `torchrun` lives through restarts), and the
//! numbers by which launchers count restarts differ between nodes. So only fresh answers count: rank r writes
//! `hello/r` with a fresh nonce; rank 0 answers `welcome/r` with that nonce and the name of this rendezvous, the epoch; rank r
//! acknowledges below the epoch. All other keys are below the epoch too.
//!
//! Rank 0 reads the ranks below its own world size, and those that have entered themselves in a list: a process that was
//! started with a larger world size may have a rank that rank 0 does not expect.

use super::doorkeeper::Doorkeeper;
use super::store::{Store, StoreError};
use crate::TrainError;
use crate::config::first_difference;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Poll interval of the store.
const POLL: Duration = Duration::from_millis(50);

/// How long rank 0 still waits for others once one is refused, so that they get the answer too.
const REFUSAL: Duration = Duration::from_secs(4);

/// How long a rank beyond the world size has to acknowledge once all others are there; else it was left by an earlier start.
const SHADOW: Duration = Duration::from_secs(2);

/// Something that must be the same in all processes, such as the hash of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Name for messages, such as `the configuration`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether the value is a configuration in TOML, which is compared key by key.
    pub is_toml: bool,
}

impl Fact {
    /// A value that is compared as a whole.
    pub fn new(name: &str, value: impl Into<String>) -> Fact {
        Fact { name: name.into(), value: value.into(), is_toml: false }
    }

    /// A configuration, compared key by key.
    pub fn toml(name: &str, value: impl Into<String>) -> Fact {
        Fact { name: name.into(), value: value.into(), is_toml: true }
    }

    /// How this value, which `rank` has, differs from that of rank 0.
    fn difference(&self, of_rank_0: &Fact, rank: usize) -> Option<String> {
        if self.value == of_rank_0.value {
            return None;
        }
        let (mut name, mut here, mut there) = (self.name.clone(), of_rank_0.value.clone(), self.value.clone());
        if self.is_toml {
            let parsed = [&of_rank_0.value, &self.value].map(|text| text.parse().unwrap_or_default());
            (name, here, there) = first_difference(&parsed[0], &parsed[1], &[])?;
        }
        Some(format!("rank {rank} was started differently: {name} is {there} there and {here} on rank 0"))
    }
}

/// This process at the rendezvous.
#[derive(Debug, Clone)]
pub(crate) struct Guest<'a> {
    pub rank: usize,
    pub world_size: usize,
    /// Its address towards the store.
    pub address: IpAddr,
    pub facts: &'a [Fact],
    /// How long to wait for the others.
    pub timeout: Duration,
}

/// The outcome.
#[derive(Debug)]
pub(crate) struct Meeting {
    /// Prefix of all keys of this rendezvous.
    pub epoch: String,
    /// Addresses by rank.
    pub addresses: Vec<IpAddr>,
    /// At rank 0: for late arrivals.
    pub doorkeeper: Option<Doorkeeper>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hello {
    pub nonce: String,
    pub world_size: usize,
    address: IpAddr,
    facts: Vec<Fact>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub nonce: String,
    pub epoch: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Go(Vec<IpAddr>),
    Refused(String),
}

pub(super) fn hello_key(rank: usize) -> String {
    format!("tokengrid/hello/{rank}")
}

/// Counts the processes that have entered themselves, in all starts that this store has seen.
pub(super) const ARRIVALS: &str = "tokengrid/arrivals";

/// The rank of the process that entered itself as this one.
pub(super) fn arrival_key(number: i64) -> String {
    format!("tokengrid/arrival/{number}")
}

pub(super) fn welcome_key(rank: usize) -> String {
    format!("tokengrid/welcome/{rank}")
}

/// A random number that distinguishes this start from others.
fn nonce() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

pub(super) fn encode<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

/// Waits for all processes of the run.
///
/// # Errors
/// Some do not arrive in time, or were started with other settings; all that arrived get the same answer.
pub(super) fn meet(store: &Store, guest: &Guest) -> Result<Meeting, TrainError> {
    let (epoch, outcome, doorkeeper) = match guest.rank {
        0 => receive(store, guest),
        _ => visit(store, guest).map(|(epoch, outcome)| (epoch, outcome, None)),
    }?;
    match outcome {
        Outcome::Go(addresses) => Ok(Meeting { epoch, addresses, doorkeeper }),
        Outcome::Refused(what) => Err(TrainError::ProcessGroup { what }),
    }
}

fn lost(error: StoreError) -> TrainError {
    let what = match error {
        StoreError::Silent => "the store of this run does not answer at the rendezvous".into(),
        StoreError::Failed(text) => {
            format!("the connection to the store of this run was lost at the rendezvous ({text})")
        }
    };
    TrainError::ProcessGroup { what }
}

fn read<T: for<'a> Deserialize<'a>>(store: &Store, key: &str) -> Result<Option<T>, TrainError> {
    let value = store.get(key).map_err(lost)?;
    // A value that another program has left under this key is ignored.
    Ok(value.and_then(|text| serde_json::from_str(&text).ok()))
}

/// The loop of rank 0: it answers until all have acknowledged.
fn receive(store: &Store, guest: &Guest) -> Result<(String, Outcome, Option<Doorkeeper>), TrainError> {
    let epoch = format!("tokengrid/{}", nonce());
    let mut reception = Reception { store, guest, epoch: &epoch, hellos: BTreeMap::new(), listed: 0 };
    let mut deadline = Instant::now() + guest.timeout;
    let (mut refusal, mut is_complete) = (None, false);
    let mut missing: BTreeSet<usize> = (1..guest.world_size).collect();
    while !missing.is_empty() && Instant::now() < deadline {
        // A rank beyond the world size was started differently, and gets an answer too.
        missing.extend(reception.ranks_beyond()?);
        for rank in missing.clone() {
            if !reception.has_come(rank)? {
                continue;
            }
            missing.remove(&rank);
            let found = reception.hellos.get(&rank).and_then(|hello| unlike(hello, rank, guest));
            if refusal.is_none() && found.is_some() {
                refusal = found;
                deadline = deadline.min(Instant::now() + REFUSAL);
            }
        }
        // A rank beyond the world size may have been left in the store by an earlier start.
        if !is_complete && missing.iter().all(|&rank| rank >= guest.world_size) {
            is_complete = true;
            deadline = deadline.min(Instant::now() + SHADOW);
        }
        std::thread::sleep(if missing.is_empty() { Duration::ZERO } else { POLL });
    }
    missing.retain(|&rank| rank < guest.world_size);
    let outcome = match refusal {
        Some(what) => Outcome::Refused(what),
        None if missing.is_empty() => {
            let hellos = reception.hellos.range(..guest.world_size);
            let others = hellos.map(|(_, hello)| hello.address);
            Outcome::Go(std::iter::once(guest.address).chain(others).collect())
        }
        None => Outcome::Refused(format!(
            "ranks {missing:?} of {} did not arrive within {} s",
            guest.world_size,
            guest.timeout.as_secs_f64(),
            missing = missing.iter().collect::<Vec<_>>(),
        )),
    };
    // All members have entered themselves by now.
    reception.ranks_beyond()?;
    let doorkeeper = Doorkeeper::new(guest.world_size, &epoch, reception.listed);
    store.set(&format!("{epoch}/outcome"), &encode(&outcome)).map_err(lost)?;
    Ok((epoch, outcome, Some(doorkeeper)))
}

/// Rank 0, while the other processes arrive.
struct Reception<'a> {
    store: &'a Store,
    guest: &'a Guest<'a>,
    epoch: &'a str,
    /// The last hello of each rank.
    hellos: BTreeMap<usize, Hello>,
    /// Entries of the list that were read.
    listed: i64,
}

impl Reception<'_> {
    /// Ranks that have entered themselves since the last call and are not below the world size.
    fn ranks_beyond(&mut self) -> Result<Vec<usize>, TrainError> {
        let count = self.store.add(ARRIVALS, 0).map_err(lost)?;
        let mut ranks = vec![];
        while self.listed < count {
            // The entry follows its number: it may not be there yet.
            let Some(rank) = read::<usize>(self.store, &arrival_key(self.listed + 1))? else { break };
            self.listed += 1;
            ranks.extend((rank >= self.guest.world_size).then_some(rank));
        }
        Ok(ranks)
    }

    /// Answers a process. Returns whether it has acknowledged the answer, which a leftover of an earlier start never does.
    fn has_come(&mut self, rank: usize) -> Result<bool, TrainError> {
        let Reception { store, epoch, hellos, .. } = self;
        if hellos.contains_key(&rank) && store.get(&format!("{epoch}/ack/{rank}")).map_err(lost)?.is_some() {
            return Ok(true);
        }
        let Some(now) = read::<Hello>(store, &hello_key(rank))? else { return Ok(false) };
        if hellos.get(&rank).is_none_or(|before| before.nonce != now.nonce) {
            let welcome = Welcome { nonce: now.nonce.clone(), epoch: epoch.to_string() };
            store.set(&welcome_key(rank), &encode(&welcome)).map_err(lost)?;
            hellos.insert(rank, now);
        }
        Ok(false)
    }
}

pub(super) fn other_size(rank: usize, there: usize, here: usize) -> String {
    format!("rank {rank} was started differently: the world size is {there} there and {here} on rank 0")
}

/// How a process differs from rank 0 in what must be the same.
fn unlike(hello: &Hello, rank: usize, guest: &Guest) -> Option<String> {
    if hello.world_size != guest.world_size {
        return Some(other_size(rank, hello.world_size, guest.world_size));
    }
    hello.facts.iter().zip(guest.facts).find_map(|(there, here)| there.difference(here, rank))
}

/// The loop of all other ranks: they write `hello`, and wait for rank 0.
fn visit(store: &Store, guest: &Guest) -> Result<(String, Outcome), TrainError> {
    let rank = guest.rank;
    let deadline = Instant::now() + guest.timeout;
    let nonce = nonce();
    let facts = guest.facts.to_vec();
    let hello = Hello { nonce: nonce.clone(), world_size: guest.world_size, address: guest.address, facts };
    store.set(&hello_key(rank), &encode(&hello)).map_err(lost)?;
    let number = store.add(ARRIVALS, 1).map_err(lost)?;
    store.set(&arrival_key(number), &encode(&rank)).map_err(lost)?;
    let is_mine = |welcome: &Welcome| welcome.nonce == nonce;
    let Some(welcome) = poll(deadline, || Ok(read::<Welcome>(store, &welcome_key(rank))?.filter(is_mine)))? else {
        return Err(TrainError::ProcessGroup {
            what: format!("rank 0 of {} did not arrive within {} s", guest.world_size, guest.timeout.as_secs_f64()),
        });
    };
    let epoch = welcome.epoch;
    store.set(&format!("{epoch}/ack/{rank}"), "1").map_err(lost)?;
    // Rank 0 may have begun to wait later than this process, and reports itself which ranks are missing.
    let outcome = poll(deadline + guest.timeout, || read(store, &format!("{epoch}/outcome")))?;
    outcome.map(|outcome| (epoch, outcome)).ok_or_else(|| TrainError::ProcessGroup {
        what: "rank 0 did not report in time which ranks have arrived".into(),
    })
}

fn poll<T>(
    deadline: Instant,
    mut look: impl FnMut() -> Result<Option<T>, TrainError>,
) -> Result<Option<T>, TrainError> {
    loop {
        match look()? {
            None if Instant::now() < deadline => std::thread::sleep(POLL),
            found => return Ok(found),
        }
    }
}
