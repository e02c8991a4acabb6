//! A look at the entry of the Spark job's table that is to be adopted.

use super::super::SparkEntry;
use super::super::session::Lost;
use super::PostgresCatalog;
use windrow_core::table::commit::CatalogError;

impl PostgresCatalog {
    /// The entry that has the table's name; from here on it does not keep this process from taking
    /// the table.
    pub(in super::super) async fn spark_entry(
        &mut self,
    ) -> Result<Option<SparkEntry>, CatalogError> {
        let mut link = self.link("cannot adopt").await?;
        link.hive.check_ready(&mut link.db).await?;
        link.db.begin().await?;
        let entry = link.hive.spark_entry(&link.db, &self.name).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        self.adopts = true;
        Ok(entry)
    }
}
