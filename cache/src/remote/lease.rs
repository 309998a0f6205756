//! Who writes for a rank of a job in a bucket: a small object that its holder renews.
//!
//! A holder that died on this machine is known by its process. Of one on another machine it is seen that the lease is not
//! renewed; times of different clocks are not compared.

use crate::error::CacheError;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokengrid_store::{Bucket, Version, is_cancelled};

/// How often a lease is renewed, and after how long without that it counts as given up.
const RENEW_EVERY: Duration = Duration::from_secs(5);
const EXPIRES_AFTER: Duration = Duration::from_secs(30);

/// How often one looks whether a lease is renewed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a lease says.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Holder {
    host: String,
    pid: u32,
    /// The machine as it was booted, with the name space of its processes.
    machine: String,
    /// When the process began, in ticks since the machine was booted: ids are given again.
    began: u64,
    /// Counts renewals, so that each one is another version.
    renewals: u64,
}

impl Holder {
    fn of_this_process() -> Holder {
        let pid = std::process::id();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Holder { host, pid, machine: machine(), began: began(pid).unwrap_or_default(), renewals: 0 }
    }

    /// Whether the process is known to have ended.
    fn is_dead(&self) -> bool {
        let is_here = !self.machine.is_empty() && self.machine == machine();
        is_here && began(self.pid) != Some(self.began)
    }

    fn is_this_process(&self) -> bool {
        let own = Holder::of_this_process();
        (self.pid, &self.machine, self.began) == (own.pid, &own.machine, own.began) && !own.machine.is_empty()
    }

    fn text(&self) -> Vec<u8> {
        // Numbers and texts always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Names the boot and the process namespace of this machine (Linux); empty elsewhere.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    if boot.is_empty() { String::new() } else { format!("{} {}", boot.trim(), space.display()) }
}

/// When a process began, if there is one.
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything, the 20th field.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A lease that this process holds. Dropped, it is given back.
pub(super) struct Lease {
    shared: Arc<Shared>,
    renewing: Option<JoinHandle<()>>,
}

struct Shared {
    bucket: Bucket,
    key: String,
    is_lost: AtomicBool,
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Lease {
    /// Takes the lease at `key`, waiting for as long as it takes to see whether its holder is alive.
    pub(super) fn take(bucket: &Bucket, key: &str) -> Result<Lease, CacheError> {
        let own = Holder::of_this_process();
        let version = acquire(bucket, key, &own)?;
        let shared = Arc::new(Shared {
            bucket: bucket.clone(),
            key: key.to_owned(),
            is_lost: AtomicBool::new(false),
            is_over: Mutex::new(false),
            over: Condvar::new(),
        });
        let renewing = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("lease".to_owned()).spawn(move || shared.renew(own, version)).ok()
        };
        Ok(Lease { shared, renewing })
    }

    /// Whether the lease is still held.
    ///
    /// # Errors
    /// [`CacheError::LeaseLost`].
    pub(super) fn check(&self) -> Result<(), CacheError> {
        if self.shared.is_lost.load(Ordering::Acquire) {
            let path = self.shared.bucket.place(&self.shared.key).to_string().into();
            return Err(CacheError::LeaseLost { path });
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.shared.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.over.notify_all();
        if let Some(renewing) = self.renewing.take() {
            let _ = renewing.join();
        }
        if !self.shared.is_lost.load(Ordering::Acquire) {
            // What stays is known to be a dead process's, or expires.
            let _ = self.shared.bucket.delete(std::slice::from_ref(&self.shared.key));
        }
    }
}

impl Shared {
    fn renew(&self, mut own: Holder, mut version: Version) {
        let mut renewed = Instant::now();
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_over {
            is_over = self.over.wait_timeout(is_over, RENEW_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            if *is_over {
                return;
            }
            drop(is_over);
            own.renewals += 1;
            match self.bucket.replace(&self.key, own.text().into(), &version) {
                Ok(Some(next)) => (version, renewed) = (next, Instant::now()),
                // Somebody else has it, or the answer to an earlier renewal was lost: then it is ours still.
                Ok(None) => match self.own_version() {
                    Some(found) => version = found,
                    None => return self.is_lost.store(true, Ordering::Release),
                },
                Err(_) if renewed.elapsed() > EXPIRES_AFTER => return self.is_lost.store(true, Ordering::Release),
                Err(_) => {}
            }
            is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn own_version(&self) -> Option<Version> {
        let (text, version) = self.bucket.read_version(&self.key).ok()??;
        let holder: Holder = serde_json::from_slice(&text).ok()?;
        holder.is_this_process().then_some(version)
    }
}

fn acquire(bucket: &Bucket, key: &str, own: &Holder) -> Result<Version, CacheError> {
    let mut seen: Option<(Version, Instant)> = None;
    loop {
        if let Some(version) = bucket.create(key, own.text().into())? {
            return Ok(version);
        }
        // Gone between the two requests: once more.
        let Some((text, version)) = bucket.read_version(key)? else { continue };
        let holder: Option<Holder> = serde_json::from_slice(&text).ok();
        let place = bucket.place(key);
        let is_expired =
            seen.as_ref().is_some_and(|(known, since)| *known == version && since.elapsed() > EXPIRES_AFTER);
        // The answer to a first try may have been lost; an object that is not a lease was not written by a holder.
        let is_free = holder.as_ref().is_none_or(|holder| holder.is_dead() || holder.is_this_process());
        if is_free || is_expired {
            if let Some(version) = bucket.replace(key, own.text().into(), &version)? {
                return Ok(version);
            }
            continue;
        }
        let of = holder.map_or_else(String::new, |holder| format!("process {} on {}", holder.pid, holder.host));
        match &seen {
            Some((known, _)) if *known != version => {
                return Err(CacheError::Leased { path: place.to_string().into(), holder: of });
            }
            Some(_) => {}
            None => seen = Some((version, Instant::now())),
        }
        wait()?;
    }
}

/// Whether the holder of the lease at `key` is a process of this machine that has ended, without waiting.
pub(super) fn is_known_dead(bucket: &Bucket, key: &str) -> bool {
    let Ok(Some(text)) = bucket.read(key) else { return false };
    serde_json::from_slice(&text).is_ok_and(|holder: Holder| holder.is_dead())
}

/// Whether a process that is still alive holds the lease at `key`.
pub(super) fn is_held(bucket: &Bucket, key: &str) -> Result<bool, CacheError> {
    let since = Instant::now();
    let Some((text, version)) = bucket.read_version(key)? else { return Ok(false) };
    if serde_json::from_slice(&text).ok().is_none_or(|holder: Holder| holder.is_dead()) {
        return Ok(false);
    }
    while since.elapsed() < EXPIRES_AFTER {
        wait()?;
        match bucket.read_version(key)? {
            None => return Ok(false),
            Some((_, now)) if now != version => return Ok(true),
            Some(_) => {}
        }
    }
    Ok(false)
}

fn wait() -> Result<(), CacheError> {
    if is_cancelled() {
        return Err(CacheError::Cancelled);
    }
    thread::sleep(LOOK_EVERY);
    Ok(())
}
