//! Work that a GPU can be given as one: hundreds of kernels by one call, instead of one by one.
//!
//! A [`Region`] is work whose every run does the same operations, on tensors of the same shapes in the same memory, and in which
//! the host waits for nothing. What differs from run to run lies in tensors that are written before: a graph repeats the addresses
//! and the numbers that it was captured with. A region owns its tensors and is borrowed while it runs, so nothing else can get in.
//!
//! [`Captured`] runs a region. Where graphs are wanted, the first runs are watched: memory is taken, kernels are chosen, and reads
//! on the host are counted. Then the region is captured, and from there on repeated. Whatever stands against it, the region runs
//! operation by operation, as it does everywhere else, and the reason is a warning.
//!
//! On tensors of the CPU there are no graphs: a region that would be captured is watched in the same way, and then run.

use crate::cuda::Loaded;
use crate::foreign::{Text, outcome};
use crate::guard::guarded;
use crate::host_reads::{self, HostReads};
use crate::{ModelError, Runtime, cuda};
use std::fmt::{Debug, Display};
use std::ptr::{NonNull, null_mut};
use tch::Device;

/// Runs before a region is captured.
pub const WARM_UPS: u32 = 3;

/// See the module's documentation.
pub trait Region {
    /// What a run may fail with.
    type Error: From<ModelError> + Display;

    /// For messages.
    const NAME: &'static str;

    /// Does the work.
    ///
    /// # Errors
    /// The tensor library fails.
    fn run(&self) -> Result<(), Self::Error>;
}

/// A region, and how it is run.
#[derive(Debug)]
pub struct Captured<R> {
    region: R,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Operation by operation.
    Eager,
    /// Watched; so many times until now.
    Warming(Recorder, u32),
    /// Captured.
    Ready(Recorder),
}

/// What repeats a region.
#[derive(Debug)]
enum Recorder {
    Cuda(Graph),
    /// Runs it again.
    Emulated,
}

impl<R: Region> Captured<R> {
    /// Runs `region` as the runtime's route says.
    pub fn new(region: R, runtime: &Runtime) -> Captured<R> {
        let state = match (runtime.route.graphs, runtime.device) {
            (false, _) => State::Eager,
            (true, Device::Cuda(index)) => {
                match cuda::loaded().map_err(failed).and_then(|cuda| Graph::new(cuda, index)) {
                    Ok(graph) => State::Warming(Recorder::Cuda(graph), 0),
                    Err(error) => refused::<R>(&error.to_string()),
                }
            }
            (true, _) => State::Warming(Recorder::Emulated, 0),
        };
        Captured { region, state }
    }

    /// The region: its tensors are written and read between runs.
    pub fn region(&self) -> &R {
        &self.region
    }

    /// Whether runs repeat a capture.
    pub fn is_captured(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// Runs the region once.
    ///
    /// # Errors
    /// The region's; what was captured cannot be repeated.
    pub fn run(&mut self) -> Result<(), R::Error> {
        let region = &self.region;
        match std::mem::replace(&mut self.state, State::Eager) {
            State::Eager => region.run(),
            State::Warming(recorder, WARM_UPS) => match recorder.capture(region) {
                Ok(()) => {
                    recorder.replay(region)?;
                    self.state = State::Ready(recorder);
                    Ok(())
                }
                Err(reason) => {
                    self.state = refused::<R>(&reason);
                    region.run()
                }
            },
            State::Warming(recorder, runs) => {
                let (outcome, reads) = recorder.watch(region)?;
                outcome?;
                self.state = match reads.first {
                    Some(operator) => refused::<R>(&format!("{operator} waits for the device")),
                    None => State::Warming(recorder, runs + 1),
                };
                Ok(())
            }
            State::Ready(recorder) => {
                recorder.replay(region)?;
                self.state = State::Ready(recorder);
                Ok(())
            }
        }
    }
}

fn failed(reason: String) -> ModelError {
    ModelError::DeviceFailed { reason }
}

fn refused<R: Region>(reason: &str) -> State {
    tracing::warn!("{} is not captured as a graph and runs operation by operation: {reason}", R::NAME);
    State::Eager
}

impl Recorder {
    /// A run, and what it read on the host.
    fn watch<R: Region>(&self, region: &R) -> Result<(Result<(), R::Error>, HostReads), ModelError> {
        let run = || host_reads::count(|| region.run());
        match self {
            // Where it will be captured: libtorch has memory and libraries' workspaces by stream.
            Recorder::Cuda(graph) => graph.aside(run)?,
            Recorder::Emulated => run(),
        }
    }

    /// Captures a run, which does nothing yet; why that cannot be.
    fn capture<R: Region>(&self, region: &R) -> Result<(), String> {
        let Recorder::Cuda(graph) = self else { return Ok(()) };
        let run = || guarded(|| region.run().map_err(|error| error.to_string())).map_err(|error| error.to_string())?;
        let captured = graph.aside(|| graph.captured(run)).map_err(|error| error.to_string())?;
        captured.map_err(|error| error.to_string())?
    }

    fn replay<R: Region>(&self, region: &R) -> Result<(), R::Error> {
        match self {
            Recorder::Cuda(graph) => Ok(graph.replay()?),
            Recorder::Emulated => region.run(),
        }
    }
}

#[repr(C)]
struct RawGraph {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn graph_new(device: i32, out: *mut *mut RawGraph) -> Text;
    fn graph_free(graph: *mut RawGraph);
    fn graph_enter(graph: *mut RawGraph) -> Text;
    fn graph_leave(graph: *mut RawGraph) -> Text;
    fn graph_begin(graph: *const RawGraph) -> Text;
    fn graph_end(graph: *const RawGraph) -> Text;
    fn graph_replay(graph: *const RawGraph) -> Text;
    #[cfg(test)]
    fn graph_names() -> *const std::ffi::c_char;
}

/// libtorch's graph, and the stream that it is captured in.
#[derive(Debug)]
struct Graph(NonNull<RawGraph>);

impl Graph {
    fn new(_: Loaded, device: usize) -> Result<Graph, ModelError> {
        let mut graph = null_mut();
        // SAFETY: the pointer lives through the call.
        outcome(unsafe { graph_new(device as i32, &raw mut graph) })?;
        Ok(Graph(NonNull::new(graph).expect("a call that succeeds makes an object")))
    }

    /// Does `work` in the graph's stream.
    fn aside<T>(&self, work: impl FnOnce() -> T) -> Result<T, ModelError> {
        // SAFETY: the graph is alive; nobody else has it.
        outcome(unsafe { graph_enter(self.0.as_ptr()) })?;
        let inside = Inside(self);
        let done = work();
        inside.leave()?;
        Ok(done)
    }

    /// Captures what `work` gives the device, in the graph's stream.
    fn captured<T>(&self, work: impl FnOnce() -> T) -> Result<T, ModelError> {
        // SAFETY: as above.
        outcome(unsafe { graph_begin(self.0.as_ptr()) })?;
        let done = work();
        // SAFETY: as above; `work` does not panic but for a defect, in which case the process ends.
        outcome(unsafe { graph_end(self.0.as_ptr()) })?;
        Ok(done)
    }

    fn replay(&self) -> Result<(), ModelError> {
        // SAFETY: the graph is alive and captured.
        outcome(unsafe { graph_replay(self.0.as_ptr()) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by this library and not freed yet.
        unsafe { graph_free(self.0.as_ptr()) };
    }
}

/// This thread works in the graph's stream.
struct Inside<'a>(&'a Graph);

impl Inside<'_> {
    fn leave(self) -> Result<(), ModelError> {
        let graph = self.0;
        std::mem::forget(self);
        // SAFETY: the graph is alive, and this thread has entered.
        outcome(unsafe { graph_leave(graph.0.as_ptr()) })
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // A panic is on its way, which says what is wrong.
        // SAFETY: as in `leave`.
        let _ = outcome(unsafe { graph_leave(self.0.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Precision, Route};
    use tch::{Kind, Tensor};
    use tokengrid_test_support::{alone, cuda_library};

    const WITH_GRAPHS: Runtime =
        Runtime { device: Device::Cpu, precision: Precision::Fp32, route: Route { graphs: true, ..Route::DEVICE } };

    /// Adds `step` to `sum`; reads it on the host if it is to.
    struct Adding {
        sum: Tensor,
        step: Tensor,
        reads: bool,
    }

    impl Region for Adding {
        type Error = ModelError;
        const NAME: &'static str = "an addition";

        fn run(&self) -> Result<(), ModelError> {
            if self.reads {
                let _ = self.sum.double_value(&[]);
            }
            let _ = self.sum.shallow_clone().g_add_(&self.step);
            Ok(())
        }
    }

    fn adding(runtime: &Runtime, reads: bool) -> Captured<Adding> {
        let zero = || Tensor::zeros([], (Kind::Float, Device::Cpu));
        Captured::new(Adding { sum: zero(), step: zero(), reads }, runtime)
    }

    /// The sum of 1 to 5, by a step each, and after which of them it was captured.
    fn five(mut captured: Captured<Adding>) -> (f64, Vec<bool>) {
        let states = (1..=5).map(|step| {
            let _ = captured.region().step.shallow_clone().fill_(f64::from(step));
            captured.run().unwrap();
            captured.is_captured()
        });
        let states = states.collect();
        (captured.region().sum.double_value(&[]), states)
    }

    #[test]
    fn a_region_is_watched_three_times_then_captured_and_repeated_with_what_its_tensors_hold() {
        assert_eq!(five(adding(&WITH_GRAPHS, false)), (15.0, vec![false, false, false, true, true]));
    }

    #[test]
    fn without_graphs_and_where_the_host_waits_it_runs_operation_by_operation() {
        assert_eq!(five(adding(&Runtime { route: Route::DEVICE, ..WITH_GRAPHS }, false)), (15.0, vec![false; 5]));
        assert_eq!(five(adding(&WITH_GRAPHS, true)), (15.0, vec![false; 5]));
    }

    #[test]
    fn without_the_cuda_library_there_is_a_reason() {
        alone!();
        let mut graph = null_mut();
        // SAFETY: the pointer lives through the call.
        let error = outcome(unsafe { graph_new(0, &raw mut graph) }).unwrap_err().to_string();
        assert!(error.contains("CUDA library is not loaded") && error.contains("CUDAGraphC1Eb"), "{error}");
    }

    #[test]
    fn the_cuda_library_has_every_function_that_is_used() {
        let Some(library) = cuda_library::find() else { return };
        let defined = cuda_library::defined_names(&library);
        // SAFETY: a constant text that ends with a zero.
        let names = unsafe { std::ffi::CStr::from_ptr(graph_names()) }.to_str().unwrap();
        assert_eq!(names.lines().count(), 5);
        let missing: Vec<&str> = names.lines().filter(|name| !defined.contains(*name)).collect();
        assert!(missing.is_empty(), "{} has no {missing:?}", library.display());
    }

    #[test]
    fn on_a_machine_without_a_driver_a_graph_is_refused_by_the_library_itself() {
        if cuda::has_driver() {
            return tokengrid_test_support::skip_anywhere("this machine has an NVIDIA driver");
        }
        alone!();
        if !cuda_library::load_with_a_device() {
            return;
        }
        let mut graph = null_mut();
        // SAFETY: as above. The functions are found and called; what they ask of the driver fails.
        let error = outcome(unsafe { graph_new(0, &raw mut graph) }).unwrap_err().to_string();
        assert!(error.contains("NVIDIA driver") || error.contains("CUDA"), "{error}");
        assert!(!error.contains("is not loaded"), "{error}");
    }
}
