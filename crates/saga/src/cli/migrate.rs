//! `saga migrate`: topics and tables, before the first start and after an upgrade. Running it again changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use chassis::health::Health;
use saga_adapters::kafka::{Created, KafkaBus, LARGEST_LETTER, LARGEST_RECORD, TopicPlan};
use saga_core::Name;
use saga_runtime::bus::BusError;
use saga_runtime::delivery::dead_letter_topic;
use saga_runtime::{Clock as _, SystemClock};

use super::output::Output;
use crate::config::Config;
use crate::up::backends::Backends;
use crate::up::folder::Folder;
use crate::up::{places, roles};

/// Between two tries to reach a broker that is not there yet.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the verb.
pub(super) async fn run(config: &Config, output: &Output) -> anyhow::Result<()> {
    let mut config = config.clone();
    config.stores.migrate = true;
    let roles: BTreeSet<_> = roles::ALL.into();
    let folder = if places::needs_folder(&config, &roles)? { Some(Folder::hold(&config.data)?) } else { None };
    let mut backends = Backends::new(&config, folder.as_ref(), Health::default());
    for role in roles::ALL {
        backends.migrate(role).await?;
        output.line(&format!("{role}: up to date"));
    }
    backends.close().await;
    if let Some(brokers) = places::brokers(&config)? {
        topics(&config, &brokers, output).await?;
    }
    Ok(())
}

async fn topics(config: &Config, brokers: &str, output: &Output) -> anyhow::Result<()> {
    let definitions = crate::up::definitions(config)?;
    let bus = KafkaBus::new(places::bus(config, brokers, "saga-migrate")).context("bus.url")?;
    let names: BTreeSet<Name> = definitions.all().iter().flat_map(|definition| definition.topics()).collect();
    let plan = |name: Name, retention_ms, largest| TopicPlan {
        name,
        partitions: config.bus.partitions,
        replication: config.bus.replication,
        retention_ms,
        largest,
    };
    let hours = |hours: u64| Some(hours * 3_600_000);
    let plans: Vec<TopicPlan> = names
        .iter()
        .flat_map(|name| {
            let letters = dead_letter_topic(name);
            [
                plan(name.clone(), hours(config.bus.retention_hours), LARGEST_RECORD),
                plan(letters, hours(config.bus.dead_letter_hours), LARGEST_LETTER),
            ]
        })
        .collect();
    let created = patiently(config, || bus.create(&plans)).await.with_context(|| config.bus.url.clone())?;
    for (name, created) in created {
        match created {
            Created::New => output.line(&format!("topic {name}: made, {} partitions", config.bus.partitions)),
            Created::Existed(partitions) => output.line(&format!("topic {name}: was there, {partitions} partitions")),
        }
    }
    Ok(())
}

/// Waits for brokers that are not there yet, as long as for databases.
async fn patiently<T, F>(config: &Config, mut ask: impl FnMut() -> F) -> Result<T, BusError>
where
    F: Future<Output = Result<T, BusError>>,
{
    let until = SystemClock.now() + config.stores.connect_for_s * 1_000;
    loop {
        match ask().await {
            Err(BusError::Unavailable(why)) if SystemClock.now() < until => {
                tracing::debug!(why, "trying again");
                SystemClock.sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}
