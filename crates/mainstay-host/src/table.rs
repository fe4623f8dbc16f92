//! The table of services that `run`, `status` and `list` show.

use std::fmt::Write as _;
use std::time::Duration;

use mainstay_core::engine::{Human, HumanSeconds, StateName};
use mainstay_core::report::{ServiceReport, StatusReport};

use crate::output::Painted;

const HEAD: [&str; 8] = [
    "SERVICE", "STATE", "PID", "READY", "RESTARTS", "CPU", "MEMORY", "SINCE",
];
/// Columns of numbers are right-aligned.
const RIGHT: [bool; 8] = [false, false, true, false, true, true, true, true];

/// Returns the table: one row per service, followed by a line for each drift, remark and problem.
/// Ends with a newline.
pub fn status(report: &StatusReport) -> Painted {
    let rows: Vec<[String; 8]> = report.services.iter().map(row).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut table = Painted::default();
    line(&mut table, &HEAD.map(str::to_owned), widths, None);
    for (row, service) in rows.iter().zip(&report.services) {
        line(&mut table, row, widths, Some(paint(service)));
    }
    let mut text = String::new();
    for service in &report.services {
        for cause in service.drift.iter().flatten() {
            let _ = writeln!(
                text,
                "  {}: differs from its registered definition: {cause}",
                service.name
            );
        }
        let problems = service.log_problem.iter().chain(&service.state_problem);
        for remark in service.remark().iter().chain(problems) {
            let _ = writeln!(text, "  {}: {remark}", service.name);
        }
    }
    let supervisor = report.supervisor.as_ref();
    if let Some(problem) = supervisor.and_then(|it| it.problem.as_ref()) {
        let _ = writeln!(text, "  supervisor: {problem}");
    }
    table.push(&text);
    table
}

fn row(service: &ServiceReport) -> [String; 8] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    [
        service.name.clone(),
        service.state.to_string(),
        or_dash(service.pid.map(|pid| pid.to_string())),
        if service.ready { "yes" } else { "no" }.to_owned(),
        service.restarts.to_string(),
        or_dash(
            service
                .cpu_ms
                .map(|ms| Human(Duration::from_millis(ms)).to_string()),
        ),
        or_dash(service.memory_bytes.map(size)),
        or_dash(
            service
                .since_seconds
                .map(|seconds| HumanSeconds(seconds).to_string()),
        ),
    ]
}

fn line(
    table: &mut Painted,
    cells: &[String; 8],
    widths: [usize; 8],
    colour: Option<&'static str>,
) {
    for (i, cell) in cells.iter().enumerate() {
        let width = widths[i];
        let padded = if RIGHT[i] {
            format!("{cell:>width$}")
        } else {
            format!("{cell:<width$}")
        };
        match colour {
            Some(colour) if i == 1 => table.paint(colour, &padded),
            _ => table.push(&padded),
        }
        table.push(if i + 1 < cells.len() { "  " } else { "" });
    }
    table.trim_end();
    table.push("\n");
}

fn paint(service: &ServiceReport) -> &'static str {
    match service.state {
        StateName::Running => "\x1b[32m",
        StateName::Halted => "\x1b[1;31m",
        StateName::Stopped => "\x1b[2m",
        _ => "\x1b[33m",
    }
}

/// Formats a size in binary units. A unit is used from 10 of it on.
fn size(bytes: u64) -> String {
    let mut value = bytes;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024 * 10 {
            break;
        }
        value /= 1024;
        unit = next;
    }
    format!("{value} {unit}")
}
