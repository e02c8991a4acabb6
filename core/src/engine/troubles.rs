//! What hinders counting, and whose trouble it is. A trouble is over when the same one works again,
//! never when another one does.

use crate::values::cause::Trouble;
use crate::values::record::Partition;
use std::collections::BTreeMap;

/// Whose trouble it is; in the order in which people should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// The right to write the table.
    Lease,
    /// Epochs are committed from the store.
    Chain,
    /// The clocks.
    Clocks,
    /// The look-up of the topic. It is over when the topic is looked up.
    Topic,
    /// The question before a commit whether the topic is still the same. A look-up does not end its
    /// trouble, nor the other way round.
    TopicId,
    /// The brokers as a whole. It is over when they answer anything at all.
    Brokers,
    /// The reading of one topic partition. It is over when that one is read again.
    Lane(Partition),
    /// A transaction that stays open in one topic partition.
    Transaction(Partition),
    /// The question where the log of one topic partition ends.
    LogEnd(Partition),
    /// The object store.
    Store,
    /// The catalog, where it is asked for the table or for the lease.
    Catalog,
    /// The epoch on its way into the catalog. A renewed lease does not end its trouble.
    Commit,
    /// The bound on memory.
    Memory,
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

    /// The trouble of one side.
    pub(super) fn of(&self, side: Side) -> Option<&Trouble> {
        self.0.get(&side)
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Of several troubles the one to be shown: one whose cause is known comes before one that may
    /// pass by itself, and among these the order of [`Side`] decides. `hinders` says of which sides
    /// troubles matter now.
    pub(super) fn worst(&self, hinders: impl Fn(Side) -> bool) -> Option<&Trouble> {
        let troubles = self.0.iter().filter(|(side, _)| hinders(**side));
        troubles
            .map(|(_, trouble)| trouble)
            .min_by_key(|trouble| trouble.cause.is_none())
    }
}
