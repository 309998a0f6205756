//! Fingerprints of weights.

use tch::{Device, Kind, Tensor};

/// A BLAKE3 hash of names, shapes and fp32 values, in the order given: 32 hexadecimal digits. It is a function of these alone,
/// not of threads, devices or strides.
pub fn tensors_fingerprint<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in tensors {
        let tensor = tensor.to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * 4];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        // The length keeps a name and what follows it apart.
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        for size in tensor.size() {
            hasher.update(&size.to_le_bytes());
        }
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex()[..32].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(name: &str, tensor: &Tensor) -> String {
        tensors_fingerprint([(name, tensor)].into_iter())
    }

    #[test]
    fn only_names_shapes_and_values_count() {
        tokengrid_test_support::alone!();
        let (_, x) = (tch::manual_seed(3), Tensor::randn([300, 500], (Kind::Float, Device::Cpu)));
        let whole = fingerprint("a", &x);
        let threads = tch::get_num_threads();
        for count in [1, 2, 3] {
            tch::set_num_threads(count);
            assert_eq!(fingerprint("a", &x), whole, "{count} threads");
        }
        tch::set_num_threads(threads);
        assert_eq!(fingerprint("a", &x.to_kind(Kind::Double)), whole, "stored with another data type");
        assert_eq!(fingerprint("a", &x.tr().contiguous().tr()), whole, "stored in another order");
        assert_ne!(fingerprint("b", &x), whole);
        assert_ne!(fingerprint("a", &x.view([500, 300])), whole);
        let y = x.copy();
        let _ = y.get(299).get(499).fill_(7.0);
        assert_ne!(fingerprint("a", &y), whole);
    }
}
