//! What can be known of NCCL without a GPU: that libtorch's CUDA library has what is looked up in it, and that a group is made
//! and ended there. Exchanges need a GPU.

use super::super::ffi::{RawGroup, RawStore, nccl_names};
use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokengrid_test_support::{alone, skip_anywhere, torch_environment};

/// Functions of libtorch's CUDA library that are used: looked up by name, or reached as virtual ones.
const USED: &str = include_str!("../../csrc/nccl_symbols.txt");

/// Names a `libtorch_cuda.so` to look into, where the libtorch in use has none.
const VARIABLE: &str = "TOKENGRID_NCCL_LIB";

fn used() -> impl Iterator<Item = &'static str> {
    USED.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A CUDA library: the one that is named, that of the libtorch in use, or that of PyTorch in a separate environment.
#[track_caller]
fn library() -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    named.or_else(of_libtorch_in_use).or_else(of_pytorch)
}

fn of_libtorch_in_use() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let in_use = paths.find(|path| path.ends_with("/libtorch_cpu.so"))?;
    Some(Path::new(in_use).with_file_name("libtorch_cuda.so")).filter(|library| library.exists())
}

#[track_caller]
fn of_pytorch() -> Option<PathBuf> {
    let folder = torch_environment()?;
    let pythons = std::fs::read_dir(folder.join("lib")).unwrap().map(|entry| entry.unwrap().path());
    let mut libraries = pythons.map(|python| python.join("site-packages/torch/lib/libtorch_cuda.so"));
    let found = libraries.find(|library| library.exists());
    if found.is_none() {
        skip_anywhere("PyTorch of this platform has no CUDA library");
    }
    found
}

/// Names that a 64-bit ELF library gives to others: its dynamic symbols that are defined in it.
fn defined_names(library: &Path) -> std::collections::HashSet<String> {
    let file = File::open(library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    let read = |offset: u64, len: u64| {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let header = read(0, 64);
    assert_eq!(&header[..6], b"\x7fELF\x02\x01", "64 bits, little endian");
    let (sections, size, count) = (number(&header[40..48]), number(&header[58..60]), number(&header[60..62]));
    let section = |index: u64| read(sections + index * size, size);
    let content = |section: &[u8]| read(number(&section[24..32]), number(&section[32..40]));
    // SHT_DYNSYM; it names the section of its names.
    let symbols = (0..count).map(section).find(|section| number(&section[4..8]) == 11).expect("dynamic symbols");
    let names = content(&section(number(&symbols[40..44])));
    let is_defined = |symbol: &&[u8]| number(&symbol[6..8]) != 0;
    let name = |symbol: &[u8]| {
        let name = &names[number(&symbol[..4]) as usize..];
        let end = name.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8_lossy(&name[..end]).into_owned()
    };
    content(&symbols).chunks_exact(24).filter(is_defined).map(name).collect()
}

#[test]
fn names_that_are_looked_up_are_in_the_list() {
    let names: Vec<&str> = nccl_names().collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| used().any(|used| used == *name)), "{names:?}");
}

#[test]
fn the_cuda_library_has_every_function_that_is_used() {
    let Some(library) = library() else { return };
    let defined = defined_names(&library);
    assert!(defined.len() > 1000, "{} symbols", defined.len());
    assert!(!defined.contains("_ZN4c10d16ProcessGroupNCCL7no_suchEv"));
    let missing: Vec<&str> = used().filter(|name| !defined.contains(*name)).collect();
    assert!(missing.is_empty(), "{} has no {missing:?}", library.display());
}

/// A library that says that this machine has a GPU, for whoever is loaded after it.
fn fake_device_count(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("fake.c"), folder.join("libfake_device_count.so"));
    std::fs::write(&source, "signed char _ZN3c104cuda12device_countEv(void) { return 1; }\n").unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
    match made {
        Ok(output) if output.status.success() => Some(library),
        failed => {
            skip_anywhere(&format!("no C compiler: {failed:?}"));
            None
        }
    }
}

fn load(library: &Path) -> Result<(), String> {
    let name = CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: a name that ends with a zero; the initialisers of libtorch's libraries may run in a program that has libtorch.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: after a failure it is a text that ends with a zero.
    Err(unsafe { std::ffi::CStr::from_ptr(libc::dlerror()) }.to_string_lossy().into_owned())
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
    let Some(library) = library() else { return };
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let Some(fake) = fake_device_count(folder.path()) else { return };
    // The first to have a name is asked by those who come later.
    load(&fake).unwrap();
    if let Err(text) = load(&library) {
        return skip_anywhere(&format!("{} cannot be loaded: {text}", library.display()));
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
