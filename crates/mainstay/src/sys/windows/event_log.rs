//! The Windows Event Log: registers a source in the registry and reports events.
//!
//! A source is a key under the log `Application`. It names the file that contains the texts of the
//! source's events: the program itself. Sources of this library have a [`MARK`]. A source without
//! it belongs to another program and is neither changed nor removed.

#![expect(
    unsafe_code,
    reason = "the Event Log and the registry are C interfaces"
)]

use std::io;
use std::os::windows::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{
    ERROR_FILE_NOT_FOUND, ERROR_MORE_DATA, ERROR_NO_MORE_ITEMS, ERROR_NOT_SUPPORTED, ERROR_SUCCESS,
    HANDLE,
};
use windows_sys::Win32::System::EventLog::{
    DeregisterEventSource, EVENTLOG_ERROR_TYPE, EVENTLOG_INFORMATION_TYPE, EVENTLOG_WARNING_TYPE,
    RegisterEventSourceW, ReportEventW,
};
use windows_sys::Win32::System::Registry::{
    HKEY, HKEY_LOCAL_MACHINE, KEY_QUERY_VALUE, KEY_SET_VALUE, REG_DWORD, REG_EXPAND_SZ,
    REG_OPTION_NON_VOLATILE, REG_SZ, RegCloseKey, RegCreateKeyExW, RegDeleteTreeW, RegEnumValueW,
    RegOpenKeyExW, RegSetValueExW,
};

use crate::event::{Event, Reporter, Severity};

/// The path of the sources of the log `Application`, under `HKEY_LOCAL_MACHINE`.
const SOURCES: &str = r"SYSTEM\CurrentControlSet\Services\EventLog\Application";

/// The event types: information, warnings and errors.
const TYPES_SUPPORTED: u32 =
    (EVENTLOG_INFORMATION_TYPE | EVENTLOG_WARNING_TYPE | EVENTLOG_ERROR_TYPE) as u32;

/// The registry value that marks a source as created by this library.
const MARK: &str = "RegisteredBy";
const MAINSTAY: &str = "mainstay";

/// The previous values of a source's key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Previous(Vec<Value>);

#[derive(Debug, PartialEq, Eq)]
struct Value {
    /// The name with its NUL.
    name: Vec<u16>,
    kind: u32,
    data: Vec<u8>,
}

/// Registers `name` as a source whose texts are in `exe`, an absolute path. Returns the previous
/// values for [`restore`], or `None` if there were none.
///
/// Requires administrator rights (error 5 otherwise). Fails with error 50 (not supported) if
/// another program has a source of this name. Registering the source with another `exe` moves it;
/// values set by others remain. After a failure, the previous state is restored as far as the
/// registry allows.
pub(crate) fn register(name: &str, exe: &Path) -> io::Result<Option<Previous>> {
    let previous = read(name)?;
    if previous.as_ref().is_some_and(Previous::is_foreign) {
        return Err(io::Error::from_raw_os_error(
            ERROR_NOT_SUPPORTED.cast_signed(),
        ));
    }
    let file = bytes(exe.as_os_str().encode_wide());
    let set = || {
        let key = Key::create(name)?;
        key.set(&wide(MARK), REG_SZ, &bytes(MAINSTAY.encode_utf16()))?;
        key.set(&wide("EventMessageFile"), REG_EXPAND_SZ, &file)?;
        let types = TYPES_SUPPORTED.to_le_bytes();
        key.set(&wide("TypesSupported"), REG_DWORD, &types)
    };
    if let Err(error) = set() {
        // The first error is reported.
        let _ = restore(name, previous.as_ref());
        return Err(error);
    }
    Ok(previous)
}

/// Returns the path of the file with the texts of the source `name`, or `None` if there is no such
/// source.
pub(crate) fn message_file(name: &str) -> io::Result<Option<String>> {
    let wanted = wide("EventMessageFile");
    let previous = read(name)?;
    let values = previous.iter().flat_map(|Previous(values)| values);
    let mut file = values.filter(|value| value.name == wanted);
    Ok(file.next().map(|value| {
        let units = value
            .data
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        String::from_utf16_lossy(&units)
    }))
}

/// Removes the source if it was created by this library. Returns the previous values for
/// [`restore`]. If there was no such source, it returns `None`, which is not an error.
pub(crate) fn unregister(name: &str) -> io::Result<Option<Previous>> {
    let previous = read(name)?.filter(|previous| !previous.is_foreign());
    if previous.is_some() {
        restore(name, None)?;
    }
    Ok(previous)
}

impl Previous {
    /// Returns whether another program created the source.
    fn is_foreign(&self) -> bool {
        let (name, data) = (wide(MARK), bytes(MAINSTAY.encode_utf16()));
        let mut values = self.0.iter();
        !values.any(|value| value.name == name && value.data == data)
    }
}

/// Returns a string as stored in the registry, with a NUL.
fn bytes(units: impl Iterator<Item = u16>) -> Vec<u8> {
    units.chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Undoes [`register`] and [`unregister`], given the values they returned.
pub(crate) fn restore(name: &str, previous: Option<&Previous>) -> io::Result<()> {
    let path = path(name);
    // SAFETY: the path ends with a NUL and outlives the call.
    let code = unsafe { RegDeleteTreeW(HKEY_LOCAL_MACHINE, path.as_ptr()) };
    if code != ERROR_FILE_NOT_FOUND {
        check(code)?;
    }
    let Some(Previous(values)) = previous else {
        return Ok(());
    };
    let key = Key::create(name)?;
    values
        .iter()
        .try_for_each(|value| key.set(&value.name, value.kind, &value.data))
}

/// Reads all values of the source's key. Returns `None` if there is no such key.
fn read(name: &str) -> io::Result<Option<Previous>> {
    let Some(key) = Key::open(name)? else {
        return Ok(None);
    };
    let mut values = Vec::new();
    while let Some(value) = key.value(values.len())? {
        values.push(value);
    }
    Ok(Some(Previous(values)))
}

/// An open key of a source, closed on drop.
struct Key(HKEY);

impl Key {
    fn open(name: &str) -> io::Result<Option<Self>> {
        let (path, mut key) = (path(name), null_mut());
        // SAFETY: the path ends with a NUL; both outlive the call.
        let code = unsafe {
            RegOpenKeyExW(
                HKEY_LOCAL_MACHINE,
                path.as_ptr(),
                0,
                KEY_QUERY_VALUE,
                &raw mut key,
            )
        };
        if code == ERROR_FILE_NOT_FOUND {
            return Ok(None);
        }
        check(code).map(|()| Some(Self(key)))
    }

    fn create(name: &str) -> io::Result<Self> {
        let (path, mut key) = (path(name), null_mut());
        // SAFETY: the path ends with a NUL; both outlive the call; the null arguments are optional.
        let code = unsafe {
            RegCreateKeyExW(
                HKEY_LOCAL_MACHINE,
                path.as_ptr(),
                0,
                null(),
                REG_OPTION_NON_VOLATILE,
                KEY_QUERY_VALUE | KEY_SET_VALUE,
                null(),
                &raw mut key,
                null_mut(),
            )
        };
        check(code).map(|()| Self(key))
    }

    /// Returns the value at this index, if it exists.
    fn value(&self, index: usize) -> io::Result<Option<Value>> {
        let index = u32::try_from(index).map_err(io::Error::other)?;
        // The maximum length of a name.
        let mut name = vec![0; 16_384];
        let mut data = vec![0; 1024];
        loop {
            let (mut name_len, mut data_len) = (len(&name)?, len(&data)?);
            let mut kind = 0;
            // SAFETY: the key is open; the buffers have the given lengths and outlive the call.
            let code = unsafe {
                RegEnumValueW(
                    self.0,
                    index,
                    name.as_mut_ptr(),
                    &raw mut name_len,
                    null(),
                    &raw mut kind,
                    data.as_mut_ptr(),
                    &raw mut data_len,
                )
            };
            match code {
                ERROR_NO_MORE_ITEMS => return Ok(None),
                ERROR_MORE_DATA => data.resize(data_len.max(len(&data)? * 2) as usize, 0),
                _ => {
                    check(code)?;
                    // The NUL is not counted, but it is present.
                    name.truncate(name_len as usize + 1);
                    data.truncate(data_len as usize);
                    return Ok(Some(Value { name, kind, data }));
                }
            }
        }
    }

    /// Sets a value. `name` includes its NUL.
    fn set(&self, name: &[u16], kind: u32, data: &[u8]) -> io::Result<()> {
        // SAFETY: the key is open; name and data are complete and outlive the call.
        check(unsafe { RegSetValueExW(self.0, name.as_ptr(), 0, kind, data.as_ptr(), len(data)?) })
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the key is open and owned. The call cannot fail on such a key.
        unsafe { RegCloseKey(self.0) };
    }
}

/// An open event source, closed on drop.
pub(crate) struct Source(HANDLE);

// SAFETY: the handle belongs to the process, not to a thread.
unsafe impl Send for Source {}

impl Reporter for Source {
    /// Opens the source. It also works for a name that is not registered; Event Viewer then has no
    /// texts for its events.
    fn open(source: &str) -> io::Result<Self> {
        #[cfg(feature = "message-table")]
        super::message_table::keep();
        let source = wide(source);
        // SAFETY: the name ends with a NUL and outlives the call; null is this machine.
        let handle = unsafe { RegisterEventSourceW(null(), source.as_ptr()) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(handle))
    }

    fn report(&self, event: Event, strings: [&str; 2]) -> io::Result<()> {
        let kind = match event.severity() {
            Severity::Info => EVENTLOG_INFORMATION_TYPE,
            Severity::Warning => EVENTLOG_WARNING_TYPE,
            Severity::Error => EVENTLOG_ERROR_TYPE,
        };
        let strings = strings.map(wide);
        let strings = strings.each_ref().map(|string| string.as_ptr());
        // SAFETY: the handle is open; there are two strings, which end with a NUL and outlive the
        // call; there are no data and no SID.
        let is_done = unsafe {
            ReportEventW(
                self.0,
                kind,
                0,
                event.id(),
                null_mut(),
                2,
                0,
                strings.as_ptr(),
                null(),
            )
        };
        if is_done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: the handle is open and owned. A failure cannot be reported.
        unsafe { DeregisterEventSource(self.0) };
    }
}

fn path(name: &str) -> Vec<u16> {
    wide(&format!(r"{SOURCES}\{name}"))
}

/// Converts a string to UTF-16 with a NUL.
fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

fn len<T>(buffer: &[T]) -> io::Result<u32> {
    u32::try_from(buffer.len()).map_err(io::Error::other)
}

/// Converts an error code. The registry returns errors and does not set the last error.
fn check(code: u32) -> io::Result<()> {
    if code == ERROR_SUCCESS {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(code.cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the values of the source's key, by name.
    fn values(name: &str) -> Option<Vec<(String, u32, Vec<u8>)>> {
        let Previous(values) = read(name).unwrap()?;
        let mut values: Vec<_> = values
            .into_iter()
            .map(|value| {
                let name = String::from_utf16(value.name.strip_suffix(&[0]).unwrap()).unwrap();
                (name, value.kind, value.data)
            })
            .collect();
        values.sort();
        Some(values)
    }

    fn registered(exe: &str) -> Option<Vec<(String, u32, Vec<u8>)>> {
        let file = wide(exe).into_iter().flat_map(u16::to_le_bytes).collect();
        Some(vec![
            ("EventMessageFile".into(), REG_EXPAND_SZ, file),
            (MARK.into(), REG_SZ, bytes(MAINSTAY.encode_utf16())),
            ("TypesSupported".into(), REG_DWORD, vec![7, 0, 0, 0]),
        ])
    }

    #[test]
    fn registering_and_undoing_leave_the_registry_as_it_was() {
        let name = "mainstay-test-source";
        let (first, second) = (r"C:\first\orders.exe", r"C:\second & third\orders.exe");
        assert_eq!(unregister(name).unwrap(), None);

        assert_eq!(register(name, Path::new(first)).unwrap(), None);
        assert_eq!(values(name), registered(first));

        let previous = register(name, Path::new(second)).unwrap();
        assert_eq!(values(name), registered(second));
        restore(name, previous.as_ref()).unwrap();
        assert_eq!(values(name), registered(first));

        let foreign = vec![1; 5000];
        let key = Key::create(name).unwrap();
        key.set(&wide("CategoryMessageFile"), 3, &foreign).unwrap();
        drop(key);
        let before = values(name);
        let previous = unregister(name).unwrap();
        assert_eq!(values(name), None);
        restore(name, previous.as_ref()).unwrap();
        assert_eq!(values(name), before);

        unregister(name).unwrap();
        restore(name, None).unwrap();
        assert_eq!(values(name), None);
    }

    /// Such as `mysql` or `postgresql`, whose texts would be lost.
    #[test]
    fn a_source_of_another_program_is_left_alone() {
        let name = "mainstay-test-foreign";
        let key = Key::create(name).unwrap();
        let file = bytes(r"C:\mysql\mysqld.exe".encode_utf16());
        key.set(&wide("EventMessageFile"), REG_EXPAND_SZ, &file)
            .unwrap();
        drop(key);
        let before = values(name);
        let error = register(name, Path::new(r"C:\orders.exe")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(50));
        assert_eq!(values(name), before);
        assert_eq!(unregister(name).unwrap(), None);
        assert_eq!(values(name), before);
        restore(name, None).unwrap();
    }

    #[test]
    fn events_are_taken() {
        let source = Source::open("mainstay-test-source").unwrap();
        for event in Event::ALL {
            source.report(*event, ["words", "{}"]).unwrap();
        }
    }
}
