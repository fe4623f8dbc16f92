//! Random specifications.

use super::*;

/// Returns whether the needs contain a cycle.
pub(super) fn has_circle(needs: &[Vec<usize>]) -> bool {
    (0..needs.len()).any(|root| {
        let (mut open, mut seen) = (needs[root].clone(), HashSet::new());
        while let Some(i) = open.pop() {
            if i == root {
                return true;
            }
            if seen.insert(i) {
                open.extend(&needs[i]);
            }
        }
        false
    })
}

pub(super) fn below(random: &mut Random, n: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "less than n"
    )]
    let index = (random.unit() * n as f64) as usize;
    index
}

pub(super) fn chance(random: &mut Random, probability: f64) -> bool {
    random.unit() < probability
}

pub(crate) fn spec(i: usize, needs: &[usize], random: &mut Random) -> Spec {
    fn millis(choices: &[u64], random: &mut Random) -> Duration {
        Duration::from_millis(choices[below(random, choices.len())])
    }
    let name = |i: usize| ServiceName::new(&format!("s{i}")).unwrap();
    let probe = || Probe::File("/run/ready".into());
    let backoff = |random: &mut Random| {
        let base = millis(&[0, 10, 100, 1_000], random);
        let factor = [1.0, 1.5, 2.0, 1000.0][below(random, 4)];
        let max = base.max(millis(&[100, 5_000, 30_000], random));
        Backoff { base, factor, max }
    };
    let mut codes = BTreeMap::new();
    for code in [0, 1, 7, 137, 201, 202] {
        if chance(random, 0.1) {
            codes.insert(code, CodeAction::ALL[below(random, 5)]);
        }
    }
    let wait_for = (0..[0, 0, 0, 1, 2][below(random, 5)])
        .map(|_| WaitFor {
            probe: probe(),
            strategy: match below(random, 3) {
                0 => Strategy::Fixed {
                    interval: millis(&[1, 100, 1_000], random),
                },
                1 => Strategy::Backoff(backoff(random)),
                _ => Strategy::Probe {
                    interval: millis(&[1, 250], random),
                    passes: 1 + below(random, 3) as u32,
                },
            },
            deadline: millis(&[1, 500, 120_000], random),
        })
        .collect();
    Spec {
        name: name(i),
        environment: Environment::Development,
        description: None,
        display_name: None,
        manager_name: None,
        command: Argv::new(vec!["program".into()]).unwrap(),
        working_dir: None,
        env: Env::default(),
        env_file: None,
        inherit_env: Vec::new(),
        priority: None,
        cpus: Vec::new(),
        limits: Limits::default(),
        sandbox: None,
        listen: Vec::new(),
        account: None,
        needs: needs
            .iter()
            .map(|&need| Need::Service(name(need)))
            .collect(),
        need_names: std::collections::BTreeMap::new(),
        start: Start {
            owner: crate::spec::Owner::Service,
            timeout: millis(&[1, 1_000, 10_000, 60_000], random),
            ready: match below(random, 4) {
                0 => None,
                1 => Some(Ready::Probe(probe())),
                2 => Some(Ready::Log("ready".into())),
                _ => Some(Ready::Notify(Senders::Tree)),
            },
        },
        wait_for,
        liveness: chance(random, 0.5).then(|| Liveness {
            probe: probe(),
            every: millis(&[1, 500, 10_000], random),
            timeout: millis(&[1, 30, 2_000], random),
            misses: 1 + below(random, 3) as u32,
        }),
        stop: Stop {
            graceful: millis(&[0, 10, 5_000, 30_000], random),
            ladder: [0, below(random, 3), below(random, 12_000)]
                .into_iter()
                .map(|millis| Duration::from_millis(millis as u64))
                .scan(Duration::ZERO, |after, more| {
                    *after += more;
                    Some(*after)
                })
                .zip([Signal::Int, Signal::Term, Signal::Quit].map(StopAsk::Signal))
                .map(|(after, ask)| StopStep { ask, after })
                .take(1 + below(random, 3))
                .collect(),
            scope: if chance(random, 0.5) {
                StopScope::Tree
            } else {
                StopScope::Main
            },
        },
        reload: None,
        recovery: Recovery {
            policy: [
                Policy::Restart,
                Policy::Restart,
                Policy::Restart,
                Policy::Strict,
                Policy::Never,
            ][below(random, 5)],
            backoff: backoff(random),
            reset_after: millis(&[1, 500, 10_000], random),
            limit: chance(random, 0.7).then(|| RestartLimit {
                restarts: 1 + below(random, 10) as u32,
                window: millis(&[1, 1_000, 60_000], random),
                then: [BeyondLimit::Alert, BeyondLimit::Halt][below(random, 2)],
            }),
            codes,
        },
        on_alert: None,
        snapshot: chance(random, 0.5).then(|| SnapshotPolicy {
            paths: Vec::new(),
            keep: SnapshotKeep::default(),
            when: if chance(random, 0.7) {
                SnapshotWhen::Healthy
            } else {
                SnapshotWhen::Manual
            },
            after: millis(&[1, 1_000, 60_000], random),
            every: chance(random, 0.5).then(|| millis(&[1_000, 60_000, 3_600_000], random)),
            max_size: SnapshotPolicy::MAX_SIZE,
            still: match below(random, 3) {
                0 => Still::Nothing,
                1 => Still::Pause,
                _ => Still::Commands {
                    quiesce: Argv::new(vec!["quiesce".into()]).unwrap(),
                    thaw: None,
                },
            },
        }),
        log: LogPolicy {
            rotate: Rotation::default(),
            keep: Retention::default(),
            compress: Compress::None,
            ..LogPolicy::default()
        },
        http: None,
    }
}
