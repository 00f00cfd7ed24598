//! The account service's routes, below `/api/v1`, and the public keys.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use chassis::auth::Identity;
use chassis::json::Valid;
use chassis::problem::Problem;
use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::app::{Accounts, Registration, TokenPair};
use crate::domain::{Delivery, Personal};

/// Routes below `/api/v1`.
pub fn router(accounts: Accounts) -> Router {
    Router::new()
        .route("/account/auth/register", post(register))
        .route("/account/auth/login", post(login))
        .route("/account/auth/refresh", post(refresh))
        .route("/account/auth/logout", post(logout))
        .route("/account/customer/personal", get(personal).put(set_personal))
        .route("/account/customer/delivery", get(delivery).put(set_delivery))
        .with_state(accounts)
}

/// `/.well-known/jwks.json`, at the root.
pub fn well_known(accounts: Accounts) -> Router {
    Router::new().route("/.well-known/jwks.json", get(jwks)).with_state(accounts)
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct RegisterBody {
    #[garde(length(chars, min = 8, max = 128))]
    password: String,
    #[garde(email, length(max = 254))]
    email: String,
    #[garde(length(chars, min = 1, max = 100))]
    first_name: String,
    #[garde(length(chars, min = 1, max = 100))]
    last_name: String,
    #[garde(length(chars, min = 1, max = 500))]
    address: String,
    #[garde(length(chars, min = 1, max = 40))]
    phone_number: String,
}

#[derive(Serialize)]
struct Tokens {
    access_token: String,
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

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    #[garde(length(min = 1, max = 254))]
    email: String,
    #[garde(length(chars, min = 1, max = 128))]
    password: String,
}

async fn login(
    State(accounts): State<Accounts>,
    peer: Peer,
    Valid(LoginBody { email, password }): Valid<LoginBody>,
) -> Result<Json<Tokens>, Problem> {
    Ok(Json(accounts.login(&email, password, address(peer)).await?.into()))
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    #[garde(length(min = 1, max = 200))]
    refresh_token: String,
}

async fn refresh(State(accounts): State<Accounts>, Valid(body): Valid<RefreshBody>) -> Result<Json<Tokens>, Problem> {
    Ok(Json(accounts.refresh(&body.refresh_token).await?.into()))
}

async fn logout(State(accounts): State<Accounts>, identity: Identity) -> Result<StatusCode, Problem> {
    accounts.logout(identity).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct PersonalBody {
    #[garde(length(chars, min = 1, max = 100))]
    first_name: String,
    #[garde(length(chars, max = 100))]
    last_name: String,
    #[garde(email, length(max = 254))]
    email: String,
}

impl From<Personal> for PersonalBody {
    fn from(Personal { first_name, last_name, email }: Personal) -> Self {
        Self { first_name, last_name, email }
    }
}

async fn personal(State(accounts): State<Accounts>, identity: Identity) -> Result<Json<PersonalBody>, Problem> {
    Ok(Json(accounts.personal(identity).await?.into()))
}

async fn set_personal(
    State(accounts): State<Accounts>,
    identity: Identity,
    Valid(body): Valid<PersonalBody>,
) -> Result<Json<PersonalBody>, Problem> {
    let PersonalBody { first_name, last_name, email } = body;
    Ok(Json(accounts.set_personal(identity, Personal { first_name, last_name, email }).await?.into()))
}

#[derive(Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct DeliveryBody {
    #[garde(length(chars, min = 1, max = 500))]
    address: String,
    #[garde(length(chars, min = 1, max = 40))]
    phone_number: String,
}

impl From<Delivery> for DeliveryBody {
    fn from(Delivery { address, phone_number }: Delivery) -> Self {
        Self { address, phone_number }
    }
}

async fn delivery(State(accounts): State<Accounts>, identity: Identity) -> Result<Json<DeliveryBody>, Problem> {
    Ok(Json(accounts.delivery(identity).await?.into()))
}

async fn set_delivery(
    State(accounts): State<Accounts>,
    identity: Identity,
    Valid(DeliveryBody { address, phone_number }): Valid<DeliveryBody>,
) -> Result<Json<DeliveryBody>, Problem> {
    Ok(Json(accounts.set_delivery(identity, Delivery { address, phone_number }).await?.into()))
}

async fn jwks(State(accounts): State<Accounts>) -> Response {
    Json(accounts.jwks().public()).into_response()
}
