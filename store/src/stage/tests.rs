use super::*;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// Settings are process-wide: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn put(bucket: &Bucket, key: &str, content: &[u8]) -> StageFile {
    bucket.put(key, content.to_vec().into()).unwrap();
    let object = bucket.head(key).unwrap().unwrap();
    StageFile { object, name: key.to_owned(), blake3: Some(blake3::hash(content).to_hex().to_string()) }
}

fn place(text: &str) -> Place {
    Place::parse(Path::new(text)).unwrap().unwrap()
}

#[test]
fn a_set_is_fetched_once_and_a_damaged_object_is_named() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::in_memory());
    stage_in(Some(folder.path().join("stage")), None);
    let files = [put(&bucket, "a", b"one"), put(&bucket, "b/c", b"two")];
    let staged = stage(&place("s3://memory/x"), &bucket, &files).unwrap();
    assert_eq!(fs::read(staged.folder().join("b/c")).unwrap(), b"two");
    // Staged files are not fetched again.
    bucket.delete(&["a".to_owned()]).unwrap();
    let again = stage(&place("s3://memory/x"), &bucket, &files).unwrap();
    assert_eq!(again.folder(), staged.folder());
    let mut bad = put(&bucket, "d", b"good");
    bad.blake3 = Some("0".repeat(64));
    let error = stage(&place("s3://memory/y"), &bucket, &[bad]).unwrap_err();
    assert!(matches!(error, StoreError::Checksum { .. }) && error.to_string().contains("s3://memory/d"), "{error}");
}

#[test]
fn unused_sets_are_removed_least_recently_used_first() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::in_memory());
    stage_in(Some(folder.path().to_owned()), Some(250));
    let sets: Vec<_> = ["a", "b", "c", "d"].map(|key| [put(&bucket, key, &[7; 100])]).into_iter().collect();
    let stage_set = |number: usize| stage(&place(&format!("s3://memory/set-{number}")), &bucket, &sets[number]);
    let is_kept = |staged: &Path| staged.exists();
    let first = stage_set(0).unwrap();
    let second = stage_set(1).unwrap();
    let (first_folder, second_folder) = (first.folder().to_owned(), second.folder().to_owned());
    // The first is in use, so the second is removed, although it was used later.
    drop(second);
    let third = stage_set(2).unwrap();
    assert!(is_kept(&first_folder) && !is_kept(&second_folder));
    let error = stage_set(3).unwrap_err();
    assert!(matches!(error, StoreError::StageFull { .. }), "{error}");
    let third_folder = third.folder().to_owned();
    drop((first, third));
    // Of two unused sets, the least recently used one is removed.
    let lock = third_folder.with_extension("lock");
    let file = fs::File::options().write(true).open(lock).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(1000)).unwrap();
    let fourth = stage_set(3).unwrap();
    assert!(is_kept(&first_folder) && !is_kept(&third_folder) && is_kept(fourth.folder()));
}

#[test]
fn a_set_grows_while_it_is_read_in_the_given_order_up_to_the_limit() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::in_memory());
    stage_in(Some(folder.path().to_owned()), Some(250));
    let files: Vec<StageFile> = ["a", "b", "c", "d"].map(|key| put(&bucket, key, &[7; 100])).into_iter().collect();
    let begin = || Staging::begin(&place("s3://memory/x"), &bucket, files.clone()).unwrap();
    let (reader, fetcher) = (begin(), begin());
    let reported = Mutex::new(vec![]);
    let fetched = fetcher.fetch(&[2, 0, 3, 1], &|| false, &|file| reported.lock().unwrap().push(file)).unwrap();
    assert_eq!(fetched, Fetching::Done { left_out: 2 });
    let mut reported = reported.into_inner().unwrap();
    reported.sort_unstable();
    // A reader sees only the files that a fetcher has completed.
    assert_eq!(
        (reported, [0, 1, 2, 3].map(|file| reader.path(file).is_some())),
        (vec![0, 2], [true, false, true, false])
    );
    // A fetcher does not wait for readers; of two fetchers, only one fetches.
    let _other = Entry::fetching(&reader.root, &reader.id).unwrap();
    assert_eq!(fetcher.fetch(&[1], &|| false, &|_| {}).unwrap(), Fetching::ByAnother);
    drop(_other);
    stage_in(Some(folder.path().to_owned()), None);
    assert!(matches!(fetcher.fetch(&[1], &|| true, &|_| {}), Err(StoreError::Cancelled)));
    assert!(reader.path(1).is_none());
    assert_eq!(fetcher.fetch(&[0, 1, 2, 3], &|| false, &|_| {}).unwrap(), Fetching::Done { left_out: 0 });
    assert!(reader.is_complete());
}
