//! Safe handles over `csrc/c10d.cpp`: a store, a group, a pending exchange.

use super::work::Work;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{NonNull, null_mut};
use std::sync::{Arc, Once};
use std::time::Duration;
use tch::Tensor;

/// A failure that c10d reports: the first line of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure(pub String);

/// `at::Tensor`, as [`Tensor::as_ptr`] points to it.
type RawTensor = std::ffi::c_void;

#[repr(C)]
struct StoreRef {
    _private: [u8; 0],
}

#[repr(C)]
struct GroupRef {
    _private: [u8; 0],
}

#[repr(C)]
struct WorkRef {
    _private: [u8; 0],
}

#[rustfmt::skip] // one line per function, in the order of the C++ file
unsafe extern "C" {
    fn c10d_free_text(text: *mut c_char);
    fn c10d_prepare();
    fn c10d_store_connect(host: *const c_char, port: u16, serve: bool, timeout_ms: i64, out: *mut *mut StoreRef, bound: *mut u16) -> *mut c_char;
    fn c10d_store_clone(store: *const StoreRef, out: *mut *mut StoreRef) -> *mut c_char;
    fn c10d_store_free(store: *mut StoreRef);
    fn c10d_store_set(store: *const StoreRef, key: *const c_char, data: *const u8, length: usize) -> *mut c_char;
    fn c10d_store_add(store: *const StoreRef, key: *const c_char, more: i64, sum: *mut i64) -> *mut c_char;
    fn c10d_store_get(store: *const StoreRef, key: *const c_char, out: *mut *mut c_char, length: *mut usize) -> *mut c_char;
    fn c10d_gloo_new(store: *const StoreRef, prefix: *const c_char, rank: c_int, size: c_int, address: *const c_char, is_interface: bool, timeout_ms: i64, out: *mut *mut GroupRef) -> *mut c_char;
    #[cfg(test)]
    fn c10d_nccl_names() -> *const c_char;
    fn c10d_nccl_new(store: *const StoreRef, prefix: *const c_char, rank: c_int, size: c_int, timeout_ms: i64, out: *mut *mut GroupRef) -> *mut c_char;
    fn c10d_group_describe(group: *const GroupRef, rank: *mut c_int, size: *mut c_int, timeout_ms: *mut i64, name: *mut *mut c_char) -> *mut c_char;
    fn c10d_group_abort(group: *const GroupRef) -> *mut c_char;
    fn c10d_group_shutdown(group: *const GroupRef) -> *mut c_char;
    fn c10d_group_free(group: *mut GroupRef);
    fn c10d_sum(group: *const GroupRef, tensor: *const RawTensor, out: *mut *mut WorkRef) -> *mut c_char;
    fn c10d_sum_for(group: *const GroupRef, tensor: *const RawTensor, root: c_int, out: *mut *mut WorkRef) -> *mut c_char;
    fn c10d_broadcast(group: *const GroupRef, tensor: *const RawTensor, root: c_int, out: *mut *mut WorkRef) -> *mut c_char;
    fn c10d_all_gather(group: *const GroupRef, gathered: *const RawTensor, tensor: *const RawTensor, out: *mut *mut WorkRef) -> *mut c_char;
    fn c10d_all_gather_flat(group: *const GroupRef, gathered: *const RawTensor, tensor: *const RawTensor, out: *mut *mut WorkRef) -> *mut c_char;
    fn c10d_work_watch(work: *const WorkRef, timeout_ms: i64, done: *mut bool) -> *mut c_char;
    fn c10d_work_wait(work: *const WorkRef, timeout_ms: i64, done: *mut bool) -> *mut c_char;
    fn c10d_work_free(work: *mut WorkRef);
}

/// Takes ownership of a text of the C++ side.
fn take_text(text: *mut c_char) -> String {
    // SAFETY: such a text ends with a zero, and is ours to free.
    let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: as above; nothing refers to it any more.
    unsafe { c10d_free_text(text) };
    owned
}

/// The result of a call that returns null or the text of a failure.
fn outcome(text: *mut c_char) -> Result<(), Failure> {
    match text.is_null() {
        true => Ok(()),
        false => Err(Failure(take_text(text).lines().next().unwrap_or_default().to_owned())),
    }
}

fn c_text(text: &str) -> CString {
    // Keys and host names; values from the environment or a file cannot contain a zero.
    CString::new(text.replace('\0', "")).expect("zeros are removed")
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The object that a successful call has made.
fn made<T>(pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer).expect("a call that succeeds makes an object")
}

/// To be called before anything else here: c10d then leaves reporting, and ending the process, to its callers.
pub(super) fn prepare() {
    // Once: an environment variable must not be set while the threads of an earlier call read others.
    static PREPARED: Once = Once::new();
    // SAFETY: it sets a log level and an environment variable, and has no arguments.
    PREPARED.call_once(|| unsafe { c10d_prepare() });
}

/// The names under which functions of libtorch's CUDA library are looked up.
#[cfg(test)]
pub(crate) fn nccl_names() -> impl Iterator<Item = &'static str> {
    // SAFETY: a constant text that ends with a zero.
    let names = unsafe { CStr::from_ptr(c10d_nccl_names()) };
    names.to_str().expect("names of C++ are ASCII").lines()
}

/// A connection to a TCP store. Calls may block for as long as the server does not answer: see `Store`.
#[derive(Debug)]
pub(crate) struct RawStore(NonNull<StoreRef>);

// SAFETY: a TCPStore may be used from any thread.
unsafe impl Send for RawStore {}

impl RawStore {
    /// Connects, trying for up to `timeout`; with `serve`, the store lives in this process. The port, which port 0 chooses.
    pub(super) fn connect(host: &str, port: u16, serve: bool, timeout: Duration) -> Result<(RawStore, u16), Failure> {
        let (mut store, mut bound) = (null_mut(), 0);
        let host = c_text(host);
        // SAFETY: the pointers live through the call.
        let text =
            unsafe { c10d_store_connect(host.as_ptr(), port, serve, milliseconds(timeout), &mut store, &mut bound) };
        outcome(text).map(|()| (RawStore(made(store)), bound))
    }

    /// Another connection to the same store.
    pub(super) fn another(&self) -> Result<RawStore, Failure> {
        let mut store = null_mut();
        // SAFETY: this store lives as long as `self`.
        outcome(unsafe { c10d_store_clone(self.0.as_ptr(), &mut store) }).map(|()| RawStore(made(store)))
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        // SAFETY: key and value live through the call.
        outcome(unsafe { c10d_store_set(self.0.as_ptr(), c_text(key).as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Adds to the number under a key, which begins at 0; the sum.
    pub(super) fn add(&self, key: &str, more: i64) -> Result<i64, Failure> {
        let mut sum = 0;
        // SAFETY: key and sum live through the call.
        outcome(unsafe { c10d_store_add(self.0.as_ptr(), c_text(key).as_ptr(), more, &mut sum) }).map(|()| sum)
    }

    /// The value of a key, if it has one by now.
    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let (mut value, mut length) = (null_mut(), 0);
        // SAFETY: the pointers live through the call.
        outcome(unsafe { c10d_store_get(self.0.as_ptr(), c_text(key).as_ptr(), &mut value, &mut length) })?;
        if value.is_null() {
            return Ok(None);
        }
        // SAFETY: the C++ side has allocated at least `length` bytes and filled them.
        let bytes = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), length) }.to_vec();
        // SAFETY: ours to free, and copied.
        unsafe { c10d_free_text(value) };
        Ok(Some(bytes))
    }
}

impl Drop for RawStore {
    fn drop(&mut self) {
        // SAFETY: made by this library and not freed yet.
        unsafe { c10d_store_free(self.0.as_ptr()) };
    }
}

/// The transport of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Gloo,
    Nccl,
}

/// A group of processes that exchange tensors.
#[derive(Debug)]
pub(crate) struct RawGroup {
    handle: Arc<GroupHandle>,
    transport: Transport,
}

#[derive(Debug)]
struct GroupHandle(NonNull<GroupRef>);

// SAFETY: c10d's groups are not bound to the thread that made them.
unsafe impl Send for GroupHandle {}
// SAFETY: one thread starts exchanges; what another may do at the same time is to abort, which c10d's own threads do as well.
unsafe impl Sync for GroupHandle {}

impl GroupHandle {
    fn as_ptr(&self) -> *mut GroupRef {
        self.0.as_ptr()
    }
}

impl Drop for GroupHandle {
    fn drop(&mut self) {
        // SAFETY: made by this library and not freed yet.
        unsafe { c10d_group_free(self.0.as_ptr()) };
    }
}

/// A group's own description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupFacts {
    pub name: String,
    pub rank: usize,
    pub world_size: usize,
    pub timeout: Duration,
}

/// Where Gloo listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// At an address or host name of this machine.
    Address(String),
    /// At a network interface.
    Interface(String),
}

impl RawGroup {
    /// Connects to all other processes of a group over Gloo; keys of the store begin with `prefix`. Blocks until they are there.
    pub(crate) fn gloo(
        store: &RawStore,
        prefix: &str,
        (rank, world_size): (usize, usize),
        listen: &Listen,
        timeout: Duration,
    ) -> Result<RawGroup, Failure> {
        let (address, is_interface) = match listen {
            Listen::Address(address) => (c_text(address), false),
            Listen::Interface(name) => (c_text(name), true),
        };
        let (prefix, mut group) = (c_text(prefix), null_mut());
        // SAFETY: the pointers live through the call; the group holds a reference to the store.
        let text = unsafe {
            c10d_gloo_new(
                store.0.as_ptr(),
                prefix.as_ptr(),
                rank as c_int,
                world_size as c_int,
                address.as_ptr(),
                is_interface,
                milliseconds(timeout),
                &mut group,
            )
        };
        outcome(text).map(|()| RawGroup::of(group, Transport::Gloo))
    }

    /// A group over NCCL, for tensors on GPUs; libtorch's CUDA library has to be loaded. It connects in its first exchange.
    pub(crate) fn nccl(
        store: &RawStore,
        prefix: &str,
        (rank, world_size): (usize, usize),
        timeout: Duration,
    ) -> Result<RawGroup, Failure> {
        let (prefix, mut group) = (c_text(prefix), null_mut());
        let (rank, size) = (rank as c_int, world_size as c_int);
        // SAFETY: the pointers live through the call; the group holds a reference to the store.
        let text =
            unsafe { c10d_nccl_new(store.0.as_ptr(), prefix.as_ptr(), rank, size, milliseconds(timeout), &mut group) };
        outcome(text).map(|()| RawGroup::of(group, Transport::Nccl))
    }

    fn of(group: *mut GroupRef, transport: Transport) -> RawGroup {
        RawGroup { handle: Arc::new(GroupHandle(made(group))), transport }
    }

    fn work(&self, work: *mut WorkRef) -> RawWork {
        RawWork { work: made(work), transport: self.transport }
    }

    /// Ends all exchanges of the group in this process, after which it cannot be used; waits for at most `limit`.
    pub(crate) fn abort(&self, limit: Duration) {
        // SAFETY: the thread's own reference keeps the group alive.
        self.within(limit, |group| unsafe { c10d_group_abort(group) });
    }

    /// Leaves a group without pending exchanges; waits for at most `limit`.
    pub(crate) fn shutdown(&self, limit: Duration) {
        // SAFETY: as in `abort`.
        self.within(limit, |group| unsafe { c10d_group_shutdown(group) });
    }

    /// Runs `end` in a thread, because it waits for a GPU, which may never answer.
    fn within(&self, limit: Duration, end: impl FnOnce(*const GroupRef) -> *mut c_char + Send + 'static) {
        let handle = Arc::clone(&self.handle);
        let (done, waited) = crossbeam::channel::bounded(1);
        std::thread::spawn(move || {
            let ended = outcome(end(handle.as_ptr()));
            if let Err(Failure(text)) = ended {
                tracing::debug!("a process group did not shut down: {text}");
            }
            let _ = done.send(());
        });
        let _ = waited.recv_timeout(limit);
    }

    pub(super) fn describe(&self) -> Result<GroupFacts, Failure> {
        let (mut rank, mut size, mut timeout_ms, mut name) = (0, 0, 0, null_mut());
        // SAFETY: the pointers live through the call.
        outcome(unsafe {
            c10d_group_describe(self.handle.as_ptr(), &mut rank, &mut size, &mut timeout_ms, &mut name)
        })?;
        Ok(GroupFacts {
            name: take_text(name),
            rank: rank as usize,
            world_size: size as usize,
            timeout: Duration::from_millis(timeout_ms as u64),
        })
    }

    /// Starts to replace a tensor by its sum over all processes.
    pub(super) fn sum(&self, tensor: &Tensor) -> Result<RawWork, Failure> {
        let mut work = null_mut();
        // SAFETY: group and tensor live through the call; the work holds a reference to the tensor's memory.
        outcome(unsafe { c10d_sum(self.handle.as_ptr(), tensor.as_ptr().cast(), &mut work) })?;
        Ok(self.work(work))
    }

    /// Starts to replace a tensor, in the process `root` only, by its sum over all processes.
    pub(crate) fn sum_for(&self, tensor: &Tensor, root: usize) -> Result<RawWork, Failure> {
        let mut work = null_mut();
        // SAFETY: as in `sum`.
        outcome(unsafe { c10d_sum_for(self.handle.as_ptr(), tensor.as_ptr().cast(), root as c_int, &mut work) })?;
        Ok(self.work(work))
    }

    /// Starts to replace a tensor by that of the process `root`.
    pub(crate) fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<RawWork, Failure> {
        let mut work = null_mut();
        // SAFETY: as in `sum`.
        outcome(unsafe { c10d_broadcast(self.handle.as_ptr(), tensor.as_ptr().cast(), root as c_int, &mut work) })?;
        Ok(self.work(work))
    }

    /// Starts to fill `gathered [W, ..]` with the tensors of all processes.
    pub(crate) fn all_gather(&self, gathered: &Tensor, tensor: &Tensor) -> Result<RawWork, Failure> {
        let mut work = null_mut();
        let start = match self.transport {
            Transport::Gloo => c10d_all_gather,
            Transport::Nccl => c10d_all_gather_flat,
        };
        let (gathered, tensor) = (gathered.as_ptr().cast(), tensor.as_ptr().cast());
        // SAFETY: as in `sum`.
        outcome(unsafe { start(self.handle.as_ptr(), gathered, tensor, &mut work) })?;
        Ok(self.work(work))
    }
}

/// An exchange that was started.
#[derive(Debug)]
pub(crate) struct RawWork {
    work: NonNull<WorkRef>,
    transport: Transport,
}

// SAFETY: c10d's works may be waited for by any thread.
unsafe impl Send for RawWork {}

impl Work for RawWork {
    fn wait(&self, time: Duration) -> Result<bool, Failure> {
        let mut done = false;
        let wait = match self.transport {
            Transport::Gloo => c10d_work_wait,
            Transport::Nccl => c10d_work_watch,
        };
        // SAFETY: the work lives as long as `self`.
        outcome(unsafe { wait(self.work.as_ptr(), milliseconds(time), &mut done) }).map(|()| done)
    }
}

impl Drop for RawWork {
    fn drop(&mut self) {
        // SAFETY: made by this library and not freed yet.
        unsafe { c10d_work_free(self.work.as_ptr()) };
    }
}
