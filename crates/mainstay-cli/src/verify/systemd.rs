//! systemd besides `systemctl`: its properties over D-Bus, the unit's control group, the journal.

use mainstay::Scope;
use mainstay_core::engine::StateName;
use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Part, Source, words};
use serde_json::Value;

use super::{cgroup, known, tool, unknown};
use crate::installed::Installed;

/// The messages of systemd about a unit (catalog of systemd.journal-fields(7)), and what follows.
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
const STARTING: &str = "7d4958e842da4a758f6c1cdc7b36dcc5";
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";
const STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
const SUCCEEDED: &str = "7ad2d189f7e94e70a38c781354912448";
const ENDED: &str = "d9b373ed55a64feb8242e02dbe79a49c";
const FAILED: &str = "be02cf6855d2428ba40df7e9d022f03d";

/// Collects the evidence.
pub(super) fn ask(installed: &Installed, part: Part) -> Vec<Evidence> {
    let mut evidence = vec![dbus(installed, part)];
    evidence.extend(cgroup::unit_dir(installed).map(|dir| {
        let parts = match part {
            Part::Host => &[Part::Host, Part::Program][..],
            Part::Program => &[Part::Program],
        };
        cgroup::read(Source::UnitCgroup, &dir, parts)
    }));
    evidence.push(journal(installed, part));
    evidence
}

fn is_user(installed: &Installed) -> bool {
    installed.record().scope() == Scope::User
}

/// Returns the name of a unit's object (`sd_bus_path_encode(3)`).
fn object(unit: &str) -> String {
    let escaped = unit.bytes().enumerate().map(|(at, byte)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        b'0'..=b'9' if at > 0 => char::from(byte).to_string(),
        byte => format!("_{byte:02x}"),
    });
    format!(
        "/org/freedesktop/systemd1/unit/{}",
        escaped.collect::<String>()
    )
}

/// Reads the properties of the unit (org.freedesktop.systemd1(5)) with busctl(1).
fn dbus(installed: &Installed, part: Part) -> Evidence {
    const SOURCE: Source = Source::Tool("D-Bus");
    let unit = format!("{}.service", installed.manager_name());
    let (path, bus) = (
        object(&unit),
        if is_user(installed) {
            "--user"
        } else {
            "--system"
        },
    );
    let properties = |interface: &str| {
        let interface = format!("org.freedesktop.systemd1.{interface}");
        let output = tool::run(&[
            "busctl",
            bus,
            "--json=short",
            "--timeout=5",
            "call",
            "org.freedesktop.systemd1",
            &path,
            "org.freedesktop.DBus.Properties",
            "GetAll",
            "s",
            &interface,
        ])?;
        if output.code != Some(0) || output.text.trim().is_empty() {
            return Err("systemd did not answer over D-Bus".to_owned());
        }
        let document: Value = serde_json::from_str(&output.text)
            .map_err(|error| format!("the answer is not understood: {error}"))?;
        Ok(document["data"][0].clone())
    };
    let asked = format!("busctl introspect org.freedesktop.systemd1 {path}");
    let both = properties("Unit").and_then(|unit| Ok((unit, properties("Service")?)));
    let (unit, service) = match both {
        Ok(both) => both,
        Err(why) => return unknown(SOURCE, asked, why),
    };
    let text = |of: &Value, name: &str| of[name]["data"].as_str().unwrap_or_default().to_owned();
    let (active, sub) = (text(&unit, "ActiveState"), text(&unit, "SubState"));
    let Some(state) = words::of_systemd(&active) else {
        return unknown(SOURCE, asked, format!("its ActiveState is `{active}`"));
    };
    let pid = service["MainPID"]["data"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok());
    let pid = pid.filter(|pid| *pid != 0);
    let words = match pid {
        Some(pid) => format!("{active} ({sub}), pid {pid}"),
        None => format!("{active} ({sub})"),
    };
    let is_old = unit["NeedDaemonReload"]["data"] == true;
    let old = is_old.then_some(Claim::Deviation(Deviation::NotReloaded));
    // Between two runs, the unit is `activating` without a process.
    let state = if active == "activating" && sub == "auto-restart" {
        StateName::StartPending
    } else if text(&unit, "FreezerState") == "frozen" {
        StateName::Paused
    } else {
        state
    };
    let claims = Claim::of_unit(part, state, pid);
    known(
        SOURCE,
        asked,
        Observation::new(words).claim(claims).claim(old),
    )
}

/// Reads the last message of systemd about the unit.
fn journal(installed: &Installed, part: Part) -> Evidence {
    let unit = format!("{}.service", installed.manager_name());
    let (field, scope) = if is_user(installed) {
        ("USER_UNIT", "--user")
    } else {
        ("UNIT", "--system")
    };
    let asked = format!("journalctl {field}={unit} -b -n 1");
    let mut argv = vec!["journalctl".to_owned(), scope.to_owned()];
    let options = [
        "--quiet",
        "--no-pager",
        "--boot",
        "--lines=2",
        "--reverse",
        "--output=json",
    ];
    argv.extend(options.map(str::to_owned));
    argv.push(format!("{field}={unit}"));
    let messages = [
        STARTED, STARTING, STOPPED, STOPPING, SUCCEEDED, ENDED, FAILED,
    ];
    argv.extend(messages.map(|id| format!("MESSAGE_ID={id}")));
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let output = match tool::run(&argv) {
        Ok(output) => output,
        Err(why) => return unknown(Source::Journal, asked, why),
    };
    let lines = output
        .text
        .lines()
        .map_while(|line| serde_json::from_str(line).ok());
    let entries: Vec<Value> = lines.collect();
    let is = |entry: &Value, ids: &[&str]| {
        let id = entry["MESSAGE_ID"].as_str();
        id.is_some_and(|id| ids.contains(&id))
    };
    let entry = match &*entries {
        // The start of a program that ends at once is reported after its end.
        [last, end] if is(last, &[STARTED]) && is(end, &[SUCCEEDED, ENDED]) => {
            let run = ["INVOCATION_ID", "USER_INVOCATION_ID"];
            let is_same = run.iter().all(|field| last[*field] == end[*field]);
            Some(if is_same { end } else { last })
        }
        entries => entries.first(),
    };
    let Some(entry) = entry else {
        let why =
            "it shows this user no message of systemd about the unit since the system started";
        return unknown(Source::Journal, asked, why);
    };
    let claim = match entry["MESSAGE_ID"].as_str() {
        Some(STARTED) => Some(Claim::Process(part, None)),
        Some(STOPPED | SUCCEEDED | ENDED | FAILED) => Some(Claim::NoProcess(part)),
        _ => None,
    };
    let text = entry["MESSAGE"].as_str().unwrap_or_default();
    let text = mainstay_core::terminal::escape(text).into_owned();
    known(Source::Journal, asked, Observation::new(text).claim(claim))
}
