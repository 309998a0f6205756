//! `tokengrid reconstruct`: encodes and decodes images with a tokenizer.

use super::model;
use crate::args::{Global, ReconstructArgs, SIZE_MAX};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::print_json;
use crate::{files, signals};
use anyhow::Context;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokengrid_eval::reconstruct::{Extent, Reconstruction, check_extent, reconstruct};
use tokengrid_model::Picture;

/// Most pairs of original and reconstruction per row of the sheet.
const PAIRS_PER_ROW: usize = 4;
/// Name of the picture with all pairs.
const SHEET: &str = "reconstructions.png";

/// Runs the command.
pub(super) fn run(args: &ReconstructArgs, global: &Global) -> anyhow::Result<()> {
    let extent = extent(&args.size)?;
    check_apart(&args.images, &args.out)?;
    let jobs = jobs(&images(&args.images)?, &args.out);
    check_targets(&jobs, args)?;
    let runtime = model::runtime(&args.device, global)?;
    let (tokenizer, _) = model::tokenizer(&args.tokenizer, &runtime)?;
    check_extent(extent, &tokenizer)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let (mut pairs, mut report, mut bad) = (vec![], vec![], vec![]);
    for Job { image, picture } in &jobs {
        if signals::cancelled() {
            return Err(signals::Stopped.into());
        }
        match reconstruct(image, extent, &tokenizer, &runtime) {
            Ok(result) => {
                let pair = Picture::grid(&[result.original.clone(), result.reconstruction.clone()], 2);
                files::write_whole(picture, &pair.to_png())?;
                if !global.json {
                    println!("{}  {:.2} dB  {}", image.display(), result.psnr, picture.display());
                }
                report.push(entry(image, picture, &result));
                pairs.extend([result.original, result.reconstruction]);
            }
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                eprintln!("tokengrid: {reason}");
                bad.push(json!({ "image": image, "reason": reason }));
            }
        }
    }
    let sheet = sheet(&pairs, extent, &args.out)?;
    if global.json {
        print_json(&json!({ "images": report, "bad": bad, "sheet": sheet }))?;
    } else if let Some(sheet) = &sheet {
        println!("all of them: {}", sheet.display());
    }
    if !bad.is_empty() {
        return Err(CheckFailed(format!("{} of {} images could not be read", bad.len(), jobs.len())).into());
    }
    Ok(())
}

fn extent(size: &str) -> anyhow::Result<Extent> {
    if size == "original" {
        return Ok(Extent::Original);
    }
    // Larger squares would be mostly interpolated, and need too much memory.
    let pixels = size.parse().ok().filter(|pixels| (1..=SIZE_MAX).contains(pixels));
    let refuse = || Usage(format!("--size {size}: expected a number of pixels from 1 to {SIZE_MAX}, or `original`"));
    Ok(Extent::Square(pixels.ok_or_else(refuse)?))
}

/// An image and its output picture.
struct Job {
    image: PathBuf,
    picture: PathBuf,
}

/// Output names have a number, since images of different folders may share a name.
fn jobs(images: &[PathBuf], out: &Path) -> Vec<Job> {
    let job = |(number, image): (usize, &PathBuf)| {
        let name = image.file_stem().map_or("image".into(), |stem| stem.to_string_lossy().into_owned());
        Job { image: image.clone(), picture: out.join(format!("{number:03}-{name}.png")) }
    };
    images.iter().enumerate().map(job).collect()
}

/// Replaces folders by the image files in them, sorted by name.
fn images(arguments: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
    let is_image = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        path.is_file() && EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
    };
    let mut images = vec![];
    for path in arguments {
        if !path.is_dir() {
            images.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_image).collect();
        anyhow::ensure!(!inside.is_empty(), "{} holds no image files ({})", path.display(), EXTENSIONS.join(", "));
        inside.sort();
        images.extend(inside);
    }
    Ok(images)
}

/// Refuses an output folder whose images are inputs: the pictures would be inputs of the next run.
fn check_apart(arguments: &[PathBuf], out: &Path) -> anyhow::Result<()> {
    let Ok(out_real) = out.canonicalize() else { return Ok(()) };
    match arguments.iter().any(|folder| folder.is_dir() && folder.canonicalize().is_ok_and(|real| real == out_real)) {
        true => Err(Usage(format!("--out {} is one of the inputs; give a folder elsewhere", out.display())).into()),
        false => Ok(()),
    }
}

/// Refuses to replace files without `--overwrite`, and to replace an input at all.
fn check_targets(jobs: &[Job], args: &ReconstructArgs) -> anyhow::Result<()> {
    let sheet = args.out.join(SHEET);
    let targets: Vec<&Path> = jobs.iter().map(|job| job.picture.as_path()).chain([sheet.as_path()]).collect();
    let inputs: Vec<PathBuf> = jobs.iter().filter_map(|job| job.image.canonicalize().ok()).collect();
    for target in targets.into_iter().filter(|target| target.exists()) {
        let name = target.display();
        if target.canonicalize().is_ok_and(|target| inputs.contains(&target)) {
            return Err(CheckFailed(format!("{name} is one of the inputs; give another --out")).into());
        }
        if !args.overwrite {
            return Err(CheckFailed(format!("{name} exists; give another --out, or --overwrite")).into());
        }
    }
    Ok(())
}

fn entry(image: &Path, picture: &Path, result: &Reconstruction) -> Value {
    let size = [result.original.height, result.original.width];
    // Equal pictures have an infinite PSNR, which JSON cannot represent.
    let psnr = Some(result.psnr).filter(|psnr| psnr.is_finite());
    json!({
        "image": image, "picture": picture, "psnr": psnr, "size": size, "grid": result.grid,
        "tokens": result.tokens.len(),
    })
}

/// Writes all pairs on one picture, if they have the same size.
fn sheet(pairs: &[Picture], extent: Extent, out: &Path) -> anyhow::Result<Option<PathBuf>> {
    if pairs.is_empty() || extent == Extent::Original {
        return Ok(None);
    }
    let path = out.join(SHEET);
    files::write_whole(&path, &Picture::grid(pairs, 2 * PAIRS_PER_ROW).to_png())?;
    Ok(Some(path))
}
