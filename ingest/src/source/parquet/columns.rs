//! Which columns of a Parquet file hold pictures, their paths and their labels.

use super::footer::FooterError;
use crate::source::options::{Columns as Wanted, OTHER_LABEL_NAMES};
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};
use serde_json::Value;

/// Names of the column of pictures, the most usual first, in lower case.
const IMAGE_NAMES: [&str; 12] = [
    "image",
    "img",
    "picture",
    "photo",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "image_bytes",
    "img_bytes",
    "image_data",
    "jpg_bytes",
];
/// Names of the column of labels that are taken.
const LABEL_NAMES: [&str; 3] = ["label", "labels", "cls"];

/// Numbers of columns.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) image: usize,
    pub(super) path: Option<usize>,
    pub(super) label: Option<usize>,
    /// The names that Hugging Face's libraries write beside the schema for this label.
    pub(super) class_names: Option<Vec<String>>,
    /// What may be the label if `label` is none, in words.
    pub(super) hint: Option<String>,
}

impl Columns {
    /// Chooses columns: those that are wanted by name, else those with the usual names.
    pub(super) fn choose(metadata: &ParquetMetaData, wanted: Wanted<'_>) -> Result<Columns, FooterError> {
        let schema = metadata.file_metadata().schema_descr();
        let features = features(metadata);
        let image = image_column(schema, features.as_ref(), wanted.image)?;
        let label = label_column(schema, wanted)?;
        let name = |number: usize| schema.column(number).path().parts().to_vec();
        let class_names = label.and_then(|label| class_names(features.as_ref()?, &name(label)[0]));
        let hint = if label.is_none() && !wanted.without_labels() { hint(schema, image) } else { None };
        Ok(Columns { image, path: path_column(schema, image), label, class_names, hint })
    }
}

/// A column's name with its type, as in `label (double)`.
pub(super) fn describe(column: &ColumnDescriptor) -> String {
    format!("'{}' ({})", column.path().string(), type_name(column))
}

fn type_name(column: &ColumnDescriptor) -> &'static str {
    if column.max_rep_level() > 0 {
        return "list";
    }
    match (column.logical_type_ref(), column.physical_type()) {
        (Some(LogicalType::Decimal { .. }), _) => "decimal",
        (Some(LogicalType::Date | LogicalType::Time { .. } | LogicalType::Timestamp { .. }), _) | (_, Type::INT96) => {
            "time"
        }
        (Some(LogicalType::Float16), _) => "float16",
        (_, Type::BOOLEAN) => "bool",
        (_, Type::INT32) => "int32",
        (_, Type::INT64) => "int64",
        (_, Type::FLOAT) => "float",
        (_, Type::DOUBLE) => "double",
        (_, Type::BYTE_ARRAY) if is_text(column) => "text",
        (_, Type::BYTE_ARRAY) => "binary",
        (_, Type::FIXED_LEN_BYTE_ARRAY) => "binary of fixed length",
    }
}

fn is_text(column: &ColumnDescriptor) -> bool {
    let is_text =
        matches!(column.logical_type_ref(), Some(LogicalType::String | LogicalType::Enum | LogicalType::Json));
    is_text || matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON)
}

fn is_binary(column: &ColumnDescriptor) -> bool {
    column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0 && !is_text(column)
}

/// Whether values of the column may be classes.
fn is_label(column: &ColumnDescriptor) -> bool {
    matches!(type_name(column), "bool" | "int32" | "int64" | "float16" | "float" | "double" | "text" | "binary")
}

fn number_of(schema: &SchemaDescriptor, wanted: impl Fn(&ColumnDescriptor) -> bool) -> Option<usize> {
    schema.columns().iter().position(|column| wanted(column))
}

fn is_called(column: &ColumnDescriptor, name: &str) -> bool {
    matches!(column.path().parts(), [only] if only.eq_ignore_ascii_case(name))
}

/// `bytes` in a column of this name.
fn is_picture(column: &ColumnDescriptor, name: &str) -> bool {
    let parts = column.path().parts();
    matches!(parts, [first, bytes] if first.eq_ignore_ascii_case(name) && bytes == "bytes")
}

/// The column of pictures: by the name that is wanted; else by a usual name, `bytes` in it or the column itself; else the
/// only one that Hugging Face's libraries call per image; else the only one with `bytes` in it.
fn image_column(
    schema: &SchemaDescriptor,
    features: Option<&Value>,
    wanted: Option<&str>,
) -> Result<usize, FooterError> {
    let of_name = |name: &str| {
        number_of(schema, |column| is_binary(column) && is_picture(column, name))
            .or_else(|| number_of(schema, |column| is_binary(column) && is_called(column, name)))
    };
    if let Some(wanted) = wanted {
        let by_path = || number_of(schema, |column| is_binary(column) && column.path().string() == wanted);
        return of_name(wanted).or_else(by_path).ok_or_else(|| {
            refused(format!("no column of pictures '{wanted}' (--image-column); its columns are {}", list(schema)))
        });
    }
    if let Some(number) = IMAGE_NAMES.iter().find_map(|name| of_name(name)) {
        return Ok(number);
    }
    let images: Vec<usize> = names_of_images(features).iter().filter_map(|name| of_name(name)).collect();
    let bytes = |column: &ColumnDescriptor| {
        is_binary(column) && matches!(column.path().parts(), [_, bytes] if bytes == "bytes")
    };
    let structs: Vec<usize> = (0..schema.num_columns()).filter(|number| bytes(&schema.column(*number))).collect();
    match (&images[..], &structs[..]) {
        ([only], _) | (_, [only]) => Ok(*only),
        ([], []) => {
            let columns: Vec<_> = schema.columns().iter().map(|column| column.path().string()).collect();
            Err(FooterError::NoImageColumn { columns: columns.join(", ") })
        }
        _ => {
            let several = if images.is_empty() { &structs } else { &images };
            let names: Vec<String> =
                several.iter().map(|number| schema.column(*number).path().parts()[0].clone()).collect();
            Err(refused(format!(
                "several columns of pictures: {}; choose one, for example --image-column {}",
                names.join(", "),
                names[0]
            )))
        }
    }
}

/// `path` beside the bytes.
fn path_column(schema: &SchemaDescriptor, image: usize) -> Option<usize> {
    let parts = schema.column(image).path().parts().to_vec();
    let (_, group) = parts.split_last().filter(|(_, group)| !group.is_empty())?;
    number_of(schema, |column| {
        let beside = column.path().parts().split_last().is_some_and(|(last, first)| first == group && last == "path");
        beside && column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0
    })
}

/// The column of labels: by the name that is wanted, else by a usual name. One whose values cannot be classes is refused, so
/// that it does not count as no label.
fn label_column(schema: &SchemaDescriptor, wanted: Wanted<'_>) -> Result<Option<usize>, FooterError> {
    if wanted.without_labels() {
        return Ok(None);
    }
    let is_part = |column: &ColumnDescriptor, name: &str| column.path().parts()[0].eq_ignore_ascii_case(name);
    let number = match wanted.label {
        Some(name) => number_of(schema, |column| column.path().string() == name)
            .or_else(|| number_of(schema, |column| is_part(column, name)))
            .ok_or_else(|| refused(format!("no column '{name}' (--label-column); its columns are {}", list(schema))))
            .map(Some)?,
        None => {
            let usable = |name: &&str| number_of(schema, |column| is_called(column, name) && is_label(column));
            let any = |name: &&str| number_of(schema, |column| is_part(column, name));
            LABEL_NAMES.iter().find_map(usable).or_else(|| LABEL_NAMES.iter().find_map(any))
        }
    };
    let Some(number) = number else { return Ok(None) };
    let column = schema.column(number);
    if is_label(&column) {
        return Ok(Some(number));
    }
    Err(refused(format!(
        "the labels in column {} are neither class indices nor names; choose another column with --label-column, or none with \
         --label-column none",
        describe(&column)
    )))
}

/// Columns that may be the label, and are not taken unless the user names them.
fn hint(schema: &SchemaDescriptor, image: usize) -> Option<String> {
    let is_other = |column: &ColumnDescriptor| OTHER_LABEL_NAMES.iter().any(|name| is_called(column, name));
    let others: Vec<usize> = (0..schema.num_columns())
        .filter(|number| *number != image && is_other(&schema.column(*number)) && is_label(&schema.column(*number)))
        .collect();
    let first = schema.column(*others.first()?).path().string();
    let described: Vec<String> = others.iter().map(|number| describe(&schema.column(*number))).collect();
    Some(format!("no column 'label', but {}: --label-column {first} takes it as the label", described.join(", ")))
}

fn list(schema: &SchemaDescriptor) -> String {
    let columns: Vec<String> = schema.columns().iter().map(|column| describe(column)).collect();
    columns.join(", ")
}

fn refused(problem: String) -> FooterError {
    FooterError::Refused { problem }
}

/// What Hugging Face's libraries say of columns.
fn features(metadata: &ParquetMetaData) -> Option<Value> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_deref()?;
    let json: Value = serde_json::from_str(text).ok()?;
    json.get("info")?.get("features").cloned()
}

fn names_of_images(features: Option<&Value>) -> Vec<&str> {
    let columns = features.and_then(Value::as_object).into_iter().flatten();
    columns.filter(|(_, feature)| feature["_type"] == "Image").map(|(name, _)| name.as_str()).collect()
}

fn class_names(features: &Value, label: &str) -> Option<Vec<String>> {
    let names = features.get(label)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}
