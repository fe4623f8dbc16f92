//! A service on tokio: one task produces, the main task consumes, and a stop ends both in order. It
//! logs with the macros of the crate `log`, which write to the system log.
//! `tokio-ticker` alone runs it in the foreground.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use mainstay::{Accepts, Context, Control, Exit};
use tokio::sync::mpsc;

fn main() -> ExitCode {
    mainstay::service("tokio-ticker")
        .description("Counts ticks of a task")
        .version(env!("CARGO_PKG_VERSION"))
        .accepts(Accepts::RELOAD)
        .main(ticker)
}

/// Runs the service on its own runtime, which is created and dropped here.
fn ticker(context: Context) -> Result<(), Exit> {
    log::set_boxed_logger(Box::new(context.logger().clone())).context("set the logger")?;
    log::set_max_level(log::LevelFilter::Info);
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    Ok(runtime.block_on(count(context))?)
}

async fn count(mut context: Context) -> anyhow::Result<()> {
    let (sender, mut ticks) = mpsc::channel(16);
    let producer = tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        loop {
            interval.tick().await;
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    let status = context.status();
    let mut count = 0;
    loop {
        tokio::select! {
            control = context.recv() => match control {
                Control::Stop(_) => break,
                Control::Reload => count = 0,
                _ => {}
            },
            tick = ticks.recv() => {
                tick.context("the producer has ended")?;
                count += 1;
                status.text(&format!("{count} ticks"));
            }
        }
    }
    // The producer detects that the receiver is gone.
    drop(ticks);
    producer.await.context("wait for the producer")?;
    log::info!("{count} ticks");
    Ok(())
}

#[cfg(test)]
mod tests {
    use mainstay::Stop;
    use mainstay::testing::{self, Said};

    use super::*;

    /// Tests the service as a function, with the controls that a manager would send.
    #[test]
    fn it_counts_until_it_is_told_to_stop() {
        const SOON: Duration = Duration::from_secs(20);
        let test = testing::Context::new::<&str>([]);
        let context = test.service();
        let running = std::thread::spawn(|| ticker(context));
        assert_eq!(test.next(SOON), Some(Said::Ready));
        for count in 1..4 {
            assert_eq!(
                test.next(SOON),
                Some(Said::Status(format!("{count} ticks")))
            );
        }
        test.tell(Control::Stop(Stop::Requested));
        let last =
            std::iter::from_fn(|| test.next(SOON)).find(|said| matches!(said, Said::Info(_)));
        assert!(matches!(last, Some(Said::Info(text)) if text.ends_with(" ticks")));
        assert!(running.join().expect("it does not panic").is_ok());
    }
}
