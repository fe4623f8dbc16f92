//! Keys, values and files of other tools, with the equivalents in a manifest.

use std::fmt;

use super::tree::Value;

/// A table of the manifest in which a foreign key may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    File,
    Service,
    Start,
    Liveness,
    Stop,
    Recovery,
    Limits,
    Log,
}

impl Place {
    /// Returns the table that has these keys; `None` if foreign keys are not expected there.
    fn of(known: &[&str]) -> Option<Self> {
        let has = |key| known.contains(&key);
        match () {
            () if has("environment") && has("service") => Some(Self::File),
            () if has("command") && has("account") => Some(Self::Service),
            () if has("graceful") => Some(Self::Stop),
            () if has("policy") && has("reset_after") => Some(Self::Recovery),
            () if has("misses") => Some(Self::Liveness),
            () if has("ready") && has("timeout") => Some(Self::Start),
            () if has("open_files") => Some(Self::Limits),
            () if has("rotate") && has("level") => Some(Self::Log),
            () => None,
        }
    }
}

/// The advice for a foreign key.
#[derive(Clone, Copy, Debug)]
enum Advice {
    /// Write this TOML instead, with a remark.
    Write(&'static str, &'static str),
    /// Use this key of the same table, with a remark.
    Key(&'static str, &'static str),
    /// An explanation without text to copy.
    Say(&'static str),
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(toml, remark) => write!(f, "write {toml}{remark}"),
            Self::Key(key, remark) => write!(f, "write `{key}`{remark}"),
            Self::Say(text) => f.write_str(text),
        }
    }
}

/// Foreign keys (lower case, without `-` and `_`), the tables in which they occur, and the advice.
const WORDS: &[(Place, &[&str], Advice)] = {
    use Advice::{Key, Say, Write};
    use Place::{File, Limits, Liveness, Log, Recovery, Service, Start, Stop};
    &[
        // Top level.
        (
            File,
            &["services", "programs", "apps", "processes"],
            Say("write one table per service: [service.NAME]"),
        ),
        (
            File,
            &["unit", "install"],
            Say(
                "this is a section of a systemd unit: a manifest has one table per service, [service.NAME]",
            ),
        ),
        (
            File,
            &["version"],
            Say("a manifest has no version; remove this line"),
        ),
        (
            File,
            &["volumes", "networks", "secrets", "configs"],
            Say(
                "mainstay runs programs, not containers: a service uses the directories and the network of its host",
            ),
        ),
        // Commands.
        (
            Service,
            &[
                "execstart",
                "exec",
                "executable",
                "program",
                "programarguments",
                "script",
                "entrypoint",
                "cmd",
                "application",
                "interpreter",
                "executablepath",
                "startcommand",
                "run",
            ],
            Write("command = [\"/path/to/program\", \"argument\"]", ""),
        ),
        (
            Service,
            &[
                "args",
                "arguments",
                "startarguments",
                "startargument",
                "appparameters",
                "parameters",
                "nodeargs",
                "interpreterargs",
            ],
            Write(
                "command = [\"/path/to/program\", \"argument\"]",
                ": arguments follow the program",
            ),
        ),
        (
            Service,
            &[
                "execstop",
                "stopexecutable",
                "stopcommand",
                "stoparguments",
                "stopargument",
            ],
            Write(
                "stop = { signal = \"TERM\" }",
                ", with the signal that stops it; a command that stops a service is not supported yet",
            ),
        ),
        (
            Service,
            &["execreload"],
            Write(
                "reload = { exec = [\"/path/to/program\", \"argument\"] }",
                "",
            ),
        ),
        (
            Service,
            &[
                "execstartpre",
                "execstartpost",
                "execstoppost",
                "execcondition",
                "prestart",
                "poststart",
                "prestop",
                "poststop",
                "postdeploy",
                "hooks",
            ],
            Say(
                "commands before and after a start or stop are not supported yet; `wait_for` waits for a condition before the start",
            ),
        ),
        (
            Service,
            &["notifyaccess", "sdnotify", "waitready"],
            Write("start = { ready = { notify = true } }", ""),
        ),
        (
            Service,
            &["pidfile"],
            Say("remove it: a program is supervised as a process, in the foreground"),
        ),
        (
            Service,
            &[
                "image",
                "build",
                "containername",
                "hostname",
                "ports",
                "expose",
                "networks",
                "networkmode",
                "links",
                "volumes",
                "dns",
                "pullpolicy",
                "platform",
                "privileged",
                "runtime",
                "sysctls",
                "tmpfs",
                "shmsize",
                "extrahosts",
            ],
            Write(
                "command = [\"/path/to/program\"]",
                ": mainstay runs programs, not containers",
            ),
        ),
        (
            Service,
            &[
                "instances",
                "numprocs",
                "replicas",
                "scale",
                "processname",
                "numprocsstart",
            ],
            Say("multiple instances of a service are not supported yet; write one table for each"),
        ),
        (
            Service,
            &["execmode", "mergelogs", "incrementvar", "instancevar"],
            Say("a cluster mode is not supported; write one table for each process"),
        ),
        (
            Service,
            &[
                "kind",
                "schedule",
                "cron",
                "cronrestart",
                "oncalendar",
                "startinterval",
                "startcalendarinterval",
                "tasks",
                "oneshot",
            ],
            Say("tasks and schedules are not supported yet"),
        ),
        (
            Service,
            &["watch", "ignorewatch", "watchdelay"],
            Say("restarts on file changes are not supported yet"),
        ),
        (
            Service,
            &[
                "autostart",
                "enabled",
                "runatload",
                "wantedby",
                "startmode",
                "startuptype",
                "disabled",
            ],
            Say(
                "`mainstay enable NAME` and `mainstay disable NAME` decide whether an installed service starts at boot",
            ),
        ),
        // Accounts and directories.
        (
            Service,
            &[
                "user",
                "uid",
                "username",
                "runas",
                "serviceaccount",
                "objectname",
                "owner",
                "setuid",
            ],
            Write("account = \"user:NAME\"", ""),
        ),
        (
            Service,
            &["group", "gid", "groupname", "setgid", "supplementarygroups"],
            Say("groups are not supported yet: a service has the groups of its `account`"),
        ),
        (
            Service,
            &["dynamicuser"],
            Write("account = \"dynamic\"", ""),
        ),
        (
            Service,
            &[
                "cwd",
                "workingdirectory",
                "workdir",
                "directory",
                "chdir",
                "appdirectory",
                "startupdirectory",
                "dir",
            ],
            Write("working_dir = \"/path\"", ""),
        ),
        (Service, &["umask"], Say("a umask is not supported yet")),
        (
            Service,
            &[
                "environment",
                "environments",
                "envvars",
                "environmentvariables",
                "appenvironment",
                "appenvironmentextra",
                "envproduction",
                "vars",
            ],
            Write("env = { NAME = \"value\" }", ""),
        ),
        (
            Service,
            &["environmentfile", "envfiles", "dotenv"],
            Write("env_file = \"/path\"", ""),
        ),
        (
            Service,
            &["passenvironment", "inheritenv"],
            Write("inherit_env = [\"NAME\"]", ""),
        ),
        (
            Service,
            &["name", "label", "id", "servicename"],
            Say(
                "the name of a service is its table's: [service.NAME]; `manager_name` is what its manager calls it",
            ),
        ),
        (Service, &["title"], Write("display_name = \"…\"", "")),
        // Dependencies.
        (
            Service,
            &[
                "dependson",
                "depends",
                "after",
                "requires",
                "wants",
                "bindsto",
                "partof",
                "dependonservice",
                "dependencies",
                "requisite",
                "priorityorder",
            ],
            Write(
                "needs = [\"NAME\"]",
                ", or \"os:NAME\" for a service of the operating system",
            ),
        ),
        (
            Service,
            &["before", "requiredby", "upheldby"],
            Write(
                "needs = [\"NAME\"]",
                " in the other service, with the name of this one: a service lists those that it depends on",
            ),
        ),
        (
            Service,
            &["conditionpathexists", "assertpathexists", "onlyif"],
            Write("wait_for = [{ file = \"/path\" }]", ""),
        ),
        (
            Service,
            &["sockets", "listenstream", "fileactivation"],
            Write("listen = [\"127.0.0.1:8080\"]", ""),
        ),
        // Start and health.
        (
            Service,
            &[
                "healthcheck",
                "livenessprobe",
                "health",
                "healthchecks",
                "monitor",
                "enablehealthmonitoring",
            ],
            Write(
                "liveness = { http = \"http://127.0.0.1:8080/healthz\" }",
                " (or tcp, exec); `start` has `ready` for readiness",
            ),
        ),
        (
            Service,
            &["readinessprobe", "startupprobe", "ready", "readiness"],
            Write(
                "start = { ready = { http = \"http://127.0.0.1:8080/healthz\" } }",
                " (or tcp, exec, log, notify)",
            ),
        ),
        (
            Service,
            &["watchdogsec", "watchdog"],
            Write(
                "liveness = { http = \"http://127.0.0.1:8080/healthz\" }",
                " (or tcp, exec)",
            ),
        ),
        (
            Service,
            &[
                "startsecs",
                "startperiod",
                "timeoutstartsec",
                "starttimeout",
                "listentimeout",
                "minuptime",
            ],
            Write(
                "start = { timeout = \"60s\" }",
                "; recovery.reset_after is the duration of a run that resets the pause",
            ),
        ),
        (
            Service,
            &["timeout", "timeouts"],
            Say(
                "`start` has `timeout`, `stop` has `graceful`, and `liveness` has a `timeout` for its probe",
            ),
        ),
        (
            Service,
            &["delayedautostart"],
            Say("a delayed start is not supported yet"),
        ),
        // Stop.
        (
            Service,
            &["stopsignal", "killsignal"],
            Write("stop = { signal = \"TERM\" }", ""),
        ),
        (
            Service,
            &[
                "timeoutstopsec",
                "timeoutsec",
                "stopgraceperiod",
                "stopwaitsecs",
                "stoptimeout",
                "killtimeout",
                "graceful",
                "terminationgraceperiodseconds",
                "exittimeout",
            ],
            Write("stop = { graceful = \"30s\" }", ""),
        ),
        (
            Service,
            &[
                "killmode",
                "treekill",
                "stopasgroup",
                "killasgroup",
                "sendsigkill",
                "stopparentprocessfirst",
            ],
            Write(
                "stop = { scope = \"main\" }",
                " to ask only the main process to stop; a kill always takes every process of a service",
            ),
        ),
        // Restart.
        (
            Service,
            &[
                "restart",
                "autorestart",
                "keepalive",
                "restartpolicy",
                "onfailure",
                "respawn",
                "appexit",
                "recoveryaction",
            ],
            Write(
                "recovery = { policy = \"restart\" }",
                " (or \"strict\", \"never\")",
            ),
        ),
        (
            Service,
            &[
                "restartsec",
                "restartdelay",
                "backoff",
                "throttleinterval",
                "apprestartdelay",
                "appthrottle",
                "exponentialbackoffrestartdelay",
            ],
            Write("recovery = { delay = \"100ms\", max_delay = \"30s\" }", ""),
        ),
        (
            Service,
            &[
                "startlimitburst",
                "startlimitinterval",
                "startlimitintervalsec",
                "startretries",
                "maxrestarts",
                "retries",
                "maxrestartattempts",
            ],
            Write(
                "recovery = { limit = { restarts = 5, window = \"1m\" } }",
                "",
            ),
        ),
        (
            Service,
            &[
                "successexitstatus",
                "restartpreventexitstatus",
                "restartforceexitstatus",
                "stopexitcodes",
                "exitcodes",
            ],
            Write("recovery = { codes = { 143 = \"stop\" } }", ""),
        ),
        (
            Service,
            &[
                "maxmemoryrestart",
                "memorymax",
                "memorylimit",
                "memlimit",
                "mem",
                "memory",
                "cpuquota",
                "cpulimit",
                "tasksmax",
                "pidslimit",
            ],
            Say("limits of memory, processor time and tasks are not supported yet"),
        ),
        (
            Service,
            &[
                "cpuschedulingpolicy",
                "ioschedulingclass",
                "oomscoreadjust",
                "oomscoreadj",
                "ioweight",
                "cpuweight",
                "cpushares",
            ],
            Say("`priority` is the only weight that is supported so far"),
        ),
        // Privileges and resources.
        (
            Service,
            &[
                "limitnofile",
                "limitnproc",
                "limitcore",
                "limitmemlock",
                "ulimits",
                "ulimit",
                "rlimit",
                "minfds",
                "softresourcelimits",
                "hardresourcelimits",
            ],
            Write(
                "limits = { open_files = 65536 }",
                " (also processes, core_size, locked_memory)",
            ),
        ),
        (
            Service,
            &["nice", "processtype"],
            Write("priority = \"low\"", " (to \"high\")"),
        ),
        (
            Service,
            &["cpuaffinity", "cpuset", "allowedcpus"],
            Write("cpus = [0, 1]", ""),
        ),
        (
            Service,
            &[
                "ambientcapabilities",
                "capabilityboundingset",
                "capadd",
                "capdrop",
                "capabilities",
                "securityopt",
            ],
            Write(
                "sandbox = { capabilities = [\"CAP_NET_BIND_SERVICE\"] }",
                "",
            ),
        ),
        (
            Service,
            &[
                "readwritepaths",
                "readwritedirectories",
                "statedirectory",
                "cachedirectory",
                "logsdirectory",
                "runtimedirectory",
            ],
            Write(
                "sandbox = { writable = [\"/path\"] }",
                " for directories other than its own (MAINSTAY_DATA_DIR)",
            ),
        ),
        (
            Service,
            &[
                "protectsystem",
                "protecthome",
                "privatetmp",
                "privatedevices",
                "nonewprivileges",
                "readonly",
                "protectkerneltunables",
                "protectcontrolgroups",
                "restrictaddressfamilies",
                "systemcallfilter",
                "memorydenywriteexecute",
            ],
            Say(
                "remove it: an installed service is sandboxed unless `mainstay install --no-sandbox` is used; `sandbox` lists its exceptions",
            ),
        ),
        (
            Service,
            &["loadcredential", "credentials", "credential", "secrets"],
            Write(
                "env_file = \"/path\"",
                ", with mode 0600, for secrets; credentials are not supported yet",
            ),
        ),
        (
            Service,
            &["shell"],
            Write(
                "command = [\"/bin/sh\", \"-c\", \"first | second\"]",
                " where a shell is needed",
            ),
        ),
        (
            Service,
            &["port", "bind", "host"],
            Write(
                "listen = [\"127.0.0.1:8080\"]",
                " for a program that receives its socket from its manager; otherwise pass the port in `command` or `env`",
            ),
        ),
        (
            Service,
            &["tty", "stdinopen", "stdin", "interactive"],
            Say("remove it: a service has no terminal and no standard input"),
        ),
        (
            Service,
            &["labels", "annotations", "tags"],
            Say("remove it: labels are not supported yet; use `description` for text"),
        ),
        (
            Service,
            &["profiles", "profile"],
            Say(
                "profiles are not supported yet; `mainstay run FILE NAME` runs the named services and those that they need",
            ),
        ),
        (
            Service,
            &["extends", "template", "inherits"],
            Say("templates are not supported yet; write each service in full"),
        ),
        // Output.
        (
            Service,
            &[
                "stdout",
                "stderr",
                "standardoutput",
                "standarderror",
                "stdoutlogfile",
                "stderrlogfile",
                "outfile",
                "errorfile",
                "logfile",
                "logpath",
                "standardoutpath",
                "standarderrorpath",
                "standardoutpath",
                "appstdout",
                "appstderr",
                "stdoutpath",
                "stderrpath",
                "standarderrpath",
                "standardout",
                "logging",
                "redirectstderr",
                "syslogidentifier",
            ],
            Say(
                "output goes to the service's own log: `mainstay logs NAME`; `log` has its settings",
            ),
        ),
        (
            Service,
            &[
                "stdoutlogfilemaxbytes",
                "stderrlogfilemaxbytes",
                "logfilemaxbytes",
                "approtatebytes",
                "approtatefiles",
                "sizethreshold",
                "logmode",
            ],
            Write("log = { rotate = \"10MB\" }", ""),
        ),
        (
            Service,
            &[
                "stdoutlogfilebackups",
                "stderrlogfilebackups",
                "logfilebackups",
                "keepfiles",
            ],
            Write("log = { keep = 8 }", ""),
        ),
        (
            Service,
            &["loglevel"],
            Write("log = { level = \"warn\" }", ""),
        ),
        (
            Service,
            &["alert", "alerts", "onalerts", "notify", "webhook"],
            Write(
                "on_alert = [\"/path/to/program\"]",
                ", or a table with `webhook`",
            ),
        ),
        // Keys of the service's tables.
        (
            Start,
            &["timeoutsec", "timeoutstartsec", "startsecs", "startperiod"],
            Key("timeout", ""),
        ),
        (
            Start,
            &[
                "readiness",
                "probe",
                "http",
                "tcp",
                "exec",
                "notify",
                "log",
                "file",
                "unix",
            ],
            Write(
                "ready = { tcp = \"127.0.0.1:8080\" }",
                ": a probe goes under `ready`",
            ),
        ),
        (
            Liveness,
            &["interval", "period", "periodseconds"],
            Key("every", ""),
        ),
        (
            Liveness,
            &["retries", "failurethreshold", "threshold"],
            Key("misses", ""),
        ),
        (
            Liveness,
            &["test", "cmd", "command"],
            Write("exec = [\"/path/to/program\"]", ""),
        ),
        (
            Stop,
            &[
                "timeout",
                "graceperiod",
                "stopgraceperiod",
                "timeoutstopsec",
                "wait",
                "stopwaitsecs",
                "killtimeout",
            ],
            Key("graceful", ""),
        ),
        (Stop, &["killsignal", "stopsignal"], Key("signal", "")),
        (
            Stop,
            &["exec", "command", "execstop"],
            Say("a command that stops a service is not supported yet"),
        ),
        (
            Stop,
            &["killmode", "kill"],
            Write("scope = \"tree\"", " (or \"main\")"),
        ),
        (
            Recovery,
            &["restart", "autorestart", "mode"],
            Write("policy = \"restart\"", " (or \"strict\", \"never\")"),
        ),
        (
            Recovery,
            &["restartsec", "restartdelay", "backoff", "wait"],
            Key("delay", ""),
        ),
        (
            Recovery,
            &[
                "maxrestarts",
                "startlimitburst",
                "retries",
                "startretries",
                "attempts",
                "restarts",
            ],
            Write("limit = { restarts = 5, window = \"1m\" }", ""),
        ),
        (
            Limits,
            &["nofile", "limitnofile", "fds"],
            Key("open_files", ""),
        ),
        (
            Limits,
            &["nproc", "limitnproc", "tasks", "pids"],
            Key(
                "processes",
                ", which counts all processes of its user; a limit of tasks per service is not supported yet",
            ),
        ),
        (Limits, &["core", "limitcore"], Key("core_size", "")),
        (
            Limits,
            &["memlock", "limitmemlock"],
            Key("locked_memory", ""),
        ),
        (
            Limits,
            &["memory", "mem", "memorymax", "cpu", "cpus", "cpuquota"],
            Say("limits of memory and processor time are not supported yet"),
        ),
        (
            Log,
            &[
                "path",
                "file",
                "stdout",
                "stderr",
                "outfile",
                "errorfile",
                "logfile",
            ],
            Write(
                "sinks = [\"journald\"]",
                " to send output there as well; `mainstay logs NAME` reads the service's own log",
            ),
        ),
        (
            Log,
            &["maxsize", "maxbytes", "size", "maxfilesize"],
            Write("rotate = \"10MB\"", ""),
        ),
        (
            Log,
            &["backups", "maxfile", "maxfiles", "keepfiles", "maxbackups"],
            Write("keep = 8", ""),
        ),
        (
            Log,
            &["driver", "options"],
            Write(
                "sinks = [\"journald\"]",
                " (or \"syslog\", \"syslog+tls://HOST:PORT\")",
            ),
        ),
    ]
};

/// Values of systemd's `Type`, in lower case.
const TYPES: &[(&[&str], Advice)] = {
    use Advice::{Say, Write};
    &[
        (
            &["notify", "notify-reload"],
            Write("start = { ready = { notify = true } }", ""),
        ),
        (
            &["forking"],
            Say("remove it, and keep the program in the foreground: it is supervised as a process"),
        ),
        (
            &["oneshot"],
            Say(
                "remove it: a program that exits with 0 is not restarted; one-shot tasks are not supported yet",
            ),
        ),
        (
            &["simple", "exec", "idle", "dbus"],
            Say("remove it: a service is ready when its program runs, unless `start` has `ready`"),
        ),
    ]
};

/// Returns the advice for `key` in the table with the keys `known`, if it is a key of another tool.
pub(super) fn help(key: &str, value: &Value<'_>, known: &[&str]) -> Option<String> {
    const LONGEST: usize = 40;
    if key.len() > LONGEST {
        return None;
    }
    let place = Place::of(known)?;
    let key: String = key
        .chars()
        .filter(|c| !matches!(c, '-' | '_' | '.'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let advice = match (place, &*key, value) {
        (Place::Service, "type", Value::Text(text)) => {
            let text = text.to_ascii_lowercase();
            let mut rows = TYPES.iter();
            let row = rows.find(|(types, _)| types.contains(&&*text));
            row.map(|(_, advice)| *advice)
        }
        _ => {
            let mut rows = WORDS.iter();
            let row = rows.find(|(of, words, _)| *of == place && words.contains(&&*key));
            row.map(|(_, _, advice)| *advice)
        }
    };
    advice.map(|advice| advice.to_string())
}

/// The kind of value, as in [`FromText::WHAT`](super::decode::FromText::WHAT), the foreign values
/// (lower case), and the value to write.
const VALUES: &[(&str, &[&str], &str)] = &[
    (
        "a recovery policy",
        &[
            "always",
            "on-failure",
            "on-abnormal",
            "on-abort",
            "on-watchdog",
            "unless-stopped",
            "unexpected",
            "yes",
            "true",
        ],
        "restart",
    ),
    ("a recovery policy", &["no", "none", "false"], "never"),
    ("a log level", &["warning", "notice"], "warn"),
    (
        "a log level",
        &[
            "err", "crit", "critical", "fatal", "alert", "emerg", "blather",
        ],
        "error",
    ),
    ("a log level", &["information", "informational"], "info"),
    ("a log level", &["verbose"], "debug"),
    ("a log format", &["plain", "none", "default"], "raw"),
    ("a compression", &["gz", "true", "yes"], "gzip"),
    ("a compression", &["zst"], "zstd"),
    ("a compression", &["false", "no", "off"], "none"),
    ("an environment", &["prod", "live"], "production"),
    (
        "an environment",
        &["stage", "test", "testing", "qa"],
        "staging",
    ),
    ("an environment", &["dev", "local"], "development"),
    ("a priority", &["idle", "belownormal", "background"], "low"),
    (
        "a priority",
        &["abovenormal", "interactive"],
        "above-normal",
    ),
    ("a priority", &["realtime"], "high"),
    (
        "a stop scope",
        &["control-group", "process-group", "group", "mixed"],
        "tree",
    ),
    ("a stop scope", &["process"], "main"),
];

/// Returns the help for `text` if it is another tool's value for `what`.
pub(super) fn value(what: &str, text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let mut rows = VALUES.iter();
    let found = rows.find(|(of, words, _)| *of == what && words.contains(&&*text));
    found.map(|(_, _, ours)| format!("write \"{ours}\""))
}

/// A tool whose files are recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of tools")]
pub enum Tool {
    Systemd,
    Supervisord,
    Compose,
    Kubernetes,
    Pm2,
    Procfile,
    Winsw,
    Servy,
    Launchd,
    Smf,
    Nssm,
    OpenRc,
    InitScript,
    Upstart,
    Dockerfile,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Systemd => "a systemd unit",
            Self::Supervisord => "a supervisord configuration",
            Self::Compose => "a Docker Compose file",
            Self::Kubernetes => "a Kubernetes object",
            Self::Pm2 => "a pm2 ecosystem file",
            Self::Procfile => "a Procfile",
            Self::Winsw => "a WinSW configuration",
            Self::Servy => "a Servy configuration",
            Self::Launchd => "a launchd property list",
            Self::Smf => "an SMF manifest",
            Self::Nssm => "an NSSM script",
            Self::OpenRc => "an OpenRC service script",
            Self::InitScript => "an init script",
            Self::Upstart => "an Upstart job",
            Self::Dockerfile => "a Dockerfile",
        })
    }
}

/// Detects the tool that a file belongs to, by its content and, if that is ambiguous, its name.
/// Only for text that is not a valid manifest.
pub fn tool_of(file_name: &str, text: &str) -> Option<Tool> {
    const LINES: usize = 400;
    let lines = || {
        text.trim_start_matches('\u{feff}')
            .lines()
            .take(LINES)
            .map(str::trim)
    };
    let has_line = |is: &dyn Fn(&str) -> bool| lines().any(is);
    let has = |needle: &str| has_line(&|line| line.contains(needle));
    let starts = |needle: &str| has_line(&|line| line.starts_with(needle));
    let name = file_name.to_ascii_lowercase();
    let is_named = |suffix: &str| name.ends_with(suffix);
    let first = lines().find(|line| !line.is_empty()).unwrap_or_default();
    // Finds a key at the start of a line, in YAML or in JSON-like text with any quotes.
    let has_key = |key: &str| {
        text.lines().take(LINES).any(|line| {
            let bare = line.trim_start_matches([' ', '\t', '{', '"', '\'']);
            let rest = bare
                .strip_prefix(key)
                .map(|rest| rest.trim_start_matches(['"', '\'']));
            rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
        })
    };
    let section = |prefix: &str| starts(prefix);
    if first.starts_with("#!") && first.contains("openrc-run") {
        return Some(Tool::OpenRc);
    }
    if has("### BEGIN INIT INFO") {
        return Some(Tool::InitScript);
    }
    if first.starts_with('<') || is_named(".plist") || is_named(".xml") {
        if has("<plist") || has("PropertyList") || is_named(".plist") {
            return Some(Tool::Launchd);
        }
        if has("<ServiceDto") {
            return Some(Tool::Servy);
        }
        if has("<service_bundle") {
            return Some(Tool::Smf);
        }
        return (has("<service>") || has("<service ")).then_some(Tool::Winsw);
    }
    if [
        "[program:",
        "[supervisord]",
        "[eventlistener:",
        "[fcgi-program:",
        "[unix_http_server]",
        "[supervisorctl]",
    ]
    .into_iter()
    .any(section)
    {
        return Some(Tool::Supervisord);
    }
    let units = [
        ".service", ".socket", ".timer", ".target", ".mount", ".path", ".slice",
    ];
    if ["[Unit]", "[Service]", "[Install]", "[Socket]", "[Timer]"]
        .into_iter()
        .any(section)
        || units.iter().any(|suffix| is_named(suffix)) && has("=")
    {
        return Some(Tool::Systemd);
    }
    let is_script = [".config.js", ".config.cjs", ".config.mjs"];
    if is_script.into_iter().any(is_named)
        || has("module.exports") && has("apps")
        || has_key("apps") && (has_key("script") || has("script") || has("exec_mode"))
    {
        return Some(Tool::Pm2);
    }
    if has_key("apiVersion") && has_key("kind") {
        return Some(Tool::Kubernetes);
    }
    if has_key("services")
        && [
            "image",
            "build",
            "ports",
            "volumes",
            "container_name",
            "depends_on",
        ]
        .into_iter()
        .any(has_key)
    {
        return Some(Tool::Compose);
    }
    if has_line(&|line| {
        line.starts_with("nssm ") || line.contains("nssm.exe ") || line.contains("nssm install ")
    }) {
        return Some(Tool::Nssm);
    }
    if name == "dockerfile" || is_named(".dockerfile") {
        return Some(Tool::Dockerfile);
    }
    if name == "procfile" || name.starts_with("procfile.") || is_procfile(lines()) {
        return Some(Tool::Procfile);
    }
    let upstart = ["start on ", "respawn", "exec ", "stop on "];
    (is_named(".conf") && upstart.into_iter().filter(|word| starts(word)).count() >= 2)
        .then_some(Tool::Upstart)
}

/// Returns whether the file consists of `web: command` lines, with commands that are not YAML
/// values.
fn is_procfile<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let mut count = 0;
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((name, command)) = line.split_once(':') else {
            return false;
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let command = command.trim();
        let is_command = command.contains([' ', '/']) && !command.starts_with(['"', '{', '[', '/']);
        if name.is_empty() || !name.chars().all(is_name) || !is_command {
            return false;
        }
        count += 1;
    }
    count > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Format, parse};

    /// Returns the help for an unknown key on this line of a service.
    fn advice(line: &str) -> String {
        let text = format!("[service.a]\ncommand = [\"a\"]\n{line}\n");
        let found = parse(&text, Format::Toml).expect_err(line);
        let found = found
            .into_iter()
            .find(|one| one.code.as_str() == "unknown-key");
        found.and_then(|one| one.help).unwrap_or_default()
    }

    #[test]
    fn words_of_other_tools_are_translated() {
        for (line, expect) in [
            ("restart = \"always\"", "recovery = { policy"),
            ("user = \"postgres\"", "account = \"user:NAME\""),
            ("User = \"postgres\"", "account = \"user:NAME\""),
            ("depends_on = [\"db\"]", "needs = [\"NAME\"]"),
            ("After = \"network.target\"", "needs = [\"NAME\"]"),
            ("cwd = \"/srv\"", "working_dir"),
            ("WorkingDirectory = \"/srv\"", "working_dir"),
            ("directory = \"/srv\"", "working_dir"),
            ("environment = { A = \"b\" }", "env = {"),
            ("healthcheck = { test = [\"x\"] }", "liveness = {"),
            ("autostart = true", "mainstay enable NAME"),
            ("image = \"redis\"", "not containers"),
            ("ExecStart = \"/bin/x\"", "command = ["),
            ("script = \"x.js\"", "command = ["),
            ("args = \"-v\"", "arguments follow the program"),
            ("numprocs = 4", "not supported yet"),
            ("exec_mode = \"cluster\"", "not supported"),
            ("stopsignal = \"QUIT\"", "stop = { signal"),
            ("stop_grace_period = \"1m\"", "stop = { graceful"),
            ("TimeoutStopSec = 30", "stop = { graceful"),
            ("RestartSec = 5", "recovery = { delay"),
            ("StartLimitBurst = 5", "recovery = { limit"),
            ("SuccessExitStatus = 143", "recovery = { codes"),
            ("LimitNOFILE = 65536", "limits = { open_files"),
            ("max_memory_restart = \"260M\"", "not supported yet"),
            ("EnvironmentFile = \"/etc/a\"", "env_file"),
            ("stdout_logfile = \"/x\"", "mainstay logs NAME"),
            ("ProtectSystem = \"strict\"", "--no-sandbox"),
            ("KeepAlive = true", "recovery = { policy"),
            ("ProgramArguments = [\"x\"]", "command = ["),
            ("UserName = \"x\"", "account = \"user:NAME\""),
            ("AppDirectory = \"x\"", "working_dir"),
            ("ObjectName = \"x\"", "account = \"user:NAME\""),
            ("stop = { timeout = \"5s\" }", "write `graceful`"),
            (
                "liveness = { interval = \"5s\", tcp = \"127.0.0.1:1\" }",
                "write `every`",
            ),
            ("limits = { nofile = 5 }", "write `open_files`"),
            ("log = { path = \"/x\" }", "mainstay logs NAME"),
            (
                "before = [\"b\"]",
                "needs = [\"NAME\"] in the other service",
            ),
            ("type = \"oneshot\"", "exits with 0 is not restarted"),
            ("Type = \"forking\"", "keep the program in the foreground"),
            ("type = \"notify\"", "ready = { notify = true }"),
            ("type = \"simple\"", "remove it"),
            ("backoff = \"1s\"", "recovery = { delay"),
            ("shell = true", "\"/bin/sh\", \"-c\""),
            ("port = 8080", "listen = ["),
            ("labels = {}", "not supported yet"),
            ("profiles = [\"x\"]", "mainstay run FILE NAME"),
            ("extends = \"x\"", "templates are not supported yet"),
            ("tty = true", "no terminal"),
            ("secrets = [\"x\"]", "env_file"),
            // Keys of another table of the manifest.
            (
                "timeout = \"5s\"",
                "`start` has `timeout`, `stop` has `graceful`",
            ),
            ("delay = \"5s\"", "write recovery = { delay = … }"),
            ("policy = \"never\"", "write recovery = { policy = … }"),
            ("codes = { 3 = \"stop\" }", "write recovery = { codes = … }"),
            ("rotate = \"1MB\"", "write log = { rotate = … }"),
            (
                "environment = \"development\"",
                "write it at the top of the file, above the first [service.…]",
            ),
            (
                "log = { environment = \"development\" }",
                "write it at the top of the file, above the first [service.…]",
            ),
            (
                "[service.a.log]\nservice = {}",
                "write it at the top of the file, above the first [service.…]",
            ),
            (
                "[service.a.log]\nneeds = [\"b\"]",
                "`needs` is a key of the service itself",
            ),
            // Misspelt, not foreign.
            ("comand = [\"x\"]", "did you mean `command`?"),
            ("stop = { gracefull = \"5s\" }", "did you mean `graceful`?"),
        ] {
            let help = advice(line);
            assert!(help.contains(expect), "{line}: {help}");
        }
        let words = WORDS.iter().map(|(_, words, _)| words.len()).sum::<usize>();
        assert!(words > 200, "{words}");
    }

    /// Every suggestion can be copied: `check` accepts it without warnings, in production.
    #[test]
    fn what_is_suggested_is_accepted() {
        let accept = |place: Place, toml: &str| {
            let toml = toml.replace("NAME", "name");
            let line = match place {
                Place::File => toml,
                Place::Service => format!("[service.a]\n{toml}"),
                Place::Start => format!("[service.a.start]\n{toml}"),
                Place::Liveness => {
                    let more = if toml.contains(" = [") {
                        ""
                    } else {
                        "exec = [\"a\"]\n"
                    };
                    format!("[service.a.liveness]\n{more}{toml}")
                }
                Place::Stop => format!("[service.a.stop]\n{toml}"),
                Place::Recovery => format!("[service.a.recovery]\n{toml}"),
                Place::Limits => format!("[service.a.limits]\n{toml}"),
                Place::Log => format!("[service.a.log]\n{toml}"),
            };
            let command = if line.contains("command = ") {
                ""
            } else {
                "\ncommand = [\"a\"]"
            };
            let (table, rest) = line.split_once('\n').expect("a table and a line");
            let head = match table {
                "[service.a]" => format!("[service.a]{command}\n{rest}"),
                _ => format!("[service.a]{command}\n{line}"),
            };
            let text = format!("{head}\n[service.name]\ncommand = [\"b\"]\n");
            let specs =
                parse(&text, Format::Toml).unwrap_or_else(|found| panic!("{text}{found:#?}"));
            let warnings = crate::manifest::warnings(&text, Format::Toml, &specs);
            assert!(warnings.is_empty(), "{text}{warnings:#?}");
        };
        let types = TYPES.iter().map(|(_, advice)| (Place::Service, advice));
        let words = WORDS.iter().map(|(place, _, advice)| (*place, advice));
        let mut count = 0;
        for (place, advice) in words.chain(types) {
            match advice {
                Advice::Write(toml, _) => {
                    accept(place, toml);
                    count += 1;
                }
                Advice::Key(key, _) => {
                    let schema = crate::manifest::schema();
                    let service = &schema["properties"]["service"]["additionalProperties"];
                    let table = format!("{place:?}").to_lowercase();
                    let keys = &service["properties"][table]["properties"];
                    assert!(keys[key].is_object(), "{place:?} has no key {key}");
                }
                Advice::Say(text) => assert!(!text.contains(" = "), "{text}"),
            }
        }
        assert!(count > 40, "{count}");
        for (what, _, ours) in VALUES {
            let (place, toml) = match *what {
                "a recovery policy" => (Place::Recovery, format!("policy = \"{ours}\"")),
                // Levels that are too verbose for production are covered elsewhere.
                "a log level" if matches!(*ours, "info" | "debug") => continue,
                "a log level" => (Place::Log, format!("level = \"{ours}\"")),
                "a log format" => (Place::Log, format!("format = \"{ours}\"")),
                "a compression" => (Place::Log, format!("compress = \"{ours}\"")),
                "an environment" => {
                    let text =
                        format!("environment = \"{ours}\"\n[service.a]\ncommand = [\"a\"]\n");
                    parse(&text, Format::Toml).expect(&text);
                    continue;
                }
                "a priority" => (Place::Service, format!("priority = \"{ours}\"")),
                "a stop scope" => (Place::Stop, format!("scope = \"{ours}\"")),
                what => panic!("{what} is of no key"),
            };
            accept(place, &toml);
        }
    }

    #[test]
    fn values_of_other_tools_are_translated() {
        for (line, expect) in [
            ("recovery = { policy = \"always\" }", "write \"restart\""),
            (
                "recovery = { policy = \"on-failure\" }",
                "write \"restart\"",
            ),
            ("recovery = { policy = \"no\" }", "write \"never\""),
            ("log = { level = \"WARNING\" }", "write \"warn\""),
            ("stop = { scope = \"control-group\" }", "write \"tree\""),
            ("account = \"postgres\"", "write \"user:postgres\""),
            ("account = \"root\"", "write \"local-system\""),
            ("account = \"virtuel\"", "did you mean `virtual`?"),
            (
                "recovery = { policy = \"restrat\" }",
                "did you mean `restart`?",
            ),
        ] {
            let text = format!("[service.a]\ncommand = [\"a\"]\n{line}\n");
            let found = parse(&text, Format::Toml).expect_err(line);
            let help = found.first().and_then(|one| one.help.as_deref());
            assert_eq!(help, Some(expect), "{line}");
        }
    }

    #[test]
    fn files_of_other_tools_are_recognised() {
        use Tool::*;
        for (name, text, expect) in [
            (
                "a.service",
                "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/x\n",
                Some(Systemd),
            ),
            (
                "<stdin>",
                "# x\n[Service]\nExecStart=/bin/x\n",
                Some(Systemd),
            ),
            (
                "a.ini",
                "[program:web]\ncommand=/bin/x\n",
                Some(Supervisord),
            ),
            (
                "compose.yaml",
                "services:\n  web:\n    image: nginx\n",
                Some(Compose),
            ),
            ("a.yaml", "apiVersion: v1\nkind: Pod\n", Some(Kubernetes)),
            (
                "p.json",
                "{ \"apps\": [{ \"script\": \"a.js\" }] }",
                Some(Pm2),
            ),
            (
                "ecosystem.config.js",
                "module.exports = {\n  apps: [{\n    script: 'a.js' }] }",
                Some(Pm2),
            ),
            (
                "<stdin>",
                "module.exports = { apps: [{ script: 'a.js' }] }",
                Some(Pm2),
            ),
            ("ecosystem.config.cjs", "require('./apps')", Some(Pm2)),
            ("Procfile", "web: bundle exec puma\n", Some(Procfile)),
            (
                "-",
                "web: bundle exec puma\nworker: bin/x y\n",
                Some(Procfile),
            ),
            ("a.xml", "<service>\n<id>a</id>\n</service>", Some(Winsw)),
            (
                "a.xml",
                "<?xml version=\"1.0\"?>\n<ServiceDto>",
                Some(Servy),
            ),
            (
                "a.xml",
                "<?xml version=\"1.0\"?>\n<service_bundle type='manifest' name='a'>\n<service name='a'>",
                Some(Smf),
            ),
            (
                "a.plist",
                "<?xml version=\"1.0\"?>\n<!DOCTYPE plist>\n<plist>",
                Some(Launchd),
            ),
            ("install.bat", "nssm install a C:\\a.exe\n", Some(Nssm)),
            ("a", "#!/sbin/openrc-run\ncommand=/bin/x\n", Some(OpenRc)),
            ("a", "#!/bin/sh\n### BEGIN INIT INFO\n", Some(InitScript)),
            (
                "a.conf",
                "start on runlevel [2345]\nrespawn\nexec /bin/x\n",
                Some(Upstart),
            ),
            ("Dockerfile", "FROM x\n", Some(Dockerfile)),
            // Manifests with errors.
            ("a.toml", "[service.a]\ncomand = [\"x\"]\n", None),
            ("a.yaml", "service:\n  web:\n    image: nginx\n", None),
            ("a.json", "{ \"service\": {} }", None),
            ("a.toml", "", None),
            ("a.yaml", "name: x\n", None),
        ] {
            assert_eq!(tool_of(name, text), expect, "{name}: {text}");
        }
    }
}
