//! A real HAProxy before the replicas, and a client that sends exactly what it is told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use edge::{Layout, Replicas, Table};

/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Proxy {
    pub(crate) web: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) dashboard: SocketAddr,
    child: Child,
    _dir: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Proxy {
    /// Starts one for these replicas (`service=public/internal`), and waits until it answers.
    pub(crate) fn start(table: &Table, replicas: &[String]) -> Self {
        let mut list = Replicas::default();
        for replica in replicas {
            list.add(replica).unwrap();
        }
        let [web, internal, dashboard] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], testkit::port::unused())));
        let layout = Layout {
            web: web.to_string(),
            internal: internal.to_string(),
            dashboard: dashboard.to_string(),
            replicas: list,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("haproxy.cfg");
        let files = edge::generate(table, &layout).unwrap();
        std::fs::write(&path, &files.iter().find(|file| file.name == "haproxy.cfg").unwrap().text).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(haproxy())
            .args(["-db", "-f"])
            .arg(&path)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("haproxy runs: install Debian's package `haproxy`");
        let proxy = Self { web, internal, dashboard, child, _dir: dir };
        wait_for("haproxy answers", || get(dashboard, "/livez").is_some_and(|answer| answer.status == 200));
        proxy
    }

    /// Waits until HAProxy believes that a server is `UP` or `DOWN`.
    pub(crate) fn wait(&self, backend: &str, server: usize, state: &str) {
        let service = backend.split('-').next().unwrap();
        let server = format!("{backend},{service}-{server},");
        wait_for(&format!("{server} is {state}"), || {
            let csv = get(self.dashboard, "/;csv").unwrap().body;
            let line = csv.lines().find(|line| line.starts_with(&server)).map(str::to_owned);
            line.is_some_and(|line| line.split(',').nth(17).is_some_and(|field| field.starts_with(state)))
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Debian keeps it where only root's path looks.
pub(crate) fn haproxy() -> &'static str {
    if std::path::Path::new("/usr/sbin/haproxy").exists() { "/usr/sbin/haproxy" } else { "haproxy" }
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn get(to: SocketAddr, path: &str) -> Option<Answer> {
    send(to, &format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"))
}

/// Sends text as it is and reads until the other side closes. `None`: no whole answer came.
pub(crate) fn send(to: SocketAddr, text: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    // A reset after the answer is an end, too.
    drop(stream.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// Opens a connection for a test that reads as it likes.
pub(crate) fn open(to: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}
