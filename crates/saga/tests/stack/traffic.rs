//! A shop for tests of failures: customers that keep buying, and the books afterwards.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use saga::config::Config;
use serde_json::Value;
use tempfile::TempDir;
use testkit::proxy::Proxy;

use crate::city::City;
use crate::servers::Servers;
use crate::town::{Person, settings};

/// How long what is on its way may need to end after the last failure: a step is sent again after ten seconds.
const SETTLES_WITHIN: Duration = Duration::from_secs(90);

/// Mostly lawful purchases, and some of each kind that is compensated.
pub const MIX: &str = "ok=70,stock=10,declined=20";

/// A shop with so many processes of each service, and its administrator.
pub async fn city(replicas: usize, change: impl FnOnce(&mut Config)) -> City {
    city_on(Servers::shared(), replicas, change).await
}

/// One process of each service, with more in their environment.
pub async fn city_in(environment: Vec<(&'static str, String)>, change: impl FnOnce(&mut Config)) -> City {
    let (servers, config) = (Servers::shared(), prepared(Servers::shared(), change));
    let city = City::open_in(servers, &config, 1, environment).await;
    Person::at(&city.public()).register("admin@example.com").await;
    city
}

/// The same on servers that the test may stop.
pub async fn city_on(servers: &Servers, replicas: usize, change: impl FnOnce(&mut Config)) -> City {
    let config = prepared(servers, change);
    opened(servers, &config, replicas).await
}

/// The same, with a way to PostgreSQL that the test may close.
pub async fn city_by(way: &Proxy, change: impl FnOnce(&mut Config)) -> City {
    let servers = Servers::shared();
    let mut config = prepared(servers, change);
    config.stores.url = config.stores.url.replace(&servers.postgres(), &way.address);
    opened(servers, &config, 1).await
}

fn prepared(servers: &Servers, change: impl FnOnce(&mut Config)) -> Config {
    let folder = TempDir::new().unwrap();
    let mut config = settings(folder.path());
    config.bus.session_timeout_ms = 1_500;
    change(&mut config);
    City::prepare(servers, &mut config);
    config
}

async fn opened(servers: &Servers, config: &Config, replicas: usize) -> City {
    let city = City::open(servers, config, replicas).await;
    Person::at(&city.public()).register("admin@example.com").await;
    city
}

/// Customers at work, in a process of their own.
pub struct Load(Child);

impl Load {
    pub fn start(city: &City, args: &[&str]) -> Self {
        let password = city.file("password", "a long password");
        let mut command = city.saga();
        command.args(["load", "--json", "--no-check", "--url", &city.public(), "--users", "4", "--products", "5"]);
        command.args(["--admin-email", "admin@example.com", "--admin-password-file"]).arg(password).args(args);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Ends it at once.
    pub fn stop(mut self) {
        drop((self.0.kill(), self.0.wait()));
    }

    /// What they saw, when the last purchase has ended. Whatever was accepted has ended as it should.
    pub fn end(self) -> Value {
        let output = self.0.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!((&report["lost"], &report["unexpected"]), (&0.into(), &0.into()), "{report}");
        report
    }
}

/// Waits until so many purchases have been accepted since the beginning.
pub async fn accepted(city: &City, count: u64) {
    let limit = Instant::now() + SETTLES_WITHIN;
    while city.sql("purchase", "select count(*) from purchase").parse::<u64>().unwrap() < count {
        assert!(Instant::now() < limit, "{count} purchases are not accepted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until nothing is on its way; then all books balance.
pub async fn balanced(city: &City) -> Value {
    let limit = Instant::now() + SETTLES_WITHIN;
    loop {
        let output = city.saga().args(["check", "--settled", "--json"]).output().unwrap();
        if output.status.success() {
            return serde_json::from_slice(&output.stdout).unwrap();
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < limit, "the books do not balance: {said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
