//! The pages in processes of their own: customers come through the edge, operators to an admin listener that no route leads to.

use hyper::{Method, StatusCode};
use saga::remote::Answer;
use saga::up::roles::ServiceRole;
use serde_json::Value;

use crate::city::{City, PAGES};
use crate::town::{BodyJson as _, Person, eventually};
use crate::traffic::{balanced, city};
use crate::visitor::{Visitor, text};

/// Two processes of the pages beside one of each service.
pub async fn with_pages() -> City {
    let mut city = city(1, |_| {}).await;
    (0..PAGES).for_each(|replica| city.start(ServiceRole::Console, replica));
    city.ready().await;
    let shop = Person::at(&city.public());
    eventually("the edge reaches the pages", || async {
        (shop.try_get("/shop").await?.status == StatusCode::OK).then_some(())
    })
    .await;
    city
}

/// Buys one, by the form; the page of the purchase.
async fn bought(visitor: &mut Visitor, product: u64) -> String {
    let id = product.to_string();
    let fields = [("product_id", id.as_str()), ("quantity", "1"), ("currency", "VND"), ("key", &format!("key {id}"))];
    let answer = visitor.post("/shop", "/shop/buy", &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", text(&answer));
    answer.header("location").split('?').next().unwrap().to_owned()
}

/// What the shelves hold, by name.
async fn product(admin: &Person, name: &str) -> u64 {
    let listed: Value = admin.get("/api/v1/products?limit=100").await.body_json();
    let found = listed["items"].as_array().unwrap().iter().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {listed}"))["id"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_buy_on_pages_behind_the_edge_and_operators_look_where_no_route_leads() {
    let mut city = with_pages().await;
    let mut visitor = Visitor::at(&city.public());
    assert_eq!(visitor.get("/").await.header("location"), "/shop");
    let login = visitor.log_in("/shop", "admin@example.com").await;
    assert_eq!((login.status, login.header("location")), (StatusCode::SEE_OTHER, "/shop"), "{}", text(&login));
    // Each request may be answered by the other process: neither knows anything that the other does not.
    let filled = visitor.post("/shop", "/shop/samples", &[]).await;
    assert_eq!(filled.status, StatusCode::SEE_OTHER, "{}", text(&filled));
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let (cup, spoon) = (product(&admin, "Cup").await, product(&admin, "Spoon").await);

    let page = bought(&mut visitor, cup).await;
    let live = text(&visitor.get(&format!("{page}/live")).await);
    assert!(live.contains("completed") && live.contains("event: end"), "{live}");
    // Its amount is declined: what was done is taken back.
    let taken_back = bought(&mut visitor, spoon).await;
    let live = text(&visitor.get(&format!("{taken_back}/live")).await);
    assert!(live.contains("compensated") && live.contains("event: end"), "{live}");
    // A form from elsewhere is refused behind the edge, too.
    let forged = [("sec-fetch-site", "cross-site")];
    let refused = visitor.send(Method::POST, "/shop/buy", &forged, "token=x".to_owned()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);

    let id = page.rsplit('/').next().unwrap();
    for process in ["console", "orchestrator"] {
        let mut operator = Visitor::at(&city.admin(process, 0));
        let login = operator.log_in("/console", "admin@example.com").await;
        assert_eq!(login.status, StatusCode::SEE_OTHER, "{process}: {}", text(&login));
        let listed = operator.get("/console/sagas").await;
        assert!(listed.status == StatusCode::OK && text(&listed).contains(id), "{process}: {}", text(&listed));
        let shown = text(&operator.get(&format!("/console/sagas/{id}")).await);
        assert!(shown.contains("create-payment") && shown.contains("<svg"), "{process}: {shown}");
        if process == "console" {
            not_from_outside(&city, &operator).await;
        }
    }
    // The same settings bring no pages to a process that is not for them.
    let elsewhere = Visitor::at(&city.admin("account", 0)).get("/console/login").await;
    assert_eq!(elsewhere.status, StatusCode::NOT_FOUND, "{}", text(&elsewhere));
    // One of two goes: customers do not notice.
    assert_eq!(city.term(ServiceRole::Console, 0), Some(0));
    for _ in 0..10 {
        assert_eq!(visitor.get(&page).await.status, StatusCode::OK);
    }
    balanced(&city).await;
}

/// Whatever an operator's own session says at one of the edge's listeners, or at the pages' public one.
async fn not_from_outside(city: &City, operator: &Visitor) {
    let admin = city.admin("console", 0).replace("http://", "");
    let headers: [&[(&'static str, &str)]; 3] = [
        &[],
        &[("x-forwarded-host", &admin), ("x-forwarded-port", "9002"), ("x-forwarded-prefix", "/shop")],
        &[("x-original-url", "/shop"), ("x-rewrite-url", "/shop"), ("x-internal", "yes")],
    ];
    for listener in [city.public(), city.internal(), city.address(ServiceRole::Console, 0)] {
        let mut outside = Visitor { endpoint: Visitor::at(&listener).endpoint, cookies: operator.cookies.clone() };
        for path in ["/console", "/console/sagas", "/admin/sagas", "/admin/audit", "/shop/../console/sagas", "/metrics"]
        {
            for headers in headers {
                let answer: Answer = outside.send(Method::GET, path, headers, String::new()).await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{listener}{path} {headers:?}: {}", text(&answer));
            }
        }
    }
}
