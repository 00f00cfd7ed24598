//! Orders that change something, each with its line in the audit log.

use std::future::Future;

use saga_runtime::Clock;
use saga_runtime::audit::{AuditEntry, AuditLog, DONE, details};
use serde_json::Value;

use crate::problem::Problem;

/// What somebody wants, lawful as far as that shows before it is tried.
#[derive(Clone, Debug)]
pub struct Order {
    /// Who, as the door knows them.
    pub actor: String,
    /// What: `saga.retry`.
    pub action: String,
    /// To what.
    pub target: String,
    /// Why.
    pub reason: String,
    /// More, kept with the line.
    pub details: Value,
}

/// What became of an order that was not refused.
#[derive(Clone, Debug)]
pub enum Ended<T> {
    /// Something was changed.
    Changed {
        /// What the caller is told.
        answer: T,
        /// What is added to the line's details.
        details: Value,
    },
    /// There was nothing to do, or somebody else had done it: what the caller is told.
    Nothing(T),
}

impl<T> Ended<T> {
    /// Something was changed, and this is all that there is to say.
    pub fn changed(answer: T) -> Self {
        Self::Changed { answer, details: Value::Null }
    }
}

/// A reason that somebody gave: one of blanks is none.
///
/// # Errors
/// What is to be told of the field.
pub fn says_why(reason: &str, (): &()) -> garde::Result {
    if reason.trim().is_empty() { Err(garde::Error::new("must say why")) } else { Ok(()) }
}

/// Carries an order out between the beginning and the end of its line. The one rule: what has changed something has one line,
/// and so has what may have; of an order of which it is certain that it has changed nothing, because it was
/// [refused](Problem::changed_nothing) or there was nothing to do, no line stays, only words in the process's log. So of two
/// who click at once one has an effect, and one a line.
///
/// # Errors
/// What `work` was refused with. `dependency_unavailable` when the line cannot be begun: nothing was changed then.
pub async fn audited<T>(
    log: &dyn AuditLog,
    clock: &dyn Clock,
    order: Order,
    work: impl Future<Output = Result<Ended<T>, Problem>>,
) -> Result<T, Problem> {
    let Order { actor, action, target, reason, details: mut more } = order;
    // To what stands in the line: it may be somebody's address.
    tracing::info!(actor, action, reason, "an operator's order");
    let (who, what) = (actor.clone(), action.clone());
    let entry = AuditEntry { at: clock.now(), actor, action, target, reason, details: details(&more) };
    let id = log.begin(entry).await?;
    let (outcome, result) = match work.await {
        Ok(Ended::Nothing(answer)) => {
            tracing::info!(actor = who, action = what, "there was nothing to do");
            withdraw(log, id).await;
            return Ok(answer);
        }
        Err(problem) if problem.changed_nothing() => {
            tracing::info!(actor = who, action = what, detail = problem.detail, "an operator's order was refused");
            withdraw(log, id).await;
            return Err(problem);
        }
        Ok(Ended::Changed { answer, details }) => {
            merge(&mut more, details);
            (DONE.to_owned(), Ok(answer))
        }
        Err(problem) => {
            merge(&mut more, serde_json::json!({ "detail": problem.detail }));
            (format!("failed: {}", problem.code.as_str()), Err(problem))
        }
    };
    if let Err(error) = log.end(id, outcome, details(&more)).await {
        // Done is done; the line goes on saying that it has begun.
        tracing::error!(%error, id, "a line of the audit log could not be ended");
    }
    result
}

async fn withdraw(log: &dyn AuditLog, id: u64) {
    if let Err(error) = log.withdraw(id).await {
        tracing::error!(%error, id, "a line of the audit log could not be withdrawn");
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(known), Value::Object(more)) => known.extend(more),
        (known @ Value::Null, more) => *known = more,
        _ => {}
    }
}
