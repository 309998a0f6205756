//! A cache out of WebDataset shards of tokens: tar archives whose members are grouped by the name before the first dot.

use crate::cancel;
use crate::error::CacheError;
use crate::files::npy::NpyReader;
use crate::import::error::import_error;
use crate::import::importer::{ImportOptions, Importer, square_of, width_of};
use crate::import::tar_members::{Member, TarMembers};
use crate::write::writer::{Finished, OpenMode};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Endings of the member with tokens, the first one that is there counts.
const TOKENS: [&str; 7] = ["tokens.npy", "token.npy", "codes.npy", "npy", "tokens.json", "codes.json", "json"];

/// The ending of the member with the class, as text.
const CLASS: &str = "cls";

/// What the members of one name are.
struct Sample {
    key: String,
    shard: PathBuf,
    tokens: Vec<i64>,
    label: i64,
}

/// Imports the samples of `shards` in order. Tokens are a `.npy` of integers (`tokens.npy`, `codes.npy`, `npy`), or lists in a
/// `.json`, by themselves or as its `tokens`; the class is a number in `.cls`, or the `label`, `cls` or `class_id` of the `.json`.
/// The name before the first dot is the key. A sample of several grids has as many views. A grid of 0 x 0 stands for a square
/// one of as many tokens as a view has.
///
/// # Errors
/// [`CacheError::Import`] naming the sample; otherwise as [`crate::import_npy`].
pub fn import_webdataset(
    shards: &[PathBuf],
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    // Once to count, since a job knows its images from the beginning, and to learn how wide tokens are.
    let (mut images, mut largest, mut size, mut place) = (0usize, 0, 0usize, PathBuf::new());
    visit_samples(shards, &mut |sample| {
        if images == 0 {
            (size, place) = (sample.tokens.len(), sample.shard.clone());
        }
        if sample.tokens.len() != size {
            let expected = format!("{size} as the first sample's (sample {})", sample.key);
            return Err(import_error(&sample.shard, "number of tokens", expected, sample.tokens.len()));
        }
        largest = sample.tokens.into_iter().fold(largest, i64::max);
        images += 1;
        Ok(())
    })?;
    if images == 0 {
        let shard = shards.first().cloned().unwrap_or_default();
        return Err(import_error(&shard, "number of samples with tokens", "at least 1".into(), 0));
    }
    let mut options = options.clone();
    if options.grid == (0, 0) {
        options.grid = square_of(&place, size / options.views.max(1) as usize)?;
    }
    let num_tokens = options.grid.0 as usize * options.grid.1 as usize;
    if num_tokens == 0 || !size.is_multiple_of(num_tokens) || size == 0 {
        return Err(import_error(&place, "number of tokens", format!("a multiple of {num_tokens}"), size));
    }
    options.views = (size / num_tokens) as u32;
    let bits = options.bits.unwrap_or_else(|| width_of(largest));
    let mut importer = Importer::open(&place, images, bits, &options, out, mode)?;
    let mut image = 0;
    visit_samples(shards, &mut |sample| {
        importer.push(image, &sample.tokens, sample.label, &sample.key)?;
        image += 1;
        Ok(())
    })?;
    importer.writer.finish()
}

fn visit_samples(
    shards: &[PathBuf],
    visit: &mut dyn FnMut(Sample) -> Result<(), CacheError>,
) -> Result<(), CacheError> {
    for shard in shards {
        let mut archive = TarMembers::open(shard)?;
        let (mut key, mut members) = (String::new(), Vec::new());
        while let Some(member) = archive.next()? {
            cancel::check()?;
            let Some((name, _)) = split_name(&member.name) else { continue };
            if name != key {
                let name = name.to_owned();
                finish_sample(shard, &key, std::mem::take(&mut members), visit)?;
                key = name;
            }
            members.push(member);
        }
        finish_sample(shard, &key, members, visit)?;
    }
    Ok(())
}

/// Key and ending: the file's name is cut at its first dot.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    (dot > file).then(|| (&name[..dot], &name[dot + 1..]))
}

/// Hands on the sample of `members`, if there are tokens among them.
fn finish_sample(
    shard: &Path,
    key: &str,
    members: Vec<Member>,
    visit: &mut dyn FnMut(Sample) -> Result<(), CacheError>,
) -> Result<(), CacheError> {
    let find = |ending: &str| members.iter().find(|member| split_name(&member.name).is_some_and(|(_, e)| e == ending));
    let Some((ending, member)) = TOKENS.iter().find_map(|ending| Some((*ending, find(ending)?))) else {
        return Ok(());
    };
    let refuse =
        |what, expected: &str, actual: String| import_error(shard, what, format!("{expected} (sample {key})"), actual);
    let json = |member: &Member| -> Result<serde_json::Value, CacheError> {
        serde_json::from_slice(&member.content).map_err(|error| refuse("JSON member", "JSON", error.to_string()))
    };
    let described = find("json").map(json).transpose()?.unwrap_or_default();
    let tokens = if ending.ends_with("npy") {
        let name = shard.join(&member.name);
        let content = member.content.clone();
        let bytes = content.len() as u64;
        let mut reader = NpyReader::of(&name, Box::new(Cursor::new(content)), bytes)?;
        let mut tokens = vec![0; reader.shape.iter().product()];
        reader.read(&mut tokens)?;
        tokens
    } else {
        let value = json(member)?;
        let list = if value.is_array() { &value } else { &value["tokens"] };
        let mut tokens = Vec::new();
        if !flatten(list, &mut tokens) {
            return Err(refuse("tokens", "a list of integers", list.to_string().chars().take(60).collect()));
        }
        tokens
    };
    let label = match find(CLASS) {
        Some(class) => {
            let text = String::from_utf8_lossy(&class.content).trim().to_owned();
            text.parse().map_err(|_| refuse("class", "a number", text))?
        }
        None => ["label", "cls", "class_id"].iter().find_map(|name| described[name].as_i64()).unwrap_or(-1),
    };
    visit(Sample { key: key.to_owned(), shard: shard.to_owned(), tokens, label })
}

/// The integers of nested lists, in order.
fn flatten(value: &serde_json::Value, out: &mut Vec<i64>) -> bool {
    match value.as_array() {
        Some(list) => list.iter().all(|value| flatten(value, out)),
        None => value.as_i64().map(|number| out.push(number)).is_some(),
    }
}
