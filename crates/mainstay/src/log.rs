//! [`Logger`] as the logger of the crate `log` (feature `log`).

use ::log::{Level, Log, Metadata, Record};

use crate::Logger;

/// Logs errors, warnings and informational messages, those of libraries included. Debug and trace
/// messages are not for the operator of a system and are dropped. `log` drops everything until
/// `log::set_max_level` is called.
///
/// ```
/// use std::time::Duration;
///
/// use mainstay::testing::{self, Said};
/// use mainstay::{Context, Exit};
///
/// fn orders(context: Context) -> Result<(), Exit> {
///     log::set_boxed_logger(Box::new(context.logger().clone()))?;
///     log::set_max_level(log::LevelFilter::Info);
///     log::warn!("{} bytes are free", 512);
///     Ok(())
/// }
///
/// let test = testing::Context::new::<&str>([]);
/// assert!(orders(test.service()).is_ok());
/// let said = test.next(Duration::ZERO);
/// assert_eq!(said, Some(Said::Warning("512 bytes are free".into())));
/// ```
impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        let message = record.args().to_string();
        match record.level() {
            Level::Error => self.error(message),
            Level::Warn => self.warn(message),
            Level::Info => self.info(message),
            Level::Debug | Level::Trace => {}
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{self, Said};

    #[test]
    fn the_operator_sees_what_is_for_operators() {
        let test = testing::Context::new::<&str>([]);
        let service = test.service();
        for level in Level::iter() {
            let metadata = Metadata::builder().level(level).target("hyper").build();
            let mut record = Record::builder();
            record.metadata(metadata).args(format_args!("gone"));
            Log::log(service.logger(), &record.build());
        }
        let said = std::iter::from_fn(|| test.next(Duration::ZERO)).collect::<Vec<_>>();
        let gone = || "gone".to_owned();
        let expected = [
            Said::Error(gone()),
            Said::Warning(gone()),
            Said::Info(gone()),
        ];
        assert_eq!(said, expected);
    }
}
