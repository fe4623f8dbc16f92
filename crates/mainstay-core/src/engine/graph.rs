//! The dependency graph of the services.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::id::ServiceId;
use crate::spec::{ServiceName, Spec};

/// The reason why specs do not form an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError {
    /// Two services share a name.
    Duplicate(ServiceName),
    /// A service needs one that does not exist.
    Missing {
        /// The dependent service.
        service: ServiceName,
        /// The missing need.
        need: ServiceName,
    },
    /// Services need each other in a cycle.
    Cycle(Vec<ServiceName>),
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(name) => write!(f, "two services are named {name}"),
            Self::Missing { service, need } => {
                write!(f, "{service} needs {need}, which is not defined")
            }
            Self::Cycle(names) => {
                f.write_str("dependency cycle:")?;
                for name in names {
                    write!(f, " {name}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for GraphError {}

/// The definition of every service, including candidates and superseded services.
pub(super) type Definitions = BTreeMap<ServiceId, Arc<Spec>>;

/// The dependency graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) needs: Edges,
    pub(super) dependents: Edges,
}

/// The neighbours of every service in one direction.
#[derive(Debug, Default)]
pub(super) struct Edges(BTreeMap<ServiceId, Vec<ServiceId>>);

impl Edges {
    pub(super) fn of(&self, id: ServiceId) -> &[ServiceId] {
        self.0.get(&id).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, from: ServiceId, to: ServiceId) {
        self.0.entry(from).or_default().push(to);
    }

    /// Returns the given services and all services reachable from them.
    pub(super) fn reach(&self, ids: &[ServiceId]) -> Vec<ServiceId> {
        let mut all = ids.to_vec();
        let mut next = 0;
        while let Some(id) = all.get(next) {
            let neighbours = self.of(*id).iter().copied();
            let new: Vec<ServiceId> = neighbours.filter(|id| !all.contains(id)).collect();
            all.extend(new);
            next += 1;
        }
        all
    }

    /// Removes a service and every edge to it.
    pub(super) fn remove(&mut self, id: ServiceId) {
        self.0.remove(&id);
        for neighbours in self.0.values_mut() {
            neighbours.retain(|neighbour| *neighbour != id);
        }
    }
}

impl Graph {
    pub(super) fn new(
        specs: &Definitions,
        ids: &BTreeMap<ServiceName, ServiceId>,
    ) -> Result<Self, GraphError> {
        let mut graph = Self::default();
        for (&id, spec) in specs {
            for name in spec.needed_services() {
                let Some(&need) = ids.get(name) else {
                    let (service, need) = (spec.name().clone(), name.clone());
                    return Err(GraphError::Missing { service, need });
                };
                graph.needs.add(id, need);
                graph.dependents.add(need, id);
            }
        }
        match graph.circle(specs.keys().copied()) {
            Some(circle) => {
                let names = circle.iter().filter_map(|id| specs.get(id));
                let names = names.map(|spec| spec.name().clone());
                Err(GraphError::Cycle(names.collect()))
            }
            None => Ok(graph),
        }
    }

    /// Returns a cycle of services, each followed by a service that it needs, if there is one.
    fn circle(&self, ids: impl Iterator<Item = ServiceId>) -> Option<Vec<ServiceId>> {
        // Kahn's algorithm: remove services without remaining needs.
        let mut open: BTreeMap<_, _> = ids.map(|id| (id, self.needs.of(id).len())).collect();
        let free = open.iter().filter(|(_, needs)| **needs == 0);
        let mut free: Vec<ServiceId> = free.map(|(id, _)| *id).collect();
        while let Some(id) = free.pop() {
            open.remove(&id);
            for dependent in self.dependents.of(id) {
                if let Some(needs) = open.get_mut(dependent) {
                    *needs -= 1;
                    if *needs == 0 {
                        free.push(*dependent);
                    }
                }
            }
        }
        // The rest is in a cycle or needs one that is: following the needs leads back to a visited
        // service.
        let mut path = vec![*open.keys().next()?];
        loop {
            let needs = self.needs.of(*path.last()?);
            let next = *needs.iter().find(|need| open.contains_key(need))?;
            if let Some(at) = path.iter().position(|&id| id == next) {
                return Some(path.split_off(at));
            }
            path.push(next);
        }
    }
}
