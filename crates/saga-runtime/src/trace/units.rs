//! Spans of the messages in a batch: each message's own span, with the batch's transaction below it.
//!
//! A transaction is one for the whole batch. Each traced message gets a span of it with its times, so that one trace shows
//! all that its purchase waited for; `messaging.batch.message_count` says with how many others.

use saga_core::Name;

use super::{Kind, Nanos, Span, TRACEPARENT, TraceContext, Tracer};
use crate::bus::{Delivery, Message};

/// A message that is being handled, and whose trace is kept.
#[derive(Clone, Debug)]
pub struct Handled {
    /// Its own span.
    pub context: TraceContext,
    parent: u64,
    topic: Name,
    key: String,
}

impl Handled {
    /// The message's span, if it belongs to a trace that is kept.
    pub fn of(tracer: &Tracer, delivery: &Delivery) -> Option<Self> {
        if !tracer.is_on() {
            return None;
        }
        let sender = tracer.kept(delivery.message.header(TRACEPARENT))?;
        let key = String::from_utf8_lossy(&delivery.message.key).into_owned();
        let topic = delivery.position.topic.clone();
        Some(Self { context: sender.at(tracer.fresh()), parent: sender.span, topic, key })
    }

    /// Records that it was handled, and the transaction that did it.
    pub fn record(&self, tracer: &Tracer, group: &str, batch: usize, took: Took, outcome: Option<&'static str>) {
        let mut span =
            Span::new(self.context, self.parent, format!("process {}", self.topic), Kind::Consumer, took.from)
                .until(took.until)
                .message("process", &self.topic, &self.key)
                .with("messaging.consumer.group.name", group.to_owned())
                .with("messaging.batch.message_count", batch as u64);
        if let Some(outcome) = outcome {
            span = span.with("saga.outcome", outcome);
        }
        tracer.record(span);
        if let Some((begun, committed)) = took.transaction {
            tracer.record(transaction(self.context, tracer.fresh(), group, begun).until(committed));
        }
    }
}

/// A transaction of a service, below `context`.
pub fn transaction(context: TraceContext, own: u64, service: &str, begun: Nanos) -> Span {
    Span::new(context.at(own), context.span, format!("transaction {service}"), Kind::Client, begun)
        .with("db.namespace", service.to_owned())
        .with("db.operation.name", "transaction")
}

/// When a batch was handled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// From its arrival …
    pub from: Nanos,
    /// … until what followed from it was published.
    pub until: Nanos,
    /// From when until when it was being written, if it was.
    pub transaction: Option<(Nanos, Nanos)>,
}

/// Says on a message which span it was sent by.
pub fn mark(message: &mut Message, context: TraceContext) {
    message.headers.push((TRACEPARENT.into(), bytes::Bytes::from(context.to_string())));
}
