//! Objects of the store as a listing shows them. What they hold is not here.

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectPage {
    /// The objects, in the order of their keys.
    pub objects: Vec<ListedObject>,
    /// The key behind which the next page begins; `None` after the last page.
    pub next: Option<String>,
}

impl ObjectPage {
    /// Whether a listing that asked for what is behind the key `after` comes nearer to its end with
    /// this page. It does not where a store ignores `after` and gives the same page again: whoever
    /// goes on then never ends.
    #[must_use]
    pub fn moves_on(&self, after: Option<&str>) -> bool {
        match (self.next.as_deref(), after) {
            (Some(next), Some(after)) => next > after,
            _ => true,
        }
    }
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: String,
    /// How long ago it was stored, in milliseconds.
    pub age_ms: u64,
}
