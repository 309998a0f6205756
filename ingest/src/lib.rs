//! Image sources to RGB pixel grids, equal to Pillow + torchvision to the bit.
//!
//! One image's way through this crate:
//!
//! 1. [`Source`] (module `source`) recognises what a path holds (class folders, a flat folder, a file list, tars, WebDataset
//!    shards, Parquet), names every image by a key that stays the same wherever the data set lies and whatever holds it, and
//!    reads the bytes by position.
//! 2. [`decode_rgb`] (module `decode`) turns the bytes of a JPEG, PNG, GIF, WebP or BMP file into 8-bit RGB. It accepts
//!    and rejects what Pillow accepts and rejects, and never trusts a size that it has not checked. Corrupt JPEG data is
//!    equal to the bit only where [`jpeg_simd`] holds.
//! 3. [`views_of`] (module `crop`) resizes and crops by a [`Recipe`]. The kernels (module `resample`) are Pillow's fixed
//!    point arithmetic, computed only where a crop needs it. [`views_of_file`] does steps 2 and 3, and decodes only what the
//!    crops need.
//! 4. [`ViewStream`] (module `stream`) does all of it on worker threads, in the order given, in bounded memory, and hands
//!    over a damaged image as a [`Bad`] with its reason instead of stopping; a [`BadPolicy`] says how many of them a job puts
//!    up with. [`BatchStream`] has the workers write the views straight into full batches for an encoder.
//!
//! The crate depends on no other crate of the workspace and not on libtorch.
//!
//! ```no_run
//! use std::{path::Path, sync::Arc};
//! use tokengrid_ingest::{Recipe, Source, SourceOptions, StreamConfig, ViewStream, Views};
//!
//! # fn main() -> Result<(), tokengrid_ingest::IngestError> {
//! let source = Arc::new(Source::open(Path::new("imagenet/val"), &SourceOptions::default())?);
//! let recipe = Recipe { size: 256, views: Views::Center, ..Recipe::default() };
//! let order = 0..source.len();
//! for image in ViewStream::spawn(source, order, recipe, StreamConfig::default()) {
//!     match image.outcome {
//!         Ok(views) => println!("{} {} views", image.key, views.len()),
//!         Err(bad) => eprintln!("{}: {bad}", image.key),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod crop;
mod decode;
mod error;
mod memory;
mod orient;
mod png_writer;
mod policy;
mod psnr;
mod recipe;
mod resample;
mod resize_plan;
mod source;
mod stages;
mod stream;

pub use crop::{View, ViewError, resized, views_of};
pub use decode::{
    Accept, DecodeError, Format, JpegEntropy, Limits, MAX_PIXELS, RgbImage, decode_rgb, decode_rgb_if,
    exif_orientation, jpeg_simd, picture_size,
};
pub use error::{Bad, IngestError, Stage};
pub use memory::{memory_budget, set_memory_budget, share_memory_budget, trim_heaps};
pub use png_writer::{PngSize, write_png};
pub use policy::{BadCounter, BadPolicy, OnBad, TooBad};
pub use psnr::psnr;
pub use recipe::{Factor, Orientation, Recipe, RecipeError, Resize, Views};
pub use resample::{Kernel, Region, Resampler, target_size};
pub use source::{MAX_FILE_BYTES, OPEN_MAGVIT2_EXCLUDE, Source, SourceOptions, lies_in};
pub use stages::{StageCounters, StageSeconds, StageTimes};
pub use stream::{
    AcceptSize, BatchImage, BatchSlot, BatchStream, ImageViews, StreamConfig, ViewBatch, ViewStream, WholeImage,
    WholeStream, views_of_file,
};
