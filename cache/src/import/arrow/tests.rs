//! A file that `datasets` 5.2 wrote, whole and damaged: 5 rows of `Array2D((2, 2), int32)` `tokens` (100 r + i), `ClassLabel`
//! `label` (0, 1, null, 1, 0), `key` `n/{r}.png`, `flip` of odd rows, behind a struct with lists of texts.

use super::*;
use std::fs;

const FILE: &[u8] = include_bytes!("../../../tests/fixtures/save_to_disk.arrow");

/// All rows of a file with these bytes.
fn read(path: &Path, bytes: &[u8], options: &ImportOptions) -> Result<Columns, CacheError> {
    fs::write(path, bytes).unwrap();
    let mut reader = Reader::open(path, options)?;
    let columns = reader.next()?.unwrap();
    assert!(reader.next()?.is_none());
    Ok(columns)
}

#[test]
fn a_key_of_two_rows_is_refused_and_one_of_two_splits_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let (set, out) = (temp.path().join("set"), temp.path().join("out"));
    let data_set = |dir: &Path, files: usize| {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("dataset_info.json"), "{}").unwrap();
        let names: Vec<String> = (0..files).map(|file| format!("data-{file}.arrow")).collect();
        names.iter().for_each(|name| fs::write(dir.join(name), FILE).unwrap());
        let listed: Vec<String> = names.iter().map(|name| format!(r#"{{"filename": "{name}"}}"#)).collect();
        fs::write(dir.join("state.json"), format!(r#"{{"_data_files": [{}]}}"#, listed.join(", "))).unwrap();
    };
    data_set(&set, 2);
    let import = |path: &Path| import_arrow(path, &ImportOptions::default(), &out, OpenMode::Resume);
    let error = import(&set).unwrap_err().to_string();
    // Which of the keys is named depends on their hashes; both of its places have the same number.
    let row = (0..5).find(|row| error.contains(&format!("`n/{row}.png` (row {row})"))).unwrap();
    assert!(error.contains("data-1.arrow: key is") && error.contains(&format!("row {row} of")), "{error}");
    assert!(error.contains("data-0.arrow") && !out.exists(), "{error}");
    fs::remove_dir_all(&set).unwrap();
    ["train", "test"].iter().for_each(|split| data_set(&set.join(split), 1));
    fs::write(set.join("dataset_dict.json"), r#"{"splits": ["train", "test"]}"#).unwrap();
    import(&set).unwrap();
}

#[test]
fn a_file_of_datasets_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data.arrow");
    let columns = read(&path, FILE, &ImportOptions::default()).unwrap();
    let expected: Vec<i64> = (0..5).flat_map(|row| (0..4).map(move |i| 100 * row + i)).collect();
    assert_eq!((columns.tokens, columns.lengths), (expected, vec![4; 5]));
    assert_eq!(columns.labels, [0, 1, -1, 1, 0]);
    assert_eq!(columns.flips, [false, true, false, true, false]);
    assert_eq!(columns.keys[3].data(), b"n/3.png");
    let named = |tokens: &str, label: &str| {
        let options = ImportOptions {
            tokens_column: Some(tokens.into()),
            label_column: Some(label.into()),
            ..ImportOptions::default()
        };
        read(&path, FILE, &options).err().map(|error| error.to_string()).unwrap()
    };
    assert!(named("vq", "label").contains("one of extra, tokens, label, key, flip"));
    assert!(named("extra", "label").contains("column extra: it holds no integers"));
    assert!(named("tokens", "tokens").contains("column tokens: it holds lists"));
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data.arrow");
    for end in 0..FILE.len() {
        let error = read(&path, &FILE[..end], &ImportOptions::default()).err().unwrap().to_string();
        assert!(error.contains("truncated") && error.contains("save it again"), "{end} bytes: {error}");
    }
    let mut num_refused = 0;
    for place in 0..FILE.len() {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bytes = FILE.to_vec();
            bytes[place] = value;
            fs::write(&path, &bytes).unwrap();
            let rows = || -> Result<(), CacheError> {
                let mut reader = Reader::open(&path, &ImportOptions::default())?;
                while reader.next()?.is_some() {}
                Ok(())
            };
            num_refused += usize::from(rows().is_err());
        }
    }
    assert!(num_refused > 500, "{num_refused}");
    let other = [b"ARROW1\0\0", FILE].concat();
    let error = read(&path, &other, &ImportOptions::default()).err().unwrap().to_string();
    assert!(error.contains("random access"), "{error}");
}
