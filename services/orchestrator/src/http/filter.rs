//! Which sagas: the filters of lists, counts and bulk orders.

use chassis::problem::{Code, Problem};
use chassis::time::from_rfc3339;
use saga_core::{Millis, Name, Status};
use saga_runtime::store::SagaFilter;

/// Filters as they arrive; `at` is where they stand in the request.
#[derive(Default)]
pub(super) struct Wanted<'a> {
    pub(super) at: &'a str,
    pub(super) statuses: Vec<Status>,
    pub(super) definition: Option<&'a str>,
    pub(super) step: Option<&'a str>,
    pub(super) older_than: Option<u64>,
    pub(super) started_after: Option<&'a str>,
    pub(super) started_before: Option<&'a str>,
    pub(super) ids: Vec<u64>,
}

impl Wanted<'_> {
    /// As the store understands them; without a page and a limit.
    ///
    /// # Errors
    /// Which one is wrong.
    pub(super) fn filter(self, now: Millis) -> Result<SagaFilter, Problem> {
        let at = self.at;
        let moment = |name: &str, text: Option<&str>| {
            let lawful = |text: &str| {
                let detail = "must be a moment like 2026-11-25T09:30:00Z (RFC 3339)";
                from_rfc3339(text).ok_or_else(|| invalid(&format!("{at}/{name}"), detail.to_owned()))
            };
            text.map(lawful).transpose()
        };
        Ok(SagaFilter {
            statuses: self.statuses,
            definition: self.definition.map(Name::new),
            step: self.step.map(Name::new),
            updated_before: self.older_than.map(|s| now.saturating_sub(s.saturating_mul(1_000))),
            started_from: moment("started_after", self.started_after)?,
            started_before: moment("started_before", self.started_before)?,
            ids: self.ids,
            before: None,
            limit: 0,
        })
    }
}

/// States with commas.
pub(super) fn statuses(text: Option<&str>, pointer: &str) -> Result<Vec<Status>, Problem> {
    let words = text.unwrap_or_default().split(',').filter(|word| !word.is_empty());
    words
        .map(|word| {
            Status::from_text(word).ok_or_else(|| {
                let known = Status::ALL.map(Status::as_str).join(", ");
                invalid(pointer, format!("{word:?} is not a state; the states are {known}"))
            })
        })
        .collect()
}

/// One field is wrong.
pub(super) fn invalid(pointer: &str, detail: String) -> Problem {
    Problem::new(Code::ValidationError, "the request is not valid").with_errors(vec![(pointer.to_owned(), detail)])
}
