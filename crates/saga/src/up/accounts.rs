//! Accounts with rights: through the admin listener, and on the folder or the database of a shop that does not run.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::audit::{Ended, Order, audited};
use chassis::auth::{self, Verifier};
use chassis::health::Health;
use chassis::ids::IdGen;
use chassis::problem::Problem;
use saga_runtime::{Clock, ReadThrough, SystemClock};
use serde_json::json;

use super::admin::{AccountBody, Accounts};
use super::backends::Backends;
use super::folder::Folder;
use super::places::{self, Place};
use super::roles::ServiceRole;
use crate::config::Config;

/// Makes accounts with rights, for the admin listener.
pub(super) struct Registrar(pub(super) account::Accounts);

#[async_trait]
impl Accounts for Registrar {
    async fn create(&self, email: String, password: String, role: auth::Role) -> Result<Ended<()>, Problem> {
        let changed = self.0.appoint(&email, password, role).await?;
        Ok(if changed { Ended::changed(()) } else { Ended::Nothing(()) })
    }
}

/// An order to make an account, as it is written down: `word` is the role's name in JSON.
pub(super) fn order(actor: String, email: &str, word: &str, reason: String) -> Order {
    Order {
        actor,
        action: "account.create".to_owned(),
        target: email.to_owned(),
        reason,
        details: json!({ "role": word }),
    }
}

/// Makes an account with rights where no shop runs. It is written down where a running shop would: in the orchestrator's audit
/// log, if its rows are in the folder, too, and else in the account service's.
///
/// # Errors
/// When something given is not lawful, the folder is in use or the file is refused.
pub(crate) async fn create(
    config: &Config,
    email: &str,
    password: String,
    (role, word): (auth::Role, &str),
    reason: String,
) -> anyhow::Result<()> {
    // By the same rules as over HTTP.
    let body = json!({ "email": email, "password": password, "role": word, "reason": reason }).to_string();
    chassis::json::parse::<AccountBody>(body.as_bytes()).map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let is_file = |role| places::of(config, role).map(|place| place == Place::File);
    let needs_folder = is_file(ServiceRole::Account)?;
    let folder = if needs_folder { Some(Folder::hold(&config.data)?) } else { None };
    let mut backends = Backends::new(config, folder.as_ref(), Health::default());
    if needs_folder && is_file(ServiceRole::Orchestrator)? {
        backends.orchestrator(None).await?;
    }
    let store = backends.account().await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = Arc::new(IdGen::new(0, Arc::clone(&clock)));
    let verifier = Verifier::new(&config.account.issuer, &config.account.audience, Arc::clone(&clock));
    let cache = ReadThrough::none();
    let built = account::build(config.account.clone(), store, &cache, ids, Arc::clone(&clock), verifier);
    let registrar = Registrar(built.await?.accounts);
    let work = registrar.create(email.to_owned(), password, role);
    // As who comes with the run file's token: whoever may write there.
    let order = order("local".to_owned(), email, word, reason);
    let created = match backends.audit() {
        Some(log) => audited(&*log, &*clock, order, work).await,
        None => work.await.map(drop),
    };
    created.map_err(|problem| anyhow::anyhow!("{problem}"))
}
