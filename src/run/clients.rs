//! Settings and secrets → the rules of the engine and the clients of Kafka, store and catalog, and
//! a look at what is committed when no process runs. Nothing is connected before it is used.

use crate::io::catalog::Catalog;
use crate::io::catalog::directory::LocalCatalog;
use crate::io::catalog::postgres::PostgresCatalog;
use crate::io::catalog::session::PgConfig;
use crate::io::cgroup;
use crate::io::kafka::KafkaConfig;
use crate::io::store::{S3Config, Store};
use crate::run::clock::wall_now;
use crate::run::from_manifests::rebuild;
use anyhow::{Context, anyhow};
use openssl::x509::X509;
use std::path::Path;
use windrow_core::engine::{GarbageRules, Limits, Rules, fetched_bytes};
use windrow_core::settings::certificates::Certificates;
use windrow_core::settings::config::{CatalogSettings, Config, OnDataLoss, Start};
use windrow_core::settings::secrets::{Secret, Secrets};
use windrow_core::shown::status::{LaneStatus, Rows, State as StatusState, Status};
use windrow_core::shown::upkeep::CompactionPlan;
use windrow_core::table::compaction::Times;
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::table::listing::{Listing, Value};
use windrow_core::table::newest::{NewestRows, NextStep};
use windrow_core::table::place::{Names, Place, TablePlace, locate};
use windrow_core::values::cause::Trouble;
use windrow_core::values::time::{DbTime, EventTime};

/// What a run talks to, and by which rules it counts.
pub struct Clients {
    /// What the engine obeys.
    pub settings: Rules,
    /// How to reach the topic.
    pub kafka: KafkaConfig,
    /// The store of the table's files.
    pub store: Store,
    /// The catalog, for the loop that commits.
    pub catalog: Catalog,
    /// The same catalog once more, for looks beside the loop.
    pub look: Catalog,
    /// How PostgreSQL is reached; `None` for a catalog in a directory.
    pub catalog_login: Option<PgConfig>,
    /// How many bytes a second merges may read and write together.
    pub compact_bytes_per_second: u64,
    /// The name by which other processes know this one; it is shown to people.
    pub who: String,
    /// The settings, by which changed secrets are read again; `None` where secrets do not change.
    pub config: Option<Config>,
    /// The secrets as they were read last.
    pub secrets: Secrets,
}

/// Makes the clients that settings and secrets name. Where only the table's bucket is set, its
/// place in there is not known yet: see [`Clients::bucket`].
///
/// # Errors
/// In console mode; or a file that a setting names cannot be read, or a client refuses a value.
pub fn open(config: &Config, secrets: &Secrets) -> anyhow::Result<Clients> {
    let table = config.table.as_ref().context("console mode has no table")?;
    let name = TableName::new(&table.database, &table.name).map_err(|why| anyhow!(why))?;
    let catalog = || open_catalog(config, secrets, &name);
    let catalog_login = match &config.catalog {
        Some(CatalogSettings::Postgres { .. }) => Some(pg_config(config, secrets)?),
        _ => None,
    };
    Ok(Clients {
        settings: engine_settings(config),
        kafka: kafka_config(config, secrets)?,
        store: Store::open(&table.place.or_default(), &s3_config(config, secrets)?)?,
        catalog: catalog()?,
        look: catalog()?,
        catalog_login,
        compact_bytes_per_second: config.compact_bytes_per_second,
        who: who(config),
        config: Some(config.clone()),
        secrets: secrets.clone(),
    })
}

impl Clients {
    /// The bucket, where the table's place in it must still be found by [`locate`]; else `None`.
    #[must_use]
    pub fn bucket(&self) -> Option<&str> {
        match &self.config.as_ref()?.table.as_ref()?.place {
            TablePlace::InBucket(bucket) => Some(bucket),
            TablePlace::At(_) => None,
        }
    }

    /// Finds the table's place in its bucket for a look at what is committed. Hive is not asked: a
    /// table that does not exist has no files to look at.
    ///
    /// # Errors
    /// The catalog does not answer, or the table lies in another bucket.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        let Some(bucket) = self.bucket().map(str::to_owned) else {
            return Ok(());
        };
        let genesis = self
            .look
            .head()
            .await?
            .map(|head| head.genesis.warehouse.to_string());
        let name = format!("{}.{}", self.settings.database, self.settings.table);
        let place = locate(&bucket, genesis.as_deref(), None)
            .map_err(|why| anyhow!("cannot read table \"{name}\": {why}"))?;
        self.store = self.store.elsewhere(&place)?;
        Ok(())
    }
}

/// The status of a table that no process counts at the moment: what its catalog says.
///
/// # Errors
/// The catalog does not answer.
pub async fn look(parts: &mut Clients) -> anyhow::Result<Status> {
    let name = format!("{}.{}", parts.settings.database, parts.settings.table);
    let mut status = Status {
        table: name,
        topic: parts.settings.shape.topic.clone(),
        version: crate::run::cli::VERSION.to_owned(),
        reason: "no windrow runs with these settings on this machine; run: windrow run".to_owned(),
        ..Status::default()
    };
    let Some(head) = parts.look.head().await? else {
        status.reason = format!("there is no such table yet; {}", status.reason);
        return Ok(status);
    };
    let totals = parts.look.files(TableKind::Chunks, 0).await?.totals;
    (status.rows, status.files, status.bytes) = (totals.rows, totals.files, totals.bytes);
    (status.first_window, status.last_window) = (totals.first_window, totals.last_window);
    let ledger = head.last.ledger;
    (status.consumed, status.counted, status.late) = (ledger.consumed, ledger.counted, ledger.late);
    (status.rejected, status.tombstones) = (ledger.rejected, ledger.tombstones);
    (status.gaps, status.lost, status.rows_committed) = (ledger.gaps, ledger.lost, ledger.rows);
    (status.lost_hits, status.adopted) = (ledger.lost_hits, ledger.adopted);
    (status.epoch, status.watermark) = (Some(head.last.epoch), head.last.closed_through);
    status.last_commit = Some(EventTime(head.committed_at.0));
    if head.paused {
        status.state = StatusState::Paused;
    }
    status.lanes = head
        .last
        .lanes
        .iter()
        .map(|(partition, lane)| LaneStatus {
            partition: *partition,
            next_offset: lane.to,
            watermark: lane.watermark,
            ledger: lane.ledger,
            ..LaneStatus::default()
        })
        .collect();
    Ok(status)
}

/// What would be merged and dropped now, by the catalog and by this machine's clock.
///
/// # Errors
/// The catalog does not answer.
pub async fn compaction_plan(parts: &mut Clients) -> anyhow::Result<CompactionPlan> {
    let head = parts.look.head().await?;
    let (files, closed_through) = match &head {
        Some(head) => (parts.look.live_files().await?, head.last.closed_through),
        None => (Vec::new(), None),
    };
    let now = DbTime(wall_now().0);
    let rules = &parts.settings;
    Ok(CompactionPlan::of(&files, rules, closed_through, now))
}

/// Creates Hive's schema where the database is empty.
///
/// # Errors
/// In console mode; or the catalog does not answer, or the database holds something else.
pub async fn init_metastore(config: &Config, secrets: &Secrets) -> anyhow::Result<()> {
    // The table's name is only used in errors.
    let table = config.table.as_ref().map_or(("default", "none"), |t| {
        (t.database.as_str(), t.name.as_str())
    });
    let name = TableName::new(table.0, table.1).map_err(|why| anyhow!(why))?;
    Ok(open_catalog(config, secrets, &name)?
        .init_metastore()
        .await?)
}

/// Writes the table's rows in Hive again from the journal. Returns what a person should know of
/// it, as whole sentences.
///
/// # Errors
/// The catalog does not answer, another process owns the table, or a table that is not windrow's
/// has one of its names.
pub async fn restore(config: &Config, secrets: &Secrets) -> anyhow::Result<Vec<String>> {
    let table = config.table.as_ref().context("console mode has no table")?;
    let name = TableName::new(&table.database, &table.name).map_err(|why| anyhow!(why))?;
    let owner_id = random_owner_id()?;
    let mut catalog = open_catalog(config, secrets, &name)?;
    let restored = catalog
        .restore(&who(config), &owner_id, config.lease_ms)
        .await;
    restored.map_err(|error| Trouble::from(error).into())
}

/// Writes the table's journal again from the manifests in the store. Returns what a person should
/// know of it, as whole sentences.
///
/// # Errors
/// The store or the catalog does not answer; the store does not say what the table is; the journal
/// has epochs of it; or another process owns the table.
pub async fn restore_from_manifests(
    config: &Config,
    secrets: &Secrets,
) -> anyhow::Result<Vec<String>> {
    let table = config.table.as_ref().context("console mode has no table")?;
    let name = TableName::new(&table.database, &table.name).map_err(|why| anyhow!(why))?;
    let mut catalog = open_catalog(config, secrets, &name)?;
    let place = place_of_new_table(&mut catalog, &table.place, &table.database).await?;
    let store = Store::open(&place, &s3_config(config, secrets)?)?;
    let names = Names::new(&table.database, &table.name);
    let by = (who(config), random_owner_id()?);
    rebuild(&mut catalog, &store, &place, &names, (&by.0, &by.1)).await
}

/// Where a table lies of which the catalog has no epoch.
///
/// # Errors
/// The catalog does not answer, or the database lies in another bucket.
pub(super) async fn place_of_new_table(
    catalog: &mut Catalog,
    place: &TablePlace,
    database: &str,
) -> anyhow::Result<Place> {
    match place {
        TablePlace::At(place) => Ok(place.clone()),
        TablePlace::InBucket(bucket) => {
            let location = catalog.warehouse(database).await.map_err(Trouble::from)?;
            locate(bucket, None, location.as_deref()).map_err(|why| anyhow!(why))
        }
    }
}

/// An owner id that no other process has.
///
/// # Errors
/// The system gives no random bytes.
#[expect(clippy::disallowed_methods, reason = "owner ids are made at the edge")]
pub(super) fn random_owner_id() -> anyhow::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| anyhow!("cannot get random bytes from the system: {error}"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

/// The token that the HTTP server asks for. Where the file has one that cannot be used, it is one
/// that nobody knows, so that the server does not take everybody on this machine for welcome.
///
/// # Errors
/// The system gives no random bytes.
pub(super) fn http_token(secrets: &Secrets) -> anyhow::Result<Option<Secret>> {
    if secrets.has_bad_token() {
        return Ok(Some(Secret::new(random_owner_id()?)));
    }
    Ok(secrets.api_token.clone())
}

/// What the engine obeys: its part of the settings.
///
/// # Panics
/// In console mode.
#[must_use]
pub fn engine_settings(config: &Config) -> Rules {
    let table = config.table.as_ref().expect("not console mode");
    Rules {
        shape: config.shape.clone(),
        database: table.database.clone(),
        table: table.name.clone(),
        place: table.place.clone(),
        timestamps: table.timestamps,
        start_at_end: config.kafka.start == Start::Latest,
        delay_ms: config.watermark_delay_ms,
        idle_timeout_ms: config.idle_timeout_ms,
        stalled_after_ms: config.stalled_after_ms,
        quiet_timeout_ms: config.quiet_timeout_ms,
        max_skew_ms: config.max_skew_ms,
        max_memory_bytes: config.max_memory_bytes(cgroup::memory_limit()),
        max_future_ms: config.max_future_ms,
        commit_interval_ms: config.commit_interval_ms,
        continue_on_data_loss: config.on_data_loss == OnDataLoss::Continue,
        lease_ms: config.lease_ms,
        keep_replaced_ms: table.keep_replaced_ms,
        garbage: GarbageRules::default(),
        compaction: Times::default(),
        retain_ms: table.retain_ms,
        retain_side_ms: table.retain_side_ms,
        limits: Limits::default(),
    }
}

pub(crate) fn expose(secret: Option<&Secret>) -> String {
    secret.map(|s| s.expose().to_owned()).unwrap_or_default()
}

/// The certificates in a CA file that can be used. One that cannot is left out and named in the
/// log: each client of TLS would refuse to start because of it.
fn pem(path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read CA file \"{name}\""))?;
    let read = Certificates::read(&String::from_utf8_lossy(&bytes));
    if read.blocks.is_empty() {
        anyhow::bail!(
            "cannot use CA file \"{name}\": {}; give CA certificates in PEM",
            read.left_out.join("; ")
        );
    }
    for why in read.left_out {
        tracing::warn!("CA file \"{name}\": one certificate is left out: {why}");
    }
    // Kafka's client takes all certificates or none, so OpenSSL has the last word.
    let (used, refused): (Vec<_>, Vec<_>) = read
        .blocks
        .into_iter()
        .partition(|block| X509::from_pem(block.as_bytes()).is_ok());
    for _ in &refused {
        tracing::warn!("CA file \"{name}\": one certificate is left out: OpenSSL refuses it");
    }
    if used.is_empty() {
        anyhow::bail!(
            "cannot use CA file \"{name}\": OpenSSL refuses all certificates in it; give CA \
             certificates in PEM"
        );
    }
    Ok(Some(used.concat()))
}

/// User and password of Kafka; both are empty where they are not needed.
pub(super) fn kafka_login(secrets: &Secrets) -> (String, Secret) {
    let password = secrets.kafka_password.clone().unwrap_or_default();
    (expose(secrets.kafka_username.as_ref()), password)
}

/// How to reach the topic.
///
/// # Errors
/// The CA file cannot be read.
pub fn kafka_config(config: &Config, secrets: &Secrets) -> anyhow::Result<KafkaConfig> {
    let (username, password) = kafka_login(secrets);
    Ok(KafkaConfig {
        settings: config.kafka.clone(),
        topic: config.shape.topic.clone(),
        username,
        password,
        group: config.group(),
        ca_pem: pem(config.kafka.ca_file.as_deref())?,
        fetched_bytes: fetched_bytes(config.max_memory_bytes(cgroup::memory_limit())),
        partitions: 0,
    })
}

pub(super) fn s3_config(config: &Config, secrets: &Secrets) -> anyhow::Result<S3Config> {
    Ok(S3Config {
        settings: config.s3.clone(),
        ca_pem: pem(config.s3.ca_file.as_deref())?,
        access_key: expose(secrets.s3_access_key.as_ref()),
        secret_key: expose(secrets.s3_secret_key.as_ref()),
        proxy: secrets.s3_proxy.clone(),
    })
}

/// The catalog that the settings name.
///
/// # Errors
/// The CA file cannot be read.
pub fn open_catalog(
    config: &Config,
    secrets: &Secrets,
    name: &TableName,
) -> anyhow::Result<Catalog> {
    Ok(
        match config
            .catalog
            .as_ref()
            .context("console mode has no catalog")?
        {
            CatalogSettings::Local(dir) => Catalog::Local(LocalCatalog::new(dir, name.clone())),
            CatalogSettings::Postgres { .. } => Catalog::Postgres(Box::new(PostgresCatalog::new(
                pg_config(config, secrets)?,
                name.clone(),
            ))),
        },
    )
}

fn pg_config(config: &Config, secrets: &Secrets) -> anyhow::Result<PgConfig> {
    let Some(CatalogSettings::Postgres {
        server,
        database,
        tls,
        ca_file,
    }) = &config.catalog
    else {
        return Err(anyhow!("the catalog is not a PostgreSQL database"));
    };
    let ca = pem(ca_file.as_deref())?;
    let url = format!("postgresql://{server}/{database}");
    let (user, password) = (
        expose(secrets.catalog_username.as_ref()),
        expose(secrets.catalog_password.as_ref()),
    );
    PgConfig::new(&url, &user, &password, *tls, ca.as_deref()).map_err(|why| anyhow!(why))
}

/// The name by which other processes know this one: the setting `instance`, else host and process
/// id.
#[must_use]
pub fn who(config: &Config) -> String {
    config
        .instance
        .clone()
        .unwrap_or_else(|| format!("{}/{}", host_name(), std::process::id()))
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "host".to_owned(), |name| name.trim().to_owned())
}

/// About how much text one answer holds. A limit on rows is not enough, because a record that could
/// not be counted may be 64 KiB.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// The newest rows of the committed table or of one of its side tables, the oldest of them first.
/// Of each file only the end is fetched, a row group at a time.
///
/// # Errors
/// The catalog or the store does not answer, or a file is damaged.
pub async fn newest_rows(
    table: &str,
    kind: TableKind,
    catalog: &mut Catalog,
    store: &Store,
    limit: usize,
) -> anyhow::Result<Rows> {
    let files = catalog
        .files(kind, u32::try_from(limit.max(1)).unwrap_or(u32::MAX))
        .await?;
    let mut columns = Vec::new();
    let (mut found, mut left) = (Vec::new(), ANSWER_MAX_BYTES);
    for committed in files.newest {
        if found.len() > limit || left == 0 {
            break;
        }
        let file = &committed.file;
        let mut newest = NewestRows::new(file.bytes, limit + 1 - found.len(), left);
        while let NextStep::Fetch(range) = newest.step()? {
            let bytes = store.get_range(&file.key, range).await?;
            let missing = || format!("cannot read file \"{}\": it is not there", file.key);
            newest.give(bytes.with_context(missing)?)?;
        }
        let rows;
        (columns, rows) = newest.finish();
        let text: usize = rows.iter().flatten().map(Value::text_bytes).sum();
        left = left.saturating_sub(text);
        found.extend(rows);
    }
    let truncated = found.len() > limit || files.totals.rows > found.len() as u64;
    found.truncate(limit);
    found.reverse();
    let count = found.len();
    let rows = serde_json::value::to_raw_value(&Listing {
        columns: columns.clone(),
        rows: found,
    })?;
    let side = if kind == TableKind::Chunks {
        ""
    } else {
        kind.suffix()
    };
    Ok(Rows {
        table: format!("{table}{side}"),
        columns,
        rows,
        count,
        truncated,
    })
}
