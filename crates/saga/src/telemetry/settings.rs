//! OpenTelemetry's variables, read as its specification says. A value that cannot be followed is an error; a variable that is not
//! one of those that are followed is [named](ignored), so that nobody believes in it.

use std::collections::BTreeMap;
use std::time::Duration;

use saga_runtime::trace::Sampler;

/// How requests travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    Http,
}

/// Where traces go, and which.
#[derive(Clone, PartialEq)]
pub struct Settings {
    /// `http://host:port` or `https://host:port`; over HTTP with the path.
    pub endpoint: String,
    /// A file of the authorities that a collector's certificate may come from, instead of those that the machine trusts.
    pub certificate: Option<String>,
    /// How.
    pub protocol: Protocol,
    /// Sent along with each request: may hold secrets.
    pub headers: Vec<(String, String)>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Which traces are kept.
    pub sampler: Sampler,
    /// What the process says of itself.
    pub resource: BTreeMap<String, String>,
    /// Spans that may wait.
    pub queue: usize,
    /// Spans in one request.
    pub batch: usize,
    /// How long a span waits for company, in ms.
    pub delay_ms: u64,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A few seconds of a busy shop that keeps every trace: more than the 2,048 of the specification, because a dropped span
/// leaves a hole in a trace.
const QUEUE: u64 = 20_480;

/// Variables that are followed; those in the middle for traces alone, too.
const FOLLOWED: [&str; 11] = [
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_EXPORTER_OTLP_",
    "OTEL_EXPORTER_OTLP_TRACES_",
];
/// What follows the last two of them.
const OF_EXPORTER: [&str; 5] = ["ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "CERTIFICATE"];
/// What we do anyway: who asks for it gets it.
const AS_IT_IS: [(&str, &str); 5] = [
    ("OTEL_METRICS_EXPORTER", "none"),
    ("OTEL_LOGS_EXPORTER", "none"),
    ("OTEL_PROPAGATORS", "tracecontext"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
];

/// Those of `names` that say something that is not done: of the standard and not followed, or misspelled.
pub(crate) fn ignored(names: &[String], variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let followed = |name: &str| {
        FOLLOWED.iter().any(|known| match known.strip_suffix('_') {
            Some(_) => name.strip_prefix(known).is_some_and(|rest| OF_EXPORTER.contains(&rest)),
            None => name == *known,
        })
    };
    let as_it_is = |name: &str| {
        let value = variable(name).unwrap_or_default();
        AS_IT_IS.iter().any(|(known, what)| name == *known && value.trim() == *what)
    };
    // Who switches all of it off asks for nothing.
    if variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Vec::new();
    }
    names.iter().filter(|name| !followed(name) && !as_it_is(name)).cloned().collect()
}

impl Settings {
    /// Reads them; `None`: nothing is traced. `service` is its name, unless they say another.
    ///
    /// # Errors
    /// The first variable with a value that cannot be followed, and what can.
    pub fn read(service: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let of_traces = |name: &str| {
            let own = variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
            own.or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        if variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match variable("OTEL_TRACES_EXPORTER").as_deref() {
            Some("otlp") => {}
            Some("none") => return Ok(None),
            None if of_traces("ENDPOINT").is_some() => {}
            None => return Ok(None),
            Some(other) => return Err(wrong("OTEL_TRACES_EXPORTER", other, "`otlp` or `none`")),
        }
        let protocol = match of_traces("PROTOCOL").as_deref() {
            Some("grpc") => Protocol::Grpc,
            None | Some("http/protobuf") => Protocol::Http,
            Some(other) => return Err(wrong("OTEL_EXPORTER_OTLP_PROTOCOL", other, "`grpc` or `http/protobuf`")),
        };
        let number = |name: &str, default: u64| match variable(name) {
            Some(text) => text.trim().parse().map_err(|_| wrong(name, &text, "a whole number")),
            None => Ok(default),
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE)?.max(1);
        let batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.clamp(1, queue);
        let timeout = match of_traces("TIMEOUT") {
            Some(text) => {
                text.trim().parse().map_err(|_| wrong("OTEL_EXPORTER_OTLP_TIMEOUT", &text, "milliseconds"))?
            }
            None => 10_000,
        };
        Ok(Some(Self {
            endpoint: endpoint(protocol, &variable)?,
            certificate: of_traces("CERTIFICATE").filter(|path| !path.is_empty()),
            protocol,
            headers: pairs("OTEL_EXPORTER_OTLP_HEADERS", &of_traces("HEADERS").unwrap_or_default())?,
            timeout: Duration::from_millis(timeout),
            sampler: sampler(&variable)?,
            resource: resource(service, &variable)?,
            queue: usize::try_from(queue).unwrap_or(usize::MAX >> 4),
            batch: usize::try_from(batch).unwrap_or(512),
            delay_ms: number("OTEL_BSP_SCHEDULE_DELAY", 5_000)?,
        }))
    }
}

fn endpoint(protocol: Protocol, variable: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let own = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let url = match (own, variable("OTEL_EXPORTER_OTLP_ENDPOINT"), protocol) {
        (Some(own), _, _) => own,
        (None, Some(base), Protocol::Grpc) => base,
        (None, Some(base), Protocol::Http) => format!("{}/v1/traces", base.trim_end_matches('/')),
        (None, None, Protocol::Grpc) => "http://localhost:4317".to_owned(),
        (None, None, Protocol::Http) => "http://localhost:4318/v1/traces".to_owned(),
    };
    match url.split_once("://") {
        Some(("http" | "https", rest)) if !rest.is_empty() && !rest.contains('@') => Ok(url),
        // It may hold a password, so it is not repeated.
        _ => Err("OTEL_EXPORTER_OTLP_ENDPOINT must be http://host:port or https://host:port, without a name and a \
                  password: what the collector wants to know goes into OTEL_EXPORTER_OTLP_HEADERS"
            .to_owned()),
    }
}

fn sampler(variable: &impl Fn(&str) -> Option<String>) -> Result<Sampler, String> {
    let name = variable("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_always_on".to_owned());
    let (parent_based, rule) = match name.strip_prefix("parentbased_") {
        Some(rule) => (true, rule),
        None => (false, name.as_str()),
    };
    let ratio = match rule {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => {
            let text = variable("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
            let ratio: Option<f64> = text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.ok_or_else(|| wrong("OTEL_TRACES_SAMPLER_ARG", &text, "a number from 0 to 1"))?
        }
        _ => {
            let known = "always_on, always_off, traceidratio, or one of these after parentbased_";
            return Err(wrong("OTEL_TRACES_SAMPLER", &name, known));
        }
    };
    Ok(Sampler { parent_based, ratio })
}

fn resource(name: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::from([
        ("service.name".to_owned(), name.to_owned()),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("telemetry.sdk.language".to_owned(), "rust".to_owned()),
    ]);
    let given = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    all.extend(pairs("OTEL_RESOURCE_ATTRIBUTES", &given)?);
    all.extend(variable("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name)));
    Ok(all)
}

/// `a=1,b=two%20words`
fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        Some((key.trim().to_owned(), decoded(value.trim())?)).filter(|(key, _)| !key.is_empty())
    };
    // A header may be a secret: what is wrong with it is said without it.
    parts.map(|part| pair(part).ok_or_else(|| format!("{name} must be like key=value,key=value"))).collect()
}

/// Without percent signs.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(rest.next())? * 16 + digit(rest.next())?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn wrong(name: &str, value: &str, wanted: &str) -> String {
    format!("{name} is {value:?}; it must be {wanted}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let all: BTreeMap<&str, &str> = variables.iter().copied().collect();
        Settings::read("saga-order", |name| all.get(name).map(|value| (*value).to_owned()))
    }

    const AT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn nothing_is_traced_unless_somebody_says_where_to() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("OTEL_SERVICE_NAME", "shop")]).unwrap(), None);
        assert_eq!(read(&[AT, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap(), None);
        assert_eq!(read(&[AT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap(), None);
        assert!(read(&[AT]).unwrap().is_some());
        assert!(read(&[("OTEL_TRACES_EXPORTER", "otlp")]).unwrap().is_some());
    }

    #[test]
    fn endpoints_follow_the_protocol() {
        let endpoint = |variables: &[(&str, &str)]| read(variables).unwrap().unwrap().endpoint;
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:1/here");
        assert_eq!(endpoint(&[AT]), "http://collector:4318/v1/traces");
        assert_eq!(endpoint(&[AT, grpc]), "http://collector:4318/");
        assert_eq!(endpoint(&[AT, own]), "http://other:1/here");
        assert_eq!(endpoint(&[("OTEL_TRACES_EXPORTER", "otlp"), grpc]), "http://localhost:4317");
        let far = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317");
        assert_eq!(endpoint(&[far, grpc]), "https://collector:4317");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/own.pem");
        let certificate = |variables: &[(&str, &str)]| read(variables).unwrap().unwrap().certificate;
        assert_eq!(certificate(&[far, own, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/all.pem")]).as_deref(), Some(own.1));
        assert_eq!(certificate(&[far, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "")]), None);
    }

    #[test]
    fn headers_and_resource_are_lists_with_percent_signs() {
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-tenant=7");
        let resource = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=one,deployment.environment.name=test");
        let settings = read(&[AT, headers, resource, ("OTEL_SERVICE_NAME", "two")]).unwrap().unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(settings.headers, [pair("authorization", "Bearer abc"), pair("x-tenant", "7")]);
        assert_eq!(settings.resource["service.name"], "two");
        assert_eq!(settings.resource["deployment.environment.name"], "test");
        assert_eq!(read(&[AT]).unwrap().unwrap().resource["service.name"], "saga-order");
        assert!(!format!("{settings:?}").contains("abc"));
    }

    #[test]
    fn what_is_not_followed_is_named_unless_it_asks_for_what_is_done_anyway() {
        let named = |variables: &[(&str, &str)]| {
            let all: BTreeMap<&str, &str> = variables.iter().copied().collect();
            let names: Vec<String> = all.keys().map(|name| (*name).to_owned()).collect();
            ignored(&names, |name| all.get(name).map(|value| (*value).to_owned()))
        };
        let traces = [("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b"), ("OTEL_BSP_SCHEDULE_DELAY", "1"), AT];
        assert_eq!(named(&traces), [""; 0]);
        assert_eq!(named(&[("OTEL_METRICS_EXPORTER", "none"), ("OTEL_PROPAGATORS", "tracecontext")]), [""; 0]);
        let unheeded = [
            ("OTEL_BSP_EXPORT_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/secret"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_ENDPIONT", "http://misspelled"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://x"),
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_PROPAGATORS", "tracecontext,b3"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "5"),
            ("OTEL_TRACES_SAMPLER_ARGS", "0.1"),
        ];
        assert_eq!(named(&unheeded), unheeded.map(|(name, _)| name));
        assert_eq!(named(&[unheeded[0], ("OTEL_SDK_DISABLED", "true")]), [""; 0]);
    }

    #[test]
    fn samplers_are_the_specifications() {
        let sampler = |name: &str, arg: &str| {
            read(&[AT, ("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)]).unwrap().unwrap().sampler
        };
        assert_eq!(read(&[AT]).unwrap().unwrap().sampler, Sampler { parent_based: true, ratio: 1.0 });
        assert_eq!(sampler("traceidratio", "0.01"), Sampler { parent_based: false, ratio: 0.01 });
        assert_eq!(sampler("parentbased_traceidratio", "0.5"), Sampler { parent_based: true, ratio: 0.5 });
        assert_eq!(sampler("always_off", ""), Sampler { parent_based: false, ratio: 0.0 });
    }

    #[test]
    fn what_cannot_be_followed_is_said_without_secrets() {
        for (name, value) in [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://far:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:secret@far:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:secret@far:4317"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer secret"),
        ] {
            let mut variables = vec![AT];
            variables.push((name, value));
            let error = read(&variables).unwrap_err();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
    }
}
