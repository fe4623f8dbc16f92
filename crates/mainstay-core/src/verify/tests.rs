use super::*;

const SUBJECT: Subject<'_> = Subject {
    name: "orders",
    manager: "systemd",
};

fn said(source: Source, claims: impl IntoIterator<Item = Claim>) -> Evidence {
    Evidence {
        source,
        asked: "/run/orders.pid".to_owned(),
        answer: Ok(Observation::new("").claim(claims)),
    }
}

fn program(pid: u32) -> Claim {
    Claim::Process(Part::Program, Some(pid))
}

fn host(pid: u32) -> Claim {
    Claim::Process(Part::Host, Some(pid))
}

/// A healthy service that `mainstay run` supervises, as all sources see it.
fn supervised() -> Vec<Evidence> {
    let running = Claim::State(Part::Program, StateName::Running);
    vec![
        said(
            Source::Supervisor,
            [running.clone(), program(7), host(2), Claim::Ready(Ok(()))],
        ),
        said(
            Source::Ledger,
            [running, program(7), host(2), Claim::Wanted(true)],
        ),
        said(
            Source::Cgroup,
            [
                Claim::Process(Part::Program, None),
                Claim::Members(Part::Program, vec![7, 8]),
            ],
        ),
        said(Source::Processes, [host(2), program(7)]),
        said(Source::Sockets, [Claim::Process(Part::Program, None)]),
        said(Source::Readiness, [Claim::Ready(Ok(()))]),
        said(Source::Events, [Claim::Process(Part::Program, None)]),
    ]
}

/// The same service, hosted under systemd.
fn hosted() -> Vec<Evidence> {
    let unit = Claim::State(Part::Host, StateName::Running);
    let mut evidence = supervised();
    evidence.extend([
        said(Source::Registry, []),
        said(Source::Registered("manifest"), []),
        said(Source::Registered("unit files"), []),
        said(Source::Registered("program"), []),
        said(Source::Manager, [unit.clone(), host(2)]),
        said(Source::Tool("D-Bus"), [unit, host(2)]),
        said(
            Source::UnitCgroup,
            [
                Claim::Members(Part::Host, vec![2, 7, 8]),
                Claim::Members(Part::Program, vec![2, 7, 8]),
            ],
        ),
        said(Source::Journal, [Claim::Process(Part::Host, None)]),
    ]);
    evidence
}

/// A service that Windows runs itself.
fn windows() -> Vec<Evidence> {
    let running = Claim::State(Part::Program, StateName::Running);
    vec![
        said(Source::Manager, [running.clone(), program(7)]),
        said(Source::Tool("sc.exe"), [running.clone(), program(7)]),
        said(Source::Tool("Get-Service"), [running]),
        said(Source::Processes, [program(7)]),
        said(Source::Readiness, [Claim::Ready(Ok(()))]),
    ]
}

/// Returns the claims that contradict this one.
fn lies(claim: &Claim) -> Vec<Claim> {
    match claim {
        Claim::State(part, _) => vec![
            Claim::State(*part, StateName::Stopped),
            Claim::State(*part, StateName::Paused),
            Claim::State(*part, StateName::StopPending),
        ],
        Claim::Process(part, Some(pid)) => {
            vec![
                Claim::Process(*part, Some(pid + 100)),
                Claim::NoProcess(*part),
            ]
        }
        Claim::Process(part, None) => vec![Claim::NoProcess(*part)],
        Claim::Members(part, _) => vec![Claim::Members(*part, vec![99])],
        Claim::Ready(_) => vec![Claim::Ready(Err("connection refused".to_owned()))],
        Claim::Wanted(is_wanted) => vec![Claim::Wanted(!is_wanted)],
        Claim::NoProcess(part) => vec![Claim::Process(*part, None)],
        Claim::Deviation(_) => Vec::new(),
    }
}

#[test]
fn every_source_that_lies_alone_is_found_out() {
    for healthy in [supervised(), hosted(), windows()] {
        let judgement = judge(SUBJECT, &healthy);
        assert_eq!(judgement.verdict, Verdict::Agree, "{judgement:?}");
        assert_eq!(judgement.state, Some(StateName::Running));
        for at in 0..healthy.len() {
            let claims = healthy[at].answer.as_ref().unwrap().claims.clone();
            if claims.is_empty() {
                // What is registered has nothing but deviations to report.
                let changed = Deviation::Registered("it has changed".to_owned());
                let mut evidence = healthy.clone();
                evidence[at] = said(healthy[at].source, [Claim::Deviation(changed)]);
                assert_eq!(judge(SUBJECT, &evidence).verdict, Verdict::Disagree);
            }
            for (which, claim) in claims.iter().enumerate() {
                for lie in lies(claim) {
                    let mut claims = claims.clone();
                    claims[which] = lie.clone();
                    let mut evidence = healthy.clone();
                    evidence[at] = said(healthy[at].source, claims);
                    let judgement = judge(SUBJECT, &evidence);
                    let source = healthy[at].source;
                    assert_eq!(judgement.verdict, Verdict::Disagree, "{source:?}: {lie:?}");
                    let named = |it: &Finding| it.sources.contains(&source.name());
                    assert!(judgement.findings.iter().any(named), "{source:?}: {lie:?}");
                }
            }
        }
    }
}

#[test]
fn a_source_that_does_not_answer_contradicts_nobody() {
    for healthy in [supervised(), hosted(), windows()] {
        for at in 0..healthy.len() {
            let mut evidence = healthy.clone();
            evidence[at].answer = Err("it is not installed".to_owned());
            assert_eq!(judge(SUBJECT, &evidence).verdict, Verdict::Agree);
        }
    }
}

#[test]
fn one_source_alone_confirms_nothing() {
    let one = [said(
        Source::Manager,
        [Claim::State(Part::Program, StateName::Running)],
    )];
    let judgement = judge(SUBJECT, &one);
    assert_eq!(judgement.verdict, Verdict::Unknown);
    assert_eq!(
        judgement.findings[0].cause,
        "only one source reports whether it runs (manager), so nothing confirms it"
    );
    let none = [said(Source::Registry, [])];
    assert_eq!(judge(SUBJECT, &none).verdict, Verdict::Unknown);
}

/// Returns the first cause after a change of one source's claims.
fn cause(mut evidence: Vec<Evidence>, source: Source, claims: Vec<Claim>) -> String {
    evidence.retain(|it| it.source != source);
    evidence.push(said(source, claims));
    let judgement = judge(SUBJECT, &evidence);
    judgement
        .findings
        .first()
        .map_or_else(String::new, |it| it.cause.clone())
}

#[test]
fn the_likely_cause_is_named() {
    let gone = Claim::NoProcess(Part::Program);
    assert_eq!(
        cause(windows(), Source::PidFile, vec![program(9)]),
        "the pid file /run/orders.pid is stale: its program is pid 7 according to the manager, \
         sc.exe and the process table, and pid 9 according to the pid file"
    );
    assert_eq!(
        cause(supervised(), Source::Processes, vec![host(2), gone.clone()]),
        "its program (pid 7) is not running, although its control socket, the ledger, its cgroup, \
         sockets and the stored events report it"
    );
    assert_eq!(
        cause(
            supervised(),
            Source::Processes,
            vec![
                host(2),
                program(7),
                Claim::State(Part::Program, StateName::Paused)
            ]
        ),
        "its program was stopped by a signal, although its control socket and the ledger report \
         another state"
    );
    let stale = [
        said(Source::PidFile, [program(9)]),
        said(Source::Processes, [gone.clone()]),
        said(
            Source::Manager,
            [Claim::State(Part::Program, StateName::Stopped)],
        ),
    ];
    assert_eq!(
        judge(SUBJECT, &stale).findings[0].cause,
        "the pid file /run/orders.pid is stale: no such process (pid 9) exists"
    );
    let outside = [
        said(
            Source::Manager,
            [Claim::State(Part::Program, StateName::Stopped)],
        ),
        said(Source::Processes, [program(9)]),
    ];
    assert_eq!(
        judge(SUBJECT, &outside).findings[0].cause,
        "its program (pid 9) is running, but not according to the manager"
    );
}

/// systemd and the journal conclude from the end of a host that its program has ended.
#[test]
fn a_program_without_its_supervisor_is_one_finding() {
    let orphaned = Claim::Deviation(Deviation::Orphaned {
        pid: 2,
        is_alive: true,
        command: "mainstay start orders".to_owned(),
    });
    let killed = [
        said(
            Source::Manager,
            Claim::of_unit(Part::Host, StateName::Stopped, None).collect::<Vec<_>>(),
        ),
        said(
            Source::Ledger,
            [Claim::NoProcess(Part::Host), program(7), orphaned],
        ),
        said(Source::Processes, [program(7)]),
    ];
    let judgement = judge(SUBJECT, &killed);
    assert_eq!(judgement.findings.len(), 1, "{judgement:?}");
    let hint = judgement.findings[0].hint.as_deref().unwrap_or_default();
    assert!(hint.ends_with(": mainstay start orders"), "{hint}");
}

#[test]
fn a_control_group_is_thawed_by_whoever_manages_it() {
    for (file, command) in [
        (
            "/sys/fs/cgroup/system.slice/orders.service/cgroup.freeze",
            "systemctl thaw orders.service",
        ),
        (
            "/sys/fs/cgroup/mainstay-1/orders.0/cgroup.freeze",
            "echo 0 > /sys/fs/cgroup/mainstay-1/orders.0/cgroup.freeze",
        ),
    ] {
        assert_eq!(rules::thaw(file), command);
    }
}

#[test]
fn a_service_that_should_run_and_does_not_is_a_finding() {
    {
        let state = StateName::Stopped;
        let down = [
            said(
                Source::Supervisor,
                [Claim::State(Part::Program, state), host(2)],
            ),
            said(
                Source::Ledger,
                [Claim::State(Part::Program, state), Claim::Wanted(true)],
            ),
            said(
                Source::Processes,
                [host(2), Claim::NoProcess(Part::Program)],
            ),
        ];
        let judgement = judge(SUBJECT, &down);
        assert_eq!(judgement.verdict, Verdict::Disagree);
        assert_eq!(
            judgement.findings[0].cause,
            "it is not running, although it should be"
        );
    }
    for state in [StateName::Waiting, StateName::StartPending] {
        let on_its_way = [
            said(
                Source::Supervisor,
                [Claim::State(Part::Program, state), host(2)],
            ),
            said(Source::Ledger, [Claim::Wanted(true)]),
            said(
                Source::Processes,
                [host(2), Claim::NoProcess(Part::Program)],
            ),
        ];
        assert_eq!(judge(SUBJECT, &on_its_way).verdict, Verdict::Agree);
    }
}

#[test]
fn the_states_of_windows_are_read_in_every_language() {
    const ENGLISH: &str = "\r\nSERVICE_NAME: orders \r\n        TYPE               : 10  WIN32_OWN_PROCESS  \r\n        STATE              : 4  RUNNING \r\n                                (STOPPABLE, NOT_PAUSABLE, ACCEPTS_SHUTDOWN)\r\n        WIN32_EXIT_CODE    : 0  (0x0)\r\n        SERVICE_EXIT_CODE  : 0  (0x0)\r\n        CHECKPOINT         : 0x0\r\n        WAIT_HINT          : 0x0\r\n        PID                : 4711\r\n        FLAGS              : \r\n";
    const GERMAN: &str = "\r\nSERVICE_NAME: orders\r\n        TYP                : 10  WIN32_OWN_PROCESS\r\n        STATUS             : 3  STOP_PENDING\r\n                                (STOPPABLE, NOT_PAUSABLE, ACCEPTS_SHUTDOWN)\r\n        WIN32_EXITCODE     : 0  (0x0)\r\n        DIENST_EXITCODE    : 0  (0x0)\r\n        PRÜFPUNKT          : 0x1\r\n        WARTEZEIT          : 0xbb8\r\n        PID                : 4711\r\n        KENNZEICHNUNGEN    :\r\n";
    const CHINESE: &str = "\r\nSERVICE_NAME: orders\r\n        类型               : 10  WIN32_OWN_PROCESS\r\n        状态               : 1  STOPPED\r\n        WIN32_退出代码     : 1077  (0x435)\r\n        服务_退出代码      : 0  (0x0)\r\n        检查点             : 0x0\r\n        等待提示           : 0x0\r\n        PID                : 0\r\n        标志               :\r\n";
    for (output, expected) in [
        (ENGLISH, Some((StateName::Running, Some(4711)))),
        (GERMAN, Some((StateName::StopPending, Some(4711)))),
        (CHINESE, Some((StateName::Stopped, None))),
        (
            "[SC] EnumQueryServicesStatus:OpenService FEHLER 1060:\r\n\r\n",
            None,
        ),
        ("", None),
    ] {
        assert_eq!(words::of_sc(output), expected);
    }
    for row in words::TABLE {
        assert_eq!(
            words::of_get_service(&format!("{}\r\n", row.get_service)),
            Some(row.state)
        );
        assert_eq!(words::of_get_service(&row.scm.to_string()), Some(row.state));
    }
    assert_eq!(
        words::of_get_service("Get-Service : Es kann kein Dienst gefunden werden"),
        None
    );
}

#[test]
fn the_words_of_sv_are_read() {
    for (output, expected) in [
        (
            "run: /etc/service/orders: (pid 812) 5s; run: log: (pid 813) 5s\n",
            Some((StateName::Running, Some(812), true)),
        ),
        (
            "run: orders: (pid 812) 5s, want down, got TERM",
            Some((StateName::StopPending, Some(812), false)),
        ),
        (
            "run: orders: (pid 812) 5s, paused",
            Some((StateName::Paused, Some(812), true)),
        ),
        (
            "down: orders: 3s, normally up, want up",
            Some((StateName::Stopped, None, true)),
        ),
        ("down: orders: 3s", Some((StateName::Stopped, None, false))),
        (
            "finish: orders: (pid 9) 3s",
            Some((StateName::StartPending, Some(9), true)),
        ),
        ("fail: orders: runsv not running\n", None),
        ("", None),
    ] {
        let said = words::of_sv(output).map(|it| (it.state, it.pid, it.is_wanted));
        assert_eq!(said, expected, "{output}");
    }
}
