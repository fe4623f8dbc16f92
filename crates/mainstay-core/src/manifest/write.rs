//! The writer of manifests: the reverse of [`parse`](super::parse).
//!
//! A specification becomes a tree of keys in the order of the tables, without those that have their
//! default, and the tree becomes text. Defaults come from the tables, as for the decoder.

#[cfg(test)]
pub(super) mod specs;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use super::Format;
use super::decode::{Decode, Table};
use super::resolve::{USUAL_ALERT_LIMIT, USUAL_LIMIT, USUAL_SPOOL};
use super::tables::{
    ALERT_TIMEOUT, KEEP_SNAPSHOTS, LimitTable, LivenessTable, RecoveryTable, SinkTable,
    SnapshotTable, StartTable, StopTable, WaitForTable, WebhookTable,
};
use super::units::{ShowDuration, ShowSize};
use super::words::StrategyName;
use crate::spec::redact::{Class, Redaction};
use crate::spec::{
    Argv, Backoff, Environment, Http, Limits, Listen, Liveness, LogPolicy, Need, OnAlert, Owner,
    Probe, Ready, Recovery, Reload, Retention, Rotation, Sandbox, Senders, Signal, SinkSpec,
    SnapshotPolicy, Spec, Start, Still, Stop, StopAsk, StopStep, Strategy, WaitFor, Zone,
};

/// Returns a manifest of these services, in their order, which [`parse`](super::parse) reads as the
/// same specifications. It is canonical and minimal: keys have a fixed order, and those with their
/// default are left out.
///
/// All services must be for the same environment, and come from one manifest or form one together:
/// names, needs and addresses are not checked again. A manifest in YAML is written as JSON, which
/// is YAML as well.
pub fn write(specs: &[Spec], format: Format) -> String {
    let environment = specs.first().map(Spec::environment).unwrap_or_default();
    let services = specs
        .iter()
        .map(|spec| (spec.name().as_str(), service(spec)));
    match format {
        Format::Toml => {
            let mut text = String::new();
            if environment != Environment::default() {
                text += &format!("environment = {}\n", environment.show());
            }
            for (name, keys) in services {
                let gap = if text.is_empty() { "" } else { "\n" };
                text += &format!("{gap}[service.{name}]\n");
                for (key, item) in keys.0 {
                    text += &format!("{key} = {}\n", toml(&item));
                }
            }
            text
        }
        Format::Yaml | Format::Json => {
            let mut root = Keys::default();
            root.unless("environment", environment, Environment::default());
            let services = services.map(|(name, keys)| (name.to_owned(), Item::Table(keys)));
            root.put("service", Item::Table(Keys(services.collect())));
            json_text(&Item::Table(root), 0) + "\n"
        }
    }
}

/// The value of a key.
enum Item {
    /// A string, a number or a boolean.
    Scalar(Json),
    List(Vec<Item>),
    Table(Keys),
}

impl<T: Into<Json>> From<T> for Item {
    fn from(value: T) -> Self {
        Self::Scalar(value.into())
    }
}

/// The keys of a table, in order.
#[derive(Default)]
struct Keys(Vec<(String, Item)>);

impl Keys {
    fn put(&mut self, key: &str, item: impl Into<Item>) {
        self.0.push((key.to_owned(), item.into()));
    }

    /// Adds a word, unless it is the default.
    fn unless<T: Decode + PartialEq>(&mut self, key: &str, value: T, default: T) {
        if value != default {
            self.put(key, value.show());
        }
    }

    fn put_some(&mut self, key: &str, item: Option<impl Into<Item>>) {
        if let Some(item) = item {
            self.put(key, item);
        }
    }

    /// Adds a list or a table, unless it is empty.
    fn fill(&mut self, key: &str, item: Item) {
        match &item {
            Item::List(items) if items.is_empty() => {}
            Item::Table(Keys(keys)) if keys.is_empty() => {}
            _ => self.put(key, item),
        }
    }

    fn duration(&mut self, key: &str, value: Duration, default: Duration) {
        if value != default {
            self.put(key, duration(value));
        }
    }
}

fn duration(value: Duration) -> String {
    ShowDuration(value).to_string()
}

fn size(value: u64) -> String {
    ShowSize(value).to_string()
}

/// Paths come from the text of a manifest.
fn path(path: &Path) -> Item {
    path.to_string_lossy().into_owned().into()
}

fn list<T>(values: impl IntoIterator<Item = T>, item: impl Fn(T) -> Item) -> Item {
    Item::List(values.into_iter().map(item).collect())
}

fn argv(argv: &Argv) -> Item {
    let words = std::iter::once(argv.program()).chain(argv.args().iter().map(String::as_str));
    list(words, Item::from)
}

fn service(spec: &Spec) -> Keys {
    let mut keys = Keys::default();
    keys.put_some("description", spec.description.clone());
    keys.put_some("display_name", spec.display_name.clone());
    keys.put_some("manager_name", spec.manager_name.clone());
    keys.put("command", argv(&spec.command));
    keys.put_some("working_dir", spec.working_dir.as_deref().map(path));
    let env = spec.env.iter();
    let env = env.map(|(name, value)| (name.to_owned(), value.into()));
    keys.fill("env", Item::Table(Keys(env.collect())));
    keys.put_some("env_file", spec.env_file.as_deref().map(path));
    keys.fill(
        "inherit_env",
        list(spec.inherit_env.iter().cloned(), Item::from),
    );
    keys.put_some("priority", spec.priority.map(|it| it.show()));
    keys.fill("cpus", list(spec.cpus.iter().copied(), Item::from));
    keys.fill("limits", Item::Table(limits(spec.limits)));
    keys.put_some("sandbox", spec.sandbox.as_ref().map(sandbox));
    keys.put_some("account", spec.account.as_ref().map(ToString::to_string));
    keys.fill(
        "needs",
        list(&spec.needs, |need| match need {
            Need::Service(name) => name.as_str().into(),
            Need::Os(name) => format!("os:{name}").into(),
        }),
    );
    keys.fill(
        "listen",
        list(&spec.listen, |address| match address {
            Listen::Tcp(address) => address.to_string().into(),
            Listen::Unix(address) => path(address),
        }),
    );
    keys.fill("start", Item::Table(start(&spec.start)));
    keys.fill("wait_for", list(&spec.wait_for, wait_for));
    let ready = spec.start.ready.as_ref();
    let liveness = spec.liveness.as_ref();
    keys.put_some("liveness", liveness.map(|it| self::liveness(it, ready)));
    keys.fill("stop", Item::Table(stop(&spec.stop)));
    keys.put_some("reload", spec.reload.as_ref().map(reload));
    keys.fill("recovery", Item::Table(recovery(&spec.recovery)));
    keys.put_some("snapshot", spec.snapshot.as_ref().map(snapshot));
    keys.put_some("on_alert", spec.on_alert.as_ref().map(on_alert));
    keys.fill("log", Item::Table(log(&spec.log)));
    keys.put_some("http", spec.http.as_ref().map(http));
    keys
}

fn liveness(liveness: &Liveness, ready: Option<&Ready>) -> Item {
    let usual = LivenessTable::absent();
    let mut keys = Keys::default();
    keys.duration("every", liveness.every, usual.every.value.0);
    keys.duration("timeout", liveness.timeout, usual.timeout.value.0);
    if liveness.misses != usual.misses.value.0 {
        keys.put("misses", liveness.misses);
    }
    // Without a probe of its own, it is that of `start.ready`.
    if !matches!(ready, Some(Ready::Probe(probe)) if *probe == liveness.probe) {
        put_probe(&mut keys, &liveness.probe);
    }
    Item::Table(keys)
}

fn reload(reload: &Reload) -> Item {
    let mut keys = Keys::default();
    match reload {
        Reload::Signal(signal) => keys.put("signal", signal.name()),
        Reload::Exec(command) => keys.put("exec", argv(command)),
    }
    Item::Table(keys)
}

fn http(http: &Http) -> Item {
    let mut keys = Keys::default();
    keys.put("port", http.port);
    let tls = http.tls.as_ref().map(|tls| {
        let mut keys = Keys::default();
        keys.put("cert_path", path(&tls.cert_path));
        keys.put("key_path", path(&tls.key_path));
        Item::Table(keys)
    });
    keys.put_some("tls", tls);
    Item::Table(keys)
}

fn limits(limits: Limits) -> Keys {
    let amount = |limit| match limit {
        Limits::UNLIMITED => Item::from("unlimited"),
        limit => limit.into(),
    };
    let bytes = |limit| match limit {
        Limits::UNLIMITED => Item::from("unlimited"),
        limit => size(limit).into(),
    };
    let mut keys = Keys::default();
    keys.put_some("open_files", limits.open_files.map(amount));
    keys.put_some("processes", limits.processes.map(amount));
    keys.put_some(
        "core_size",
        limits.core_size.map(|limit| match limit {
            0 => "none".into(),
            limit => bytes(limit),
        }),
    );
    keys.put_some("locked_memory", limits.locked_memory.map(bytes));
    keys
}

fn sandbox(sandbox: &Sandbox) -> Item {
    let mut keys = Keys::default();
    keys.fill("writable", list(&sandbox.writable, |it| path(it)));
    keys.fill(
        "capabilities",
        list(sandbox.capabilities.iter().cloned(), Item::from),
    );
    keys.unless("jit", sandbox.jit, false);
    keys.unless("devices", sandbox.devices, false);
    Item::Table(keys)
}

fn start(start: &Start) -> Keys {
    let mut keys = Keys::default();
    keys.duration(
        "timeout",
        start.timeout,
        StartTable::absent().timeout.value.0,
    );
    keys.put_some(
        "ready",
        start.ready.as_ref().map(|ready| {
            let mut keys = Keys::default();
            keys.unless("owner", start.owner, Owner::default());
            match ready {
                Ready::Probe(probe) => put_probe(&mut keys, probe),
                Ready::Log(pattern) => keys.put("log", pattern.clone()),
                Ready::Notify(Senders::Tree) => keys.put("notify", true),
                Ready::Notify(Senders::All) => keys.put("notify", "all"),
            }
            Item::Table(keys)
        }),
    );
    keys
}

fn put_probe(keys: &mut Keys, probe: &Probe) {
    match probe {
        Probe::Http(url) => keys.put("http", url.to_string()),
        Probe::Tcp(address) => keys.put("tcp", address.to_string()),
        Probe::Unix(socket) => keys.put("unix", path(socket)),
        Probe::Exec(command) => keys.put("exec", argv(command)),
        Probe::File(file) => keys.put("file", path(file)),
    }
}

fn wait_for(wait: &WaitFor) -> Item {
    let usual = WaitForTable::absent();
    let mut keys = Keys::default();
    match wait.strategy {
        Strategy::Fixed { interval } => {
            keys.put("strategy", StrategyName::Fixed.show());
            keys.put("interval", duration(interval));
        }
        Strategy::Probe { interval, passes } => {
            keys.put("strategy", StrategyName::Probe.show());
            keys.put("interval", duration(interval));
            keys.put("passes", passes);
        }
        Strategy::Backoff(Backoff { base, factor, max }) => {
            keys.put("base", duration(base));
            keys.put("factor", factor);
            keys.put("max", duration(max));
        }
    }
    keys.duration("deadline", wait.deadline, usual.deadline.value.0);
    put_probe(&mut keys, &wait.probe);
    Item::Table(keys)
}

fn stop(stop: &Stop) -> Keys {
    let usual = StopTable::absent();
    let mut keys = Keys::default();
    keys.duration("graceful", stop.graceful, usual.graceful.value.0);
    let at_once = |ask| StopStep {
        ask,
        after: Duration::ZERO,
    };
    match stop.ladder[..] {
        // The steps of `signal`.
        [
            StopStep {
                ask: StopAsk::Signal(signal),
                after: Duration::ZERO,
            },
            close,
        ] if close == at_once(StopAsk::Close) => {
            keys.unless("signal", signal, Signal::Term);
        }
        ref steps => keys.fill(
            "ladder",
            list(steps, |step| {
                let mut keys = Keys::default();
                keys.put("ask", step.ask.show());
                keys.duration("after", step.after, Duration::ZERO);
                Item::Table(keys)
            }),
        ),
    }
    keys.unless("scope", stop.scope, usual.scope.value);
    keys
}

fn recovery(recovery: &Recovery) -> Keys {
    let usual = RecoveryTable::absent();
    let mut keys = Keys::default();
    keys.unless("policy", recovery.policy, usual.policy.value);
    keys.duration("delay", recovery.backoff.base, usual.delay.value.0);
    if recovery.backoff.factor != usual.factor.value.0 {
        keys.put("factor", recovery.backoff.factor);
    }
    keys.duration("max_delay", recovery.backoff.max, usual.max_delay.value.0);
    keys.duration(
        "reset_after",
        recovery.reset_after,
        usual.reset_after.value.0,
    );
    match recovery.limit {
        None => keys.put("limit", "none"),
        Some(USUAL_LIMIT) => {}
        Some(limit) => {
            let mut table = Keys::default();
            table.put("restarts", limit.restarts);
            table.put("window", duration(limit.window));
            table.unless("then", limit.then, LimitTable::absent().then.value);
            keys.put("limit", Item::Table(table));
        }
    }
    let codes = recovery.codes.iter();
    let codes = codes.map(|(code, action)| (code.to_string(), action.show().into()));
    keys.fill("codes", Item::Table(Keys(codes.collect())));
    keys
}

fn snapshot(policy: &SnapshotPolicy) -> Item {
    let usual = SnapshotTable::absent();
    let mut keys = Keys::default();
    keys.fill("paths", list(&policy.paths, |it| path(it)));
    match (policy.keep.count, policy.keep.age) {
        (Some(count), None) if count == KEEP_SNAPSHOTS.0 => {}
        (Some(count), None) => keys.put("keep", count),
        (count, age) => {
            let mut table = Keys::default();
            table.put_some("count", count);
            table.put_some("age", age.map(duration));
            keys.put("keep", Item::Table(table));
        }
    }
    keys.unless("when", policy.when, usual.when.value);
    keys.duration("after", policy.after, usual.after.value.0);
    keys.put_some("every", policy.every.map(duration));
    if policy.max_size != usual.max_size.value.0 {
        keys.put("max_size", size(policy.max_size));
    }
    match &policy.still {
        Still::Nothing => {}
        Still::Pause => keys.put("pause", true),
        Still::Commands { quiesce, thaw } => {
            keys.put("quiesce", argv(quiesce));
            keys.put_some("thaw", thaw.as_ref().map(argv));
        }
    }
    Item::Table(keys)
}

fn on_alert(alert: &OnAlert) -> Item {
    let mut keys = Keys::default();
    keys.duration("timeout", alert.timeout, ALERT_TIMEOUT.0);
    keys.put_some(
        "webhook",
        alert.webhook.as_ref().map(|webhook| {
            let usual = WebhookTable::absent();
            let mut keys = Keys::default();
            keys.put("url", webhook.url.text.clone());
            keys.put("secret_file", path(&webhook.secret_file));
            keys.put_some("ca", webhook.ca.as_deref().map(path));
            keys.duration("timeout", webhook.timeout, usual.timeout.value.0);
            keys.duration("deadline", webhook.deadline, usual.deadline.value.0);
            Item::Table(keys)
        }),
    );
    match alert.limit {
        None => keys.put("limit", "none"),
        Some(USUAL_ALERT_LIMIT) => {}
        Some(limit) => {
            let mut table = Keys::default();
            table.put("alerts", limit.alerts);
            table.put("window", duration(limit.window));
            keys.put("limit", Item::Table(table));
        }
    }
    match &alert.exec {
        Some(command) if keys.0.is_empty() => argv(command),
        command => {
            keys.put_some("exec", command.as_ref().map(argv));
            Item::Table(keys)
        }
    }
}

fn log(log: &LogPolicy) -> Keys {
    let usual = LogPolicy::default();
    let mut keys = Keys::default();
    keys.unless("level", log.level, usual.level);
    if log.rotate != usual.rotate {
        keys.put("rotate", rotation(log.rotate));
    }
    if log.keep != usual.keep {
        keys.put("keep", retention(log.keep));
    }
    keys.unless("compress", log.compress, usual.compress);
    keys.unless("format", log.format, usual.format);
    keys.unless("encoding", log.encoding, usual.encoding);
    keys.unless("streams", log.streams, usual.streams);
    keys.unless("filter", log.filter, usual.filter);
    keys.fill("redact", redact(&log.redact));
    keys.unless("redact_with", log.redact.with(), usual.redact.with());
    keys.fill("sinks", list(&log.sinks, sink));
    keys
}

fn rotation(rotation: Rotation) -> Item {
    match rotation {
        Rotation {
            size: None,
            every: None,
            at_start: false,
        } => "none".into(),
        Rotation {
            size: Some(bytes),
            every: None,
            at_start: false,
        } => size(bytes).into(),
        Rotation {
            size: bytes,
            every,
            at_start,
        } => {
            let mut keys = Keys::default();
            if bytes != LogPolicy::default().rotate.size {
                keys.put("size", bytes.map_or_else(|| "none".to_owned(), size));
            }
            if let Some((every, zone)) = every {
                keys.put("every", every.show());
                keys.unless("zone", zone, Zone::Utc);
            }
            keys.unless("at_start", at_start, false);
            Item::Table(keys)
        }
    }
}

fn retention(keep: Retention) -> Item {
    match keep {
        Retention {
            files: Some(files),
            size: None,
            age: None,
        } => files.into(),
        keep => {
            let mut keys = Keys::default();
            keys.put_some("files", keep.files);
            keys.put_some("size", keep.size.map(size));
            keys.put_some("age", keep.age.map(duration));
            Item::Table(keys)
        }
    }
}

fn redact(redaction: &Redaction) -> Item {
    let classes = Class::ALL.into_iter().filter(|class| redaction.has(*class));
    let classes = classes.map(|class| class.name().into());
    let fields = redaction.fields.iter();
    let fields = fields.map(|field| format!("$.{}", field.name).into());
    let patterns = redaction.patterns.iter().map(|pattern| {
        let mut keys = Keys::default();
        keys.put("regex", pattern.regex.as_str());
        keys.put("name", pattern.name.clone());
        Item::Table(keys)
    });
    Item::List(classes.chain(fields).chain(patterns).collect())
}

fn sink(sink: &SinkSpec) -> Item {
    let usual = SinkTable::absent();
    let mut keys = Keys::default();
    keys.unless("facility", sink.facility, usual.facility.value);
    keys.put_some("ca", sink.ca.as_deref().map(path));
    if let Some(identity) = &sink.identity {
        keys.put("cert", path(&identity.cert_path));
        keys.put("key", path(&identity.key_path));
    }
    if sink.spool != USUAL_SPOOL {
        keys.put("spool", size(sink.spool));
    }
    let target = sink.target.to_string();
    if keys.0.is_empty() {
        return target.into();
    }
    keys.0.insert(0, ("to".to_owned(), target.into()));
    Item::Table(keys)
}

/// Returns any value but null in TOML, on one line.
pub(super) fn to_toml(value: &Json) -> String {
    toml(&item(value))
}

fn item(value: &Json) -> Item {
    match value {
        Json::Array(items) => list(items, item),
        Json::Object(keys) => {
            let keys = keys.iter().map(|(key, value)| (key.clone(), item(value)));
            Item::Table(Keys(keys.collect()))
        }
        scalar => Item::Scalar(scalar.clone()),
    }
}

/// Returns a value in TOML, on one line.
fn toml(item: &Item) -> String {
    match item {
        Item::Scalar(Json::String(text)) => toml_string(text),
        Item::Scalar(scalar) => scalar.to_string(),
        Item::List(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Item::Table(Keys(keys)) if keys.is_empty() => "{}".to_owned(),
        Item::Table(Keys(keys)) => {
            let keys = keys.iter();
            let keys = keys.map(|(key, item)| format!("{} = {}", toml_key(key), toml(item)));
            format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Returns a text in the quotes that need no escapes, if there are such.
pub(super) fn toml_string(text: &str) -> String {
    if text.contains('\\') && !text.contains(|c: char| c == '\'' || c.is_control()) {
        return format!("'{text}'");
    }
    // TOML has the escapes of JSON, and needs one more.
    let quoted = Json::from(text).to_string();
    quoted.replace('\u{7f}', "\\u007f")
}

/// Returns the name of a key in TOML.
pub(super) fn toml_key(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(is_bare) {
        key.to_owned()
    } else {
        toml_string(key)
    }
}

/// Returns a value in JSON, with a line for each key of a table.
fn json_text(item: &Item, depth: usize) -> String {
    match item {
        Item::Scalar(scalar) => scalar.to_string(),
        Item::List(items) => {
            let items: Vec<String> = items.iter().map(|it| json_text(it, depth)).collect();
            format!("[{}]", items.join(", "))
        }
        Item::Table(Keys(keys)) if keys.is_empty() => "{}".to_owned(),
        Item::Table(Keys(keys)) => {
            let indent = "  ".repeat(depth + 1);
            let keys = keys.iter().map(|(key, item)| {
                format!(
                    "{indent}{}: {}",
                    Json::from(&**key),
                    json_text(item, depth + 1)
                )
            });
            let keys: Vec<String> = keys.collect();
            format!("{{\n{}\n{}}}", keys.join(",\n"), "  ".repeat(depth))
        }
    }
}
