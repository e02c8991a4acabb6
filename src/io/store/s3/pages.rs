//! Listing a bucket page by page.

#![expect(
    clippy::disallowed_methods,
    reason = "how old an object is decides nothing here: the engine does"
)]

use super::super::{StoreError, StoreErrorKind};
use super::S3Store;
use std::time::SystemTime;
use windrow_core::values::object::{ListedObject, ObjectPage};

impl S3Store {
    /// Each page is asked for by the last key of the one before, so that nothing but that key must
    /// be remembered between two pages.
    pub(in super::super) async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<ObjectPage, StoreError> {
        let answer = self
            .client()
            .list_objects_v2()
            .bucket(&self.inner.bucket)
            .prefix(self.path(prefix))
            .set_start_after(after.map(|key| self.path(key)))
            .send()
            .await;
        let answer = answer
            .map_err(|e| self.error("list", &format!("objects \"{}\"", self.path(prefix)), &e))?;
        let now = SystemTime::now();
        let mut page = ObjectPage::default();
        for object in answer.contents() {
            let Some(key) = object.key().and_then(|key| key.strip_prefix(&self.prefix)) else {
                continue;
            };
            // An object without a time, or of the future, was stored just now.
            let stored = object
                .last_modified()
                .and_then(|time| SystemTime::try_from(*time).ok());
            let age = stored.and_then(|stored| now.duration_since(stored).ok());
            page.objects.push(ListedObject {
                key: key.to_owned(),
                age_ms: age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            });
        }
        if answer.is_truncated() == Some(true) {
            page.next = page.objects.last().map(|object| object.key.clone());
        }
        if page.moves_on(after) {
            return Ok(page);
        }
        let text = format!(
            "cannot list objects \"{}\": the store gives a page that it gave before; it must obey \
             start-after of ListObjectsV2",
            self.path(prefix)
        );
        Err(StoreError {
            kind: StoreErrorKind::Other,
            text,
        })
    }
}
