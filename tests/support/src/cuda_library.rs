//! libtorch's CUDA library on machines without a GPU: what it has by name, and what can be seen after it was loaded.

use crate::{skip_anywhere, torch_environment};
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names a `libtorch_cuda.so` to look into, where the libtorch in use has none.
const VARIABLE: &str = "TOKENGRID_NCCL_LIB";

/// A CUDA library: the one that is named, that of the libtorch in use, or that of PyTorch in an environment of its own. `None`
/// where the test is [left out](crate::skip).
///
/// # Panics
/// Where `CI` is set and there is none.
#[track_caller]
pub fn find() -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    named.or_else(of_libtorch_in_use).or_else(of_pytorch)
}

fn of_libtorch_in_use() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the maps of this process");
    let mut paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let in_use = paths.find(|path| path.ends_with("/libtorch_cpu.so"))?;
    Some(Path::new(in_use).with_file_name("libtorch_cuda.so")).filter(|library| library.exists())
}

#[track_caller]
fn of_pytorch() -> Option<PathBuf> {
    let folder = torch_environment()?;
    let entries = std::fs::read_dir(folder.join("lib")).expect("an environment of Python");
    let pythons = entries.map(|entry| entry.expect("a folder's entry").path());
    let mut libraries = pythons.map(|python| python.join("site-packages/torch/lib/libtorch_cuda.so"));
    let found = libraries.find(|library| library.exists());
    if found.is_none() {
        skip_anywhere("PyTorch of this platform has no CUDA library");
    }
    found
}

/// Names that a 64-bit ELF library gives to others: its dynamic symbols that are defined in it.
///
/// # Panics
/// When it is not such a library.
#[track_caller]
pub fn defined_names(library: &Path) -> HashSet<String> {
    let file = File::open(library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    let read = |offset: u64, len: u64| {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset).expect("the library's bytes");
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
        let end = name.iter().position(|byte| *byte == 0).expect("a name ends with a zero");
        String::from_utf8_lossy(&name[..end]).into_owned()
    };
    content(&symbols).chunks_exact(24).filter(is_defined).map(name).collect()
}

/// Loads the CUDA library in a process that is made to believe that its machine has one GPU; false where the test is left out.
/// For a process of its own: see [`alone!`](crate::alone).
///
/// # Panics
/// As [`find`]; no folder for temporary files.
#[track_caller]
pub fn load_with_a_device() -> bool {
    let Some(library) = find() else { return false };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(fake) = fake_device_count(folder.path()) else { return false };
    // The first to have a name is asked by those who come later.
    if let Err(text) = load(&fake).and_then(|()| load(&library)) {
        skip_anywhere(&format!("{} cannot be loaded: {text}", library.display()));
        return false;
    }
    true
}

/// A library that says that this machine has a GPU, for whoever is loaded after it.
fn fake_device_count(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("fake.c"), folder.join("libfake_device_count.so"));
    let program = "signed char _ZN3c104cuda12device_countEv(void) { return 1; }\n";
    std::fs::write(&source, program).expect("a temporary file");
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
    let path = library.to_str().expect("a path in UTF-8");
    let name = CString::new(path).expect("a path without a zero");
    // SAFETY: a name that ends with a zero; the initialisers of libtorch's libraries may run in a program that has libtorch.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: after a failure it is a text that ends with a zero.
    Err(unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy().into_owned())
}
