//! What customers see of their orders.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chassis::problem::{Code, Problem};
use saga_runtime::{Loaded, ReadThrough};
use thiserror::Error;

use crate::domain::{Order, Status};
use crate::store::Store;

/// A product's texts, as an order shows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProductDetails {
    /// Which product.
    pub id: u64,
    /// Its category.
    pub category_id: u64,
    /// Its name.
    pub name: String,
    /// Its brand.
    pub brand_name: String,
    /// Its description.
    pub description: String,
}

/// The product service cannot be asked right now.
#[derive(Debug, Error)]
#[error("the product service is not available: {0}")]
pub struct CatalogueError(pub String);

/// What an order needs of the product service.
#[async_trait]
pub trait Catalogue: Send + Sync + 'static {
    /// Details of products, in any order; ids that do not exist are left out.
    ///
    /// # Errors
    /// When it cannot be asked.
    async fn details(&self, ids: &[u64]) -> Result<Vec<ProductDetails>, CatalogueError>;
}

/// An order with its products' texts, by product id.
pub struct OrderView {
    /// The order.
    pub order: Order,
    /// What is known of its products.
    pub products: HashMap<u64, ProductDetails>,
}

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    store: Arc<dyn Store>,
    catalogue: Arc<dyn Catalogue>,
    cache: ReadThrough,
}

impl Orders {
    /// Over a store and the product service.
    pub fn new(store: Arc<dyn Store>, catalogue: Arc<dyn Catalogue>, cache: ReadThrough) -> Self {
        Self { store, catalogue, cache }
    }

    /// A customer's own order.
    ///
    /// # Errors
    /// `not_found` also for somebody else's; `dependency_unavailable`.
    pub async fn show(&self, id: u64, customer_id: u64) -> Result<OrderView, Problem> {
        let find = async || {
            let found = self.store.find(id, customer_id).await?;
            // An order that is confirmed or cancelled stays so for ever: nobody has to tell the cache.
            Ok::<_, Problem>(found.map(|order| Loaded {
                keep: order.status != Status::Pending,
                version: 1,
                value: order,
            }))
        };
        // The cache knows orders, not whose they are to be shown to.
        let order = self.cache.get(id, find).await?.filter(|order| order.customer_id == customer_id);
        let order = order.ok_or_else(|| Problem::new(Code::NotFound, "there is no such order"))?;
        let mut views = self.describe(vec![order]).await?;
        views.pop().ok_or_else(|| Problem::new(Code::NotFound, "there is no such order"))
    }

    /// A customer's orders below the id `before`, newest first.
    ///
    /// # Errors
    /// `dependency_unavailable`.
    pub async fn list(&self, customer_id: u64, before: Option<u64>, limit: u32) -> Result<Vec<OrderView>, Problem> {
        let orders = self.store.list(customer_id, before, limit).await?;
        self.describe(orders).await
    }

    async fn describe(&self, orders: Vec<Order>) -> Result<Vec<OrderView>, Problem> {
        let mut ids: Vec<u64> = orders.iter().flat_map(|o| &o.lines).map(|line| line.product_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let details = if ids.is_empty() { Vec::new() } else { self.ask(&ids).await? };
        let all: HashMap<u64, ProductDetails> = details.into_iter().map(|d| (d.id, d)).collect();
        let view = |order: Order| {
            let of = |line: &crate::domain::Line| Some((line.product_id, all.get(&line.product_id)?.clone()));
            OrderView { products: order.lines.iter().filter_map(of).collect(), order }
        };
        Ok(orders.into_iter().map(view).collect())
    }

    async fn ask(&self, ids: &[u64]) -> Result<Vec<ProductDetails>, Problem> {
        self.catalogue.details(ids).await.map_err(|error| {
            tracing::warn!(%error, "an order could not be described");
            Problem::new(Code::DependencyUnavailable, "the products of the order cannot be shown right now")
        })
    }
}
