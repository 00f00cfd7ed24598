//! The services that live in other processes: the catalogue over gRPC, and the keys that tokens are verified with.
//!
//! Reads only, so a call that finds nobody there is made again at once, within its deadline: behind one address stand
//! several replicas, and one of them may just be going away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chassis::auth::Verifier;
use chassis::health::Health;
use contracts::product::product_service_client::ProductServiceClient;
use contracts::product::{CartItem, CheckProductsRequest, GetProductsRequest, ProductStatus};
use hyper::Method;
use saga_runtime::Clock;
use saga_runtime::trace::{self, Kind, Span, Tracer};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::remote;

/// As gRPC names it.
const SERVICE: &str = "product.ProductService";
/// One try.
const CALL_WITHIN: Duration = Duration::from_millis(1_500);
/// To have a connection.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// Tries of one call.
const TRIES: u32 = 3;
/// How often the keys are asked for: a new one is published this long before it signs, at least.
const KEYS_EVERY: Duration = Duration::from_secs(5);
/// The same while there are none yet.
const FIRST_KEYS_EVERY: Duration = Duration::from_millis(250);

/// The product service in another process.
pub(super) struct RemoteCatalogue {
    client: ProductServiceClient<Channel>,
    /// Whom spans say is asked.
    host: String,
    port: u16,
    tracer: Tracer,
    clock: Arc<dyn Clock>,
}

impl RemoteCatalogue {
    /// Connects when it is first needed.
    ///
    /// # Errors
    /// When it is not an address.
    pub(super) fn new(url: &str, tracer: Tracer, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("peers.product: {url}"))?;
        let (host, port) = (endpoint.uri().host().unwrap_or_default().to_owned(), endpoint.uri().port_u16());
        let endpoint = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .timeout(CALL_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true);
        let client = ProductServiceClient::new(endpoint.connect_lazy());
        Ok(Self { client, host, port: port.unwrap_or(80), tracer, clock })
    }

    /// Makes a call until it is answered, at most [`TRIES`] times; each time is a span, if the trace is kept.
    async fn call<M, T, F>(
        &self,
        method: &'static str,
        message: M,
        mut call: impl FnMut(ProductServiceClient<Channel>, Request<M>) -> F,
    ) -> Result<T, Status>
    where
        M: Clone,
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let above = self.tracer.is_on().then(trace::current).flatten();
        let others = if above.is_some() { trace::others() } else { Vec::new() };
        let mut tries = 1;
        loop {
            let mut request = Request::new(message.clone());
            // Who answers learns when nobody listens any more.
            request.set_timeout(CALL_WITHIN);
            let span = above.map(|above| {
                let own = above.at(self.tracer.fresh());
                if let Ok(value) = own.to_string().parse() {
                    request.metadata_mut().insert(trace::TRACEPARENT, value);
                }
                Span::new(own, above.span, format!("{SERVICE}/{method}"), Kind::Client, self.clock.nanos())
                    .with("rpc.system", "grpc")
                    .with("rpc.service", SERVICE)
                    .with("rpc.method", method)
                    .with("server.address", self.host.clone())
                    .with("server.port", u64::from(self.port))
            });
            let answer = call(self.client.clone(), request).await;
            if let Some(mut span) = span {
                let code = answer.as_ref().err().map_or(Code::Ok, Status::code) as i32;
                span.error = (code != 0).then(|| code.to_string());
                let span = span.with("rpc.grpc.status_code", u64::from(code.unsigned_abs()));
                let span = span.until(self.clock.nanos());
                // Who shares the call has waited for it, too; who answers knows only the first.
                for other in &others {
                    let context = other.at(self.tracer.fresh());
                    self.tracer.record(Span { context, parent: other.span, ..span.clone() });
                }
                self.tracer.record(span);
            }
            match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if tries < TRIES && status.code() == Code::Unavailable => tries += 1,
                Err(status) => return Err(status),
            }
        }
    }
}

#[async_trait]
impl purchase::Catalogue for RemoteCatalogue {
    async fn quote(&self, product_ids: &[u64]) -> Result<Vec<purchase::Quote>, purchase::CatalogueError> {
        let items = product_ids.iter().map(|id| CartItem { product_id: *id, quantity: 1 });
        let request = CheckProductsRequest { items: items.collect() };
        let call =
            |mut client: ProductServiceClient<Channel>, request| async move { client.check_products(request).await };
        let answer = self.call("CheckProducts", request, call).await.map_err(|status| match status.code() {
            Code::Internal | Code::InvalidArgument | Code::Unimplemented => {
                purchase::CatalogueError::Fault(status.to_string())
            }
            _ => purchase::CatalogueError::Unavailable(status.to_string()),
        })?;
        let known = answer.products.into_iter().filter(|product| product.status() != ProductStatus::NotFound);
        let quote = |product: contracts::product::CheckedProduct| purchase::Quote {
            product_id: product.product_id,
            price: product.price,
            currency_code: product.currency_code,
        };
        Ok(known.map(quote).collect())
    }
}

#[async_trait]
impl order::Catalogue for RemoteCatalogue {
    async fn details(&self, ids: &[u64]) -> Result<Vec<order::ProductDetails>, order::CatalogueError> {
        let request = GetProductsRequest { product_ids: ids.to_vec() };
        let call =
            |mut client: ProductServiceClient<Channel>, request| async move { client.get_products(request).await };
        let answer = self
            .call("GetProducts", request, call)
            .await
            .map_err(|status| order::CatalogueError(status.to_string()))?;
        let details = |product: contracts::product::Product| order::ProductDetails {
            id: product.id,
            category_id: product.category_id,
            name: product.name,
            brand_name: product.brand_name,
            description: product.description,
        };
        Ok(answer.products.into_iter().map(details).collect())
    }
}

/// Keeps a verifier's keys as the account service publishes them.
pub(super) struct Keys {
    /// The account service.
    pub(super) account: remote::Endpoint,
    /// Who verifies.
    pub(super) verifier: Verifier,
    /// Not ready before the first keys.
    pub(super) health: Health,
    /// What time it is.
    pub(super) clock: Arc<dyn Clock>,
    /// Ends it.
    pub(super) stop: CancellationToken,
}

impl Keys {
    /// Runs until stopped. What is trusted stays trusted while nobody answers.
    pub(super) async fn run(self) {
        self.health.set("keys", Err(format!("waiting for the account service at {}", self.account)));
        let mut last = Vec::new();
        loop {
            match self.fetch().await {
                Ok(keys) if keys != last => {
                    match serde_json::from_slice(&keys) {
                        Ok(set) => {
                            self.verifier.set_keys(&set);
                            self.health.set("keys", Ok(()));
                            last = keys;
                        }
                        Err(error) => tracing::warn!(%error, "the account service's keys cannot be read"),
                    };
                }
                Ok(_) => {}
                Err(error) if last.is_empty() => tracing::debug!("no keys yet: {error:#}"),
                Err(error) => tracing::warn!("the keys could not be looked at again: {error:#}"),
            }
            let wait = if last.is_empty() { FIRST_KEYS_EVERY } else { KEYS_EVERY };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    async fn fetch(&self) -> anyhow::Result<Vec<u8>> {
        let mut connection = remote::Connection::new(&self.account);
        let asked = connection.send(Method::GET, "/.well-known/jwks.json", None, bytes::Bytes::new());
        let answer = tokio::time::timeout(CALL_WITHIN, asked).await.context("no answer in time")??;
        anyhow::ensure!(answer.status.is_success(), "{} answers {}", self.account, answer.status);
        Ok(answer.body.to_vec())
    }
}
