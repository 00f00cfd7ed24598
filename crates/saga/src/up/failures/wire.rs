//! What is asked for and what is told, as JSON: between an operator and a process, and between the orchestrator's process and those
//! that run participants.

use std::collections::{BTreeMap, BTreeSet};

use chassis::audit::says_why;
use garde::Validate;
use saga_core::Op;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What a slow gateway adds at most: over it every charge is a timeout several times over.
pub(super) const SLOWEST_MS: u64 = 60_000;

/// Whether it is about more than one process.
#[derive(Clone, Copy, Debug, Default, Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Scope {
    /// `true`: only the process that is asked, not those that it knows elsewhere (`failures.elsewhere`).
    #[garde(skip)]
    #[param(nullable = false, value_type = Option<bool>)]
    pub(super) here: bool,
}

/// What there is to choose from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = FailureChoices)]
pub(super) struct Choices {
    /// Steps whose participants are there.
    pub(super) steps: Vec<String>,
    /// Participants that are there.
    pub(super) participants: Vec<String>,
}

/// A whole number however it is written: to JSON Schema `5.0` is an integer, too.
fn whole<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(from)?;
    let written = number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..=9e15).contains(value));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and within what f64 counts")]
    let whole = || written.map(|value| value as u64);
    number.as_u64().or_else(whole).ok_or_else(|| serde::de::Error::custom("must be a whole number, not negative"))
}

/// How the gateway goes wrong.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = GatewayFailures)]
pub(super) struct GatewayRates {
    /// The share of charges that is declined.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schema(minimum = 0, maximum = 1)]
    pub(super) decline_rate: f64,
    /// How much longer each of its answers takes.
    #[garde(range(max = SLOWEST_MS))]
    #[serde(deserialize_with = "whole")]
    #[schema(maximum = 60000)]
    pub(super) latency_ms: u64,
}

/// How the answers of a step go wrong.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = StepFailures)]
pub(super) struct StepRates {
    /// The share of commands that is answered *unknown* before the participant sees them.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schema(minimum = 0, maximum = 1)]
    pub(super) unknown_rate: f64,
    /// The share of commands that is answered *retry* before the participant sees them.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schema(minimum = 0, maximum = 1)]
    pub(super) retry_rate: f64,
    /// The share of commands that the participant carries out and that are answered *unknown* all the same.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schema(minimum = 0, maximum = 1)]
    pub(super) lost_rate: f64,
    /// Only of doing, or only of undoing; without it of both.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Direction>, nullable = false)]
    pub(super) op: Option<Op>,
}

/// Doing or undoing.
#[derive(ToSchema)]
#[schema(as = Op, rename_all = "lowercase")]
#[expect(dead_code, reason = "describes")]
enum Direction {
    Do,
    Undo,
}

/// What goes wrong from now on, and nothing else.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Failures, example = json!({
    "gateway": { "decline_rate": 0.5, "latency_ms": 200 },
    "steps": { "confirm-order": { "retry_rate": 0.5 } },
    "stopped": ["product"],
    "reason": "to show what a compensation looks like",
}))]
pub(super) struct FailuresBody {
    /// `false`: whatever else is said, nothing goes wrong any more.
    #[garde(skip)]
    pub(super) enabled: bool,
    #[garde(dive)]
    pub(super) gateway: GatewayRates,
    /// By step.
    #[garde(length(max = 100), dive)]
    pub(super) steps: BTreeMap<String, StepRates>,
    /// Participants that take no more commands until they are left out again.
    #[garde(length(max = 100))]
    #[schema(max_items = 100)]
    pub(super) stopped: Vec<String>,
    /// Why, for the audit log; of switching off, too.
    #[garde(length(chars, max = 500), custom(says_why))]
    #[schema(min_length = 1, max_length = 500, pattern = r"\S", required = true)]
    pub(super) reason: String,
}

impl Default for FailuresBody {
    fn default() -> Self {
        Self {
            enabled: true,
            gateway: GatewayRates::default(),
            steps: BTreeMap::new(),
            stopped: Vec::new(),
            reason: String::new(),
        }
    }
}

impl FailuresBody {
    /// Whether nothing of a process would be another way afterwards.
    pub(super) fn leaves(&self, process: &ProcessView) -> bool {
        let ProcessView { gateway, steps, stopped, choices, .. } = process;
        let Self { gateway: rates, steps: wanted, stopped: halted, .. } = match self.enabled {
            true => self.share(choices),
            false => Self::default(),
        };
        let names = |all: &[String]| all.iter().cloned().collect::<BTreeSet<_>>();
        rates == *gateway && wanted == *steps && names(&halted) == names(stopped)
    }

    /// What of it is a process's in which there are these. The gateway is everybody's: nobody else knows where it is.
    pub(super) fn share(&self, there: &Choices) -> Self {
        let mut share = self.clone();
        share.steps.retain(|step, _| there.steps.contains(step));
        share.stopped.retain(|name| there.participants.contains(name));
        share
    }
}

/// What goes wrong on purpose: here, or in all processes together.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = FailuresInForce)]
pub(super) struct FailuresView {
    /// Whether the configuration lets anything go wrong.
    #[schema(required = true)]
    pub(super) enabled: bool,
    #[schema(required = true)]
    pub(super) gateway: GatewayRates,
    #[schema(required = true)]
    pub(super) steps: BTreeMap<String, StepRates>,
    #[schema(required = true)]
    pub(super) stopped: Vec<String>,
    #[schema(required = true)]
    pub(super) choices: Choices,
    /// Each process by itself, where participants run in others than this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) processes: Vec<ProcessView>,
    /// Those of them that nothing is known of, nor whether an order reached them: they were gone, refused, or were silent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unreached: Vec<Unreached>,
}

/// What goes wrong in one process.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = FailuresOfProcess)]
pub(super) struct ProcessView {
    /// Its admin address; `here` is the process that was asked.
    pub(super) url: String,
    pub(super) gateway: GatewayRates,
    pub(super) steps: BTreeMap<String, StepRates>,
    pub(super) stopped: Vec<String>,
    pub(super) choices: Choices,
}

/// A process that should be there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = FailuresUnreached)]
pub(super) struct Unreached {
    /// Its admin address.
    pub(super) url: String,
    /// What is wrong.
    pub(super) problem: String,
}

impl FailuresView {
    /// All processes together. Where they differ (one of them began later, say), the worst of it.
    pub(super) fn of(processes: Vec<ProcessView>, unreached: Vec<Unreached>) -> Self {
        let mut all = Self { enabled: !processes.is_empty(), ..Self::default() };
        for process in &processes {
            let (gateway, own) = (&mut all.gateway, process.gateway);
            gateway.decline_rate = gateway.decline_rate.max(own.decline_rate);
            gateway.latency_ms = gateway.latency_ms.max(own.latency_ms);
            for (step, rates) in &process.steps {
                all.steps.entry(step.clone()).and_modify(|known| known.join(rates)).or_insert(*rates);
            }
            all.stopped.extend(process.stopped.iter().cloned());
            all.choices.steps.extend(process.choices.steps.iter().cloned());
            all.choices.participants.extend(process.choices.participants.iter().cloned());
        }
        for names in [&mut all.stopped, &mut all.choices.steps, &mut all.choices.participants] {
            names.sort();
            names.dedup();
        }
        Self { processes, unreached, ..all }
    }
}

impl StepRates {
    fn join(&mut self, other: &Self) {
        self.unknown_rate = self.unknown_rate.max(other.unknown_rate);
        self.retry_rate = self.retry_rate.max(other.retry_rate);
        self.lost_rate = self.lost_rate.max(other.lost_rate);
        self.op = self.op.filter(|op| other.op == Some(*op));
    }
}
