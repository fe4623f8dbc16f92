//! Named pipes restricted to their user ("Named Pipe Security and Access Rights", Microsoft).

use std::io;
use std::os::windows::io::AsRawHandle as _;
use std::ptr;

use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer, ServerOptions};
use windows_sys::Win32::System::Pipes::GetNamedPipeServerProcessId;

use super::access::Private;

/// The maximum number of concurrent clients.
const INSTANCES: usize = 64;

/// The kind of pipe instance to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    /// The first instance; creation fails if any process has another.
    First,
    /// Any later instance.
    Another,
}

/// Creates a pipe instance for this user, administrators and the system, on this machine only.
pub fn create_pipe(name: &str, instance: Instance) -> io::Result<NamedPipeServer> {
    let private = Private::new()?;
    let mut attributes = private.attributes();
    let mut options = ServerOptions::new();
    options
        .first_pipe_instance(instance == Instance::First)
        .reject_remote_clients(true)
        .max_instances(INSTANCES);
    let attributes = ptr::from_mut(&mut attributes).cast();
    // SAFETY: the attributes, and the descriptor in them, are valid until the call returns.
    unsafe { options.create_with_security_attributes_raw(name, attributes) }
}

/// Returns the ID of the process that serves a pipe.
pub fn pipe_server(pipe: &NamedPipeClient) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: the pipe is open, and `pid` outlives the call.
    match unsafe { GetNamedPipeServerProcessId(pipe.as_raw_handle(), &raw mut pid) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(pid),
    }
}
