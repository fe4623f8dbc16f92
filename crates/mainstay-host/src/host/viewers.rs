//! The group whose members may view the services: they connect to a socket of their own, which
//! accepts requests that change nothing (docs/control.md).
//!
//! The socket has a directory of its own, so that the group reaches nothing else in the state
//! directory, and a queue of its own, so that no member keeps the owner from connecting.

use mainstay_api::endpoint::{self, Listener};
use mainstay_core::failure::{Code, Failure};
use mainstay_store::state_dir::StateDir;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::control::{Audience, Command, Server};
use super::failed;

/// A group that may view.
pub struct Viewers {
    name: String,
    group: u32,
}

impl Viewers {
    /// Looks a group up. Blocks.
    ///
    /// # Errors
    /// If there is no such group.
    #[cfg(unix)]
    pub fn find(name: String) -> Result<Self, Failure> {
        let group =
            mainstay_sys::group_named(&name).map_err(failed("look up the viewers' group"))?;
        let Some(group) = group else {
            let message = format!("cannot admit viewers: there is no group named {name}");
            let hint = format!("create the group, or correct `--viewers {name}`");
            return Err(Failure::new(Code::MissingPart, message).hint(hint));
        };
        Ok(Self { name, group })
    }

    /// Refuses: the access control list of the pipe is fixed.
    ///
    /// # Errors
    /// Always.
    #[cfg(windows)]
    pub fn find(_name: String) -> Result<Self, Failure> {
        let message = "cannot admit viewers: `--viewers` is not supported on Windows";
        Err(Failure::new(Code::Usage, message))
    }

    fn open(
        self,
        state: &StateDir,
    ) -> Result<(Viewing, (Listener, UnboundedReceiver<Listener>)), Failure> {
        let listener = self.listen(state)?;
        let (server, others) = mpsc::unbounded_channel();
        let socket = listener.place();
        let viewers = self;
        let viewing = Viewing {
            viewers,
            socket,
            server,
        };
        Ok((viewing, (listener, others)))
    }

    fn listen(&self, state: &StateDir) -> Result<Listener, Failure> {
        let bind = || {
            state.admit_viewers(self.group)?;
            let listener = Listener::bind(&state.viewers_dir())?;
            listener.admit(self.group)?;
            Ok(listener)
        };
        bind().map_err(|error: std::io::Error| {
            let failure = failed("open the socket of viewers")(error);
            if mainstay_sys::is_privileged() {
                return failure;
            }
            failure.hint("run as root, or as a member of the group")
        })
    }
}

/// Serves viewers, if there are any. Otherwise removes what an earlier supervisor did for some.
pub(super) fn open(
    viewers: Option<Viewers>,
    state: &StateDir,
    host: &UnboundedSender<Command>,
    server: &mut Server,
) -> Result<Option<Viewing>, Failure> {
    let Some(viewers) = viewers else {
        let dismissed = state.dismiss_viewers();
        dismissed.map_err(failed("remove the socket of viewers"))?;
        return Ok(None);
    };
    let (viewing, listeners) = viewers.open(state)?;
    server.serve(listeners, host.clone(), state, viewing.audience());
    Ok(Some(viewing))
}

/// The socket of viewers, which is opened again if it is lost.
pub(super) struct Viewing {
    viewers: Viewers,
    socket: endpoint::Place,
    server: UnboundedSender<Listener>,
}

impl Viewing {
    fn audience(&self) -> Audience {
        let Viewers { name, group } = &self.viewers;
        Audience::Viewers {
            name: name.clone(),
            group: *group,
        }
    }

    /// Returns whether the socket is in its place.
    pub(super) fn is_intact(&self, state: &StateDir) -> bool {
        endpoint::place(&state.viewers_dir()).ok() == Some(self.socket)
    }

    /// Opens the socket again.
    pub(super) fn reopen(&mut self, state: &StateDir) -> Result<(), Failure> {
        let listener = self.viewers.listen(state)?;
        self.socket = listener.place();
        // This fails only if the supervisor is ending.
        let _ = self.server.send(listener);
        Ok(())
    }

    /// Returns a remark if a directory above the state directory is closed to most accounts.
    #[cfg(unix)]
    pub(super) fn remark(&self, state: &StateDir) -> Option<String> {
        use mainstay_sys::rights;
        let above = state.path().parent()?;
        let (place, mode) = rights::obstacle(None, above, rights::EXECUTE)?;
        Some(format!(
            "members of the group {} may be unable to reach the socket of viewers: {} has mode {mode:04o}",
            self.viewers.name,
            place.display()
        ))
    }

    #[cfg(windows)]
    #[expect(clippy::unused_self, reason = "as on Unix")]
    pub(super) fn remark(&self, _state: &StateDir) -> Option<String> {
        None
    }
}
