//! What can be counted and measured of a server, in the form that Prometheus reads. No label holds
//! an id, a name, or anything that a caller chose: what is asked for is told by its route's
//! pattern, what came of it by a word of ours (security 121).

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use semilla_core::approval::{Operation, OperationState};

use crate::store::{Batch, Record, Topic, Write};

pub use prometheus_text::CONTENT_TYPE;

/// Which requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: String,
    route: String,
    status: u16,
}

/// Requests to one route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: String,
    route: String,
}

/// What came of something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: String,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    action: String,
    outcome: String,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    r#for: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Everything that is counted and measured.
pub struct Metrics {
    registry: Registry,
    requests: Family<Asked, Counter>,
    durations: Histograms<Route>,
    codes: Family<Outcome, Counter>,
    locks: Family<Outcome, Counter>,
    operations: Family<Ended, Counter>,
    answer_times: Histograms<Outcome>,
    waiting: Family<Waiting, Gauge>,
    /// Connections that are open.
    pub connections: Gauge,
    /// Changes that are handed in and not yet durable.
    pub backlog: Gauge,
    /// Whether the clock is not believed, so that codes are refused.
    pub clock_doubted: Gauge,
    /// When the certificate ends, in seconds since 1970; 0 without TLS.
    pub certificate_expires: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("semilla");
        let durations: Histograms<Route> = Family::new_with_constructor(|| {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
            ])
        });
        // From a person at the ready to the longest that may be waited.
        let answer_times: Histograms<Outcome> = Family::new_with_constructor(|| {
            Histogram::new([5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0])
        });
        let metrics = Self {
            requests: Family::default(),
            durations,
            codes: Family::default(),
            locks: Family::default(),
            operations: Family::default(),
            answer_times,
            waiting: Family::default(),
            connections: Gauge::default(),
            backlog: Gauge::default(),
            clock_doubted: Gauge::default(),
            certificate_expires: Gauge::default(),
            registry: Registry::default(),
        };
        // Shown before anybody has waited.
        for what in ["phone", "operation", "audit"] {
            metrics.waiting.get_or_create(&Waiting { r#for: what.to_owned() }).set(0);
        }
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", build);
        let requests = "Requests, by route and status";
        registry.register("http_requests", requests, metrics.requests.clone());
        let name = "http_request_duration";
        let help = "From a request's head to its answer, by route";
        registry.register_with_unit(name, help, Unit::Seconds, metrics.durations.clone());
        registry.register("codes", "Codes that were tried, by outcome", metrics.codes.clone());
        let help = "Tokens that had to wait, or were blocked, after too many failures";
        registry.register("locks", help, metrics.locks.clone());
        let help = "Operations that asked for a phone and ended, by outcome";
        registry.register("operations", help, metrics.operations.clone());
        let name = "operation_answer";
        let help = "From an operation's request to its end, by outcome";
        registry.register_with_unit(name, help, Unit::Seconds, metrics.answer_times.clone());
        let help = "Callers that wait for something to happen: phones for requests, programs for \
                    operations or the audit trail";
        registry.register("waiting", help, metrics.waiting.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        let help = "Changes that are handed in and not yet durable";
        registry.register("writes_waiting", help, metrics.backlog.clone());
        let help = "1 where the clock is not believed and codes are refused";
        registry.register("clock_doubted", help, metrics.clock_doubted.clone());
        let name = "tls_certificate_expires";
        let help = "When the certificate ends, since 1970; 0 without TLS";
        registry.register_with_unit(name, help, Unit::Seconds, metrics.certificate_expires.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// A request was answered. `route` is the pattern of a route; none where there is none.
    pub fn answered(&self, method: &str, route: Option<&str>, status: u16, after: Duration) {
        // What nothing here answers to is one thing, whatever the caller made of it.
        let route = route.unwrap_or("none").to_owned();
        let method = if route == "none" { "any" } else { method }.to_owned();
        let by_route = Route { method: method.clone(), route: route.clone() };
        self.durations.get_or_create(&by_route).observe(after.as_secs_f64());
        self.requests.get_or_create(&Asked { method, route, status }).inc();
    }

    /// A code was tried. `outcome` is a word of the verifier, perhaps with a `:` and more.
    pub fn tried(&self, outcome: &str) {
        let word = outcome.split(':').next().unwrap_or_default().to_owned();
        self.codes.get_or_create(&Outcome { outcome: word }).inc();
    }

    /// A token has to wait, or is blocked, after too many failures.
    pub fn locked(&self, outcome: &str) {
        self.locks.get_or_create(&Outcome { outcome: outcome.to_owned() }).inc();
    }

    /// Operations have ended.
    pub fn ended(&self, ends: Vec<End>) {
        for End { action, outcome, after } in ends {
            let (action, outcome) = (action.to_owned(), outcome.to_owned());
            let times = Outcome { outcome: outcome.clone() };
            self.answer_times.get_or_create(&times).observe(after.as_secs_f64());
            self.operations.get_or_create(&Ended { action, outcome }).inc();
        }
    }

    /// Somebody waits for `topic`, until this is dropped.
    pub fn waits(&self, topic: &Topic) -> Waits {
        let r#for = match topic {
            Topic::Device(_) => "phone",
            Topic::Operation(_) => "operation",
            Topic::Audit(_) => "audit",
        };
        let gauge = self.waiting.get_or_create_owned(&Waiting { r#for: r#for.to_owned() });
        gauge.inc();
        Waits(gauge)
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }
}

/// Somebody who waits.
pub struct Waits(Gauge);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One of something more, until this is dropped.
pub fn held(gauge: &Gauge) -> Waits {
    gauge.inc();
    Waits(gauge.clone())
}

/// The end of an operation.
pub struct End {
    action: &'static str,
    outcome: &'static str,
    after: Duration,
}

/// The operations that a batch ends.
pub fn ends(batch: &Batch) -> Vec<End> {
    let end = |write: &Write| {
        let Write::Update(table, row) = write else { return None };
        if *table != Operation::TABLE {
            return None;
        }
        let operation: Operation = serde_json::from_str(&row.body).ok()?;
        let at = match &operation.state {
            OperationState::Pending => return None,
            OperationState::Expired { at }
            | OperationState::Cancelled { at }
            | OperationState::Denied { at, .. }
            | OperationState::Executed { at, .. }
            | OperationState::Failed { at, .. } => *at,
        };
        Some(End {
            action: operation.action.name(),
            outcome: operation.state.name(),
            after: at.since(operation.created),
        })
    };
    batch.writes.iter().filter_map(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_choose_is_no_label() {
        let metrics = Metrics::default();
        metrics.answered("GET", Some("/api/v1/tokens/{id}"), 200, Duration::from_millis(3));
        metrics.answered("PROPFIND", None, 405, Duration::ZERO);
        metrics.tried("waiting:1768489200000");
        metrics.tried("accepted");
        let phones = metrics.waits(&Topic::Device("0197-an-id".to_owned()));
        let text = metrics.text();
        for line in [
            "semilla_http_requests_total{method=\"GET\",route=\"/api/v1/tokens/{id}\",status=\"200\"} 1",
            "semilla_http_requests_total{method=\"any\",route=\"none\",status=\"405\"} 1",
            "semilla_codes_total{outcome=\"waiting\"} 1",
            "semilla_codes_total{outcome=\"accepted\"} 1",
            "semilla_waiting{for=\"phone\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("1768489200000") && !text.contains("0197"));
        drop(phones);
        assert!(metrics.text().contains("semilla_waiting{for=\"phone\"} 0"));
    }
}
