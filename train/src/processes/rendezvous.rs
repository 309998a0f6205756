//! How the processes of a run come together.
//!
//! A store may hold what an earlier start of the same run left in it (that of `torchrun` lives through restarts), and the
//! numbers by which launchers count restarts differ between nodes. So nothing is believed that is not an answer: rank r writes
//! `hello/r` with a fresh nonce; rank 0 answers `welcome/r` with that nonce and the name of this meeting, the epoch; rank r
//! acknowledges below the epoch. All else is below the epoch too.

use super::store::{Store, StoreError};
use crate::TrainError;
use crate::config::first_difference;
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two looks at the store.
const POLL: Duration = Duration::from_millis(50);

/// How long processes are still expected when one is refused already: they are to be told as well.
const REFUSAL: Duration = Duration::from_secs(4);

/// Something that must be the same in all processes, such as the hash of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is, for messages.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether the value is a configuration in TOML, of which the differing key is named.
    pub is_toml: bool,
}

impl Fact {
    /// A value that is compared as it is.
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

/// This process, as it comes to the meeting.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meeting {
    /// Prefix of all keys of this meeting.
    pub epoch: String,
    /// Addresses by rank.
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hello {
    nonce: String,
    world_size: usize,
    address: IpAddr,
    facts: Vec<Fact>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Welcome {
    nonce: String,
    epoch: String,
}

#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Go(Vec<IpAddr>),
    Refused(String),
}

fn hello_key(rank: usize) -> String {
    format!("tokengrid/hello/{rank}")
}

fn welcome_key(rank: usize) -> String {
    format!("tokengrid/welcome/{rank}")
}

/// A number that no other start has.
fn nonce() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

fn encode<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

/// Waits for all processes of the run.
///
/// # Errors
/// Some do not come in time, or were started with other settings; all that came get the same answer.
pub fn meet(store: &Store, guest: &Guest) -> Result<Meeting, TrainError> {
    let (epoch, outcome) = match guest.rank {
        0 => receive(store, guest),
        _ => visit(store, guest),
    }?;
    match outcome {
        Outcome::Go(addresses) => Ok(Meeting { epoch, addresses }),
        Outcome::Refused(what) => Err(TrainError::Processes { what }),
    }
}

fn lost(error: StoreError) -> TrainError {
    let what = match error {
        StoreError::Silent => "the store of this run does not answer, while its processes come together".into(),
        StoreError::Failed(text) => {
            format!("the connection to the store of this run is lost, while its processes come together ({text})")
        }
    };
    TrainError::Processes { what }
}

fn read<T: for<'a> Deserialize<'a>>(store: &Store, key: &str) -> Result<Option<T>, TrainError> {
    let value = store.get(key).map_err(lost)?;
    // What another program has left under this key is no answer.
    Ok(value.and_then(|text| serde_json::from_str(&text).ok()))
}

/// What rank 0 does: it answers until all have acknowledged.
fn receive(store: &Store, guest: &Guest) -> Result<(String, Outcome), TrainError> {
    let epoch = format!("tokengrid/{}", nonce());
    let mut deadline = Instant::now() + guest.timeout;
    let mut hellos: Vec<Option<Hello>> = vec![None; guest.world_size];
    let mut refusal = None;
    let mut missing: Vec<usize> = (1..guest.world_size).collect();
    while !missing.is_empty() && Instant::now() < deadline {
        let mut waiting = vec![];
        for &rank in &missing {
            let hello = &mut hellos[rank];
            if hello.is_some() && store.get(&format!("{epoch}/ack/{rank}")).map_err(lost)?.is_some() {
                let found = hello.as_ref().and_then(|hello| unlike(hello, rank, guest));
                if refusal.is_none() && found.is_some() {
                    refusal = found;
                    deadline = deadline.min(Instant::now() + REFUSAL);
                }
                continue;
            }
            waiting.push(rank);
            let Some(now) = read::<Hello>(store, &hello_key(rank))? else { continue };
            if hello.as_ref().is_none_or(|before| before.nonce != now.nonce) {
                let welcome = Welcome { nonce: now.nonce.clone(), epoch: epoch.clone() };
                store.set(&welcome_key(rank), &encode(&welcome)).map_err(lost)?;
                *hello = Some(now);
            }
        }
        missing = waiting;
        std::thread::sleep(if missing.is_empty() { Duration::ZERO } else { POLL });
    }
    let outcome = match refusal {
        Some(what) => Outcome::Refused(what),
        None if missing.is_empty() => {
            let others = hellos.into_iter().flatten().map(|hello| hello.address);
            Outcome::Go(std::iter::once(guest.address).chain(others).collect())
        }
        None => Outcome::Refused(format!(
            "ranks {missing:?} of {} did not come within {} s",
            guest.world_size,
            guest.timeout.as_secs_f64()
        )),
    };
    store.set(&format!("{epoch}/outcome"), &encode(&outcome)).map_err(lost)?;
    Ok((epoch, outcome))
}

/// How a process differs from rank 0 in what must be the same.
fn unlike(hello: &Hello, rank: usize, guest: &Guest) -> Option<String> {
    if hello.world_size != guest.world_size {
        let (there, here) = (hello.world_size, guest.world_size);
        return Some(format!(
            "rank {rank} was started differently: the world size is {there} there and {here} on rank 0"
        ));
    }
    hello.facts.iter().zip(guest.facts).find_map(|(there, here)| there.difference(here, rank))
}

/// What the others do: they say hello, and wait for rank 0.
fn visit(store: &Store, guest: &Guest) -> Result<(String, Outcome), TrainError> {
    let rank = guest.rank;
    let deadline = Instant::now() + guest.timeout;
    let nonce = nonce();
    let facts = guest.facts.to_vec();
    let hello = Hello { nonce: nonce.clone(), world_size: guest.world_size, address: guest.address, facts };
    store.set(&hello_key(rank), &encode(&hello)).map_err(lost)?;
    let is_mine = |welcome: &Welcome| welcome.nonce == nonce;
    let Some(welcome) = poll(deadline, || Ok(read::<Welcome>(store, &welcome_key(rank))?.filter(is_mine)))? else {
        return Err(TrainError::Processes {
            what: format!("rank 0 of {} did not come within {} s", guest.world_size, guest.timeout.as_secs_f64()),
        });
    };
    let epoch = welcome.epoch;
    store.set(&format!("{epoch}/ack/{rank}"), "1").map_err(lost)?;
    // Rank 0 has begun to wait later than this process, perhaps, and says itself who does not come.
    let outcome = poll(deadline + guest.timeout, || read(store, &format!("{epoch}/outcome")))?;
    outcome.map(|outcome| (epoch, outcome)).ok_or_else(|| TrainError::Processes {
        what: "rank 0 did not say within its time who has come to this run".into(),
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
