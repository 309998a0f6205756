//! The best and the worst reconstructions, to see where a tokenizer fails.

use crate::EvalError;
use crate::peers::{Peers, gather};
use std::collections::BTreeMap;
use tokengrid_model::Picture;

/// An image with its reconstruction.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Pair {
    /// Index in the source: of pairs with equal PSNR, the first is kept.
    pub index: usize,
    /// Name in the source.
    pub key: String,
    /// Peak signal-to-noise ratio in dB.
    pub psnr: f64,
    /// The image.
    pub original: Picture,
    /// Its reconstruction.
    pub reconstruction: Picture,
}

/// The pairs with the lowest and the highest PSNR, a fixed number of each.
#[derive(Debug)]
pub struct Extremes {
    kept: usize,
    /// By rising PSNR.
    worst: Vec<Pair>,
    /// By falling PSNR.
    best: Vec<Pair>,
}

impl Extremes {
    /// Keeps `kept` pairs at either end.
    pub(crate) fn new(kept: usize) -> Extremes {
        Extremes { kept, worst: vec![], best: vec![] }
    }

    /// Adds a pair.
    pub(crate) fn push(&mut self, pair: &Pair) {
        keep(&mut self.worst, self.kept, pair, |a, b| a < b);
        keep(&mut self.best, self.kept, pair, |a, b| a > b);
    }

    /// The extremes over all processes, the same in each of them.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn of_all(self, peers: &dyn Peers) -> Result<Extremes, EvalError> {
        if peers.world_size() == 1 || self.kept == 0 {
            return Ok(self);
        }
        let mut all = Extremes::new(self.kept);
        // A pair may be at both ends of a process's scale.
        let own: BTreeMap<usize, Pair> =
            self.worst.into_iter().chain(self.best).map(|pair| (pair.index, pair)).collect();
        let mut pairs: Vec<Pair> = gather(peers, &own.into_values().collect::<Vec<_>>())?.concat();
        pairs.sort_by_key(|pair| pair.index);
        pairs.iter().for_each(|pair| all.push(pair));
        Ok(all)
    }

    /// Pictures by the names of their files: `worst-00.png`, `worst-01.png`, ... and `best-00.png`, ...: original left,
    /// reconstruction right.
    pub fn pictures(&self) -> impl Iterator<Item = (String, Picture)> {
        let ends = [("worst", &self.worst), ("best", &self.best)];
        ends.into_iter().flat_map(|(name, pairs)| {
            pairs.iter().enumerate().map(move |(number, pair)| {
                let sides = [pair.original.clone(), pair.reconstruction.clone()];
                (format!("{name}-{number:02}.png"), Picture::grid(&sides, 2))
            })
        })
    }

    /// Names and PSNR in dB of the worst pairs, the lowest first.
    pub fn worst(&self) -> impl Iterator<Item = (&str, f64)> {
        self.worst.iter().map(|pair| (pair.key.as_str(), pair.psnr))
    }

    /// Names and PSNR in dB of the best pairs, the highest first.
    pub fn best(&self) -> impl Iterator<Item = (&str, f64)> {
        self.best.iter().map(|pair| (pair.key.as_str(), pair.psnr))
    }
}

fn keep(pairs: &mut Vec<Pair>, kept: usize, pair: &Pair, is_before: impl Fn(f64, f64) -> bool) {
    let place = pairs.iter().position(|other| is_before(pair.psnr, other.psnr)).unwrap_or(pairs.len());
    if place < kept {
        pairs.insert(place, pair.clone());
        pairs.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_kept_in_order() {
        let picture = Picture::new(1, 1, vec![0; 3]);
        let mut extremes = Extremes::new(2);
        for (index, (key, psnr)) in [("b", 20.0), ("d", 40.0), ("a", 10.0), ("c", 30.0)].into_iter().enumerate() {
            let (original, reconstruction) = (picture.clone(), picture.clone());
            extremes.push(&Pair { index, key: key.into(), psnr, original, reconstruction });
        }
        assert_eq!(extremes.worst().collect::<Vec<_>>(), [("a", 10.0), ("b", 20.0)]);
        assert_eq!(extremes.best().collect::<Vec<_>>(), [("d", 40.0), ("c", 30.0)]);
    }
}
