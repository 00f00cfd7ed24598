//! A collector of traces: real OTLP over gRPC and HTTP on one port, which keeps what it is sent.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::serve::Listener;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::town::PATIENCE;

/// A span, as far as tests look at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What the process that told it calls itself.
    pub service: String,
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    pub parent: Vec<u8>,
    pub name: String,
    pub kind: i32,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
}

#[derive(Default)]
pub struct Heard {
    pub spans: Vec<Told>,
    /// Of the processes that sent something.
    pub resources: Vec<BTreeMap<String, String>>,
    /// What `x-tenant` said, by request.
    pub tenants: Vec<String>,
}

#[derive(Clone)]
pub struct Collector {
    heard: watch::Sender<Heard>,
    pub url: String,
}

impl Collector {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::listen(listener, url)
    }

    /// Takes requests from whoever comes to this listener.
    pub fn listen<L: Listener<Addr: std::fmt::Debug>>(listener: L, url: String) -> Self {
        let collector = Self { heard: watch::Sender::new(Heard::default()), url };
        let http = Router::new().route("/v1/traces", post(by_http)).layer(DefaultBodyLimit::disable());
        let grpc = tonic::service::Routes::new(TraceServiceServer::new(collector.clone())).into_axum_router();
        let router = http.with_state(collector.clone()).merge(grpc);
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    fn take(&self, request: ExportTraceServiceRequest, tenant: String) {
        self.heard.send_modify(|heard| {
            heard.tenants.push(tenant);
            for all in request.resource_spans {
                let resource = texts(&all.resource.unwrap().attributes);
                let spans = all.scope_spans.into_iter().flat_map(|scope| scope.spans);
                heard.spans.extend(spans.map(|span| told(span, &resource["service.name"])));
                heard.resources.push(resource);
            }
        });
    }

    /// The spans, once what is looked for is among them.
    pub async fn until(&self, what: &str, enough: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        let mut heard = self.heard.subscribe();
        let found = tokio::time::timeout(PATIENCE, heard.wait_for(|heard| enough(&heard.spans))).await;
        match found {
            Ok(heard) => heard.unwrap().spans.clone(),
            Err(_) => {
                let names: Vec<String> = self.heard.borrow().spans.iter().map(|span| span.name.clone()).collect();
                panic!("waited in vain: {what}; there are {names:?}")
            }
        }
    }

    pub fn look<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.borrow())
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let tenant = request.metadata().get("x-tenant").map_or("", |value| value.to_str().unwrap()).to_owned();
        self.take(request.into_inner(), tenant);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn by_http(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let tenant = headers.get("x-tenant").map_or("", |value| value.to_str().unwrap()).to_owned();
    collector.take(ExportTraceServiceRequest::decode(body).unwrap(), tenant);
    StatusCode::OK
}

fn told(span: Span, service: &str) -> Told {
    Told {
        service: service.to_owned(),
        attributes: texts(&span.attributes),
        failed: span.status.is_some_and(|status| status.code == 2),
        trace: span.trace_id,
        id: span.span_id,
        parent: span.parent_span_id,
        name: span.name,
        kind: span.kind,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().unwrap().value.as_ref().unwrap() {
        Any::StringValue(text) => text.clone(),
        Any::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}
