//! A statement with its values, and columns with their checks.

use std::borrow::Cow;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use super::error::PgError;

/// A value to be bound.
pub type Value<'q> = Box<dyn ToSql + Sync + Send + 'q>;

/// A statement with its values.
pub struct Query<'q> {
    pub(super) sql: Cow<'q, str>,
    pub(super) values: Vec<Value<'q>>,
    pub(super) lazy: bool,
}

impl<'q> Query<'q> {
    /// Without values yet. The text should be one of few: it is prepared once a session and kept.
    pub fn new(sql: impl Into<Cow<'q, str>>) -> Self {
        Self { sql: sql.into(), values: Vec::new(), lazy: false }
    }

    /// Binds the next `$n`.
    #[must_use]
    pub fn bind(mut self, value: impl ToSql + Sync + Send + 'q) -> Self {
        self.values.push(Box::new(value));
        self
    }

    /// Binds an id or a moment.
    #[must_use]
    pub fn big(self, number: u64) -> Self {
        self.bind(big(number))
    }

    /// Its commit need not wait for the disk, if the options allow that. Only on a transaction's last statements, or
    /// alone.
    #[must_use]
    pub fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }
}

/// Ids and moments fit a `bigint` by far; one that does not is no row's.
pub fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The same, many.
pub fn bigs(numbers: impl IntoIterator<Item = u64>) -> Vec<i64> {
    numbers.into_iter().map(big).collect()
}

/// Columns by place; what does not fit is a fault, not a panic.
pub trait Columns {
    /// Any type that the client knows.
    ///
    /// # Errors
    /// When the column is of another type, or null.
    fn col<'r, T: FromSql<'r>>(&'r self, at: usize) -> Result<T, PgError>;

    /// A `bigint` that is not negative.
    ///
    /// # Errors
    /// As above, and when it is negative.
    fn big(&self, at: usize) -> Result<u64, PgError> {
        self.col::<i64>(at)?.try_into().map_err(PgError::fault)
    }

    /// The same, or null.
    ///
    /// # Errors
    /// As above.
    fn opt_big(&self, at: usize) -> Result<Option<u64>, PgError> {
        self.col::<Option<i64>>(at)?.map(u64::try_from).transpose().map_err(PgError::fault)
    }

    /// An `integer` that is not negative.
    ///
    /// # Errors
    /// As above.
    fn small(&self, at: usize) -> Result<u32, PgError> {
        self.col::<i32>(at)?.try_into().map_err(PgError::fault)
    }

    /// A `bytea` of a length.
    ///
    /// # Errors
    /// As above, and when it has another length.
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], PgError> {
        self.col::<&[u8]>(at)?.try_into().map_err(|_| PgError::Fault(format!("column {at} has not {N} bytes")))
    }
}

impl Columns for Row {
    fn col<'r, T: FromSql<'r>>(&'r self, at: usize) -> Result<T, PgError> {
        Ok(self.try_get(at)?)
    }
}
