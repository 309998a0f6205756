//! The formula that fills weights of any size without shipping them.

/// `count` values in [-1, 1) that depend on `name` alone: FNV-1a of the name seeds a splitmix64 counter.
pub fn stream(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (1..=count as u64).map(move |i| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        2.0 * ((z >> 40) as f64 / (1u64 << 24) as f64) - 1.0
    })
}

/// The golden weight of tensor `name`: row-major f32 values of `shape`, `gain` 3 unless a fixture says otherwise.
pub fn formula(salt: &str, name: &str, shape: &[i64], gain: f64) -> Vec<f32> {
    let count = shape.iter().product::<i64>() as usize;
    let fan_in = shape.iter().skip(1).product::<i64>() as f64;
    let scale = (gain / fan_in).sqrt();
    let is_scale = name.ends_with("weight") || name.ends_with("running_var");
    let value = |v: f64| match (shape.len() >= 2, is_scale) {
        (true, _) => v * scale,
        (false, true) => 1.0 + 0.1 * v,
        (false, false) => 0.1 * v,
    };
    stream(&format!("{salt}{name}"), count).map(|v| value(v) as f32).collect()
}
