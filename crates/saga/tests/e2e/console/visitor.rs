//! Somebody who looks at the pages without a browser: cookies, forms as they stand in a page, tags.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::Method;
use saga::remote::{Answer, Connection, Endpoint};

use crate::town::PATIENCE;

/// A browser as far as forms and cookies go.
#[derive(Clone)]
pub struct Visitor {
    pub endpoint: Endpoint,
    pub cookies: BTreeMap<String, String>,
}

impl Visitor {
    pub fn at(url: &str) -> Self {
        Self { endpoint: Endpoint::parse(url).unwrap(), cookies: BTreeMap::new() }
    }

    pub async fn send(&mut self, method: Method, path: &str, extra: &[(&'static str, &str)], body: String) -> Answer {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = vec![("cookie", cookies.join("; "))];
        if method == Method::POST {
            headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
        }
        headers.extend(extra.iter().map(|(name, value)| (*name, (*value).to_owned())));
        // The last of a name counts: what a test says stands in the place of what a form would.
        let mut connection = Connection::new(&self.endpoint);
        let answer = connection.send_with(method, path, None, &headers, Bytes::from(body)).await.unwrap();
        for line in answer.headers.get_all("set-cookie") {
            let (pair, flags) = line.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let gone = flags.contains("Max-Age=0");
            if gone {
                self.cookies.remove(name)
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned())
            };
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], String::new()).await
    }

    /// What an event stream says, until `enough` of it.
    pub async fn follow(&self, path: &str, mut enough: impl FnMut(&str) -> bool) -> String {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers = [("cookie", cookies.join("; ")), ("accept", "text/event-stream".to_owned())];
        let mut said = String::new();
        let chunk = |bytes: &[u8]| {
            said.push_str(&String::from_utf8_lossy(bytes));
            !enough(&said)
        };
        let mut connection = Connection::new(&self.endpoint);
        let stream = connection.stream(path, None, &headers, || {}, chunk);
        tokio::time::timeout(PATIENCE, stream).await.expect("enough is said").unwrap();
        said
    }

    /// The first thing that an event stream says.
    pub async fn first_event(&self, path: &str) -> String {
        self.follow(path, |said| said.contains("event: ") && said.ends_with("\n\n")).await
    }

    /// The token that a page's forms carry.
    pub async fn token(&mut self, page: &str) -> String {
        let text = text(&self.get(page).await);
        let rest = text.split(r#"name="token" value=""#).nth(1).unwrap_or_else(|| panic!("{page} has no form: {text}"));
        rest.split('"').next().unwrap().to_owned()
    }

    pub async fn post(&mut self, page: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.token(page).await;
        self.send(Method::POST, path, &[("sec-fetch-site", "same-origin")], form(&token, fields)).await
    }

    /// Fills a form in as it stands in a page and sends it. A field that is not there, or a choice that is not offered, is a
    /// failure of the test.
    pub async fn submit(&mut self, page: &str, action: &str, filled: &[(&str, &str)]) -> Answer {
        let shown = text(&self.get(page).await);
        self.send_form(&Form::in_page(&shown, action), filled).await
    }

    /// The same with a form that was kept.
    pub async fn send_form(&mut self, form: &Form, filled: &[(&str, &str)]) -> Answer {
        let body = form.filled(filled);
        self.send(Method::POST, &form.action, &[("sec-fetch-site", "same-origin")], body).await
    }

    /// The question that a saga's page leads to, as whoever looks now is asked it.
    pub async fn asked(&mut self, saga: u64, verb: &str) -> Form {
        let page = text(&self.get(&format!("/console/sagas/{saga}")).await);
        let link = tags(&page).into_iter().find(|tag| tag.attribute("id") == Some(&format!("do-{verb}")));
        let link = link.unwrap_or_else(|| panic!("{verb} is not offered: {page}"));
        let question = text(&self.get(link.attribute("href").unwrap()).await);
        Form::in_page(&question, &format!("/console/sagas/{saga}/{verb}"))
    }

    pub async fn log_in(&mut self, base: &str, email: &str) -> Answer {
        let login = format!("{base}/login");
        self.post(&login, &login, &[("email", email), ("password", "a long password")]).await
    }
}

pub fn form(token: &str, fields: &[(&str, &str)]) -> String {
    encoded(std::iter::once(("token", token)).chain(fields.iter().copied()))
}

fn encoded<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>) -> String {
    fields.map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect::<Vec<_>>().join("&")
}

/// For an address.
pub fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

pub fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// A tag as a browser reads it; one that closes has a `/` before its name.
#[derive(Debug)]
pub struct Tag {
    pub name: String,
    pub attributes: Vec<(String, String)>,
}

impl Tag {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The tags of a page, in their order.
pub fn tags(html: &str) -> Vec<Tag> {
    let mut found = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if !rest.starts_with(|next: char| next.is_ascii_alphabetic() || next == '/') {
            continue;
        }
        let end = rest.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(rest.len());
        let mut tag = Tag { name: rest[..end].to_ascii_lowercase(), attributes: Vec::new() };
        rest = rest[end..].trim_start();
        while !rest.is_empty() && !rest.starts_with('>') {
            let (attribute, after) = attribute(rest);
            tag.attributes.push(attribute);
            rest = after.trim_start();
        }
        found.push(tag);
    }
    found
}

/// `name="value"`, `name='value'`, `name=value` or `name`, and what comes after it.
fn attribute(text: &str) -> ((String, String), &str) {
    let end = text.find(|c: char| c.is_whitespace() || c == '=' || c == '>').unwrap_or(text.len()).max(1);
    let (name, rest) = text.split_at(end);
    let Some(value) = rest.strip_prefix('=') else { return ((name.to_owned(), String::new()), rest) };
    let (value, rest) = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
        _ => value.split_at(value.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(value.len())),
    };
    ((name.to_owned(), plain(value)), rest)
}

/// Without the escapes that the templates write.
pub fn plain(escaped: &str) -> String {
    let escapes = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&"), ("&amp;", "&")];
    escapes.iter().fold(escaped.to_owned(), |text, (escape, sign)| text.replace(escape, sign))
}

/// A form of a page.
#[derive(Clone, Debug)]
pub struct Form {
    pub action: String,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    value: String,
    kind: Kind,
    /// Whether it is sent.
    on: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    /// One of several with this name: boxes to tick, options, buttons.
    Choice,
    Option,
}

impl Form {
    /// The form with this action; exactly, or it is not there.
    pub fn in_page(html: &str, action: &str) -> Self {
        let found = Self::all(html).into_iter().find(|form| form.action == action);
        found.unwrap_or_else(|| panic!("no form for {action} in {html}"))
    }

    /// The forms of a page that send something.
    pub fn all(html: &str) -> Vec<Self> {
        let mut forms: Vec<Self> = Vec::new();
        let (mut open, mut select) = (false, String::new());
        for tag in tags(html) {
            let of = |name: &str| tag.attribute(name).unwrap_or_default().to_owned();
            let field = |name: String, kind, on| Field { name, value: of("value"), kind, on };
            let field = match tag.name.as_str() {
                "form" => {
                    open = of("method") == "post";
                    if open {
                        forms.push(Self { action: of("action"), fields: Vec::new() });
                    }
                    continue;
                }
                "/form" => {
                    open = false;
                    continue;
                }
                "select" => {
                    select = of("name");
                    continue;
                }
                "input" if of("type") == "checkbox" => {
                    field(of("name"), Kind::Choice, tag.attribute("checked").is_some())
                }
                "input" | "textarea" => field(of("name"), Kind::Text, true),
                "option" => field(select.clone(), Kind::Option, tag.attribute("selected").is_some()),
                "button" => field(of("name"), Kind::Choice, false),
                _ => continue,
            };
            if open {
                forms.last_mut().unwrap().fields.push(field);
            }
        }
        forms
    }

    /// What stands in a field.
    pub fn value(&self, name: &str) -> &str {
        self.fields.iter().find(|field| field.name == name).map_or("", |field| &field.value)
    }

    /// Whether a box with this value is ticked.
    pub fn ticked(&self, name: &str, value: &str) -> bool {
        self.fields.iter().any(|field| field.name == name && field.value == value && field.on)
    }

    fn filled(&self, filled: &[(&str, &str)]) -> String {
        let mut fields = self.fields.clone();
        for (name, value) in filled {
            let fits = |field: &Field| field.name == *name && (field.kind == Kind::Text || field.value == *value);
            let at = fields.iter().position(fits).unwrap_or_else(|| panic!("{name}={value} is not in {self:?}"));
            if fields[at].kind == Kind::Option {
                fields.iter_mut().filter(|field| field.name == *name).for_each(|field| field.on = false);
            }
            (*value).clone_into(&mut fields[at].value);
            fields[at].on = true;
        }
        // Of options without a chosen one the first is.
        for at in 0..fields.len() {
            let name = fields[at].name.clone();
            if fields[at].kind == Kind::Option && !fields.iter().any(|field| field.name == name && field.on) {
                fields[at].on = true;
            }
        }
        encoded(fields.iter().filter(|field| field.on).map(|field| (field.name.as_str(), field.value.as_str())))
    }
}
