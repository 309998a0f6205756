//! Named parts of a cache, such as `train` and `val`.

use serde::{Deserialize, Serialize};

/// A named part of a cache's images, such as `train` or `val`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Its name, 1 to 255 bytes.
    pub name: String,
    /// The source's images that belong to it: `[start, end]`, end excluded.
    pub images: [usize; 2],
}

impl Split {
    /// The name of the split, among `splits`, that the image of number `image` in the source belongs to; empty if there is none.
    pub fn name_of(splits: &[Split], image: usize) -> &str {
        let contains = |split: &&Split| (split.images[0]..split.images[1]).contains(&image);
        splits.iter().find(contains).map_or("", |split| &split.name)
    }
}

/// What is wrong with splits that should tile `0..images`.
pub(crate) fn check_splits(splits: &[Split], images: usize) -> Result<(), String> {
    let mut next = 0;
    for (i, split) in splits.iter().enumerate() {
        let named = (1..=255).contains(&split.name.len()) && splits[..i].iter().all(|other| other.name != split.name);
        if !named || split.images[0] != next || split.images[1] < next {
            return Err(format!("{} at {:?}", split.name, split.images));
        }
        next = split.images[1];
    }
    if splits.is_empty() || next == images { Ok(()) } else { Err(format!("images up to {next}")) }
}
