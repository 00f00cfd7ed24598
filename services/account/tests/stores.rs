//! Every operation of the store, on SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use account::domain::{Delivery, NewAccount, PasswordHash, Personal, Refresh};
use account::store::{NewSession, Refreshed, SigningKey, Store};
use chassis::auth::Role;
use saga_adapters::postgres::{Options as PgOptions, Pg};
use saga_adapters::sqlite::{Db, Options};
use testkit::conformance::Fixture;

type Port = Arc<dyn Store>;

async fn sqlite() -> Fixture<Port> {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("account.db"), &account::SCHEMA, &Options::default()).unwrap();
    Fixture::keeping(Arc::new(account::SqliteStore::new(db)), folder)
}

async fn postgres() -> Fixture<Port> {
    let options = PgOptions::new(testkit::postgres::database());
    let pg = Pg::connect(&options, &account::PG_SCHEMA).await.unwrap();
    Fixture::new(Arc::new(account::PgStore::new(pg)))
}

testkit::store_tests!(sqlite, postgres;
    an_account_is_created_and_read_back,
    an_address_is_taken_once,
    the_first_account_is_admin_if_that_is_wanted,
    of_many_first_accounts_one_is_admin,
    names_and_addresses_can_be_changed,
    roles_can_be_changed,
    a_refresh_token_is_spent_once_and_its_reuse_revokes_the_family,
    of_many_refreshes_at_once_one_rotates,
    a_session_ends_by_itself_or_by_its_customer,
    keys_are_listed_newest_first,
    of_many_first_keys_one_is_kept,
);

fn new(id: u64, email: &str) -> NewAccount {
    NewAccount {
        customer_id: id,
        personal: Personal { first_name: "Ö'".into(), last_name: String::new(), email: email.into() },
        delivery: Delivery { address: "Somewhere 1".into(), phone_number: "+1".into() },
        password: PasswordHash { salt: [1; 16], hash: [2; 32], memory_kib: 19_456, passes: 2 },
        role: None,
    }
}

async fn create(store: &Port, id: u64) {
    let created = store.create(new(id, &format!("{id}@example.org")), false, 5).await.unwrap();
    assert_eq!(created, Some(Role::Customer));
}

async fn log_in(store: &Port, session: u64, token: u8) {
    let session = NewSession { id: session, customer_id: 1, token: [token; 32], now: 1000, expires_at: 100_000 };
    store.open_session(session).await.unwrap();
}

async fn refresh(store: &Port, token: u8, next: u8, now: u64) -> Refreshed {
    store.refresh([token; 32], [next; 32], now, 10_000).await.unwrap()
}

const ROTATED: Refreshed = Refreshed::Rotated { customer_id: 1, role: Role::Customer, session: 7 };

async fn an_account_is_created_and_read_back(store: &Port) {
    assert!(store.is_empty().await.unwrap());
    create(store, 1).await;
    assert!(!store.is_empty().await.unwrap());
    let found = store.credentials("1@example.org".into()).await.unwrap().unwrap();
    assert_eq!((found.customer_id, found.role), (1, Role::Customer));
    assert!(found.password == new(1, "").password);
    assert!(store.credentials("2@example.org".into()).await.unwrap().is_none());
    assert_eq!(store.personal(1).await.unwrap(), Some(new(1, "1@example.org").personal));
    assert_eq!(store.delivery(1).await.unwrap(), Some(new(1, "").delivery));
    assert_eq!((store.personal(9).await.unwrap(), store.delivery(9).await.unwrap()), (None, None));
}

async fn an_address_is_taken_once(store: &Port) {
    create(store, 1).await;
    assert_eq!(store.create(new(2, "1@example.org"), false, 5).await.unwrap(), None);
    assert_eq!(store.personal(2).await.unwrap(), None);
    assert!(store.create(new(3, "Not@Lower.Case"), false, 5).await.is_err());
}

async fn the_first_account_is_admin_if_that_is_wanted(store: &Port) {
    let operator = NewAccount { role: Some(Role::Operator), ..new(1, "1@example.org") };
    assert_eq!(store.create(operator, true, 5).await.unwrap(), Some(Role::Operator));
    assert_eq!(store.create(new(2, "2@example.org"), true, 5).await.unwrap(), Some(Role::Customer));
}

async fn of_many_first_accounts_one_is_admin(store: &Port) {
    let mut requests = tokio::task::JoinSet::new();
    for id in 1..=12 {
        let store = Arc::clone(store);
        requests.spawn(async move { store.create(new(id, &format!("{id}@example.org")), true, 5).await.unwrap() });
    }
    let roles = requests.join_all().await;
    assert_eq!(roles.iter().filter(|role| **role == Some(Role::Admin)).count(), 1, "{roles:?}");
    assert_eq!(roles.iter().filter(|role| **role == Some(Role::Customer)).count(), 11, "{roles:?}");
}

async fn names_and_addresses_can_be_changed(store: &Port) {
    create(store, 1).await;
    create(store, 2).await;
    let personal = |email: &str| Personal { first_name: "A".into(), last_name: "B".into(), email: email.into() };
    assert!(store.set_personal(1, personal("new@example.org")).await.unwrap());
    assert_eq!(store.personal(1).await.unwrap(), Some(personal("new@example.org")));
    assert!(!store.set_personal(1, personal("2@example.org")).await.unwrap(), "taken");
    assert!(!store.set_personal(9, personal("9@example.org")).await.unwrap(), "nobody's");
    assert_eq!(store.personal(1).await.unwrap(), Some(personal("new@example.org")));
    let delivery = Delivery { address: "Elsewhere".into(), phone_number: "2".into() };
    store.set_delivery(1, delivery.clone()).await.unwrap();
    assert_eq!(store.delivery(1).await.unwrap(), Some(delivery));
    assert_eq!(store.delivery(2).await.unwrap(), Some(new(2, "").delivery));
}

async fn roles_can_be_changed(store: &Port) {
    create(store, 1).await;
    for role in Role::ALL {
        assert!(store.set_role("1@example.org".into(), role).await.unwrap());
        assert_eq!(store.credentials("1@example.org".into()).await.unwrap().unwrap().role, role);
    }
    assert!(store.set_role("1@example.org".into(), Role::Admin).await.unwrap());
    assert!(!store.set_role("9@example.org".into(), Role::Admin).await.unwrap());
    assert_eq!(store.credentials("1@example.org".into()).await.unwrap().unwrap().role, Role::Admin);
}

async fn a_refresh_token_is_spent_once_and_its_reuse_revokes_the_family(store: &Port) {
    create(store, 1).await;
    log_in(store, 7, 1).await;
    assert_eq!(refresh(store, 99, 2, 2000).await, Refreshed::Unknown);
    assert_eq!(refresh(store, 1, 2, 2000).await, ROTATED);
    assert_eq!(refresh(store, 1, 3, 2500).await, Refreshed::Refused(Refresh::Refuse), "two tabs");
    assert_eq!(refresh(store, 2, 3, 3000).await, ROTATED);
    assert_eq!(refresh(store, 1, 4, 50_000).await, Refreshed::Refused(Refresh::RevokeFamily));
    assert_eq!(refresh(store, 3, 4, 50_001).await, Refreshed::Refused(Refresh::Refuse), "the family is gone");
    assert!(!store.revoke_session(7, 1, 50_002).await.unwrap());
}

async fn of_many_refreshes_at_once_one_rotates(store: &Port) {
    create(store, 1).await;
    log_in(store, 7, 100).await;
    let mut requests = tokio::task::JoinSet::new();
    for next in 0..12 {
        let store = Arc::clone(store);
        requests.spawn(async move { refresh(&store, 100, next, 2000).await });
    }
    let all = requests.join_all().await;
    assert_eq!(all.iter().filter(|refreshed| **refreshed == ROTATED).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|r| **r == Refreshed::Refused(Refresh::Refuse)).count(), 11, "{all:?}");
}

async fn a_session_ends_by_itself_or_by_its_customer(store: &Port) {
    create(store, 1).await;
    log_in(store, 7, 1).await;
    log_in(store, 8, 2).await;
    assert!(!store.revoke_session(7, 2, 3000).await.unwrap(), "somebody else's");
    assert!(store.revoke_session(7, 1, 3000).await.unwrap());
    assert!(!store.revoke_session(7, 1, 3000).await.unwrap());
    assert_eq!(refresh(store, 1, 3, 4000).await, Refreshed::Refused(Refresh::Refuse));
    assert_eq!(refresh(store, 2, 3, 100_000).await, Refreshed::Refused(Refresh::Refuse), "it has expired");
    let nobody = NewSession { id: 9, customer_id: 99, token: [9; 32], now: 1, expires_at: 2 };
    assert!(store.open_session(nobody).await.is_err());
    assert_eq!(refresh(store, 9, 3, 1).await, Refreshed::Unknown, "nothing of it stays");
}

fn key(kid: &str) -> SigningKey {
    SigningKey { kid: kid.into(), pkcs8: kid.as_bytes().repeat(40) }
}

async fn kids(store: &Port) -> Vec<String> {
    store.keys().await.unwrap().into_iter().map(|key| key.kid).collect()
}

async fn keys_are_listed_newest_first(store: &Port) {
    assert_eq!(kids(store).await, [""; 0]);
    store.add_key(key("a"), true, 5).await.unwrap();
    store.add_key(key("b"), true, 6).await.unwrap();
    assert_eq!(kids(store).await, ["a"]);
    store.add_key(key("c"), false, 7).await.unwrap();
    store.add_key(key("B"), false, 7).await.unwrap();
    assert_eq!(kids(store).await, ["B", "c", "a"]);
    assert_eq!(store.keys().await.unwrap()[2].pkcs8, key("a").pkcs8);
}

/// Several processes start at once on an empty database.
async fn of_many_first_keys_one_is_kept(store: &Port) {
    let mut starts = tokio::task::JoinSet::new();
    for n in 0..12 {
        let store = Arc::clone(store);
        starts.spawn(async move { store.add_key(key(&n.to_string()), true, 5).await.unwrap() });
    }
    starts.join_all().await;
    assert_eq!(kids(store).await.len(), 1);
}
