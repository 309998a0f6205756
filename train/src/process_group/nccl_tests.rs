//! What can be known of NCCL without a GPU: that libtorch's CUDA library has what is looked up in it, and that a group is made
//! and ended there. Exchanges need a GPU.

use super::super::ffi::{RawGroup, RawStore, nccl_names};
use std::path::Path;
use std::time::Duration;
use tokengrid_test_support::{alone, cuda_library, skip_anywhere};

/// Functions of libtorch's CUDA library that are used: looked up by name, or reached as virtual ones.
const USED: &str = include_str!("../../csrc/nccl_symbols.txt");

fn used() -> impl Iterator<Item = &'static str> {
    USED.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn names_that_are_looked_up_are_in_the_list() {
    let names: Vec<&str> = nccl_names().collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| used().any(|used| used == *name)), "{names:?}");
}

#[test]
fn the_cuda_library_has_every_function_that_is_used() {
    let Some(library) = cuda_library::find() else { return };
    let defined = cuda_library::defined_names(&library);
    assert!(defined.len() > 1000, "{} symbols", defined.len());
    assert!(!defined.contains("_ZN4c10d16ProcessGroupNCCL7no_suchEv"));
    let missing: Vec<&str> = used().filter(|name| !defined.contains(*name)).collect();
    assert!(missing.is_empty(), "{} has no {missing:?}", library.display());
}

fn store() -> RawStore {
    super::super::ffi::prepare();
    RawStore::connect("127.0.0.1", 0, true, Duration::from_secs(60)).unwrap().0
}

#[test]
fn without_the_cuda_library_there_is_a_reason() {
    if Path::new("/dev/nvidiactl").exists() {
        return skip_anywhere("this machine has an NVIDIA driver");
    }
    alone!();
    let failure = RawGroup::nccl(&store(), "test", (0, 2), Duration::from_secs(60)).unwrap_err();
    assert!(failure.0.contains("CUDA library is not loaded") && failure.0.contains("NCCL7OptionsC1Eb"), "{failure:?}");
}

#[test]
fn a_group_is_made_described_aborted_and_freed() {
    alone!();
    if !cuda_library::load_with_a_device() {
        return;
    }
    let (store, timeout, limit) = (store(), Duration::from_secs(77), Duration::from_secs(60));
    for rank in [1, 0] {
        let group = RawGroup::nccl(&store, "test", (rank, 2), timeout).unwrap();
        let facts = group.describe().unwrap();
        assert_eq!((facts.name.as_str(), facts.rank, facts.world_size, facts.timeout), ("nccl", rank, 2, timeout));
        match rank {
            1 => group.abort(limit),
            _ => group.shutdown(limit),
        }
    }
}
