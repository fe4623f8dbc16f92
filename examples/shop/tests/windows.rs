//! Tests both services under the Service Control Manager, and in one process.
//!
//! Wine's manager starts a process for each service, also if they are registered to share one. Its
//! dispatcher in that process supports several services, though. The second test therefore sends
//! the requests of a manager to a process of its own, over the pipe that Wine's manager uses. The
//! process reports its states to Wine's manager.
#![cfg(windows)]

use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstay::{ServiceStatus, State, UNDER_SCM};
use mainstay_testkit::scm_windows::output;
use mainstay_testkit::wait_until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use tokio::runtime::Runtime;

const SOON: Duration = Duration::from_secs(30);
const SERVICES: &str = r"HKLM\SYSTEM\CurrentControlSet\Services";

/// Serializes the tests, because there is only one service of a name on a system.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn command(program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = output(Command::new(program).args(arguments), SOON);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.into_owned())
}

/// Runs a verb, which must exit with `code`, and returns its output.
#[track_caller]
fn shop(code: i32, arguments: &[&str]) -> String {
    let (exit, text) = command(env!("CARGO_BIN_EXE_shop"), arguments);
    assert_eq!(exit, Some(code), "{arguments:?}: {text}");
    text
}

#[track_caller]
fn status(name: &str) -> ServiceStatus {
    mainstay::service(name).status().expect("it is installed")
}

#[track_caller]
fn reaches(name: &str, state: State) {
    wait_until(&format!("{name} {state}"), SOON, || {
        (status(name).state == state).then_some(())
    });
}

#[test]
fn each_service_is_controlled_and_removed_on_its_own() {
    let _alone = alone();
    let said = shop(0, &["install"]);
    assert!(said.contains("shop-web: installed") && said.contains("shop-mail: installed"));
    for name in ["shop-web", "shop-mail"] {
        let key = format!(r"{SERVICES}\{name}");
        let (_, said) = command("reg", &["query", &key, "/v", "Type"]);
        assert!(said.contains("0x20"), "{said}");
        let (_, said) = command("reg", &["query", &key, "/v", "ImagePath"]);
        assert!(
            said.contains(r#"shop.exe" run --under-scm"#)
                || said.contains("shop.exe run --under-scm"),
            "{said}"
        );
    }
    shop(0, &["start"]);
    assert_eq!(shop(0, &["status"]).matches(": running, pid ").count(), 2);
    shop(0, &["stop", "shop-mail"]);
    shop(3, &["status"]);
    assert_eq!(status("shop-web").state, State::Running);
    shop(0, &["uninstall", "shop-mail"]);
    shop(4, &["status", "shop-mail"]);
    assert_eq!(status("shop-web").state, State::Running);
    shop(0, &["uninstall", "shop-web"]);
    shop(4, &["status", "shop-web"]);
}

/// The manager's end of the control pipe of a process.
struct Manager {
    runtime: Runtime,
    pipe: NamedPipeServer,
}

impl Manager {
    /// Wine's pipe for the next process that connects to the manager has this number.
    const NUMBER: &str = "61000";

    fn new() -> Self {
        let key = r"HKLM\SYSTEM\CurrentControlSet\Control\ServiceCurrent";
        let number = ["/t", "REG_DWORD", "/d", Self::NUMBER, "/f"];
        let add = ["add", key, "/ve"].into_iter().chain(number);
        let (code, said) = command("reg", &add.collect::<Vec<_>>());
        assert_eq!(code, Some(0), "{said}");
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        let path = format!(r"\\.\pipe\net\NtControlPipe{}", Self::NUMBER);
        let pipe = runtime.block_on(async { ServerOptions::new().create(path) });
        let pipe = pipe.expect("a pipe");
        Self { runtime, pipe }
    }

    fn wait_for_process(&self) {
        let connected = async { tokio::time::timeout(SOON, self.pipe.connect()).await };
        let connected = self.runtime.block_on(connected);
        connected.expect("it connects soon").expect("it connects");
    }

    /// Sends a control for a service, with arguments. Returns the error code of the answer.
    fn request(&mut self, control: u32, service: &str, arguments: &[&str]) -> u32 {
        /// "WINE".
        const MAGIC: u32 = 0x5749_4E45;
        let wide = |text: &str| text.encode_utf16().chain([0]).collect::<Vec<u16>>();
        let name = wide(service);
        let size = u32::try_from(name.len()).expect("a short name");
        let mut data = name;
        if !arguments.is_empty() {
            data.extend(arguments.iter().flat_map(|argument| wide(argument)));
            data.push(0);
        }
        let total = u32::try_from(16 + 2 * data.len()).expect("a short message");
        let head = [MAGIC, total, size, control];
        let mut message: Vec<u8> = head.into_iter().flat_map(u32::to_le_bytes).collect();
        message.extend(data.into_iter().flat_map(u16::to_le_bytes));
        let answer = async {
            self.pipe.write_all(&message).await?;
            self.pipe.read_u32_le().await
        };
        let answer = async { tokio::time::timeout(SOON, answer).await };
        let answer = self.runtime.block_on(answer).expect("it answers soon");
        answer.expect("it answers")
    }

    fn start(&mut self, service: &str, argument: &str) {
        const ALREADY_RUNNING: u32 = 1056;
        // The thread of a service may end a little later than the service.
        let error = wait_until("its start", SOON, || {
            let error = self.request(0, service, &[service, argument]);
            (error != ALREADY_RUNNING).then_some(error)
        });
        assert_eq!(error, 0);
        reaches(service, State::Running);
    }

    fn stop(&mut self, service: &str) {
        assert_eq!(self.request(1, service, &[]), 0);
        reaches(service, State::Stopped);
    }
}

#[test]
fn both_services_run_in_one_process_and_end_on_their_own() {
    let _alone = alone();
    shop(0, &["install"]);
    let mut manager = Manager::new();
    let mut process = Command::new(env!("CARGO_BIN_EXE_shop"))
        .args(["run", UNDER_SCM])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    manager.wait_for_process();
    manager.start("shop-web", "1");
    manager.start("shop-mail", "1");
    assert_eq!(status("shop-web").state, State::Running);

    // One is stopped and started again, while the other keeps running.
    manager.stop("shop-mail");
    assert_eq!(status("shop-mail").exit_code(), Some(0));
    assert_eq!(status("shop-web").state, State::Running);
    manager.start("shop-mail", "5");

    // One fails on a control of its own.
    assert_eq!(manager.request(200, "shop-mail", &[]), 0);
    reaches("shop-mail", State::Stopped);
    assert_eq!(status("shop-mail").exit_code(), Some(1));
    assert_eq!(status("shop-web").state, State::Running);
    assert!(process.try_wait().expect("its state").is_none());

    // The last one ends the process.
    manager.stop("shop-web");
    assert_eq!(status("shop-web").exit_code(), Some(0));
    wait_until("the end of the process", SOON, || {
        process.try_wait().expect("its state")
    });
    shop(0, &["uninstall"]);
}
