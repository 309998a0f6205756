//! One budget of memory for all threads that decode: a picture claims what decoding it takes, and waits for others to end.
//!
//! Claims are served in the order in which they are made, so that a huge picture is not kept waiting forever by small ones.
//! A thread holds one claim at most and waits for nothing else while it holds it: so there is no deadlock.
//! Where finished pictures keep their claims until a consumer takes them in order, they are claimed in that order ([`Turns`]).

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// The budget where the system does not say how much memory there is, in bytes.
const UNKNOWN_BUDGET_BYTES: u64 = 2 << 30;

/// Share of the memory that is the budget by default. There may be several processes, and each has more to keep than this.
const DEFAULT_SHARE: u64 = 8;

/// The default is not below this while half of the memory is enough for it, in bytes: any picture fits.
const LEAST_DEFAULT_BYTES: u64 = 1 << 30;

/// The budget of this process, in bytes; 0 until it is set.
static BUDGET_BYTES: AtomicU64 = AtomicU64::new(0);

/// Processes of one job that share this machine's memory.
static NUM_PROCESSES: AtomicU64 = AtomicU64::new(1);

static BUDGET: Budget = Budget::new();

/// What a thread may keep from one picture to the next, outside the budget: the smaller of this number of bytes
/// and this share (1 / 64) of the budget.
const MAX_KEPT_BYTES: u64 = 64 << 20;
const KEPT_SHARE: u64 = 64;

/// Sets what pictures that are being decoded may take together, over all threads of this process, in bytes.
///
/// A picture that alone takes more is refused ([`DecodeError::OverBudget`](crate::DecodeError::OverBudget)).
pub fn set_memory_budget(bytes: u64) {
    BUDGET_BYTES.store(bytes.max(1), Ordering::Relaxed);
}

/// Says how many processes of one job share this machine, this one included: the default budget is a part of theirs. A budget
/// that was [set](set_memory_budget) is that of each.
pub fn share_memory_budget(num_processes: usize) {
    NUM_PROCESSES.store(num_processes.max(1) as u64, Ordering::Relaxed);
}

/// What pictures that are being decoded may take together, in bytes.
///
/// Unless it was set: an eighth of the memory that this process may use (that of the machine, or the limit of its cgroup), but
/// a gibibyte at least where that is no more than half of it. Processes that [share](share_memory_budget) a machine have equal
/// parts of that.
pub fn memory_budget() -> u64 {
    match BUDGET_BYTES.load(Ordering::Relaxed) {
        0 => {
            static MEMORY: OnceLock<Option<u64>> = OnceLock::new();
            default_budget(*MEMORY.get_or_init(usable_memory), NUM_PROCESSES.load(Ordering::Relaxed))
        }
        bytes => bytes,
    }
}

/// Bytes of buffers that a thread may keep when its picture is done.
pub(crate) fn kept_bytes() -> u64 {
    MAX_KEPT_BYTES.min(memory_budget() / KEPT_SHARE)
}

/// Gives freed memory back to the system. glibc keeps blocks of up to 32 MiB for each thread apart, and some of that even so.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn trim_heaps() {
    // SAFETY: takes no pointer; any thread may call it at any time.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn trim_heaps() {}

/// Waits until `bytes` of the budget are free, and takes them until the claim is dropped.
///
/// The calling thread must not hold another claim.
pub(crate) fn claim(bytes: u64) -> Claim {
    BUDGET.claim(bytes, memory_budget().saturating_sub(RESERVED_BYTES.load(Ordering::Relaxed)))
}

/// What reads ahead of the decoders hold of the budget.
static RESERVED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Of the budget, reads ahead of the decoders may hold this share.
const AHEAD_SHARE: u64 = 8;

/// A part of the budget that pictures leave free while this lives. It is taken without waiting: the thread that reads ahead
/// serves those that decode. A picture that needs more than is left is decoded alone, as one is that needs the whole budget.
#[derive(Debug)]
pub(crate) struct Reserve {
    bytes: u64,
}

/// Reserves at most `bytes_max`, and at most a share of the budget.
pub(crate) fn reserve_ahead(bytes_max: u64) -> Reserve {
    let bytes = bytes_max.min(memory_budget() / AHEAD_SHARE);
    RESERVED_BYTES.fetch_add(bytes, Ordering::Relaxed);
    Reserve { bytes }
}

impl Reserve {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        RESERVED_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The default of each of `num_processes` on a machine with `memory` bytes.
fn default_budget(memory: Option<u64>, num_processes: u64) -> u64 {
    let share = |bytes: u64| (bytes / DEFAULT_SHARE).max(LEAST_DEFAULT_BYTES.min(bytes / 2));
    memory.map_or(UNKNOWN_BUDGET_BYTES / num_processes, |bytes| share(bytes / num_processes)).max(1)
}

/// The machine's memory or the least limit of the control groups that this process is in, in bytes.
fn usable_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(limit_of_group);
    machine.into_iter().chain(limits).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least limit of a line of `/proc/self/cgroup` and of the groups around it. In a container the path may be that of the
/// host, and the files of the group itself lie at the root: the walk ends there.
fn limit_of_group(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        names if names.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return None,
    };
    let groups = std::path::Path::new(path).ancestors();
    let limit = |group: &std::path::Path| {
        let group = group.strip_prefix("/").unwrap_or(group);
        // Without a limit it says `max`, or a number beyond any memory.
        fs::read_to_string(std::path::Path::new(root).join(group).join(file)).ok()?.trim().parse().ok()
    };
    groups.filter_map(limit).min()
}

/// What is claimed of a budget.
#[derive(Debug)]
struct Budget {
    state: Mutex<State>,
    /// A claim was served or dropped.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    claimed_bytes: u64,
    /// Numbers of the next claim to be made and of the next one to be served: they differ while threads wait.
    next: u64,
    serving: u64,
}

/// A part of a budget; dropping it, after the memory itself, gives it back.
#[derive(Debug)]
pub(crate) struct Claim {
    bytes: u64,
    budget: &'static Budget,
}

impl Budget {
    const fn new() -> Budget {
        Budget { state: Mutex::new(State { claimed_bytes: 0, next: 0, serving: 0 }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&'static self, bytes: u64, limit: u64) -> Claim {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        // A claim beyond the budget waits for all others, and is then served.
        let has_room = |state: &State| state.claimed_bytes == 0 || state.claimed_bytes.saturating_add(bytes) <= limit;
        while number != state.serving || !has_room(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.serving += 1;
        state.claimed_bytes += bytes;
        self.wake(state);
        Claim { bytes, budget: self }
    }

    fn wake(&self, state: MutexGuard<'_, State>) {
        let anyone_waits = state.next != state.serving;
        drop(state);
        if anyone_waits {
            self.changed.notify_all();
        }
    }
}

impl Claim {
    /// Gives back what exceeds `bytes`.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            let mut state = self.budget.lock();
            state.claimed_bytes -= less;
            self.bytes -= less;
            self.budget.wake(state);
        }
    }
}

/// An order in which claims are made, whichever thread is first to know how much it needs. The claims may then be held until
/// a consumer takes the pictures in the same order: of those that wait for memory, the first one waits for none after it.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    passed: Mutex<Passed>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Passed {
    /// Number whose turn it is.
    next: u64,
    /// Numbers after it whose turns were dropped.
    ahead: BTreeSet<u64>,
}

/// The turn of one picture; dropping it passes it on.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

impl Turns {
    /// The turn with this number, counted from 0; each number is given once.
    pub(crate) fn turn(self: &Arc<Turns>, number: u64) -> Turn {
        Turn { turns: Arc::clone(self), number }
    }

    fn lock(&self) -> MutexGuard<'_, Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits for the turn, and then for memory.
    pub(crate) fn claim(self, bytes: u64) -> Claim {
        let mut passed = self.turns.lock();
        while passed.next != self.number {
            passed = self.turns.changed.wait(passed).unwrap_or_else(PoisonError::into_inner);
        }
        drop(passed);
        claim(bytes)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut passed = self.turns.lock();
        passed.ahead.insert(self.number);
        while let Some(first) = passed.ahead.first().copied().filter(|&first| first == passed.next) {
            passed.ahead.remove(&first);
            passed.next += 1;
        }
        drop(passed);
        self.turns.changed.notify_all();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.bytes > kept_bytes() {
            trim_heaps();
        }
        let mut state = self.budget.lock();
        state.claimed_bytes -= self.bytes;
        self.budget.wake(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::thread;
    use std::time::Duration;

    fn budget() -> &'static Budget {
        Box::leak(Box::new(Budget::new()))
    }

    #[test]
    fn claims_of_many_threads_never_exceed_the_budget_and_all_are_served() {
        static HELD: AtomicU64 = AtomicU64::new(0);
        let (budget, limit) = (budget(), 100);
        thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for i in 0..200 {
                        let bytes = (thread * 37 + i * 13) % 100 + 1;
                        let claim = budget.claim(bytes, limit);
                        assert!(HELD.fetch_add(bytes, Ordering::SeqCst) + bytes <= limit);
                        HELD.fetch_sub(bytes, Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert_eq!(budget.lock().claimed_bytes, 0);
    }

    #[test]
    fn small_claims_do_not_overtake_a_large_one() {
        let (budget, limit) = (budget(), 10);
        let first = budget.claim(5, limit);
        thread::scope(|scope| {
            let large = scope.spawn(|| budget.claim(10, limit));
            while budget.lock().next < 2 {
                thread::yield_now();
            }
            let small = scope.spawn(|| budget.claim(1, limit));
            while budget.lock().next < 3 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(20));
            assert_eq!(budget.lock().serving, 1, "the small one would fit, but it is not its turn");
            drop(first);
            drop(large.join().expect("served"));
            drop(small.join().expect("served"));
        });
    }

    #[test]
    fn a_claim_beyond_the_budget_is_served_alone() {
        let budget = budget();
        drop(budget.claim(1000, 10));
        assert_eq!(budget.lock().claimed_bytes, 0);
    }

    #[test]
    fn the_default_is_a_share_of_the_memory() {
        const GIB: u64 = 1 << 30;
        assert_eq!(default_budget(Some(64 * GIB), 1), 8 * GIB);
        assert_eq!(default_budget(Some(3 * GIB), 1), GIB, "enough for any picture");
        assert_eq!(default_budget(Some(GIB), 1), GIB / 2);
        assert_eq!(default_budget(None, 1), UNKNOWN_BUDGET_BYTES);
        assert_eq!(total_of("MemTotal:       24683652 kB\nMemFree: 1 kB\n"), Some(24_683_652 * 1024));
        assert!(usable_memory().is_none_or(|bytes| bytes > 64 << 20));
    }

    #[test]
    fn processes_of_one_machine_share_its_default() {
        const GIB: u64 = 1 << 30;
        assert_eq!(default_budget(Some(64 * GIB), 4), 2 * GIB);
        assert_eq!(
            default_budget(Some(24 * GIB), 8),
            GIB,
            "enough for any picture, and a third of the memory together"
        );
        assert_eq!(default_budget(Some(8 * GIB), 16), GIB / 4, "half of the memory together");
        assert_eq!(default_budget(None, 4), UNKNOWN_BUDGET_BYTES / 4);
    }

    #[test]
    fn claims_are_served_in_order_and_wait_for_held_ones() {
        let turns: Arc<Turns> = Arc::default();
        let [first, second, third] = [0, 1, 2].map(|number| turns.turn(number));
        thread::scope(|scope| {
            let last = scope.spawn(|| third.claim(1));
            // A picture that turned out to need no memory.
            drop(second);
            thread::sleep(Duration::from_millis(20));
            assert!(!last.is_finished() && turns.lock().next == 0, "the first one has not claimed yet");
            let mut held = first.claim(1 << 20);
            held.shrink(10);
            assert_eq!(held.bytes, 10);
            drop(last.join().expect("served"));
        });
        assert_eq!(turns.lock().next, 3);
        assert!(turns.lock().ahead.is_empty());
    }
}
