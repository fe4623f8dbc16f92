//! The time that the engine needs to start and stop 500 services, by the shape of their graph.

#![expect(clippy::print_stdout, reason = "it prints the figures")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use mainstay_core::engine::{Action, Engine, Event, Exit, Notice, StateName};
use mainstay_core::manifest::{Format, parse};
use mainstay_core::time::Instant as EngineInstant;

const SERVICES: usize = 500;
const NOW: EngineInstant = EngineInstant::ZERO;

fn main() -> Result<(), Box<dyn Error>> {
    measure("none needs another", |_| 0..0)?;
    measure("all need one", |i| 0..i.min(1))?;
    measure("a chain", |i| i.saturating_sub(1)..i)?;
    measure("each needs the ten before", |i| i.saturating_sub(10)..i)
}

/// Starts and stops the services. `needs` returns the needs of a service by its number.
fn measure(
    graph: &str,
    needs: impl Fn(usize) -> std::ops::Range<usize>,
) -> Result<(), Box<dyn Error>> {
    let mut manifest = String::new();
    for i in 0..SERVICES {
        let needs: Vec<String> = needs(i).map(|need| format!("s{need}")).collect();
        writeln!(
            manifest,
            "[service.s{i}]\ncommand = ['a']\nneeds = {needs:?}\nstart.ready.notify = true",
        )?;
    }
    let specs = parse(&manifest, Format::Toml).map_err(|found| format!("{found:?}"))?;
    let mut engine = Engine::new(specs.into_iter().map(Arc::new), 1)?;
    let began = Instant::now();
    let actions = engine.start_all(NOW);
    let mut steps = perform(&mut engine, actions);
    let up = began.elapsed();
    let is_up = |id| {
        engine
            .view(id)
            .is_some_and(|view| view.state == StateName::Running)
    };
    assert!(engine.ids().all(is_up));
    let actions = engine.stop_all(NOW);
    steps += perform(&mut engine, actions);
    assert!(engine.is_down());
    let down = began.elapsed() - up;
    println!("{graph:28} up {up:8.1?}   down {down:8.1?}   {steps} events");
    Ok(())
}

/// Performs actions as a host of obedient services would. Returns the number of events.
fn perform(engine: &mut Engine, actions: Vec<Action>) -> usize {
    let mut open = VecDeque::from(actions);
    let mut count = 0;
    while let Some(action) = open.pop_front() {
        let events = match action {
            Action::Spawn(id, run) => [
                Event::Spawned(id, run, 1),
                Event::Notified(id, run, Notice::Ready),
            ],
            Action::AskToStop(id, run, _) => [
                Event::Exited(id, run, Exit::Code(0)),
                Event::Emptied(id, run),
            ],
            _ => continue,
        };
        for event in events {
            count += 1;
            open.extend(engine.step(event, NOW));
            black_box(engine.deadline());
        }
    }
    count
}
