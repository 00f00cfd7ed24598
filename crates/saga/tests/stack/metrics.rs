//! `/metrics` of every process of a shop on the real stack: each tells its part, together they tell everything that is
//! documented, and none tells it to customers.

use saga::up::roles::{ALL, ServiceRole};

use crate::scrapes::{Scrape, is_as_documented, scrape};
use crate::town::{BodyJson as _, Person, created, eventually, product};
use crate::traffic::city;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_process_tells_its_part_and_the_orchestrator_how_far_everybody_has_read() {
    let mut city = city(1, |_| {}).await;
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let kitchen = json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&admin.post("/api/v1/categories", &kitchen).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 10)).await);
    for (quantity, end) in [(2, "COMPLETED"), (1, "COMPLETED"), (99, "COMPENSATED")] {
        let id = admin.buy(&[(cup, quantity)]).await;
        assert_eq!(admin.ended(id).await["status"], end);
        // Past the caches.
        assert!(admin.get(&format!("/api/v1/purchases/{id}")).await.body_json().is_object());
        admin.get(&format!("/api/v1/orders/{id}")).await;
    }
    let pages = scrape_all(&city).await;
    let of = |role: ServiceRole| &pages[ALL.iter().position(|one| *one == role).unwrap()];
    for (role, page) in ALL.iter().zip(&pages) {
        assert_eq!(page.of(&format!("saga_role{{role=\"{role}\"}}")), 1.0);
        assert_eq!(page.of(r#"saga_build_info{version="0.1.0",profile="stack"}"#), 1.0, "{role}");
        assert_eq!(page.of("saga_ready"), 1.0, "{role}");
        assert!(page.of(&format!("saga_pool_sessions_limit{{database=\"{role}\"}}")) >= 1.0, "{role}");
        assert!(page.of(&format!("saga_database_transaction_seconds_count{{database=\"{role}\"}}")) > 0.0, "{role}");
    }
    let sagas = of(ServiceRole::Orchestrator);
    assert_eq!(sagas.of(r#"saga_started_total{definition="purchase"}"#), 3.0);
    assert_eq!(sagas.of(r#"saga_ended_total{definition="purchase",outcome="completed"}"#), 2.0);
    assert_eq!(sagas.of(r#"saga_ended_total{definition="purchase",outcome="compensated"}"#), 1.0);
    assert_eq!(of(ServiceRole::Order).of("saga_items_sold_total"), 3.0);
    assert_eq!(of(ServiceRole::Payment).of(r#"saga_money_captured_minor_units_total{currency="VND"}"#), 30.0);
    assert_eq!(of(ServiceRole::Purchase).of("saga_purchases_accepted_total"), 3.0);
    assert!(!of(ServiceRole::Payment).samples.keys().any(|series| series.starts_with("saga_started")), "not its part");

    // Groups have committed within a moment, and what nobody reads waits.
    eventually("nothing waits", || async {
        let page = scrape(&city.admin("orchestrator", 0)).await;
        let lag = |group: &str, topic: &str| {
            page.samples.get(&format!("saga_consumer_lag{{group=\"{group}\",topic=\"{topic}\"}}")).copied()
        };
        let read = [("orchestrator", "reply"), ("order", "create-order"), ("payment", "create-payment")];
        read.iter().all(|(group, topic)| lag(group, topic) == Some(0.0)).then_some(())
    })
    .await;
    let all = pages.into_iter().fold(Scrape::default(), Scrape::and);
    is_as_documented(&all.and(scrape(&city.admin("orchestrator", 0)).await), "In one process");
    let hidden = Person::at(&city.public()).try_get("/metrics").await.unwrap();
    assert_eq!(hidden.status.as_u16(), 404, "a61: the edge shows it to nobody");
    city.stop();
}

async fn scrape_all(city: &crate::city::City) -> Vec<Scrape> {
    let mut pages = Vec::new();
    for role in ALL {
        let url = city.admin(role.as_str(), 0);
        // The second page has the request for the first one on it.
        pages.push(scrape(&url).await.and(scrape(&url).await));
    }
    pages
}
