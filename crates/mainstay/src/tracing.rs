//! [`Logger`] as a layer of `tracing` (feature `tracing`).

use std::fmt::{self, Write as _};

use tracing_core::field::{Field, Visit};
use tracing_core::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::Logger;

/// Logs errors, warnings and informational events, those of libraries included, each with its
/// severity: to the journal, syslog or the Event Log. Debug and trace events are not for the
/// operator of a system and are dropped; other layers receive them. A message is followed by the
/// fields of its event, `requests=3 path="/"`. Spans are not logged.
///
/// ```
/// use std::time::Duration;
///
/// use mainstay::testing::{self, Said};
/// use mainstay::{Context, Exit};
/// use tracing_subscriber::layer::SubscriberExt as _;
/// use tracing_subscriber::util::SubscriberInitExt as _;
///
/// fn orders(context: Context) -> Result<(), Exit> {
///     tracing_subscriber::registry().with(context.logger().clone()).try_init()?;
///     tracing::warn!(free = 512, "the disk is almost full");
///     Ok(())
/// }
///
/// let test = testing::Context::new::<&str>([]);
/// assert!(orders(test.service()).is_ok());
/// let said = test.next(Duration::ZERO);
/// assert_eq!(said, Some(Said::Warning("the disk is almost full free=512".into())));
/// ```
impl<S: Subscriber> Layer<S> for Logger {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let text = text.message + &text.fields;
        let text = text.trim_start();
        if level == Level::ERROR {
            self.error(text);
        } else if level == Level::WARN {
            self.warn(text);
        } else {
            self.info(text);
        }
    }
}

/// An event as text.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _infallible = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // The location in the source of a record of the crate `log`.
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.record_debug(field, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use crate::testing::{self, Said};

    #[test]
    fn the_operator_sees_what_is_for_operators() {
        let test = testing::Context::new::<&str>([]);
        let logger = test.service().logger().clone();
        let subscriber = tracing_subscriber::registry().with(logger);
        tracing::subscriber::with_default(subscriber, || {
            let failure: &dyn std::error::Error = &io::Error::other("the disk is full");
            tracing::error!(failure, "cannot write {}", "ledger");
            tracing::warn!(message = "slow", path = "/a b", millis = 1200);
            tracing::info!("listening");
            tracing::info!(tenants = 3);
            tracing::debug!("a packet");
            tracing::trace!("a byte");
        });
        let said = std::iter::from_fn(|| test.next(Duration::ZERO)).collect::<Vec<_>>();
        let expected = [
            Said::Error("cannot write ledger failure=the disk is full".into()),
            Said::Warning("slow path=\"/a b\" millis=1200".into()),
            Said::Info("listening".into()),
            Said::Info("tenants=3".into()),
        ];
        assert_eq!(said, expected);
    }
}
