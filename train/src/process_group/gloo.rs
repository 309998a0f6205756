//! Real processes, on one machine or several. Tensors in host memory are exchanged over Gloo; tensors on GPUs over NCCL, once
//! the processes have named their GPUs.

use super::address::{INTERFACE, listen, towards};
use super::api::{Pending, ProcessGroup};
use super::endpoint::{Endpoint, Holder};
use super::ffi::{Failure, GroupFacts, Listen, RawGroup, RawStore, RawWork, prepare};
use super::heartbeat::{Heartbeat, Pulse, publish};
use super::nccl::{Choice, first_exchange};
use super::rendezvous::{Fact, Guest, meet};
use super::store::{ANSWER, Store, StoreError};
use super::verdict::Verdict;
use super::waits::Waits;
use super::work::{Judge, SLICE, complete};
use crate::TrainError;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// How long a process waits for the verdict after a failed exchange; longer than any deadline of the heartbeat.
const INQUEST: Duration = Duration::from_secs(20);

/// How long the process that holds the store stays after a failure at most, so that the others can read the verdict.
const LINGER: Duration = Duration::from_secs(4);

/// The deadlines of Gloo and NCCL are later than ours, which reports the rank that is late.
const GRACE: Duration = Duration::from_secs(60);

/// How long a GPU may take to abort an exchange.
const LETTING_GO: Duration = Duration::from_secs(10);

/// How a process joins a run.
#[derive(Debug, Clone)]
pub struct Join {
    /// This process, counted from 0.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Where they meet.
    pub endpoint: Endpoint,
    /// What must be the same in all of them.
    pub facts: Vec<Fact>,
    /// How long to wait for the others, at the start and in each exchange.
    pub timeout: Duration,
}

/// A process that exchanges with others over Gloo; tensors on a GPU over NCCL where the processes have
/// [chosen](ProcessGroup::use_device) their GPUs, else through the memory of the host.
#[derive(Debug)]
pub struct GlooProcessGroup {
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

impl GlooProcessGroup {
    /// Meets the other processes and connects to them.
    ///
    /// # Errors
    /// Some do not arrive in time, or were started differently: they are named.
    pub fn join(join: &Join) -> Result<GlooProcessGroup, TrainError> {
        prepare();
        let Join { rank, world_size, endpoint, facts, timeout } = join;
        let (rank, world_size, timeout) = (*rank, *world_size, *timeout);
        let Endpoint { host, port, holder } = endpoint;
        let address = towards(host, *port).map_err(|error| TrainError::ProcessGroup {
            what: format!("no route to {host}, the address of this run's store (MASTER_ADDR): {error}"),
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
        // The store of an agent outlives a start: a late arrival may belong to the next one.
        let doorkeeper = meeting.doorkeeper.filter(|_| holds_store);
        let heartbeat = Heartbeat::start(Arc::clone(&pulse), connection()?, doorkeeper);
        let interface = std::env::var(INTERFACE).ok().filter(|name| !name.trim().is_empty());
        let listen = listen(address, &meeting.addresses, interface);
        let finished = Cell::new(false);
        let (group, nccl) = (None, None);
        let mut joined = GlooProcessGroup {
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
        connected.map_err(|what| TrainError::ProcessGroup { what })
    }

    fn connection(&self) -> Result<RawStore, TrainError> {
        self.store.another_raw().map_err(|_| self.failure(Verdict::store_gone(Holder::Rank0, 0)))
    }

    /// Runs `work` in a thread, because it may wait for a process that is gone.
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
        let what = format!("{verdict}; start all processes again to continue from the newest checkpoint");
        TrainError::ProcessGroup { what }
    }

    fn group(&self) -> &RawGroup {
        self.group.as_ref().expect("the group is there from the end of `join` to the drop")
    }

    /// The group for a tensor, with the tensor to exchange: itself, or a copy on the host.
    fn route(&self, tensor: &Tensor) -> (&RawGroup, Tensor) {
        match (&self.nccl, tensor.device()) {
            (Some(nccl), Device::Cuda(_)) => (nccl, tensor.shallow_clone()),
            _ => (self.group(), tensor.to_device(Device::Cpu)),
        }
    }

    /// Starts an exchange unless a process has failed.
    fn start(&self, start: impl FnOnce() -> Result<RawWork, Failure>) -> Result<RawWork, TrainError> {
        if let Some(verdict) = self.pulse.verdict() {
            return Err(self.failure(verdict));
        }
        self.pulse.note_exchange();
        start().map_err(|failure| self.failed(failure.0))
    }

    /// Starts an exchange whose result replaces `tensor`.
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

    /// Declares that this process no longer needs the store; the one that holds it waits for all but `lost` to do so.
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

/// Connects a group, and checks that it reports what it was made with.
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
    // If not, the headers that csrc/c10d.cpp was compiled with are not those of the library.
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
    TrainError::ProcessGroup { what }
}

impl Judge for GlooProcessGroup {
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

impl ProcessGroup for GlooProcessGroup {
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

impl Drop for GlooProcessGroup {
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
        // Their destructors would wait for exchanges that never end; the process is about to exit.
        std::mem::forget((self.group.take(), self.nccl.take()));
    }
}

#[cfg(test)]
#[path = "gloo_tests.rs"]
mod tests;
