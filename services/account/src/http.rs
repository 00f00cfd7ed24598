//! The account service's routes, below `/api/v1`, and the public keys.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use chassis::auth::Identity;
use chassis::json::Valid;
use chassis::problem::Problem;
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{Accounts, Registration, TokenPair};
use crate::domain::{Delivery, Personal};

/// Routes below `/api/v1`.
pub fn router(accounts: Accounts) -> Router {
    api().with_state(accounts).into()
}

/// `/.well-known/jwks.json`, at the root.
pub fn well_known(accounts: Accounts) -> Router {
    root().with_state(accounts).into()
}

/// What is to be said about the routes below `/api/v1`, and about those at the root.
pub fn documents() -> (OpenApi, OpenApi) {
    (api().into_openapi(), root().into_openapi())
}

fn api() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(personal, set_personal))
        .routes(routes!(delivery, set_delivery))
}

fn root() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new().routes(routes!(jwks))
}

/// Who wants to be a customer.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Registration, example = json!({
    "password": "correct horse battery",
    "email": "mary@example.com",
    "first_name": "Mary",
    "last_name": "Stone",
    "address": "12 Harbour Road, Da Nang",
    "phone_number": "+84 90 000 0000",
}))]
struct RegisterBody {
    #[garde(length(chars, min = 8, max = 128))]
    #[schema(min_length = 8, max_length = 128, format = Password)]
    password: String,
    /// Whatever its capitals, one address is one account.
    #[garde(email, length(chars, max = 254))]
    #[schema(max_length = 254, format = Email)]
    email: String,
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(min_length = 1, max_length = 100)]
    first_name: String,
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(min_length = 1, max_length = 100)]
    last_name: String,
    #[garde(length(chars, min = 1, max = 500))]
    #[schema(min_length = 1, max_length = 500)]
    address: String,
    #[garde(length(chars, min = 1, max = 40))]
    #[schema(min_length = 1, max_length = 40)]
    phone_number: String,
}

/// A session.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "access_token": "eyJhbGciOiJFZERTQSIsImtpZCI6Ii4uLiJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl",
    "refresh_token": "kZ0rJm3s8Qm1mJ0c0V9hJb0n4m1lq1bq1YkYd8nE0aA",
}))]
struct Tokens {
    /// A JWT, to be sent as `Authorization: Bearer …`; valid for some minutes.
    access_token: String,
    /// Asks for the next pair, once.
    refresh_token: String,
}

impl From<TokenPair> for Tokens {
    fn from(TokenPair { access_token, refresh_token }: TokenPair) -> Self {
        Self { access_token, refresh_token }
    }
}

type Peer = Option<Extension<ConnectInfo<SocketAddr>>>;

fn address(peer: Peer) -> Option<std::net::IpAddr> {
    peer.map(|Extension(ConnectInfo(peer))| peer.ip())
}

/// Makes an account and logs in.
///
/// The first account of an empty installation becomes its administrator, unless that is switched off.
#[utoipa::path(
    post, path = "/account/auth/register", operation_id = "register", tag = "account",
    request_body = RegisterBody,
    responses((status = 201, description = "The account, and a session of it.", body = Tokens)),
    extensions(("x-problems" = json!(["conflict", "overloaded"]))),
)]
async fn register(
    State(accounts): State<Accounts>,
    peer: Peer,
    Valid(body): Valid<RegisterBody>,
) -> Result<Response, Problem> {
    let RegisterBody { password, email, first_name, last_name, address: street, phone_number } = body;
    let personal = Personal { first_name, last_name, email };
    let delivery = Delivery { address: street, phone_number };
    let pair = accounts.register(Registration { password, personal, delivery }, address(peer)).await?;
    Ok((StatusCode::CREATED, Json(Tokens::from(pair))).into_response())
}

/// Who has an account.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Login, example = json!({ "email": "mary@example.com", "password": "correct horse battery" }))]
struct LoginBody {
    #[garde(length(chars, min = 1, max = 254))]
    #[schema(min_length = 1, max_length = 254)]
    email: String,
    #[garde(length(chars, min = 1, max = 128))]
    #[schema(min_length = 1, max_length = 128, format = Password)]
    password: String,
}

/// Logs in.
#[utoipa::path(
    post, path = "/account/auth/login", operation_id = "login", tag = "account",
    request_body = LoginBody,
    responses((status = 200, description = "A new session.", body = Tokens)),
    extensions(("x-problems" = json!(["unauthenticated", "overloaded"]))),
)]
async fn login(
    State(accounts): State<Accounts>,
    peer: Peer,
    Valid(LoginBody { email, password }): Valid<LoginBody>,
) -> Result<Json<Tokens>, Problem> {
    Ok(Json(accounts.login(&email, password, address(peer)).await?.into()))
}

/// The unspent refresh token of a session.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Refresh, example = json!({ "refresh_token": "kZ0rJm3s8Qm1mJ0c0V9hJb0n4m1lq1bq1YkYd8nE0aA" }))]
struct RefreshBody {
    #[garde(length(chars, min = 1, max = 200))]
    #[schema(min_length = 1, max_length = 200)]
    refresh_token: String,
}

/// Spends a refresh token for the next pair.
///
/// A refresh token that was spent before ends its session: somebody may have a copy.
#[utoipa::path(
    post, path = "/account/auth/refresh", operation_id = "refresh", tag = "account",
    request_body = RefreshBody,
    responses((status = 200, description = "The same session's next pair.", body = Tokens)),
    extensions(("x-problems" = json!(["unauthenticated"]))),
)]
async fn refresh(State(accounts): State<Accounts>, Valid(body): Valid<RefreshBody>) -> Result<Json<Tokens>, Problem> {
    Ok(Json(accounts.refresh(&body.refresh_token).await?.into()))
}

/// Ends the session; access tokens that are out stay valid for their minutes.
#[utoipa::path(
    post, path = "/account/auth/logout", operation_id = "logout", tag = "account",
    responses((status = 204, description = "The session has ended.")),
    security(("bearer" = [])),
)]
async fn logout(State(accounts): State<Accounts>, identity: Identity) -> Result<StatusCode, Problem> {
    accounts.logout(identity).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A customer's name.
#[derive(Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Personal, example = json!({ "first_name": "Mary", "last_name": "Stone", "email": "mary@example.com" }))]
struct PersonalBody {
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(min_length = 1, max_length = 100)]
    first_name: String,
    #[garde(length(chars, max = 100))]
    #[schema(max_length = 100)]
    last_name: String,
    /// What the customer logs in with.
    #[garde(email, length(chars, max = 254))]
    #[schema(max_length = 254, format = Email)]
    email: String,
}

impl From<Personal> for PersonalBody {
    fn from(Personal { first_name, last_name, email }: Personal) -> Self {
        Self { first_name, last_name, email }
    }
}

/// The customer's name.
#[utoipa::path(
    get, path = "/account/customer/personal", operation_id = "getPersonal", tag = "account",
    responses((status = 200, description = "The customer's name.", body = PersonalBody)),
    security(("bearer" = [])),
    extensions(("x-problems" = json!(["not_found"]))),
)]
async fn personal(State(accounts): State<Accounts>, identity: Identity) -> Result<Json<PersonalBody>, Problem> {
    Ok(Json(accounts.personal(identity).await?.into()))
}

/// Changes the customer's name and address for logging in.
#[utoipa::path(
    put, path = "/account/customer/personal", operation_id = "setPersonal", tag = "account",
    request_body = PersonalBody,
    responses((status = 200, description = "As it is now.", body = PersonalBody)),
    security(("bearer" = [])),
    extensions(("x-problems" = json!(["not_found", "conflict"]))),
)]
async fn set_personal(
    State(accounts): State<Accounts>,
    identity: Identity,
    Valid(body): Valid<PersonalBody>,
) -> Result<Json<PersonalBody>, Problem> {
    let PersonalBody { first_name, last_name, email } = body;
    Ok(Json(accounts.set_personal(identity, Personal { first_name, last_name, email }).await?.into()))
}

/// Where things are sent.
#[derive(Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Delivery, example = json!({ "address": "12 Harbour Road, Da Nang", "phone_number": "+84 90 000 0000" }))]
struct DeliveryBody {
    #[garde(length(chars, min = 1, max = 500))]
    #[schema(min_length = 1, max_length = 500)]
    address: String,
    #[garde(length(chars, min = 1, max = 40))]
    #[schema(min_length = 1, max_length = 40)]
    phone_number: String,
}

impl From<Delivery> for DeliveryBody {
    fn from(Delivery { address, phone_number }: Delivery) -> Self {
        Self { address, phone_number }
    }
}

/// Where things are sent.
#[utoipa::path(
    get, path = "/account/customer/delivery", operation_id = "getDelivery", tag = "account",
    responses((status = 200, description = "Where things are sent.", body = DeliveryBody)),
    security(("bearer" = [])),
    extensions(("x-problems" = json!(["not_found"]))),
)]
async fn delivery(State(accounts): State<Accounts>, identity: Identity) -> Result<Json<DeliveryBody>, Problem> {
    Ok(Json(accounts.delivery(identity).await?.into()))
}

/// Changes where things are sent.
#[utoipa::path(
    put, path = "/account/customer/delivery", operation_id = "setDelivery", tag = "account",
    request_body = DeliveryBody,
    responses((status = 200, description = "As it is now.", body = DeliveryBody)),
    security(("bearer" = [])),
    extensions(("x-problems" = json!(["not_found"]))),
)]
async fn set_delivery(
    State(accounts): State<Accounts>,
    identity: Identity,
    Valid(DeliveryBody { address, phone_number }): Valid<DeliveryBody>,
) -> Result<Json<DeliveryBody>, Problem> {
    Ok(Json(accounts.set_delivery(identity, Delivery { address, phone_number }).await?.into()))
}

/// The keys that access tokens are verified with (RFC 7517, RFC 8037).
#[utoipa::path(
    get, path = "/.well-known/jwks.json", operation_id = "getKeys", tag = "account",
    responses((status = 200, description = "The keys in force; the first one signs.", body = KeySet)),
)]
async fn jwks(State(accounts): State<Accounts>) -> Response {
    Json(accounts.jwks().public()).into_response()
}

/// Public keys.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the library's own type does not say of itself")]
struct KeySet {
    keys: Vec<PublicKey>,
}

/// A public Ed25519 key.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the library's own type does not say of itself")]
struct PublicKey {
    #[schema(pattern = "^OKP$")]
    kty: String,
    #[schema(pattern = "^Ed25519$")]
    crv: String,
    /// The key, in base64url.
    x: String,
    kid: String,
    #[schema(pattern = "^EdDSA$")]
    alg: String,
    #[schema(rename = "use", pattern = "^sig$")]
    purpose: String,
}
