//! A Lua script by its digest; its text is sent only to a server that does not know it yet.

use redis::{Cmd, FromRedisValue};

use super::Cluster;

/// A script over keys of one slot.
#[derive(Debug)]
pub(super) struct Script {
    text: String,
    digest: String,
}

impl Script {
    pub(super) fn new(text: &str) -> Self {
        // The digest is redis-rs's; its own way of calling loads a missing script on *all* masters, and one that is
        // down fails it.
        Self { text: text.to_owned(), digest: redis::Script::new(text).get_hash().to_owned() }
    }

    /// Runs it on the master of `key`; `None` if that is not known to have happened.
    pub(super) async fn run<T: FromRedisValue>(&self, cluster: &Cluster, key: &str, arguments: &[&[u8]]) -> Option<T> {
        match cluster.ask(key, &command("EVALSHA", &self.digest, key, arguments)).await {
            Answer::Of(value) => Some(value),
            Answer::NoScript => match cluster.ask(key, &command("EVAL", &self.text, key, arguments)).await {
                Answer::Of(value) => Some(value),
                Answer::NoScript | Answer::Unknown => None,
            },
            Answer::Unknown => None,
        }
    }
}

/// What came of an operation.
#[derive(Debug)]
pub(super) enum Answer<T> {
    /// The server's answer.
    Of(T),
    /// It does not know the script.
    NoScript,
    /// None in time, or an error: it may have happened or not.
    Unknown,
}

fn command(verb: &str, script: &str, key: &str, arguments: &[&[u8]]) -> Cmd {
    let mut command = redis::cmd(verb);
    command.arg(script).arg(1).arg(key);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}
