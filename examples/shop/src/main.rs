//! Two services in one program. On Windows they share a process; elsewhere, each has its own.
//! `shop install` installs both, `shop stop shop-mail` stops one of them, and `shop run shop-web`
//! runs one in the foreground.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use mainstay::{Account, Context, Control, Definition, Exit, Program};

fn main() -> ExitCode {
    Program::new("shop")
        .service(service("shop-web", "Takes orders"), web)
        .service(service("shop-mail", "Sends confirmations"), mail)
        .main()
}

/// Services that share a process need the same account.
fn service(name: &str, description: &str) -> Definition {
    mainstay::service(name)
        .description(description)
        .version(env!("CARGO_PKG_VERSION"))
        .account(Account::LocalService)
}

fn web(context: Context) -> Result<(), Exit> {
    work(context, "orders taken")
}

fn mail(context: Context) -> Result<(), Exit> {
    work(context, "confirmations sent")
}

/// Counts, by the number of seconds in the first argument, until it is asked to stop.
fn work(mut context: Context, what: &str) -> Result<(), Exit> {
    let seconds = context.arguments().first();
    let seconds = seconds.map_or(Ok(1), |text| text.to_string_lossy().parse())?;
    let status = context.status();
    let mut count = 0;
    loop {
        match context.wait_for(Duration::from_secs(seconds)) {
            None => {
                count += 1;
                status.text(&format!("{count} {what}"));
            }
            Some(Control::Stop(_)) => {
                context.logger().info(format!("{count} {what}"));
                return Ok(());
            }
            Some(Control::Custom(code)) => return Err(Exit::from(format!("code {code}"))),
            Some(_) => {}
        }
    }
}
