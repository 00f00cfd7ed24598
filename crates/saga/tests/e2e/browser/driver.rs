//! One Chromium, driven over the WebDriver protocol (W3C): a process of its own, a profile of its own, a free port. The
//! protocol is a few JSON calls; a client crate for it would bring a second HTTP stack along.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use saga::remote::{Connection, Endpoint};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

/// The key under which the protocol hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const FLAGS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];
/// A page that is busy on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";

/// Starts the driver in a group of processes of its own, and ends the whole group as soon as nobody holds the other end of
/// the input: chromedriver leaves its Chromium behind, and a test that is killed has no last word.
const DRIVER: &str = "chromedriver --port=0 </dev/null & exec >&-; read -r _; kill -KILL 0";

pub struct Browser {
    driver: Child,
    endpoint: Endpoint,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub async fn open() -> Self {
        let mut driver = Command::new("sh")
            .args(["-c", DRIVER])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines
            .find(|line| line.contains("successfully on port "))
            .expect("chromedriver is there: `./test tools` installs chromium and chromium-driver");
        let port = line.rsplit("port ").next().unwrap().trim_end_matches('.').to_owned();
        // What it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = TempDir::new().unwrap();
        let mut args: Vec<String> = FLAGS.map(str::to_owned).into();
        args.push(format!("--user-data-dir={}", profile.path().display()));
        let endpoint = Endpoint::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let mut browser = Self { driver, endpoint, session: String::new(), _profile: profile };
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": args },
        } } });
        let session = browser.ask(Method::POST, "/session", wanted).await;
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// The processes of this browser that live.
    pub fn processes(group: u32) -> usize {
        let stat = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).ok();
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| stat(entry.ok()?));
        // After the name, in brackets: state, parent, group.
        let in_group = |stat: &String| {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[0] != "Z" && fields[2] == group.to_string()
        };
        all.filter(in_group).count()
    }

    /// The group that all of them are in.
    pub fn group(&self) -> u32 {
        self.driver.id()
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        self.try_ask(method, path, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn try_ask(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let session = if self.session.is_empty() { String::new() } else { format!("/session/{}", self.session) };
        let body = if method == Method::POST { Bytes::from(body.to_string()) } else { Bytes::new() };
        let answer = Connection::new(&self.endpoint).send(method, &format!("{session}{path}"), None, body).await;
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        let mut value: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        match answer.status.is_success() {
            true => Ok(value["value"].take()),
            false => Err(value["value"].to_string()),
        }
    }

    pub async fn go(&self, url: &str) {
        self.ask(Method::POST, "/url", json!({ "url": url })).await;
    }

    pub async fn address(&self) -> String {
        self.ask(Method::GET, "/url", Value::Null).await.as_str().unwrap().to_owned()
    }

    pub async fn run(&self, script: &str) -> Value {
        self.ask(Method::POST, "/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// The text that a person sees.
    pub async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    async fn find(&self, css: &str) -> Option<String> {
        let wanted = json!({ "using": "css selector", "value": css });
        let found = self.try_ask(Method::POST, "/element", wanted).await.ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    /// Presses what is there, or will be.
    pub async fn click(&self, css: &str) {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(element) = self.find(css).await
                && self.try_ask(Method::POST, &format!("/element/{element}/click"), json!({})).await.is_ok()
            {
                return;
            }
            assert!(Instant::now() < limit, "there is nothing to press at {css}: {}", self.text().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let element = self.find(css).await.unwrap_or_else(|| panic!("there is no {css}"));
        self.ask(Method::POST, &format!("/element/{element}/clear"), json!({})).await;
        self.ask(Method::POST, &format!("/element/{element}/value"), json!({ "text": text })).await;
    }

    /// Types to whatever has the focus.
    pub async fn keys(&self, keys: &str) {
        let key = |key: char| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })];
        let presses: Vec<Value> = keys.chars().flat_map(key).collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": presses }] });
        self.ask(Method::POST, "/actions", actions).await;
    }

    /// Waits until a person sees `text`.
    pub async fn shows(&self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// Waits until the page says `true` to `condition`.
    pub async fn until(&self, condition: &str) {
        let limit = Instant::now() + PATIENCE;
        let script = format!("return Boolean({condition})");
        loop {
            let body = json!({ "script": script, "args": [] });
            // While a page is being left there is nobody to ask.
            if self.try_ask(Method::POST, "/execute/sync", body).await == Ok(Value::Bool(true)) {
                return;
            }
            assert!(
                Instant::now() < limit,
                "waited in vain for {condition} at {}: {}",
                self.address().await,
                self.text().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A screen of this size, in this scheme.
    pub async fn screen(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", scheme).await;
    }

    async fn devtools(&self, command: &str, params: Value) {
        self.ask(Method::POST, "/goog/cdp/execute", json!({ "cmd": command, "params": params })).await;
    }

    /// What the browser complained about since it was asked last: errors, refused scripts and styles.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.ask(Method::POST, "/se/log", json!({ "type": "browser" })).await;
        let bad = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        let lines = log.as_array().unwrap().iter().filter(bad);
        lines.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.driver.stdin.take());
        _ = self.driver.wait();
    }
}
