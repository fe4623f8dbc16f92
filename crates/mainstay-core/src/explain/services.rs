//! Exit codes of services: the contract of docs/exit-codes.md.

use super::{Advice, Explanation, Kind};
use crate::engine::{signal_name, term};
use crate::windows::status;

/// Returns the exit code that stands for a signal, by the name of the signal.
pub(super) fn of_signal(name: &str) -> Option<i64> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let signal = (1..=15).find(|signal| signal_name(*signal) == Some(name))?;
    Some(128 + i64::from(signal))
}

/// Returns the explanation of an exit code. `number` is the code as it was typed.
pub(super) fn of(number: i64, code: i32) -> Explanation {
    let known = |name: &str, meaning: &str, advice| Explanation {
        kind: Kind::Service,
        number: Some(number),
        name: name.to_owned(),
        meaning: meaning.to_owned(),
        advice,
    };
    match code {
        0 => known(
            "success",
            "The program ended cleanly. The service is stopped.",
            SUCCESS,
        ),
        201 => known(
            term(code).unwrap_or_default(),
            "The state of the program failed to load. The previous stable snapshot is restored, and the program is started again. A service without a `snapshot` key is halted.",
            BAD_STATE,
        ),
        202 => known(
            term(code).unwrap_or_default(),
            "A dependency is temporarily unavailable. The program is started again after 100 ms × 2ⁿ, five times at most.",
            UNAVAILABLE,
        ),
        129..=192 => {
            let signal = code - 128;
            let name = signal_name(signal);
            let name = name.map_or(String::new(), |name| format!(" ({name})"));
            let advice = match signal {
                9 => KILLED,
                15 | 1 | 2 => ASKED,
                _ => CRASHED,
            };
            known(
                &format!("killed by signal {signal}{name}"),
                "A signal ended the program. It is restarted with backoff, after an alert.",
                advice,
            )
        }
        1..=255 => known(
            "failure",
            "The code is not in the contract. The program is restarted with backoff, after an alert.",
            OTHER,
        ),
        _ => known(
            &match status::name_of(code) {
                Some(name) => format!("{code:#X}, {name}"),
                None => format!("{code:#X}"),
            },
            "A code that only programs on Windows have; on Unix, exit codes end at 255. The program is restarted with backoff, after an alert.",
            WINDOWS,
        ),
    }
}

const SUCCESS: Advice = Advice {
    cause: "The program has finished its work, or was asked to stop. A program that goes into the background also exits with 0.",
    action: "If the program is to run always, keep it in the foreground; to restart it after a clean end, set an action for 0.",
    example: "recovery = { codes = { 0 = \"restart\" } }",
};
const BAD_STATE: Advice = Advice {
    cause: "The files of the program are damaged, or were written by a newer version.",
    action: "See which snapshot was restored with `mainstay events NAME`. If there was none, the service is halted: repair the files, or restore one of `mainstay snapshot list NAME`, then start the service.",
    example: "snapshot = { paths = [\"/var/lib/orders\"], keep = 5 }",
};
const UNAVAILABLE: Advice = Advice {
    cause: "A database, a queue or another service that the program needs did not answer.",
    action: "Start the dependency. If it takes longer than the retries, wait for it before the start.",
    example: "wait_for = [{ tcp = \"db.example.com:5432\", deadline = \"2m\" }]",
};
const KILLED: Advice = Advice {
    cause: "The system had no memory left, a memory limit was exceeded, or somebody ran `kill -9`.",
    action: "Look for `out of memory` in the system's log (`dmesg`, `journalctl -k`), and for the end in `mainstay events NAME`.",
    example: "mainstay events NAME -n 5",
};
const ASKED: Advice = Advice {
    cause: "Another program or person asked the process to end. A stop by mainstay counts as a success and is not shown as a failure.",
    action: "Find out who sends the signal; use `mainstay stop NAME` instead. If this is the regular end of the program, set an action for the code.",
    example: "recovery = { codes = { 143 = \"stop\" } }",
};
const CRASHED: Advice = Advice {
    cause: "The program crashed: an invalid memory access, an illegal instruction or an abort.",
    action: "Read the last lines of its output with `mainstay logs NAME`, and examine its core dump, if there is one.",
    example: "mainstay logs NAME -n 50",
};
const OTHER: Advice = Advice {
    cause: "The program failed. The meaning of the code is the program's own: see its documentation and its output.",
    action: "Read the last lines of its output with `mainstay logs NAME`. If another action fits the code, set it.",
    example: "recovery = { codes = { 3 = \"halt\" } }   # or stop, restart, retry, restore",
};
const WINDOWS: Advice = Advice {
    cause: "An error of Windows (such as 1053), an HRESULT (0x8...), an NTSTATUS by which Windows ended the program (0xC...), or a code of the program's own.",
    action: "See the text of the code on Windows with `certutil -error CODE`, and the last lines of the output with `mainstay logs NAME`.",
    example: "certutil -error 0xC0000005",
};
