//! The definitions of simulated services: manifests as text, parsed once.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::TextDigest;
use mainstay_core::spec::Spec;
use mainstay_store::embedded::{Definition, Desired};

/// The names of all services.
pub(super) const NAMES: [&str; 6] = ["db", "cache", "queue", "api", "web", "mail"];
/// The number of manifests. Each defines every service, in another way than the others.
pub(super) const VARIANTS: usize = 10;

/// The programs of helpers, by which the world recognizes their purpose.
pub(super) const QUIESCE: &str = "/bin/quiesce";
pub(super) const THAW: &str = "/bin/thaw";

/// The settings of a service, apart from its command and its needs.
const SHAPES: [&str; 13] = [
    r#"
    recovery = { delay = "50ms", max_delay = "2s", limit = { restarts = 3, window = "1m", then = "halt" }, codes = { 3 = "halt", 75 = "retry" } }
    stop = { graceful = "2s" }
    "#,
    r#"
    start = { timeout = "5s", ready = { notify = true } }
    stop = { graceful = "4s", ladder = [{ ask = "INT" }, { ask = "TERM", after = "2s" }] }
    on_alert = { exec = ["/bin/page"], timeout = "5s" }
    "#,
    r#"
    start = { timeout = "5s", ready = { log = "ready" } }
    stop = { graceful = "2s", scope = "main" }
    reload = { signal = "HUP" }
    on_alert = { exec = ["/bin/page"], timeout = "2s", limit = "none" }
    "#,
    r#"
    start = { timeout = "8s", ready = { tcp = "127.0.0.1:5432" } }
    liveness = { every = "1s", timeout = "500ms", misses = 2 }
    stop = { graceful = "2s" }
    recovery = { delay = "0s", limit = "none" }
    "#,
    r#"
    start = { timeout = "5s", ready = { exec = ["/bin/probe"] } }
    liveness = { exec = ["/bin/probe"], every = "2s", timeout = "1s", misses = 2 }
    stop = { graceful = "1s" }
    reload = { exec = ["/bin/reload"] }
    recovery = { delay = "100ms", max_delay = "1s", limit = { restarts = 2, window = "30s", then = "alert" } }
    on_alert = { webhook = { url = "http://127.0.0.1:9/hook", secret_file = "/etc/key", timeout = "3s", deadline = "40s" } }
    "#,
    r#"
    wait_for = [
        { exec = ["/bin/probe"], strategy = "fixed", interval = "1s", deadline = "10s" },
        { file = "/run/licence", strategy = "probe", interval = "100ms", passes = 2, deadline = "5s" },
    ]
    stop = { graceful = "2s" }
    "#,
    r#"
    snapshot = { after = "1s", every = "20s" }
    stop = { graceful = "3s" }
    recovery = { delay = "50ms", limit = "none", codes = { 9 = "restore" } }
    on_alert = { exec = ["/bin/page"], webhook = { url = "http://127.0.0.1:9/hook", secret_file = "/etc/key", timeout = "3s", deadline = "20s" } }
    "#,
    r#"
    snapshot = { after = "1s", every = "5s", pause = true }
    start = { timeout = "5s", ready = { notify = "all" } }
    liveness = { file = "/run/alive", every = "1s", timeout = "500ms", misses = 3 }
    stop = { graceful = "2s" }
    recovery = { delay = "50ms", limit = "none", codes = { 9 = "restore" } }
    "#,
    r#"
    snapshot = { after = "1s", every = "5s", quiesce = ["/bin/quiesce"], thaw = ["/bin/thaw"] }
    stop = { graceful = "2s" }
    recovery = { delay = "50ms", limit = "none", codes = { 9 = "restore" } }
    on_alert = { exec = ["/bin/page"], timeout = "5s", limit = { alerts = 2, window = "1m" } }
    "#,
    r#"
    listen = ["127.0.0.1:8080"]
    start = { timeout = "5s", ready = { http = "http://127.0.0.1:8080/" } }
    recovery = { policy = "strict" }
    stop = { graceful = "2s" }
    "#,
    r#"
    listen = ["127.0.0.1:8080"]
    start = { timeout = "3s", ready = { notify = true } }
    stop = { graceful = "2s" }
    recovery = { delay = "50ms" }
    "#,
    r#"
    listen = ["127.0.0.1:8080"]
    recovery = { policy = "never" }
    stop = { graceful = "1s" }
    "#,
    r#"
    snapshot = { when = "manual", quiesce = ["/bin/quiesce"] }
    stop = { graceful = "2s" }
    "#,
];

/// A definition of one service.
pub(super) struct Pooled {
    pub(super) spec: Arc<Spec>,
    pub(super) digest: TextDigest,
}

/// All definitions, by variant and by the position of the service's name.
static POOL: LazyLock<Vec<Vec<Pooled>>> = LazyLock::new(|| (0..VARIANTS).map(pooled).collect());

fn pooled(variant: usize) -> Vec<Pooled> {
    let text = text(variant);
    let specs = manifest::parse(&text, Format::Toml);
    let specs = specs.unwrap_or_else(|found| panic!("{text}\n{found:?}"));
    let at = |name: &str| specs.iter().find(|spec| spec.name().as_str() == name);
    let all = NAMES.iter().map(|name| Pooled {
        spec: Arc::new(
            at(name)
                .expect("a service of each name")
                .clone()
                .beside_others(),
        ),
        digest: TextDigest::of(&format!("{name} {variant}"), Format::Toml, "/", None),
    });
    all.collect()
}

fn text(variant: usize) -> String {
    let mut text = "environment = \"development\"\n".to_owned();
    for (at, name) in NAMES.iter().enumerate() {
        let needs: Vec<&str> = needs(variant, at).into_iter().map(|at| NAMES[at]).collect();
        // 5 and 13 have no common divisor, so each service gets a shape of its own.
        let shape = SHAPES[(at * 5 + variant * 4) % SHAPES.len()];
        let settings: Vec<&str> = shape.lines().map(str::trim).collect();
        let settings = settings.join("\n").replace("8080", &format!("80{at}0"));
        text += &format!(
            "[service.{name}]\ncommand = [\"/bin/{name}\"]\nneeds = {needs:?}\n{settings}\n"
        );
    }
    text
}

/// The services that this one needs: none, a chain, a fan, or a chain in the opposite direction,
/// which forms a cycle with services of other variants.
fn needs(variant: usize, at: usize) -> Vec<usize> {
    match variant % 4 {
        1 if at > 0 => vec![at - 1],
        2 if at > 1 => vec![0, 1],
        3 if variant > 4 && at + 1 < NAMES.len() => vec![at + 1],
        _ => Vec::new(),
    }
}

/// Returns a definition of the service with this name.
pub(super) fn pool(name: &str, variant: usize) -> &'static Pooled {
    let at = NAMES.iter().position(|it| *it == name);
    &POOL[variant % VARIANTS][at.expect("a name of the pool")]
}

/// Returns the names of the services that one needs under any of its definitions, directly or
/// indirectly, and its own.
pub(super) fn reach(name: &str) -> Vec<&'static str> {
    let mut all: Vec<&'static str> = NAMES.into_iter().filter(|it| *it == name).collect();
    let mut next = 0;
    while let Some(name) = all.get(next) {
        next += 1;
        let variants = (0..VARIANTS).map(|variant| &pool(name, variant).spec);
        let needs: Vec<&str> = variants
            .flat_map(|it| it.needed_services())
            .map(|it| it.as_str())
            .collect();
        let new = NAMES
            .into_iter()
            .filter(|it| needs.contains(it) && !all.contains(it));
        let new: Vec<_> = new.collect();
        all.extend(new);
    }
    all
}

/// Returns a definition as it is installed in this version, or of a manifest if that is 0.
pub(super) fn definition(
    name: &str,
    variant: usize,
    version: u64,
    desired: Option<Desired>,
) -> Definition {
    let Pooled { spec, digest } = pool(name, variant);
    Definition {
        spec: Arc::clone(spec),
        dir: PathBuf::from("/"),
        version,
        is_enabled: true,
        desired,
        digest: Some(digest.clone()),
        problem: None,
    }
}
