//! A way to a server that a test can make fail: one-way, dead without a word, or cut in the middle of a conversation.
//!
//! What cannot pass is held back, as a network does that loses packets: when the way is open again, it arrives. Nobody is
//! told of a connection that was forgotten; both ends have to find out by themselves.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Everything.
    Open,
    /// What clients say, but no answer.
    Deaf,
    /// Answers to what was said before, but nothing new.
    Mute,
    /// Everything; but of so many things that clients say, one ends its connection, by turns before the server has got it
    /// and before the client has its answer.
    Cutting(u32),
}

/// The way. Gone when dropped.
pub struct Proxy {
    /// Where clients connect to, instead of the server.
    pub address: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    server: String,
    state: watch::Sender<State>,
    said: AtomicU32,
    cut: AtomicU32,
}

#[derive(Clone, Copy)]
struct State {
    way: Way,
    /// Connections of an older age are forgotten.
    age: u32,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// A way to a server, `host:port`, that is open.
    ///
    /// # Panics
    /// When there is no port for it.
    pub async fn before(server: &str) -> Self {
        Self::at("127.0.0.1:0", server).await
    }

    /// The same at an address of one's choice: for servers that tell their clients where they are.
    ///
    /// # Panics
    /// When it is taken.
    pub async fn at(address: &str, server: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (state, _) = watch::channel(State { way: Way::Open, age: 0 });
        let shared = Arc::new(Shared { server: server.to_owned(), state, said: 0.into(), cut: 0.into() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// From now on, for all connections.
    pub fn set(&self, way: Way) {
        self.shared.state.send_modify(|state| state.way = way);
    }

    /// Nothing passes any more on the connections that there are. New ones work.
    pub fn forget_connections(&self) {
        self.shared.state.send_modify(|state| state.age += 1);
    }

    /// Connections that were cut.
    pub fn cut(&self) -> u32 {
        self.shared.cut.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(&shared.server).await else { return };
            drop((client.set_nodelay(true), server.set_nodelay(true)));
            carry(client, server, &shared).await;
        });
    }
}

/// Until one side ends, or the connection is cut.
async fn carry(client: TcpStream, server: TcpStream, shared: &Shared) {
    let age = shared.state.borrow().age;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let is_last = AtomicBool::new(false);
    let up = pass(from_client, to_server, shared, age, Way::Mute, || shared.fate(&is_last));
    let down = pass(from_server, to_client, shared, age, Way::Deaf, || {
        if is_last.load(Ordering::Relaxed) { Fate::Lost } else { Fate::Passes }
    });
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// What becomes of something that was said.
enum Fate {
    Passes,
    Lost,
}

impl Shared {
    fn fate(&self, is_last: &AtomicBool) -> Fate {
        let Way::Cutting(every) = self.state.borrow().way else { return Fate::Passes };
        if !(self.said.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every) {
            return Fate::Passes;
        }
        if self.cut.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return Fate::Lost;
        }
        // The server gets it; its answer is lost.
        is_last.store(true, Ordering::Relaxed);
        Fate::Passes
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    shared: &Shared,
    age: u32,
    closed: Way,
    fate: impl Fn() -> Fate,
) {
    let (mut state, mut bytes) = (shared.state.subscribe(), vec![0; 64 * 1024]);
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        if state.wait_for(|now| now.way != closed && now.age == age).await.is_err() {
            return;
        }
        if matches!(fate(), Fate::Lost) || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
