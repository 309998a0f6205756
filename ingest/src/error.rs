//! What can be wrong with a source, and with one image of it.

use crate::source::count;
use std::fmt;
use std::io;
use std::path::PathBuf;
use tokengrid_store::StoreError;

/// Why a source cannot be opened. One line each: what is wrong, where, what was expected, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The path does not exist.
    #[error("{path}: no such file or folder; expected a folder of images, a tree of class folders, a .txt file list, a tar, a Parquet file, or a pattern of them such as shards/{{000..099}}.tar", path = .path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The operating system refuses to read a file or folder.
    #[error("{path}: cannot be read{advice}", path = .path.display(), advice = read_advice(.source))]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A folder or list without a single image.
    #[error(
        "{path}: no images in it ({ignored} ignored); expected files named .jpg, .jpeg, .png, .webp, .gif or .bmp, directly or in class folders",
        path = .path.display(), ignored = count(*.ignored, "other file")
    )]
    Empty {
        /// The folder or list.
        path: PathBuf,
        /// Files that were seen and are not images by name.
        ignored: usize,
    },
    /// A list without lines, or Parquet files without rows.
    #[error("{path}: no images in it: {what}", path = .path.display())]
    NoRows {
        /// The list, file, folder or pattern.
        path: PathBuf,
        /// What is empty, in words.
        what: &'static str,
    },
    /// Every image is named by the exclude list.
    #[error("{path}: all its images are excluded ({excluded}); shorten the exclude list", path = .path.display(), excluded = count(*.excluded, "image"))]
    AllExcluded {
        /// The folder or list.
        path: PathBuf,
        /// Images excluded.
        excluded: usize,
    },
    /// A file that is neither a list nor a container.
    #[error("{path}: {found}, not a source; expected a folder of images, a .txt list of image files, a .tar or a .parquet file", path = .path.display())]
    NotASource {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// A container whose images cannot be read by position.
    #[error("{path}: {container}; images cannot be read from it by position: run `{command} {path}` and give the result", path = .path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// What it was recognised as, for example `compressed with gzip`.
        container: &'static str,
        /// The program that unpacks it.
        command: &'static str,
    },
    /// Tars and Parquet files in one source.
    #[error("{path}: {first} and {second} are containers of different kinds; give the files of one kind", path = .path.display(), first = .first.display(), second = .second.display())]
    MixedContainers {
        /// The folder or pattern.
        path: PathBuf,
        /// A file of one kind.
        first: PathBuf,
        /// A file of another.
        second: PathBuf,
    },
    /// A folder whose tars or Parquet files lie in a folder of it.
    #[error("{path}: no images in it, but containers in {folder}; give that folder", path = .path.display(), folder = .folder.display())]
    ContainersBelow {
        /// The folder as given.
        path: PathBuf,
        /// The first folder below it that holds a container.
        folder: PathBuf,
    },
    /// Containers that hold `train` and `val` together.
    #[error("{path}: holds the splits {splits}, which are not classes; {advice}", path = .path.display(), splits = .splits.join(", "), advice = split_advice(.example.as_deref()))]
    SplitContainers {
        /// The folder or archive.
        path: PathBuf,
        /// The splits in it, at least one.
        splits: Vec<String>,
        /// What to give instead, if it can be named.
        example: Option<String>,
    },
    /// A pattern of URLs whose object store cannot be used.
    #[error("{path}", path = .path.display())]
    PatternStore {
        /// The pattern.
        path: PathBuf,
        /// Why. It is about a folder that nobody typed.
        #[source]
        source: StoreError,
    },
    /// A pattern of files that cannot be used.
    #[error("{path}: {problem}; a pattern looks like shards/{{000..099}}.tar, and all of its files must be there", path = .path.display())]
    Pattern {
        /// The pattern.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A container of which nothing can be read.
    #[error("{path}: nothing in it can be read ({damaged}; {place}: {reason}); get the file again, and check its length or checksum", path = .path.display(), damaged = count(*.damaged, "damaged place"))]
    AllDamaged {
        /// The container, folder or pattern.
        path: PathBuf,
        /// Damaged places.
        damaged: usize,
        /// The first of them.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// A Parquet file whose columns are not those of an image data set.
    #[error("{path}: no column of images; expected 'image' with the fields 'bytes' and 'path' (or 'image' with the bytes themselves) and perhaps 'label', found {columns}; --image-column names another one", path = .path.display())]
    NoImageColumn {
        /// The file.
        path: PathBuf,
        /// The columns that it has.
        columns: String,
    },
    /// Columns of a Parquet file that are ambiguous, or not what their names say.
    #[error("{path}: {problem}", path = .path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// Which columns, of which types, and what to do.
        problem: String,
    },
    /// Parquet files that name pictures and do not hold them.
    #[error("{path}: the pictures are not in it: {rows} of the column '{column}' hold no bytes{example}; give the folder of the pictures, a .txt list of them, or Parquet files with the pictures inside", path = .path.display(), rows = all_rows(*.rows))]
    PathsOnly {
        /// The file, folder or pattern.
        path: PathBuf,
        /// The column of pictures.
        column: String,
        /// Rows, none of which holds a picture.
        rows: usize,
        /// The first path in them, in words; empty without one.
        example: String,
    },
    /// Samples of a WebDataset that are ambiguous, or labels of it that are not classes.
    #[error("{path}: {problem}", path = .path.display())]
    Samples {
        /// The shard, or the whole source.
        path: PathBuf,
        /// Which members, and what to do.
        problem: String,
    },
    /// A column named for a source that has none.
    #[error("{path}: a source of this kind ({kind}) has no columns; leave out --image-column and --label-column, which are for Parquet and WebDataset", path = .path.display())]
    NoColumns {
        /// The source.
        path: PathBuf,
        /// What it was recognised as.
        kind: &'static str,
    },
    /// An object store that cannot be used.
    #[error(transparent)]
    Store(StoreError),
    /// Reads fail for a reason that does not lie in the images.
    #[error("{reason}")]
    Outage {
        /// The first of them, in words.
        reason: String,
    },
    /// Listing was stopped.
    #[error("stopped while the source was listed")]
    Cancelled,
    /// A label file that cannot be used.
    #[error("{path}: {problem}", path = .path.display())]
    Labels {
        /// The label file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A line of a label file that cannot be used.
    #[error("{path} line {line}: {problem}; expected an image's key or file name, white space, and its class index or wnid, or one class index or wnid per line", path = .path.display())]
    LabelLine {
        /// The label file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder that holds `train` and `val` instead of classes.
    #[error(
        "{path}: holds the splits {splits}, which are not classes; give one of them, for example {example} (to join several, link their class folders into a new folder)",
        path = .path.display(), splits = .splits.join(", "), example = .path.join(&.splits[0]).display()
    )]
    SplitFolder {
        /// The folder.
        path: PathBuf,
        /// Those of its folders that are splits, at least one; the first of them holds images.
        splits: Vec<String>,
    },
    /// A line of a file list that cannot be used.
    #[error("{path} line {line}: {problem}; expected one path per line, absolute or relative to the list's folder, optionally followed by a tab and an integer label", path = .path.display())]
    ListLine {
        /// The list.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A file list that names files which are not there.
    #[error(
        "{path} line {line}: no such file '{first}' under {root} ({missing} of {total} missing); paths are relative to the list's folder, or absolute",
        path = .path.display(), root = .root.display(), total = count(*.total, "listed file")
    )]
    ListMissing {
        /// The list.
        path: PathBuf,
        /// The folder that paths are relative to.
        root: PathBuf,
        /// Line number of the first missing file, from 1.
        line: usize,
        /// The first missing file as listed.
        first: String,
        /// Listed files that do not exist.
        missing: usize,
        /// Listed files.
        total: usize,
    },
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> IngestError {
        match error {
            StoreError::Cancelled => IngestError::Cancelled,
            error => IngestError::Store(error),
        }
    }
}

/// What to do about a refusal of the operating system, whose own words follow.
fn read_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; check its permissions",
        io::ErrorKind::NotFound => "; it is not there, or a link that leads nowhere",
        io::ErrorKind::NotADirectory => "; a part of the path is a file and no folder",
        io::ErrorKind::IsADirectory => "; it is a folder",
        _ => "",
    }
}

fn all_rows(rows: usize) -> String {
    if rows == 1 { "the only row".to_owned() } else { format!("all {rows} rows") }
}

fn split_advice(example: Option<&str>) -> String {
    match example {
        Some(example) => format!("give one of them, for example {example}"),
        None => "make an archive of each".to_owned(),
    }
}

/// A stage of processing a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Stage {
    /// Bytes from the source.
    Read,
    /// Bytes to RGB.
    Decode,
    /// RGB to views: resize and crop.
    Resize,
    /// The consumer's work on views.
    Encode,
    /// That to disk.
    Write,
}

impl Stage {
    /// All of them, in the order in which they process an image.
    pub const ALL: [Stage; 5] = [Stage::Read, Stage::Decode, Stage::Resize, Stage::Encode, Stage::Write];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Read => "read",
            Stage::Decode => "decode",
            Stage::Resize => "resize",
            Stage::Encode => "encode",
            Stage::Write => "write",
        })
    }
}

/// An image that could not be turned into views, and why. The stream continues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{stage}: {reason}")]
pub struct Bad {
    /// The step that failed.
    pub stage: Stage,
    /// One line, in words.
    pub reason: String,
}

impl Bad {
    /// The failure of `stage` with the error's own words, its causes included.
    pub(crate) fn new(stage: Stage, error: &dyn std::error::Error) -> Bad {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            reason = format!("{reason}: {inner}");
            cause = inner.source();
        }
        Bad { stage, reason }
    }
}
