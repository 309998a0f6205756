//! Whether a shard is the one that a manifest or a job means.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::manifest::ShardEntry;
use crate::shard::open::Shard;

impl Shard {
    /// Checks that the shard is part of the cache or job that claims it.
    ///
    /// # Errors
    /// [`CacheError::ForeignShard`] naming the field.
    pub(crate) fn check_belongs(&self, job: &str, grid: GridSpec, views: u32) -> Result<(), CacheError> {
        self.compare(&[
            ("grid", grid.to_string(), self.footer.grid.to_string()),
            ("bits", grid.bits.to_string(), self.footer.grid.bits.to_string()),
            ("views", views.to_string(), self.footer.views.to_string()),
            ("job", job.to_owned(), self.footer.job.clone()),
        ])
    }

    /// Checks counts, sums and ranges of the manifest's entry against the shard's own footer.
    ///
    /// # Errors
    /// [`CacheError::ForeignShard`] naming the field.
    pub(crate) fn check_entry(&self, entry: &ShardEntry) -> Result<(), CacheError> {
        let listed: Vec<_> = entry.row_groups.iter().map(|g| (g.rows, g.images, g.range.offset)).collect();
        let starts = self.groups.iter().map(|layout| layout.range.start);
        let found: Vec<_> = self.footer.row_groups.iter().zip(starts).map(|(g, s)| (g.rows, g.images, s)).collect();
        // Not the other way: a version that did not know the column may have made the manifest again.
        let (told_columns, columns) = (entry.more_columns(), self.more_columns());
        if told_columns.names().any(|name| columns.names().all(|column| column != name)) {
            let found: Vec<_> = columns.names().collect();
            return self.compare(&[("more_columns", format!("{:?}", entry.more_columns), format!("{found:?}"))]);
        }
        self.compare(&[
            ("rows", entry.rows.to_string(), self.footer.rows().to_string()),
            ("images", format!("{:?}", entry.images), format!("{:?}", self.footer.images)),
            ("content_sum", entry.content_sum.clone(), self.footer.content.to_hex()),
            ("margins", format!("{:?}", entry.margins.counts), format!("{:?}", self.footer.margins.counts)),
            ("row_groups", format!("{listed:?}"), format!("{found:?}")),
            ("footer.offset", entry.footer.offset.to_string(), self.footer_offset().to_string()),
        ])
    }

    fn compare(&self, facts: &[(&'static str, String, String)]) -> Result<(), CacheError> {
        match facts.iter().find(|(_, expected, actual)| expected != actual) {
            None => Ok(()),
            Some((field, expected, actual)) => Err(CacheError::ForeignShard {
                path: self.path.clone(),
                field,
                expected: expected.clone(),
                actual: actual.clone(),
            }),
        }
    }
}
