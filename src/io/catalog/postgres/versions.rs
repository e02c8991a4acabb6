//! The versions of the journal: windrow's own tables in PostgreSQL. They are found and made here;
//! what is in them is read in `journal`.
//!
//! The version is in the schema's name. A newer one is made beside the one before and filled from
//! it, because later users may not alter what earlier ones made.

use super::super::hive::ROLES_LET_IN;
use super::super::session::{Lost, Session, args};
use super::Link;
use tokio_postgres::Row;
use windrow_core::table::commit::CatalogError;
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::values::cause::Cause;

/// A version of the journal.
pub(in super::super) struct Version {
    /// The number in the schema's name.
    pub(in super::super) number: u64,
    /// The statements that make the schema and its tables.
    pub(in super::super) tables: &'static str,
    /// The statements that fill it from the version before, and take every table in that from its
    /// owner: a process of an earlier version must not commit there any more. `None` where no
    /// version is before it.
    pub(in super::super) fill: Option<&'static str>,
}

/// All versions from which a journal can be brought to the one that this program writes, which is
/// the last.
pub(in super::super) const VERSIONS: &[Version] = &[Version {
    number: 2,
    tables: VERSION_2,
    fill: None,
}];

/// The columns are `json` and not `jsonb`, which refuses texts that hold U+0000.
const VERSION_2: &str = r#"
CREATE SCHEMA windrow_2;
CREATE TABLE windrow_2.job (
    database text NOT NULL,
    "table" text NOT NULL,
    term bigint NOT NULL DEFAULT 0,
    owner_id text NOT NULL DEFAULT '',
    owner_name text NOT NULL DEFAULT '',
    lease_until timestamptz, -- null: given back
    last_epoch bigint, -- null before epoch 0
    genesis json,
    checkpoint_epoch bigint,
    checkpoint json,
    paused boolean NOT NULL DEFAULT false,
    paused_by text,
    paused_at timestamptz,
    PRIMARY KEY (database, "table"));
CREATE TABLE windrow_2.lane (
    database text NOT NULL,
    "table" text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    leader_epoch integer NOT NULL,
    PRIMARY KEY (database, "table", partition));
CREATE TABLE windrow_2.epoch (
    database text NOT NULL,
    "table" text NOT NULL,
    epoch bigint NOT NULL,
    term bigint NOT NULL,
    digest text NOT NULL,
    manifest text NOT NULL,
    committed_at timestamptz NOT NULL,
    decisions integer NOT NULL, -- how many
    said json NOT NULL, -- the commit without its checkpoint
    PRIMARY KEY (database, "table", epoch));
CREATE TABLE windrow_2.file (
    database text NOT NULL,
    "table" text NOT NULL,
    key text NOT NULL,
    epoch bigint NOT NULL,
    committed_at timestamptz NOT NULL, -- that of the epoch
    kind text NOT NULL,
    date text NOT NULL, -- empty for the side tables
    chunk text NOT NULL,
    level text NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    first_window bigint,
    last_window bigint,
    as_of bigint, -- ms; null unless a merge of a side table made it
    retired_at timestamptz, -- null: readers see it
    retired_epoch bigint, -- the epoch that replaced or dropped it
    PRIMARY KEY (database, "table", key));
CREATE UNIQUE INDEX file_chunk ON windrow_2.file (database, "table", kind, date, chunk)
    WHERE retired_at IS NULL;
CREATE INDEX file_epoch ON windrow_2.file (database, "table", epoch);
CREATE TABLE windrow_2.part (
    database text NOT NULL,
    "table" text NOT NULL,
    kind text NOT NULL,
    date text NOT NULL, -- empty for the side tables
    chunk text NOT NULL,
    part_id bigint NOT NULL, -- Hive's PARTITIONS."PART_ID"
    key text, -- of the file that it shows; null: the file without rows
    emptied_at timestamptz, -- null unless it shows the file without rows
    PRIMARY KEY (database, "table", kind, date, chunk),
    CHECK ((key IS NULL) = (emptied_at IS NOT NULL)));
CREATE UNIQUE INDEX part_key ON windrow_2.part (database, "table", key);
CREATE TABLE windrow_2.history (
    database text NOT NULL,
    "table" text NOT NULL,
    first_epoch bigint NOT NULL,
    last_epoch bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    decisions integer NOT NULL, -- how many
    manifest text NOT NULL, -- of the day
    said json NOT NULL, -- what these epochs said together
    PRIMARY KEY (database, "table", first_epoch));
CREATE TABLE windrow_2.doomed (
    database text NOT NULL,
    "table" text NOT NULL,
    key text NOT NULL,
    doomed_at timestamptz NOT NULL,
    PRIMARY KEY (database, "table", key));
"#;

/// Each new relation of a charm comes with a new role whose name nobody can know now, and the
/// journal must outlive them all. So it is open to all who may connect to the database, but only
/// where that is not everybody: the charms of PostgreSQL take PUBLIC's right to connect away. In
/// any other database it is open to its owner and to those who were let in by name.
const OPEN: &str = r#"
DO $$ BEGIN
    IF NOT has_database_privilege('public', current_database(), 'CONNECT') THEN
        GRANT USAGE ON SCHEMA windrow_n TO PUBLIC;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA windrow_n TO PUBLIC;
    END IF;
END $$;
"#;

/// The journal that windrow had before its first release. Nothing is taken over from it: it has no
/// table `part`, and its files no levels.
const UNRELEASED: &str = "windrow_1";

/// The schemas that bear the journal's name. With each: its owner, whether that owner is trusted,
/// and whether the tables in it are as windrow makes them: with a trusted owner, and without
/// triggers, rules and row security, which would run with our rights.
///
/// An owner is trusted if it could do the same harm without the journal: our own role and those
/// that we are a member of, superusers, the owner of the database, and whoever may write Hive's
/// tables.
/// The last are, for example, the users of other relations, of which an earlier one may have made
/// the journal.
const FIND: &str = "WITH trusted AS (SELECT r.oid FROM pg_roles AS r \
       WHERE r.rolsuper OR pg_has_role(r.oid, 'MEMBER') \
       OR r.oid = (SELECT datdba FROM pg_database WHERE datname = current_database()) \
       OR COALESCE(has_table_privilege(r.oid, to_regclass($1 || '.\"TBLS\"'), 'INSERT'), false)) \
     SELECT n.nspname::text, pg_get_userbyid(n.nspowner)::text, \
       n.nspowner IN (SELECT oid FROM trusted), \
       NOT EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid \
         AND c.relname IN ('job', 'lane', 'epoch', 'file', 'part', 'history', \
           'doomed') \
         AND (c.relkind <> 'r' OR c.relowner NOT IN (SELECT oid FROM trusted) OR c.relrowsecurity \
           OR EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) \
           OR EXISTS (SELECT FROM pg_rewrite AS w WHERE w.ev_class = c.oid))) \
     FROM pg_namespace AS n WHERE n.nspname ~ '^windrow_[0-9]+$'";

/// Which journals are there.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Journals {
    /// The newest that was found and is known.
    newest: Option<u64>,
    /// [`UNRELEASED`] is there, and can be read without danger.
    pub(super) unreleased: bool,
}

impl Journals {
    /// Whether the one that this program writes is there.
    pub(super) fn has_ours(self) -> bool {
        self.newest.is_some_and(|newest| newest == ours(VERSIONS))
    }
}

fn ours(versions: &[Version]) -> u64 {
    versions.last().map_or(0, |version| version.number)
}

/// Looks which journals are there.
///
/// # Errors
/// `Stop` when there is a newer one: its epochs would be unknown to this program. `Retry` when a
/// schema of a journal's name is somebody else's, or was tampered with.
pub(super) async fn find(db: &Session) -> Result<Journals, CatalogError> {
    find_among(db, VERSIONS).await
}

async fn find_among(db: &Session, versions: &[Version]) -> Result<Journals, CatalogError> {
    let rows = db.query(FIND, args![db.hive_schema()]).await?;
    let ours = ours(versions);
    let number = |row: &Row| {
        let digits = &row.get::<_, &str>(0)["windrow_".len()..];
        digits.parse::<u64>().unwrap_or(u64::MAX)
    };
    let mut journals = Journals::default();
    for row in &rows {
        let (name, owner): (&str, &str) = (row.get(0), row.get(1));
        let (is_trusted, is_as_made): (bool, bool) = (row.get(2), row.get(3));
        if name == UNRELEASED {
            journals.unreleased = is_trusted && is_as_made;
            continue;
        }
        let number = number(row);
        // A newer journal that nobody trusted has made is none.
        if number > ours && is_trusted {
            return Err(db.stop(format_args!(
                "the catalog has a newer journal, windrow_{number}, and this windrow writes \
                 windrow_{ours}; upgrade it"
            )));
        }
        if !versions.iter().any(|version| version.number == number) {
            continue;
        }
        if !is_trusted {
            return Err(db.retry(format_args!(
                "the schema {name} belongs to \"{owner}\", who may not write Hive's tables, so \
                 it is not taken for windrow's; if it is, run ALTER SCHEMA {name} OWNER TO \"{}\" \
                 and the same for its tables, else ALTER SCHEMA {name} RENAME TO another_name",
                db.user()
            )));
        }
        if !is_as_made {
            return Err(db.retry(format_args!(
                "a table in the schema {name} has a trigger, a rule, row security or an owner who \
                 may not write Hive's tables; remove that, because it would run with windrow's \
                 rights"
            )));
        }
        journals.newest = journals.newest.max(Some(number));
    }
    Ok(journals)
}

/// Makes the journal if it is not there, and fills it from the one before if there is one. When
/// several windrows begin at once, one of them does.
///
/// # Errors
/// `Retry` with [`Cause::NoCreate`] while the user may not make a schema in this database.
pub(in super::super) async fn make(
    db: &mut Session,
    versions: &[Version],
) -> Result<(), CatalogError> {
    db.begin().await?;
    db.batch("SELECT pg_advisory_xact_lock(7595448412730)")
        .await?;
    let there = find_among(db, versions).await?.newest;
    let ours = ours(versions);
    if let Some(there) = there.filter(|there| *there < ours) {
        // A commit that is under way there ends first, and none begins. Without the lock, it could
        // come to be after the journal was read.
        let lock = format!("LOCK TABLE windrow_{there}.job IN EXCLUSIVE MODE");
        db.batch(&lock).await?;
    }
    for version in versions {
        let is_needed = match there {
            Some(there) => version.number > there,
            None => version.number == ours,
        };
        if is_needed {
            make_one(db, version, there.is_some()).await?;
        }
    }
    db.commit(Lost::Again).await
}

/// `is_filled`: the version before is there.
async fn make_one(db: &Session, version: &Version, is_filled: bool) -> Result<(), CatalogError> {
    // Asked first, because the server's own refusal comes in whatever language it is set to.
    let row = db
        .query_one(
            "SELECT has_database_privilege(current_database(), 'CREATE'), \
               current_database()::text",
            args![],
        )
        .await?;
    if !row.get::<_, bool>(0) {
        let why = format!(
            "no right to make windrow's own schema; \
             grant the user \"{}\" CREATE on the database \"{}\"",
            db.user(),
            row.get::<_, &str>(1)
        );
        return Err(db.retry_for(Cause::NoCreate, why));
    }
    let schema = format!("windrow_{}", version.number);
    db.batch(version.tables).await?;
    db.batch(&OPEN.replace("windrow_n", &schema)).await?;
    let row = db.query_one(ROLES_LET_IN, args![]).await?;
    if let Some(roles) = row.get::<_, Option<&str>>(0) {
        db.batch(&format!(
            "GRANT USAGE ON SCHEMA {schema} TO {roles}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {roles}"
        ))
        .await?;
    }
    match version.fill.filter(|_| is_filled) {
        Some(fill) => db.batch(fill).await,
        None => Ok(()),
    }
}

/// Refuses a table that the journal of before the first release has.
///
/// # Errors
/// `Stop` with the ways out. Its files must go with it: this version begins with term 1 and epoch 0
/// again, and finds the manifests of the old epochs in the table's folder.
pub(super) async fn refuse_unreleased(link: &Link, name: &TableName) -> Result<(), CatalogError> {
    let (db, TableName { database, table }) = (&link.db, name);
    let may_read = "SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'windrow_1' AND c.relname = 'job' \
         AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')";
    if !link.has_unreleased || db.query_opt(may_read, args![]).await?.is_none() {
        return Ok(());
    }
    let row = db
        .query_opt(
            "SELECT FROM windrow_1.job WHERE database = $1 AND \"table\" = $2 \
             AND last_epoch IS NOT NULL",
            args![*database, *table],
        )
        .await?;
    if row.is_none() {
        return Ok(());
    }
    let quoted = |kind| format!("`{database}`.`{}`", name.of(kind));
    let drops = TableKind::PARTITIONED.map(|kind| format!("DROP TABLE {}", quoted(kind)));
    Err(db.stop(format_args!(
        "it was made by a windrow of before the first release, whose journal {UNRELEASED} cannot \
         be taken over; choose another table name, or, if its rows may be lost, run DROP VIEW {}; \
         {} in Spark or Kyuubi, then DELETE FROM {UNRELEASED}.job WHERE database = '{database}' \
         AND \"table\" = '{table}' in PostgreSQL, and delete the folder \
         _windrow/{database}.{table} in the warehouse",
        quoted(TableKind::View),
        drops.join("; ")
    )))
}

#[cfg(test)]
mod tests {
    use super::super::super::session::JOURNAL;
    use super::*;

    #[test]
    fn statements_go_to_the_newest_version_and_the_versions_are_in_order() {
        assert_eq!(format!("windrow_{}", ours(VERSIONS)), JOURNAL);
        assert!(VERSIONS.is_sorted_by(|one, next| one.number < next.number));
        let filled = VERSIONS
            .iter()
            .skip(1)
            .all(|version| version.fill.is_some());
        assert!(filled, "each is filled from the one before");
    }
}
