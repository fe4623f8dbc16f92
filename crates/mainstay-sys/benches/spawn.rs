//! The time to start, stop and remove 500 process trees, compared with bare starts by the standard
//! library.

#![expect(clippy::print_stdout, reason = "it prints the figures")]

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(trees::measure())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("only on Linux");
}

#[cfg(target_os = "linux")]
mod trees {
    use std::error::Error;
    use std::ffi::OsString;
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::path::Path;
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    use mainstay_core::spec::{Limits, Signal, StopAsk, StopScope};
    use mainstay_sys::{Command, Processes, Tree};

    const TREES: usize = 500;
    const ROUNDS: usize = 5;
    const SLEEP: &str = "/bin/sleep";

    pub(super) async fn measure() -> Result<(), Box<dyn Error>> {
        let mut processes = Processes::new("bench")?;
        println!("{TREES} trees, contained by {:?}", processes.containment());
        for _ in 0..ROUNDS {
            let bare = bare()?;
            let began = Instant::now();
            let trees = start(&mut processes)?;
            let started = began.elapsed();
            for tree in &trees {
                tree.ask_to_stop(StopAsk::Signal(Signal::Term), StopScope::Tree)?;
            }
            for tree in &trees {
                processes.reap();
                while !tree.is_empty() {
                    processes.changed().await;
                    processes.reap();
                }
            }
            let stopped = began.elapsed() - started;
            drop(trees);
            let removed = began.elapsed() - stopped - started;
            println!(
                "bare {bare:8.1?}   started {started:8.1?} ({:.2})   stopped {stopped:8.1?}   \
                 removed {removed:8.1?}",
                started.as_secs_f64() / bare.as_secs_f64(),
            );
        }
        Ok(())
    }

    /// Measures the starts of as many programs without supervision, and ends them.
    fn bare() -> Result<Duration, Box<dyn Error>> {
        let began = Instant::now();
        let start = |_| {
            let mut command = std::process::Command::new(SLEEP);
            command
                .arg("1000")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let children: Vec<Child> = (0..TREES).map(start).collect::<Result<_, _>>()?;
        let bare = began.elapsed();
        for mut child in children {
            child.kill()?;
            child.wait()?;
        }
        Ok(bare)
    }

    fn start(processes: &mut Processes) -> Result<Vec<Tree>, Box<dyn Error>> {
        let null = File::options().write(true).open("/dev/null")?;
        let argv = [SLEEP, "1000"].map(OsString::from);
        let env: Vec<_> = std::env::vars_os().collect();
        let command = Command {
            name: "orders",
            program: Path::new(SLEEP),
            argv: &argv,
            env: &env,
            working_dir: Path::new("/"),
            stdin: None,
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            user: None,
            priority: None,
            cpus: &[],
            sockets: &[],
            limits: Limits::default(),
            capabilities: &[],
        };
        let trees = (0..TREES).map(|_| processes.spawn(&command));
        trees
            .map(|tree| tree.map_err(|error| format!("{error:?}").into()))
            .collect()
    }
}
