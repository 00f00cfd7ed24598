//! The product service as the others see it, in process: each asks through a port of its own.

use async_trait::async_trait;
use saga_runtime::StoreError;

/// Both ports.
pub(super) trait Catalogue: purchase::Catalogue + order::Catalogue {}

impl<C: purchase::Catalogue + order::Catalogue> Catalogue for C {}

/// Product's use cases behind purchase's and order's ports.
pub(super) struct InProcess(pub(super) product::Products);

#[async_trait]
impl purchase::Catalogue for InProcess {
    async fn quote(&self, product_ids: &[u64]) -> Result<Vec<purchase::Quote>, purchase::CatalogueError> {
        let found = self.0.products(product_ids).await.map_err(|error| match error {
            StoreError::Fault(detail) => purchase::CatalogueError::Fault(detail),
            error @ (StoreError::Transient(_) | StoreError::Full(_)) => {
                purchase::CatalogueError::Unavailable(error.to_string())
            }
        })?;
        let quote = |product: &product::domain::Product| purchase::Quote {
            product_id: product.id,
            price: product.price,
            currency_code: product.currency_code.clone(),
        };
        Ok(found.iter().map(|product| quote(product)).collect())
    }
}

#[async_trait]
impl order::Catalogue for InProcess {
    async fn details(&self, ids: &[u64]) -> Result<Vec<order::ProductDetails>, order::CatalogueError> {
        let found = self.0.products(ids).await.map_err(|error| order::CatalogueError(error.to_string()))?;
        let details = |product: &product::domain::Product| order::ProductDetails {
            id: product.id,
            category_id: product.category_id,
            name: product.name.clone(),
            brand_name: product.brand_name.clone(),
            description: product.description.clone(),
        };
        Ok(found.iter().map(|product| details(product)).collect())
    }
}
