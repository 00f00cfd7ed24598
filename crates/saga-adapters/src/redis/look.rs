//! One look at one node, for `saga doctor`: no cluster client, which would go round a node that does not answer.

use std::time::Duration;

use tokio::time::timeout;

/// What a node says of its cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeView {
    /// Whether the cluster serves.
    pub is_ok: bool,
    /// Slots that are served, of 16,384.
    pub slots_ok: u64,
    /// Nodes that it knows.
    pub nodes: u64,
    /// How long the question took.
    pub took: Duration,
}

/// Asks a node (`redis://host:port`) how its cluster is.
///
/// # Errors
/// In words: not an address, not there, too slow, or no node of a cluster.
pub async fn look(node: &str, within: Duration) -> Result<NodeView, String> {
    let client = ::redis::Client::open(node).map_err(|error| error.to_string())?;
    let ask = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let begun = super::now();
        let info: String = ::redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?;
        Ok::<_, ::redis::RedisError>((info, super::now() - begun))
    };
    let (info, took) = match timeout(within, ask).await {
        Ok(answer) => answer.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer for {within:?}")),
    };
    let value = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let number = |name| value(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(NodeView {
        is_ok: value("cluster_state") == Some("ok"),
        slots_ok: number("cluster_slots_ok"),
        nodes: number("cluster_known_nodes"),
        took,
    })
}
