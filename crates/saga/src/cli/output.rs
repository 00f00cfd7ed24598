//! Where words go: data to standard output, messages to standard error, a status line only to a terminal.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

/// How this run talks.
#[derive(Clone, Debug)]
pub struct Output {
    /// Data as JSON.
    pub json: bool,
    live: bool,
}

impl Output {
    /// As asked for.
    pub fn new(json: bool) -> Self {
        Self { json, live: std::io::stderr().is_terminal() }
    }

    /// Data, one line. A reader that has gone away is no error.
    pub fn line(&self, text: &str) {
        drop(writeln!(std::io::stdout().lock(), "{text}"));
    }

    /// Data as it is.
    pub fn text(&self, text: &str) {
        drop(std::io::stdout().lock().write_all(text.as_bytes()));
    }

    /// Data as JSON, for programs in one line, for people in many.
    pub fn value(&self, value: &Value) {
        let text = if std::io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
        self.line(&text);
    }

    /// A message.
    pub fn note(&self, text: &str) {
        drop(writeln!(std::io::stderr().lock(), "{text}"));
    }

    /// Progress: replaces the line before on a terminal, is a line of its own elsewhere.
    pub fn status(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        drop(if self.live { write!(stderr, "\r\x1b[2K{text}") } else { writeln!(stderr, "{text}") });
        drop(stderr.flush());
    }

    /// Ends the status line.
    pub fn clear_status(&self) {
        if self.live {
            drop(write!(std::io::stderr().lock(), "\r\x1b[2K"));
        }
    }

    /// Rows as an aligned table, with a heading.
    pub fn table(&self, heading: &[&str], rows: &[Vec<String>]) {
        let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (cell, &width) in cells.zip(&widths) {
                let pad = width.saturating_sub(cell.chars().count());
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', pad + 2));
            }
            text.trim_end().to_owned()
        };
        self.line(&line(&mut heading.iter().copied()));
        for row in rows {
            self.line(&line(&mut row.iter().map(String::as_str)));
        }
    }
}
