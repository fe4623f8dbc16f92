//! The lives of supervisors on one machine: each begins, is called as `Host` calls it, and ends or
//! is killed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use hyper::body::Bytes;
use mainstay_api::Route;
use mainstay_core::alert::Answer;
use mainstay_core::engine::{Checkpoint, Engine, Exit, ServiceId};
use mainstay_core::spec::ServiceName;
use mainstay_core::time::Instant;
use mainstay_store::embedded::{Definition, Desired};
use mainstay_store::ledger::Entry;
use tokio::sync::{mpsc, oneshot};

use super::coverage::{Call, Coverage, Subject};
use super::disk::Installed;
use super::effects::Adopted;
use super::random::Random;
use super::specs::{self, NAMES};
use super::storage::pooled;
use super::world::{Coming, Killed, Machine, Main, Order, Signal, Turn, World, note};
use crate::host::LONG_TURN;
use crate::host::alert::AlertEvent;
use crate::host::control::Reply;
use crate::host::dispatcher::daemon::Daemon;
use crate::host::dispatcher::{About, Dispatcher, Initial, Taken};
use crate::host::effects::Message;
use crate::host::interrupts::Interrupt;
use crate::host::managed::Progress;

/// The result of a check: the rule that was broken.
pub(super) type Check = Result<(), String>;

/// The beginning of the description of a turn that took long.
pub(super) const BLOCKS: &str = "the dispatcher blocks";

/// The time within which a signal counts as a repetition of the first one.
const ECHO: Duration = Duration::from_millis(500);
/// The number of events at one time after which a supervisor is considered to be busy for ever.
const MOST_AT_ONCE: u32 = 3_000;

/// The supervisor's relation to its services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The supervisor of a manifest's services.
    Run,
    /// The supervisor of the single service of a service manager.
    Managed,
    Daemon {
        exits_when_done: bool,
    },
}

pub(super) struct Life {
    pub(super) dispatcher: Dispatcher<World>,
    pub(super) mode: Mode,
    /// The definitions in the manifest.
    manifest: BTreeMap<&'static str, Installed>,
    pub(super) clients: Vec<Client>,
    /// The streams of facts that clients receive.
    pub(super) listeners: Vec<Listener>,
    pub(super) coverage: Coverage,
    pub(super) calls: u64,
    /// The number of calls without the passing of time.
    at_once: u32,
    /// The uptime at the first signal to stop.
    first_stop: Option<Duration>,
    /// The number of supervisors so far.
    pub(super) lives: u32,
    /// The number of times in a row that the supervisor woke up although all is down.
    pub(super) idle_wakes: u32,
    /// Set once no supervisor can begin any more.
    pub(super) is_over: bool,
}

/// A client that waits for a response.
pub(super) struct Client {
    pub(super) route: Route,
    pub(super) response: oneshot::Receiver<Reply>,
    pub(super) events: Option<Listener>,
    /// Set if the request has a condition that no definition meets.
    pub(super) is_impossible: bool,
    /// The services that need a service which the request stops, and are to stop with it.
    pub(super) dependents: Vec<ServiceId>,
    /// The orders before the request, while it is being processed, and whether the supervisor was
    /// told to end.
    pub(super) before: Option<(BTreeMap<&'static str, Order>, bool)>,
    /// The definitions that the client has replaced, in case that they are refused.
    pub(super) replaced: Vec<(&'static str, Option<Installed>)>,
}

/// A client that receives facts.
pub(super) struct Listener {
    pub(super) events: mpsc::Receiver<Bytes>,
    /// The number of facts that were published before, or have been read.
    pub(super) read: u64,
}

/// A service as the next supervisor finds it.
struct Found {
    checkpoint: Checkpoint,
    taken: Taken<Adopted>,
    is_known: bool,
}

impl Life {
    /// Creates a machine and its first supervisor.
    pub(super) fn begin(seed: u64, machine: Machine, tells: bool) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let mode = match random.below(10) {
            0 => Mode::Managed,
            1..5 => Mode::Run,
            5 => Mode::Daemon {
                exits_when_done: true,
            },
            _ => Mode::Daemon {
                exits_when_done: false,
            },
        };
        let variant = random.below(specs::VARIANTS);
        let count = if mode == Mode::Managed {
            1
        } else {
            1 + random.below(3)
        };
        let version = u64::from(matches!(mode, Mode::Daemon { .. }));
        let mut manifest = BTreeMap::new();
        for _ in 0..count {
            let name = random.pick(&NAMES);
            let mut open = vec![name];
            while let Some(name) = open.pop() {
                if manifest
                    .insert(name, Installed { variant, version })
                    .is_none()
                {
                    let needs = specs::pool(name, variant).spec.needed_services();
                    open.extend(needs.map(|need| pooled(need.as_str())));
                }
            }
            if mode == Mode::Managed && manifest.len() > 1 {
                let variant = 0;
                manifest = BTreeMap::from([(name, Installed { variant, version })]);
            }
        }
        let mut world = World::new(random, tells);
        world.machine = machine;
        Self::with(mode, manifest, world)
    }

    /// Creates the first supervisor of a machine, with these definitions.
    pub(super) fn with(
        mode: Mode,
        manifest: BTreeMap<&'static str, Installed>,
        mut world: World,
    ) -> Result<Self, String> {
        note!(world, "== {mode:?} {manifest:?}");
        world.storage.installed.clone_from(&manifest);
        let dispatcher = Dispatcher::new(Vec::new(), about(&world, mode), world);
        let mut life = Self {
            dispatcher: dispatcher.map_err(|error| error.to_string())?,
            mode,
            manifest,
            clients: Vec::new(),
            listeners: Vec::new(),
            coverage: Coverage::default(),
            calls: 0,
            at_once: 0,
            first_stop: None,
            lives: 0,
            idle_wakes: 0,
            is_over: false,
        };
        life.next_supervisor(false)?;
        Ok(life)
    }

    pub(super) fn world(&mut self) -> &mut World {
        &mut self.dispatcher.effects
    }

    pub(super) fn is_daemon(&self) -> bool {
        matches!(self.mode, Mode::Daemon { .. })
    }

    // Supervisors.

    /// The definitions that the next supervisor reads, in their order.
    fn definitions(&mut self) -> Option<Vec<Definition>> {
        let is_daemon = self.is_daemon();
        let storage = &self.dispatcher.effects.storage;
        let sources = if is_daemon {
            [&storage.installed, &storage.accepted]
        } else {
            [&self.manifest, &self.manifest]
        };
        let definitions = |source: &BTreeMap<&'static str, Installed>| -> Vec<Definition> {
            let all = source.iter().map(|(name, installed)| {
                let desired = storage.desired.get(*name).cloned().filter(|_| is_daemon);
                specs::definition(name, installed.variant, installed.version, desired)
            });
            all.collect()
        };
        // Definitions that do not fit together are left out.
        let fit =
            |all: &Vec<Definition>| Engine::new(all.iter().map(|it| it.spec.clone()), 0).is_ok();
        sources.into_iter().map(definitions).find(fit)
    }

    /// Begins the next supervisor, after one was killed or has ended.
    pub(super) fn next_supervisor(&mut self, was_killed: bool) -> Check {
        self.clients.clear();
        self.listeners.clear();
        (self.at_once, self.idle_wakes) = (0, 0);
        self.lives += 1;
        self.first_stop = None;
        let Some(definitions) = self.definitions() else {
            self.is_over = true;
            return Ok(());
        };
        let nothing = World::new(Random::new(0), false);
        let mut world = std::mem::replace(&mut self.dispatcher.effects, nothing);
        note!(
            world,
            "== a supervisor begins; the last one was killed: {was_killed}"
        );
        let is_recorded = world.storage.has_ledger && world.storage.problem.is_none();
        if !was_killed {
            world.storage.entries.clear();
        }
        let found: Vec<Found> = definitions.iter().map(|it| find(&world, it)).collect();
        world.zero = found
            .iter()
            .zip(&definitions)
            .fold(world.clock, |zero, (_, definition)| {
                let entry = entry_of(&world, definition);
                let began = entry.and_then(|it| it.child.as_ref()).map(|it| it.began_ms);
                let times = began.into_iter().chain(entry.map(|it| it.since_ms));
                times.map(Duration::from_millis).fold(zero, Duration::min)
            });
        let found: Vec<Found> = definitions.iter().map(|it| find(&world, it)).collect();
        let recorded = definitions.iter().filter_map(|it| goal(&world, it));
        let recorded: Vec<_> = recorded.collect();
        // The stop of a service of a service manager is not recorded: the manager asks for it.
        let is_recorded = was_killed && is_recorded && self.mode != Mode::Managed;
        reset(&mut world, &found, &definitions, is_recorded);
        let about = about(&world, self.mode);
        let initial = definitions.into_iter().map(|definition| Initial {
            seat: seat(&mut world, &definition),
            account: Ok(None),
            definition,
        });
        let initial: Vec<_> = initial.collect();
        let dies_after = world.dies_after.take();
        self.dispatcher =
            Dispatcher::new(initial, about, world).map_err(|error| error.to_string())?;
        self.world().dies_after = dies_after;
        let call = if was_killed {
            Call::TakeOver
        } else {
            Call::Begin
        };
        let lives = self.lives;
        self.call(call, Subject::All, |dispatcher| {
            dispatcher.report_problems();
            let ids: Vec<ServiceId> = dispatcher.engine().ids().collect();
            if found.iter().all(|it| !it.is_known) {
                let due = ids.into_iter().map(|id| (id, Checkpoint::NEW));
                dispatcher.begin(due.collect(), None);
            } else {
                let taken = ids.into_iter().zip(found);
                let taken = taken.map(|(id, it)| (id, it.checkpoint, it.taken));
                dispatcher.take_over(taken.collect(), None);
            }
            dispatcher.record_all_desired();
            dispatcher.rewrite_soon();
        })?;
        if self.was_killed_since(lives) {
            return Ok(());
        }
        self.check_goals(recorded)
    }

    /// Kills the supervisor between two calls.
    pub(super) fn kill(&mut self) -> Check {
        self.next_supervisor(true)
    }

    // Calls.

    /// Calls the dispatcher as the loop does, and checks all rules.
    pub(super) fn call(
        &mut self,
        call: Call,
        about: Subject,
        run: impl FnOnce(&mut Dispatcher<World>),
    ) -> Check {
        if self.is_over {
            // The supervisor was killed earlier in this step.
            return Ok(());
        }
        self.calls += 1;
        self.at_once += 1;
        self.coverage.mark(&self.dispatcher, call, about);
        let turn = self.turn(call);
        let world = self.world();
        world.effects = 0;
        note!(world, "-> {call:?}");
        let began = std::time::Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| {
            run(&mut self.dispatcher);
            self.dispatcher.conclude();
        }));
        let took = began.elapsed();
        if let Err(payload) = done {
            if payload.is::<Killed>() {
                // What the call was about may or may not be recorded.
                let orders = self.world().orders.values_mut();
                orders.for_each(|order| *order = Order::Any);
                return self.next_supervisor(true);
            }
            return Err("the dispatcher panics".to_owned());
        }
        // No effect of this machine takes time, so something else blocks.
        if took >= LONG_TURN {
            return Err(format!("{BLOCKS}: {call:?} takes time"));
        }
        self.world().attend_to_clients();
        self.check_turn(turn)?;
        self.check()
    }

    /// Lets one thing happen that is due, in the order of the loop. Returns whether there was one.
    pub(super) fn one_event(&mut self) -> Result<bool, String> {
        if self.dispatcher.is_finished() {
            return Ok(false);
        }
        if self.at_once > MOST_AT_ONCE {
            return Err("the supervisor never sleeps".to_owned());
        }
        let world = self.world();
        if !world.reapable.is_empty() && !world.is_limit_next() {
            return self
                .call(Call::Reap, Subject::All, Dispatcher::reap)
                .map(|()| true);
        }
        let clock = world.clock;
        let next = world.coming.first_key_value().map(|(key, _)| *key);
        if let Some(key) = next.filter(|(at, _)| *at <= clock) {
            return self.happen(key).map(|()| true);
        }
        let now = world.engine_time(clock);
        if self.dispatcher.deadline().is_some_and(|at| at <= now) {
            return self
                .call(Call::Woken, Subject::All, Dispatcher::woken)
                .map(|()| true);
        }
        Ok(false)
    }

    /// Lets something happen, and passes it on if it is a message.
    pub(super) fn happen(&mut self, key: (Duration, u64)) -> Check {
        match self.world().happen(key) {
            Some((message, at)) => self.receive(message, at),
            None => Ok(()),
        }
    }

    pub(super) fn receive(&mut self, message: Message, at: Instant) -> Check {
        let (call, about) = Call::of_message(&message);
        let world = self.world();
        note!(world, "   {message:?}");
        match &message {
            Message::Alert(AlertEvent::Tried(_, _, Answer::Status(200..=299, _), _)) => {
                world.alerts.delivered += 1;
            }
            // The trial of a definition starts what it needs.
            Message::Checked(_, checked) => {
                if let Ok(candidate) = &**checked {
                    let name = candidate.definition.spec.name().to_string();
                    self.reach_of(&name);
                }
            }
            _ => {}
        }
        let follow = self.follow(&message);
        let lives = self.lives;
        self.call(call, about, |dispatcher| dispatcher.received(message, at))?;
        if self.was_killed_since(lives) {
            return Ok(());
        }
        self.check_follow(follow)
    }

    /// Returns whether the supervisor with this number has been killed.
    fn was_killed_since(&self, lives: u32) -> bool {
        self.lives != lives || self.is_over
    }

    /// Allows the starts that the start of a service implies.
    pub(super) fn reach_of(&mut self, name: &str) {
        for need in specs::reach(name).into_iter().filter(|it| *it != name) {
            let order = self.world().orders.entry(need).or_insert(Order::Any);
            if *order == Order::Down {
                *order = Order::Any;
            }
        }
    }

    /// Advances the clock to the next event, and further if the supervisor is late.
    pub(super) fn advance(&mut self, late: Duration) {
        let deadline = self.dispatcher.deadline();
        let world = self.world();
        let zero = world.zero;
        let deadline = deadline.map(|at| zero + at.elapsed());
        let next = deadline.into_iter().chain(world.next_at()).min();
        let next = next.unwrap_or(world.clock + Duration::from_secs(1));
        if world.farewell.is_some_and(|end| end < next) && world.is_delivering() {
            world.blame("nothing ends the wait for the last alerts".to_owned());
        }
        let clock = world.clock.max(next) + late;
        if clock > world.clock {
            world.clock = clock;
            self.at_once = 0;
        }
    }

    /// Suspends the supervisor, or the machine.
    pub(super) fn suspend(&mut self, pause: Duration) {
        self.at_once = 0;
        let world = self.world();
        world.clock += pause;
        world.resumed = world.clock;
        note!(world, "== the supervisor was suspended for {pause:?}");
    }

    pub(super) fn interrupt(&mut self, interrupt: Interrupt) -> Check {
        let is_end = match interrupt {
            Interrupt::Stop | Interrupt::Quit => true,
            Interrupt::Hangup => !self.is_daemon(),
            Interrupt::RotateLogs | Interrupt::WriteState => false,
        };
        if is_end {
            let clock = self.world().clock;
            let first = *self.first_stop.get_or_insert(clock);
            let is_early = interrupt != Interrupt::Quit && clock - first < ECHO;
            let signal = if is_early {
                Signal::First
            } else {
                Signal::Second
            };
            (self.world().is_ending, self.world().turn.signal) = (true, Some(signal));
        }
        let call = Call::of_interrupt(interrupt);
        self.call(call, Subject::All, |dispatcher| {
            dispatcher.interrupted(interrupt)
        })?;
        self.world().is_stopping |= is_end && self.first_stop.is_some();
        Ok(())
    }
}

fn about(world: &World, mode: Mode) -> About {
    About {
        manifest: "the manifest".to_owned(),
        left_out: vec!["left-out".to_owned()],
        daemon: match mode {
            Mode::Daemon { exits_when_done } => Some(Daemon::new(exits_when_done, Vec::new())),
            Mode::Run | Mode::Managed => None,
        },
        manager: (mode == Mode::Managed).then(Progress::default),
        zero: world.zero,
        seed: world.clock.as_secs(),
    }
}

fn seat(world: &mut World, definition: &Definition) -> super::world::Seat {
    world.new_seat(definition, false)
}

fn entry_of<'w>(world: &'w World, definition: &Definition) -> Option<&'w Entry> {
    let name = definition.spec.name().as_str();
    world
        .storage
        .entries
        .iter()
        .find(|entry| entry.name == name)
}

/// Returns the goal that the disk records for a service, if it is clear.
fn goal(world: &World, definition: &Definition) -> Option<(ServiceName, bool)> {
    let entry = entry_of(world, definition);
    let is_up = match entry {
        Some(entry) if lives(world, entry) => !entry.unwanted,
        Some(entry) if entry.unwanted => false,
        _ if definition.desired == Some(Desired::Stopped) => false,
        _ => return None,
    };
    Some((definition.spec.name().clone(), is_up))
}

/// Returns whether the main process of a recorded run is alive.
fn lives(world: &World, entry: &Entry) -> bool {
    let pid = entry.child.as_ref().map(|child| child.pid);
    let mut trees = world.trees.iter();
    trees.any(|it| it.main == Main::Lives && pid == Some(it.pid))
}

/// Finds a service in what the last supervisor left, as `recovery.rs` does.
fn find(world: &World, definition: &Definition) -> Found {
    let name = definition.spec.name().as_str();
    let of_ledger = entry_of(world, definition).cloned();
    let is_recorded = of_ledger.is_some();
    let lives = of_ledger.as_ref().is_some_and(|entry| lives(world, entry));
    let mut entry = Entry::recovered(name, of_ledger, definition.desired.as_ref(), lives);
    if let Some(entry) = entry.as_mut().filter(|_| !is_recorded) {
        entry.since_ms = u64::try_from(world.clock.as_millis()).unwrap_or(0);
    }
    let child = entry.as_ref().and_then(|entry| entry.child.as_ref());
    let tree = child.and_then(|child| {
        let mut trees = world.trees.iter();
        trees.find(|tree| tree.pid == child.pid && !tree.is_empty())
    });
    let exit = match tree.map(|tree| tree.main) {
        Some(Main::Lives) => None,
        Some(Main::Ended(exit)) => Some(exit),
        None => Some(Exit::Unknown),
    };
    let at = |ms| Instant::at(Duration::from_millis(ms).saturating_sub(world.zero));
    let checkpoint = match &entry {
        Some(entry) => entry.checkpoint(exit.is_none(), at),
        None => Checkpoint::NEW,
    };
    let is_of_version = entry
        .as_ref()
        .is_some_and(|it| !it.is_updated && it.version == definition.version);
    let is_outdated = entry.is_some() && !is_of_version || child.is_some_and(|it| it.is_outdated);
    let notify = child.and_then(|child| child.notify.as_ref());
    let is_any = tree.is_some() || notify.is_some();
    Found {
        checkpoint,
        is_known: entry.is_some(),
        taken: Taken {
            is_stopped: entry.as_ref().is_some_and(|entry| entry.is_stopped),
            adopted: is_any.then_some(Adopted {
                pid: tree.map(|tree| tree.pid),
            }),
            exit,
            is_outdated,
            is_quiesced: child.is_some_and(|child| child.is_quiesced),
            digest: child.and_then(|child| child.digest.clone()),
        },
    }
}

/// Ends everything that belonged to the last supervisor, apart from the processes that the next one
/// adopts.
fn reset(world: &mut World, found: &[Found], definitions: &[Definition], is_recorded: bool) {
    let adopted = found.iter().filter_map(|it| it.taken.adopted?.pid);
    let adopted: Vec<u32> = adopted.collect();
    world.trees.retain(|tree| adopted.contains(&tree.pid));
    let trees = world.trees.iter_mut();
    trees.for_each(|tree| tree.is_quiesced &= is_recorded);
    world.coming.retain(|_, coming| match coming {
        Coming::Exit(pid, _) | Coming::Others(pid) => adopted.contains(pid),
        _ => false,
    });
    world.helpers.clear();
    world.reapable.clear();
    world.seats.clear();
    world.loose.clear();
    world.watched.clear();
    world.copies.clear();
    world.told_at.clear();
    world.turn = Turn::default();
    world.released.clear();
    world.called_off.clear();
    world.farewell = None;
    world.has_halted = false;
    world.is_stopping = false;
    world.was_ledger_begun = false;
    world.gone.clear();
    world.alerts = super::world::AlertCount::default();
    world.is_ending = false;
    world.storage.has_ledger = false;
    world.storage.problem = None;
    world.storage.owners.clear();
    let lives = |name: &str| {
        let mut trees = world.trees.iter();
        trees.any(|tree| tree.name.as_str() == name && tree.main == Main::Lives)
    };
    let is_kept =
        |it: &Definition| it.desired == Some(Desired::Stopped) && !lives(it.spec.name().as_str());
    let accepted = &mut world.storage.accepted;
    accepted.clear();
    for definition in definitions {
        let name = pooled(definition.spec.name().as_str());
        let variant = (0..specs::VARIANTS).find(|variant| {
            std::sync::Arc::ptr_eq(&specs::pool(name, *variant).spec, &definition.spec)
        });
        let (variant, version) = (variant.unwrap_or(0), definition.version);
        accepted.insert(name, Installed { variant, version });
        let order = world.orders.entry(name).or_insert(Order::Any);
        let is_still_down = *order == Order::Down && (is_recorded || is_kept(definition));
        if !is_still_down {
            *order = Order::Any;
        }
    }
}
