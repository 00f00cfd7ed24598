//! The internal listener as another service sees it: gRPC by real clients.

use contracts::auth::AuthRequest;
use contracts::auth::auth_service_client::AuthServiceClient;
use contracts::product::product_service_client::ProductServiceClient;
use contracts::product::{CartItem, CheckProductsRequest, GetProductsRequest, ProductStatus};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::town::Town;

/// As services reach each other: in production through the edge.
async fn channel(town: &Town) -> Channel {
    connect(town.home().internal()).await
}

async fn connect(url: String) -> Channel {
    Endpoint::from_shared(url).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_ask_who_somebody_is_and_what_a_product_costs() {
    let town = Town::open().await;
    let cup = town.product(1390, 3).await;
    let channel = channel(&town).await;

    let mut auth = AuthServiceClient::new(channel.clone());
    let known = auth.auth(AuthRequest { access_token: town.admin.token.clone() }).await.unwrap().into_inner();
    assert!(known.customer_id > 0 && !known.expired);
    let forged = auth.auth(AuthRequest { access_token: "made.up.token".into() }).await.unwrap_err();
    assert_eq!(forged.code(), Code::Unauthenticated);

    let mut products = ProductServiceClient::new(channel);
    let item = |product_id, quantity| CartItem { product_id, quantity };
    let items = vec![item(cup, 3), item(cup, 4), item(7, 1)];
    let checked = products.check_products(CheckProductsRequest { items }).await.unwrap().into_inner().products;
    let told: Vec<_> = checked.iter().map(|product| (product.status(), product.price)).collect();
    assert_eq!(
        told,
        [(ProductStatus::Ok, 1390), (ProductStatus::InsufficientStock, 1390), (ProductStatus::NotFound, 0)]
    );
    let wrong = products.check_products(CheckProductsRequest { items: vec![item(cup, 0)] }).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let request = GetProductsRequest { product_ids: vec![cup, 7] };
    let found = products.get_products(request).await.unwrap().into_inner().products;
    assert_eq!((found.len(), found[0].name.as_str()), (1, "Cup"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_is_told_that_the_services_are_healthy() {
    let town = Town::open().await;
    for (process, service) in [("account", "auth.AuthService"), ("product", "product.ProductService")] {
        let mut health = HealthClient::new(connect(town.home().internal_of(process)).await);
        for service in ["", service] {
            let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
        }
        let unknown = health.check(HealthCheckRequest { service: "no.Service".into() }).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a61_what_is_offered_is_told_only_where_it_is_switched_on() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    for on in [false, true] {
        let town = Town::open_with(|config| config.internal_reflection = on).await;
        let mut client = ServerReflectionClient::new(connect(town.home().internal_of("product")).await);
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let told = async {
            let mut answers = client.server_reflection_info(futures_util::stream::iter([request])).await?.into_inner();
            Ok::<_, tonic::Status>(answers.message().await?.and_then(|answer| answer.message_response))
        };
        match told.await {
            Ok(Some(MessageResponse::ListServicesResponse(list))) => {
                assert!(on && list.service.iter().any(|service| service.name == "product.ProductService"), "{list:?}");
            }
            Err(status) => assert!(!on && status.code() == Code::Unimplemented, "{status}"),
            Ok(other) => panic!("{other:?}"),
        }
    }
}
