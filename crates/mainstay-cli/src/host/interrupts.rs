//! What the operator, or the system, asks of the supervisor as a whole.

use std::io;

/// A wish that everything end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// In good order: ctrl-c, SIGTERM, the terminal is closed, the user logs off.
    Stop,
    /// At once: SIGQUIT (ctrl-\), ctrl-break.
    Quit,
}

#[cfg(unix)]
pub(super) use unix::Interrupts;
#[cfg(windows)]
pub(super) use windows::Interrupts;

#[cfg(unix)]
mod unix {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::{Interrupt, io};

    /// SIGINT, SIGTERM, SIGHUP and SIGQUIT, from now on.
    pub(crate) struct Interrupts {
        interrupt: Signal,
        terminate: Signal,
        hangup: Signal,
        quit: Signal,
    }

    impl Interrupts {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hangup: signal(SignalKind::hangup())?,
                quit: signal(SignalKind::quit())?,
            })
        }

        /// The next one. Cancel-safe.
        pub(crate) async fn next(&mut self) -> Interrupt {
            tokio::select! {
                _ = self.interrupt.recv() => Interrupt::Stop,
                _ = self.terminate.recv() => Interrupt::Stop,
                _ = self.hangup.recv() => Interrupt::Stop,
                _ = self.quit.recv() => Interrupt::Quit,
            }
        }
    }
}

#[cfg(windows)]
mod windows {
    use tokio::signal::windows::{
        CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close,
        ctrl_logoff, ctrl_shutdown,
    };

    use super::{Interrupt, io};

    /// The console's control events, from now on. After close, logoff and shutdown Windows waits some seconds only.
    pub(crate) struct Interrupts {
        interrupt: CtrlC,
        quit: CtrlBreak,
        close: CtrlClose,
        logoff: CtrlLogoff,
        shutdown: CtrlShutdown,
    }

    impl Interrupts {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                interrupt: ctrl_c()?,
                quit: ctrl_break()?,
                close: ctrl_close()?,
                logoff: ctrl_logoff()?,
                shutdown: ctrl_shutdown()?,
            })
        }

        /// The next one. Cancel-safe.
        pub(crate) async fn next(&mut self) -> Interrupt {
            tokio::select! {
                _ = self.interrupt.recv() => Interrupt::Stop,
                _ = self.close.recv() => Interrupt::Stop,
                _ = self.logoff.recv() => Interrupt::Stop,
                _ = self.shutdown.recv() => Interrupt::Stop,
                _ = self.quit.recv() => Interrupt::Quit,
            }
        }
    }
}
