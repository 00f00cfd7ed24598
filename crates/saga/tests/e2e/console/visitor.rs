//! Somebody who looks at the pages without a browser.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::Method;
use saga::remote::{Answer, Connection, Endpoint};

/// A browser as far as forms and cookies go.
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

    pub async fn log_in(&mut self, base: &str, email: &str) -> Answer {
        let login = format!("{base}/login");
        self.post(&login, &login, &[("email", email), ("password", "a long password")]).await
    }
}

pub fn form(token: &str, fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let pair = |(name, value): (&str, &str)| format!("{name}={}", encode(value));
    let all = std::iter::once(("token", token)).chain(fields.iter().copied());
    all.map(pair).collect::<Vec<_>>().join("&")
}

pub fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}
