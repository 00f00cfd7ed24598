//! Password hashing: argon2id (RFC 9106), a few at a time, off the request threads.
//!
//! A hash takes megabytes and milliseconds by design, so a flood of log-ins could take the machine: at most
//! `concurrent` run, a bounded number waits, the rest is told to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::{Algorithm, Argon2, Params, Version};
use chassis::problem::{Code, Problem};
use tokio::sync::Semaphore;

use crate::Config;
use crate::domain::PasswordHash;
use crate::stats::Stats;

/// Hashes and compares. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    slots: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    stats: Arc<Stats>,
    memory_kib: u32,
    passes: u32,
}

/// Counts a waiting request for as long as it lives.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// With the configured costs.
    pub(crate) fn new(config: &Config, stats: Arc<Stats>) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(config.password_hashes_at_once.max(1))),
            waiting: Arc::default(),
            most_waiting: config.password_hashes_waiting,
            stats,
            memory_kib: config.password_memory_kib,
            passes: config.password_passes,
        }
    }

    /// Hashes a new password.
    ///
    /// # Errors
    /// `overloaded` when too many wait.
    #[expect(clippy::disallowed_methods, reason = "a salt")]
    pub(crate) async fn hash(&self, password: String) -> Result<PasswordHash, Problem> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|e| internal(&e.to_string()))?;
        let (memory_kib, passes) = (self.memory_kib, self.passes);
        let hash = self.run(password, salt, memory_kib, passes).await?;
        Ok(PasswordHash { salt, hash, memory_kib, passes })
    }

    /// Compares. Without a stored hash the same work is done, so that time does not tell which accounts exist.
    ///
    /// # Errors
    /// `overloaded` when too many wait.
    pub(crate) async fn verify(&self, password: String, stored: Option<&PasswordHash>) -> Result<bool, Problem> {
        let Some(stored) = stored else {
            self.run(password, [0; 16], self.memory_kib, self.passes).await?;
            return Ok(false);
        };
        let hash = self.run(password, stored.salt, stored.memory_kib, stored.passes).await?;
        Ok(aws_lc_rs::constant_time::verify_slices_are_equal(&hash, &stored.hash).is_ok())
    }

    async fn run(&self, password: String, salt: [u8; 16], memory: u32, passes: u32) -> Result<[u8; 32], Problem> {
        let waiting = Waiting(Arc::clone(&self.waiting));
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most_waiting {
            return Err(Problem::new(Code::Overloaded, "too many log-ins at once; try again in a moment"));
        }
        let permit = self.slots.clone().acquire_owned().await.map_err(|e| internal(&e.to_string()))?;
        drop(waiting);
        self.stats.hashed.inc();
        let work = move || {
            let _permit = permit;
            let params = Params::new(memory, passes, 1, Some(32)).map_err(|e| e.to_string())?;
            let mut hash = [0; 32];
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(password.as_bytes(), &salt, &mut hash)
                .map_err(|e| e.to_string())?;
            Ok::<_, String>(hash)
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|e| internal(&e.to_string()))?;
        done.map_err(|e| internal(&e))
    }
}

fn internal(detail: &str) -> Problem {
    tracing::error!(detail, "hashing a password failed");
    Problem::new(Code::InternalError, "the request could not be handled; it has been logged")
}
