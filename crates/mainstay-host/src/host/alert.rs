//! An alert, and the events of its delivery.

use std::sync::Arc;

use mainstay_api::Event;
use mainstay_core::alert::Answer;
use mainstay_core::engine::{Fact, RolloutRole};
use mainstay_core::spec::ServiceName;
use mainstay_core::trace::TraceContext;
use serde::Serialize;

/// An alert to deliver.
#[derive(Debug)]
pub(super) struct Alert {
    /// The ID, which is the same in every attempt.
    pub(super) id: String,
    pub(super) service: ServiceName,
    pub(super) message: String,
    /// The environment variables for the command, in addition to the document.
    pub(super) variables: [(&'static str, String); 5],
    pub(super) document: String,
    /// The trace context of the request that caused the event.
    pub(super) cause: Option<TraceContext>,
}

/// The event as it is reported everywhere, and the data that only recipients outside this machine
/// need.
#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    host: &'a str,
    /// The number of the service's alerts that were suppressed since the last one that was sent.
    suppressed: u64,
    #[serde(flatten)]
    line: Event<'a>,
}

/// An event of the delivery of alerts.
#[derive(Debug)]
pub(super) enum AlertEvent {
    /// The result of a request to a service's webhook.
    Tried(ServiceName, Arc<Alert>, Answer, String),
    /// The pause of this service's webhook is over.
    Due(ServiceName),
    /// The time for the last alerts is over.
    Enough,
    /// The output of this service's alert command.
    Said(ServiceName, String),
}

impl Alert {
    pub(super) fn new(
        (id, host): (String, &str),
        time: &str,
        (service, role): (&ServiceName, Option<RolloutRole>),
        fact: &Fact,
        suppressed: u64,
    ) -> Self {
        let line = Event::new(time, (service.as_str(), role), fact);
        let message = line.message.clone();
        let document = serde_json::to_value(Document {
            id: &id,
            host,
            suppressed,
            line,
        });
        let document = document.unwrap_or_default();
        let event = document["event"].as_str().unwrap_or_default().to_owned();
        Self {
            variables: [
                ("MAINSTAY_ALERT_ID", id.clone()),
                ("MAINSTAY_EVENT", event),
                ("MAINSTAY_MESSAGE", message.replace('\0', " ")),
                ("MAINSTAY_SUPPRESSED", suppressed.to_string()),
                ("MAINSTAY_TIME", time.to_owned()),
            ],
            id,
            service: service.clone(),
            message,
            document: document.to_string(),
            cause: None,
        }
    }
}
