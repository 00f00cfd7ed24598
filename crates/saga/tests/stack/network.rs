//! Ways that fail: to PostgreSQL one-way, dead without a word, cut in mid-commit; members of groups that come and go.

use std::time::Duration;

use saga::up::roles::ServiceRole;
use saga_core::Name;
use saga_runtime::bus::{Assignment, Bus as _};
use testkit::proxy::{Proxy, Way};

use crate::city::City;
use crate::faults::bus;
use crate::servers::Servers;
use crate::town::{PATIENCE, eventually};
use crate::traffic::{Load, MIX, accepted, balanced, city, city_by};

/// Who reads what.
const PARTICIPANTS: [(&str, &[&str]); 3] = [
    ("product", &["update-product-inventory", "rollback-product-inventory"]),
    ("order", &["create-order", "rollback-order", "confirm-order"]),
    ("payment", &["create-payment", "rollback-payment"]),
];

fn names(topics: &[&str]) -> Vec<Name> {
    topics.iter().map(|topic| Name::new(*topic)).collect()
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

/// Purchases that were accepted so far.
fn so_far(city: &City) -> u64 {
    city.sql("purchase", "select count(*) from purchase").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn d04_connections_that_are_lost_in_the_middle_of_a_commit_count_it_once() {
    let way = Proxy::before(&Servers::shared().postgres()).await;
    let city = city_by(&way, |_| {}).await;
    let load = Load::start(&city, &["--clients", "4", "--rate", "40", "--duration", "90s", "--mix", MIX]);
    accepted(&city, 30).await;
    way.set(Way::Cutting(15));
    accepted(&city, 150).await;
    way.set(Way::Open);
    load.stop();
    assert!(way.cut() > 20, "{} connections were cut", way.cut());
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n01_n04_a_way_to_the_databases_that_is_dead_one_way_or_both_is_given_up_in_time() {
    let way = Proxy::before(&Servers::shared().postgres()).await;
    let city = city_by(&way, |config| config.stores.statement_timeout_ms = 500).await;
    let load = Load::start(&city, &["--clients", "4", "--rate", "30", "--duration", "90s", "--mix", MIX]);
    accepted(&city, 30).await;
    for _ in 0..2 {
        // Half open: nobody is told, neither the services nor the server.
        way.forget_connections();
        accepted(&city, so_far(&city) + 30).await;
        for closed in [Way::Deaf, Way::Mute] {
            way.set(closed);
            // Longer than a statement is waited for.
            tokio::time::sleep(Duration::from_secs(3)).await;
            way.set(Way::Open);
            accepted(&city, so_far(&city) + 20).await;
        }
    }
    load.stop();
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_members_that_come_and_go_in_the_middle_of_batches_lose_and_double_nothing() {
    let city = city(1, |_| {}).await;
    let load = Load::start(&city, &["--clients", "4", "--rate", "40", "--duration", "90s", "--mix", MIX]);
    accepted(&city, 50).await;
    for _ in 0..2 {
        // They take partitions and records, and go without having done anything. One after the other: what waits for
        // one of them does not come to the next.
        for (group, topics) in PARTICIPANTS {
            let members = bus(&city);
            let mut member = members.subscribe(group, &names(topics)).await.unwrap();
            assert!(!soon(member.next(10)).await.unwrap().is_empty());
            drop(member);
            members.close().await;
        }
        let drivers = bus(&city);
        let mut driver = drivers.join("orchestrator", &names(&["purchase", "reply"])).await.unwrap();
        let Assignment::Assigned { mut subscription, .. } = soon(driver.next()).await.unwrap() else { panic!() };
        assert!(!soon(subscription.next(10)).await.unwrap().is_empty());
        drop((driver, subscription));
        drivers.close().await;
        accepted(&city, so_far(&city) + 20).await;
    }
    load.stop();
    balanced(&city).await;
}

/// Sagas that have ended so far.
fn over(city: &City) -> u64 {
    city.sql("orchestrator", "select count(*) from saga where not open").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn n01_who_hears_kafka_and_is_not_heard_or_the_reverse_goes_on_when_it_is_healed() {
    let (here, broker) = Servers::shared().kafka_way();
    let way = Proxy::at(&here, &broker).await;
    let mut city = city(1, |config| config.bus.delivery_timeout_ms = 1_500).await;
    let direct = city.config.bus.url.clone();
    let load = Load::start(&city, &["--clients", "4", "--rate", "30", "--duration", "90s", "--mix", MIX]);
    accepted(&city, 30).await;
    for role in [ServiceRole::Orchestrator, ServiceRole::Order] {
        // This one alone takes the way that fails.
        city.term(role, 0);
        city.config.bus.url = format!("kafka://{here}");
        city.write_settings();
        city.start(role, 0);
        city.process_ready(role, 0).await;
        for closed in [Way::Deaf, Way::Mute] {
            let before = over(&city);
            eventually("it works over the way", || async { (over(&city) > before + 5).then_some(()) }).await;
            way.set(closed);
            // Longer than a record waits for its broker, and a member may be silent.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let stopped = over(&city);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            if role == ServiceRole::Orchestrator {
                assert_eq!(over(&city), stopped, "{closed:?}: it is cut off");
            }
            way.set(Way::Open);
            accepted(&city, so_far(&city) + 20).await;
        }
        city.term(role, 0);
        city.config.bus.url.clone_from(&direct);
        city.write_settings();
        city.start(role, 0);
    }
    load.stop();
    balanced(&city).await;
}
