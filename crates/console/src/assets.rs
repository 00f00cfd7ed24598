//! The files that browsers are given, from the binary. A file's address carries the hash of its content, so a browser asks
//! once for each and never shows an old one.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use crate::page::Refusal;

const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Name, type, content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("app.css", CSS, include_bytes!("../assets/app.css")),
    ("app.js", JS, include_bytes!("../assets/app.js")),
    ("charts.js", JS, include_bytes!("../assets/charts.js")),
    ("htmx.js", JS, include_bytes!("../assets/htmx.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
    ("sse.js", JS, include_bytes!("../assets/sse.js")),
    ("uplot.css", CSS, include_bytes!("../assets/uplot.css")),
    ("uplot.js", JS, include_bytes!("../assets/uplot.js")),
];

/// The first 16 hexadecimal digits of each file's hash, in their order: of constants, so computed once.
static HASHES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let hash = |(_, _, bytes): &(&str, &str, &[u8])| {
        blake3::hash(bytes).as_bytes()[..8].iter().fold(String::new(), |mut text, byte| {
            _ = write!(text, "{byte:02x}");
            text
        })
    };
    FILES.iter().map(hash).collect()
});

/// The part of a file's address after the base: `assets/<hash>/<name>`.
pub(crate) fn address(name: &str) -> String {
    let at = FILES.iter().position(|(file, ..)| *file == name);
    let hash = at.and_then(|at| HASHES.get(at)).map_or("0", String::as_str);
    format!("assets/{hash}/{name}")
}

/// `assets/{hash}/{name}`.
pub(crate) async fn serve(Path((hash, name)): Path<(String, String)>, headers: HeaderMap) -> Result<Response, Refusal> {
    let Some(at) = FILES.iter().position(|(file, ..)| *file == name) else { return Err(Refusal::missing("file")) };
    let ((_, kind, bytes), current) = (FILES[at], &HASHES[at]);
    // A page of an older build may ask for its own: it gets ours, and nothing remembers it under that address.
    let cache = if hash == *current { "public, max-age=31536000, immutable" } else { "no-cache" };
    let tag = format!("\"{current}\"");
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let same = [(ETAG, tag.clone()), (CACHE_CONTROL, cache.to_owned())];
    Ok(match known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        true => (StatusCode::NOT_MODIFIED, same).into_response(),
        false => (same, [(CONTENT_TYPE, kind)], bytes).into_response(),
    })
}
