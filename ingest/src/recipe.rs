//! What is made of every image: the settings that a cache records and that must be equal for its pixels to be equal.

use crate::resize_plan::ResizePlan;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Side of the views by default, in pixels.
const DEFAULT_SIZE: u32 = 256;

/// Largest accepted side of a view, in pixels.
const MAX_SIZE: u32 = 16_384;

/// Largest accepted number of random crops of an image.
const MAX_RANDOM_CROPS: u32 = 65_536;

/// A factor with three decimals, exact: 1.1 is 1100 thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Factor {
    thousandths: u32,
}

impl Factor {
    /// 1.
    pub const ONE: Factor = Factor { thousandths: 1000 };

    /// `thousandths / 1000`, for 1000 to 10000; `None` outside.
    pub fn from_thousandths(thousandths: u32) -> Option<Factor> {
        (1000..=10_000).contains(&thousandths).then_some(Factor { thousandths })
    }

    /// `floor(factor * size)`.
    pub fn scale(self, size: u32) -> u32 {
        (u64::from(size) * u64::from(self.thousandths) / 1000) as u32
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.thousandths / 1000, self.thousandths % 1000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let text = format!("{whole}.{rest:03}");
        f.write_str(text.trim_end_matches('0'))
    }
}

impl FromStr for Factor {
    type Err = RecipeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || RecipeError::Views { given: format!("ten-crop:{text}") };
        let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(rest) || rest.len() > 3 || whole.len() > 2 {
            return Err(bad());
        }
        let number = |s: &str| s.parse::<u32>().map_err(|_| bad());
        let thousandths = number(whole)? * 1000 + number(&format!("{rest:0<3}"))?;
        Factor::from_thousandths(thousandths).ok_or_else(bad)
    }
}

/// Which views are made of an image. Written `center`, `center+flip`, `random-crop:K`, `ten-crop`, `ten-crop:1.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Views {
    /// One view: resize the shorter side, crop the centre (torchvision's `Resize` and `CenterCrop`).
    Center,
    /// Two views: the centre, and the same pixels mirrored.
    CenterFlip,
    /// This number of views, at least one: resize, then crops at places drawn uniformly by (seed, key, view).
    RandomCrop(u32),
    /// Ten views, torchvision's `TenCrop`: four corners and the centre, then the same of the mirrored image, of an image
    /// whose shorter side is `factor` times the view's.
    TenCrop(Factor),
}

impl Views {
    /// Views of one image.
    pub fn count(self) -> u32 {
        match self {
            Views::Center => 1,
            Views::CenterFlip => 2,
            Views::RandomCrop(crops) => crops,
            Views::TenCrop(_) => 10,
        }
    }
}

impl fmt::Display for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Views::Center => f.write_str("center"),
            Views::CenterFlip => f.write_str("center+flip"),
            Views::RandomCrop(crops) => write!(f, "random-crop:{crops}"),
            Views::TenCrop(Factor::ONE) => f.write_str("ten-crop"),
            Views::TenCrop(factor) => write!(f, "ten-crop:{factor}"),
        }
    }
}

impl FromStr for Views {
    type Err = RecipeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || RecipeError::Views { given: text.to_owned() };
        match text.split_once(':') {
            None if text == "center" => Ok(Views::Center),
            None if text == "center+flip" => Ok(Views::CenterFlip),
            None if text == "ten-crop" => Ok(Views::TenCrop(Factor::ONE)),
            Some(("ten-crop", factor)) => factor.parse().map(Views::TenCrop),
            Some(("random-crop", crops)) if crops.bytes().all(|b| b.is_ascii_digit()) => {
                let crops = crops.parse().map_err(|_| bad())?;
                if (1..=MAX_RANDOM_CROPS).contains(&crops) { Ok(Views::RandomCrop(crops)) } else { Err(bad()) }
            }
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Views {
    type Error = RecipeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Views> for String {
    fn from(views: Views) -> String {
        views.to_string()
    }
}

/// How an image becomes as large as its crops ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Resize {
    /// Pillow's BILINEAR with antialiasing, equal to the bit. Written `pillow-bilinear`.
    #[default]
    PillowBilinear,
    /// `center_crop_arr` of ADM, which DiT, LlamaGen, MAR and RAR use: halved with a box filter while the shorter side is at
    /// least twice as long as wanted, then Pillow's BICUBIC, then a square from the centre, of which crops are cut; all equal
    /// to the bit. Random crops come from the whole resized image. Written `adm`.
    Adm,
}

impl FromStr for Resize {
    type Err = RecipeError;

    /// `exact` or `adm`, or the name in recipes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "exact" | "pillow-bilinear" => Ok(Resize::PillowBilinear),
            "adm" => Ok(Resize::Adm),
            "fast" | "fast-bilinear" => Err(RecipeError::RemovedResize { given: text.to_owned() }),
            _ => Err(RecipeError::Resize { given: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for Resize {
    type Error = RecipeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Resize> for String {
    fn from(resize: Resize) -> String {
        match resize {
            Resize::PillowBilinear => "pillow-bilinear".to_owned(),
            Resize::Adm => "adm".to_owned(),
        }
    }
}

/// What is done with an EXIF orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Orientation {
    /// Nothing: pixels are taken as stored, as the reference does.
    #[default]
    #[serde(rename = "ignore")]
    Ignore,
    /// The image is turned and mirrored as the orientation asks, before anything else: Pillow's `ImageOps.exif_transpose`.
    #[serde(rename = "apply")]
    Apply,
}

impl FromStr for Orientation {
    type Err = RecipeError;

    /// `ignore` or `apply`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ignore" => Ok(Orientation::Ignore),
            "apply" => Ok(Orientation::Apply),
            _ => Err(RecipeError::Orientation { given: text.to_owned() }),
        }
    }
}

/// What is made of every image.
///
/// Its canonical form is one line of JSON ([`Recipe::to_json`], also `Display`; [`Recipe::from_json`], also `FromStr`).
/// Equal forms mean equal pixels. The seed is part of it only where it has an effect, and 0 elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Side of a view, in pixels; at least 1.
    pub size: u32,
    /// Which views.
    pub views: Views,
    /// Seed of random crops.
    #[serde(default)]
    pub seed: u64,
    /// The resampler.
    #[serde(default)]
    pub resize: Resize,
    /// What is done with an EXIF orientation.
    #[serde(default)]
    pub orientation: Orientation,
}

impl Default for Recipe {
    /// One centre crop of 256 x 256 pixels.
    fn default() -> Self {
        let (resize, orientation) = (Resize::default(), Orientation::default());
        Recipe { size: DEFAULT_SIZE, views: Views::Center, seed: 0, resize, orientation }
    }
}

impl Recipe {
    /// Views of one image.
    pub fn num_views(&self) -> u32 {
        self.views.count()
    }

    /// Length that an image's shorter side is resized to, in pixels.
    pub fn shorter_side(&self) -> u32 {
        match self.views {
            Views::TenCrop(factor) => factor.scale(self.size),
            _ => self.size,
        }
    }

    /// Columns and rows of the resized image that the crops of an image of `width` x `height` pixels are cut from; `None`
    /// where a side would exceed 2^31 - 1, and for an empty image.
    pub fn resized_size(&self, width: u32, height: u32) -> Option<(u32, u32)> {
        let is_image = self.size > 0 && width > 0 && height > 0;
        is_image.then(|| ResizePlan::new(self, (width, height)).ok()).flatten().map(|plan| plan.resized())
    }

    /// Checks what the types do not: the size must lie in 1 to 16384, and there must be a view.
    ///
    /// # Errors
    /// [`RecipeError`], naming the setting and what was expected.
    pub fn validate(&self) -> Result<(), RecipeError> {
        if !(1..=MAX_SIZE).contains(&self.size) {
            return Err(RecipeError::Size { given: self.size });
        }
        if !(1..=MAX_RANDOM_CROPS).contains(&self.views.count()) {
            return Err(RecipeError::Views { given: self.views.to_string() });
        }
        Ok(())
    }

    /// The canonical line, for example
    /// `{"size":256,"views":"center","seed":0,"resize":"pillow-bilinear","orientation":"ignore"}`.
    pub fn to_json(&self) -> String {
        let seed = if matches!(self.views, Views::RandomCrop(_)) { self.seed } else { 0 };
        // A struct of numbers and strings always has a JSON form.
        serde_json::to_string(&Recipe { seed, ..*self }).unwrap_or_default()
    }

    /// Reads [`Recipe::to_json`]'s form.
    ///
    /// # Errors
    /// [`RecipeError`] for text that is not a recipe, has unknown fields, is out of range, or names a resampler of earlier
    /// versions.
    pub fn from_json(text: &str) -> Result<Recipe, RecipeError> {
        let recipe: Recipe = serde_json::from_str(text)
            .map_err(|source| removed_resize(text).unwrap_or(RecipeError::Json { source }))?;
        recipe.validate()?;
        Ok(recipe)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

impl FromStr for Recipe {
    type Err = RecipeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Recipe::from_json(text)
    }
}

/// What is wrong with the resampler of a recipe, if it is one of earlier versions.
fn removed_resize(text: &str) -> Option<RecipeError> {
    let recipe: serde_json::Value = serde_json::from_str(text).ok()?;
    let error = recipe["resize"].as_str()?.parse::<Resize>().err()?;
    matches!(error, RecipeError::RemovedResize { .. }).then_some(error)
}

/// A recipe that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Unknown or impossible views.
    #[error(
        "views '{given}'; expected center, center+flip, random-crop:K (K from 1 to 65536), ten-crop or ten-crop:F (F from 1 to 10, at most three decimals)"
    )]
    Views {
        /// What was given.
        given: String,
    },
    /// An unknown resampler.
    #[error("resampler '{given}'; expected exact or adm")]
    Resize {
        /// What was given.
        given: String,
    },
    /// A resampler of earlier versions.
    #[error(
        "resampler '{given}' was removed: it was no faster than exact, the default, and differed from it by one level in a tenth of the values; caches made with it can still be read"
    )]
    RemovedResize {
        /// What was given.
        given: String,
    },
    /// An unknown treatment of the EXIF orientation.
    #[error("EXIF orientation '{given}'; expected ignore or apply")]
    Orientation {
        /// What was given.
        given: String,
    },
    /// An impossible size.
    #[error("size {given}; expected 1 to 16384 pixels")]
    Size {
        /// What was given.
        given: u32,
    },
    /// Text that is not a recipe.
    #[error("not a recipe: {source}")]
    Json {
        /// What the JSON reader said.
        source: serde_json::Error,
    },
}
