//! How far an unfinished job is, from the files that are there.

use crate::format::job::JobSpec;
use crate::format::manifest::Manifest;
use crate::format::names::{Name, list_ours};
use crate::shard::open::Shard;
use std::path::Path;

/// Images (encoded or quarantined) of all ranks of `job` that are durable in `dir`; 0 for a folder that has none of this job.
/// Only footers are read: damage is found when the job continues.
pub fn images_done(dir: &Path, job: &JobSpec) -> usize {
    let id = job.identity().id();
    if Manifest::read(dir).is_ok_and(|manifest| manifest.job == id) {
        return job.source.images;
    }
    let written = |name: &&Name| matches!(name, Name::Shard(..) | Name::Part(..));
    let images = |name: &Name| {
        let footer = Shard::open(&name.path(dir), None).ok()?.footer;
        (footer.job == id).then(|| footer.images[1] - footer.images[0])
    };
    // A part stays until the shard with it is there: both together for a moment.
    let done: usize = list_ours(dir).unwrap_or_default().iter().filter(written).filter_map(images).sum();
    done.min(job.source.images)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::grid::GridSpec;
    use crate::format::row::Row;
    use crate::write::writer::CacheWriter;
    use crate::write::writer::OpenMode;

    #[test]
    fn durable_row_groups_count_for_the_same_job_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut job = JobSpec::new(GridSpec { height: 2, width: 2, bits: 18 }, 10, 1);
        job.rows_per_group = 4;
        assert_eq!(images_done(folder.path(), &job), 0);
        let mut writer = CacheWriter::open(folder.path(), job.clone(), OpenMode::Resume).unwrap();
        let push = |writer: &mut CacheWriter, image: usize| {
            let key = format!("{image}");
            let row = Row { tokens: &[1, 2, 3, 4], label: 0, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
            writer.push_image(image, &[row]).unwrap();
        };
        (0..7).for_each(|image| push(&mut writer, image));
        assert_eq!(images_done(folder.path(), &job), 4, "a row group is written when it is full");
        (7..10).for_each(|image| push(&mut writer, image));
        writer.finish().unwrap();
        assert_eq!(images_done(folder.path(), &job), 10);
        job.source.images = 11;
        assert_eq!(images_done(folder.path(), &job), 0, "another job");
    }
}
