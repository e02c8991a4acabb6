//! What a row says of one setting: its name, its default, what it takes and what it means. The rows
//! themselves are in `setting`.

/// One setting of `windrow.yaml`.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The path in the file: `kafka.topic` is the line `topic` of the section `kafka`.
    pub key: &'static str,
    /// The charm's option; `None` where the charm decides the value itself.
    pub option: Option<CharmOption>,
    /// What is taken where the file does not say.
    pub default: DefaultValue,
    /// A value for the example file, where the default is not a good one.
    pub example: Option<&'static str>,
    /// Whether it is kept with the table, so that another value later is refused.
    pub shapes_rows: bool,
    /// What values it takes.
    pub kind: Kind,
    /// What it is, in whole sentences. The key of another setting stands in back-quotes.
    pub doc: &'static str,
}

/// What the charm's users see of a setting.
#[derive(Clone, Copy, Debug)]
pub struct CharmOption {
    /// The option's name.
    pub name: &'static str,
    /// The option's default; `None` is the setting's own.
    pub default: Option<&'static str>,
    /// What only the charm's users must know, in whole sentences; often empty.
    pub note: &'static str,
}

/// What is taken where the file does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// This value. The empty text is a value, too; the row's `doc` says what it means.
    Text(&'static str),
    /// The value of the setting with this key.
    Like(&'static str),
    /// There is none: the setting must be given.
    Required,
}

/// What values a setting takes. A kind with limits is checked by them; the others have rules of
/// their own, in `parse` and `grammar`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text whose rule the row's `doc` describes.
    Free,
    /// One of these words.
    Words(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A duration between two limits in milliseconds.
    Duration {
        /// The shortest that is allowed.
        min_ms: u64,
        /// The longest that is allowed; `u64::MAX` is no limit.
        max_ms: u64,
    },
    /// A duration of a least length, or a word for none.
    DurationOr {
        /// The word for none.
        word: &'static str,
        /// The shortest that is allowed, in milliseconds; more than zero.
        min_ms: u64,
    },
    /// A whole number.
    Number {
        /// What is counted, in the plural.
        of: &'static str,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A size in bytes.
    Bytes {
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// The path of a file, or empty.
    File,
}
