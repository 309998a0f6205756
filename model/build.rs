//! Compiles `csrc/graph.cpp`, the C surface over libtorch's CUDA graphs and observers, against libtorch's headers.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    // As torch-sys finds them.
    let root = env::var_os("LIBTORCH_INCLUDE").or_else(|| env::var_os("LIBTORCH"));
    let Some(root) = root.map(PathBuf::from) else {
        println!("cargo:warning=LIBTORCH is not set: run `make setup`");
        panic!("libtorch's headers are needed");
    };
    let include = root.join("include");
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    // For train/build.rs, which compiles against the same headers, and ours.
    let headers = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("csrc");
    println!("cargo::metadata=include={}", include.display());
    println!("cargo::metadata=headers={}", headers.display());
    println!("cargo::metadata=cxx11_abi={abi}");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        // As libtorch was compiled: with assertions its observers have other members.
        .define("NDEBUG", None)
        .flag("-fvisibility=hidden")
        .flag("-fvisibility-inlines-hidden")
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .file("csrc/graph.cpp")
        .compile("tokengrid_graph");
}
