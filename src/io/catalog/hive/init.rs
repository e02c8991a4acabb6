//! Hive's schema, for a database that has no table at all.

use super::super::session::{Lost, Session, args};
use windrow_core::table::commit::CatalogError;

/// Hive's tables of schema 2.3.0.
const SCHEMA: &str = include_str!("../hive-2.3.0.sql");

/// Makes all of Hive's schema where the database has no table, and opens it to whoever may connect.
/// Where Hive's tables are there already, it does nothing.
///
/// # Errors
/// `Retry` when the database has other tables, or a part of Hive's: whoever began must finish.
pub(in super::super) async fn init(db: &mut Session) -> Result<(), CatalogError> {
    db.begin().await?;
    // The lock keeps other windrows out. Hive's own clients do not know it; if one of them makes a
    // table meanwhile, that name is taken, and all of this is rolled back.
    db.batch("SELECT pg_advisory_xact_lock(7595448412731)")
        .await?;
    let row = db
        .query_one(
            "SELECT to_regclass('\"TBLS\"') IS NOT NULL, EXISTS (SELECT FROM pg_class \
             WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v'))",
            args![],
        )
        .await?;
    match (row.get(0), row.get(1)) {
        (true, _) => return db.commit(Lost::Again).await,
        (false, true) => {
            return Err(db.retry(
                "init-metastore needs an empty database, and this one has tables; \
                 open Kyuubi and create a table instead",
            ));
        }
        (false, false) => {}
    }
    db.batch(SCHEMA).await?;
    grant_to_all_who_may_connect(db).await?;
    db.commit(Lost::Again).await
}

/// PostgreSQL gives a new table to nobody except its owner, and Kyuubi logs in as another role. So
/// rights are granted by name to all roles that can log in. Groups get none: some of them are there
/// only to look on.
async fn grant_to_all_who_may_connect(db: &Session) -> Result<(), CatalogError> {
    let lists = db
        .query_one(
            "SELECT (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class AS c \
                 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'), \
               (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class AS c \
                 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'S'), \
               (SELECT string_agg(quote_ident(r.rolname), ', ') FROM pg_roles AS r \
                 WHERE has_database_privilege(r.oid, current_database(), 'CONNECT') \
                 AND r.rolname <> current_user AND r.rolcanlogin AND NOT r.rolsuper)",
            args![],
        )
        .await?;
    let (tables, sequences, roles): (Option<&str>, Option<&str>, Option<&str>) =
        (lists.get(0), lists.get(1), lists.get(2));
    let Some(roles) = roles else { return Ok(()) };
    for (kind, objects) in [("TABLE", tables), ("SEQUENCE", sequences)] {
        if let Some(objects) = objects {
            db.batch(&format!("GRANT ALL ON {kind} {objects} TO {roles}"))
                .await?;
        }
    }
    Ok(())
}
