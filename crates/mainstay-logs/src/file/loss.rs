//! Output that the disk does not accept: it is counted, and reported in the log once a write
//! succeeds again.

use std::io;

use mainstay_core::log::{Extent, fitting};

use super::{End, LogFile, copy};
use crate::disk::Disk;
use crate::report::{FileError, Lost, Report, Task, file_error};

/// The maximum length of a torn line that is cut off again, so that the log contains whole lines
/// only. A longer one is kept as evidence.
const TORN_MAX: u64 = 64 << 10;

/// The state while bytes are being lost.
pub(super) struct Losing {
    pub(super) lost: Lost,
    pub(super) error: io::Error,
    /// Set if the last lost byte was inside a line, whose rest is lost with it.
    pub(super) mid_line: bool,
}

/// Output that was lost and is not yet reported in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreported {
    pub(crate) lost: Lost,
    /// See [`Losing::mid_line`].
    pub(crate) mid_line: bool,
    /// The system's error number, if the cause has one.
    pub(crate) error: Option<i32>,
}

impl<D: Disk> LogFile<D> {
    /// Returns the lost output that the log does not report yet.
    pub(crate) fn unreported(&self) -> Option<Unreported> {
        let losing = self.losing.as_ref()?;
        Some(Unreported {
            lost: losing.lost,
            mid_line: losing.mid_line,
            error: losing.error.raw_os_error(),
        })
    }

    /// Takes over the losses that an earlier writer of these files could not report.
    pub(crate) fn inherit(&mut self, unreported: Unreported) {
        let Unreported {
            lost,
            mid_line,
            error,
        } = unreported;
        let unknown = || io::Error::other("the disk did not take them");
        let error = error.map_or_else(unknown, io::Error::from_raw_os_error);
        let failing = file_error("write", &self.path, copy(&error));
        self.reports.push(Report::Failing(Task::Writing, failing));
        self.losing = Some(Losing {
            lost,
            error,
            mid_line,
        });
    }

    /// Returns the total output lost so far.
    pub(crate) fn lost(&self) -> Lost {
        let mut lost = self.lost;
        if let Some(losing) = &self.losing {
            lost += losing.lost;
        }
        lost
    }

    /// Reports lost output in the log that has not been reported yet.
    pub(crate) fn finish(&mut self) {
        if let Some(losing) = &mut self.losing {
            losing.mid_line = false;
            self.recover(&[]);
        }
    }

    /// Starts counting losses: `bytes`, and the torn line before them if it can be cut off.
    pub(super) fn lose(&mut self, bytes: &[u8], file_error: FileError) {
        let mut losing = Losing {
            lost: Lost::default(),
            error: copy(&file_error.error),
            mid_line: !bytes.is_empty() && !bytes.ends_with(b"\n"),
        };
        losing.lost.count(bytes);
        if let (Some(line_start), false) = (self.torn_line(), bytes.is_empty())
            && let Some(current) = &mut self.current
            && self.disk.truncate(&current.file, line_start).is_ok()
        {
            losing.lost.bytes += current.size - line_start;
            current.size = line_start;
            self.index.checked = false;
            current.end = Some(End {
                mid_line: false,
                line_start: Some(line_start),
            });
        }
        self.losing = Some(losing);
        self.reports
            .push(Report::Failing(Task::Writing, file_error));
    }

    /// Returns where the unfinished last line begins, if it is short and was written entirely by
    /// this process, so that it can be cut off.
    fn torn_line(&self) -> Option<u64> {
        let current = self.current.as_ref()?;
        let oldest = current.size.saturating_sub(TORN_MAX);
        match current.end {
            Some(End {
                mid_line: false, ..
            }) => return None,
            Some(End {
                line_start: Some(line_start),
                ..
            }) => return Some(line_start).filter(|start| *start >= oldest),
            _ => {}
        }
        let oldest = oldest.max(current.ours);
        // Another writer wrote the line on behalf of this one, so the line begins after the end of
        // another line, or at the start of the file.
        let from = oldest.saturating_sub(1);
        let mut bytes = vec![0; usize::try_from(current.size - from).ok()?];
        let read = self.disk.read_at(&current.file, &mut bytes, from).ok()?;
        if read < bytes.len() {
            return None;
        }
        let line_start = match memchr::memrchr(b'\n', &bytes) {
            Some(end) => Some(from + end as u64 + 1),
            None => (oldest == 0).then_some(0),
        };
        line_start.filter(|start| *start < current.size)
    }

    /// Tries to write again: the message about the loss, then the lines of `bytes` that fit. Either
    /// all of it is written and the rest is returned, or nothing is written and all of `bytes` is
    /// lost too. Otherwise a disk with room for the message alone would fill with messages.
    pub(super) fn recover<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(mut losing) = self.losing.take() else {
            return bytes;
        };
        let end_of_lost = match memchr::memchr(b'\n', bytes) {
            _ if !losing.mid_line => 0,
            Some(end) => end + 1,
            None => bytes.len(),
        };
        let (rest_of_line, rest) = bytes.split_at(end_of_lost);
        losing.lost.count(rest_of_line);
        losing.mid_line &= !rest_of_line.ends_with(b"\n");
        match self.try_recover(&losing, rest) {
            Some(taken) => {
                self.lost += losing.lost;
                let recovered = Report::Recovered(Task::Writing, losing.lost);
                self.reports.push(recovered);
                &rest[taken..]
            }
            None => {
                losing.lost.count(rest);
                if !bytes.is_empty() {
                    losing.mid_line = !bytes.ends_with(b"\n");
                }
                self.losing = Some(losing);
                &[]
            }
        }
    }

    fn try_recover(&mut self, losing: &Losing, bytes: &[u8]) -> Option<usize> {
        if losing.mid_line {
            return None;
        }
        let before = self.ready().ok()?;
        let end = self.current.as_ref()?.end;
        let mut message = Vec::new();
        if losing.lost.bytes > 0 {
            if before.mid_line {
                message.push(b'\n');
            }
            let Lost { bytes, lines } = losing.lost;
            let error = &losing.error;
            message.extend(
                format!("mainstay: {bytes} bytes ({lines} lines) were lost: {error}\n").bytes(),
            );
        }
        let extent = Extent {
            size: before.size + message.len() as u64,
            mid_line: before.mid_line && message.is_empty(),
        };
        // 0 means "rotate first", which the next append does.
        let taken = fitting(extent, self.rotate_at, bytes);
        let put = self.put(&message).and_then(|()| self.put(&bytes[..taken]));
        if put.is_err() {
            let current = self.current.as_mut()?;
            if self.disk.truncate(&current.file, before.size).is_ok() {
                self.index.checked = false;
                current.size = before.size;
                current.end = end;
            }
        }
        put.ok().map(|()| taken)
    }
}
