//! What people write who come from another tool: its words for things that have another name here, and whole files of it.

use std::fmt;

/// A table of the manifest in which a foreign word may stand.
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
    /// The table that has these keys; `None` where foreign words are not expected.
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

/// Foreign words (lower case, without `-` and `_`), where they stand, and what to write instead.
const WORDS: &[(Place, &[&str], &str)] = {
    use Place::{File, Limits, Liveness, Log, Recovery, Service, Start, Stop};
    &[
        // The whole file.
        (
            File,
            &["services", "programs", "apps", "processes"],
            "write one table per service: [service.NAME]",
        ),
        (
            File,
            &["unit", "install"],
            "this is a section of a systemd unit: a manifest has one table per service, [service.NAME]",
        ),
        (
            File,
            &["version"],
            "a manifest has no version; remove this line",
        ),
        (
            File,
            &["volumes", "networks", "secrets", "configs"],
            "mainstay runs programs, not containers: a service uses the directories and the network of its host",
        ),
        // What is run.
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
            "write command = [\"/path/to/program\", \"argument\"]",
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
            "arguments follow the program in `command`: command = [\"/path/to/program\", \"argument\"]",
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
            "a command that stops a service is not supported yet; write the signal that stops it: stop = { signal = \"TERM\" }",
        ),
        (
            Service,
            &["execreload"],
            "write reload = { exec = [\"/path/to/program\", \"argument\"] }",
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
            "commands before and after a start or stop are not supported yet; `wait_for` waits for a condition before the start",
        ),
        (
            Service,
            &["type"],
            "write start = { ready = { notify = true } } for Type=notify; a program that forks into the background must be told to stay in the foreground",
        ),
        (
            Service,
            &["notifyaccess", "sdnotify", "waitready"],
            "write start = { ready = { notify = true } }",
        ),
        (
            Service,
            &["pidfile"],
            "remove it: a program is supervised as a process, in the foreground",
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
            "mainstay runs programs, not containers: write command = [\"/path/to/program\"]",
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
            "several instances of a service are not supported yet; write one table for each",
        ),
        (
            Service,
            &["execmode", "mergelogs", "incrementvar", "instancevar"],
            "a cluster mode is not supported; write one table for each process",
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
            "tasks and schedules are not supported yet",
        ),
        (
            Service,
            &["watch", "ignorewatch", "watchdelay"],
            "restarts after changes of files are not supported yet",
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
            "`mainstay enable NAME` and `mainstay disable NAME` decide whether an installed service starts at boot",
        ),
        // Who and where.
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
            "write account = \"user:NAME\"",
        ),
        (
            Service,
            &["group", "gid", "groupname", "setgid", "supplementarygroups"],
            "a group of its own is not supported yet: a service has the groups of its `account`",
        ),
        (Service, &["dynamicuser"], "write account = \"dynamic\""),
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
            "write working_dir = \"/path\"",
        ),
        (Service, &["umask"], "a umask is not supported yet"),
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
            "write env = { NAME = \"value\" }",
        ),
        (
            Service,
            &["environmentfile", "envfiles", "dotenv"],
            "write env_file = \"/path\"",
        ),
        (
            Service,
            &["passenvironment", "inheritenv"],
            "write inherit_env = [\"NAME\"]",
        ),
        (
            Service,
            &["name", "label", "id", "servicename"],
            "the name of a service is its table's: [service.NAME]; manager_name = \"…\" is what its manager calls it",
        ),
        (Service, &["title"], "write display_name = \"…\""),
        // Order.
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
                "before",
                "dependencies",
                "requisite",
                "priorityorder",
            ],
            "write needs = [\"NAME\"], or \"os:NAME\" for a service of the host",
        ),
        (
            Service,
            &["conditionpathexists", "assertpathexists", "onlyif"],
            "write wait_for = [{ file = \"/path\" }]",
        ),
        (
            Service,
            &["sockets", "listenstream", "fileactivation"],
            "write listen = [\"127.0.0.1:8080\"]",
        ),
        // Start, health.
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
            "write liveness = { http = \"http://127.0.0.1:8080/healthz\" } (or tcp, exec), and start = { ready = … } for readiness",
        ),
        (
            Service,
            &["readinessprobe", "startupprobe", "ready", "readiness"],
            "write start = { ready = { http = \"http://127.0.0.1:8080/healthz\" } } (or tcp, exec, log, notify)",
        ),
        (
            Service,
            &["watchdogsec", "watchdog"],
            "write liveness = { http = \"…\" } (or tcp, exec)",
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
            "write start = { timeout = \"60s\" }; recovery.reset_after is how long a run must last to count as good",
        ),
        (
            Service,
            &["delayedautostart"],
            "a delayed start is not supported yet",
        ),
        // Stop.
        (
            Service,
            &["stopsignal", "killsignal", "treekill"],
            "write stop = { signal = \"TERM\" }",
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
            "write stop = { graceful = \"30s\" }",
        ),
        (
            Service,
            &[
                "killmode",
                "stopasgroup",
                "killasgroup",
                "sendsigkill",
                "stopparentprocessfirst",
            ],
            "a kill always takes every process of a service; stop = { scope = \"main\" } asks only the main process to stop",
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
                "exitcodes",
            ],
            "write recovery = { policy = \"restart\" } (or \"strict\", \"never\")",
        ),
        (
            Service,
            &[
                "restartsec",
                "restartdelay",
                "throttleinterval",
                "apprestartdelay",
                "appthrottle",
                "exponentialbackoffrestartdelay",
            ],
            "write recovery = { delay = \"100ms\", max_delay = \"30s\" }",
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
            "write recovery = { limit = { restarts = 10, window = \"1m\" } }",
        ),
        (
            Service,
            &[
                "successexitstatus",
                "restartpreventexitstatus",
                "restartforceexitstatus",
                "stopexitcodes",
            ],
            "write recovery = { codes = { 143 = \"stop\" } }",
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
            "limits of memory, processor time and tasks are not supported yet",
        ),
        // Rights and resources.
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
            "write limits = { open_files = 65536 } (also processes, core_size, locked_memory)",
        ),
        (
            Service,
            &[
                "nice",
                "cpuschedulingpolicy",
                "oomscoreadjust",
                "ioweight",
                "processtype",
            ],
            "write priority = \"low\" (to \"high\")",
        ),
        (
            Service,
            &["cpuaffinity", "cpuset", "allowedcpus"],
            "write cpus = [0, 1]",
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
            "write sandbox = { capabilities = [\"CAP_NET_BIND_SERVICE\"] }",
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
            "a service has its own state directory (MAINSTAY_DATA_DIR); write sandbox = { writable = [\"/path\"] } for others",
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
            "remove it: an installed service is sandboxed unless `mainstay install --no-sandbox` is used; `sandbox` lists its exceptions",
        ),
        (
            Service,
            &["loadcredential", "credentials", "credential"],
            "credentials are not supported yet",
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
            "output goes to the service's own log: `mainstay logs NAME`; `log` has its settings",
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
            "write log = { rotate = \"10MB\" }",
        ),
        (
            Service,
            &[
                "stdoutlogfilebackups",
                "stderrlogfilebackups",
                "logfilebackups",
                "keepfiles",
            ],
            "write log = { keep = 8 }",
        ),
        (Service, &["loglevel"], "write log = { level = \"warn\" }"),
        (
            Service,
            &["alert", "alerts", "onalerts", "notify", "webhook"],
            "write on_alert = [\"/path/to/program\"], or on_alert = { webhook = … }",
        ),
        // Parts of tables.
        (
            Start,
            &["timeoutsec", "timeoutstartsec", "startsecs", "startperiod"],
            "write `timeout`",
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
            "a probe stands under `ready`: ready = { tcp = \"127.0.0.1:8080\" }",
        ),
        (
            Liveness,
            &["interval", "period", "periodseconds"],
            "write `every`",
        ),
        (
            Liveness,
            &["retries", "failurethreshold", "threshold"],
            "write `misses`",
        ),
        (
            Liveness,
            &["test", "cmd", "command"],
            "write exec = [\"/path/to/program\"]",
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
            "write `graceful`",
        ),
        (Stop, &["killsignal", "stopsignal"], "write `signal`"),
        (
            Stop,
            &["exec", "command", "execstop"],
            "a command that stops a service is not supported yet",
        ),
        (
            Stop,
            &["killmode", "kill"],
            "write scope = \"tree\", or \"main\"",
        ),
        (
            Recovery,
            &["restart", "autorestart", "mode"],
            "write policy = \"restart\" (or \"strict\", \"never\")",
        ),
        (
            Recovery,
            &["restartsec", "restartdelay", "backoff", "wait"],
            "write `delay`",
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
            "write limit = { restarts = 10, window = \"1m\" }",
        ),
        (
            Limits,
            &["nofile", "limitnofile", "fds"],
            "write `open_files`",
        ),
        (
            Limits,
            &["nproc", "limitnproc", "tasks", "pids"],
            "write `processes`: of all processes of its user; a limit of its own tasks is not supported yet",
        ),
        (Limits, &["core", "limitcore"], "write `core_size`"),
        (
            Limits,
            &["memlock", "limitmemlock"],
            "write `locked_memory`",
        ),
        (
            Limits,
            &["memory", "mem", "memorymax", "cpu", "cpus", "cpuquota"],
            "limits of memory and processor time are not supported yet",
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
            "output goes to the service's own log: `mainstay logs NAME` reads it, or write sinks = [\"journald\"]",
        ),
        (
            Log,
            &["maxsize", "maxbytes", "size", "maxfilesize"],
            "write rotate = \"10MB\"",
        ),
        (
            Log,
            &["backups", "maxfile", "maxfiles", "keepfiles", "maxbackups"],
            "write keep = 8",
        ),
        (
            Log,
            &["driver", "options"],
            "write sinks = [\"journald\"], or sinks = [{ syslog = … }]",
        ),
    ]
};

/// What to write instead of `key` in the table that has the keys `known`, where it is a word of another tool.
pub(super) fn help(key: &str, known: &[&str]) -> Option<&'static str> {
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
    let mut rows = WORDS.iter();
    rows.find(|(of, words, _)| *of == place && words.contains(&&*key))
        .map(|(_, _, help)| *help)
}

/// Foreign values (lower case), what they stand for as [`FromText::WHAT`](super::decode::FromText::WHAT) has it, and what to write.
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
        "a scope",
        &["control-group", "process-group", "group", "mixed"],
        "tree",
    ),
    ("a scope", &["process"], "main"),
];

/// What `text` is called here, where it is another tool's word for `what`.
pub(super) fn value(what: &str, text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let mut rows = VALUES.iter();
    let found = rows.find(|(of, words, _)| *of == what && words.contains(&&*text));
    found.map(|(_, _, ours)| format!("write \"{ours}\""))
}

/// A tool whose files are recognised.
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
            Self::Nssm => "an NSSM script",
            Self::OpenRc => "an OpenRC service script",
            Self::InitScript => "an init script",
            Self::Upstart => "an Upstart job",
            Self::Dockerfile => "a Dockerfile",
        })
    }
}

/// The tool that a file belongs to, by its content and, where that says too little, its name. Only for text that is no valid manifest.
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
    // Keys at the beginning of a line, of YAML or of one that is JSON in all but quotes.
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
        return has("<service").then_some(Tool::Winsw);
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
    if has_key("apps") && (has_key("script") || has("script") || has("exec_mode")) {
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

/// Nothing but `web: command` lines, with a command that is no value of YAML.
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

    /// The help of the mistake about this line of a service.
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
            ("args = \"-v\"", "follow the program in `command`"),
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
            // Not foreign, but mistyped.
            ("comand = [\"x\"]", "did you mean `command`?"),
            ("stop = { gracefull = \"5s\" }", "did you mean `graceful`?"),
        ] {
            let help = advice(line);
            assert!(help.contains(expect), "{line}: {help}");
        }
        let words = WORDS.iter().map(|(_, words, _)| words.len()).sum::<usize>();
        assert!(words > 200, "{words}");
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
            // Manifests with mistakes.
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
