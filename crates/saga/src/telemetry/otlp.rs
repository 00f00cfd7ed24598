//! Spans in OTLP's words, and the two ways in which they travel.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message as _;
use saga_runtime::trace::{Kind, Span, Value};
use tonic::Code;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::transport::{Channel, Endpoint};

use super::settings::{Protocol, Settings};
use super::tls::{self, Connector};
use crate::config::Config;
use crate::up::places::{self, Place};
use crate::up::roles::ALL;

/// A collector's answer is a few bytes.
const LARGEST_ANSWER: usize = 64 << 10;

/// Puts spans into requests.
pub(super) struct Encoder {
    resource: Resource,
    scope: InstrumentationScope,
    /// What keeps a service's rows.
    stores: BTreeMap<&'static str, &'static str>,
    bus: &'static str,
}

impl Encoder {
    pub(super) fn new(settings: &Settings, config: &Config) -> Self {
        let attributes = settings.resource.iter().map(|(key, value)| attribute(key, Any::StringValue(value.clone())));
        let store = |role| match places::of(config, role) {
            Ok(Place::Postgres(_)) => "postgresql",
            _ => "sqlite",
        };
        Self {
            resource: Resource { attributes: attributes.collect(), ..Resource::default() },
            scope: InstrumentationScope { name: "saga".to_owned(), ..InstrumentationScope::default() },
            stores: ALL.into_iter().map(|role| (role.as_str(), store(role))).collect(),
            bus: if matches!(places::brokers(config), Ok(Some(_))) { "kafka" } else { "in_process" },
        }
    }

    pub(super) fn encode(&self, spans: impl Iterator<Item = Span>) -> ExportTraceServiceRequest {
        let spans = proto::ScopeSpans {
            scope: Some(self.scope.clone()),
            spans: spans.map(|span| self.span(span)).collect(),
            ..proto::ScopeSpans::default()
        };
        let all = proto::ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![spans],
            ..proto::ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![all] }
    }

    fn span(&self, span: Span) -> proto::Span {
        let Span { context, parent, name, kind, start, end, attributes, error } = span;
        let mut all = Vec::with_capacity(attributes.len() + 2);
        for (key, value) in attributes {
            // Which brand it is nobody knows but the configuration.
            match (key, &value) {
                ("db.namespace", Value::Text(service)) => {
                    let store = self.stores.get(&**service).copied().unwrap_or("other_sql");
                    all.push(attribute("db.system.name", Any::StringValue(store.to_owned())));
                }
                ("messaging.operation.type", _) => {
                    all.push(attribute("messaging.system", Any::StringValue(self.bus.to_owned())));
                }
                _ => {}
            }
            all.push(attribute(
                key,
                match value {
                    Value::Text(text) => Any::StringValue(text.into_owned()),
                    Value::Int(number) => Any::IntValue(number),
                },
            ));
        }
        let status = error.map(|error| {
            all.push(attribute("error.type", Any::StringValue(error.clone())));
            proto::Status { message: error, code: proto::status::StatusCode::Error as i32 }
        });
        proto::Span {
            trace_id: context.trace.to_be_bytes().to_vec(),
            span_id: context.span.to_be_bytes().to_vec(),
            parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
            // Sampled.
            flags: 1,
            name: name.into_owned(),
            kind: kind_of(kind) as i32,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes: all,
            status,
            ..proto::Span::default()
        }
    }
}

fn kind_of(kind: Kind) -> proto::span::SpanKind {
    match kind {
        Kind::Internal => proto::span::SpanKind::Internal,
        Kind::Server => proto::span::SpanKind::Server,
        Kind::Client => proto::span::SpanKind::Client,
        Kind::Producer => proto::span::SpanKind::Producer,
        Kind::Consumer => proto::span::SpanKind::Consumer,
    }
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Why a request was not taken.
pub(super) struct Refused {
    /// Without headers: these may be secret.
    pub(super) detail: String,
    /// Whether the same request may be taken later.
    pub(super) passes: bool,
}

/// One of the two ways.
pub(super) enum Transport {
    Grpc { client: TraceServiceClient<Channel>, metadata: MetadataMap, settings: Settings },
    Http { client: Client<Connector, Full<Bytes>>, headers: Vec<(HeaderName, HeaderValue)>, settings: Settings },
}

impl Transport {
    /// Connects when there is something to send.
    ///
    /// # Errors
    /// When the address, a certificate or a header cannot be used.
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let settings = settings.clone();
        let connector = tls::connector(&settings)?;
        let wrong = "OTEL_EXPORTER_OTLP_HEADERS holds what cannot be a header";
        match settings.protocol {
            Protocol::Grpc => {
                let mut metadata = MetadataMap::new();
                for (key, value) in &settings.headers {
                    let key = MetadataKey::from_bytes(key.to_ascii_lowercase().as_bytes()).context(wrong)?;
                    metadata.insert(key, value.parse().context(wrong)?);
                }
                let endpoint = Endpoint::from_shared(settings.endpoint.clone())
                    .with_context(|| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {}", settings.endpoint))?;
                let endpoint = endpoint.connect_timeout(settings.timeout);
                let channel = endpoint.connect_with_connector_lazy(connector);
                Ok(Self::Grpc { client: TraceServiceClient::new(channel), metadata, settings })
            }
            Protocol::Http => {
                let header = |(key, value): &(String, String)| -> anyhow::Result<_> {
                    Ok((
                        HeaderName::from_bytes(key.as_bytes()).context(wrong)?,
                        HeaderValue::from_str(value).context(wrong)?,
                    ))
                };
                let headers = settings.headers.iter().map(header).collect::<Result<Vec<_>, _>>()?;
                Ok(Self::Http { client: Client::builder(TokioExecutor::new()).build(connector), headers, settings })
            }
        }
    }

    pub(super) async fn send(&self, request: ExportTraceServiceRequest) -> Result<(), Refused> {
        let timeout = match self {
            Self::Grpc { settings, .. } | Self::Http { settings, .. } => settings.timeout,
        };
        let sent = async {
            match self {
                Self::Grpc { client, metadata, .. } => by_grpc(client.clone(), metadata.clone(), request).await,
                Self::Http { client, headers, settings } => by_http(client, headers, &settings.endpoint, request).await,
            }
        };
        let late = |_| Err(Refused { detail: "it did not answer in time".to_owned(), passes: true });
        tokio::time::timeout(timeout, sent).await.unwrap_or_else(late)
    }
}

async fn by_grpc(
    mut client: TraceServiceClient<Channel>,
    metadata: MetadataMap,
    request: ExportTraceServiceRequest,
) -> Result<(), Refused> {
    let mut request = tonic::Request::new(request);
    *request.metadata_mut() = metadata;
    // The specification's list of what may pass.
    let passes = |code| {
        use Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable};
        matches!(code, Cancelled | DeadlineExceeded | Aborted | OutOfRange | Unavailable | DataLoss | ResourceExhausted)
    };
    let refused = |status: tonic::Status| Refused {
        detail: format!("{:?}: {}", status.code(), causes(&status, status.message())),
        passes: passes(status.code()),
    };
    client.export(request).await.map(drop).map_err(refused)
}

async fn by_http(
    client: &Client<Connector, Full<Bytes>>,
    headers: &[(HeaderName, HeaderValue)],
    endpoint: &str,
    request: ExportTraceServiceRequest,
) -> Result<(), Refused> {
    let mut post = Request::post(endpoint).header(CONTENT_TYPE, "application/x-protobuf");
    for (name, value) in headers {
        post = post.header(name, value);
    }
    let post = post.body(Full::new(Bytes::from(request.encode_to_vec())));
    let post = post.map_err(|error| Refused { detail: error.to_string(), passes: false })?;
    let broken = |detail: String| Refused { detail, passes: true };
    let answer = client.request(post).await.map_err(|error| broken(causes(&error, &error.to_string())))?;
    let status = answer.status();
    // Read to its end, so that the connection can be used again.
    let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
    body.map_err(|error| broken(error.to_string()))?;
    if status.is_success() {
        return Ok(());
    }
    let passes = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    Err(Refused { detail: status.to_string(), passes })
}

/// What went wrong, and below it why: a certificate that nobody believes is at the bottom.
fn causes(error: &dyn std::error::Error, what: &str) -> String {
    let mut said = what.to_owned();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let cause = cause.to_string();
        // Some repeat what is below them.
        if !said.contains(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    said
}
