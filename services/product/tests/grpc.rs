//! `product.ProductService`, asked through its own client.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod desk;

use contracts::product::product_service_client::ProductServiceClient;
use contracts::product::{CartItem, CheckProductsRequest, CheckedProduct, GetProductsRequest, ProductStatus};
use desk::{Shop, take, undo};
use serde_json::json;
use tonic::Code;

async fn check(shop: &Shop, items: &[(u64, i64)]) -> Result<Vec<CheckedProduct>, tonic::Status> {
    let mut client = ProductServiceClient::new(product::grpc::service(shop.products.clone()));
    let items = items.iter().map(|&(product_id, quantity)| CartItem { product_id, quantity }).collect();
    client.check_products(CheckProductsRequest { items }).await.map(|answer| answer.into_inner().products)
}

async fn details(shop: &Shop, product_ids: Vec<u64>) -> Result<Vec<contracts::product::Product>, tonic::Status> {
    let mut client = ProductServiceClient::new(product::grpc::service(shop.products.clone()));
    client.get_products(GetProductsRequest { product_ids }).await.map(|answer| answer.into_inner().products)
}

#[tokio::test]
async fn check_products_quotes_each_line_in_the_requests_order() {
    let shop = Shop::open().await;
    let (tea, cup) = (shop.product(1390, 4).await, shop.product(3780, 0).await);
    let asked = [(cup, 1), (tea, 4), (cup + 999_999, 1), (tea, 5), (tea, 1_000_000)];
    let found = check(&shop, &asked).await.unwrap();
    let seen: Vec<_> = found.iter().map(|p| (p.product_id, p.status(), p.price, p.currency_code.as_str())).collect();
    let wanted = [
        (cup, ProductStatus::InsufficientStock, 3780, "VND"),
        (tea, ProductStatus::Ok, 1390, "VND"),
        (cup + 999_999, ProductStatus::NotFound, 0, ""),
        (tea, ProductStatus::InsufficientStock, 1390, "VND"),
        (tea, ProductStatus::InsufficientStock, 1390, "VND"),
    ];
    assert_eq!(seen, wanted);
    assert!(check(&shop, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a02_quantities_and_lists_out_of_range_are_invalid_arguments() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 5).await;
    for quantity in [0, -1, 1_000_001, i64::MIN, i64::MAX] {
        let status = check(&shop, &[(tea, 1), (tea, quantity)]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{quantity}");
    }
    assert_eq!(check(&shop, &vec![(tea, 1); 101]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(details(&shop, vec![tea; 101]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(check(&shop, &vec![(tea, 1); 100]).await.unwrap().len(), 100);
}

#[tokio::test]
async fn get_products_leaves_out_what_does_not_exist() {
    let shop = Shop::open().await;
    let (tea, cup) = (shop.product(1390, 4).await, shop.product(3780, 0).await);
    let found = details(&shop, vec![cup, 0, u64::MAX, tea, 5]).await.unwrap();
    assert_eq!(found.iter().map(|p| (p.id, p.price)).collect::<Vec<_>>(), [(cup, 3780), (tea, 1390)]);
    assert_eq!((found[1].name.as_str(), found[1].brand_name.as_str()), ("Oolong", "Hill"));
    assert!(details(&shop, vec![]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_quote_follows_a_change_at_once_and_a_sale_within_the_caches_second() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 1).await;
    assert_eq!(check(&shop, &[(tea, 1)]).await.unwrap()[0].price, 10);
    shop.admin("PUT", &format!("/products/{tea}"), json!({ "price": 11 })).await;
    assert_eq!(check(&shop, &[(tea, 1)]).await.unwrap()[0].price, 11, "c08: an admin's change drops the copy");
    shop.outcome(take(5, &[(tea, 1, 11)])).await;
    shop.clock.advance(1_001);
    assert_eq!(check(&shop, &[(tea, 1)]).await.unwrap()[0].status(), ProductStatus::InsufficientStock);
}

#[tokio::test]
async fn a_product_that_was_asked_for_before_it_existed_is_found_when_it_does() {
    let shop = Shop::open().await;
    let last = shop.product(10, 1).await;
    // The clock stands, so the next ids are known: the category's, then the product's.
    let next = last + 2;
    assert_eq!(check(&shop, &[(next, 1)]).await.unwrap()[0].status(), ProductStatus::NotFound);
    assert_eq!(shop.product(10, 1).await, next);
    assert_eq!(check(&shop, &[(next, 1)]).await.unwrap()[0].status(), ProductStatus::Ok);
}

#[tokio::test]
async fn what_is_soon_too_old_is_read_with_what_is_and_not_again_by_itself() {
    let shop = Shop::open().await;
    let (tea, cup) = (shop.product(1390, 2).await, shop.product(3780, 2).await);
    let both = async || {
        let found = check(&shop, &[(tea, 2), (cup, 2)]).await.unwrap();
        found.iter().map(|p| p.status() == ProductStatus::Ok).collect::<Vec<_>>()
    };
    check(&shop, &[(tea, 2)]).await.unwrap();
    shop.clock.advance(400);
    assert_eq!(both().await, [true, true]);
    shop.outcome(take(7, &[(tea, 1, 1390), (cup, 1, 3780)])).await;
    assert_eq!(both().await, [true, true], "as they were seen");
    shop.clock.advance(600);
    assert_eq!(both().await, [false, false], "a second old, and six tenths of one");
    shop.outcome(undo(7, &[(tea, 1, 1390), (cup, 1, 3780)])).await;
    shop.clock.advance(900);
    assert_eq!(both().await, [false, false], "both as they were seen together");
}
