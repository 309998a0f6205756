//! In which way grids differ: how many of their bits agree when the cached grids are read otherwise.
//!
//! Bits are counted, not tokens: a mirrored picture does not give the mirrored tokens, but tokens that have more bits in
//! common with them than with any others. And they are counted over all rows that differ, since one grid is too few.

use crate::format::grid::GridSpec;
use crate::integrity::check::report::Disagreement;

/// By what share of the bits one way of reading must agree better before it is believed. Unrelated grids agree in about half of
/// their bits, and over a few rows no two ways of reading them differ by more than a percent or two.
const CLEARLY_MORE: f64 = 0.04;

/// The largest shift that is tried in each direction, in tokens.
const REACH: i32 = 4;

/// A way of reading cached grids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    AsTheyAre,
    BitsReversed,
    Mirrored,
    Moved { right: i32, down: i32 },
}

/// Counts of agreeing bits, way by way.
#[derive(Debug)]
pub(super) struct Agreement {
    grid: GridSpec,
    /// Way, bits that agree, bits that were compared.
    ways: Vec<(Way, u64, u64)>,
}

impl Agreement {
    pub(super) fn new(grid: GridSpec) -> Agreement {
        let reach = |side: u32| REACH.min(side as i32 / 2);
        let (reach_x, reach_y) = (reach(grid.width), reach(grid.height));
        let moves = (-reach_y..=reach_y).flat_map(|down| (-reach_x..=reach_x).map(move |right| (right, down)));
        let moves = moves.filter(|step| *step != (0, 0)).map(|(right, down)| Way::Moved { right, down });
        let ways = [Way::AsTheyAre, Way::BitsReversed, Way::Mirrored].into_iter().chain(moves);
        Agreement { grid, ways: ways.map(|way| (way, 0, 0)).collect() }
    }

    /// Takes a grid of the cache and what its image gives now.
    pub(super) fn add(&mut self, there: &[u32], here: &[u32]) {
        let (width, bits) = (self.grid.width as i32, self.grid.bits);
        for (way, agreeing, compared) in &mut self.ways {
            for (i, token) in here.iter().enumerate() {
                let (x, y) = (i as i32 % width, i as i32 / width);
                let Some(cached) = read(*way, self.grid, there, x, y) else { continue };
                *agreeing += u64::from(bits - (cached ^ token).count_ones());
                *compared += u64::from(bits);
            }
        }
    }

    /// The way of going wrong that explains the differences, and a sentence about it; `None` if none was seen.
    pub(super) fn explain(&self) -> Option<(Disagreement, String)> {
        let share = |(_, agreeing, compared): &(Way, u64, u64)| *agreeing as f64 / (*compared).max(1) as f64;
        let plain = self.ways.first().filter(|way| way.2 > 0).map(share)?;
        let best = self.ways.iter().max_by(|a, b| share(a).total_cmp(&share(b)))?;
        if share(best) < plain + CLEARLY_MORE {
            return None;
        }
        let (percent, before) = (100.0 * share(best), 100.0 * plain);
        let agree = |how: &str| format!("{percent:.1} % of the bits agree {how}, {before:.1} % as they are");
        match best.0 {
            Way::AsTheyAre => None,
            Way::BitsReversed => Some((Disagreement::BitReversed, agree("in reverse order"))),
            Way::Mirrored => Some((Disagreement::Mirrored, agree("when the grids are mirrored"))),
            Way::Moved { right, down } => {
                let how = format!("when the grids are moved by {right} to the right and {down} down");
                Some((Disagreement::Shifted, agree(&how)))
            }
        }
    }
}

/// The cached token that stands for the one at (x, y); `None` outside the grid.
fn read(way: Way, grid: GridSpec, there: &[u32], x: i32, y: i32) -> Option<u32> {
    let (width, height) = (grid.width as i32, grid.height as i32);
    let at = |x: i32, y: i32| {
        let inside = (0..width).contains(&x) && (0..height).contains(&y);
        inside.then(|| there[(y * width + x) as usize])
    };
    match way {
        Way::AsTheyAre => at(x, y),
        Way::BitsReversed => at(x, y).map(|token| token.reverse_bits() >> (32 - grid.bits)),
        Way::Mirrored => at(width - 1 - x, y),
        Way::Moved { right, down } => at(x - right, y - down),
    }
}
