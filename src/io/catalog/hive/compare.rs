//! How Hive differs from what the journal says. Nothing is written here, and nothing is locked.

use super::super::session::Session;
use super::partitions::found_partitions;
use super::{Hive, damage};
use windrow_core::table::commit::{CatalogError, Genesis};
use windrow_core::table::hive::{self, HivePartition, TableName, match_partitions};
use windrow_core::table::place::Names;

impl Hive {
    /// The differences as sentences. `wanted` are the table partitions that the journal has, each
    /// with its id.
    pub(in super::super) async fn differences(
        &self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        wanted: &[(i64, HivePartition)],
    ) -> Result<Vec<String>, CatalogError> {
        let rows = self.table_rows(db, name, false).await?;
        let tables = hive::tables(name, genesis);
        let damages = tables.iter().filter_map(|table| damage(&rows, name, table));
        let mut said: Vec<String> = damages.collect();
        let found = found_partitions(db, name, &rows).await?;
        let own = Names::new(&name.database, &name.table);
        let own = genesis.warehouse.uri_of(own.prefix());
        let matched = match_partitions(&own, wanted, found);
        let table_partition = |file: usize| {
            let (id, partition) = &wanted[file];
            let table = name.of(partition.kind);
            format!(
                "table partition \"{}\" of \"{}.{table}\" (PART_ID {id})",
                partition.name, name.database
            )
        };
        said.extend(matched.missing.iter().map(|file| {
            format!(
                "Hive does not have the {}, so readers miss its rows; run windrow restore",
                table_partition(*file)
            )
        }));
        for shown in &matched.shown {
            let what = [
                (shown.id != wanted[shown.file].0, "id"),
                (shown.place_differs, "place or its columns"),
                (shown.name_differs, "name"),
                (shown.values_differ, "values"),
            ];
            for (_, what) in what.iter().filter(|(differs, _)| *differs) {
                said.push(format!(
                    "Hive has the {} with another {what}; run windrow restore",
                    table_partition(shown.file)
                ));
            }
        }
        said.extend(matched.surplus.iter().map(|id| {
            format!(
                "Hive has a table partition (PART_ID {id}) that shows windrow's files and that the \
                 journal does not know, so readers may count rows twice; run windrow restore"
            )
        }));
        said.extend(matched.foreign.iter().map(|foreign| {
            format!(
                "\"{}.{}\" has a table partition \"{}\" that windrow has not made; readers see its \
                 rows",
                name.database,
                name.of(foreign.kind),
                foreign.name
            )
        }));
        Ok(said)
    }
}
