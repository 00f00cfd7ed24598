//! The pages over HTTP: cookies and their flags, who sees what, forms from elsewhere, headers.

mod forged;
mod forms;
pub mod hostile;
pub mod neighbour;
mod rights;
mod routes;
pub mod scene;
pub mod visitor;

use hyper::{Method, StatusCode};
use saga::remote::Answer;
use saga::up::Shop;
use saga::up::roles::ServiceRole;
use serde_json::json;

use crate::binary::{Process, saga};
use crate::town::{BodyJson as _, Town, created, eventually, product};
use visitor::{Visitor, form, text};

/// Every page of the console that needs no more than an address.
const PAGES: [&str; 9] = [
    "/console/overview",
    "/console/sagas",
    "/console/letters",
    "/console/topics",
    "/console/topics/reply",
    "/console/participants",
    "/console/definitions",
    "/console/audit",
    "/console/failures",
];

/// A shop with one of each role; the last is nobody's.
async fn people(town: &Town) -> [(&'static str, Visitor); 4] {
    town.customer("mary").await;
    for (name, role) in [("oscar", "OPERATOR"), ("vera", "VIEWER")] {
        town.customer(name).await;
        let made = json!({ "email": format!("{name}@example.com"), "password": "a long password", "role": role, "reason": "they help" });
        town.accounts_api().post("/admin/accounts", &made).await.unwrap();
    }
    let admin = town.home().admin();
    ["mary", "vera", "oscar", "admin"].map(|name| (name, Visitor::at(&admin)))
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_do_not_get_in_viewers_look_operators_and_administrators_steer() {
    let town = Town::open().await;
    let cup = town.product(10, 10).await;
    let purchase = town.admin.buy(&[(cup, 1)]).await;
    town.admin.ended(purchase).await;
    for (name, mut visitor) in people(&town).await {
        let answer = visitor.log_in("/console", &format!("{name}@example.com")).await;
        if name == "mary" {
            assert_eq!(answer.status, StatusCode::FORBIDDEN);
            assert!(!visitor.cookies.contains_key("saga_access"), "a customer has no session here");
            continue;
        }
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/console"), "{name}");
        for page in PAGES {
            let answer = visitor.get(page).await;
            assert_eq!(answer.status, StatusCode::OK, "{name}: {page}");
            headers_are_strict(&answer);
        }
        let shown = text(&visitor.get(&format!("/console/sagas/{purchase}")).await);
        assert!(shown.contains("create-payment") && shown.contains("<svg"), "{shown}");
        // What has ended cannot be steered; the question can be asked by who may.
        let asked = visitor.get(&format!("/console/sagas/{purchase}/retry")).await;
        let expected = if name == "vera" { StatusCode::FORBIDDEN } else { StatusCode::OK };
        assert_eq!(asked.status, expected, "{name}");
        let fields = [("reason", "to see"), ("version", "1"), ("definition", "purchase")];
        let done = visitor.post("/console/definitions", &format!("/console/sagas/{purchase}/retry"), &fields).await;
        let expected = if name == "vera" { StatusCode::FORBIDDEN } else { StatusCode::CONFLICT };
        assert_eq!(done.status, expected, "{name}: {}", text(&done));
        if name != "vera" {
            assert!(text(&done).contains("look again"), "the fresh state is shown with why");
        }
        // Logging out ends the session, not only the cookies.
        let kept = visitor.cookies.clone();
        visitor.post("/console/definitions", "/console/logout", &[]).await;
        assert!(!visitor.cookies.contains_key("saga_access"));
        let refresh = json!({ "refresh_token": kept["saga_refresh"] });
        let refreshed = town.nobody().post("/api/v1/account/auth/refresh", &refresh).await;
        assert_eq!(refreshed.status, StatusCode::UNAUTHORIZED);
    }
}

fn headers_are_strict(answer: &Answer) {
    let policy = answer.header("content-security-policy");
    for part in
        ["default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!((answer.header("x-content-type-options"), answer.header("referrer-policy")), ("nosniff", "same-origin"));
    assert_eq!(answer.header("cache-control"), "no-store");
    let page = text(answer);
    for inline in [" style=", "<style", " onclick=", " onload=", "javascript:"] {
        assert!(!page.contains(inline), "{inline} in {page}");
    }
    for script in page.split("<script").skip(1) {
        assert!(script.starts_with(" src=\"/"), "a script in the page: {script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_are_for_one_part_of_the_site_and_no_script() {
    let town = Town::open().await;
    let mut visitor = Visitor::at(&town.home().public());
    let login = visitor.log_in("/shop", "admin@example.com").await;
    let lines: Vec<&str> = login.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap()).collect();
    assert!(lines.iter().any(|line| line.starts_with("saga_access=ey")), "{lines:?}");
    for line in &lines {
        for flag in ["; Path=/shop", "; HttpOnly", "; SameSite=Strict"] {
            assert!(line.contains(flag), "{line}");
        }
        assert!(!line.contains("Secure"), "it came without TLS: {line}");
    }
    // Behind an edge that speaks TLS.
    let mut visitor = Visitor::at(&town.home().public());
    let answer = visitor.send(Method::GET, "/shop", &[("x-forwarded-proto", "https")], String::new()).await;
    assert!(answer.header("set-cookie").contains("; Secure"), "{}", answer.header("set-cookie"));
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_do_not_come_from_our_pages_are_refused() {
    let town = Town::open().await;
    let cup = town.product(10, 10).await.to_string();
    let mut mary = Visitor::at(&town.home().public());
    mary.log_in("/shop", "admin@example.com").await;
    let token = mary.token("/shop").await;
    let fields = [("product_id", cup.as_str()), ("quantity", "1"), ("currency", "VND"), ("key", "k")];
    let mut eve = Visitor::at(&town.home().public());
    let evil = eve.token("/shop/login").await;
    let own = town.home().public();
    let attempts: [(&str, &[(&'static str, &str)]); 6] = [
        ("", &[]),
        (&evil, &[]),
        ("0123456789abcdef0123456789abcdef", &[]),
        (&token, &[("sec-fetch-site", "cross-site")]),
        (&token, &[("sec-fetch-site", "same-site")]),
        (&token, &[("origin", "http://evil.example")]),
    ];
    for (token, headers) in attempts {
        let answer = mary.send(Method::POST, "/shop/buy", headers, form(token, &fields)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{token} {headers:?}");
        assert!(text(&answer).contains("nothing was done"), "{}", text(&answer));
    }
    assert_eq!(town.admin.get("/api/v1/purchases").await.body_json()["items"], json!([]));
    let answer = mary.send(Method::POST, "/shop/buy", &[("origin", &own)], form(&token, &fields)).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", text(&answer));
    // The same form again is the same purchase.
    let again = mary.send(Method::POST, "/shop/buy", &[("origin", &own)], form(&token, &fields)).await;
    assert_eq!(again.header("location"), answer.header("location"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_is_gone_is_renewed_without_a_word_and_once_for_requests_that_come_together() {
    let town = Town::open().await;
    let mut mary = Visitor::at(&town.home().public());
    mary.log_in("/shop", "admin@example.com").await;
    let before = mary.cookies.clone();
    mary.cookies.insert("saga_access".to_owned(), "e30.e30.e30".to_owned());
    let other = Visitor { endpoint: mary.endpoint.clone(), cookies: mary.cookies.clone() };
    let mut both = [mary, other];
    let [first, second] = &mut both;
    let (one, two) = tokio::join!(first.get("/shop/purchases"), second.get("/shop/purchases"));
    assert_eq!([one.status, two.status], [StatusCode::OK; 2], "{} {}", text(&one), text(&two));
    assert_ne!(both[0].cookies["saga_refresh"], before["saga_refresh"]);
    assert_eq!(both[0].cookies["saga_refresh"], both[1].cookies["saga_refresh"], "one token was spent, not two");
    assert_eq!(both[0].get("/shop/purchases").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_remembered_by_their_content_and_nothing_is_fetched_from_elsewhere() {
    let town = Town::open().await;
    let mut nobody = Visitor::at(&town.home().public());
    let page = text(&nobody.get("/shop").await);
    let files: Vec<&str> = page.split(['"', '\'']).filter(|part| part.contains("/assets/")).collect();
    assert!(files.len() > 4, "{page}");
    for file in files {
        let answer = nobody.get(file).await;
        assert_eq!(answer.status, StatusCode::OK, "{file}");
        assert!(answer.header("cache-control").contains("immutable"), "{file}");
        let tag = answer.header("etag").to_owned();
        let known = nobody.send(Method::GET, file, &[("if-none-match", &tag)], String::new()).await;
        assert_eq!((known.status, known.body.len()), (StatusCode::NOT_MODIFIED, 0), "{file}");
    }
    assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    assert_eq!(nobody.get("/shop/assets/0/secrets").await.status, StatusCode::NOT_FOUND);
    assert_eq!(nobody.get("/shop/nothing").await.status, StatusCode::NOT_FOUND);
    assert_eq!(nobody.get("/").await.header("location"), "/shop");
    let mut operator = Visitor::at(&town.home().admin());
    assert_eq!(operator.get("/").await.header("location"), "/console");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_its_own_has_the_pages_of_a_shop_that_is_elsewhere() {
    let mut town = Town::open().await;
    let cup = town.product(10, 10).await;
    let purchase = town.admin.buy(&[(cup, 1)]).await;
    town.admin.ended(purchase).await;
    let folder = tempfile::TempDir::new().unwrap();
    let mut config = crate::town::settings(folder.path());
    let roles = || std::collections::BTreeSet::from([ServiceRole::Console]);
    let refused = Shop::serve(config.clone(), roles()).await.err().map(|error| format!("{error:#}"));
    assert!(refused.as_ref().is_some_and(|why| why.contains("console.shop_url")), "{refused:?}");
    config.console.shop_url = Some(town.home().public());
    config.console.admin_url = Some(town.home().admin());
    let pages = Shop::serve(config, roles()).await.unwrap();
    let mut customer = Visitor::at(&format!("http://{}", pages.public_addr));
    customer.log_in("/shop", "admin@example.com").await;
    assert!(text(&customer.get(&format!("/shop/purchases/{purchase}")).await).contains("completed"));
    // Streams, too.
    let live = text(&customer.get(&format!("/shop/purchases/{purchase}/live")).await);
    assert!(live.contains("event: purchase") && live.contains("event: end"), "{live}");
    let mut operator = Visitor::at(&format!("http://{}", pages.admin_addr));
    operator.log_in("/console", "admin@example.com").await;
    let shown = operator.get(&format!("/console/sagas/{purchase}")).await;
    assert!(shown.status == StatusCode::OK && text(&shown).contains("create-payment"), "{}", text(&shown));
    // It has nothing else: neither the shop's API nor an admin API of its own.
    assert_eq!(customer.get("/api/v1/products").await.status, StatusCode::NOT_FOUND);
    assert_eq!(operator.get("/admin/sagas").await.status, StatusCode::NOT_FOUND);
    town.close().await;
    let gone = operator.get("/console/sagas").await;
    assert_eq!(gone.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(&gone).contains("does not answer"), "{}", text(&gone));
    pages.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_leads_to_its_trace_where_the_settings_say_where_that_is() {
    for address in ["", "http://localhost:16686/trace/{trace_id}?from=saga"] {
        let folder = tempfile::TempDir::new().unwrap();
        let mut command = saga(folder.path());
        // Nobody takes the traces: ids have they all the same.
        command.args(["--listen", "127.0.0.1:0"]).env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        command.env("SAGA_CONSOLE__TRACE_URL", address).stdout(std::process::Stdio::piped());
        let process = Process::of(command.spawn().unwrap(), folder.path()).await;
        let admin = process.nobody().register("admin@example.com").await;
        let category =
            created(&admin.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "Tea" })).await);
        let cup = created(&admin.post("/api/v1/products", &product(category, 10, 5)).await);
        let purchase = admin.buy(&[(cup, 1)]).await;
        admin.ended(purchase).await;
        let mut operator = Visitor::at(&process.run.admin);
        operator.log_in("/console", "admin@example.com").await;
        let answer = operator.get(&format!("/console/sagas/{purchase}")).await;
        headers_are_strict(&answer);
        let page = text(&answer);
        let id = page.split("<code>").nth(1).and_then(|rest| rest.split('<').next()).unwrap_or_default();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{page}");
        let link = format!("<a id=\"trace\" href=\"http://localhost:16686/trace/{id}?from=saga\" rel=\"noreferrer\">");
        assert_eq!(page.contains(&link), !address.is_empty(), "{page}");
        assert_eq!(page.contains("href=\"http"), !address.is_empty(), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_filters_and_forged_page_tokens_are_told_beside_the_form() {
    let town = Town::open().await;
    let cup = town.product(10, 1_000).await;
    let mut admin = Visitor::at(&town.home().admin());
    admin.log_in("/console", "admin@example.com").await;
    for odd in ["/console/sagas/abc", "/console/sagas/-1", "/console/sagas/7/dance", "/console/sagas?state=a&state=b"] {
        let answer = admin.get(odd).await;
        assert!(answer.status.is_client_error(), "{odd}: {}", answer.status);
        assert!(text(&answer).contains("<h1>"), "{odd}: a page says so: {}", text(&answer));
    }
    // By when they started, as a browser's field says it or as the API does; it stays in the address of the next page.
    for _ in 0..51 {
        town.admin.buy(&[(cup, 1)]).await;
    }
    let fits = |query: &'static str| {
        let mut admin = Visitor::at(&town.home().admin());
        async move {
            admin.log_in("/console", "admin@example.com").await;
            text(&admin.get(&format!("/console/sagas?{query}")).await)
        }
    };
    let after = fits("started_after=2020-01-02T03%3A04").await;
    assert!(after.contains(r#"value="2020-01-02T03:04:00""#), "the field keeps it: {after}");
    let older = after.split("href=\"").find(|link| link.contains("page_token=")).expect("another page");
    assert!(
        older.starts_with("/console/sagas?") && older.contains("started_after=2020-01-02T03%3A04%3A00Z"),
        "{older}"
    );
    assert!(fits("started_before=2020-01-02T03%3A04%3A05Z").await.contains("No saga fits."));
    assert!(!fits("started_before=2120-01-02T03%3A04%3A05Z").await.contains("No saga fits."));
    for query in ["state=ASLEEP", "older_than=soon", "q=abc", "page_token=forged", "started_after=yesterday"] {
        let answer = admin.get(&format!("/console/sagas?{query}")).await;
        let shown = text(&answer);
        assert_eq!(answer.status, StatusCode::OK, "{query}: {shown}");
        assert!(shown.contains("notice bad") && shown.contains("<form"), "{query}: {shown}");
    }
    let mut customer = Visitor::at(&town.home().public());
    customer.log_in("/shop", "admin@example.com").await;
    for page in [
        "/console/audit?page_token=forged",
        "/console/topics/reply?partition=one",
        "/console/topics/reply?from=-1",
        "/console/letters/reply?after=x",
        "/shop?page_token=forged",
        "/shop?category_id=abc",
        "/shop/purchases?page_token=forged",
    ] {
        let visitor = if page.starts_with("/shop") { &mut customer } else { &mut admin };
        let answer = visitor.get(page).await;
        let shown = text(&answer);
        match answer.status {
            // Beside the form, or as a page that says what is wrong about it.
            StatusCode::OK => assert!(shown.contains("notice bad") && shown.contains("<form"), "{page}: {shown}"),
            status => {
                assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{page}: {shown}");
                assert!(shown.contains("role=\"alert\"") && shown.contains("validation_error"), "{page}: {shown}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_does_not_read_holds_nobody_up() {
    let town = Town::open().await;
    let cup = town.product(10, 1_000).await;
    let mut mary = Visitor::at(&town.home().public());
    mary.log_in("/shop", "admin@example.com").await;
    let purchase = town.admin.buy(&[(cup, 1)]).await;
    let cookies: Vec<String> = mary.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    // Opened and never read.
    let mut slow = Vec::new();
    for _ in 0..5 {
        let address = town.home().public().replace("http://", "");
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "GET /shop/purchases/{purchase}/live HTTP/1.1\r\nhost: {address}\r\ncookie: {}\r\n\r\n",
            cookies.join("; ")
        );
        tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.unwrap();
        slow.push(socket);
    }
    for _ in 0..20 {
        let purchase = town.admin.buy(&[(cup, 1)]).await;
        assert_eq!(town.admin.ended(purchase).await["status"], "COMPLETED");
    }
    drop(slow);
    eventually("the page answers", || async {
        let mut other = Visitor::at(&town.home().public());
        (other.get("/shop").await.status == StatusCode::OK).then_some(())
    })
    .await;
}
