//! The store on SQLite.

mod stock;

use std::sync::Arc;

use async_trait::async_trait;
use saga_adapters::sqlite::rusqlite::{Connection, OptionalExtension as _, Row};
use saga_adapters::sqlite::watermark::SqliteWatermarks;
use saga_adapters::sqlite::{Db, Durability, Schema, SqlError};
use saga_core::Millis;
use saga_core::protocol::{Command, Reply};
use saga_runtime::{StoreError, Watermarks};

use super::{Listing, MOST_STOCK, Refused, Store};
use crate::domain::{Category, Product, ProductChange};

pub(crate) use stock::each;

/// The service's file.
pub const SCHEMA: Schema = Schema {
    name: "product",
    migrations: &[
        ("V1__init", include_str!("../../migrations/V1__init.sql")),
        ("V2__watermark", include_str!("../../migrations/V2__watermark.sql")),
    ],
};

const PRODUCT: &str = "select id, category_id, name, brand_name, description, price, currency_code, inventory, version
    from product";
const ADD: &str = "insert into product (id, category_id, name, brand_name, description, price, currency_code,
    inventory, taken, stocked, version, created_at, updated_at)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?8, 1, ?9, ?9)";
const CHANGE: &str = "update product set category_id = coalesce(?2, category_id), name = coalesce(?3, name),
    brand_name = coalesce(?4, brand_name), description = coalesce(?5, description), price = coalesce(?6, price),
    inventory = inventory + ?7, stocked = stocked + ?7, version = version + 1, updated_at = ?8 where id = ?1";
const ADJUST: &str = "insert into stock_adjustment (product_id, kind, delta, reason, at) values (?1, ?2, ?3, ?4, ?5)";
const LIST: &str = " where id > ?1 and (?2 is null or category_id = ?2)
    and (?3 is null or instr(lower(name), lower(?3)) > 0) order by id limit ?4";

/// The store, over the file of [`SCHEMA`].
#[derive(Clone, Debug)]
pub struct SqliteStore {
    db: Db,
}

impl SqliteStore {
    /// Over a file opened with [`SCHEMA`].
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<R, SqlError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.db.write(Durability::Durable, work).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn watermarks(&self) -> Arc<dyn Watermarks> {
        Arc::new(SqliteWatermarks::of_barrier(self.db.clone()))
    }

    async fn handle(&self, batch: Vec<Command>, now: Millis) -> Result<Vec<Reply>, StoreError> {
        self.write(move |conn| stock::handle(conn, &batch, now)).await
    }

    async fn add_category(&self, category: Category, now: Millis) -> Result<(), StoreError> {
        let sql = "insert into category (id, name, description, created_at, updated_at) values (?1, ?2, ?3, ?4, ?4)";
        self.write(move |conn| {
            conn.prepare_cached(sql)?.execute((category.id, category.name, category.description, now))?;
            Ok(())
        })
        .await
    }

    async fn set_category(&self, category: Category, now: Millis) -> Result<Result<(), Refused>, StoreError> {
        let sql = "update category set name = ?2, description = ?3, updated_at = ?4 where id = ?1";
        self.write(move |conn| {
            let values = (category.id, category.name, category.description, now);
            Ok(if conn.prepare_cached(sql)?.execute(values)? == 1 { Ok(()) } else { Err(Refused::NotFound) })
        })
        .await
    }

    async fn delete_category(&self, id: u64) -> Result<Result<(), Refused>, StoreError> {
        self.write(move |conn| {
            let used = "select exists (select 1 from product where category_id = ?1)";
            if conn.prepare_cached(used)?.query_row([id], |row| row.get(0))? {
                return Ok(Err(Refused::CategoryInUse));
            }
            let gone = conn.prepare_cached("delete from category where id = ?1")?.execute([id])? == 1;
            Ok(if gone { Ok(()) } else { Err(Refused::NotFound) })
        })
        .await
    }

    async fn category(&self, id: u64) -> Result<Option<Category>, StoreError> {
        let sql = "select id, name, description from category where id = ?1";
        self.db.read(move |conn| Ok(conn.prepare_cached(sql)?.query_row([id], category).optional()?)).await
    }

    async fn categories(&self, after: Option<u64>, limit: u32) -> Result<Vec<Category>, StoreError> {
        let sql = "select id, name, description from category where id > ?1 order by id limit ?2";
        self.db
            .read(move |conn| {
                let mut find = conn.prepare_cached(sql)?;
                let rows = find.query_map((after.unwrap_or(0), limit), category)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn add_product(&self, product: Product, now: Millis) -> Result<Result<(), Refused>, StoreError> {
        self.write(move |conn| add(conn, &product, now)).await
    }

    async fn set_product(
        &self,
        id: u64,
        change: ProductChange,
        now: Millis,
    ) -> Result<Result<Product, Refused>, StoreError> {
        self.write(move |conn| set(conn, id, &change, now)).await
    }

    async fn products(&self, ids: Vec<u64>) -> Result<Vec<Product>, StoreError> {
        self.db.read(move |conn| ids.iter().filter_map(|id| find(conn, *id).transpose()).collect()).await
    }

    async fn list(&self, listing: Listing) -> Result<Vec<Product>, StoreError> {
        self.db
            .read(move |conn| {
                let Listing { category_id, q, after, limit } = listing;
                let mut find = conn.prepare_cached(&format!("{PRODUCT}{LIST}"))?;
                let rows = find.query_map((after.unwrap_or(0), category_id, q, limit), product)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn ids(&self, after: Option<u64>, limit: u32) -> Result<Vec<u64>, StoreError> {
        let sql = "select id from product where id > ?1 order by id limit ?2";
        self.db
            .read(move |conn| {
                let mut find = conn.prepare_cached(sql)?;
                let rows = find.query_map((after.unwrap_or(0), limit), |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}

fn add(conn: &Connection, product: &Product, now: Millis) -> Result<Result<(), Refused>, SqlError> {
    if !category_exists(conn, product.category_id)? {
        return Ok(Err(Refused::NoSuchCategory));
    }
    conn.prepare_cached(ADD)?.execute((
        product.id,
        product.category_id,
        &product.name,
        &product.brand_name,
        &product.description,
        product.price,
        &product.currency_code,
        product.inventory,
        now,
    ))?;
    conn.prepare_cached(ADJUST)?.execute((product.id, "initial", product.inventory, "created", now))?;
    Ok(Ok(()))
}

fn set(conn: &Connection, id: u64, change: &ProductChange, now: Millis) -> Result<Result<Product, Refused>, SqlError> {
    let Some(before) = find(conn, id)? else { return Ok(Err(Refused::NotFound)) };
    if let Some(category) = change.category_id
        && !category_exists(conn, category)?
    {
        return Ok(Err(Refused::NoSuchCategory));
    }
    let (delta, reason) = change.inventory.as_ref().map_or((0, ""), |(delta, reason)| (*delta, reason.as_str()));
    // What purchases hold may come back: it needs its place, too.
    let sql = "select taken from product where id = ?1";
    let taken: i64 = conn.prepare_cached(sql)?.query_row([id], |row| row.get(0))?;
    match before.inventory.checked_add(delta) {
        Some(left @ 0..=MOST_STOCK) if left.saturating_add(taken) <= MOST_STOCK => {}
        _ => return Ok(Err(Refused::StockOutOfRange)),
    }
    let ProductChange { category_id, name, brand_name, description, price, .. } = change;
    conn.prepare_cached(CHANGE)?.execute((id, category_id, name, brand_name, description, price, delta, now))?;
    if delta != 0 {
        let kind = if delta > 0 { "restock" } else { "adjust" };
        conn.prepare_cached(ADJUST)?.execute((id, kind, delta, reason, now))?;
    }
    find(conn, id)?.map(Ok).ok_or_else(|| SqlError::fault("a product vanished in its own transaction"))
}

fn category_exists(conn: &Connection, id: u64) -> Result<bool, SqlError> {
    let sql = "select exists (select 1 from category where id = ?1)";
    Ok(conn.prepare_cached(sql)?.query_row([id], |row| row.get(0))?)
}

fn find(conn: &Connection, id: u64) -> Result<Option<Product>, SqlError> {
    Ok(conn.prepare_cached(&format!("{PRODUCT} where id = ?1"))?.query_row([id], product).optional()?)
}

fn category(row: &Row<'_>) -> Result<Category, saga_adapters::sqlite::rusqlite::Error> {
    Ok(Category { id: row.get(0)?, name: row.get(1)?, description: row.get(2)? })
}

/// A row of [`PRODUCT`].
fn product(row: &Row<'_>) -> Result<Product, saga_adapters::sqlite::rusqlite::Error> {
    Ok(Product {
        id: row.get(0)?,
        category_id: row.get(1)?,
        name: row.get(2)?,
        brand_name: row.get(3)?,
        description: row.get(4)?,
        price: row.get(5)?,
        currency_code: row.get(6)?,
        inventory: row.get(7)?,
        version: row.get(8)?,
    })
}
