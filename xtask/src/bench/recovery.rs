//! The time from exit code 201 to a service that runs again on its last stable state, compared with
//! the minimum cost of copying the same data.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Programs;
use super::run::{Run, Side, place};
use super::scenarios::{Goal, Scenario, row};
use crate::Result;

/// The size of the state: this many files of this many bytes, all of them different and without
/// holes.
const FILES: usize = 20;
const FILE_SIZE: usize = 5_000_000;

pub(crate) const RECOVERY: Scenario = Scenario {
    name: "recovery",
    bound: Some(Side::Bare),
    measure,
    rows: &[
        row(
            "exit 201 → first instruction after a restore of 100 MB; cp -a, sync",
            "ms",
            Goal::MaxRatio(2.0),
        ),
        row("the same; cp -a alone", "ms", Goal::MaxRatio(4.0)),
    ],
};

fn measure(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    let dir = place()?;
    let data = dir.path().join("data");
    fs::create_dir(&data)?;
    for index in 0..FILES {
        fs::write(data.join(format!("file{index}")), noise(index as u64 + 1))?;
    }
    fs::write(data.join("state"), "good")?;
    // Pending writes must not count for either side.
    shell(dir.path(), "sync -f data")?;
    match side {
        Side::Mainstay => {
            let time = recover(programs, dir)?;
            Ok(vec![time, time])
        }
        _ => {
            let copied = shell(dir.path(), "cp -a data copy")?;
            shell(dir.path(), "rm -r copy && sync -f data")?;
            let safe = shell(dir.path(), "cp -a data copy && sync -f copy")?;
            Ok(vec![safe, copied])
        }
    }
}

fn recover(programs: &Programs, dir: tempfile::TempDir) -> Result<f64> {
    let path = dir.path().to_owned();
    let state = path.join("data/state");
    let argv = [
        programs.stamp.display().to_string(),
        path.join("records").display().to_string(),
        "state".to_owned(),
        state.display().to_string(),
    ];
    let manifest = path.join("manifest.toml");
    let text = format!(
        "environment = \"development\"\n[service.svc]\ncommand = {argv:?}\n\
         snapshot = {{ paths = [{:?}], after = \"100ms\" }}\n",
        path.join("data")
    );
    fs::write(&manifest, text)?;
    let mainstay = |args: &[&str]| {
        let mut command = Command::new(&programs.mainstay);
        command
            .args(args)
            .env("MAINSTAY_STATE_DIR", path.join("state"));
        command
    };
    let mut command = mainstay(&["run"]);
    command.arg(&manifest);
    let mut run = Run::launch(dir, Side::Mainstay, command)?;
    run.wait_for("S", 1)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let kept = path.join("state/snapshots/svc");
    let is_whole = |entry: fs::DirEntry| entry.path().join("index.sha256").exists();
    let is_kept = || {
        let entries = fs::read_dir(&kept).into_iter().flatten().flatten();
        let mut visible =
            entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        visible.any(is_whole)
    };
    while !is_kept() {
        if Instant::now() > deadline {
            return Err("its state is not kept".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::write(&state, "bad")?;
    let status = mainstay(&["restart", "svc"]).status()?;
    if !status.success() {
        return Err(format!("restart: {status}").into());
    }
    run.wait_for("S", 3)?;
    let records = run.records("SE");
    let at = records.iter().rposition(|record| record.kind == 'E');
    let pair = at.and_then(|at| Some((&records[at], records.get(at + 1)?)));
    let (end, start) = pair.ok_or("no start after 201")?;
    if !fs::read(&state)?.starts_with(b"good") {
        return Err("it runs on another state".into());
    }
    Ok((start.ns - end.ns) as f64 / 1e6)
}

/// Runs a script and returns its duration in milliseconds.
fn shell(dir: &Path, script: &str) -> Result<f64> {
    let began = Instant::now();
    let status = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .status()?;
    if status.success() {
        Ok(began.elapsed().as_secs_f64() * 1e3)
    } else {
        Err(format!("{script}: {status}").into())
    }
}

/// Returns bytes that no file system can compress (xorshift64).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(FILE_SIZE / 8).flatten().collect()
}
