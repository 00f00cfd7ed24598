//! Pages: `{items, next_page_token}`, with tokens that clients hand back unread.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::{Code, Problem};

/// A page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Asks for the next one; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_page_token: Option<String>,
}

/// The query of a plain list.
#[derive(Clone, Debug, Default, Deserialize, garde::Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many items; 20 when it is not given.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100, nullable = false)]
    pub limit: Option<u32>,
    /// The page before told it as `next_page_token`; without one: the first page.
    #[garde(length(chars, max = 200))]
    #[param(max_length = 200, nullable = false)]
    pub page_token: Option<String>,
}

impl PageQuery {
    /// How many items.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(20)
    }

    /// Where the page before ended.
    ///
    /// # Errors
    /// A token that is none of ours.
    pub fn after<T: DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        self.page_token.as_deref().map(decode_token).transpose()
    }
}

impl<T> Page<T> {
    /// Makes a page of rows that were asked for with one more than `limit`.
    pub fn of<R, K: Serialize>(mut rows: Vec<R>, limit: u32, key: impl Fn(&R) -> K, view: impl Fn(R) -> T) -> Self {
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next_page_token = rows.last().filter(|_| more).map(|row| encode_token(&key(row)));
        Self { items: rows.into_iter().map(view).collect(), next_page_token }
    }
}

/// A token for the position after `key`.
pub fn encode_token<K: Serialize>(key: &K) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(key).unwrap_or_default())
}

/// The reverse of [`encode_token`]. A forged token can at worst name another position in one's own list.
///
/// # Errors
/// A `validation_error` at `#/page_token`.
pub fn decode_token<K: DeserializeOwned>(token: &str) -> Result<K, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes.and_then(|b| serde_json::from_slice(&b).ok()).ok_or_else(|| {
        let detail = "is not a token of this list; leave it out to start at the first page".to_owned();
        Problem::new(Code::ValidationError, "the request is not valid")
            .with_errors(vec![("#/page_token".to_owned(), detail)])
    })
}
