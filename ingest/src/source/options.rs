//! Options of a source: images to exclude, labels that replace its own, and the columns to read.

use std::path::PathBuf;

/// How a source is read: images to exclude, labels that replace its own, columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// Images to skip, by key or by file name. Class indices do not change by it.
    pub exclude: Vec<String>,
    /// Take at most this number of images, the first ones in order.
    pub limit: Option<usize>,
    /// A file whose labels replace those of the source; an image that it does not name gets -1. One of:
    ///
    /// - lines of a key or file name, white space, and a class index or wnid;
    /// - `LOC_val_solution.csv`: an image's name without extension, a comma, and a wnid in front of what else there is;
    /// - one class index or wnid per line, for all images in the order of their file names, as
    ///   `imagenet_2012_validation_synset_labels.txt`.
    ///
    /// The index of a wnid is its rank among all wnids of the file, in byte order. Class folders must agree with the file.
    pub labels: Option<PathBuf>,
    /// The column of the pictures of a Parquet file, or the ending of the picture of a WebDataset sample (`left.jpg`), where
    /// it has none of the usual names.
    pub image_column: Option<String>,
    /// The column of the labels of a Parquet file, or the field of the `.json` or the ending of the label of a WebDataset
    /// sample; `none` for no labels.
    pub label_column: Option<String>,
    /// Parquet: decode the page of every image that is not kept, even where the image can be had alone. The bytes are the same;
    /// slower, and there for comparisons.
    pub whole_pages: bool,
    /// Containers in object stores: only a part of the images is read here, because others share the work or a sample is enough.
    /// They are then read by ranges and not fetched as a whole.
    pub is_shared: bool,
}

impl SourceOptions {
    /// Columns by name.
    pub(super) fn columns(&self) -> Columns<'_> {
        Columns { image: self.image_column.as_deref(), label: self.label_column.as_deref() }
    }
}

/// Columns that the user named.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Columns<'a> {
    pub(super) image: Option<&'a str>,
    pub(super) label: Option<&'a str>,
}

impl Columns<'_> {
    /// Whether the labels of the source do not count.
    pub(super) fn without_labels(self) -> bool {
        self.label == Some("none")
    }
}

/// Names of columns, fields and endings that may be the label, and are not taken unless the user names them.
pub(super) const OTHER_LABEL_NAMES: [&str; 16] = [
    "fine_label",
    "coarse_label",
    "class",
    "class_id",
    "class_idx",
    "class_index",
    "class_label",
    "class_name",
    "category",
    "category_id",
    "target",
    "targets",
    "y",
    "label_id",
    "label_name",
    "wnid",
];
