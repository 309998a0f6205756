//! One decoded image to its views: where the crops lie, and their pixels.

use crate::decode::{Picture, RgbImage};
use crate::recipe::{Recipe, RecipeError, Views};
use crate::resample::{Plane, Region, Resampler, source_region};
use crate::resize_plan::ResizePlan;

/// One view of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Number of the view, from 0.
    pub view: u32,
    /// Columns of the resized, unmirrored image to the left of the crop, in pixels.
    pub crop_x: i32,
    /// Rows of the resized image above the crop, in pixels.
    pub crop_y: i32,
    /// Whether the crop is mirrored left to right after it was cut out.
    pub flip: bool,
    /// `[size, size, 3]`, RGB, row-major, 0 to 255.
    pub pixels: Vec<u8>,
}

/// Why an image has no views.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The longer side would become longer than 2^31 - 1 pixels.
    #[error("{width} x {height} pixels resized to a shorter side of {shorter}: the longer one would exceed 2147483647")]
    TooLong {
        /// Columns of the image.
        width: u32,
        /// Rows of the image.
        height: u32,
        /// The shorter side asked for, in pixels.
        shorter: u32,
    },
    /// The pixels do not match the size.
    #[error("an image of {width} x {height} pixels with {bytes} bytes")]
    Inconsistent {
        /// Columns of the image.
        width: u32,
        /// Rows of the image.
        height: u32,
        /// Bytes of its pixels.
        bytes: usize,
    },
    /// The recipe is out of range.
    #[error("{source}")]
    Recipe {
        /// What is wrong with it.
        source: RecipeError,
    },
}

/// Where a crop lies in the resized image: columns to its left and rows above it, in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub x: u32,
    pub y: u32,
    pub flip: bool,
}

/// Makes the views of `image` that `recipe` asks for; `key` is the image's name, which random crops depend on. An EXIF
/// orientation is not applied: pixels do not have one.
///
/// # Errors
/// [`ViewError::TooLong`] for an image whose longer side would exceed 2^31 - 1 pixels after resizing,
/// [`ViewError::Inconsistent`] for pixels that do not match their size, [`ViewError::Recipe`] for an invalid recipe.
pub fn views_of(image: &RgbImage, key: &str, recipe: &Recipe) -> Result<Vec<View>, ViewError> {
    let plane = whole_plane(image)?;
    let mut cutter = Cutter::default();
    cutter.plan(recipe, key, (image.width, image.height))?;
    Ok(cutter.views(plane))
}

/// All of the resized image that `recipe`'s crops are cut from.
///
/// # Errors
/// As [`views_of`].
pub fn resized(image: &RgbImage, recipe: &Recipe) -> Result<RgbImage, ViewError> {
    let plane = whole_plane(image)?;
    let mut cutter = Cutter::default();
    cutter.plan(recipe, "", (image.width, image.height))?;
    let (width, height) = cutter.resize_plan.resized();
    cutter.around = Region { left: 0, top: 0, width, height };
    cutter.halve(plane);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    cutter.resize(plane, cutter.around, &mut pixels);
    Ok(RgbImage { width, height, pixels, warnings: image.warnings })
}

fn whole_plane(image: &RgbImage) -> Result<Plane<'_>, ViewError> {
    let (width, height) = (image.width, image.height);
    if width as usize * height as usize * 3 != image.pixels.len() || image.pixels.is_empty() {
        return Err(ViewError::Inconsistent { width, height, bytes: image.pixels.len() });
    }
    Ok(Plane { pixels: &image.pixels, stride: width as usize * 3, left: 0, top: 0 })
}

/// Where the crops lie in a resized image, which they may use `frame` of.
fn places(recipe: &Recipe, key: &str, frame: Region, out: &mut Vec<Place>) {
    out.clear();
    let room = (frame.width - recipe.size, frame.height - recipe.size);
    let center = (half_to_even(room.0), half_to_even(room.1));
    let plain = |x, y| Place { x, y, flip: false };
    match recipe.views {
        Views::Center => out.push(plain(center.0, center.1)),
        Views::CenterFlip => out.extend([false, true].map(|flip| Place { x: center.0, y: center.1, flip })),
        Views::RandomCrop(crops) => out.extend((0..crops).map(|view| random_place(recipe.seed, key, view, room))),
        Views::TenCrop(_) => {
            let five = [(0, 0), (room.0, 0), (0, room.1), (room.0, room.1), center];
            // torchvision mirrors the image and cuts at the same places; in the unmirrored image these lie at room - x.
            let mirrored = five.map(|(x, y)| Place { x: room.0 - x, y, flip: true });
            out.extend(five.into_iter().map(|(x, y)| plain(x, y)).chain(mirrored));
        }
    }
    for place in out {
        (place.x, place.y) = (place.x + frame.left, place.y + frame.top);
    }
}

/// `round(n / 2)`, ties to even, as Python rounds.
fn half_to_even(n: u32) -> u32 {
    let half = n / 2;
    half + (n % 2) * (half % 2)
}

/// A place drawn uniformly, the same on every machine. With f the finaliser of splitmix64 and h the FNV-1a 64 of the key's
/// bytes, a splitmix64 generator starts at `f(f(f(seed) ^ h) ^ view)`; its first output gives the row, its second the
/// column, each as the high 64 bits of `output * number of places`.
fn random_place(seed: u64, key: &str, view: u32, room: (u32, u32)) -> Place {
    let key_hash = key.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
    let mut state = splitmix64(splitmix64(splitmix64(seed) ^ key_hash) ^ u64::from(view));
    let mut draw = |room: u32| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let places = u128::from(room) + 1;
        ((u128::from(splitmix64(state)) * places) >> 64) as u32
    };
    let y = draw(room.1);
    let x = draw(room.0);
    Place { x, y, flip: false }
}

/// The finaliser of splitmix64: a bijection that mixes well.
fn splitmix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Cuts the crops of one image after the other; keeps its buffers.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    resampler: Resampler,
    recipe: Recipe,
    resize_plan: ResizePlan,
    places: Vec<Place>,
    /// The rectangle around all crops, after resizing.
    around: Region,
    /// The last halving's pixels of `halved_region`, and room for those of the one before it.
    halved: [Vec<u8>; 2],
    halved_region: Region,
    /// Its pixels, where resizing it once is less work than resizing each crop.
    shared: Vec<u8>,
}

impl Cutter {
    /// Lays out the crops of an image of `whole` columns and rows.
    ///
    /// # Errors
    /// A resized side that is not addressable; an impossible recipe.
    pub(crate) fn plan(&mut self, recipe: &Recipe, key: &str, whole: (u32, u32)) -> Result<(), ViewError> {
        recipe.validate().map_err(|source| ViewError::Recipe { source })?;
        self.resize_plan = ResizePlan::new(recipe, whole)?;
        self.recipe = *recipe;
        places(recipe, key, self.resize_plan.frame, &mut self.places);
        self.around = surrounding(&self.places, recipe.size);
        Ok(())
    }

    /// The rectangle of the image that the crops are made of.
    pub(crate) fn needed(&self) -> Region {
        self.resize_plan.needed(self.around)
    }

    /// Looks at the pixels of the image, of which there are at least the [needed](Cutter::needed) ones.
    pub(crate) fn begin(&mut self, plane: Plane<'_>) {
        self.halve(plane);
        self.shared.clear();
        let area = u64::from(self.around.width) * u64::from(self.around.height);
        let crops_area = u64::from(self.recipe.size).pow(2) * self.places.len() as u64;
        if self.places.len() > 1 && area <= crops_area {
            let mut shared = std::mem::take(&mut self.shared);
            shared.resize(area as usize * 3, 0);
            self.resize(plane, self.around, &mut shared);
            self.shared = shared;
        }
    }

    /// Writes view number `view` into `out`, `[size, size, 3]`, and returns its place. The plane is that of `begin`.
    pub(crate) fn cut(&mut self, plane: Plane<'_>, view: usize, out: &mut [u8]) -> Place {
        let (place, size) = (self.places[view], self.recipe.size);
        let row_bytes = size as usize * 3;
        if self.shared.is_empty() {
            let region = Region { left: place.x, top: place.y, width: size, height: size };
            self.resize(plane, region, out);
        } else {
            let stride = self.around.width as usize * 3;
            let start = (place.x - self.around.left) as usize * 3;
            let rows = self.shared.chunks_exact(stride).skip((place.y - self.around.top) as usize);
            for (target, row) in out.chunks_exact_mut(row_bytes).zip(rows) {
                target.copy_from_slice(&row[start..start + row_bytes]);
            }
        }
        if place.flip {
            out.chunks_exact_mut(row_bytes).for_each(mirror);
        }
        place
    }

    /// All views, in vectors of their own.
    pub(crate) fn views(&mut self, plane: Plane<'_>) -> Vec<View> {
        self.begin(plane);
        let (side, count) = (self.recipe.size as usize, self.places.len());
        let view = |i: usize| {
            let mut pixels = vec![0; side * side * 3];
            let place = self.cut(plane, i, &mut pixels);
            View { view: i as u32, crop_x: place.x as i32, crop_y: place.y as i32, flip: place.flip, pixels }
        };
        (0..count).map(view).collect()
    }

    /// Does the halvings, for the rectangle around all crops.
    fn halve(&mut self, plane: Plane<'_>) {
        if self.resize_plan.halvings.is_empty() {
            return;
        }
        let halvings = std::mem::take(&mut self.resize_plan.halvings);
        // What a halving has to give is what the later ones and the last resize read of it.
        let mut regions = vec![self.resize_plan.before_last(self.around)];
        for halving in halvings.iter().skip(1).rev() {
            regions.push(source_region(*halving, regions[regions.len() - 1]));
        }
        let mut before: Option<Region> = None;
        for (halving, region) in halvings.iter().zip(regions.into_iter().rev()) {
            self.halved.swap(0, 1);
            let [out, input] = &mut self.halved;
            let plane = before.map_or(plane, |region| plane_of(input, region));
            out.resize(region.width as usize * region.height as usize * 3, 0);
            self.resampler.resize_plane(plane, *halving, region, out);
            before = Some(region);
        }
        self.halved_region = before.unwrap_or_default();
        self.resize_plan.halvings = halvings;
    }

    fn resize(&mut self, plane: Plane<'_>, region: Region, out: &mut [u8]) {
        let plane = match self.resize_plan.halvings.is_empty() {
            true => plane,
            false => plane_of(&self.halved[0], self.halved_region),
        };
        self.resampler.resize_plane(plane, self.resize_plan.last, region, out);
    }

    /// Gives buffers back that grew beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        self.resampler.shrink(bytes);
        for buffer in self.halved.iter_mut().chain([&mut self.shared]) {
            if buffer.capacity() > bytes {
                *buffer = Vec::new();
            }
        }
    }
}

/// The pixels of `region` of an image.
fn plane_of(pixels: &[u8], region: Region) -> Plane<'_> {
    Plane { pixels, stride: region.width as usize * 3, left: region.left, top: region.top }
}

impl Picture {
    /// The pixels for the resampler.
    pub(crate) fn plane(&self) -> Plane<'_> {
        let stride = self.image.width as usize * 3;
        Plane { pixels: &self.image.pixels, stride, left: self.left, top: self.top }
    }
}

/// The smallest rectangle that holds all crops.
fn surrounding(places: &[Place], size: u32) -> Region {
    let (mut left, mut top, mut right, mut low) = (u32::MAX, u32::MAX, 0, 0);
    for place in places {
        (left, top) = (left.min(place.x), top.min(place.y));
        (right, low) = (right.max(place.x + size), low.max(place.y + size));
    }
    Region { left, top, width: right - left, height: low - top }
}

/// Reverses the order of a row's pixels.
fn mirror(row: &mut [u8]) {
    let (pixels, _) = row.as_chunks_mut::<3>();
    pixels.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Factor;

    #[test]
    fn halves_round_to_even_like_python() {
        let python = [0, 0, 1, 2, 2, 2, 3, 4, 4]; // [round(n / 2) for n in range(9)]
        assert_eq!((0..9).map(half_to_even).collect::<Vec<_>>(), python);
    }

    #[test]
    fn ten_crop_lies_where_torchvision_puts_it() {
        let recipe = Recipe { size: 4, views: Views::TenCrop(Factor::ONE), ..Recipe::default() };
        let mut five_and_five = Vec::new();
        places(&recipe, "k", Region { left: 0, top: 0, width: 7, height: 4 }, &mut five_and_five);
        let places: Vec<_> = five_and_five.iter().map(|p| (p.x, p.y, p.flip)).collect();
        // Width 7, so crops at 0, 3 and round(1.5) = 2; mirrored, the same places counted from the right.
        let plain = [(0, 0), (3, 0), (0, 0), (3, 0), (2, 0)].map(|(x, y)| (x, y, false));
        let mirrored = [(3, 0), (0, 0), (3, 0), (0, 0), (1, 0)].map(|(x, y)| (x, y, true));
        assert_eq!(places, [plain, mirrored].concat());
    }

    #[test]
    fn random_crops_are_forever_these() {
        // Constants that must never change: caches made with a seed are extended and checked years later.
        let place = |seed, key, view| {
            let p = random_place(seed, key, view, (100, 1000));
            (p.x, p.y)
        };
        let drawn = [place(0, "a.jpg", 0), place(0, "a.jpg", 1), place(1, "a.jpg", 0), place(0, "b.jpg", 0)];
        assert_eq!(drawn, [(27, 999), (28, 554), (67, 444), (49, 291)]);
    }

    #[test]
    fn random_crops_reach_every_place_and_no_other() {
        let mut seen = [0u32; 8];
        for view in 0..4000 {
            let p = random_place(7, "key", view, (7, 0));
            assert_eq!(p.y, 0, "no room, no choice");
            seen[p.x as usize] += 1;
        }
        // 4000 draws over 8 places: 500 each, standard deviation 21; five of them either way.
        assert!(seen.iter().all(|&n| (395..=605).contains(&n)), "{seen:?}");
    }
}
