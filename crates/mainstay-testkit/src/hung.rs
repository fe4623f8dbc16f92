//! A file system that does not respond, like a network mount whose server is down.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The opcode of linux/fuse.h.
const INIT: u32 = 26;

/// A FUSE mount on which every request hangs until [`HungMount::release`] or the drop.
pub struct HungMount {
    dir: PathBuf,
    device: Arc<Mutex<Option<File>>>,
    asked: Receiver<()>,
}

impl HungMount {
    /// Mounts over `dir`. Returns `None` if this user may not mount, or the system has no FUSE.
    pub fn cover(dir: &Path) -> Option<Self> {
        let mut device = OpenOptions::new();
        let device = device.read(true).write(true).open("/dev/fuse").ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o"]);
        mount.arg("fd=0,rootmode=40000,user_id=0,group_id=0,allow_other");
        mount.arg("hung").arg(dir);
        mount.stdin(Stdio::from(device.try_clone().ok()?));
        mount.status().ok()?.success().then_some(())?;
        let (tell, asked) = mpsc::channel();
        let mut reader = device.try_clone().ok()?;
        let device = Arc::new(Mutex::new(Some(device)));
        thread::spawn({
            let device = Arc::clone(&device);
            move || {
                let mut request = vec![0; 256 << 10];
                // Fails once it is unmounted or aborted.
                while reader.read(&mut request).is_ok() {
                    let code = [4, 5, 6, 7].map(|i: usize| request[i]);
                    match u32::from_ne_bytes(code) {
                        INIT => {
                            let mut answer = [0; 16 + 64];
                            answer[..4].copy_from_slice(&80_u32.to_ne_bytes());
                            answer[8..16].copy_from_slice(&request[8..16]);
                            answer[16..20].copy_from_slice(&7_u32.to_ne_bytes());
                            answer[20..24].copy_from_slice(&31_u32.to_ne_bytes());
                            answer[36..40].copy_from_slice(&4096_u32.to_ne_bytes());
                            let device = device.lock().unwrap_or_else(PoisonError::into_inner);
                            let _ = device.as_ref().map(|mut it| it.write(&answer));
                        }
                        _ => drop(tell.send(())),
                    }
                }
            }
        });
        let dir = dir.to_owned();
        Some(Self { dir, device, asked })
    }

    /// Waits until a request hangs.
    ///
    /// # Panics
    /// If none does within `limit`.
    #[track_caller]
    pub fn wait_until_asked(&self, limit: Duration) {
        let asked = self.asked.recv_timeout(limit);
        asked.expect("somebody asks for something on the hung mount");
    }

    /// Unmounts it. Hanging requests fail with an error.
    pub fn release(self) {}
}

impl Drop for HungMount {
    fn drop(&mut self) {
        // `-f` aborts pending requests, `-l` detaches the mount even if it is in use.
        let unmount = |flag| {
            Command::new("umount")
                .args(["-i", flag])
                .arg(&self.dir)
                .status()
        };
        let _ = (unmount("-f"), unmount("-l"));
        self.device
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}
