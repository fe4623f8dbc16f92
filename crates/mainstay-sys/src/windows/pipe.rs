//! Pipes: named ones restricted to their user ("Named Pipe Security and Access Rights", Microsoft),
//! and those that services write to.

use std::io::{self, PipeReader, PipeWriter};
use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::ptr;

use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer, ServerOptions};
use windows_sys::Win32::System::Pipes::{CreatePipe, GetNamedPipeServerProcessId};

use super::access::Private;

/// The maximum number of concurrent clients.
const INSTANCES: usize = 64;

/// The capacity of a pipe for output. With the default, 4 KiB, a writer waits for its reader after
/// every few lines.
const CAPACITY: u32 = 256 << 10;

/// Creates a pipe for the output of a service.
pub fn output_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (mut reader, mut writer) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: both handles are written on success; without attributes, nothing inherits them.
    match unsafe { CreatePipe(&raw mut reader, &raw mut writer, ptr::null(), CAPACITY) } {
        0 => Err(io::Error::last_os_error()),
        // SAFETY: both were just opened, and only this code owns them.
        _ => unsafe {
            Ok((
                OwnedHandle::from_raw_handle(reader).into(),
                OwnedHandle::from_raw_handle(writer).into(),
            ))
        },
    }
}

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
