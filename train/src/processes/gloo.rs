//! Real processes, on one machine or several. They exchange over Gloo what lies in the memory of the host, and over NCCL, once
//! they have named their GPUs, what lies there.

use super::address::{INTERFACE, listen, towards};
use super::api::{Pending, Processes};
use super::endpoint::{Endpoint, Holder};
use super::ffi::{Failure, GroupFacts, Listen, RawGroup, RawStore, RawWork, prepare};
use super::heartbeat::{Heartbeat, Pulse, publish};
use super::nccl::{Choice, first_exchange};
use super::rendezvous::{Fact, Guest, meet};
use super::store::{ANSWER, Store, StoreError};
use super::verdict::Verdict;
use super::work::{Judge, SLICE, complete};
use crate::TrainError;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// How long after a failed exchange somebody finds out who failed; the thread's own deadline for silence is within it.
const INQUEST: Duration = Duration::from_secs(20);

/// How long the process that holds the store stays after a failure at most, so that the others can read the verdict.
const LINGER: Duration = Duration::from_secs(4);

/// The deadlines of Gloo and NCCL come after ours, which names who is late.
const GRACE: Duration = Duration::from_secs(60);

/// How long a GPU may take to let go of an exchange.
const LETTING_GO: Duration = Duration::from_secs(10);

/// The time that a process waits for the others, from its first step on.
#[derive(Debug, Default)]
struct Waits {
    /// Calls of `begin`.
    calls: Cell<u32>,
    since: Cell<Option<Instant>>,
    waited: Cell<Duration>,
}

impl Waits {
    /// To be called where a run begins or goes on, and after each step.
    fn begin(&self) {
        self.calls.set(self.calls.get().saturating_add(1));
        // The first step also waits for the slowest process to start.
        if self.calls.get() == 2 {
            self.since.set(Some(Instant::now()));
            self.waited.set(Duration::ZERO);
        }
    }

    /// Counts the time that `wait` takes.
    fn during<T>(&self, wait: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let outcome = wait();
        self.waited.set(self.waited.get() + started.elapsed());
        outcome
    }

    fn report(&self) {
        let Some(since) = self.since.get() else { return };
        let (waited, all) = (self.waited.get().as_secs_f64(), since.elapsed().as_secs_f64());
        tracing::info!("waited {waited:.3} s of {all:.3} s for exchanges ({:.1} %)", 100.0 * waited / all.max(1e-9));
    }
}

/// How a process joins a run.
#[derive(Debug, Clone)]
pub struct Join {
    /// This process, counted from 0.
    pub rank: usize,
    /// How many there are.
    pub world_size: usize,
    /// Where they meet.
    pub endpoint: Endpoint,
    /// What must be the same in all of them.
    pub facts: Vec<Fact>,
    /// How long to wait for the others, at the start and in each exchange.
    pub timeout: Duration,
}

/// A process that exchanges with others over Gloo; tensors on a GPU over NCCL where the processes have
/// [chosen](Processes::use_device) their GPUs, else through the memory of the host.
#[derive(Debug)]
pub struct GlooProcesses {
    rank: usize,
    world_size: usize,
    timeout: Duration,
    /// Whether the store is in this process.
    holds_store: bool,
    group: Option<RawGroup>,
    /// For tensors on a GPU.
    nccl: Option<RawGroup>,
    pulse: Arc<Pulse>,
    store: Store,
    finished: Cell<bool>,
    waits: Waits,
    /// Ends last.
    _heartbeat: Heartbeat,
}

impl GlooProcesses {
    /// Meets the other processes and connects to them.
    ///
    /// # Errors
    /// Some do not come in time, or were started differently: they are named.
    pub fn join(join: &Join) -> Result<GlooProcesses, TrainError> {
        prepare();
        let Join { rank, world_size, endpoint, facts, timeout } = join;
        let (rank, world_size, timeout) = (*rank, *world_size, *timeout);
        let Endpoint { host, port, holder } = endpoint;
        let address = towards(host, *port).map_err(|error| TrainError::Processes {
            what: format!("there is no way to {host}, where the processes of this run meet (MASTER_ADDR): {error}"),
        })?;
        let holds_store = rank == 0 && *holder == Holder::Rank0;
        let store = Store::connect(endpoint, holds_store, timeout)
            .map_err(|error| no_store(endpoint, holds_store, timeout, error))?;
        let guest = Guest { rank, world_size, address, facts, timeout };
        let meeting = meet(&store, &guest).inspect_err(|_| {
            if holds_store {
                std::thread::sleep(LINGER);
            }
        })?;
        let pulse = Arc::new(Pulse::new(rank, world_size, *holder, &meeting.epoch));
        let connection = || store.another().map_err(|error| no_store(endpoint, holds_store, timeout, error));
        // The store of an agent outlives a start: who comes late may belong to the next one.
        let doorkeeper = meeting.doorkeeper.filter(|_| holds_store);
        let heartbeat = Heartbeat::start(Arc::clone(&pulse), connection()?, doorkeeper);
        let interface = std::env::var(INTERFACE).ok().filter(|name| !name.trim().is_empty());
        let listen = listen(address, &meeting.addresses, interface);
        let finished = Cell::new(false);
        let (group, nccl) = (None, None);
        let mut joined = GlooProcesses {
            rank,
            world_size,
            timeout,
            holds_store,
            group,
            nccl,
            pulse,
            store,
            finished,
            waits: Waits::default(),
            _heartbeat: heartbeat,
        };
        joined.group = Some(joined.connect(listen)?);
        Ok(joined)
    }

    /// Connects to all others.
    fn connect(&self, listen: Listen) -> Result<RawGroup, TrainError> {
        let raw = self.connection()?;
        let (prefix, member, timeout) = (self.pulse.key("gloo"), (self.rank, self.world_size), self.timeout);
        self.in_thread(move || group_of(&raw, &prefix, member, &listen, timeout + GRACE))?
            .map_err(|text| self.failed(text))
    }

    /// Connects the GPU of this process to those of all others.
    fn connect_gpu(&self, device: Device) -> Result<RawGroup, TrainError> {
        let raw = self.connection()?;
        let (prefix, member, timeout) = (self.pulse.key("nccl"), (self.rank, self.world_size), self.timeout);
        let connected = self.in_thread(move || first_exchange(&raw, &prefix, member, device, timeout + GRACE))?;
        // The others learn that this process is gone, and that its own message says why.
        connected.map_err(|what| TrainError::Processes { what })
    }

    fn connection(&self) -> Result<RawStore, TrainError> {
        self.store.another_raw().map_err(|_| self.failure(Verdict::store_gone(Holder::Rank0, 0)))
    }

    /// What `work` gives, done in a thread: it may wait for a process that is gone.
    fn in_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, TrainError> {
        let (ready, done) = crossbeam::channel::bounded(1);
        std::thread::spawn(move || drop(ready.send(work())));
        let started = Instant::now();
        self.pulse.note_exchange();
        loop {
            if let Ok(outcome) = done.recv_timeout(SLICE) {
                return Ok(outcome);
            }
            let late = || (started.elapsed() >= self.timeout).then(|| self.inquire_late(self.timeout));
            if let Some(verdict) = self.verdict().or_else(late) {
                return Err(self.failure(verdict));
            }
        }
    }

    /// After a failed exchange.
    fn failed(&self, text: String) -> TrainError {
        self.failure(self.inquire(text))
    }

    fn failure(&self, verdict: Verdict) -> TrainError {
        let what = format!("{verdict}; start all processes again to go on from the newest checkpoint");
        TrainError::Processes { what }
    }

    fn group(&self) -> &RawGroup {
        self.group.as_ref().expect("the group is there from the end of `join` to the drop")
    }

    /// The group that exchanges a tensor as it is, and the tensor; or a copy of it on the host.
    fn route(&self, tensor: &Tensor) -> (&RawGroup, Tensor) {
        match (&self.nccl, tensor.device()) {
            (Some(nccl), Device::Cuda(_)) => (nccl, tensor.shallow_clone()),
            _ => (self.group(), tensor.to_device(Device::Cpu)),
        }
    }

    /// Starts an exchange unless somebody has failed.
    fn start(&self, start: impl FnOnce() -> Result<RawWork, Failure>) -> Result<RawWork, TrainError> {
        if let Some(verdict) = self.pulse.verdict() {
            return Err(self.failure(verdict));
        }
        self.pulse.note_exchange();
        start().map_err(|failure| self.failed(failure.0))
    }

    /// Starts an exchange of which a tensor is the outcome.
    fn start_with(
        &self,
        tensor: &Tensor,
        start: impl FnOnce(&RawGroup, &Tensor) -> Result<RawWork, Failure>,
    ) -> Result<Pending<'_>, TrainError> {
        let _no_grad = tch::no_grad_guard();
        let (group, exchanged) = self.route(tensor);
        let work = self.start(|| start(group, &exchanged))?;
        let mut tensor = tensor.shallow_clone();
        Ok(Pending::new(move || {
            self.wait(&work)?;
            if tensor.device() != exchanged.device() {
                tch::no_grad(|| tensor.copy_(&exchanged));
            }
            Ok(())
        }))
    }

    fn wait(&self, work: &RawWork) -> Result<(), TrainError> {
        // Gloo's exchanges end with the process; what runs on a GPU does not.
        let abort = || self.nccl.iter().for_each(|nccl| nccl.abort(LETTING_GO));
        let ended = self.waits.during(|| complete(work, self, &abort, self.timeout));
        ended.map_err(|verdict| self.failure(verdict))
    }

    /// Says that this process needs the store no more; the one that holds it waits for all but `lost` to say so.
    fn leave(&self, limit: Duration, lost: Option<usize>) {
        let left = |rank: usize| self.pulse.key(&format!("left/{rank}"));
        let _ = self.store.set(&left(self.rank), "1");
        let deadline = Instant::now() + limit;
        let mut here: Vec<usize> = (1..self.world_size).filter(|rank| Some(*rank) != lost).collect();
        while self.holds_store && !here.is_empty() && Instant::now() < deadline {
            here.retain(|&rank| matches!(self.store.get(&left(rank)), Ok(None)));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A group that says of itself what it was made with.
fn group_of(
    store: &RawStore,
    prefix: &str,
    (rank, world_size): (usize, usize),
    listen: &Listen,
    timeout: Duration,
) -> Result<RawGroup, String> {
    let group = RawGroup::gloo(store, prefix, (rank, world_size), listen, timeout).map_err(|failure| failure.0)?;
    let found = group.describe().map_err(|failure| failure.0)?;
    let wanted = GroupFacts { name: "gloo".into(), rank, world_size, timeout };
    // Or else the headers that csrc/c10d.cpp was compiled with are not those of the library.
    match found == wanted {
        true => Ok(group),
        false => Err(format!("libtorch's process group is not laid out as its headers say: {found:?}, not {wanted:?}")),
    }
}

fn no_store(endpoint: &Endpoint, serve: bool, timeout: Duration, error: StoreError) -> TrainError {
    let Endpoint { host, port, holder } = endpoint;
    let text = match error {
        StoreError::Silent => "it does not answer".to_owned(),
        StoreError::Failed(text) => text,
    };
    let what = match (serve, holder) {
        (true, _) => format!("rank 0 cannot hold the store of this run at port {port} (MASTER_PORT): {text}"),
        (false, Holder::Rank0) => {
            format!(
                "rank 0 did not open the store of this run at {host}:{port} within {} s: {text}",
                timeout.as_secs_f64()
            )
        }
        (false, Holder::Agent) => format!("torchrun's store at {host}:{port} cannot be reached: {text}"),
    };
    TrainError::Processes { what }
}

impl Judge for GlooProcesses {
    fn verdict(&self) -> Option<Verdict> {
        self.pulse.verdict()
    }

    fn inquire(&self, text: String) -> Verdict {
        self.pulse.suspect();
        self.pulse.verdict_within(INQUEST).unwrap_or_else(|| {
            let verdict = Verdict::Broken { rank: self.rank, step: self.pulse.steps(), text };
            let _ = publish(&self.pulse, &self.store, verdict.clone());
            verdict
        })
    }

    fn inquire_late(&self, time: Duration) -> Verdict {
        self.pulse.late(time.as_secs());
        self.inquire(format!("an exchange did not end within {} s", time.as_secs_f64()))
    }
}

impl Processes for GlooProcesses {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn use_device(&mut self, device: Device) -> Result<(), TrainError> {
        let own = Choice::of(device);
        let codes = self.all_gather(&Tensor::from_slice(&[own.code()]))?;
        let codes: Vec<i64> = Vec::try_from(&codes.view([-1]))?;
        Choice::check(&codes)?;
        if own == Choice::Nccl && self.world_size > 1 {
            self.nccl = Some(self.connect_gpu(device)?);
        }
        Ok(())
    }

    fn start_sum(&self, tensor: &Tensor) -> Result<Pending<'_>, TrainError> {
        self.start_with(tensor, RawGroup::sum)
    }

    fn sums_for_one(&self, device: Device) -> bool {
        self.nccl.is_some() && device != Device::Cpu
    }

    fn start_sum_for(&self, tensor: &Tensor, rank: usize) -> Result<Pending<'_>, TrainError> {
        self.start_with(tensor, |group, tensor| group.sum_for(tensor, rank))
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, TrainError> {
        let _no_grad = tch::no_grad_guard();
        let (group, own) = self.route(&tensor.contiguous());
        let shape = [&[self.world_size as i64], &own.size()[..]].concat();
        let gathered = Tensor::empty(shape, (own.kind(), own.device()));
        self.wait(&self.start(|| group.all_gather(&gathered, &own))?)?;
        Ok(gathered.to_device(tensor.device()))
    }

    fn broadcast_from(&self, tensor: &Tensor, rank: usize) -> Result<(), TrainError> {
        self.start_with(tensor, |group, tensor| group.broadcast(tensor, rank))?.wait()
    }

    fn note_steps(&self, steps: u64) {
        self.pulse.note_steps(steps);
        self.waits.begin();
    }

    fn finish(&self) -> Result<(), TrainError> {
        self.waits.report();
        self.barrier()?;
        self.finished.set(true);
        self.nccl.iter().for_each(|nccl| nccl.shutdown(LETTING_GO));
        self.leave(ANSWER, None);
        Ok(())
    }
}

impl Drop for GlooProcesses {
    fn drop(&mut self) {
        if self.finished.get() {
            return;
        }
        if self.pulse.verdict().is_none() {
            let verdict = Verdict::Gone { rank: self.rank, step: self.pulse.steps() };
            let _ = publish(&self.pulse, &self.store, verdict);
        }
        match self.pulse.verdict() {
            Some(Verdict::StoreGone { .. } | Verdict::StoreSilent { .. }) => {}
            verdict => self.leave(LINGER, verdict.as_ref().and_then(Verdict::lost)),
        }
        // Their destructors would wait for exchanges that never end; the process is about to.
        std::mem::forget((self.group.take(), self.nccl.take()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn join(rank: usize, world_size: usize, port: u16, facts: &[Fact]) -> Join {
        let endpoint = Endpoint { host: "127.0.0.1".into(), port, holder: Holder::Rank0 };
        Join { rank, world_size, endpoint, facts: facts.to_vec(), timeout: Duration::from_secs(120) }
    }

    /// What `work` gives in each of `world_size` threads.
    fn run<T: Send>(world_size: usize, work: impl Fn(GlooProcesses) -> T + Sync) -> Vec<T> {
        let port = free_port();
        std::thread::scope(|scope| {
            let start = |rank| {
                let (work, join) = (&work, join(rank, world_size, port, &[]));
                scope.spawn(move || work(GlooProcesses::join(&join).unwrap()))
            };
            let threads: Vec<_> = (0..world_size).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_gathers_and_broadcasts() {
        let results = run(3, |processes| {
            let rank = processes.rank() as f32;
            let first = Tensor::from_slice(&[rank, 10.0 * rank, 1.0]);
            let second = Tensor::from_slice(&[0.5f32; 1000]).to_kind(Kind::BFloat16);
            // Both are under way at the same time.
            let pending = [processes.start_sum(&first).unwrap(), processes.start_sum(&second).unwrap()];
            pending.into_iter().for_each(|pending| pending.wait().unwrap());
            let gathered = processes.all_gather(&Tensor::from_slice(&[rank, -rank])).unwrap();
            let root = Tensor::from_slice(&[7 - processes.rank() as i64]);
            processes.broadcast(&root).unwrap();
            let bytes = processes.broadcast_bytes(if rank == 0.0 { b"of rank 0" } else { b"" }).unwrap();
            let any = [processes.any(rank == 1.0).unwrap(), processes.any(false).unwrap()];
            processes.finish().unwrap();
            let floats = |tensor: &Tensor| Vec::<f32>::try_from(&tensor.to_kind(Kind::Float).view([-1])).unwrap();
            assert_eq!(floats(&second), [1.5; 1000]);
            assert_eq!(bytes, b"of rank 0");
            (floats(&first), floats(&gathered), root.int64_value(&[0]), any)
        });
        let wanted = (vec![3.0, 30.0, 3.0], vec![0.0, 0.0, 1.0, -1.0, 2.0, -2.0], 7, [true, false]);
        assert!(results.iter().all(|result| *result == wanted), "{results:?}");
    }

    #[test]
    fn a_process_that_is_alive_and_does_not_come_is_named_as_behind() {
        let port = free_port();
        let (failed, has_failed) = std::sync::mpsc::channel();
        let join = |rank| Join { timeout: Duration::from_secs(10), ..join(rank, 2, port, &[]) };
        let [waits, hangs] = [0, 1].map(join);
        let hanging = std::thread::spawn(move || {
            let processes = GlooProcesses::join(&hangs).unwrap();
            // Busy with something else until the other has given up.
            has_failed.recv().unwrap();
            // What the other has sent for the exchange that it gave up is still there.
            let fails = || processes.barrier().err();
            std::iter::repeat_with(fails).take(3).flatten().next().unwrap().to_string()
        });
        let processes = GlooProcesses::join(&waits).unwrap();
        processes.note_steps(4);
        let message = processes.barrier().unwrap_err().to_string();
        failed.send(()).unwrap();
        // The first exchange was to connect.
        let wanted = "alive but behind after 10 s in step 5: rank 1 (exchange 1 of 2)";
        assert!(message.starts_with(wanted), "{message}");
        let message = hanging.join().unwrap();
        assert!(message.starts_with(wanted), "{message}");
    }

    #[test]
    fn a_process_that_ends_without_finish_is_named() {
        let results = run(2, |processes| {
            processes.barrier().unwrap();
            processes.note_steps(5);
            match processes.rank() {
                1 => None,
                _ => Some(processes.barrier().unwrap_err().to_string()),
            }
        });
        let message = results[0].as_ref().unwrap();
        assert!(message.starts_with("rank 1 is gone (after step 5)"), "{message}");
    }

    #[test]
    fn processes_that_were_started_differently_are_refused_by_name() {
        let port = free_port();
        let configurations = ["[train]\nlr = 1.0\n", "[train]\nlr = 1.0\n", "[train]\nlr = 2.0\n"];
        let messages: Vec<String> = std::thread::scope(|scope| {
            let start = |rank: usize| {
                let facts = [Fact::new("the cache", "abc"), Fact::toml("the configuration", configurations[rank])];
                let join = join(rank, 3, port, &facts);
                scope.spawn(move || GlooProcesses::join(&join).unwrap_err().to_string())
            };
            let threads: Vec<_> = (0..3).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let wanted = "rank 2 was started differently: train.lr is 2.0 there and 1.0 on rank 0";
        assert_eq!(messages, [wanted; 3]);
    }

    const OTHER_SIZE: &str = "rank 3 was started differently: the world size is 4 there and 2 on rank 0";

    #[test]
    fn a_rank_beyond_the_world_size_of_rank_0_is_refused_on_both_sides() {
        let port = free_port();
        let messages = [(0, 2), (3, 4)].map(|(rank, world_size)| {
            let join = join(rank, world_size, port, &[]);
            std::thread::spawn(move || GlooProcesses::join(&join).unwrap_err().to_string())
        });
        assert_eq!(messages.map(|thread| thread.join().unwrap()), [OTHER_SIZE; 2]);
    }

    #[test]
    fn who_comes_when_a_run_has_begun_is_told_why_it_cannot_take_part() {
        let port = free_port();
        let refused = |rank: usize, world_size: usize| {
            GlooProcesses::join(&join(rank, world_size, port, &[])).unwrap_err().to_string()
        };
        let members = [0, 1].map(|rank| {
            let join = join(rank, 2, port, &[]);
            std::thread::spawn(move || GlooProcesses::join(&join).unwrap())
        });
        let members = members.map(|thread| thread.join().unwrap());
        assert_eq!(refused(3, 4), OTHER_SIZE);
        assert_eq!(refused(1, 2), "this run has begun, and has a rank 1 already");
        let ends = members.map(|member| std::thread::spawn(move || member.finish().unwrap()));
        ends.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_sum_for_one_process_is_there_whole() {
        let results = run(3, |processes| {
            let own = Tensor::from_slice(&[1.0 + processes.rank() as f32, 10.0]);
            processes.start_sum_for(&own, 1).unwrap().wait().unwrap();
            processes.finish().unwrap();
            Vec::<f32>::try_from(&own).unwrap()
        });
        assert_eq!(results[1], [6.0, 30.0]);
    }

    #[test]
    fn a_rank_that_does_not_come_is_named() {
        let port = free_port();
        let messages: Vec<String> = std::thread::scope(|scope| {
            let start = |rank: usize| {
                let join = Join { timeout: Duration::from_secs(3), ..join(rank, 4, port, &[]) };
                scope.spawn(move || GlooProcesses::join(&join).unwrap_err().to_string())
            };
            let threads: Vec<_> = [0, 1, 3].into_iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(messages, ["ranks [2] of 4 did not come within 3 s"; 3]);
    }

    #[test]
    fn a_store_that_outlives_a_start_does_not_confuse_the_next() {
        let port = free_port();
        let agent = Endpoint { host: "127.0.0.1".into(), port, holder: Holder::Agent };
        let _store = Store::connect(&agent, true, Duration::from_secs(60)).unwrap();
        for start in 0..3 {
            let sums: Vec<f64> = std::thread::scope(|scope| {
                let begin = |rank: usize| {
                    let join = Join { endpoint: agent.clone(), ..join(rank, 2, port, &[]) };
                    scope.spawn(move || {
                        let processes = GlooProcesses::join(&join).unwrap();
                        let value = Tensor::from_slice(&[start as f32 + rank as f32]);
                        processes.sum(&value).unwrap();
                        match start {
                            // As if it were killed.
                            0 => std::mem::forget(processes),
                            _ => processes.finish().unwrap(),
                        }
                        value.double_value(&[0])
                    })
                };
                let threads: Vec<_> = [0, 1].map(begin).into_iter().collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(sums, [2.0 * f64::from(start) + 1.0; 2]);
        }
    }
}
