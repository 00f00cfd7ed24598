//! A shop with something of everything to look at and to steer: sagas that are stuck, dead letters, an account of each role;
//! and for every form of the pages an example that works.

use std::path::PathBuf;

use saga::remote::Admin;
use saga_adapters::sqlite::dead_letters::SCHEMA as LETTERS;
use saga_adapters::sqlite::rusqlite::Connection;
use serde_json::{Value, json};

use super::visitor::Visitor;
use crate::town::{BodyJson as _, Person, Town, comes_to};

/// Who steers.
pub const OSCAR: &str = "oscar@example.com";
/// Who steers, too.
pub const OLGA: &str = "olga@example.com";
/// Who looks.
pub const VERA: &str = "vera@example.com";
/// Who buys.
pub const MARY: &str = "mary@example.com";
/// The administrator.
pub const ADMIN: &str = "admin@example.com";

pub struct Scene {
    pub town: Town,
    pub mary: Person,
    pub cup: u64,
    data: PathBuf,
}

/// A form that is filled in so that it works, once.
pub struct Example {
    /// As in [`super::routes`].
    pub route: &'static str,
    /// Where the form stands.
    pub page: String,
    pub action: String,
    pub fields: Vec<(&'static str, String)>,
}

fn example(
    route: &'static str,
    page: impl Into<String>,
    action: impl Into<String>,
    fields: &[(&'static str, &str)],
) -> Example {
    let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Example { route, page: page.into(), action: action.into(), fields }
}

impl Scene {
    /// A shop in which failures can be switched on, one of each role in it, and nothing on its shelves.
    pub async fn empty() -> Self {
        let mut data = PathBuf::new();
        let opened = Town::open_with(|config| {
            crate::failures::enabled(config);
            config.data.clone_into(&mut data);
        });
        let town = Box::pin(opened).await;
        let mary = town.customer("mary").await;
        for (email, role) in [(OSCAR, "OPERATOR"), (OLGA, "OPERATOR"), (VERA, "VIEWER")] {
            let made = json!({ "email": email, "password": "a long password", "role": role, "reason": "they help" });
            town.accounts_api().post("/admin/accounts", &made).await.unwrap();
        }
        Self { town, mary, cup: 0, data }
    }

    /// The same with goods, put there by the shop's own form.
    pub async fn stocked() -> Self {
        let mut scene = Self::empty().await;
        scene.stock().await;
        scene
    }

    pub async fn stock(&mut self) {
        self.customer(ADMIN).await.submit("/shop", "/shop/samples", &[]).await;
        let goods = self.mary.get("/api/v1/products?limit=50").await.body_json();
        let cup = goods["items"].as_array().unwrap().iter().find(|item| item["name"] == "Cup").unwrap();
        self.cup = cup["id"].as_u64().unwrap();
    }

    pub fn desk(&self) -> Admin {
        Admin::new(&self.town.home().admin(), self.town.home().token()).unwrap()
    }

    pub async fn fail(&self, what: &Value) {
        let mut what = what.clone();
        what["reason"] = "a lesson".into();
        self.desk().put("/admin/failures", &what).await.unwrap();
    }

    /// So many of Mary's purchases, stuck at a payment of which nobody knows; the gateway answers again.
    pub async fn stuck(&self, count: usize) -> Vec<u64> {
        self.fail(&json!({ "steps": { "create-payment": { "unknown_rate": 1.0, "op": "do" } } })).await;
        let mut bought = Vec::new();
        for _ in 0..count {
            bought.push(self.mary.buy(&[(self.cup, 1)]).await);
        }
        for id in &bought {
            comes_to(&self.desk(), *id, "STUCK").await;
        }
        self.fail(&json!({})).await;
        bought
    }

    pub async fn saga(&self, id: u64) -> Value {
        self.desk().get(&format!("/admin/sagas/{id}")).await.unwrap()
    }

    /// Sets a record aside on `topic`; its number.
    pub fn bury(&self, topic: &str, reason: &str, key: &str, headers: &[(&str, &str)], payload: &str) -> u64 {
        let file = Connection::open(self.data.join(format!("{}.db", LETTERS.name))).unwrap();
        let position: u64 = file.query_row("select count(*) from dead_letter", [], |row| row.get(0)).unwrap();
        let letter = "insert into dead_letter (topic, partition, position, at, attempts, reason, key, headers, payload)
            values (?1, 0, ?2, 1790000000000, 5, ?3, cast(?4 as blob), ?5, cast(?6 as blob))";
        let headers = json!(headers).to_string();
        file.execute(letter, (topic, position + 1_000_000, reason, key, headers, payload)).unwrap();
        u64::try_from(file.last_insert_rowid()).unwrap()
    }

    /// At the shop, logged in.
    pub async fn customer(&self, email: &str) -> Visitor {
        logged_in(&self.town.home().public(), "/shop", email).await
    }

    /// At the console, logged in.
    pub async fn operator(&self, email: &str) -> Visitor {
        logged_in(&self.town.home().admin(), "/console", email).await
    }

    /// What the audit log has, of one action or of all.
    pub async fn audited(&self, action: &str) -> Vec<Value> {
        let filter = if action.is_empty() { String::new() } else { format!("&action={action}") };
        let lines = self.desk().get(&format!("/admin/audit?limit=200{filter}")).await.unwrap();
        lines["items"].as_array().unwrap().clone()
    }

    /// All that a form could have changed.
    pub async fn state(&self) -> Value {
        let get = async |path: &str| self.desk().get(path).await.unwrap();
        let known = json!({ "email": "new@example.com", "password": "a long password" });
        let known = self.town.nobody().post("/api/v1/account/auth/login", &known).await.status.as_u16();
        json!({
            "audit": self.audited("").await,
            "sagas": get("/admin/sagas?limit=100").await,
            "letters": get("/admin/dlq").await,
            "failures": get("/admin/failures").await,
            "purchases": self.mary.get("/api/v1/purchases?limit=50").await.body_json(),
            "admin's": self.town.admin.get("/api/v1/purchases?limit=50").await.body_json(),
            "products": self.mary.get("/api/v1/products?limit=50").await.body_json(),
            "registered": known,
        })
    }

    /// For every form of the console one that works: on seven stuck sagas and two letters of `reply`.
    pub fn examples(stuck: &[u64], letters: &[u64]) -> Vec<Example> {
        let mut all = vec![example(
            "/console/login",
            "/console/login",
            "/console/login",
            &[("email", ADMIN), ("password", "a long password")],
        )];
        for (verb, id) in ["retry", "cancel", "skip", "resolve"].iter().zip(stuck) {
            let address = format!("/console/sagas/{id}/{verb}");
            let mut one = example("/console/sagas/{id}/{verb}", address.clone(), address, &[("reason", "to see")]);
            if *verb == "resolve" {
                one.fields.push(("status", "COMPENSATED".to_owned()));
            }
            all.push(one);
        }
        let last = stuck[4].to_string();
        let bulk = [("q", last.as_str()), ("verb", "cancel"), ("reason", "to see"), ("expect_count", "1")];
        all.push(example("/console/sagas/bulk", "/console/sagas/bulk", "/console/sagas/bulk", &bulk));
        for (verb, id) in ["redrive", "purge"].iter().zip(letters) {
            let action = format!("/console/letters/reply/do/{verb}");
            let fields = [("ids", id.to_string()), ("reason", "to see".to_owned())];
            let page = format!("{action}?ids={id}");
            let route = "/console/letters/{topic}/do/{verb}";
            all.push(Example { route, page, action, fields: fields.to_vec() });
        }
        let switches = [("decline", "50"), ("latency_ms", "1"), ("reason", "to see")];
        all.push(example("/console/failures", "/console/failures", "/console/failures", &switches));
        all.push(example("/console/logout", "/console/definitions", "/console/logout", &[]));
        all
    }

    /// For every form of the shop but the one that fills its shelves, as Mary.
    pub fn shop_examples(cup: u64, stuck: u64) -> Vec<Example> {
        let cup = cup.to_string();
        let cancel = format!("/shop/purchases/{stuck}/cancel");
        let one = [("product_id", cup.as_str()), ("quantity", "1"), ("currency", "VND"), ("key", "a key")];
        let person = [
            ("email", "new@example.com"),
            ("password", "a long password"),
            ("first_name", "New"),
            ("last_name", "Comer"),
            ("address", "12 Lake Road"),
            ("phone_number", "1234567"),
        ];
        let log_in = [("email", MARY), ("password", "a long password")];
        vec![
            example("/shop/basket", "/shop", "/shop/basket", &one[..2]),
            example("/shop/buy", "/shop", "/shop/buy", &one),
            example("/shop/purchases/{id}/cancel", "/shop", cancel, &[]),
            example("/shop/login", "/shop/login", "/shop/login", &log_in),
            example("/shop/logout", "/shop", "/shop/logout", &[]),
            example("/shop/register", "/shop/register", "/shop/register", &person),
        ]
    }
}

async fn logged_in(base: &str, path: &str, email: &str) -> Visitor {
    let mut visitor = Visitor::at(base);
    let answer = visitor.log_in(path, email).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, path), "{email}");
    visitor
}
