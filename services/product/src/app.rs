//! The catalogue's use cases.
//!
//! What other services ask for goes through a small in-process cache of typed rows: a second old at most, dropped when
//! a product is changed here. No decision about price or stock is taken from it: the step re-reads both under lock.
//! What a person looks at is read as it is: who has just bought sees that the stock went down.

use std::sync::Arc;

use chassis::ids::IdGen;
use chassis::problem::{Code, Problem};
use quick_cache::sync::Cache;
use saga_core::Millis;
use saga_runtime::cache::Filter;
use saga_runtime::{Clock, Loaded, ReadThrough, StoreError};

use crate::Config;
use crate::domain::{Category, Product, ProductChange};
use crate::stats::Stats;
use crate::store::{Listing, Refused, Store};

/// A product as it was seen, and until when that may be shown.
#[derive(Clone)]
struct Seen {
    product: Arc<Product>,
    until: Millis,
}

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Products {
    store: Arc<dyn Store>,
    filter: Arc<dyn Filter>,
    cache: ReadThrough,
    ids: Arc<IdGen>,
    clock: Arc<dyn Clock>,
    seen: Arc<Cache<u64, Seen>>,
    config: Arc<Config>,
    stats: Arc<Stats>,
}

/// Which products may exist.
pub struct Existence {
    /// The filter.
    pub filter: Arc<dyn Filter>,
    /// Whether it is this process's own, to be filled at its start; else [`Products::fill_filter`] is called when the
    /// filter needs it.
    pub fill: bool,
}

/// What a new product needs.
#[derive(Clone, Debug)]
pub struct NewProduct {
    /// Its category, which must exist.
    pub category_id: u64,
    /// Not empty.
    pub name: String,
    /// For people.
    pub brand_name: String,
    /// For people.
    pub description: String,
    /// In minor units.
    pub price: i64,
    /// ISO 4217; the configured default when it is not given.
    pub currency_code: Option<String>,
    /// The first stock.
    pub inventory: i64,
}

/// Ids read at a time to fill the filter.
const PAGE: u32 = 10_000;

impl Products {
    /// Puts the use cases together.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(
        config: Config,
        store: Arc<dyn Store>,
        existence: Existence,
        cache: ReadThrough,
        ids: Arc<IdGen>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let seen = Arc::new(Cache::new(config.cached_products.max(1)));
        let Existence { filter, fill } = existence;
        let products = Self { store, filter, cache, ids, clock, seen, config: Arc::new(config), stats: Arc::default() };
        if fill {
            products.fill_filter().await?;
        }
        Ok(products)
    }

    /// What was counted.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Fills the filter with the ids that exist.
    ///
    /// # Errors
    /// When the store cannot be read; until it is filled, everything may exist.
    pub async fn fill_filter(&self) -> Result<(), StoreError> {
        let Self { store, filter, config, .. } = self;
        filter.begin(config.filter_capacity).await;
        let mut after = None;
        loop {
            let page = store.ids(after, PAGE).await?;
            filter.add(&page).await;
            match page.last() {
                Some(last) if page.len() == PAGE as usize => after = Some(*last),
                _ => break,
            }
        }
        filter.ready().await;
        Ok(())
    }

    /// Adds a category.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn add_category(&self, name: String, description: String) -> Result<Category, Problem> {
        let category = Category { id: self.ids.next(), name, description };
        self.store.add_category(category.clone(), self.clock.now()).await?;
        Ok(category)
    }

    /// Changes a category.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn set_category(&self, category: Category) -> Result<Category, Problem> {
        self.store.set_category(category.clone(), self.clock.now()).await?.map_err(refused)?;
        Ok(category)
    }

    /// Deletes a category.
    ///
    /// # Errors
    /// `not_found`, or `conflict` while it has products.
    pub async fn delete_category(&self, id: u64) -> Result<(), Problem> {
        self.store.delete_category(id).await?.map_err(refused)
    }

    /// One category.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn category(&self, id: u64) -> Result<Category, Problem> {
        self.store.category(id).await?.ok_or_else(|| refused(Refused::NotFound))
    }

    /// Categories with ids above `after`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn categories(&self, after: Option<u64>, limit: u32) -> Result<Vec<Category>, Problem> {
        Ok(self.store.categories(after, limit).await?)
    }

    /// Adds a product.
    ///
    /// # Errors
    /// `validation_error` for a category that does not exist.
    pub async fn add_product(&self, new: NewProduct) -> Result<Product, Problem> {
        let NewProduct { category_id, name, brand_name, description, price, currency_code, inventory } = new;
        let currency_code = currency_code.unwrap_or_else(|| self.config.currency.clone());
        let id = self.ids.next();
        let product =
            Product { id, category_id, name, brand_name, description, price, currency_code, inventory, version: 1 };
        // G21: before the row is visible, so that nobody who knows the id is told that it does not exist.
        self.filter.add(&[id]).await;
        self.store.add_product(product.clone(), self.clock.now()).await?.map_err(refused)?;
        Ok(product)
    }

    /// Changes a product.
    ///
    /// # Errors
    /// `not_found`, `validation_error`, or `conflict` when the stock would become negative.
    pub async fn set_product(&self, id: u64, change: ProductChange) -> Result<Product, Problem> {
        let changed = self.store.set_product(id, change, self.clock.now()).await?.map_err(refused)?;
        saga_runtime::crash::point("product", "changed");
        self.seen.remove(&id);
        self.cache.changed(id, changed.version).await;
        Ok(changed)
    }

    /// One product, as it is.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn product(&self, id: u64) -> Result<Arc<Product>, Problem> {
        let possible = self.possible(vec![id]).await;
        let found = if possible.is_empty() { Vec::new() } else { self.store.products(possible).await? };
        let product = found.into_iter().next().ok_or_else(|| refused(Refused::NotFound))?;
        Ok(self.remember(product, self.clock.now(), self.config.cache_ms))
    }

    /// Products, a second old at most, in the order of `ids`; those that do not exist are left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn products(&self, ids: &[u64]) -> Result<Vec<Arc<Product>>, StoreError> {
        let now = self.clock.now();
        // Half of the age is the shared cache's, the other half ours: together no older than promised.
        let age = if self.cache.is_some() { self.config.cache_ms / 2 } else { self.config.cache_ms };
        let (seen, mut missing) = self.remembered(ids, now);
        // What is soon too old is read with what is: of fifty products each is read anew with the others, not each alone.
        let soon = if missing.is_empty() { now } else { now + age / 2 };
        let mut found = Vec::with_capacity(ids.len());
        for Seen { product, until } in seen {
            if until > soon { found.push(product) } else { missing.push(product.id) }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let shared = self.cache.peek_each(&missing).await;
        let mut unknown = Vec::with_capacity(missing.len());
        for (id, product) in missing.into_iter().zip(shared) {
            match product {
                Some(product) => found.push(self.remember(product, now, age)),
                None => unknown.push(id),
            }
        }
        for product in self.load(self.possible(unknown).await).await? {
            found.push(self.remember(product, now, age));
        }
        let place = |product: &Arc<Product>| ids.iter().position(|id| *id == product.id);
        found.sort_by_key(place);
        Ok(found)
    }

    /// Those that this process has seen lately enough, and the others.
    fn remembered(&self, ids: &[u64], now: Millis) -> (Vec<Seen>, Vec<u64>) {
        let (mut seen, mut missing) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            match self.seen.get(id).filter(|seen| seen.until > now) {
                Some(lately) => seen.push(lately),
                None => missing.push(*id),
            }
        }
        self.stats.hits.add(seen.len() as u64);
        self.stats.misses.add(missing.len() as u64);
        (seen, missing)
    }

    /// Those that the filter does not deny.
    async fn possible(&self, mut ids: Vec<u64>) -> Vec<u64> {
        if !ids.is_empty() {
            let mut possible = self.filter.may_contain_each(&ids).await.into_iter();
            ids.retain(|_| self.stats.filtered(possible.next().unwrap_or(true)));
        }
        ids
    }

    /// From the database. Of many that miss one product at once, one reads.
    async fn load(&self, wanted: Vec<u64>) -> Result<Vec<Product>, StoreError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let keep = |product: Product| Loaded { version: product.version, keep: true, value: product };
        if let [id] = wanted[..] {
            let load = async || Ok::<_, StoreError>(self.store.products(vec![id]).await?.into_iter().next().map(keep));
            return Ok(self.cache.get(id, load).await?.into_iter().collect());
        }
        let products = self.store.products(wanted).await?;
        if self.cache.is_some() {
            let read: Vec<_> = products.iter().map(|product| (product.id, keep(product.clone()))).collect();
            self.cache.put_each(&read).await;
        }
        Ok(products)
    }

    fn remember(&self, product: Product, now: Millis, age: u64) -> Arc<Product> {
        let product = Arc::new(product);
        let newer = self.seen.get(&product.id).is_some_and(|seen| seen.product.version > product.version);
        if !newer {
            let until = now + age;
            self.seen.insert(product.id, Seen { product: Arc::clone(&product), until });
        }
        product
    }

    /// A page of products.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, listing: Listing) -> Result<Vec<Product>, Problem> {
        Ok(self.store.list(listing).await?)
    }
}

fn refused(refused: Refused) -> Problem {
    let invalid = |pointer: &str, detail: &str| {
        Problem::new(Code::ValidationError, "the request is not valid")
            .with_errors(vec![(pointer.to_owned(), detail.to_owned())])
    };
    match refused {
        Refused::NotFound => Problem::new(Code::NotFound, "there is nothing of that id"),
        Refused::NoSuchCategory => invalid("#/category_id", "there is no such category"),
        Refused::CategoryInUse => Problem::new(Code::Conflict, "the category still has products"),
        Refused::StockOutOfRange => Problem::new(Code::Conflict, "the stock would become negative or absurdly large"),
    }
}
