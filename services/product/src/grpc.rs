//! `product.ProductService` on the internal listener.

use std::collections::HashMap;
use std::sync::Arc;

use contracts::product::product_service_server::{ProductService, ProductServiceServer};
use contracts::product::{
    CheckProductsRequest, CheckProductsResponse, CheckedProduct, GetProductsRequest, GetProductsResponse,
    Product as ProductMessage, ProductStatus,
};
use tonic::{Request, Response, Status};

use crate::app::Products;
use crate::domain::Product;

/// The most products in one call: the most lines of a purchase.
const MOST_ITEMS: usize = 100;
const MOST_QUANTITY: i64 = 1_000_000;

/// The service, to be mounted.
pub fn service(products: Products) -> ProductServiceServer<impl ProductService> {
    ProductServiceServer::new(Catalogue(products))
}

struct Catalogue(Products);

impl Catalogue {
    async fn by_id(&self, ids: &[u64]) -> Result<HashMap<u64, Arc<Product>>, Status> {
        if ids.len() > MOST_ITEMS {
            return Err(Status::invalid_argument(format!("at most {MOST_ITEMS} products in a call")));
        }
        let found = self.0.products(ids).await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(found.into_iter().map(|product| (product.id, product)).collect())
    }
}

#[tonic::async_trait]
impl ProductService for Catalogue {
    async fn check_products(
        &self,
        request: Request<CheckProductsRequest>,
    ) -> Result<Response<CheckProductsResponse>, Status> {
        let items = request.into_inner().items;
        if let Some(item) = items.iter().find(|item| !(1..=MOST_QUANTITY).contains(&item.quantity)) {
            return Err(Status::invalid_argument(format!("quantity {} is not 1 to {MOST_QUANTITY}", item.quantity)));
        }
        let ids: Vec<u64> = items.iter().map(|item| item.product_id).collect();
        let known = self.by_id(&ids).await?;
        let check = |item: &contracts::product::CartItem| {
            let Some(product) = known.get(&item.product_id) else {
                return CheckedProduct {
                    product_id: item.product_id,
                    status: ProductStatus::NotFound.into(),
                    ..CheckedProduct::default()
                };
            };
            let enough = product.inventory >= item.quantity;
            let status = if enough { ProductStatus::Ok } else { ProductStatus::InsufficientStock };
            CheckedProduct {
                product_id: product.id,
                status: status.into(),
                price: product.price,
                currency_code: product.currency_code.clone(),
            }
        };
        Ok(Response::new(CheckProductsResponse { products: items.iter().map(check).collect() }))
    }

    async fn get_products(
        &self,
        request: Request<GetProductsRequest>,
    ) -> Result<Response<GetProductsResponse>, Status> {
        let ids = request.into_inner().product_ids;
        let known = self.by_id(&ids).await?;
        let products = ids.iter().filter_map(|id| known.get(id)).map(|product| ProductMessage {
            id: product.id,
            category_id: product.category_id,
            name: product.name.clone(),
            brand_name: product.brand_name.clone(),
            description: product.description.clone(),
            price: product.price,
            currency_code: product.currency_code.clone(),
        });
        Ok(Response::new(GetProductsResponse { products: products.collect() }))
    }
}
