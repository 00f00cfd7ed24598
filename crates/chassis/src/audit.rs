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

/// Carries an order out between the beginning and the end of its line. `work` answers what the caller is told, and what
/// is added to the line's details.
///
/// # Errors
/// What `work` was refused with, which the line says, too. `dependency_unavailable` when the line cannot be begun:
/// nothing was changed then.
pub async fn audited<T>(
    log: &dyn AuditLog,
    clock: &dyn Clock,
    order: Order,
    work: impl Future<Output = Result<(T, Value), Problem>>,
) -> Result<T, Problem> {
    let Order { actor, action, target, reason, details: mut more } = order;
    // To what stands in the line: it may be somebody's address.
    tracing::info!(actor, action, reason, "an operator's order");
    let entry = AuditEntry { at: clock.now(), actor, action, target, reason, details: details(&more) };
    let id = log.begin(entry).await?;
    let (outcome, result) = match work.await {
        Ok((answer, found)) => {
            merge(&mut more, found);
            (DONE.to_owned(), Ok(answer))
        }
        Err(problem) => {
            merge(&mut more, serde_json::json!({ "detail": problem.detail }));
            (format!("refused: {}", problem.code.as_str()), Err(problem))
        }
    };
    if let Err(error) = log.end(id, outcome, details(&more)).await {
        // Done is done; the line goes on saying that it has begun.
        tracing::error!(%error, id, "a line of the audit log could not be ended");
    }
    result
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(known), Value::Object(more)) => known.extend(more),
        (known @ Value::Null, more) => *known = more,
        _ => {}
    }
}
