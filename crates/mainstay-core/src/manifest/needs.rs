//! Resolution of `needs`: looks up names and rejects cycles.

use std::collections::{HashMap, HashSet};

use super::decode::Named;
use super::diagnostic::{Code, Findings, Shown};
use super::tables::ServiceTable;
use super::tree::Span;
use crate::spec::{Need, ServiceName};
use crate::suggest::did_you_mean;

/// Resolves the needs of each service, in the order of `services`.
pub(super) fn resolve(services: &Named<ServiceTable>, findings: &mut Findings) -> Vec<Vec<Need>> {
    let names = services.0.iter().map(|(name, _)| &*name.value);
    let indices: HashMap<&str, usize> = names.enumerate().map(|(i, name)| (name, i)).collect();
    let mut resolved = Vec::with_capacity(services.0.len());
    let mut graph: Vec<Vec<(usize, Span)>> = Vec::with_capacity(services.0.len());
    for (own, (_, table)) in services.0.iter().enumerate() {
        let typed = table.as_ref().and_then(|table| table.needs.as_ref());
        let mut seen = HashSet::new();
        let mut needs = Vec::new();
        let mut edges = Vec::new();
        for need in typed.into_iter().flat_map(|list| &list.value) {
            let (name, span) = (need.value.0.as_str(), need.span);
            if !seen.insert(name) {
                let message = format!("duplicate need `{}`", Shown(name));
                findings.add(Code::DuplicateNeed, span, message, Some("remove one"));
            } else if let Some(os) = name.strip_prefix("os:") {
                let wrong = |c: char| c.is_control() || c.is_whitespace();
                if os.is_empty() || os.contains(wrong) {
                    let help = Some(
                        "write the name of a service of the operating system: \"os:postgresql\"",
                    );
                    findings.add(
                        Code::UnknownNeed,
                        span,
                        "`os:` requires the name of a service",
                        help,
                    );
                }
                needs.push(Need::Os(os.to_owned()));
            } else if let Some(index) = indices.get(name) {
                if *index == own {
                    let help = Some("remove it");
                    findings.add(Code::SelfNeed, span, "a service cannot need itself", help);
                } else {
                    edges.push((*index, span));
                }
                // A malformed name is reported where it is defined.
                needs.extend(ServiceName::new(name).map(Need::Service));
            } else {
                let message = format!("no service `{}` in this manifest", Shown(name));
                let others = indices
                    .keys()
                    .copied()
                    .filter(|other| indices.get(other) != Some(&own));
                let help = did_you_mean(name, others);
                let help = help.unwrap_or_else(|| {
                    format!(
                        "write \"os:{}\" for a service of the operating system",
                        Shown(name)
                    )
                });
                findings.add(Code::UnknownNeed, span, message, Some(&help));
            }
        }
        resolved.push(needs);
        graph.push(edges);
    }
    cycles(&graph, findings, |index| {
        services.0.get(index).map_or("", |(name, _)| &name.value)
    });
    resolved
}

/// Reports each need that closes a cycle. The depth-first search uses an explicit stack, because a
/// chain may be as long as the manifest.
fn cycles<'a>(
    graph: &[Vec<(usize, Span)>],
    findings: &mut Findings,
    name: impl Fn(usize) -> &'a str,
) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    let mut marks = vec![Mark::New; graph.len()];
    for root in 0..graph.len() {
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::OnPath;
        let mut path = vec![(root, graph[root].iter())];
        while let Some((node, edges)) = path.last_mut() {
            let Some((next, span)) = edges.next() else {
                marks[*node] = Mark::Done;
                path.pop();
                continue;
            };
            match marks[*next] {
                Mark::New => {
                    marks[*next] = Mark::OnPath;
                    path.push((*next, graph[*next].iter()));
                }
                Mark::OnPath => {
                    let first = path.iter().position(|(node, _)| node == next);
                    let cycle = path.iter().skip(first.unwrap_or(0)).map(|(node, _)| *node);
                    let cycle: Vec<&str> = cycle.chain([*next]).map(&name).collect();
                    findings.add(
                        Code::NeedsCycle,
                        *span,
                        format!("dependency cycle: {}", shorten(&cycle)),
                        Some("remove one of these needs"),
                    );
                }
                Mark::Done => {}
            }
        }
    }
}

/// Formats a cycle as `a -> b -> a`, without the middle of a long one.
fn shorten(cycle: &[&str]) -> String {
    const SHOWN: usize = 8;
    let names = |part: &[&str]| {
        let names: Vec<String> = part.iter().map(|name| Shown(name).to_string()).collect();
        names.join(" -> ")
    };
    if cycle.len() <= 2 * SHOWN {
        return names(cycle);
    }
    let (start, end) = (&cycle[..SHOWN], &cycle[cycle.len() - SHOWN..]);
    format!("{} -> … -> {}", names(start), names(end))
}
