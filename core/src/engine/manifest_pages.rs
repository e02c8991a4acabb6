//! The manifests in the store, listed page by page: whoever opens a table asks for them, to learn
//! whether epochs were lost. What they say is decided by those who ask.

use super::conversation::StoreRequest;
use super::lease::RETRY_MS;
use super::step::Step;
use super::troubles::Side;
use crate::values::cause::Trouble;
use crate::values::object::ObjectPage;
use crate::values::time::Mono;

/// A listing that is under way.
pub(super) struct ManifestPages {
    /// The page begins behind this text; `None` is the first page.
    after: Option<String>,
    /// When to ask again; `None` while the answer is on its way.
    ask_at: Option<Mono>,
}

impl ManifestPages {
    /// Asks for the first page.
    pub(super) fn begin(step: &mut Step<'_>) -> Self {
        let pages = Self {
            after: None,
            ask_at: None,
        };
        pages.ask(step);
        pages
    }

    /// Asks for the page behind this text.
    pub(super) fn go_on(&mut self, after: String, step: &mut Step<'_>) {
        self.after = Some(after);
        self.ask(step);
    }

    /// Asks again for a page that could not be had.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        if self.ask_at.take_if(|at| step.now >= *at).is_some() {
            self.ask(step);
        }
    }

    /// The credentials have changed: what failed is asked again at once.
    pub(super) fn retry_now(&mut self, step: &Step<'_>) {
        if let Some(at) = &mut self.ask_at {
            *at = step.now;
        }
    }

    /// The store has listed a page, behind the text that it was asked with; `None` when the answer
    /// does not count. Returns the page; `None` where it must be asked for again.
    pub(super) fn take(
        &mut self,
        answer: Option<(Option<&str>, Result<ObjectPage, Trouble>)>,
        step: &mut Step<'_>,
    ) -> Option<ObjectPage> {
        let after = self.after.as_deref();
        match answer.filter(|(asked_after, _)| *asked_after == after) {
            None => self.ask_at = Some(step.now),
            Some((_, Ok(page))) if page.moves_on(after) => return Some(page),
            Some((_, answer)) => {
                let again = || "the store lists the same manifests again and again".into();
                let trouble = answer.err().unwrap_or_else(again);
                self.ask_at = Some(step.now.plus(RETRY_MS));
                step.troubles.report(Side::Store, trouble);
            }
        }
        None
    }

    fn ask(&self, step: &mut Step<'_>) {
        if step.questions.manifests.due() {
            step.ask(StoreRequest::ListPage {
                prefix: step.names.manifests(),
                after: self.after.clone(),
            });
        }
    }
}
