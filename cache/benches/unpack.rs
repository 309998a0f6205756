//! The unpacking kernels and the loader: `cargo bench -p tokengrid-cache`.
//!
//! Use `tokengrid bench loader`, which measures time per core, for published numbers; these compare one
//! commit with another.
#![allow(missing_docs, clippy::unwrap_used)] // what criterion's macros make; a bench that cannot run stops

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use tokengrid_cache::{
    Access, Batch, Loader, LoaderConfig, TokenCache, pack, packed_bytes, unpack, unpack_factorized, unpack_i64,
    write_synthetic_cache,
};

const TOKENS: usize = 256;

fn kernels(criterion: &mut Criterion) {
    for bits in [8, 10, 14, 18, 24] {
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|i| i.wrapping_mul(0x9E37_79B9) >> (32 - bits)).collect();
        let mut packed = vec![0; packed_bytes(TOKENS, bits)];
        pack(&tokens, bits, &mut packed);
        let mut group = criterion.benchmark_group(format!("unpack {bits} bits"));
        group.throughput(Throughput::Elements(1));
        let mut narrow = vec![0u32; TOKENS];
        group.bench_function("u32", |b| b.iter(|| unpack(black_box(&packed), bits, &mut narrow)));
        let (mut pre, mut post) = (vec![0i64; TOKENS], vec![0i64; TOKENS]);
        group.bench_function("i64", |b| b.iter(|| unpack_i64(black_box(&packed), bits, &mut pre)));
        let low = bits / 3;
        group.bench_function("factorized", |b| {
            b.iter(|| unpack_factorized(black_box(&packed), bits, low, &mut pre, &mut post));
        });
    }
}

fn loader(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    write_synthetic_cache(folder.path(), 50_000, 4).unwrap();
    let mut group = criterion.benchmark_group("loader, 200,000 rows, batches of 256");
    group.throughput(Throughput::Elements(256));
    for access in [Access::Map, Access::Preload, Access::Copy] {
        let cache = Arc::new(TokenCache::open_with(folder.path(), access).unwrap());
        let config = LoaderConfig { seed: 1, batch_size: 256, rank: 0, world_size: 1 };
        let mut loader = Loader::new(cache, config).unwrap();
        let mut batch = Batch::default();
        (0..1000).for_each(|_| loader.next_batch(&mut batch));
        group.bench_function(format!("{access:?}"), |b| b.iter(|| loader.next_batch(&mut batch)));
    }
    group.finish();
}

criterion_group!(benches, kernels, loader);
criterion_main!(benches);
