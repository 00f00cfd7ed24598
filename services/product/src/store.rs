//! The product service's store port.

pub mod postgres;
pub mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use saga_core::Millis;
use saga_core::protocol::{Command, Reply};
use saga_runtime::{StoreError, Watermarks};

use crate::domain::{Category, Product, ProductChange};

/// The most that can be in stock: what every JSON client can hold.
const MOST_STOCK: i64 = (1 << 53) - 1;

/// Why a change was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There is nothing of that id.
    NotFound,
    /// The category that is named does not exist.
    NoSuchCategory,
    /// The category still has products.
    CategoryInUse,
    /// The stock would become negative (or absurd).
    StockOutOfRange,
}

/// Which products to list.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Only of this category.
    pub category_id: Option<u64>,
    /// Only those whose name contains this, whatever the capitals.
    pub q: Option<String>,
    /// Only ids above this one.
    pub after: Option<u64>,
    /// At most this many.
    pub limit: u32,
}

/// Rows of the product service. Every method is one transaction.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Where its watermarks are, and what they allow to be removed.
    fn watermarks(&self) -> Arc<dyn Watermarks>;

    /// Handles a batch of commands: barrier, stock, ledger, replies.
    async fn handle(&self, batch: Vec<Command>, now: Millis) -> Result<Vec<Reply>, StoreError>;

    /// Adds a category.
    async fn add_category(&self, category: Category, now: Millis) -> Result<(), StoreError>;

    /// Changes a category.
    async fn set_category(&self, category: Category, now: Millis) -> Result<Result<(), Refused>, StoreError>;

    /// Deletes a category without products.
    async fn delete_category(&self, id: u64) -> Result<Result<(), Refused>, StoreError>;

    /// One category.
    async fn category(&self, id: u64) -> Result<Option<Category>, StoreError>;

    /// Categories with ids above `after`.
    async fn categories(&self, after: Option<u64>, limit: u32) -> Result<Vec<Category>, StoreError>;

    /// Adds a product with its first stock.
    async fn add_product(&self, product: Product, now: Millis) -> Result<Result<(), Refused>, StoreError>;

    /// Changes a product; answers it as it is now.
    async fn set_product(
        &self,
        id: u64,
        change: ProductChange,
        now: Millis,
    ) -> Result<Result<Product, Refused>, StoreError>;

    /// Products by id, in any order; those that do not exist are left out.
    async fn products(&self, ids: Vec<u64>) -> Result<Vec<Product>, StoreError>;

    /// A page of products.
    async fn list(&self, listing: Listing) -> Result<Vec<Product>, StoreError>;

    /// Ids above `after`, ascending: to fill the filter.
    async fn ids(&self, after: Option<u64>, limit: u32) -> Result<Vec<u64>, StoreError>;
}
