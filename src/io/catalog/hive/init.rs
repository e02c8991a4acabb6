//! Hive's schema, for a database that has no table at all.

use super::super::session::{Lost, Session, args};
use super::NEEDED;
use windrow_core::table::commit::CatalogError;
use windrow_core::values::cause::Cause;

/// Hive's tables of schema 2.3.0.
const SCHEMA: &str = include_str!("../hive-2.3.0.sql");

/// Makes all of Hive's schema where the database has no table, and opens it to those who were let
/// in.
/// Where all of Hive's tables that windrow needs are there already, it does nothing.
///
/// # Errors
/// `Retry` when the database has other tables, or a part of Hive's: whoever began must finish.
/// `Retry` with [`Cause::NoCreate`] while the user may not make tables there.
pub(in super::super) async fn init(db: &mut Session) -> Result<(), CatalogError> {
    db.begin().await?;
    // The lock keeps other windrows out. Hive's own clients do not know it; if one of them makes a
    // table meanwhile, that name is taken, and all of this is rolled back.
    db.batch("SELECT pg_advisory_xact_lock(7595448412731)")
        .await?;
    let row = db
        .query_one(
            "SELECT (SELECT string_agg(name, ', ' ORDER BY name) FROM unnest($2) AS needed (name) \
               WHERE to_regclass($1 || '.' || quote_ident(name)) IS NULL), \
               EXISTS (SELECT FROM pg_class \
                 WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p', 'v')), \
               COALESCE(has_schema_privilege(to_regnamespace($1)::oid, 'CREATE'), false)",
            args![db.hive_schema(), NEEDED.to_vec()],
        )
        .await?;
    let missing: Option<&str> = row.get(0);
    match missing {
        None => return db.commit(Lost::Again).await,
        Some(missing) if row.get(1) => {
            return Err(db.retry(format_args!(
                "init-metastore needs an empty database, and this one has tables, but not all of \
                 Hive's (missing: {missing}); open Kyuubi and create a table instead"
            )));
        }
        Some(_) => {}
    }
    // From PostgreSQL 15 on, nobody except its owner may make tables in the schema public. Asked
    // first, because the server's own refusal comes in whatever language it is set to.
    if !row.get::<_, bool>(2) {
        let why = format!(
            "no right to make Hive's tables; run GRANT CREATE ON SCHEMA {} TO \"{}\" in this \
             database",
            db.hive_schema(),
            db.user()
        );
        return Err(db.retry_for(Cause::NoCreate, why));
    }
    // Hive's own script does not say in which schema it makes its tables. There is nothing else in
    // that one yet.
    db.batch(&format!(
        "SET LOCAL search_path = {}; {SCHEMA}; SET LOCAL search_path = pg_catalog",
        db.hive_schema()
    ))
    .await?;
    grant_to_those_who_were_let_in(db).await?;
    db.commit(Lost::Again).await
}

/// The roles that can log in and that somebody has let into this database: its owner, roles that
/// were granted CONNECT, and members of such roles. That every role may connect where nobody has
/// revoked it (PUBLIC's right) does not count: it says of nobody that they have anything to do with
/// Hive. A query of one text: the quoted names with commas between, null where there are none.
pub(in crate::io::catalog) const ROLES_LET_IN: &str = "\
    SELECT string_agg(quote_ident(r.rolname), ', ') FROM pg_roles AS r \
      WHERE r.rolname <> current_user AND r.rolcanlogin AND NOT r.rolsuper \
      AND EXISTS (SELECT FROM pg_database AS d, \
          aclexplode(COALESCE(d.datacl, acldefault('d', d.datdba))) AS a \
        WHERE d.datname = current_database() AND a.privilege_type = 'CONNECT' \
        AND a.grantee <> 0 AND pg_has_role(r.oid, a.grantee, 'MEMBER'))";

/// PostgreSQL gives a new table to nobody except its owner, and Kyuubi logs in as another role. So
/// rights are granted by name.
async fn grant_to_those_who_were_let_in(db: &Session) -> Result<(), CatalogError> {
    let lists = db
        .query_one(
            &format!(
                "SELECT (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class AS c \
                 WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r'), \
               (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class AS c \
                 WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'S'), \
               ({ROLES_LET_IN})"
            ),
            args![db.hive_schema()],
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
