//! What hinders counting, and whose trouble it is. A trouble is over when the same one works again,
//! never when another one does.

use crate::values::cause::{Cause, Trouble};
use std::collections::BTreeMap;

/// Whose trouble it is; in the order in which people should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// The right to write the table.
    Lease,
    /// The clocks.
    Clocks,
    /// The questions about the topic.
    Topic,
    /// The reading of records.
    Reader,
    /// The object store.
    Store,
    /// The catalog.
    Catalog,
}

/// The troubles of the moment, at most one of each side.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<Side, Trouble>);

impl Troubles {
    /// Keeps the newest trouble of a side.
    pub(super) fn report(&mut self, side: Side, trouble: impl Into<Trouble>) {
        self.0.insert(side, trouble.into());
    }

    /// The side works again.
    pub(super) fn end(&mut self, side: Side) {
        self.0.remove(&side);
    }

    /// Ends the trouble of a side if it has this cause.
    pub(super) fn end_cause(&mut self, side: Side, cause: Cause) {
        if self
            .0
            .get(&side)
            .is_some_and(|trouble| trouble.cause == Some(cause))
        {
            self.end(side);
        }
    }

    /// The trouble of one side.
    pub(super) fn of(&self, side: Side) -> Option<&Trouble> {
        self.0.get(&side)
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Of several troubles the one to be shown: one whose cause is known comes before one that may
    /// pass by itself, and among these the order of [`Side`] decides.
    pub(super) fn worst(&self) -> Option<&Trouble> {
        self.0
            .values()
            .min_by_key(|trouble| trouble.cause.is_none())
    }
}
