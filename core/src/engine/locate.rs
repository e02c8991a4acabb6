//! Where the table lies, before anything else begins. Only a table whose settings name no more than
//! a bucket is looked for.

use super::conversation::{CatalogRequest, Location};
use super::step::Step;
use super::troubles::Side;
use crate::table::commit::CatalogError;
use crate::table::place::{Place, locate};
use crate::values::cause::{Cause, Trouble};
use crate::values::time::Mono;

/// Between two questions to the catalog, in milliseconds.
const LOCATE_EVERY_MS: u64 = 2000;

/// The question where in a bucket the table lies.
pub(super) struct Locating {
    bucket: String,
    /// When to ask; `None` while the answer is on its way.
    ask_at: Option<Mono>,
    /// Why the table cannot be taken where it lies. The catalog is asked on, because a person may
    /// mend it.
    refused: Option<Trouble>,
}

impl Locating {
    pub(super) fn new(bucket: String, ask_at: Mono) -> Self {
        Self {
            bucket,
            ask_at: Some(ask_at),
            refused: None,
        }
    }

    pub(super) fn refused(&self) -> Option<&Trouble> {
        self.refused.as_ref()
    }

    /// Asks the catalog when it is time.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        if self.ask_at.is_some_and(|at| step.now >= at) {
            self.ask_at = None;
            step.ask(CatalogRequest::Locate);
        }
    }

    /// The credentials have changed: the catalog is asked at once.
    pub(super) fn retry_now(&mut self, step: &Step<'_>) {
        if let Some(at) = &mut self.ask_at {
            *at = step.now;
        }
    }

    /// The catalog answered. Returns the place once it is known.
    pub(super) fn take_answer(
        &mut self,
        answer: Result<Location, CatalogError>,
        step: &mut Step<'_>,
    ) -> Option<Place> {
        self.ask_at = Some(step.now.plus(LOCATE_EVERY_MS));
        self.refused = None;
        match answer {
            Ok(Location { genesis, database }) => {
                step.troubles.end(Side::Catalog);
                match locate(&self.bucket, genesis.as_deref(), database.as_deref()) {
                    Ok(place) => return Some(place),
                    Err(why) => {
                        let text = format!("cannot take table \"{}\": {why}", step.table());
                        self.refused = Some(Trouble::new(Cause::OtherBucket, text));
                    }
                }
            }
            Err(CatalogError::Stop(why)) => self.refused = Some(why),
            Err(error) => step.troubles.report(Side::Catalog, error),
        }
        None
    }
}
