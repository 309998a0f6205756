//! Compiles `csrc/` against the libjpeg headers that `mozjpeg-sys` generated.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=DEP_JPEG_INCLUDE");
    let include = env::var_os("DEP_JPEG_INCLUDE").expect("mozjpeg-sys tells where jpeglib.h is");
    cc::Build::new()
        .includes(env::split_paths(&include))
        .files(["csrc/jpeg_shim.c", "csrc/huffman.c"])
        .opt_level(2)
        .warnings(true)
        .extra_warnings(true)
        .compile("tokengrid_jpeg_shim");
}
