//! Compiles `csrc/c10d.cpp`, the C surface over libtorch's process groups, against the headers of libtorch and of tokengrid-model's C++.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    // What model/build.rs has found.
    let told = |name: &str| {
        env::var(format!("DEP_TOKENGRID_LIBTORCH_{name}")).expect("tokengrid-model's build script says it")
    };
    let (include, headers) = (PathBuf::from(told("INCLUDE")), told("HEADERS"));
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .warnings(false)
        .define("USE_C10D_GLOO", None)
        .define("_GLIBCXX_USE_CXX11_ABI", told("CXX11_ABI").as_str())
        // As libtorch was compiled.
        .define("NDEBUG", None)
        .flag("-fvisibility=hidden")
        .flag("-fvisibility-inlines-hidden")
        .include("csrc")
        .include(headers)
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .file("csrc/c10d.cpp")
        .compile("tokengrid_c10d");
}
