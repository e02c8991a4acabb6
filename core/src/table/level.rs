//! The levels of compaction, by which a file says how much of the table it holds.

use serde::{Deserialize, Serialize};

/// How much of the table a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// What one commit adds to one day.
    #[default]
    Commit,
    /// Ten minutes that are closed.
    TenMinutes,
    /// An hour that is closed.
    Hour,
    /// A day that is closed.
    Day,
}

impl Level {
    /// Whether a commit wrote it, and not a merge.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        *self == Level::Commit
    }

    /// The word for it in the journal: that of its JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Level::Commit => "commit",
            Level::TenMinutes => "ten-minutes",
            Level::Hour => "hour",
            Level::Day => "day",
        }
    }

    /// The level of this word; `None` for another one.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Level::Commit, Level::TenMinutes, Level::Hour, Level::Day]
            .into_iter()
            .find(|level| level.word() == word)
    }
}
