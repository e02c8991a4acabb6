//! The modelled catalog passes the cases that the real ones pass.

use crate::catalog_cases::{self as cases, Client, Place};
use crate::store::Catalog;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use windrow_core::table::commit::{
    Acquired, CatalogError, CheckpointAt, ClockBound, Commit, Head, LeaseMark, LiveFile, Outcome,
    Owner, Renewed,
};
use windrow_core::values::time::DbTime;

/// A modelled catalog for each table.
#[derive(Default)]
struct Model(RefCell<BTreeMap<String, Table>>);

type Table = Rc<RefCell<(Catalog, Clock)>>;

/// How far the catalog's clock has moved, in milliseconds.
type Clock = i64;

impl Place for Model {
    type Client = Table;

    fn client(&self, table: &str) -> Table {
        let mut tables = self.0.borrow_mut();
        Rc::clone(tables.entry(table.to_owned()).or_default())
    }
}

fn time(clock: Clock) -> DbTime {
    DbTime(1_725_192_000_000 + clock)
}

impl Client for Table {
    async fn acquire_over(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
        over: Option<&LeaseMark>,
    ) -> Result<Acquired, CatalogError> {
        let (catalog, clock) = &mut *self.borrow_mut();
        catalog.acquire(time(*clock), who, owner_id, lease_ms, over, None)
    }

    async fn renew(&mut self, owner: &Owner, lease_ms: u64) -> Result<Renewed, CatalogError> {
        let (catalog, clock) = &mut *self.borrow_mut();
        catalog.renew(time(*clock), owner, lease_ms, None)
    }

    async fn release(&mut self, owner: &Owner) -> Result<(), CatalogError> {
        self.borrow_mut().0.release(owner);
        Ok(())
    }

    async fn commit_by(
        &mut self,
        commit: &Commit,
        bound: &ClockBound,
    ) -> Result<DbTime, CatalogError> {
        let checkpoint = match &commit.checkpoint {
            Some(CheckpointAt::Object(key)) => Some((key.clone(), Default::default())),
            _ => None,
        };
        let (catalog, clock) = &mut *self.borrow_mut();
        catalog.commit(
            time(*clock),
            commit,
            bound,
            &checkpoint.into_iter().collect(),
            None,
        )
    }

    async fn outcome(&mut self, epoch: u64) -> Result<Outcome, CatalogError> {
        Ok(self.borrow().0.outcome(epoch))
    }

    async fn head(&mut self) -> Result<Option<Head>, CatalogError> {
        Ok(self.borrow().0.head(None))
    }

    async fn set_paused(&mut self, paused: bool) -> Result<(), CatalogError> {
        self.borrow_mut().0.set_paused(paused)
    }

    async fn live_files(&mut self) -> Result<Vec<LiveFile>, CatalogError> {
        Ok(self.borrow().0.live_files())
    }

    async fn drop_emptied(
        &mut self,
        owner: &Owner,
        _emptied_ms: u64,
        bound: &ClockBound,
    ) -> Result<(), CatalogError> {
        let (catalog, clock) = &*self.borrow();
        catalog.drop_emptied(time(*clock), owner, bound)
    }

    async fn doom(
        &mut self,
        owner: &Owner,
        keys: &[String],
        bound: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        let (catalog, clock) = &mut *self.borrow_mut();
        catalog.doom(time(*clock), owner, keys, bound, None)
    }

    async fn doomed_past(
        &mut self,
        grace_ms: u64,
        after: Option<&str>,
        bound: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        let (catalog, clock) = &*self.borrow();
        catalog.doomed_past(time(*clock), grace_ms, after, bound, None)
    }

    async fn forget(&mut self, owner: &Owner, keys: &[String]) -> Result<(), CatalogError> {
        self.borrow_mut().0.forget(owner, keys)
    }

    async fn wait(&mut self) {
        self.borrow_mut().1 += 10;
    }
}

/// Runs a case. The model answers at once, so nothing is ever waited for.
fn run(case: impl Future<Output = ()>) {
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(pin!(case).poll(&mut context), Poll::Ready(()));
}

#[test]
fn the_modelled_catalog_passes_all_cases() {
    run(cases::all(&Model::default()));
}

#[test]
fn in_the_modelled_catalog_a_lease_that_is_over_is_taken() {
    run(cases::lease_that_is_over_is_taken(&Model::default()));
    run(
        cases::lease_of_a_clock_that_was_ahead_is_taken_when_it_was_seen_unchanged(
            &Model::default(),
        ),
    );
}
