//! The admin listener: who may come in, and the routes that need all services at once.
//!
//! In comes who has the run file's token (whoever can read the data folder) or an access token with the operator or
//! admin role. Everything else is refused before it reaches a route.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use chassis::auth::{Role, Verifier};
use chassis::json::Valid;
use chassis::problem::{Code, Problem};
use garde::Validate;
use saga_runtime::wire::MAX_ID;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::check::rules::Wanted;
use crate::config::Config;

/// Makes accounts with rights.
#[async_trait]
pub(crate) trait Accounts: Send + Sync + 'static {
    /// Makes one, or gives the role to one that exists, whose password then stays.
    async fn create(&self, email: String, password: String, role: Role) -> Result<(), Problem>;
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
    /// One check at a time: it reads everything.
    pub(crate) checking: Arc<tokio::sync::Mutex<()>>,
}

/// What the caller may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rights(Role);

/// All admin routes behind the door.
pub(crate) fn router(orchestrator: Option<Router>, state: AdminState) -> Router {
    let mut own = OpenApiRouter::new();
    if orchestrator.is_some() {
        own = own.merge(books());
    }
    if state.accounts.is_some() {
        own = own.merge(people());
    }
    let own: Router = own.with_state(state.clone()).into();
    orchestrator.unwrap_or_default().merge(own).layer(from_fn_with_state(state, door))
}

/// What is to be said about the routes of this file, wherever they are.
pub(super) fn document() -> OpenApi {
    books().merge(people()).into_openapi()
}

fn books() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(check))
}

fn people() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(create_account))
}

async fn door(State(state): State<AdminState>, mut request: Request, next: Next) -> Response {
    match who(&state, &request) {
        Ok((name, role)) => {
            request.extensions_mut().insert(orchestrator::http::Operator(name));
            request.extensions_mut().insert(Rights(role));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn who(state: &AdminState, request: &Request) -> Result<(String, Role), Problem> {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map_or("", |(_, token)| token.trim());
    // Hashes are compared in constant time.
    if blake3::hash(token.as_bytes()) == state.token {
        return Ok(("local".to_owned(), Role::Admin));
    }
    let identity = state.verifier.verify(token).map_err(Problem::from)?;
    match identity.role {
        Role::Operator | Role::Admin => Ok((format!("account {}", identity.customer_id), identity.role)),
        Role::Customer => Err(Problem::new(Code::Forbidden, "this needs the operator or the admin role")),
    }
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
    security(("bearer" = ["operator"])),
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
#[schema(as = NewAccount, example = json!({ "email": "oscar@example.com", "password": "a long password", "role": "OPERATOR" }))]
struct AccountBody {
    #[garde(email, length(chars, max = 254))]
    #[schema(max_length = 254, format = Email)]
    email: String,
    #[garde(length(chars, min = 8, max = 128))]
    #[schema(min_length = 8, max_length = 128, format = Password)]
    password: String,
    /// `OPERATOR` or `ADMIN`.
    #[garde(custom(lawful_role))]
    #[schema(pattern = "^(OPERATOR|ADMIN)$")]
    role: String,
}

/// Who has which role now.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
struct AccountView {
    email: String,
    role: String,
}

fn lawful_role(role: &str, (): &()) -> garde::Result {
    role_of(role).map(|_| ()).ok_or_else(|| garde::Error::new("must be OPERATOR or ADMIN"))
}

fn role_of(text: &str) -> Option<Role> {
    match text {
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
    Extension(Rights(rights)): Extension<Rights>,
    Valid(body): Valid<AccountBody>,
) -> Result<Response, Problem> {
    if rights != Role::Admin {
        return Err(Problem::new(Code::Forbidden, "this needs the admin role"));
    }
    let role = role_of(&body.role).unwrap_or(Role::Operator);
    let view = AccountView { email: body.email.clone(), role: body.role.clone() };
    let Some(accounts) = &state.accounts else {
        return Err(Problem::new(Code::NotFound, "accounts are made where the account service runs"));
    };
    accounts.create(body.email, body.password, role).await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}
