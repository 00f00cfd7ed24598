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
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::remote;

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
pub(super) struct RemoteCatalogue(ProductServiceClient<Channel>);

impl RemoteCatalogue {
    /// Connects when it is first needed.
    ///
    /// # Errors
    /// When it is not an address.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("peers.product: {url}"))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .timeout(CALL_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true);
        Ok(Self(ProductServiceClient::new(endpoint.connect_lazy())))
    }
}

/// Makes a call until it is answered, at most [`TRIES`] times.
async fn again<T, F>(mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let mut tries = 1;
    loop {
        match call().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if tries < TRIES && status.code() == Code::Unavailable => tries += 1,
            Err(status) => return Err(status),
        }
    }
}

#[async_trait]
impl purchase::Catalogue for RemoteCatalogue {
    async fn quote(&self, product_ids: &[u64]) -> Result<Vec<purchase::Quote>, purchase::CatalogueError> {
        let items = product_ids.iter().map(|id| CartItem { product_id: *id, quantity: 1 });
        let request = CheckProductsRequest { items: items.collect() };
        let call = || {
            let (mut client, request) = (self.0.clone(), Request::new(request.clone()));
            async move { client.check_products(request).await }
        };
        let answer = again(call).await.map_err(|status| match status.code() {
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
        let call = || {
            let (mut client, request) = (self.0.clone(), Request::new(request.clone()));
            async move { client.get_products(request).await }
        };
        let answer = again(call).await.map_err(|status| order::CatalogueError(status.to_string()))?;
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
