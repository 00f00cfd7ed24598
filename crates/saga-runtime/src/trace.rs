//! Tracing: one trace per purchase, whoever works on it and however often that is restarted.
//!
//! ```text
//!   W3C traceparent:  request ─► row ─► start ─► first event of the history ─► commands ─► replies, results
//! ```
//!
//! Batches make many sagas move at once, so no span is entered around code: spans are built afterwards from the moments that
//! are known, with ids that follow from what they are about. Whoever sends a command knows the id of its span without
//! having stored it, and a saga's own spans are told from its history when it ends ([`story`]).
//!
//! **Off costs nothing, not sampled next to nothing**: whether a trace is kept is decided once, at the request. Only the
//! contexts of kept traces travel, so everybody else looks for a header and finds none.
//! A sink may lose spans; it never waits.

pub mod story;
pub mod units;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use saga_core::Name;

/// The header of a record, a request, and gRPC metadata.
pub const TRACEPARENT: &str = "traceparent";

/// The id in a `traceparent`, for a line of the log.
pub fn id_in(traceparent: Option<&str>) -> Option<String> {
    TraceContext::parse(traceparent?).map(|context| format!("{:032x}", context.trace))
}

/// Nanoseconds since the epoch.
pub type Nanos = u64;

/// A span within a trace, as it is told to others (W3C Trace Context).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceContext {
    /// 128 bits, never zero.
    pub trace: u128,
    /// 64 bits, never zero.
    pub span: u64,
    /// Whether the trace is kept.
    pub sampled: bool,
}

impl TraceContext {
    /// `00-<32 hex>-<16 hex>-<2 hex>`, in lower case; a later version may append more. Anything else is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut next = |length| parts.next().filter(|part| part.len() == length && part.bytes().all(is_hex));
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace, span, sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1 })
    }

    /// The same trace, another span.
    #[must_use]
    pub fn at(self, span: u64) -> Self {
        Self { span, ..self }
    }

    /// The same trace, the span that is about this: the same parts give the same span, in every process.
    #[must_use]
    pub fn about(self, parts: &[&str]) -> Self {
        // FNV-1a, then mixed: ids that differ in one character share no bits.
        let mut hash = (self.trace as u64) ^ ((self.trace >> 64) as u64) ^ 0xcbf2_9ce4_8422_2325;
        for part in parts {
            for byte in part.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        self.at(mixed(hash).max(1))
    }
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// Spreads a number over 64 bits (the finalizer of splitmix64, public domain).
pub fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What a span is to its surroundings, in OpenTelemetry's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Within a process.
    Internal,
    /// Answers a request.
    Server,
    /// Asks somebody else.
    Client,
    /// Sends a message.
    Producer,
    /// Handles a message.
    Consumer,
}

/// An attribute's value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Int(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl From<&Name> for Value {
    fn from(name: &Name) -> Self {
        Value::Text(Cow::Owned(name.to_string()))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Something that took time.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    /// Its own place.
    pub context: TraceContext,
    /// The span above it; 0: none.
    pub parent: u64,
    /// Few different ones: never with an id in it.
    pub name: Cow<'static, str>,
    /// What it is to its surroundings.
    pub kind: Kind,
    /// When it began.
    pub start: Nanos,
    /// When it ended.
    pub end: Nanos,
    /// By the names of OpenTelemetry's semantic conventions where these have one.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Span {
    /// A span of no duration, below `parent`.
    pub fn new(context: TraceContext, parent: u64, name: impl Into<Cow<'static, str>>, kind: Kind, at: Nanos) -> Self {
        Self { context, parent, name: name.into(), kind, start: at, end: at, attributes: Vec::new(), error: None }
    }

    /// With an end.
    #[must_use]
    pub fn until(mut self, end: Nanos) -> Self {
        self.end = end.max(self.start);
        self
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// With the attributes of a message on its way over `topic`.
    #[must_use]
    pub fn message(self, operation: &'static str, topic: &Name, key: &str) -> Self {
        self.with("messaging.operation.type", operation)
            .with("messaging.operation.name", operation)
            .with("messaging.destination.name", topic)
            .with("messaging.message.conversation_id", key.to_owned())
    }
}

/// Where spans go.
pub trait Sink: Send + Sync + 'static {
    /// Takes a span, or loses it. Never waits.
    fn record(&self, span: Span);
}

/// Which traces are kept when nobody has decided yet, or whatever others say.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampler {
    /// Whether the decision of a caller is taken over.
    pub parent_based: bool,
    /// Kept are traces whose last 56 bits are below this share of their range: 0 none, 1 all.
    pub ratio: f64,
}

impl Sampler {
    /// Whether a trace is kept.
    pub fn keeps(&self, caller: Option<bool>, trace: u128) -> bool {
        match caller {
            Some(sampled) if self.parent_based => sampled,
            _ => self.ratio >= 1.0 || (trace as u64 & RANDOM) < (self.ratio.max(0.0) * RANDOM as f64) as u64,
        }
    }
}

/// The bits of a trace id that are random (W3C Trace Context level 2).
const RANDOM: u64 = (1 << 56) - 1;

struct On {
    sink: Arc<dyn Sink>,
    sampler: Sampler,
    next: AtomicU64,
}

/// Takes spans; switched off it does nothing. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<On>>);

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_on() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

impl Tracer {
    /// One that is on. `seed` makes its ids differ from those of other processes.
    pub fn new(sink: Arc<dyn Sink>, sampler: Sampler, seed: u64) -> Self {
        Self(Some(Arc::new(On { sink, sampler, next: AtomicU64::new(seed) })))
    }

    /// Whether anything is traced.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the trace is kept, once for all that follows.
    pub fn keeps(&self, caller: Option<bool>, trace: u128) -> bool {
        self.0.as_ref().is_some_and(|on| on.sampler.keeps(caller, trace))
    }

    /// The kept trace that `text` names.
    pub fn kept(&self, text: Option<&str>) -> Option<TraceContext> {
        self.0.as_ref()?;
        TraceContext::parse(text?).filter(|context| context.sampled)
    }

    /// A span's id that no other has.
    pub fn fresh(&self) -> u64 {
        // An odd step visits every number.
        let next = |on: &Arc<On>| on.next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        self.0.as_ref().map_or(1, |on| mixed(next(on)).max(1))
    }

    /// Hands a span on.
    pub fn record(&self, span: Span) {
        if let Some(on) = &self.0 {
            on.sink.record(span);
        }
    }
}

tokio::task_local! {
    static CURRENT: TraceContext;
    static OTHERS: Vec<TraceContext>;
}

/// Runs `work` as a part of the span.
pub async fn within<F: Future>(context: TraceContext, work: F) -> F::Output {
    CURRENT.scope(context, work).await
}

/// The same for several at once: [`current`] is the first of them.
pub async fn within_all<F: Future>(contexts: &[TraceContext], work: F) -> F::Output {
    match contexts.split_first() {
        None => work.await,
        Some((first, others)) => CURRENT.scope(*first, OTHERS.scope(others.to_vec(), work)).await,
    }
}

/// The spans that this task works for beside the [`current`] one: each is told what it waited for, too.
pub fn others() -> Vec<TraceContext> {
    OTHERS.try_with(Clone::clone).unwrap_or_default()
}

/// The span that this task works for, if its trace is kept.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_reads_as_it_was_written() {
        let context = TraceContext::parse(GIVEN).unwrap();
        assert_eq!(context.to_string(), GIVEN);
        assert!(context.sampled);
        assert!(!TraceContext::parse(&GIVEN.replace("-01", "-00")).unwrap().sampled);
    }

    #[test]
    fn the_same_thing_has_the_same_span_in_every_process_and_another_thing_another() {
        let context = TraceContext::parse(GIVEN).unwrap();
        assert_eq!(context.about(&["purchase", "1", "do"]), context.about(&["purchase", "1", "do"]));
        let others: [&[&str]; 3] = [&["purchase", "1", "undo"], &["purchase", "1do"], &["purchase1", "do"]];
        for other in others {
            assert_ne!(context.about(&["purchase", "1", "do"]), context.about(other), "{other:?}");
        }
    }

    #[test]
    fn a_sampler_keeps_its_share_and_what_the_caller_decided() {
        let tenth = Sampler { parent_based: true, ratio: 0.1 };
        let kept = (0..10_000_u64).filter(|n| tenth.keeps(None, u128::from(mixed(*n)))).count();
        assert!((900..1_100).contains(&kept), "{kept}");
        assert!(tenth.keeps(Some(true), u128::from(RANDOM)));
        assert!(!Sampler { ratio: 1.0, ..tenth }.keeps(Some(false), 1));
        assert!(Sampler { parent_based: false, ratio: 1.0 }.keeps(Some(false), u128::from(u64::MAX)));
        assert!(!Sampler { parent_based: false, ratio: 0.0 }.keeps(Some(true), 1));
    }
}
