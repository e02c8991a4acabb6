//! `windrow restore --from-manifests`: the journal has no epoch of the table, and the store has
//! them. What the journal begins with again is decided in `windrow_core::table::rebuild`; here it
//! is read and written.

use crate::io::catalog::Catalog;
use crate::io::store::{Store, StoreError};
use anyhow::{Context, anyhow};
use windrow_core::table::place::{Names, Place};
use windrow_core::table::rebuild::{Base, Listing};
use windrow_core::values::cause::Trouble;
use windrow_core::values::object::ListedObject;

/// Rebuilds the journal of the table with these names, which lies at this place. Returns what a
/// person should know of it, as whole sentences.
///
/// # Errors
/// The store or the catalog does not answer; the store does not say what the table is; the journal
/// has epochs; or another process owns the table.
pub async fn rebuild(
    catalog: &mut Catalog,
    store: &Store,
    place: &Place,
    names: &Names,
    (who, owner_id): (&str, &str),
) -> anyhow::Result<Vec<String>> {
    let base = read_base(store, names)
        .await
        .with_context(|| format!("cannot rebuild the table from {place}"))?;
    let recorded = base
        .first
        .genesis
        .as_ref()
        .map(|genesis| &genesis.warehouse);
    if recorded != Some(place) {
        return Err(anyhow!(
            "cannot rebuild the table from {place}: its epoch 0 says that it lies elsewhere; set \
             table.warehouse to {}",
            recorded.map_or(String::new(), Place::to_string)
        ));
    }
    let rebuilt = catalog.rebuild(who, owner_id, &base).await;
    rebuilt.map_err(|error| Trouble::from(error).into())
}

async fn read_base(store: &Store, names: &Names) -> anyhow::Result<Base> {
    let listing = list(store, names).await?;
    let mut fetched = Vec::new();
    for key in listing.wanted() {
        if let Some(bytes) = store.get(&key).await? {
            fetched.push((key, bytes));
        }
    }
    listing.rebuild(names, &fetched).map_err(|why| anyhow!(why))
}

/// Lists all objects of the table.
async fn list(store: &Store, names: &Names) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    let add = |object: &ListedObject| listing.add(names, &object.key);
    store.list_all(names.prefix(), add).await?;
    Ok(listing)
}
