//! Pictures of terminals of many sizes. `snapshots/` has them as they are seen.

use mainstay_core::events::LastEvent;
use mainstay_core::report::{LastExit, SupervisorReport};
use vt100::Parser;

use super::*;

/// Services in all states that need explaining.
fn report() -> StatusReport {
    let service = |name: &str, state: StateName| ServiceReport {
        state,
        since_seconds: Some(7_384),
        ..ServiceReport::embedded(name)
    };
    let running = |name: &str, pid: u32, cpu_ms: u64| ServiceReport {
        pid: Some(pid),
        ready: true,
        cpu_ms: Some(cpu_ms),
        run_ms: Some(7_400_000),
        memory_bytes: Some(u64::from(pid) << 16),
        ..service(name, StateName::Running)
    };
    let exit = |code| LastExit {
        code: Some(code),
        signal: None,
    };
    let mut services = vec![
        running("orders", 4211, 9_500_000),
        running("db", 812, 411_000),
        ServiceReport {
            restarts: 14,
            crash_looping: true,
            last_exit: Some(exit(1)),
            detail: Some("exit code 1".to_owned()),
            next_try_seconds: Some(42),
            since_seconds: Some(18),
            ..service("mailer", StateName::BackingOff)
        },
        ServiceReport {
            last_exit: Some(exit(7)),
            detail: Some("exit code 7; its recovery policy does not restart it".to_owned()),
            ..service("billing-reconciliation", StateName::Halted)
        },
        ServiceReport {
            detail: Some(
                "waiting for tcp 10.20.30.40:5432: connection refused; 検索サービス は データベース を 待っています"
                    .to_owned(),
            ),
            ..service("search", StateName::Waiting)
        },
        service("reports", StateName::Stopped),
    ];
    services[1].detail = Some("accepting connections\tsince\nnoon \u{1b}[2J".to_owned());
    services[0].log_problem = Some("cannot write its log: the disk is full".to_owned());
    StatusReport {
        supervisor: Some(SupervisorReport {
            pid: 800,
            alive: true,
            problem: None,
            replaced: None,
        }),
        services,
    }
}

/// Returns the screen of a terminal that shows a text from its first line on.
#[track_caller]
fn screen(text: &str, rows: usize, columns: usize) -> String {
    let size = |number: usize| u16::try_from(number).expect("a small terminal");
    let mut terminal = Parser::new(size(rows), size(columns), 1000);
    terminal.process(text.replace('\n', "\r\n").as_bytes());
    let contents = terminal.screen().contents();
    assert_eq!(contents, text.trim_end(), "no line wraps by itself");
    contents
}

/// Compares with the picture in `snapshots/NAME.snap`.
#[track_caller]
fn check(name: &str, picture: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, picture);
    });
}

#[test]
fn status_fits_terminals_of_all_widths() {
    for columns in [40, 80, 120, 300] {
        let shown = status(&report(), Some(columns));
        check(
            &format!("status-{columns}"),
            &screen(shown.text(), 60, columns),
        );
    }
    for columns in 1..=300 {
        let shown = status(&report(), Some(columns));
        let most = shown.text().lines().map(width).max();
        assert!(
            most.is_some_and(|most| most <= columns.max(25)),
            "{columns}: {most:?}"
        );
    }
}

#[test]
fn restarts_that_nobody_counts_are_not_shown_as_none() {
    let row = |service: ServiceReport| {
        let services = vec![service];
        let report = StatusReport {
            services,
            supervisor: None,
        };
        let shown = status(&report, None);
        let row = shown.text().lines().nth(1).expect("a row").to_owned();
        row.split_whitespace().nth(4).expect("a cell").to_owned()
    };
    let supervised = ServiceReport::embedded("reports");
    let left = ServiceReport {
        last_event: Some(LastEvent {
            time: "2026-11-22T10:11:12.123Z".to_owned(),
            event: "stopped".to_owned(),
            message: "stopped".to_owned(),
            is_unseen: false,
        }),
        ..supervised.clone()
    };
    // The report of a halted service was stored with their number.
    let halted = ServiceReport {
        restarts: 14,
        ..left.clone()
    };
    assert_eq!([supervised, left, halted].map(row), ["0", "-", "14"]);
}

#[test]
fn nothing_is_cut_in_a_file() {
    let mut report = report();
    report.services[3].detail = Some("x".repeat(4000));
    let shown = status(&report, None);
    assert!(shown.text().contains(&"x".repeat(4000)));
    assert!(!shown.text().contains('…'));
    report.services.truncate(3);
    check("status-file", status(&report, None).text());
}

#[test]
fn a_reason_is_cut_in_the_table_only() {
    let report = report();
    for columns in 40..200 {
        let shown = status(&report, Some(columns));
        let words: Vec<&str> = shown.text().split_whitespace().collect();
        let text = words.join(" ");
        for part in ["policy does not restart it", "next start in 42s"] {
            assert!(text.contains(part), "{columns}: {}", shown.text());
        }
    }
}

fn live_picture(services: usize, rows: usize, columns: usize) -> String {
    let mut report = report();
    let states = [StateName::Running, StateName::Running, StateName::Stopped];
    for number in report.services.len()..services {
        report.services.insert(
            0,
            ServiceReport {
                state: states[number % states.len()],
                ..ServiceReport::embedded(&format!("worker-{number}"))
            },
        );
    }
    let recent: VecDeque<String> = (0..8)
        .map(|second| {
            format!(
                "12:00:0{second}.000   mailer  started again, pid 999{second} (restart {second})"
            )
        })
        .collect();
    let size = Size { rows, columns };
    let shown = live(&report, &Usage::default(), &recent, size);
    let lines: Vec<&str> = shown.text().lines().collect();
    assert!(lines.len() < rows, "{services} in {rows} x {columns}");
    let most = lines.iter().map(|line| width(line)).max().unwrap_or(0);
    assert!(most <= columns.max(25), "{services} in {rows} x {columns}");
    shown.text().to_owned()
}

#[test]
fn the_live_table_fits_the_terminal() {
    for (services, rows, columns) in [(6, 24, 80), (6, 40, 120), (60, 16, 100), (60, 10, 40)] {
        let picture = live_picture(services, rows, columns);
        check(
            &format!("run-{services}-services-{columns}x{rows}"),
            &screen(&picture, rows, columns),
        );
    }
    for services in [0, 1, 6, 7, 60] {
        for rows in 1..40 {
            for columns in [1, 20, 40, 80, 120] {
                live_picture(services, rows, columns);
            }
        }
    }
}

#[test]
fn services_that_need_attention_are_never_hidden_by_others() {
    let picture = live_picture(500, 12, 80);
    for name in ["billing-reconciliation", "mailer", "search"] {
        assert!(picture.contains(name), "{picture}");
    }
    assert!(picture.contains("more: "), "{picture}");
}

#[test]
fn a_single_service_is_not_hidden_behind_its_count() {
    for services in 1..30 {
        let picture = live_picture(services, 14, 80);
        assert!(!picture.contains("… 1 more: "), "{services}: {picture}");
    }
}

#[test]
fn cpu_usage_is_that_since_the_last_measurement() {
    let at = |pid, cpu_ms, run_ms| StatusReport {
        supervisor: None,
        services: vec![ServiceReport {
            pid: Some(pid),
            cpu_ms: Some(cpu_ms),
            run_ms: Some(run_ms),
            ..ServiceReport::embedded("a")
        }],
    };
    let mut usage = Usage::default();
    let mut check = |report: StatusReport, percent| {
        usage.update(&report);
        assert_eq!(usage.percent(&report.services[0]), Some(percent));
    };
    // Since the start, as nothing was measured before.
    check(at(1, 5_000, 10_000), 50.0);
    check(at(1, 5_250, 11_000), 25.0);
    // An event makes the table be drawn at once.
    check(at(1, 5_299, 11_050), 25.0);
    check(at(1, 7_250, 12_000), 200.0);
    // Another run.
    check(at(2, 10, 100), 10.0);
    let unmeasured = at(1, 0, 0);
    assert_eq!(Usage::default().percent(&unmeasured.services[0]), Some(0.0));
    for (percent, expected) in [
        (0.0, "0.0 %"),
        (9.94, "9.9 %"),
        (9.96, "10 %"),
        (150.4, "150 %"),
    ] {
        assert_eq!(percentage(percent), expected);
    }
}
