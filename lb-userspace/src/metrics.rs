//! Metrics for Prometheus: the one table of names, types, labels and help, and a status in its text format.
//!
//! `METRICS.md` has the same table for people; a test holds both against each other.

use crate::{
    changes::edit::as_in_commands,
    model::health::State,
    status::{BackendStatus, Status},
};
use std::fmt::Write as _;

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until what is counted begins anew.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    /// As it is called in the text format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it is, in a sentence.
    pub help: &'static str,
    samples: fn(&Status, &mut Samples<'_>),
}

/// A backend of a service.
const BACKEND: &[&str] = &["service", "backend"];

macro_rules! metrics {
    ($($name:literal $kind:ident $labels:expr, $help:literal, $samples:expr;)*) => {
        /// All of them.
        pub const METRICS: &[Metric] =
            &[$(Metric { name: $name, kind: Kind::$kind, labels: $labels, help: $help, samples: $samples }),*];
    };
}

metrics! {
    "lb_build_info" Gauge &["version"], "The agent's version; always 1.",
        |status, samples| samples.add(&[&status.version], 1);
    "lb_uptime_seconds" Gauge &[], "Time since the agent was started.",
        |status, samples| samples.add(&[], status.uptime_seconds);
    "lb_memory_bytes" Gauge &[], "Memory of the agent itself, without the maps.",
        |status, samples| samples.add(&[], status.memory_bytes);
    "lb_reloads_total" Counter &["result"], "Configs that were read since the agent was started, by whether they were taken up or refused.",
        |status, samples| {
            samples.add(&["applied"], status.reloads.applied);
            samples.add(&["refused"], status.reloads.refused);
        };
    "lb_changes" Gauge &[], "Changes made by command that are put onto the config.",
        |status, samples| samples.add(&[], status.changes.made as u64);
    "lb_stale_changes" Gauge &[], "Changes made by command that no longer apply to the config.",
        |status, samples| samples.add(&[], status.changes.stale as u64);
    "lb_interface_attached" Gauge &["interface"], "Whether the program is attached to an interface of the config.",
        |status, samples| {
            for interface in &status.interfaces {
                samples.add(&[&interface.name], u64::from(interface.index.is_some()));
            }
        };
    "lb_packets_total" Counter &["why"], "Packets by the way they left, since the maps were made.",
        |status, samples| {
            for (why, count) in &status.packets {
                samples.add(&[why], *count);
            }
        };
    "lb_tracked_flows" Gauge &[], "Flows that are tracked, as of the last sweep.",
        |status, samples| samples.add(&[], status.tracked_flows);
    "lb_service_info" Gauge &["service", "address", "protocol", "mode"], "A service of the config; always 1.",
        |status, samples| {
            for service in &status.services {
                let address = as_in_commands(service.address);
                samples.add(&[&service.name, &address, &service.protocol, &service.mode], 1);
            }
        };
    "lb_service_slots" Gauge &["service"], "Size of a service's slot table.",
        |status, samples| {
            for service in &status.services {
                samples.add(&[&service.name], u64::from(service.slots));
            }
        };
    "lb_service_changed_slots" Gauge &["service"], "Slots that have changed, so that flows of theirs are tracked.",
        |status, samples| {
            for service in &status.services {
                samples.add(&[&service.name], service.changed_slots as u64);
            }
        };
    "lb_service_discovery_failures" Gauge &["service"], "Names and files of a service's backends that fail now; what they said last holds.",
        |status, samples| {
            for service in &status.services {
                let names = service.names.iter().filter(|name| name.error.is_some()).count();
                let files = service.backends_file.iter().filter(|file| file.error.is_some()).count();
                samples.add(&[&service.name], (names + files) as u64);
            }
        };
    "lb_backend_packets_total" Counter BACKEND, "Packets sent to a backend.",
        |status, samples| samples.backends(status, |backend| Some(backend.packets));
    "lb_backend_bytes_total" Counter BACKEND, "Bytes of the frames sent to a backend.",
        |status, samples| samples.backends(status, |backend| Some(backend.bytes));
    "lb_backend_up" Gauge BACKEND, "Whether a backend's check says that it is up; absent before the first check.",
        |status, samples| samples.backends(status, |backend| match backend.health {
            State::Unknown => None,
            state => Some(u64::from(state == State::Up)),
        });
    "lb_backend_weight" Gauge BACKEND, "A backend's weight in the config.",
        |status, samples| samples.backends(status, |backend| Some(backend.weight.into()));
    "lb_backend_serving" Gauge BACKEND, "Whether a backend takes new flows.",
        |status, samples| samples.backends(status, |backend| Some(backend.serving.into()));
    "lb_backend_draining" Gauge BACKEND, "Whether the operator drains a backend.",
        |status, samples| samples.backends(status, |backend| Some(backend.draining.into()));
    "lb_backend_disabled" Gauge BACKEND, "Whether the operator has disabled a backend.",
        |status, samples| samples.backends(status, |backend| Some(backend.disabled.into()));
    "lb_backend_leaving" Gauge BACKEND, "Whether a backend is no longer in the config and only there for its flows.",
        |status, samples| samples.backends(status, |backend| Some(backend.leaving.into()));
    "lb_backend_tracked_flows" Gauge BACKEND, "Flows that are tracked to a backend, as of the last sweep.",
        |status, samples| samples.backends(status, |backend| Some(backend.flows));
    "lb_dns_kernel_answers_total" Counter &[], "DNS questions that the kernel answered, since the maps were made.",
        |status, samples| samples.add(&[], status.dns.answered_by_kernel);
    "lb_dns_agent_queries_total" Counter &[], "DNS messages that came to the agent since it was started.",
        |status, samples| samples.add(&[], status.dns.agent.queries);
    "lb_dns_agent_tcp_queries_total" Counter &[], "Those of them that came by TCP.",
        |status, samples| samples.add(&[], status.dns.agent.over_tcp);
    "lb_dns_agent_malformed_total" Counter &[], "Those of them that got no reply.",
        |status, samples| samples.add(&[], status.dns.agent.malformed);
    "lb_dns_agent_truncated_total" Counter &[], "The agent's responses that told the client to ask again by TCP.",
        |status, samples| samples.add(&[], status.dns.agent.truncated);
    "lb_dns_agent_responses_total" Counter &["code"], "The agent's responses by response code.",
        |status, samples| {
            for (code, count) in &status.dns.agent.answers {
                samples.add(&[code], *count);
            }
        };
    "lb_dns_names" Gauge &[], "Names that are written in the config itself.",
        |status, samples| samples.add(&[], status.dns.names as u64);
    "lb_dns_answers" Gauge &[], "Answers that the kernel holds.",
        |status, samples| samples.add(&[], status.dns.answers_in_kernel as u64);
    "lb_dns_negative_answers" Gauge &[], "Those of them that say that there is no such name or record.",
        |status, samples| samples.add(&[], status.dns.negatives_in_kernel as u64);
    "lb_dns_answer_bytes" Gauge &[], "What the kernel's answers and their index take.",
        |status, samples| samples.add(&[], status.dns.answer_bytes);
    "lb_dns_answer_memory_bytes" Gauge &[], "Memory of the maps that answers are in.",
        |status, samples| samples.add(&[], status.dns.answer_memory);
    "lb_dns_answers_left_to_agent" Gauge &[], "Answers that the kernel should hold and does not: too long, or for want of room.",
        |status, samples| samples.add(&[], status.dns.left_to_agent as u64);
}

/// What of a metric is written.
struct Samples<'t> {
    name: &'static str,
    labels: &'static [&'static str],
    text: &'t mut String,
}

impl Samples<'_> {
    fn add(&mut self, values: &[&str], value: u64) {
        let labels = self.labels.iter().zip(values);
        let labels: Vec<_> = labels.map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }

    fn backends(&mut self, status: &Status, value: impl Fn(&BackendStatus) -> Option<u64>) {
        for service in &status.services {
            for backend in &service.backends {
                if let Some(value) = value(backend) {
                    self.add(&[&service.name, &as_in_commands(backend.address)], value);
                }
            }
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A status in Prometheus's text format, version 0.0.4.
pub fn text(status: &Status) -> String {
    let mut text = String::new();
    for Metric { name, kind, labels, help, samples } in METRICS {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
        samples(status, &mut Samples { name, labels, text: &mut text });
    }
    text
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::status as sample;
