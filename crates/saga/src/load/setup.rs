//! Before the first post: accounts, a category, products. All through the public API, as anybody would.

use std::cell::RefCell;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use super::client::is_busy;
use super::mix::Kind;
use crate::args::LoadArgs;
use crate::cli::output::Output;
use crate::remote::{Admin, Connection, Endpoint, RunFile};

/// Accounts when nobody says how many: each needs a password hash, which is slow by design.
const MOST_USERS: u32 = 32;
/// More than any run buys.
const PLENTY: u64 = 1_000_000_000;
/// How often a busy answer is waited for.
const PATIENCE: u32 = 60;

/// Who buys, and what.
pub(crate) struct Market {
    pub(crate) users: Vec<Account>,
    ok: Vec<Bytes>,
    stock: Bytes,
    declined: Bytes,
}

impl Market {
    /// A purchase's body: made once, sent often.
    pub(crate) fn body(&self, kind: Kind, random: u64) -> Bytes {
        match kind {
            Kind::Ok => self.ok[usize::try_from(random >> 32).unwrap_or(0) % self.ok.len()].clone(),
            Kind::Stock => self.stock.clone(),
            Kind::Declined => self.declined.clone(),
        }
    }
}

/// An account that is logged in.
pub(crate) struct Account(RefCell<Tokens>);

struct Tokens {
    bearer: HeaderValue,
    refresh: String,
}

impl Account {
    fn of(answer: &Value) -> anyhow::Result<Self> {
        Ok(Self(RefCell::new(Tokens::of(answer)?)))
    }

    pub(crate) fn bearer(&self) -> HeaderValue {
        self.0.borrow().bearer.clone()
    }

    /// Spends the refresh token, unless somebody else has done so since `used` was current.
    pub(crate) async fn renew(&self, connection: &mut Connection, used: &HeaderValue) -> anyhow::Result<()> {
        let refresh = {
            let mut tokens = self.0.borrow_mut();
            if tokens.bearer != *used {
                return Ok(());
            }
            // Taken: a second one who comes meanwhile finds nothing to spend.
            std::mem::take(&mut tokens.refresh)
        };
        if refresh.is_empty() {
            sleep(Duration::from_millis(100)).await;
            return Ok(());
        }
        let answer = post(connection, "/api/v1/account/auth/refresh", None, &json!({ "refresh_token": refresh })).await;
        match answer.and_then(|answer| Tokens::of(&answer)) {
            Ok(tokens) => *self.0.borrow_mut() = tokens,
            Err(error) => {
                self.0.borrow_mut().refresh = refresh;
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Tokens {
    fn of(answer: &Value) -> anyhow::Result<Self> {
        let text = |name: &str| answer[name].as_str().with_context(|| format!("the answer has no {name}"));
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", text("access_token")?))?;
        bearer.set_sensitive(true);
        Ok(Self { bearer, refresh: text("refresh_token")?.to_owned() })
    }
}

/// Opens the market.
pub(crate) async fn open(
    args: &LoadArgs,
    endpoint: &Endpoint,
    local: Option<&RunFile>,
    output: &Output,
) -> anyhow::Result<Market> {
    let mut connection = Connection::new(endpoint);
    let run = format!("{:x}", std::process::id());
    let run = format!("{run}-{}", unique()?);
    let mut users = Vec::new();
    for number in 0..args.users.unwrap_or(args.clients.min(MOST_USERS)) {
        output.status(&format!("registering account {} …", number + 1));
        users.push(register(&mut connection, &run, &format!("buyer-{number}")).await?);
    }
    output.status("making products …");
    let admin = administrator(args, &mut connection, local, &run, &users).await?;
    let admin = Some(&admin);
    let category = json!({ "name": format!("Load {run}"), "description": "made by saga load" });
    let category = id_of(&post(&mut connection, "/api/v1/categories", admin, &category).await.map_err(explain)?)?;
    let declined: i64 = args.declined_digits.parse().context("--declined-digits")?;
    let price = price_that_is_not(&args.declined_digits, args.lines);
    let products = args.products.max(args.lines);
    let mut ids = Vec::new();
    for number in 0..products {
        let product = product(category, &format!("Thing {number}"), price, PLENTY);
        ids.push(id_of(&post(&mut connection, "/api/v1/products", admin, &product).await?)?);
    }
    let rare = product(category, "Sold out", price, 0);
    let rare = id_of(&post(&mut connection, "/api/v1/products", admin, &rare).await?)?;
    let dear = product(category, "Declined", declined, PLENTY);
    let dear = id_of(&post(&mut connection, "/api/v1/products", admin, &dear).await?)?;
    output.clear_status();
    let lines = args.lines as usize;
    let cart = |ids: &[u64]| {
        let items: Vec<Value> = ids.iter().map(|id| json!({ "product_id": id, "quantity": 1 })).collect();
        Bytes::from(json!({ "order_items": items, "payment": { "currency_code": args.currency } }).to_string())
    };
    let ok = (0..ids.len())
        .map(|first| cart(&(0..lines).map(|line| ids[(first + line) % ids.len()]).collect::<Vec<_>>()))
        .collect();
    Ok(Market { users, ok, stock: cart(&[rare]), declined: cart(&[dear]) })
}

/// A price that, times the number of lines, does not end in the digits that are declined.
fn price_that_is_not(digits: &str, lines: u32) -> i64 {
    (1_000..2_000).find(|price| !(price * i64::from(lines)).to_string().ends_with(digits)).unwrap_or(1_000)
}

fn product(category: u64, name: &str, price: i64, inventory: u64) -> Value {
    json!({
        "category_id": category, "name": name, "brand_name": "Load", "description": "made by saga load",
        "price": price, "inventory": inventory,
    })
}

/// Whoever may make products: who was named, else the token in the data folder, else the first account of an empty shop.
async fn administrator(
    args: &LoadArgs,
    connection: &mut Connection,
    local: Option<&RunFile>,
    run: &str,
    users: &[Account],
) -> anyhow::Result<HeaderValue> {
    if let (Some(email), Some(file)) = (&args.admin_email, &args.admin_password_file) {
        let password = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let login = json!({ "email": email, "password": password.trim_end_matches(['\r', '\n']) });
        let answer = post(connection, "/api/v1/account/auth/login", None, &login).await?;
        return Ok(Tokens::of(&answer)?.bearer);
    }
    if let Some(local) = local {
        let admin = Admin::new(&local.admin, &local.token)?;
        let (email, password) = (email_of(run, "admin"), unique()?);
        let account = json!({ "email": email, "password": password, "role": "ADMIN", "reason": "a load run" });
        admin.post("/admin/accounts", &account).await.context("making an administrator")?;
        let login = json!({ "email": email, "password": password });
        let answer = post(connection, "/api/v1/account/auth/login", None, &login).await?;
        return Ok(Tokens::of(&answer)?.bearer);
    }
    users.first().map(Account::bearer).context("there are no accounts")
}

fn explain(error: anyhow::Error) -> anyhow::Error {
    error.context(
        "an administrator is needed to make products: give --data of the running shop, or --admin-email and --admin-password-file",
    )
}

fn email_of(run: &str, name: &str) -> String {
    format!("load-{run}-{name}@example.com")
}

async fn register(connection: &mut Connection, run: &str, name: &str) -> anyhow::Result<Account> {
    let account = json!({
        "email": email_of(run, name), "password": unique()?, "first_name": "Load", "last_name": name,
        "address": "1 Load Lane", "phone_number": "5550100",
    });
    Account::of(&post(connection, "/api/v1/account/auth/register", None, &account).await.context("registering")?)
}

/// Names that no other run has, and passwords that nobody guesses.
fn unique() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn id_of(answer: &Value) -> anyhow::Result<u64> {
    answer["id"].as_u64().context("the answer has no id")
}

/// Posts; a busy shop is waited for.
async fn post(
    connection: &mut Connection,
    path: &str,
    bearer: Option<&HeaderValue>,
    body: &Value,
) -> anyhow::Result<Value> {
    for _ in 0..PATIENCE {
        let answer = connection.send(Method::POST, path, bearer, Bytes::from(body.to_string())).await?;
        if !is_busy(&answer) {
            if answer.status == StatusCode::NOT_FOUND {
                bail!("{path} is not there: is this a shop?");
            }
            return answer.json().with_context(|| format!("POST {path}"));
        }
        sleep(Duration::from_secs(answer.retry_after().unwrap_or(1).clamp(1, 10))).await;
    }
    bail!("POST {path}: the shop stays busy")
}
