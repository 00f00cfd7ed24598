//! What befalls a world.

use saga_core::Verb;

use super::process::Process;
use super::weather::Weather;
use super::world::{Instance, World};

impl World {
    /// One disaster, and what people do about it.
    pub(super) async fn disaster(&mut self) {
        self.reap().await;
        match self.sim.below(if self.embedded { 9 } else { 14 }) {
            0 => self.change_weather(),
            1 => self.fill_the_disk().await,
            2 => self.jump(),
            3 => self.stop_orchestrator().await,
            4 => self.operator(),
            5 => self.calm_down(),
            6 => self.crash().await,
            7 => self.power_loss().await,
            8 => self.replace_neighbour().await,
            9 | 10 => self.replace_owner(),
            11 => self.wake_all(),
            12 => self.crash_participant().await,
            _ => self.replace_participant(),
        }
        self.start_all().await;
    }

    fn change_weather(&self) {
        let full = self.sim.weather().full;
        let weather = Weather { full, ..Weather::draw(&self.sim) };
        self.sim.note(|| format!("{weather:?}"));
        *self.sim.weather.lock() = weather;
    }

    fn calm_down(&self) {
        *self.sim.weather.lock() = Weather::CALM;
        self.sim.note(|| "calm".to_owned());
    }

    async fn fill_the_disk(&self) {
        self.sim.weather.lock().full = true;
        self.sim.note(|| "the disk is full".to_owned());
        self.sim.sleep(self.sim.below(5_000)).await;
        self.sim.weather.lock().full = false;
        self.sim.note(|| "there is room on the disk".to_owned());
    }

    fn jump(&self) {
        let by = *self.sim.pick(&[-3_600_000, -5_000, -50, 50, 1_000, 60_000, 400_000]);
        self.sim.note(|| format!("the clock jumps by {by} ms"));
        self.sim.count("clock jumps");
        self.clock.jump(by);
    }

    fn operator(&self) {
        self.retry_what_is_stuck();
        let keys = self.store.keys();
        if !keys.is_empty() && self.sim.chance(500) {
            let key = self.sim.pick(&keys).clone();
            self.operate(key, if self.sim.chance(500) { Verb::Cancel } else { Verb::Retry });
        }
    }

    fn take_awake(&mut self) -> Option<Instance> {
        let at = self.orchestrators.iter().rposition(|i| !i.asleep)?;
        Some(self.orchestrators.remove(at))
    }

    /// `SIGTERM`: what is in progress is finished first.
    async fn stop_orchestrator(&mut self) {
        let Some(instance) = self.take_awake() else { return };
        self.sim.note(|| "the orchestrator is told to stop".to_owned());
        instance.stop.cancel();
        // It has two minutes: a unit has a few waits, none of which is longer than a few seconds.
        for _ in 0..120 {
            if instance.process.ended() {
                break;
            }
            self.sim.sleep(1_000).await;
        }
        if !instance.process.ended() {
            self.sim.broken("an orchestrator does not stop");
        }
        self.orchestrators.push(instance);
        self.reap().await;
    }

    /// `SIGKILL` of the orchestrator or, where there is but one process, of everything.
    pub async fn crash(&mut self) {
        self.sim.count("crashes");
        self.sim.note(|| "the orchestrator is killed".to_owned());
        if self.embedded {
            self.kill_all().await;
        } else if let Some(instance) = self.take_awake() {
            self.kill(instance).await;
        }
        self.sim.sleep(self.sim.below(5_000)).await;
    }

    /// The orchestrator's machine, and everybody on it.
    async fn power_loss(&mut self) {
        self.sim.count("power losses");
        if self.embedded {
            self.kill_all().await;
        } else {
            for instance in std::mem::take(&mut self.orchestrators) {
                self.kill(instance).await;
            }
        }
        self.store.power_loss();
        self.sim.sleep(self.sim.below(5_000)).await;
    }

    async fn kill_all(&mut self) {
        for instance in std::mem::take(&mut self.orchestrators) {
            self.kill(instance).await;
        }
        for worker in &mut self.workers {
            if let Some(process) = worker.take() {
                process.kill().await;
            }
        }
        self.bus.wipe();
    }

    /// `SIGKILL` of whoever drives the other partition; or somebody begins to.
    pub async fn replace_neighbour(&mut self) {
        match self.neighbour.take() {
            Some(neighbour) => {
                self.sim.count("neighbours killed");
                self.sim.note(|| "the neighbour is killed".to_owned());
                self.kill(neighbour).await;
            }
            None => self.start_neighbour(),
        }
    }

    /// `SIGSTOP` of the owner; another takes over. It will not know when it goes on.
    fn replace_owner(&mut self) {
        if let Some(owner) = self.orchestrators.iter_mut().rfind(|i| !i.asleep) {
            owner.asleep = true;
            self.sim.note(|| "the owner sleeps, another takes over".to_owned());
            self.sim.count("owners replaced");
            owner.process.gate().close();
        }
        self.start_orchestrator();
    }

    /// `SIGCONT` of everybody.
    fn wake_all(&mut self) {
        self.sim.note(|| "the sleepers wake".to_owned());
        for instance in &mut self.orchestrators {
            instance.asleep = false;
            instance.process.gate().open();
        }
        self.sleepers.iter().for_each(|p| p.gate().open());
    }

    async fn crash_participant(&mut self) {
        let at = usize::try_from(self.sim.below(self.workers.len() as u64)).unwrap_or_default();
        self.sim.count("participants killed");
        self.sim.note(|| format!("participant {at} is killed"));
        if let Some(process) = self.workers[at].take() {
            process.kill().await;
        }
        self.sim.sleep(self.sim.below(5_000)).await;
    }

    /// A replica takes the place of one that sleeps, perhaps in the middle of a transaction.
    fn replace_participant(&mut self) {
        let at = usize::try_from(self.sim.below(self.workers.len() as u64)).unwrap_or_default();
        self.sim.count("participants replaced");
        self.sim.note(|| format!("participant {at} sleeps, a replica takes its place"));
        if let Some(process) = self.workers[at].take() {
            process.gate().close();
            self.sleepers.push(process);
        }
    }

    /// The weather lifts, who sleeps wakes, who is down comes up.
    pub(super) async fn calm(&mut self) {
        self.calm_down();
        self.wake_all();
        self.sim.sleep(30_000).await;
        for process in std::mem::take(&mut self.sleepers) {
            Process::kill(process).await;
        }
        while self.orchestrators.len() > 1 {
            let deposed = self.orchestrators.remove(0);
            self.kill(deposed).await;
        }
        self.start_all().await;
    }
}
