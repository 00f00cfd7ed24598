//! Registering, logging in, and what a customer sees and changes of the account.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod desk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use account::Config;
use chassis::auth::Role;
use desk::{Office, PASSWORD, config, registration};
use serde_json::{Value, json};

#[tokio::test]
async fn who_registers_is_logged_in_and_can_log_in_again() {
    let office = Office::open().await;
    let answer = office.register("ada@example.org").await;
    assert_eq!(answer.status, 201);
    let fields: Vec<&String> = answer.body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["access_token", "refresh_token"], "as in the original");
    let identity = office.verifier.verify(&answer.access()).unwrap();
    let again = office.login("ada@example.org", PASSWORD).await;
    assert_eq!(again.status, 200);
    let second = office.verifier.verify(&again.access()).unwrap();
    assert_eq!(identity.customer_id, second.customer_id);
    assert_ne!(identity.session, second.session);
    assert!(identity.customer_id < 1 << 53, "g24");
    let office = office.restart().await;
    assert_eq!(office.login("ada@example.org", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn the_first_account_is_the_admin_and_all_others_are_customers() {
    let office = Office::open().await;
    assert!(office.accounts.is_empty().await.unwrap());
    let role = |token: String| office.verifier.verify(&token).unwrap().role;
    assert_eq!(role(office.register("first@example.org").await.access()), Role::Admin);
    assert_eq!(role(office.register("second@example.org").await.access()), Role::Customer);
    assert!(!office.accounts.is_empty().await.unwrap());
    let closed = Office::with(Config { first_account_is_admin: false, ..config() }).await;
    let first = closed.register("first@example.org").await.access();
    assert_eq!(closed.verifier.verify(&first).unwrap().role, Role::Customer);
}

#[tokio::test]
async fn roles_are_given_by_the_cli_and_hold_from_the_next_token_on() {
    let office = Office::open().await;
    office.register("first@example.org").await;
    let customer = office.register("ada@example.org").await;
    let role = |token: &str| office.verifier.verify(token).unwrap().role;
    let appoint = async |email: &str, password: &str, role| {
        office.accounts.appoint(email, password.to_owned(), role).await.unwrap()
    };
    assert!(appoint(" Ada@Example.ORG ", "a new password", Role::Operator).await);
    assert_eq!(role(&customer.access()), Role::Customer, "what was issued stays as it was");
    assert_eq!(role(&office.refresh(&customer.refresh()).await.access()), Role::Operator);
    assert_eq!(role(&office.login("ada@example.org", PASSWORD).await.access()), Role::Operator);
    assert!(!appoint("ada@example.org", "a new password", Role::Operator).await, "she is that already");

    let root = || appoint("root@example.org", "another horse", Role::Admin);
    let (one, two) = tokio::join!(root(), root());
    assert!(one != two, "of two at once one changes something");
    assert_eq!(role(&office.login("root@example.org", "another horse").await.access()), Role::Admin);
    assert!(appoint("ada@example.org", "a new password", Role::Admin).await);
    assert_eq!(office.login("ada@example.org", "a new password").await.status, 401, "an account keeps its password");
    assert_eq!(role(&office.login("ada@example.org", PASSWORD).await.access()), Role::Admin);
}

#[tokio::test]
async fn a_registration_that_cannot_be_is_refused_field_by_field() {
    let office = Office::open().await;
    let text = |n: usize| json!("é".repeat(n));
    for (field, value) in [
        ("password", json!("1234567")),
        ("password", text(129)),
        ("password", json!(12_345_678)),
        ("email", json!("ada")),
        ("email", json!("ada@")),
        ("email", json!("ada@example.org\r\nBcc: x@example.org")),
        ("email", json!(format!("{}@example.org", "a".repeat(250)))),
        ("first_name", json!("")),
        ("last_name", text(101)),
        ("address", text(501)),
        ("phone_number", text(41)),
        ("role", json!("admin")),
        ("customer_id", json!(1)),
    ] {
        let mut body = registration("ada@example.org");
        body[field] = value.clone();
        let answer = office.post("/register", body).await;
        assert_eq!(answer.code(), (422, "validation_error"), "{field}: {value}");
        assert!(answer.pointers().iter().all(|p| *p == format!("#/{field}")), "{field}: {value}: {answer:?}");
        assert!(!answer.body.to_string().contains(PASSWORD), "no answer repeats a password");
    }
    assert!(office.accounts.is_empty().await.unwrap());
    for (n, password) in
        ["12345678".to_owned(), "é".repeat(128), "\u{1F40E} horses ".to_owned()].into_iter().enumerate()
    {
        let mut body = registration(&format!("ada{n}@example.org"));
        body["password"] = json!(password);
        assert_eq!(office.post("/register", body).await.status, 201, "{password}");
        assert_eq!(office.login(&format!("ada{n}@example.org"), &password).await.status, 200);
    }
    assert_eq!(office.login("ada2@example.org", "\u{1F40E} horses").await.status, 401, "a blank counts");
}

#[tokio::test]
async fn one_address_is_one_account_whatever_its_capitals() {
    let office = Office::open().await;
    assert_eq!(office.register("Ada@Example.org").await.status, 201);
    assert_eq!(office.register("aDA@example.ORG").await.code(), (409, "conflict"));
    assert_eq!(office.login("ADA@EXAMPLE.ORG", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn letters_that_only_look_like_an_addresses_are_refused() {
    let office = Office::open().await;
    assert_eq!(office.register("kada@example.org").await.status, 201);
    // A Kelvin sign becomes a k in lower case; the others are other letters.
    for email in ["\u{212A}ada@example.org", "ÄDA@example.org", "k\u{0430}da@example.org", "kada@example\u{200B}.org"]
    {
        assert_eq!(office.register(email).await.pointers(), ["#/email"], "{email}");
    }
}

#[tokio::test]
async fn of_racing_registrations_with_one_address_exactly_one_succeeds() {
    let office = Arc::new(Office::open().await);
    let racers: Vec<_> = (0..20)
        .map(|n| {
            let office = office.clone();
            let email = if n % 2 == 0 { "ada@example.org" } else { "Ada@example.org" };
            tokio::spawn(async move { office.register(email).await.status })
        })
        .collect();
    let mut statuses = Vec::new();
    for racer in racers {
        statuses.push(racer.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses[0], 201);
    assert!(statuses[1..].iter().all(|status| *status == 409), "{statuses:?}");
}

#[tokio::test]
async fn of_racing_first_accounts_exactly_one_is_admin() {
    let office = Arc::new(Office::open().await);
    let racers: Vec<_> = (0..10)
        .map(|n| {
            let office = office.clone();
            tokio::spawn(async move { office.register(&format!("a{n}@example.org")).await.access() })
        })
        .collect();
    let mut admins = 0;
    for racer in racers {
        admins += usize::from(office.verifier.verify(&racer.await.unwrap()).unwrap().role == Role::Admin);
    }
    assert_eq!(admins, 1);
}

#[tokio::test]
async fn g20_a40_a_wrong_password_and_an_unknown_address_are_answered_alike() {
    let office = Office::open().await;
    office.register("ada@example.org").await;
    let strip = |mut body: Value| {
        body.as_object_mut().unwrap().remove("trace_id");
        body
    };
    let wrong = office.login("ada@example.org", "wrong horse").await;
    let unknown = office.login("nobody@example.org", "wrong horse").await;
    assert_eq!(wrong.code(), (401, "unauthenticated"));
    assert_eq!(strip(wrong.body), strip(unknown.body));
    for (email, password) in [("", "x"), ("ada@example.org", ""), ("' or 1=1 --", "x")] {
        assert!([401, 422].contains(&office.login(email, password).await.status), "{email}");
    }
}

/// How long something takes, as a rule: half of the times are below.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn a40_the_work_of_an_answer_does_not_tell_which_accounts_exist() {
    const TRIES: u32 = 15;
    // Some milliseconds each, as in production: who left them out would be seen.
    let costs = Config { password_memory_kib: 4 * 1024, password_passes: 1, ..config() };
    let limits = Config { failures_per_account: 100, failures_per_address: 1_000, ..costs };
    let office = Office::with(limits).await;
    assert_eq!(office.register("ada@example.org").await.status, 201);
    let hashed = || office.accounts.stats().hashed.get();
    let (mut known, mut unknown) = (vec![], vec![]);
    // By turns, so that a busy moment of the machine is everybody's.
    for n in 0..TRIES {
        let nobody = format!("nobody{n}@example.org");
        let odd = format!("not an address {n}");
        let mut odds = vec![];
        for (email, status, times) in
            [("ada@example.org", 401, &mut known), (&nobody, 401, &mut unknown), (&odd, 401, &mut odds)]
        {
            let (before, began) = (hashed(), Instant::now());
            assert_eq!(office.login(email, "wrong horse").await.status, status, "{email}");
            times.push(began.elapsed());
            assert_eq!(hashed(), before + 1, "the same work for {email}");
        }
        unknown.append(&mut odds);
        for (email, status) in [("ada@example.org", 409), (&nobody, 201)] {
            let before = hashed();
            assert_eq!(office.register(email).await.status, status, "{email}");
            assert_eq!(hashed(), before + 1, "the same work for {email}");
        }
    }
    // Not of registering: a new account's answer tells by its status, and trying addresses out is counted like guessing.
    let (known, unknown) = (median(known), median(unknown));
    assert!(known < unknown * 3 && unknown < known * 3, "{known:?} and {unknown:?}");
}

#[tokio::test]
async fn a41_who_guesses_has_to_wait_and_is_told_how_long() {
    let office = Office::with(Config { failures_per_account: 3, failures_per_address: 5, ..config() }).await;
    office.register("ada@example.org").await;
    let login = |address: &'static str, email: &'static str, password: &'static str| {
        office.post_from(address, "/login", json!({ "email": email, "password": password }))
    };
    for _ in 0..3 {
        assert_eq!(login("192.0.2.1", "ada@example.org", "guess guess").await.status, 401);
    }
    let waiting = login("192.0.2.2", "Ada@example.org", PASSWORD).await;
    assert_eq!(waiting.code(), (429, "rate_limited"), "another address or other capitals do not help");
    assert_eq!(waiting.headers["retry-after"], "60");
    office.clock.advance_seconds(45);
    assert_eq!(login("192.0.2.2", "ada@example.org", PASSWORD).await.headers["retry-after"], "15");
    office.clock.advance_seconds(15);
    assert_eq!(login("192.0.2.2", "ada@example.org", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a41_an_address_that_tries_many_accounts_has_to_wait_alone() {
    let office = Office::with(Config { failures_per_address: 5, ..config() }).await;
    office.register("ada@example.org").await;
    for n in 0..5 {
        let body = json!({ "email": format!("a{n}@example.org"), "password": "guess guess" });
        assert_eq!(office.post("/login", body).await.status, 401);
    }
    assert_eq!(office.login("ada@example.org", PASSWORD).await.code(), (429, "rate_limited"));
    assert_eq!(office.register("eve@example.org").await.code(), (429, "rate_limited"));
    let body = json!({ "email": "ada@example.org", "password": PASSWORD });
    assert_eq!(office.post_from("192.0.2.9", "/login", body).await.status, 200);
}

#[tokio::test]
async fn a40_trying_addresses_out_by_registering_is_counted_like_guessing() {
    let office = Office::with(Config { failures_per_address: 3, ..config() }).await;
    office.register("ada@example.org").await;
    for _ in 0..3 {
        assert_eq!(office.register("ada@example.org").await.status, 409);
    }
    assert_eq!(office.register("ada@example.org").await.code(), (429, "rate_limited"));
}

#[tokio::test]
async fn a_success_forgets_the_failures_before_it() {
    let office = Office::with(Config { failures_per_account: 3, ..config() }).await;
    office.register("ada@example.org").await;
    for _ in 0..4 {
        for _ in 0..2 {
            assert_eq!(office.login("ada@example.org", "guess guess").await.status, 401);
        }
        assert_eq!(office.login("ada@example.org", PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn a42_a_flood_of_log_ins_is_turned_away_before_it_costs_memory() {
    // Hashes of the real cost: slower than log-ins arrive.
    let config = Config { password_hashes_at_once: 1, password_hashes_waiting: 2, ..Config::default() };
    let office = Arc::new(Office::with(config).await);
    let flood: Vec<_> = (0..40)
        .map(|n| {
            let office = office.clone();
            tokio::spawn(async move { office.login(&format!("a{n}@example.org"), "guess guess").await.status })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in flood {
        statuses.push(one.await.unwrap());
    }
    assert!(statuses.contains(&503) && statuses.contains(&401), "{statuses:?}");
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    assert_eq!(office.register("ada@example.org").await.status, 201, "and then it goes on");
}

#[tokio::test]
async fn a_customer_reads_and_changes_the_own_data_only() {
    let office = Office::open().await;
    let ada = office.register("ada@example.org").await.access();
    let eve = office.register("eve@example.org").await.access();
    let personal = json!({ "first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.org" });
    let delivery = json!({ "address": "12 St James's Square", "phone_number": "+44 20 7946 0000" });
    assert_eq!(office.ask(&ada, "GET", "/customer/personal", None).await.body, personal);
    assert_eq!(office.ask(&ada, "GET", "/customer/delivery", None).await.body, delivery);

    let changed = json!({ "first_name": "Augusta", "last_name": "King", "email": "Countess@Example.org" });
    let stored = json!({ "first_name": "Augusta", "last_name": "King", "email": "countess@example.org" });
    assert_eq!(office.ask(&ada, "PUT", "/customer/personal", Some(changed)).await.body, stored);
    assert_eq!(office.ask(&ada, "GET", "/customer/personal", None).await.body, stored);
    let moved = json!({ "address": "Ashley Combe", "phone_number": "1" });
    assert_eq!(office.ask(&ada, "PUT", "/customer/delivery", Some(moved.clone())).await.body, moved);
    assert_eq!(office.ask(&ada, "GET", "/customer/delivery", None).await.body, moved);
    assert_eq!(office.ask(&eve, "GET", "/customer/delivery", None).await.body, delivery, "Eve's is as it was");

    assert_eq!(office.login("countess@example.org", PASSWORD).await.status, 200);
    assert_eq!(office.login("ada@example.org", PASSWORD).await.status, 401);
    let taken = json!({ "first_name": "E", "last_name": "", "email": "COUNTESS@example.org" });
    assert_eq!(office.ask(&eve, "PUT", "/customer/personal", Some(taken)).await.code(), (409, "conflict"));
    let more = json!({ "address": "a", "phone_number": "1", "role": "admin" });
    assert_eq!(office.ask(&eve, "PUT", "/customer/delivery", Some(more)).await.pointers(), ["#/role"]);
    for path in ["/customer/personal", "/customer/delivery"] {
        assert_eq!(office.ask("", "GET", path, None).await.code(), (401, "unauthenticated"), "{path}");
    }
}
