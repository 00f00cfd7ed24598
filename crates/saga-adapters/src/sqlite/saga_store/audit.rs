//! Everything in the file, one saga after the other: what `saga check` replays.

use rusqlite::Connection;
use saga_core::{Event, Name, SagaKey};
use saga_runtime::store::SagaRow;

use super::super::SqlError;

/// A saga as it stands in the file.
#[derive(Debug)]
pub struct Audited {
    /// Its name.
    pub key: SagaKey,
    /// Its row; `None`: there is a history without one.
    pub row: Option<SagaRow>,
    /// Its history, or why it cannot be read; empty: there is a row without one.
    pub history: Result<Vec<Vec<Event>>, String>,
}

/// Hands every saga to `each`, in the order of ids. Memory is one saga's, however many there are.
///
/// # Errors
/// When the file cannot be read.
pub fn audit(conn: &Connection, each: &mut dyn FnMut(Audited)) -> Result<(), SqlError> {
    let mut rows = conn.prepare(&format!("{} order by id, definition", super::COLUMNS))?;
    let mut rows = rows.query_and_then([], super::row)?;
    let mut entries =
        conn.prepare("select saga_id, definition, version, events from history order by saga_id, definition, version")?;
    let mut entries = entries.query_and_then([], |row| {
        let key = SagaKey { id: row.get(0)?, definition: Name::new(row.get::<_, String>(1)?) };
        Ok::<_, SqlError>((key, row.get::<_, usize>(2)?, row.get::<_, String>(3)?))
    })?;
    let mut next_row = rows.next().transpose()?;
    let mut next_entry = entries.next().transpose()?;
    loop {
        let of_row = next_row.as_ref().map(|row| &row.key);
        let of_entry = next_entry.as_ref().map(|(key, ..)| key);
        let Some(key) = of_row.into_iter().chain(of_entry).min_by_key(|k| (k.id, k.definition.clone())).cloned() else {
            return Ok(());
        };
        let row = match next_row.take_if(|row| row.key == key) {
            Some(row) => {
                next_row = rows.next().transpose()?;
                Some(row)
            }
            None => None,
        };
        let mut history = Ok(Vec::new());
        while let Some((_, version, events)) = next_entry.take_if(|(of, ..)| *of == key) {
            history = history.and_then(|mut known: Vec<Vec<Event>>| {
                known.push(super::parse(version, &events, known.len())?);
                Ok(known)
            });
            next_entry = entries.next().transpose()?;
        }
        each(Audited { key, row, history });
    }
}
