//! Where traces are looked at: an address with a place for a trace's id.

use serde::{Deserialize, Serialize};

/// Where the id goes.
const PLACE: &str = "{trace_id}";

/// `http://host:port/trace/{trace_id}`, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceUrl(String);

impl TraceUrl {
    /// The address, if there is one.
    pub fn get(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|text| !text.is_empty())
    }
}

impl TryFrom<String> for TraceUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(text));
        }
        let wrong = |why: &str| Err(format!("trace_url: {text:?} {why}, like http://127.0.0.1:16686/trace/{PLACE}"));
        if !text.contains(PLACE) {
            return wrong(&format!("must contain {PLACE}, where the trace's id goes"));
        }
        let filled = text.replace(PLACE, "0");
        let Ok(uri) = filled.parse::<hyper::Uri>() else { return wrong("is no address") };
        // It is written into pages: nothing that a browser would run, and no password.
        if !matches!(uri.scheme_str(), Some("http" | "https")) || filled.contains(['"', '\'', '<', '>']) {
            return wrong("must be an address with http:// or https://");
        }
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@') || authority.host().is_empty()) {
            return wrong("must name a host, and no user");
        }
        Ok(Self(text))
    }
}

impl From<TraceUrl> for String {
    fn from(url: TraceUrl) -> Self {
        url.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_with_a_place_for_the_id_is_taken() {
        for lawful in
            ["", "http://localhost:16686/trace/{trace_id}", "https://grafana.example/explore?traceID={trace_id}&x=1"]
        {
            assert!(TraceUrl::try_from(lawful.to_owned()).is_ok(), "{lawful}");
        }
        for (wrong, why) in [
            ("http://localhost:16686/trace/", "{trace_id}"),
            ("http://localhost:16686/trace/{traceid}", "{trace_id}"),
            ("javascript:alert({trace_id})", "http"),
            ("ftp://localhost/{trace_id}", "http"),
            ("/trace/{trace_id}", "http"),
            ("http:///trace/{trace_id}", "http"),
            ("http://mary:secret@localhost/{trace_id}", "no user"),
            ("http://local host/{trace_id}", "no address"),
        ] {
            let error = TraceUrl::try_from(wrong.to_owned()).map(|_| ()).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
