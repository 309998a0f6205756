//! `tokengrid reconstruct`: images through a tokenizer and back.

use super::model;
use crate::args::{Global, ReconstructArgs};
use crate::terminal::print_json;
use anyhow::Context;
use serde_json::json;
use tokengrid_sample::reconstruct::reconstruct;
use tokengrid_tokenize::Picture;

/// Originals and reconstructions side by side, four pairs a row at most.
const PAIRS_A_ROW: usize = 4;

/// Runs the command.
pub fn run(args: &ReconstructArgs, global: &Global) -> anyhow::Result<()> {
    let runtime = model::runtime(&args.device, global)?;
    let (tokenizer, _) = model::tokenizer(&args.tokenizer, &runtime)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let mut pairs = vec![];
    let mut report = vec![];
    for (number, path) in args.images.iter().enumerate() {
        let result = reconstruct(path, args.size, &tokenizer, &runtime)?;
        let name = path.file_stem().map_or("image".into(), |stem| stem.to_string_lossy().into_owned());
        // Numbered: images of different folders may share a name.
        let picture = args.out.join(format!("{number:03}-{name}.png"));
        Picture::grid(&[result.original.clone(), result.reconstruction.clone()], 2).save(&picture)?;
        report.push(json!({ "image": path, "picture": picture, "psnr": result.psnr, "tokens": result.tokens.len() }));
        if !global.json {
            println!("{}  {:.2} dB  {}", path.display(), result.psnr, picture.display());
        }
        pairs.extend([result.original, result.reconstruction]);
    }
    let sheet = args.out.join("reconstructions.png");
    Picture::grid(&pairs, 2 * PAIRS_A_ROW).save(&sheet)?;
    if global.json {
        return print_json(&json!({ "images": report, "sheet": sheet }));
    }
    println!("all of them: {}", sheet.display());
    Ok(())
}
