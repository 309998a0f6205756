//! The best and the worst of many: a look at where a tokenizer fails.

use crate::EvalError;
use crate::peers::{Peers, gather};
use std::collections::BTreeMap;
use tokengrid_model::Picture;

/// An image with its reconstruction.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Pair {
    /// Its place in the source: of equal ones, the first counts.
    pub index: usize,
    /// Name in the source.
    pub key: String,
    /// Peak signal-to-noise ratio in dB.
    pub psnr: f64,
    /// What went in.
    pub original: Picture,
    /// What came back.
    pub reconstruction: Picture,
}

/// So many pairs at either end of the scale; memory does not grow beyond them.
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
    pub fn new(kept: usize) -> Extremes {
        Extremes { kept, worst: vec![], best: vec![] }
    }

    /// Takes a pair.
    pub fn push(&mut self, pair: &Pair) {
        keep(&mut self.worst, self.kept, pair, |a, b| a < b);
        keep(&mut self.best, self.kept, pair, |a, b| a > b);
    }

    /// Those of all processes together, in each of them.
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

    /// Names and PSNR of the worst, the very worst first.
    pub fn worst(&self) -> impl Iterator<Item = (&str, f64)> {
        self.worst.iter().map(|pair| (pair.key.as_str(), pair.psnr))
    }

    /// Names and PSNR of the best, the very best first.
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
