//! Windows besides the Service Control Manager's own interface: `sc.exe`, `Get-Service` and the
//! registry.

use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Part, Source, words};

use super::{known, tool, unknown};
use crate::installed::Installed;

/// `REG_DWORD` 4 of `Start`: `SERVICE_DISABLED`; 3: `SERVICE_DEMAND_START` (winsvc.h).
const ON_DEMAND: u32 = 3;

/// Collects the evidence.
pub(super) fn ask(installed: &Installed, part: Part) -> Vec<Evidence> {
    let name = installed.manager_name();
    vec![sc(name, part), get_service(name, part), registry(name)]
}

/// Asks `sc.exe queryex`, or `query`, which shows no process ID, if that answers nothing (Wine).
fn sc(name: &str, part: Part) -> Evidence {
    const SOURCE: Source = Source::Tool("sc.exe");
    for verb in ["queryex", "query"] {
        let asked = format!("sc.exe {verb} {name}");
        let output = match tool::run(&["sc.exe", verb, name]) {
            Ok(output) => output,
            Err(why) => return unknown(SOURCE, asked, why),
        };
        if let Some((state, pid)) = words::of_sc(&output.text) {
            let words = match pid {
                Some(pid) => format!("{} {state}, pid {pid}", words::scm_of(state)),
                None => format!("{} {state}", words::scm_of(state)),
            };
            let claims = Claim::of_unit(part, state, pid);
            return known(SOURCE, asked, Observation::new(words).claim(claims));
        }
    }
    let asked = format!("sc.exe queryex {name}");
    unknown(SOURCE, asked, "its output shows no state")
}

fn get_service(name: &str, part: Part) -> Evidence {
    const SOURCE: Source = Source::Tool("Get-Service");
    // Names of services contain no quotes.
    let command = format!("(Get-Service -Name '{name}').Status");
    let asked = format!("powershell -Command \"{command}\"");
    let argv = [
        "powershell.exe",
        "-NoProfile",
        "-NonInteractive",
        "-Command",
        &command,
    ];
    match tool::run(&argv) {
        Ok(output) => match words::of_get_service(&output.text) {
            Some(state) => {
                let claims = Claim::of_unit(part, state, None);
                let observation = Observation::new(output.text.trim()).claim(claims);
                known(SOURCE, asked, observation)
            }
            None => unknown(SOURCE, asked, "its output shows no state"),
        },
        Err(why) => unknown(SOURCE, asked, why),
    }
}

/// Reads how the service starts, and whether it is marked for deletion.
fn registry(name: &str) -> Evidence {
    const SOURCE: Source = Source::Tool("system registry");
    let key = format!(r"HKLM\SYSTEM\CurrentControlSet\Services\{name}");
    let asked = format!("reg.exe query {key}");
    let output = match tool::run(&["reg.exe", "query", &key]) {
        Ok(output) if output.code == Some(0) => output,
        Ok(_) => return unknown(SOURCE, asked, "the key cannot be read"),
        Err(why) => return unknown(SOURCE, asked, why),
    };
    let Some(start) = words::of_reg(&output.text, "Start") else {
        return unknown(SOURCE, asked, "it does not contain how the service starts");
    };
    let is_deleted = words::of_reg(&output.text, "DeleteFlag").is_some_and(|flag| flag != 0);
    let deleted = is_deleted.then_some(Claim::Deviation(Deviation::MarkedForDelete));
    let words = match start {
        0..ON_DEMAND => "starts at boot",
        ON_DEMAND => "starts on demand",
        _ => "disabled",
    };
    known(SOURCE, asked, Observation::new(words).claim(deleted))
}
