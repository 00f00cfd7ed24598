//! A real listener, and clients that speak to its socket byte by byte.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use chassis::http::{HttpLimits, serve};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Server {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub done: JoinHandle<()>,
}

impl Server {
    pub async fn start(router: Router, limits: HttpLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let done = tokio::spawn(serve(listener, chassis::http::refusing(router), limits, stop.clone()));
        Self { address, stop, done }
    }

    pub async fn connect(&self) -> Client {
        Client { socket: TcpStream::connect(self.address).await.unwrap(), unread: Vec::new() }
    }

    /// Asks on a new connection.
    pub async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

pub struct Client {
    pub socket: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one answer with a content-length.
    pub async fn answer(&mut self) -> Answer {
        within("an answer", self.read_answer()).await
    }

    async fn read_answer(&mut self) -> Answer {
        let head = loop {
            if let Some(end) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                let head = std::mem::replace(&mut self.unread, rest);
                break String::from_utf8(head).unwrap().to_ascii_lowercase();
            }
            let so_far = String::from_utf8_lossy(&self.unread).into_owned();
            assert!(self.more().await, "closed after {so_far:?}");
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let length: usize = length.parse().unwrap();
        while self.unread.len() < length {
            assert!(self.more().await, "closed within the body");
        }
        let rest = self.unread.split_off(length);
        Answer { status, head, body: std::mem::replace(&mut self.unread, rest) }
    }

    /// Reads on; `false` when the other side has closed (or reset) the connection.
    async fn more(&mut self) -> bool {
        self.socket.read_buf(&mut self.unread).await.is_ok_and(|read| read > 0)
    }

    /// Waits until the other side closes; answers what it still said.
    pub async fn until_closed(&mut self) -> String {
        within("the connection to be closed", async { while self.more().await {} }).await;
        String::from_utf8_lossy(&self.unread).into_owned()
    }
}

/// A plain request without a body.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n")
}

pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Waits for what should come soon.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("waited {limit:?} for {what}"))
}
