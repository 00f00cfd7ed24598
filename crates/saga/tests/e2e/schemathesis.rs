//! The API's document against the running shop, by a program that makes up requests from it (schemathesis): at and beyond
//! every limit, with and without what is wanted, as a customer and as an administrator. The same ones every time.
//!
//! A failure is: a 5xx, a status, content type, header or body that is not in the document, something that should have
//! been refused or taken and was not, a route that lets in whom it should not.

use std::path::Path;
use std::process::Command;

use crate::town::{Person, Town, created, product};

/// Made up for each operation, beside its limits. With both callers a minute or less.
const EXAMPLES: u32 = 60;

/// What a request names that is there; made-up ids would only ever be told that there is nothing.
struct Known {
    product: u64,
    category: u64,
    purchase: u64,
}

/// What is looked at: a document, and which of its operations.
struct Look {
    document: String,
    without: &'static str,
    /// What the program says of them.
    selected: &'static str,
}

/// Streams do not end, and a log-out ends the run: both have tests of their own.
const LEFT_OUT: &str = "/events$|/auth/logout$";

/// What passes the document may still name a category, a currency or a state that does not exist, or a page that no list
/// has, or ask for what does not go together; and `7.0` is an integer to a schema, but no id to anybody here.
const MAY_BE_REFUSED: [&str; 17] = [
    "listProducts",
    "listCategories",
    "listOrders",
    "listPayments",
    "listPurchases",
    "addProduct",
    "changeProduct",
    "placePurchase",
    "listSagas",
    "countSagas",
    "listAuditLines",
    "listDeadLetters",
    "listMessages",
    "steerSaga",
    "steerSagas",
    "redriveDeadLetters",
    "purgeDeadLetters",
];

fn settings(who: &Person, known: Option<&Known>) -> String {
    let mut text = format!(
        "color = false\nrequest-timeout = 40\n[headers]\nAuthorization = \"Bearer {}\"\n\
         [warnings]\nenabled = false\n\
         [generation]\ndeterministic = true\nallow-x00 = false\nmax-examples = {EXAMPLES}\ndatabase = \"none\"\n",
        who.token
    );
    if let Some(known) = known {
        text += &pinned(known);
    }
    // It reads every book.
    text += "[[operations]]\ninclude-operation-id = \"checkBooks\"\ngeneration.max-examples = 5\n";
    let names = MAY_BE_REFUSED.map(|name| format!("\"{name}\"")).join(", ");
    let statuses = r#"["2xx", "401", "403", "404", "409", "422", "429"]"#;
    text += &format!("[[operations]]\ninclude-operation-id = [{names}]\n");
    text += &format!("checks.positive_data_acceptance.expected-statuses = {statuses}\n");
    text
}

/// Asks for what is there.
fn pinned(Known { product, category, purchase }: &Known) -> String {
    let mut text = String::new();
    let of = [("products", product), ("categories", category), ("orders", purchase), ("payments", purchase)];
    for (things, id) in of.into_iter().chain([("purchases", purchase), ("sagas", purchase)]) {
        text += &format!(
            "[[operations]]\ninclude-path-regex = \"^/(api/v1|admin)/{things}/[{{]id\"\nparameters = {{ id = {id} }}\n"
        );
    }
    text
}

async fn run(who: &Person, look: Look, known: Option<&Known>) {
    // Links lead to ids of their own.
    let phases = if known.is_some() { "examples,coverage,fuzzing" } else { "stateful" };
    let settings = settings(who, known);
    let Look { document, without, selected } = look;
    let run = tokio::task::spawn_blocking(move || {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("schemathesis.toml");
        std::fs::write(&file, settings).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis/install");
        let installed = Command::new(script).output().unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let program = String::from_utf8(installed.stdout).unwrap();
        let mut command = Command::new(program.trim());
        command.arg("--config-file").arg(&file).args(["run", &document, "--checks", "all"]);
        command.args(["--phases", phases, "--exclude-path-regex", without]);
        command.current_dir(folder.path()).output().unwrap()
    });
    let output = run.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // It did look at them.
    assert!(text.contains(selected), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_customer_sends_is_answered_as_the_document_says() {
    let town = Town::open().await;
    let mary = town.customer("mary").await;
    let known = known(&town, &mary).await;
    run(&mary, shop(&town), Some(&known)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_administrator_sends_is_answered_as_the_document_says() {
    let town = Town::open().await;
    let known = known(&town, &town.admin).await;
    run(&town.admin, shop(&town), Some(&known)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_made_can_be_followed_and_is_not_there_when_it_was_removed() {
    let town = Town::open().await;
    run(&town.admin, shop(&town), None).await;
}

fn shop(town: &Town) -> Look {
    let document = format!("{}/openapi.json", town.home().public());
    Look { document, without: LEFT_OUT, selected: " 25 selected / 28 total" }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_operators_are_sent_is_answered_as_their_document_says() {
    let town = Town::open().await;
    let known = known(&town, &town.admin).await;
    let document = |home: String| format!("{home}/openapi.json");
    let sagas = Look {
        document: document(town.home().admin()),
        without: "/events$|^/admin/accounts$",
        selected: " 22 selected / 25 total",
    };
    run(&town.admin, sagas, Some(&known)).await;
    let accounts = Look {
        document: document(town.home().accounts_admin()),
        without: "^/admin/[^a]",
        selected: " 2 selected / 25 total",
    };
    run(&town.admin, accounts, Some(&known)).await;
}

async fn known(town: &Town, buyer: &Person) -> Known {
    let category = town.category().await;
    let product = created(&town.admin.post("/api/v1/products", &product(category, 10, 10)).await);
    let purchase = buyer.buy(&[(product, 1)]).await;
    buyer.ended(purchase).await;
    Known { product, category, purchase }
}
