//! The processes of a run: how they find each other, exchange tensors, and learn which of them failed.
//!
//! | module | what it is for |
//! |---|---|
//! | `api` | [`ProcessGroup`], what a trainer knows of the others; runs of one process; threads that stand for processes |
//! | `gloo` | [`GlooProcessGroup`]: real processes, on one machine or several, over libtorch's c10d |
//! | `nccl` | exchanges between GPUs, where there are some |
//! | `waits` | what exchanges cost |
//! | `work` | waiting for an exchange: to its end, a verdict, or a deadline |
//! | `endpoint` | where the store of a run is: `torchrun`, plain variables, SLURM |
//! | `rendezvous` | who comes, whether they were started alike, and a name for this meeting |
//! | `doorkeeper` | what is said to those who come when a run has begun |
//! | `heartbeat` | signs of life, and the verdict on who failed |
//! | `store` | the key-value store that both use, with deadlines |
//! | `address` | which address of this machine the others reach |
//! | `ffi` | handles over `csrc/c10d.cpp` |
//!
//! The transport is the one that users of `torchrun` know: TCPStore and ProcessGroupGloo, both inside libtorch_cpu, and
//! ProcessGroupNCCL, inside libtorch_cuda, for tensors on GPUs. c10d
//! reports a lost process as an address, and after a cascade of failures the wrong one. So a thread of each process publishes
//! signs of life; rank 0 watches all others, the others watch rank 0, and whoever finds a failure writes one
//! verdict that all of them report.

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
