//! Settings of the published results, by model: guidance and temperature; top-k and top-p are off. The results are of 50
//! images of each of the 1,000 classes.

use crate::sampler::SamplerConfig;

/// Names, guidance scales and temperatures for low and high bits (arXiv 2409.04410, and the reference's commands).
const PUBLISHED: [(&str, [f64; 2], [f64; 2]); 3] =
    [("B", [1.9, 2.0], [1.0, 1.0]), ("L", [1.9, 1.9], [1.1, 1.0]), ("XL", [1.75, 1.85], [1.1, 1.0])];

/// The settings of the preset of this name, in upper or lower case; `None` when there is none.
pub fn preset(name: &str) -> Option<SamplerConfig> {
    let (_, cfg_scale, temperature) = PUBLISHED.into_iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
    Some(SamplerConfig { cfg_scale, temperature, ..SamplerConfig::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_the_published_settings() {
        let xl = preset("xl").unwrap();
        assert_eq!((xl.cfg_scale, xl.temperature), ([1.75, 1.85], [1.1, 1.0]));
        assert_eq!((xl.top_k, xl.top_p), ([0, 0], [1.0, 1.0]));
        assert_eq!(preset("B").unwrap().cfg_scale, [1.9, 2.0]);
        assert!(preset("tiny").is_none());
    }
}
