//! What one supervisor leaves of a service to the next: written down while it lives, taken up where it was killed.

use super::{
    Asking, Child, Ended, Evidence, Exit, Fact, Goal, Halt, Keeping, Main, Phase, Ready, Service,
    State, Then,
};
use crate::engine::{Action, RunId, Shared, Token};
use crate::spec::ServiceName;
use crate::time::Instant;

/// What a supervisor leaves to its successor of one service ([`Engine::bequest`](crate::engine::Engine::bequest),
/// [`Engine::resume`](crate::engine::Engine::resume)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bequest {
    /// What operators want of it.
    pub wish: Wish,
    /// How often it was started again by itself.
    pub restarts: u64,
    /// How its last run ended.
    pub last_exit: Option<Exit>,
    /// What its failures so far count for.
    pub failures: Failures,
    /// When it got to where it is, if that is known.
    pub since: Option<Instant>,
    /// What there is of it.
    pub left: Left,
}

/// What the failures of a service so far count for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many there were since its last good run.
    pub streak: u32,
    /// When it was restarted, within the window of its limit: the latest ones.
    pub recent: Vec<Instant>,
    /// Since when it is crash-looping, if it is, and when that is told again.
    pub crash_loop: Option<(Instant, Instant)>,
}

impl Failures {
    /// There were none.
    pub const NONE: Self = Self {
        streak: 0,
        recent: Vec::new(),
        crash_loop: None,
    };
}

impl Bequest {
    /// Of a service that nothing is known of: it starts as usual.
    pub const NEW: Self = Self {
        wish: Wish::Up,
        restarts: 0,
        last_exit: None,
        failures: Failures::NONE,
        since: None,
        left: Left::Nothing,
    };

    /// Of one that starts only when somebody asks for it.
    pub const DISABLED: Self = Self {
        wish: Wish::Down,
        restarts: 0,
        last_exit: None,
        failures: Failures::NONE,
        since: None,
        left: Left::Nothing,
    };
}

/// What operators want of a service. That everything was to end with its supervisor is no wish for one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It shall run.
    Up,
    /// Somebody stopped it by name.
    Down,
}

/// What there is of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// No process, and nothing that would keep it from being started.
    Nothing,
    /// It ended cleanly by itself.
    Completed {
        /// Whether its readiness had been seen, so that what needs it may start.
        was_ready: bool,
    },
    /// It stays down until a human looks.
    Halted {
        /// Why.
        why: String,
    },
    /// It stays down for as long as a service that it needs does.
    Blocked {
        /// The service that it needs.
        need: ServiceName,
        /// Whether that one ended before it was ready; else it is halted.
        has_ended: bool,
    },
    /// Its main process, which lives.
    Child {
        /// Process id.
        pid: u32,
        /// When it was started.
        began: Instant,
        /// When it got as far as this.
        since: Instant,
        /// How far it was.
        stage: Stage,
    },
    /// Its main process ended, and what follows was not decided yet. The host reports [`Event::Emptied`](crate::engine::Event::Emptied).
    Ended {
        /// How.
        exit: Exit,
        /// Whether its readiness had been seen.
        was_ready: bool,
        /// When it had been started.
        began: Instant,
        /// When it ended, or failed.
        since: Instant,
    },
    /// Its main process ended while no supervisor ran. The host reports [`Event::Exited`](crate::engine::Event::Exited) and what
    /// follows, once everything that it wrote and sent before has been looked at.
    Gone {
        /// Process id.
        pid: u32,
        /// When it had been started.
        began: Instant,
        /// How far it was when it was seen last.
        stage: Stage,
    },
}

/// How far a live service was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its readiness had not been seen.
    Starting,
    /// It was ready.
    Running,
    /// It was ready, and suspended.
    Paused,
    /// It was being stopped: to be down or to be started afresh, whichever is wanted.
    Stopping,
    /// It was being stopped because it was of no use.
    Failing,
}

impl Service {
    /// What a successor needs to go on with it.
    pub(in crate::engine) fn bequest(&self) -> Bequest {
        let left = match &self.state {
            State::Stopped { is_done } if *is_done || self.goal == Goal::Up => Left::Completed {
                was_ready: *is_done,
            },
            State::Halted {
                why: Halt::Need(need),
                ..
            } => Left::Blocked {
                need: need.clone(),
                has_ended: false,
            },
            State::Halted {
                why: Halt::NeedEnded(need),
                ..
            } => Left::Blocked {
                need: need.clone(),
                has_ended: true,
            },
            State::Stopped { .. }
            | State::Waiting { .. }
            | State::Conditions { .. }
            | State::BackingOff { .. }
            | State::Restoring { .. } => Left::Nothing,
            State::Halted { why, .. } => Left::Halted {
                why: why.to_string(),
            },
            State::Live { child, phase } => left_of(child, phase, self.since),
        };
        Bequest {
            wish: self.wish,
            restarts: self.past.restarts,
            last_exit: self.past.last_exit,
            failures: self.past.failures(),
            since: Some(self.since),
            left,
        }
    }

    /// Takes up what a predecessor left, instead of a start. The caller settles it afterwards.
    pub(in crate::engine) fn inherit(&mut self, bequest: Bequest, shared: &mut Shared) {
        self.past.restarts = bequest.restarts;
        self.past.last_exit = bequest.last_exit;
        self.past.inherit(bequest.failures, self.spec.recovery());
        self.wish = bequest.wish;
        self.goal = match bequest.wish {
            Wish::Up => Goal::Up,
            Wish::Down => Goal::Down,
        };
        match bequest.left {
            Left::Nothing if self.goal == Goal::Down => {
                self.enter(State::Stopped { is_done: false }, shared);
            }
            Left::Nothing => self.wait(shared),
            Left::Completed { was_ready } => {
                self.enter(State::Stopped { is_done: was_ready }, shared);
            }
            Left::Halted { why } => self.halt(Halt::Inherited { why }, None, shared),
            Left::Blocked { need, has_ended } => {
                let why = match has_ended {
                    true => Halt::NeedEnded(need),
                    false => Halt::Need(need),
                };
                let told = Halt::Inherited {
                    why: why.to_string(),
                };
                self.tell(Fact::Halted { why: told }, shared);
                self.enter(State::Halted { why, remains: None }, shared);
            }
            Left::Child {
                pid,
                began,
                since,
                stage,
            } => {
                let restarts = self.past.restarts;
                self.tell(Fact::Adopted { pid, restarts }, shared);
                self.adopt(pid, (began, since), stage, shared);
            }
            Left::Ended {
                exit,
                was_ready,
                began,
                since,
            } => {
                let child = Child {
                    run: RunId(shared.number()),
                    began,
                    main: Main::Gone,
                    was_ready,
                    is_kept: false,
                };
                let phase = Phase::Running {
                    watch: None,
                    keeping: Keeping::Idle,
                };
                self.enter(State::Live { child, phase }, shared);
                let then = Then::Judge(Ended::Exit(exit));
                self.end_children(child, then, since, shared);
            }
            Left::Gone { pid, began, stage } => {
                self.adopt(pid, (began, shared.now), stage, shared);
            }
        }
        if let (true, Some(since)) = (self.is_down(), bequest.since) {
            self.since = since;
        }
    }

    fn adopt(
        &mut self,
        pid: u32,
        (began, since): (Instant, Instant),
        stage: Stage,
        shared: &mut Shared,
    ) {
        let child = Child {
            run: RunId(shared.number()),
            began,
            main: Main::Lives(pid),
            was_ready: matches!(stage, Stage::Running | Stage::Paused),
            is_kept: false,
        };
        let phase = match stage {
            Stage::Starting => Phase::Starting {
                deadline: shared.now + self.spec.start().timeout(),
                evidence: self.evidence_of(Some(shared.now), shared),
            },
            Stage::Paused => Phase::Paused,
            Stage::Running | Stage::Stopping | Stage::Failing => Phase::Running {
                watch: None,
                keeping: Keeping::Idle,
            },
        };
        self.enter(State::Live { child, phase }, shared);
        match stage {
            Stage::Starting if self.spec.start().ready().is_none() => self.ready(shared),
            // The first question is asked at once.
            Stage::Starting => self.tick(shared),
            // It is in this state since its predecessor's time.
            Stage::Running => {
                // It may have been suspended for a snapshot when that was killed, by a definition that is not known any more.
                shared.actions.push(Action::Thaw(self.id, child.run));
                self.run(shared);
                self.since = since;
            }
            Stage::Paused => self.since = since,
            Stage::Stopping if self.goal == Goal::Up => self.begin_stop(Then::Start, shared),
            Stage::Stopping => self.begin_stop(Then::Down, shared),
            Stage::Failing => {
                let ended = Ended::Exit(Exit::Unknown);
                self.begin_stop(Then::Judge(ended), shared);
            }
        }
    }

    /// What will show that a child is ready; it is asked from `asked_from` on where it runs already.
    pub(super) fn evidence_of(&self, asked_from: Option<Instant>, shared: &mut Shared) -> Evidence {
        match self.spec.start().ready() {
            None => Evidence::Existence,
            Some(Ready::Probe(_)) => Evidence::Probe(asked_from.map(Asking::from)),
            Some(Ready::Notify(_)) => Evidence::Notice,
            Some(Ready::Log(regex)) => {
                let token = Token(shared.number());
                let line = Action::ExpectLine(self.id, token, regex.clone());
                shared.actions.push(line);
                Evidence::Line(token)
            }
        }
    }
}

fn left_of(child: &Child, phase: &Phase, since: Instant) -> Left {
    let stage = match phase {
        Phase::Starting { .. } => Stage::Starting,
        Phase::Running { .. } => Stage::Running,
        Phase::Paused => Stage::Paused,
        Phase::Stopping {
            then: Then::Judge(_),
            ..
        } => Stage::Failing,
        Phase::Stopping { .. } => Stage::Stopping,
    };
    match (child.main, phase) {
        (Main::Lives(pid), _) => Left::Child {
            pid,
            began: child.began,
            since,
            stage,
        },
        (
            Main::Gone,
            Phase::Stopping {
                then: Then::Judge(ended),
                ..
            },
        ) => Left::Ended {
            exit: match ended {
                Ended::Exit(exit) => *exit,
                // The contract counts every other failure like an unknown code.
                _ => Exit::Unknown,
            },
            was_ready: child.was_ready,
            began: child.began,
            since,
        },
        (Main::Called | Main::Gone, _) => Left::Nothing,
    }
}
