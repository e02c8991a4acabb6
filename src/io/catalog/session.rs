//! A connection to PostgreSQL with deadlines: login, transactions, and what an error means to the
//! caller. It knows no table; `postgres` and `hive` bring the SQL.

#![expect(clippy::disallowed_methods, reason = "a connection has deadlines")]

use super::meaning::{Login, meaning};
use super::tls::tls_config;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::Severity;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;
use windrow_core::settings::config::CatalogTls;
use windrow_core::table::commit::CatalogError;
use windrow_core::values::cause::{Cause, Trouble, error_chain};

/// What stands before the name of each of Hive's tables in a statement.
const HIVE: &str = "hive.\"";

/// The schema of windrow's own tables, which are called the journal.
pub(super) const JOURNAL: &str = "windrow_2";

/// What a statement or a message has in its place.
const OWN: &str = "journal.";

/// How long connecting and logging in may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a transaction may take before it is given up. Each limit holds for every transaction
/// that a [`Session`] begins until it is told otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// All statements of one transaction, by our clock. It is more than the server's own limits,
    /// so that the server's answer, which says more, comes first.
    transaction: Duration,
    /// The server's limit for one statement, its waits for locks included.
    statement: Duration,
    /// The server's limit for how long this process may say nothing in the middle.
    idle: Duration,
    /// How long the answer to COMMIT is waited for. Afterwards its outcome is unknown.
    commit: Duration,
}

impl Limits {
    /// For what an owner does again and again while others wait: a few rows at a time.
    pub(super) const SHORT: Self = Self {
        transaction: Duration::from_secs(30),
        statement: Duration::from_secs(15),
        idle: Duration::from_secs(15),
        commit: Duration::from_secs(20),
    };
    /// For what touches every file of a table, once and at a person's request. The charm waits a
    /// little longer for it (`RESTORE` in `charm/src/action.rs`). A table of 300,000
    /// files, which is five weeks with a commit every ten seconds, takes some ten seconds for a
    /// statement.
    pub(super) const LONG: Self = Self {
        transaction: Duration::from_secs(1800),
        statement: Duration::from_secs(600),
        idle: Duration::from_secs(60),
        commit: Duration::from_secs(120),
    };
}

/// Where PostgreSQL is and how to log in. Its `Debug` leaves the password out.
#[derive(Clone)]
pub struct PgConfig {
    config: Config,
    /// As it was given; it holds no password.
    url: String,
    tls: CatalogTls,
    ca_pem: Option<String>,
}

impl fmt::Debug for PgConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgConfig({})", self.url)
    }
}

impl PgConfig {
    /// Reads a URL, for example `postgresql://10.0.0.5:5432/hivemetastore`. Several `host:port`
    /// with commas between are tried in turn until one takes writes. `ca_pem` holds the authorities
    /// that are trusted beside Mozilla's, for [`CatalogTls::VerifyFull`].
    ///
    /// # Errors
    /// What is wrong with the URL, as a whole sentence without secrets.
    pub fn new(
        url: &str,
        user: &str,
        password: &str,
        tls: CatalogTls,
        ca_pem: Option<&str>,
    ) -> Result<Self, String> {
        let wrong = |why: String| {
            format!("cannot parse setting catalog: {why}; write postgresql://host:5432/database")
        };
        // Messages leave out the URL itself, because it may hold a password.
        if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
            return Err(wrong("it does not begin with postgresql://".to_owned()));
        }
        let mut config: Config = url.parse().map_err(|error| wrong(error_chain(&error)))?;
        if config.get_user().is_some() || config.get_password().is_some() {
            return Err(wrong(
                "it holds a user or a password, which belong in the secrets file".to_owned(),
            ));
        }
        if config.get_dbname().is_none() || config.get_hosts().is_empty() {
            return Err(wrong("it does not name a host and a database".to_owned()));
        }
        config
            .user(user)
            .password(password)
            .application_name("windrow")
            .connect_timeout(Duration::from_secs(5))
            .tcp_user_timeout(Duration::from_secs(15))
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .ssl_mode(match tls {
                CatalogTls::Disable => tokio_postgres::config::SslMode::Disable,
                CatalogTls::Require | CatalogTls::VerifyFull => {
                    tokio_postgres::config::SslMode::Require
                }
            });
        Ok(Self {
            config,
            url: url.to_owned(),
            tls,
            ca_pem: ca_pem.map(str::to_owned),
        })
    }

    /// The same with another user and password.
    #[must_use]
    pub fn with_login(&self, user: &str, password: &str) -> Self {
        let mut other = self.clone();
        other.config.user(user).password(password);
        other
    }

    fn login(&self) -> Login<'_> {
        Login {
            user: self.config.get_user().unwrap_or_default(),
            database: self.config.get_dbname().unwrap_or_default(),
            tls: self.tls,
        }
    }

    /// The URL, for messages.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// One connection, and what is being done with it. Whoever gets an error drops it, and the server
/// rolls back.
pub(super) struct Session {
    client: Client,
    /// The beginning of each error, for example `cannot commit epoch 12 of table
    /// "default.newtable"`.
    doing: String,
    config: PgConfig,
    /// The schema in which Hive's tables are, as a quoted identifier.
    hive_schema: String,
    limits: Limits,
    deadline: Instant,
}

/// What it means to the caller when the answer to COMMIT is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Doing the same again is harmless: the error is `Retry`.
    Again,
    /// The caller must ask what became of it: the error is `Unknown`.
    Ask,
}

impl Session {
    /// Connects and logs in. `doing` begins every error of this connection.
    pub(super) async fn connect(config: &PgConfig, doing: &str) -> Result<Self, CatalogError> {
        let connected = tokio::time::timeout(CONNECT_MAX, Self::client(config, doing)).await;
        let client = match connected {
            Ok(client) => client?,
            Err(_) => {
                let why = format!(
                    "{doing}: no answer from {} in {CONNECT_MAX:?}; is PostgreSQL up?",
                    config.url
                );
                return Err(CatalogError::Retry(why.into()));
            }
        };
        let mut session = Self {
            client,
            doing: doing.to_owned(),
            config: config.clone(),
            hive_schema: String::new(),
            limits: Limits::SHORT,
            deadline: Instant::now() + Limits::SHORT.transaction,
        };
        session.hive_schema = session.find_hive_schema().await?;
        Ok(session)
    }

    /// Where Hive's tables are, as a quoted identifier: of the schemas in which its own clients
    /// look for names, the first that has the table `TBLS`, else the first. Hive's clients and
    /// windrow have the same search path unless somebody set them apart.
    ///
    /// A schema that bears our user's name counts only if it is ours. Whoever may make schemas
    /// could otherwise put one in front of Hive's.
    async fn find_hive_schema(&mut self) -> Result<String, CatalogError> {
        // This statement is safe in every search path, and the other one runs in a safe one.
        let path = "SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]";
        let path: Vec<String> = self.query_one(path, &[]).await?.get(0);
        self.begin().await?;
        let row = self
            .query_opt(
                "SELECT quote_ident(p.name) FROM unnest($1) WITH ORDINALITY AS p (name, position) \
                   JOIN pg_namespace AS n ON n.nspname = p.name \
                 WHERE n.nspname NOT IN (current_user, session_user) \
                   OR pg_has_role(n.nspowner, 'MEMBER') \
                 ORDER BY NOT EXISTS (SELECT FROM pg_class AS c \
                   WHERE c.relnamespace = n.oid AND c.relname = 'TBLS'), p.position LIMIT 1",
                args![path],
            )
            .await?;
        self.commit(Lost::Again).await?;
        Ok(row.map_or_else(|| "public".to_owned(), |row| row.get(0)))
    }

    /// Where Hive's tables are, as a quoted identifier.
    pub(super) fn hive_schema(&self) -> &str {
        &self.hive_schema
    }

    /// A statement or the name of a column with the schemas in their places: `hive."TBLS"` becomes
    /// `public."TBLS"`, and `journal.job` becomes `windrow_2.job`.
    pub(super) fn named<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        if !sql.contains(HIVE) && !sql.contains(OWN) {
            return Cow::Borrowed(sql);
        }
        let sql = sql.replace(HIVE, &format!("{}.\"", self.hive_schema));
        Cow::Owned(sql.replace(OWN, &format!("{JOURNAL}.")))
    }

    async fn client(config: &PgConfig, doing: &str) -> Result<Client, CatalogError> {
        let failed = |error| meaning(&error, &format!("{doing}: {}", config.url), config.login());
        // The connection's own task ends when the client is dropped. An error in it reaches the
        // client's next call.
        if config.tls == CatalogTls::Disable {
            let (client, connection) = config.config.connect(NoTls).await.map_err(failed)?;
            tokio::spawn(connection);
            return Ok(client);
        }
        let tls = tls_config(config.tls, config.ca_pem.as_deref()).map_err(|why| {
            let why = format!("{doing}: cannot set up TLS to {}: {why}", config.url);
            CatalogError::Stop(Trouble::new(Cause::TlsCatalog, why))
        })?;
        let (client, connection) = config
            .config
            .connect(MakeRustlsConnect::new(tls))
            .await
            .map_err(failed)?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The user that logged in. The server may have set another role at login.
    pub(super) fn user(&self) -> &str {
        self.config.login().user
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Sets what is being done from here on, for errors, and gives it a new deadline.
    pub(super) fn doing(&mut self, doing: &str) {
        doing.clone_into(&mut self.doing);
        self.set_limits(Limits::SHORT);
    }

    /// Sets how long a transaction may take from here on, until [`Session::doing`] sets what is
    /// done next.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.deadline = Instant::now() + limits.transaction;
    }

    /// Begins a transaction with limits: nobody's DDL waits long for us, and we do not wait long
    /// for it. If this process stands still in the middle, the server ends the transaction, so that
    /// the next owner can go on.
    ///
    /// Functions and operators are PostgreSQL's own: a role that may make some elsewhere cannot
    /// have them run with our rights. All of it ends with the transaction, because a pooler may
    /// give the connection to another client then. So every statement except the first one runs in
    /// a transaction.
    pub(super) async fn begin(&mut self) -> Result<(), CatalogError> {
        self.deadline = Instant::now() + self.limits.transaction;
        self.batch(&format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '5s'; \
             SET LOCAL search_path = pg_catalog; SET LOCAL statement_timeout = '{}s'; \
             SET LOCAL idle_in_transaction_session_timeout = '{}s'",
            self.limits.statement.as_secs(),
            self.limits.idle.as_secs()
        ))
        .await
    }

    /// Begins a transaction that sees all as it is at its first statement, and writes nothing.
    pub(super) async fn begin_snapshot(&mut self) -> Result<(), CatalogError> {
        self.begin().await?;
        self.batch("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .await
    }

    /// Ends a transaction. After an error the session must not be used any more.
    pub(super) async fn commit(&mut self, lost: Lost) -> Result<(), CatalogError> {
        let limit = self.limits.commit;
        let answer = tokio::time::timeout(limit, self.client.batch_execute("COMMIT")).await;
        let why = match answer {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if refused(&error) => return Err(self.meaning(&error)),
            Ok(Err(error)) => error_chain(&error),
            Err(_) => format!("no answer in {limit:?}"),
        };
        let said = format!("{}: the answer to COMMIT was lost: {why}", self.doing);
        Err(match lost {
            Lost::Ask => CatalogError::Unknown(said),
            Lost::Again => CatalogError::Retry(said.into()),
        })
    }

    /// Runs one statement and returns its rows. Statements are never prepared by name, because a
    /// pooler may stand between us and the server.
    pub(super) async fn query(&self, sql: &str, args: Args<'_>) -> Result<Vec<Row>, CatalogError> {
        let sql = self.named(sql);
        match tokio::time::timeout_at(self.deadline, self.client.query_typed(&sql, args)).await {
            Ok(answer) => answer.map_err(|error| self.meaning(&error)),
            Err(_) => Err(self.overdue()),
        }
    }

    /// As [`Session::query`], for at most one row.
    pub(super) async fn query_opt(
        &self,
        sql: &str,
        args: Args<'_>,
    ) -> Result<Option<Row>, CatalogError> {
        Ok(self.query(sql, args).await?.into_iter().next())
    }

    /// As [`Session::query`], for exactly one row.
    pub(super) async fn query_one(&self, sql: &str, args: Args<'_>) -> Result<Row, CatalogError> {
        let row = self.query_opt(sql, args).await?;
        row.ok_or_else(|| self.retry("a statement answered no row"))
    }

    /// Runs one statement; returns how many rows it touched.
    pub(super) async fn execute(&self, sql: &str, args: Args<'_>) -> Result<u64, CatalogError> {
        let sql = self.named(sql);
        match tokio::time::timeout_at(self.deadline, self.client.execute_typed(&sql, args)).await {
            Ok(answer) => answer.map_err(|error| self.meaning(&error)),
            Err(_) => Err(self.overdue()),
        }
    }

    /// Runs statements without arguments.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), CatalogError> {
        let sql = self.named(sql);
        match tokio::time::timeout_at(self.deadline, self.client.batch_execute(&sql)).await {
            Ok(answer) => answer.map_err(|error| self.meaning(&error)),
            Err(_) => Err(self.overdue()),
        }
    }

    /// A column of a row. Messages call it `name`, for example `journal.job.last_epoch` with the
    /// schema in its place.
    ///
    /// # Errors
    /// `Stop` when it holds what windrow never writes: somebody has changed the table or the row.
    pub(super) fn read<'r, T: FromSql<'r>>(
        &self,
        row: &'r Row,
        column: usize,
        name: &str,
    ) -> Result<T, CatalogError> {
        row.try_get(column)
            .map_err(|error| self.impossible(name, error_chain(&error)))
    }

    /// As [`Session::read`], for a bigint that holds a count; `None` for null.
    pub(super) fn read_count_opt(
        &self,
        row: &Row,
        column: usize,
        name: &str,
    ) -> Result<Option<u64>, CatalogError> {
        let number: Option<i64> = self.read(row, column, name)?;
        let count =
            |n: i64| u64::try_from(n).map_err(|_| self.impossible(name, format!("it is {n}")));
        number.map(count).transpose()
    }

    /// As [`Session::read_count_opt`], for a column that is never null.
    pub(super) fn read_count(
        &self,
        row: &Row,
        column: usize,
        name: &str,
    ) -> Result<u64, CatalogError> {
        self.read_count_opt(row, column, name)?
            .ok_or_else(|| self.impossible(name, "it is null".to_owned()))
    }

    /// What the journal says cannot be true.
    pub(super) fn impossible(&self, name: &str, why: String) -> CatalogError {
        let (name, why) = (self.named(name), self.named(&why));
        self.stop(format_args!(
            "cannot read {name}: {why}, which windrow never writes; set it back to what it was, or \
             restore the database from a backup"
        ))
    }

    pub(super) fn fenced(&self, why: impl fmt::Display) -> CatalogError {
        CatalogError::Fenced(format!("{}: {why}", self.doing))
    }

    pub(super) fn retry(&self, why: impl fmt::Display) -> CatalogError {
        CatalogError::Retry(format!("{}: {why}", self.doing).into())
    }

    /// As [`Session::retry`], where it is known what kind of trouble it is.
    pub(super) fn retry_for(&self, cause: Cause, why: impl fmt::Display) -> CatalogError {
        CatalogError::Retry(Trouble::new(cause, format!("{}: {why}", self.doing)))
    }

    /// As [`Session::stop`], where it is known what kind of trouble it is.
    pub(super) fn stop_for(&self, cause: Cause, why: impl fmt::Display) -> CatalogError {
        CatalogError::Stop(Trouble::new(cause, format!("{}: {why}", self.doing)))
    }

    pub(super) fn stop(&self, why: impl fmt::Display) -> CatalogError {
        CatalogError::Stop(format!("{}: {why}", self.doing).into())
    }

    fn overdue(&self) -> CatalogError {
        self.retry(format_args!(
            "PostgreSQL did not answer within {:?}",
            self.limits.transaction
        ))
    }

    fn meaning(&self, error: &tokio_postgres::Error) -> CatalogError {
        meaning(error, &self.doing, self.config.login())
    }
}

/// The arguments of a statement with their types. Because the types are given, one round trip is
/// enough.
pub(super) type Args<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// A Rust type with the one PostgreSQL type that it is sent as. A column of another integer width
/// takes it by assignment.
pub(super) trait Arg: ToSql + Sync + Sized {
    const TYPE: Type;

    fn arg(&self) -> (&(dyn ToSql + Sync), Type) {
        (self, Self::TYPE)
    }
}

macro_rules! arg_types {
    ($($rust:ty => $pg:ident),* $(,)?) => {
        $(impl Arg for $rust { const TYPE: Type = Type::$pg; })*
    };
}

arg_types! {
    bool => BOOL, i32 => INT4, i64 => INT8, &str => TEXT, String => TEXT,
    Option<i64> => INT8, Option<String> => TEXT, Option<&str> => TEXT,
    Vec<Option<&str>> => TEXT_ARRAY,
    Vec<i32> => INT4_ARRAY, Vec<i64> => INT8_ARRAY, Vec<Option<i64>> => INT8_ARRAY,
    Vec<String> => TEXT_ARRAY, Vec<&str> => TEXT_ARRAY, Vec<Option<String>> => TEXT_ARRAY,
}

macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::io::catalog::session::Arg::arg(&$value)),*] };
}
pub(super) use args;

/// Whether the server itself said that a COMMIT did nothing. A server that goes down during COMMIT
/// also answers with an error, a FATAL one, although it may have committed. Other errors than these
/// are not known to roll back either.
fn refused(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        let class = db.code().code().get(..2).unwrap_or_default();
        db.parsed_severity() == Some(Severity::Error) && matches!(class, "23" | "40")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_must_name_host_and_database_and_no_login() {
        let read = |url| PgConfig::new(url, "u", "hunter2", CatalogTls::Disable, None);
        for good in [
            "postgresql://h:5432/db",
            "postgres://h/db",
            "postgresql://a:1,b:2/db",
            "postgresql://[::1]:5432/db",
        ] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "postgresql://h:5432",
            "mysql://h/db",
            "postgresql://u:geheim@h/db",
            "postgresql://u@h/db",
            "",
            "postgresql://h:x/db",
        ] {
            let why = read(bad).unwrap_err();
            assert!(
                why.starts_with("cannot parse setting catalog: ") && !why.contains("geheim"),
                "{why}"
            );
        }
    }

    #[test]
    fn password_is_not_in_debug_output() {
        let config = PgConfig::new(
            "postgresql://h/db",
            "u",
            "hunter2",
            CatalogTls::Disable,
            None,
        )
        .unwrap();
        assert_eq!(format!("{config:?}"), "PgConfig(postgresql://h/db)");
    }
}
