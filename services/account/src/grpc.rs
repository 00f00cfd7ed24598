//! `auth.AuthService` on the internal listener.

use chassis::auth::AuthError;
use contracts::auth::auth_service_server::{AuthService, AuthServiceServer};
use contracts::auth::{AuthRequest, AuthResponse};
use tonic::{Request, Response, Status};

use crate::app::Accounts;

/// The service, to be mounted.
pub fn service(accounts: Accounts) -> AuthServiceServer<impl AuthService> {
    AuthServiceServer::new(Auth(accounts))
}

struct Auth(Accounts);

#[tonic::async_trait]
impl AuthService for Auth {
    /// G19: an expired token is an answer, not an error.
    async fn auth(&self, request: Request<AuthRequest>) -> Result<Response<AuthResponse>, Status> {
        match self.0.authenticate(&request.into_inner().access_token) {
            Ok(identity) => Ok(Response::new(AuthResponse { customer_id: identity.customer_id, expired: false })),
            Err(AuthError::Expired) => Ok(Response::new(AuthResponse { customer_id: 0, expired: true })),
            Err(AuthError::Invalid) => Err(Status::unauthenticated("the access token is not valid")),
        }
    }
}
