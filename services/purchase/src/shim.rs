//! Temporary.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub customer_id: u64,
    pub expires_at: u64,
}
impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Identity {
    type Rejection = chassis::problem::Problem;
    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts
            .extensions
            .get::<Self>()
            .copied()
            .ok_or_else(|| chassis::problem::Problem::new(chassis::problem::Code::Unauthenticated, "x"))
    }
}
