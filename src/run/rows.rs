//! The newest rows of the table, for people who ask over HTTP. They are read beside the loop, with
//! a connection to the catalog of their own, so that nobody who looks makes the count wait.

use crate::io::catalog::Catalog;
use crate::io::catalog::session::PgConfig;
use crate::io::http::RowsFn;
use crate::io::store::Store;
use crate::run::clients::newest_rows;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// Reads the newest rows of the committed table, or of one of its side tables.
///
/// `login` brings new credentials for the catalog. `store` is `None` until it is known where the
/// table lies.
pub fn rows_reader(
    table: String,
    catalog: Catalog,
    login: watch::Receiver<Option<PgConfig>>,
    store: watch::Receiver<Option<Store>>,
) -> RowsFn {
    let look = Arc::new(Mutex::new((catalog, login)));
    Arc::new(move |kind, limit| {
        let (table, look, store) = (table.clone(), Arc::clone(&look), store.borrow().clone());
        Box::pin(async move {
            let store = store.ok_or("where the table lies is not known yet; see /v1/status")?;
            let (catalog, login) = &mut *look.lock().await;
            if login.has_changed().unwrap_or(false)
                && let (Catalog::Postgres(metastore), Some(login)) =
                    (&mut *catalog, &*login.borrow_and_update())
            {
                metastore.set_config(login.clone());
            }
            newest_rows(&table, kind, catalog, &store, limit)
                .await
                .map_err(|error| format!("{error:#}"))
        })
    })
}
