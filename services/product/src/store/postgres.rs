//! The store on PostgreSQL.

mod ledger;
mod stock;

use std::sync::Arc;

use async_trait::async_trait;
use saga_adapters::postgres::participant::transact;
use saga_adapters::postgres::watermark::PgWatermarks;
use saga_adapters::postgres::{Columns as _, Pg, PgError, Query, Row, Schema, big, bigs};
use saga_core::Millis;
use saga_core::protocol::{Command, Reply};
use saga_runtime::{StoreError, Watermarks};

use super::{Listing, MOST_STOCK, Refused, Store};
use crate::domain::{Category, Product, ProductChange};

pub(crate) use ledger::each;

/// The service's database.
pub const PG_SCHEMA: Schema = Schema {
    name: "product",
    migrations: &[
        ("V1__init", include_str!("../../migrations/postgres/V1__init.sql")),
        ("V2__watermark", include_str!("../../migrations/postgres/V2__watermark.sql")),
    ],
};

const CATEGORY: &str = "select id, name, description from category";
const PRODUCT: &str = "select id, category_id, name, brand_name, description, price, currency_code, inventory, version
    from product";
const DELETE: &str = "with gone as (
        delete from category where id = $1 and not exists (select from product where category_id = $1) returning id
    )
    select exists (select from gone), exists (select from product where category_id = $1)";
const ADJUST: &str = "insert into stock_adjustment (product_id, kind, delta, reason, at)
    select $1::bigint, $2::text, $3::bigint, $4::text, $5::bigint where $3::bigint <> 0";

/// The store, over the database of [`PG_SCHEMA`].
#[derive(Clone, Debug)]
pub struct PgStore {
    pg: Pg,
}

impl PgStore {
    /// Over a database connected with [`PG_SCHEMA`].
    pub fn new(pg: Pg) -> Self {
        Self { pg }
    }

    async fn read<T>(&self, query: Query<'_>, of: fn(&Row) -> Result<T, PgError>) -> Result<Vec<T>, StoreError> {
        Ok(self.pg.read(query).await?.iter().map(of).collect::<Result<_, _>>()?)
    }
}

#[async_trait]
impl Store for PgStore {
    fn watermarks(&self) -> Arc<dyn Watermarks> {
        Arc::new(PgWatermarks::of_barrier(self.pg.clone()))
    }

    async fn handle(&self, batch: Vec<Command>, now: Millis) -> Result<Vec<Reply>, StoreError> {
        Ok(transact(&self.pg, &batch, stock::Stocks::new(now), now).await?)
    }

    async fn add_category(&self, category: Category, now: Millis) -> Result<(), StoreError> {
        let sql = "insert into category (id, name, description, created_at, updated_at) values ($1, $2, $3, $4, $4)";
        let Category { id, name, description } = category;
        self.pg.run(Query::new(sql).big(id).bind(name).bind(description).big(now)).await?;
        Ok(())
    }

    async fn set_category(&self, category: Category, now: Millis) -> Result<Result<(), Refused>, StoreError> {
        let sql = "update category set name = $2, description = $3, updated_at = $4 where id = $1 returning id";
        let Category { id, name, description } = category;
        let rows = self.pg.run(Query::new(sql).big(id).bind(name).bind(description).big(now)).await?;
        Ok(if rows.is_empty() { Err(Refused::NotFound) } else { Ok(()) })
    }

    async fn delete_category(&self, id: u64) -> Result<Result<(), Refused>, StoreError> {
        let rows = match self.pg.run(Query::new(DELETE).big(id)).await {
            // A product was added in this moment.
            Err(error) if error.violates("product_of_a_category") => return Ok(Err(Refused::CategoryInUse)),
            result => result?,
        };
        let row = rows.first().ok_or_else(|| PgError::fault("a deletion without an answer"))?;
        Ok(match (row.col(0)?, row.col(1)?) {
            (true, _) => Ok(()),
            (false, true) => Err(Refused::CategoryInUse),
            (false, false) => Err(Refused::NotFound),
        })
    }

    async fn category(&self, id: u64) -> Result<Option<Category>, StoreError> {
        Ok(self.read(Query::new(format!("{CATEGORY} where id = $1")).big(id), category).await?.pop())
    }

    async fn categories(&self, after: Option<u64>, limit: u32) -> Result<Vec<Category>, StoreError> {
        let sql = format!("{CATEGORY} where id > $1 order by id limit $2");
        self.read(Query::new(sql).big(after.unwrap_or(0)).bind(i64::from(limit)), category).await
    }

    async fn add_product(&self, product: Product, now: Millis) -> Result<Result<(), Refused>, StoreError> {
        let query = Query::new(include_str!("../../sql/postgres/add_product.sql"))
            .big(product.id)
            .big(product.category_id)
            .bind(product.name)
            .bind(product.brand_name)
            .bind(product.description)
            .bind(product.price)
            .bind(product.currency_code)
            .bind(product.inventory)
            .big(now);
        Ok(if self.pg.run(query).await?.is_empty() { Err(Refused::NoSuchCategory) } else { Ok(()) })
    }

    async fn set_product(
        &self,
        id: u64,
        change: ProductChange,
        now: Millis,
    ) -> Result<Result<Product, Refused>, StoreError> {
        Ok(set(&self.pg, id, change, now).await?)
    }

    async fn products(&self, ids: Vec<u64>) -> Result<Vec<Product>, StoreError> {
        self.read(Query::new(format!("{PRODUCT} where id = any($1)")).bind(bigs(ids)), product).await
    }

    async fn list(&self, listing: Listing) -> Result<Vec<Product>, StoreError> {
        let Listing { category_id, q, after, limit } = listing;
        // No text in a database of this brand holds this character.
        if q.as_ref().is_some_and(|q| q.contains('\0')) {
            return Ok(Vec::new());
        }
        // Two texts, so that each keeps the plan of its own index.
        let of_category = if category_id.is_some() { "category_id = $2" } else { "$2::bigint is null" };
        let sql = format!(
            "{PRODUCT} where id > $1 and {of_category}
             and ($3::text is null or position(lower($3) in lower(name)) > 0) order by id limit $4"
        );
        let query = Query::new(sql).big(after.unwrap_or(0)).bind(category_id.map(big)).bind(q).bind(i64::from(limit));
        self.read(query, product).await
    }

    async fn ids(&self, after: Option<u64>, limit: u32) -> Result<Vec<u64>, StoreError> {
        let query = Query::new("select id from product where id > $1 order by id limit $2");
        self.read(query.big(after.unwrap_or(0)).bind(i64::from(limit)), |row| row.big(0)).await
    }
}

async fn set(pg: &Pg, id: u64, change: ProductChange, now: Millis) -> Result<Result<Product, Refused>, PgError> {
    let ProductChange { category_id, name, brand_name, description, price, inventory } = change;
    let category_id = category_id.map(big);
    // The category first, as where a product is added.
    let home = Query::new("select id from category where id = $1 for key share").bind(category_id);
    let row = Query::new("select inventory, taken from product where id = $1 for no key update").big(id);
    let (tx, rows) = pg.begin(vec![home, row]).await?;
    let (delta, reason) = inventory.unwrap_or_default();
    let refused = match rows.as_slice() {
        [_, product] if product.is_empty() => Some(Refused::NotFound),
        [home, _] if category_id.is_some() && home.is_empty() => Some(Refused::NoSuchCategory),
        [_, product] => {
            let (inventory, taken): (i64, i64) = (product[0].col(0)?, product[0].col(1)?);
            match inventory.checked_add(delta) {
                // What purchases hold may come back: it needs its place, too.
                Some(left @ 0..=MOST_STOCK) if left.saturating_add(taken) <= MOST_STOCK => None,
                _ => Some(Refused::StockOutOfRange),
            }
        }
        _ => return Err(PgError::fault("two questions have two answers")),
    };
    if let Some(refused) = refused {
        tx.roll_back().await;
        return Ok(Err(refused));
    }
    let kind = if delta > 0 { "restock" } else { "adjust" };
    let adjust = Query::new(ADJUST).big(id).bind(kind).bind(delta).bind(reason).big(now);
    let update = Query::new(include_str!("../../sql/postgres/set_product.sql")).big(id).bind(category_id);
    let update = update.bind(name).bind(brand_name).bind(description).bind(price).bind(delta).big(now);
    let rows = tx.commit(vec![adjust, update]).await?;
    let row = rows.get(1).and_then(|rows| rows.first());
    row.map(product).transpose()?.map(Ok).ok_or_else(|| PgError::fault("a product vanished in its own transaction"))
}

fn category(row: &Row) -> Result<Category, PgError> {
    Ok(Category { id: row.big(0)?, name: row.col(1)?, description: row.col(2)? })
}

/// A row of [`PRODUCT`].
fn product(row: &Row) -> Result<Product, PgError> {
    Ok(Product {
        id: row.big(0)?,
        category_id: row.big(1)?,
        name: row.col(2)?,
        brand_name: row.col(3)?,
        description: row.col(4)?,
        price: row.col(5)?,
        currency_code: row.col(6)?,
        inventory: row.col(7)?,
        version: row.big(8)?,
    })
}
