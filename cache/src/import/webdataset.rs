//! A cache out of WebDataset shards of tokens: tar archives whose members are grouped by the name before the first dot.

use crate::cancel;
use crate::error::CacheError;
use crate::files::npy::NpyReader;
use crate::files::token_samples::SampleInfo;
use crate::import::error::import_error;
use crate::import::exported_shards::{first_row, import_exported};
use crate::import::importer::{ImportOptions, Importer, width_of};
use crate::import::sample_layout::SampleLayout;
use crate::import::seen_keys::{SeenKeys, TwoPlaces};
use crate::import::tar_members::{Member, TarMembers};
use crate::write::writer::{Finished, OpenMode};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Endings of the member with tokens, the first one that is there counts.
const TOKENS: [&str; 7] = ["tokens.npy", "token.npy", "codes.npy", "npy", "tokens.json", "codes.json", "json"];

/// The ending of the member with the class, as text.
const CLASS: &str = "cls";

/// Members of one name that follow each other.
pub(super) struct Group<'a> {
    pub(super) key: &'a str,
    pub(super) shard: &'a Path,
    /// The first member of the group, counted from 1 in its shard.
    member: usize,
    /// What they hold, where there are tokens among them.
    pub(super) sample: Option<Sample>,
    /// Whether they are a part of a sample: tokens or a class.
    is_part: bool,
}

pub(super) struct Sample {
    pub(super) tokens: Vec<i64>,
    /// Of their array or nested lists.
    shape: Vec<usize>,
    label: i64,
    /// What our export says about the row that this is.
    pub(super) row: Option<SampleInfo>,
}

pub(super) type VisitGroup<'a> = dyn FnMut(Group<'_>) -> Result<(), CacheError> + 'a;

/// Imports the samples of `shards` in order, which gzip may have compressed. Tokens are a `.npy` of integers (`tokens.npy`,
/// `codes.npy`, `npy`), or lists in a `.json`, by themselves or as its `tokens`; the class is a number in `.cls`, or the `label`,
/// `cls` or `class_id` of the `.json`. The name before the first dot is the key, and different for all samples.
///
/// A sample of several grids has as many views. A grid of 0 x 0 stands for that of the first sample's shape: `[H * W]` and
/// `[S, S]` are a square grid, `[views, H * W]` and `[views, H, W]` several, where that is the only way to read them; with
/// `options.views`, also others are. Shards that [`crate::export_webdataset`] wrote give the cache that they were written from.
///
/// # Errors
/// [`CacheError::Import`] naming the sample; [`CacheError::NoRows`]; otherwise as [`crate::import_npy`].
pub fn import_webdataset(
    shards: &[PathBuf],
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    if let Some(first) = first_row(shards)? {
        return import_exported(shards, &first, options, out, mode);
    }
    let Surveyed { images, largest, size, shape, place } = survey(shards)?;
    let (num_tokens, mut options) = (size, options.clone());
    let layout = layout_of(&shape, num_tokens, &options);
    let SampleLayout { grid, views } =
        layout.map_err(|expected| import_error(&place, "shape of the tokens", expected, format!("{shape:?}")))?;
    (options.grid, options.views) = (grid, views);
    let bits = options.bits.unwrap_or_else(|| width_of(largest));
    let mut importer = Importer::open(&place, images, bits, &options, out, mode)?;
    let mut image = 0;
    visit_groups(shards, &mut |group| {
        if let Some(sample) = group.sample {
            importer.push(image, &sample.tokens, sample.label, group.key)?;
            image += 1;
        }
        Ok(())
    })?;
    importer.writer.finish()
}

/// What all samples together say.
#[derive(Default)]
struct Surveyed {
    images: usize,
    largest: i64,
    /// Tokens of every sample, the shape of the first one, and its shard.
    size: usize,
    shape: Vec<usize>,
    place: PathBuf,
}

/// Looks at all samples before any is written: a job knows its images from the beginning.
fn survey(shards: &[PathBuf]) -> Result<Surveyed, CacheError> {
    let (mut found, mut keys) = (Surveyed::default(), SeenKeys::default());
    visit_groups(shards, &mut |group| {
        if group.is_part {
            keys.add(group.key);
        }
        let Some(sample) = group.sample else { return Ok(()) };
        if found.images == 0 {
            (found.size, found.shape, found.place) = (sample.tokens.len(), sample.shape, group.shard.to_owned());
        }
        if sample.tokens.len() != found.size {
            let expected = format!("{} as the first sample's (sample {})", found.size, group.key);
            return Err(import_error(group.shard, "number of tokens", expected, sample.tokens.len()));
        }
        found.largest = sample.tokens.into_iter().fold(found.largest, i64::max);
        found.images += 1;
        Ok(())
    })?;
    if let Some(hash) = keys.repeated() {
        refuse_repeated(shards, hash)?;
    }
    if found.size == 0 {
        let path = shards.first().cloned().unwrap_or_default();
        let what = format!("no sample has tokens, in a member that ends in one of {}", TOKENS.join(", "));
        return Err(CacheError::NoRows { path, what });
    }
    Ok(found)
}

/// The error for a key that two samples have, by its hash.
fn refuse_repeated(shards: &[PathBuf], hash: u64) -> Result<(), CacheError> {
    let mut places = TwoPlaces::of(hash);
    visit_groups(shards, &mut |group| {
        if !group.is_part {
            return Ok(());
        }
        let place = || format!("member {} of {}", group.member, group.shard.display());
        match places.take(group.key, place) {
            None => Ok(()),
            Some(first) => {
                let expected = format!(
                    "another key than that of {first}: samples have keys of their own, and the members of a sample \
                     follow each other"
                );
                let actual = format!("`{}` (member {})", group.key, group.member);
                Err(import_error(group.shard, "key", expected, actual))
            }
        }
    })
}

/// The grid and the views of samples; what else to give.
fn layout_of(shape: &[usize], num_tokens: usize, options: &ImportOptions) -> Result<SampleLayout, String> {
    let typed = options.views as usize;
    if options.grid == (0, 0) {
        return match typed {
            0 => SampleLayout::of(shape),
            views => SampleLayout::of_views(shape, views)
                .ok_or_else(|| format!("{views} square grids (--views {views}): else give --grid HxW")),
        };
    }
    let (height, width) = options.grid;
    let grid_tokens = height as usize * width as usize;
    if grid_tokens == 0 || !num_tokens.is_multiple_of(grid_tokens) {
        return Err(format!("a multiple of {grid_tokens} tokens (--grid {height}x{width})"));
    }
    let views = num_tokens / grid_tokens;
    if typed > 0 && typed != views {
        return Err(format!("{typed} grids of {height}x{width} (--views {typed}), and there are {views}"));
    }
    Ok(SampleLayout { grid: options.grid, views: u32::try_from(views).unwrap_or(u32::MAX) })
}

pub(super) fn visit_groups(shards: &[PathBuf], visit: &mut VisitGroup<'_>) -> Result<(), CacheError> {
    for shard in shards {
        let mut archive = TarMembers::open(shard)?;
        let (mut key, mut members, mut first, mut number) = (String::new(), Vec::new(), 0, 0);
        while let Some(member) = archive.next()? {
            cancel::check()?;
            number += 1;
            let Some((name, _)) = split_name(&member.name) else { continue };
            if name != key {
                let name = name.to_owned();
                finish_group(shard, &key, first, std::mem::take(&mut members), visit)?;
                (key, first) = (name, number);
            }
            members.push(member);
        }
        finish_group(shard, &key, first, members, visit)?;
    }
    Ok(())
}

fn finish_group(
    shard: &Path,
    key: &str,
    member: usize,
    members: Vec<Member>,
    visit: &mut VisitGroup<'_>,
) -> Result<(), CacheError> {
    if members.is_empty() {
        return Ok(());
    }
    let ending = |member: &Member| split_name(&member.name).map_or(String::new(), |(_, ending)| ending.to_owned());
    let mut endings: Vec<String> = members.iter().map(ending).collect();
    endings.sort_unstable();
    if let Some(twice) = endings.windows(2).find(|pair| pair[0] == pair[1]) {
        let expected = format!("each once (sample {key})");
        return Err(import_error(shard, "member", expected, format!("{key}.{} twice", twice[0])));
    }
    let is_part = endings.iter().any(|ending| ending == CLASS || TOKENS.contains(&ending.as_str()));
    visit(Group { key, shard, member, sample: sample_of(shard, key, &members)?, is_part })
}

/// Key and ending: the file's name is cut at its first dot.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    (dot > file).then(|| (&name[..dot], &name[dot + 1..]))
}

/// The sample of `members`, if there are tokens among them.
fn sample_of(shard: &Path, key: &str, members: &[Member]) -> Result<Option<Sample>, CacheError> {
    let find = |ending: &str| members.iter().find(|member| split_name(&member.name).is_some_and(|(_, e)| e == ending));
    let Some((ending, member)) = TOKENS.iter().find_map(|ending| Some((*ending, find(ending)?))) else {
        return Ok(None);
    };
    let refuse =
        |what, expected: &str, actual: String| import_error(shard, what, format!("{expected} (sample {key})"), actual);
    let json = |member: &Member| -> Result<serde_json::Value, CacheError> {
        serde_json::from_slice(&member.content).map_err(|error| refuse("JSON member", "JSON", error.to_string()))
    };
    let described = find("json").map(json).transpose()?.unwrap_or_default();
    let (tokens, shape) = if ending.ends_with("npy") {
        array_of(&shard.join(&member.name), &member.content)?
    } else {
        let value = json(member)?;
        let list = if value.is_array() { &value } else { &value["tokens"] };
        let (mut tokens, mut shape) = (Vec::new(), Vec::new());
        if !flatten(list, 0, &mut tokens, &mut shape) {
            let found = list.to_string().chars().take(60).collect();
            return Err(refuse("tokens", "integers in lists of equal lengths", found));
        }
        (tokens, shape)
    };
    let label = match find(CLASS) {
        Some(class) => {
            let text = String::from_utf8_lossy(&class.content).trim().to_owned();
            text.parse().map_err(|_| refuse("class", "a number", text))?
        }
        None => ["label", "cls", "class_id"].iter().find_map(|name| described[name].as_i64()).unwrap_or(-1),
    };
    Ok(Some(Sample { tokens, shape, label, row: serde_json::from_value(described).ok() }))
}

/// The elements of an array, and its shape.
fn array_of(name: &Path, content: &[u8]) -> Result<(Vec<i64>, Vec<usize>), CacheError> {
    let mut reader = NpyReader::of(name, Box::new(Cursor::new(content.to_vec())), content.len() as u64)?;
    let mut tokens = vec![0; reader.shape.iter().product()];
    reader.read(&mut tokens)?;
    Ok((tokens, reader.shape))
}

/// The integers of nested lists, in order, and the lengths of the lists, which are equal at each depth. Whether it is that.
fn flatten(value: &serde_json::Value, depth: usize, out: &mut Vec<i64>, shape: &mut Vec<usize>) -> bool {
    let Some(list) = value.as_array() else {
        return depth == shape.len() && value.as_i64().map(|number| out.push(number)).is_some();
    };
    // The first list of a depth comes before any number.
    if depth == shape.len() && out.is_empty() {
        shape.push(list.len());
    }
    shape.get(depth) == Some(&list.len()) && list.iter().all(|value| flatten(value, depth + 1, out, shape))
}
