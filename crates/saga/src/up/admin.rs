//! The admin listener: who may come in, and the routes that need all services at once.
//!
//! In comes who has the run file's token (whoever can read the data folder) or an access token with the role that the
//! request [needs](needed): a viewer looks, an operator also steers, an administrator also makes accounts. Everything else
//! is refused before it reaches a route. No header says on whose behalf somebody comes: a token does.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use chassis::audit::{Ended, audited, says_why};
use chassis::auth::{Role, Verifier};
use chassis::json::{Valid, ValidQuery};
use chassis::paging::{Page, decode_token};
use chassis::problem::{Code, Problem};
use chassis::time::rfc3339;
use garde::Validate;
use orchestrator::http::Operator;
use saga_runtime::Clock;
use saga_runtime::audit::{AuditEntry, AuditFilter, AuditLine, AuditLog};
use saga_runtime::wire::MAX_ID;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::OpenApi;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::failures::{self, Board, Elsewhere};
use crate::check::rules::Wanted;
use crate::config::Config;

/// Makes accounts with rights.
#[async_trait]
pub(crate) trait Accounts: Send + Sync + 'static {
    /// Makes one, or gives the role to one that exists, whose password then stays; nothing, if it has the role.
    async fn create(&self, email: String, password: String, role: Role) -> Result<Ended<()>, Problem>;
}

/// What the routes here need.
#[derive(Clone)]
pub(crate) struct AdminState {
    /// Of the token in the run file.
    pub(crate) token: blake3::Hash,
    /// Of access tokens.
    pub(crate) verifier: Verifier,
    /// Where the books are.
    pub(crate) config: Arc<Config>,
    /// Who makes accounts, if that is this process.
    pub(crate) accounts: Option<Arc<dyn Accounts>>,
    /// Who did what; in the orchestrator's database, or where it is not here in the account service's.
    pub(crate) audit: Option<Arc<dyn AuditLog>>,
    /// What time it is.
    pub(crate) clock: Arc<dyn Clock>,
    /// One check at a time: it reads everything.
    pub(crate) checking: Arc<tokio::sync::Mutex<()>>,
    /// What can go wrong on purpose in this process.
    pub(crate) board: Option<Board>,
    /// Other processes for whose failures this one speaks.
    pub(crate) elsewhere: Elsewhere,
}

/// All admin routes behind the door.
pub(crate) fn router(orchestrator: Option<Router>, state: AdminState) -> Router {
    let mut own = OpenApiRouter::new();
    if orchestrator.is_some() {
        own = own.merge(books());
    }
    if state.accounts.is_some() {
        own = own.merge(people());
    }
    if state.audit.is_some() {
        own = own.merge(lines());
    }
    let mut own: Router = own.with_state(state.clone()).into();
    if let Some(board) = &state.board {
        let desk = failures::Desk {
            board: board.clone(),
            elsewhere: state.elsewhere.clone(),
            audit: state.audit.clone(),
            clock: Arc::clone(&state.clock),
            ordering: Arc::default(),
        };
        own = own.merge(Router::from(failures::routes().with_state(desk)));
    }
    orchestrator.unwrap_or_default().merge(own).layer(from_fn_with_state(state, door))
}

/// What is to be said about the routes of this file, wherever they are.
pub(super) fn document() -> OpenApi {
    let mut document = books().merge(people()).merge(lines()).into_openapi();
    document.merge(failures::routes().into_openapi());
    document
}

fn books() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(check))
}

fn people() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(create_account))
}

fn lines() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(audit_lines))
}

/// The role that a request needs. The one place where that is decided.
fn needed(method: &Method, path: &str) -> Role {
    match path {
        "/admin/accounts" => Role::Admin,
        // It asks with a body, and changes nothing.
        "/admin/check" => Role::Viewer,
        _ if [Method::GET, Method::HEAD].contains(method) => Role::Viewer,
        _ => Role::Operator,
    }
}

async fn door(State(state): State<AdminState>, mut request: Request, next: Next) -> Response {
    match who(&state, &request) {
        Ok(name) => {
            request.extensions_mut().insert(Operator(name));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The token that somebody shows, or nothing.
pub(super) fn bearer(headers: &HeaderMap) -> &str {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.map_or("", |(_, token)| token.trim())
}

/// Who it is, if they may do it.
fn who(state: &AdminState, request: &Request) -> Result<String, Problem> {
    let token = bearer(request.headers());
    // Hashes are compared in constant time.
    if blake3::hash(token.as_bytes()) == state.token {
        return Ok("local".to_owned());
    }
    let identity = state.verifier.verify(token).map_err(Problem::from)?;
    let needed = needed(request.method(), request.uri().path());
    if identity.role < needed {
        return Err(Problem::new(Code::Forbidden, format!("this needs the role {}", needed.as_str())));
    }
    Ok(format!("account {}", identity.customer_id))
}

/// What else is to hold.
#[derive(Deserialize, Validate, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Check, example = json!({ "settled": true, "expect_completed": 5 }))]
struct CheckBody {
    /// Whether nothing may be on its way.
    #[garde(skip)]
    settled: bool,
    /// At least so many purchases completed.
    #[garde(range(max = MAX_ID))]
    #[schema(maximum = 9007199254740991_u64)]
    expect_completed: u64,
    /// At least so many were taken back.
    #[garde(range(max = MAX_ID))]
    #[schema(maximum = 9007199254740991_u64)]
    expect_compensated: u64,
}

/// Reads the books of all services and says what does not add up.
#[utoipa::path(
    post, path = "/admin/check", operation_id = "checkBooks", tag = "books",
    request_body = CheckBody,
    responses((status = 200, description = "What was found.", body = crate::check::report::Report)),
    security(("bearer" = ["viewer"])),
    extensions(("x-problems" = json!(["conflict"]))),
)]
async fn check(State(state): State<AdminState>, Valid(body): Valid<CheckBody>) -> Result<Response, Problem> {
    let Ok(_one) = state.checking.clone().try_lock_owned() else {
        return Err(Problem::new(Code::Conflict, "a check is running already"));
    };
    let CheckBody { settled, expect_completed, expect_compensated } = body;
    let wanted = Wanted { settled, completed: expect_completed, compensated: expect_compensated };
    let checked = tokio::task::spawn_blocking(move || crate::check::check(&state.config, wanted)).await;
    let failed = |detail: String| {
        tracing::error!(detail, "the check failed");
        Problem::new(Code::InternalError, "the books could not be read; the reason is in the log")
    };
    let report = checked.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(format!("{e:#}")))?;
    Ok(Json(report).into_response())
}

/// An account with rights. Where the address has an account, that one gets the role and keeps its password.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAccount, example = json!({ "email": "oscar@example.com", "password": "a long password", "role": "OPERATOR", "reason": "he has the night shift" }))]
pub(super) struct AccountBody {
    #[garde(email, length(chars, max = 254))]
    #[schema(max_length = 254, format = Email)]
    email: String,
    #[garde(length(chars, min = 8, max = 128))]
    #[schema(min_length = 8, max_length = 128, format = Password)]
    password: String,
    /// `VIEWER`, `OPERATOR` or `ADMIN`.
    #[garde(custom(lawful_role))]
    #[schema(pattern = "^(VIEWER|OPERATOR|ADMIN)$")]
    role: String,
    /// Why, for the audit log.
    #[garde(length(chars, min = 1, max = 500), custom(says_why))]
    #[schema(min_length = 1, max_length = 500, pattern = r"\S")]
    reason: String,
}

/// Who has which role now.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
struct AccountView {
    email: String,
    role: String,
}

fn lawful_role(role: &str, (): &()) -> garde::Result {
    role_of(role).map(|_| ()).ok_or_else(|| garde::Error::new("must be VIEWER, OPERATOR or ADMIN"))
}

fn role_of(text: &str) -> Option<Role> {
    match text {
        "VIEWER" => Some(Role::Viewer),
        "OPERATOR" => Some(Role::Operator),
        "ADMIN" => Some(Role::Admin),
        _ => None,
    }
}

/// Makes an account with rights.
#[utoipa::path(
    post, path = "/admin/accounts", operation_id = "createAccount", tag = "accounts",
    request_body = AccountBody,
    responses((status = 201, description = "The account has the role.", body = AccountView)),
    security(("bearer" = ["admin"])),
    extensions(("x-problems" = json!(["not_found", "overloaded"]))),
)]
async fn create_account(
    State(state): State<AdminState>,
    Extension(Operator(actor)): Extension<Operator>,
    Valid(body): Valid<AccountBody>,
) -> Result<Response, Problem> {
    let (Some(accounts), Some(log)) = (&state.accounts, &state.audit) else {
        return Err(Problem::new(Code::NotFound, "accounts are made where the account service runs"));
    };
    let AccountBody { email, password, role: word, reason } = body;
    let role = role_of(&word).unwrap_or(Role::Viewer);
    let order = super::accounts::order(actor, &email, &word, reason);
    let view = AccountView { email: email.clone(), role: word };
    audited(&**log, &*state.clock, order, accounts.create(email, password, role)).await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// By whom: `account 123`, `local`.
    #[garde(length(chars, max = 300))]
    #[param(max_length = 300, nullable = false)]
    actor: Option<String>,
    /// What: `saga.retry`, `sagas.bulk`, `dlq.redrive`, `account.create`, …
    #[garde(length(chars, max = 100))]
    #[param(max_length = 100, nullable = false)]
    action: Option<String>,
    /// To what: `purchase/123`, a topic, an address.
    #[garde(length(chars, max = 300))]
    #[param(max_length = 300, nullable = false)]
    target: Option<String>,
    /// How many; 50 when it is not given.
    #[garde(range(min = 1, max = 500))]
    #[param(minimum = 1, maximum = 500, nullable = false)]
    limit: Option<u32>,
    /// The page before told it as `next_page_token`; without one: the first page.
    #[garde(length(chars, max = 200))]
    #[param(max_length = 200, nullable = false)]
    page_token: Option<String>,
}

/// Who did what to what, why, and how it ended.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditLine)]
struct AuditView {
    id: u64,
    #[schema(format = DateTime)]
    at: String,
    actor: String,
    action: String,
    target: String,
    reason: String,
    /// `done`; `failed: <code>` of what may have been done in part; `begun` of what has not ended, or was cut off by a crash.
    outcome: String,
    #[schema(value_type = Object)]
    details: Value,
}

impl From<AuditLine> for AuditView {
    fn from(line: AuditLine) -> Self {
        let AuditLine { id, entry, outcome } = line;
        let AuditEntry { at, actor, action, target, reason, details } = entry;
        let details = serde_json::from_str(&details).unwrap_or_default();
        Self { id, at: rfc3339(at), actor, action, target, reason, outcome, details }
    }
}

/// The audit log, newest first: a line for every order that has changed something, or may have.
///
/// Where services run apart the accounts that are made are in the account service's own, at its admin address.
#[utoipa::path(
    get, path = "/admin/audit", operation_id = "listAuditLines", tag = "audit",
    params(AuditQuery),
    responses((status = 200, description = "A page.", body = Page<AuditView>)),
    security(("bearer" = ["viewer"])),
)]
async fn audit_lines(
    State(state): State<AdminState>,
    ValidQuery(query): ValidQuery<AuditQuery>,
) -> Result<Response, Problem> {
    let AuditQuery { actor, action, target, limit, page_token } = query;
    let Some(log) = &state.audit else {
        return Err(Problem::new(Code::NotFound, "the audit log is where the orchestrator runs"));
    };
    let limit = limit.unwrap_or(50);
    let before: Option<u64> = page_token.as_deref().map(decode_token).transpose()?;
    let lines = log.list(AuditFilter { actor, action, target, before, limit: limit + 1 }).await?;
    let page = Page::of(lines, limit, |line| line.id, AuditView::from);
    Ok(Json(page).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_asks_a_viewer_to_look_an_operator_to_steer_an_administrator_to_make_accounts() {
        for (method, path, role) in [
            (Method::GET, "/admin/sagas", Role::Viewer),
            (Method::HEAD, "/admin/sagas", Role::Viewer),
            (Method::GET, "/admin/audit", Role::Viewer),
            (Method::POST, "/admin/check", Role::Viewer),
            (Method::POST, "/admin/sagas/7/retry", Role::Operator),
            (Method::POST, "/admin/sagas/bulk", Role::Operator),
            (Method::DELETE, "/admin/whatever/comes/next", Role::Operator),
            (Method::POST, "/admin/check/", Role::Operator),
            (Method::POST, "/admin/accounts", Role::Admin),
            (Method::GET, "/admin/accounts", Role::Admin),
        ] {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
    }
}
