//! Kinds of events and their IDs in the Event Log. The IDs are documented in docs/event-log.md and
//! never change.
//!
//! An ID has the format of Microsoft's message compiler: severity in bits 31–30 (1 information, 2
//! warning, 3 error), the customer bit 29, which every program except Windows itself sets, facility
//! 0 in bits 27–16, and the code that Event Viewer shows in bits 15–0.

#[cfg(any(windows, test))]
use std::io;

/// The severity of an entry in the system log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Info,
    Warning,
    Error,
}

/// An open source of events in the Event Log: Windows, or a fake.
#[cfg(any(windows, test))]
pub(crate) trait Reporter: Send + Sized {
    fn open(source: &str) -> io::Result<Self>;
    fn report(&self, event: Event, strings: [&str; 2]) -> io::Result<()>;
}

/// Returns the source name for a service's events. It differs from the service's name because
/// programs register sources of their own (`mysql`, `postgresql`).
#[cfg(any(windows, test))]
pub(crate) fn source_of(service: &str) -> String {
    format!("mainstay-{service}")
}

/// Passes the table to the macro `$then`: name, kind in JSON, ID, text. In a text, `%1` stands for
/// the message. Texts are ASCII without quotes or braces.
macro_rules! for_each_event {
    ($then:ident) => {
        $then! {
            Information "information" 0x6000_0001 "%1";
            Warning "warning" 0xA000_0002 "%1";
            Error "error" 0xE000_0003 "%1";
            Started "started" 0x6000_0064 "The service has started. %1";
            Stopped "stopped" 0x6000_0065 "The service has stopped. %1";
            Failed "failed" 0xE000_00C8 "The service has failed: %1";
            Panicked "panicked" 0xE000_00C9 "The service has panicked: %1";
            StopOverdue "stop_overdue" 0xE000_00CA "The service has not stopped in time: %1";
            StartOverdue "start_overdue" 0xE000_00CB "The service has not become ready in time: %1";
            PauseOverdue "pause_overdue" 0xE000_00CC "The service has not paused or continued in time: %1";
        }
    };
}
#[cfg(all(windows, feature = "message-table"))]
pub(crate) use for_each_event;

macro_rules! define {
    ($($name:ident $kind:literal $id:literal $text:literal;)*) => {
        /// A kind of event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(
            not(any(windows, test)),
            expect(dead_code, reason = "not every system tells all of them")
        )]
        pub(crate) enum Event { $($name,)* }

        impl Event {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the event's ID in the Event Log.
            pub(crate) const fn id(self) -> u32 {
                match self { $(Self::$name => $id,)* }
            }

            /// Returns the event's name for programs.
            #[cfg(any(windows, test))]
            pub(crate) const fn kind(self) -> &'static str {
                match self { $(Self::$name => $kind,)* }
            }

            /// Returns the text that Windows shows around the message.
            #[cfg(test)]
            pub(crate) const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}
for_each_event!(define);

impl Event {
    pub(crate) const fn severity(self) -> Severity {
        match self.id() >> 30 {
            3 => Severity::Error,
            2 => Severity::Warning,
            _ => Severity::Info,
        }
    }

    /// Returns whether the event was requested, so that only a log needs to report it.
    pub(crate) const fn is_expected(self) -> bool {
        matches!(self, Self::Started | Self::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order_and_documented() {
        let documentation = include_str!("../../../docs/event-log.md");
        assert!(Event::ALL.is_sorted_by_key(|event| event.id() & 0xFFFF));
        for event in Event::ALL {
            let id = event.id();
            let level = match event.severity() {
                Severity::Info => "Information",
                Severity::Warning => "Warning",
                Severity::Error => "Error",
            };
            assert_eq!(
                id >> 16 & 0x3FFF,
                0x2000,
                "customer bit, facility 0: {id:#x}"
            );
            let row = format!(
                "| {} | `0x{id:08X}` | {level} | `{}` | `{}` |",
                id & 0xFFFF,
                event.kind(),
                event.text()
            );
            assert!(
                documentation.contains(&row),
                "docs/event-log.md lacks {row}"
            );
        }
    }
}
