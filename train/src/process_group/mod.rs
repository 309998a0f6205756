//! The processes of a run: how they find each other, exchange tensors, and learn which of them failed.
//!
//! | module | what it is for |
//! |---|---|
//! | `api` | [`ProcessGroup`], the interface for trainers; runs of one process; threads that act as processes, for tests |
//! | `gloo` | [`GlooProcessGroup`]: real processes, on one machine or several, over libtorch's c10d |
//! | `nccl` | exchanges between GPUs |
//! | `waits` | time spent waiting for exchanges |
//! | `work` | waiting for an exchange: to its end, a verdict, or a deadline |
//! | `endpoint` | where the store of a run is: `torchrun`, plain variables, SLURM |
//! | `rendezvous` | start of a run: all processes arrive, and were started alike |
//! | `doorkeeper` | refuses processes that arrive later |
//! | `heartbeat` | signs of life, and the verdict on who failed |
//! | `store` | the key-value store that both use, with deadlines |
//! | `address` | which address of this machine the others reach |
//! | `ffi` | handles over `csrc/c10d.cpp` |
//!
//! The transport is the one that users of `torchrun` know: TCPStore and ProcessGroupGloo, both inside libtorch_cpu, and
//! ProcessGroupNCCL, inside libtorch_cuda, for tensors on GPUs. c10d
//! reports a lost process by its address, and after a cascade of failures the wrong one. So a thread of each process publishes
//! a heartbeat; rank 0 watches all others, the others watch rank 0, and the process that finds a failure writes one verdict
//! that all of them report.

mod address;
mod api;
mod doorkeeper;
mod endpoint;
mod ffi;
mod gloo;
mod heartbeat;
mod nccl;
mod rendezvous;
mod store;
mod verdict;
mod waits;
mod work;

pub use api::{OneProcess, Pending, ProcessGroup, ThreadProcessGroup};
pub use endpoint::{Endpoint, Holder};
pub use gloo::{GlooProcessGroup, Join};
pub use rendezvous::Fact;
