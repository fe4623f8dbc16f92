//! The words of other tools. Words with the same equivalent are separated by spaces.

use super::{Advice, Place};

/// Foreign keys (lower case, without `-` and `_`), the tables in which they occur, and the advice.
pub(super) const WORDS: &[(Place, &str, Advice)] = {
    use Advice::{Key, Say, Write};
    use Place::{File, Limits, Liveness, Log, Recovery, Service, Start, Stop};
    &[
        // Top level.
        (
            File,
            "services programs apps processes",
            Say("write one table per service: [service.NAME]"),
        ),
        (
            File,
            "unit install",
            Say(
                "this is a section of a systemd unit: a manifest has one table per service, \
                 [service.NAME]",
            ),
        ),
        (
            File,
            "version",
            Say("a manifest has no version; remove this line"),
        ),
        (
            File,
            "volumes networks secrets configs",
            Say(
                "mainstay runs programs, not containers: a service uses the directories and the \
                 network of its host",
            ),
        ),
        // Commands.
        (
            Service,
            "execstart exec executable program programarguments script entrypoint cmd \
             application interpreter executablepath startcommand run",
            Write("command = [\"/path/to/program\", \"argument\"]", ""),
        ),
        (
            Service,
            "args arguments startarguments startargument appparameters parameters nodeargs \
             interpreterargs",
            Write(
                "command = [\"/path/to/program\", \"argument\"]",
                ": arguments follow the program",
            ),
        ),
        (
            Service,
            "execstop stopexecutable stopcommand stoparguments stopargument",
            Write(
                "stop = { signal = \"TERM\" }",
                ", with the signal that stops it; a command that stops a service is not supported \
                 yet",
            ),
        ),
        (
            Service,
            "execreload",
            Write(
                "reload = { exec = [\"/path/to/program\", \"argument\"] }",
                "",
            ),
        ),
        (
            Service,
            "execstartpre execstartpost execstoppost execcondition prestart poststart prestop \
             poststop postdeploy hooks",
            Say(
                "commands before and after a start or stop are not supported yet; `wait_for` \
                 waits for a condition before the start",
            ),
        ),
        (
            Service,
            "notifyaccess sdnotify waitready",
            Write("start = { ready = { notify = true } }", ""),
        ),
        (
            Service,
            "pidfile",
            Say("remove it: a program is supervised as a process, in the foreground"),
        ),
        (
            Service,
            "image build containername hostname ports expose networks networkmode links volumes \
             dns pullpolicy platform privileged runtime sysctls tmpfs shmsize extrahosts",
            Write(
                "command = [\"/path/to/program\"]",
                ": mainstay runs programs, not containers",
            ),
        ),
        (
            Service,
            "instances numprocs replicas scale processname numprocsstart",
            Say("multiple instances of a service are not supported yet; write one table for each"),
        ),
        (
            Service,
            "execmode mergelogs incrementvar instancevar",
            Say("a cluster mode is not supported; write one table for each process"),
        ),
        (
            Service,
            "kind schedule cron cronrestart oncalendar startinterval startcalendarinterval tasks \
             oneshot",
            Say("tasks and schedules are not supported yet"),
        ),
        (
            Service,
            "watch ignorewatch watchdelay",
            Say("restarts on file changes are not supported yet"),
        ),
        (
            Service,
            "autostart enabled runatload wantedby startmode startuptype disabled",
            Say(
                "`mainstay enable NAME` and `mainstay disable NAME` decide whether an installed \
                 service starts at boot",
            ),
        ),
        // Accounts and directories.
        (
            Service,
            "user uid username runas serviceaccount objectname owner setuid",
            Write("account = \"user:NAME\"", ""),
        ),
        (
            Service,
            "group gid groupname setgid supplementarygroups",
            Say("groups are not supported yet: a service has the groups of its `account`"),
        ),
        (Service, "dynamicuser", Write("account = \"dynamic\"", "")),
        (
            Service,
            "cwd workingdirectory workdir directory chdir appdirectory startupdirectory dir",
            Write("working_dir = \"/path\"", ""),
        ),
        (Service, "umask", Say("a umask is not supported yet")),
        (
            Service,
            "environment environments envvars environmentvariables appenvironment \
             appenvironmentextra envproduction vars",
            Write("env = { NAME = \"value\" }", ""),
        ),
        (
            Service,
            "environmentfile envfiles dotenv",
            Write("env_file = \"/path\"", ""),
        ),
        (
            Service,
            "passenvironment inheritenv",
            Write("inherit_env = [\"NAME\"]", ""),
        ),
        (
            Service,
            "name label id servicename",
            Say(
                "the name of a service is its table's: [service.NAME]; `manager_name` is what its \
                 manager calls it",
            ),
        ),
        (Service, "title", Write("display_name = \"…\"", "")),
        // Dependencies.
        (
            Service,
            "dependson depends after requires wants bindsto partof dependonservice dependencies \
             requisite priorityorder",
            Write(
                "needs = [\"NAME\"]",
                ", or \"os:NAME\" for a service of the operating system",
            ),
        ),
        (
            Service,
            "before requiredby upheldby",
            Write(
                "needs = [\"NAME\"]",
                " in the other service, with the name of this one: a service lists those that it \
                 depends on",
            ),
        ),
        (
            Service,
            "conditionpathexists assertpathexists onlyif",
            Write("wait_for = [{ file = \"/path\" }]", ""),
        ),
        (
            Service,
            "sockets listenstream fileactivation",
            Write("listen = [\"127.0.0.1:8080\"]", ""),
        ),
        // Start and health.
        (
            Service,
            "healthcheck livenessprobe health healthchecks monitor enablehealthmonitoring",
            Write(
                "liveness = { http = \"http://127.0.0.1:8080/healthz\" }",
                " (or tcp, exec); `start` has `ready` for readiness",
            ),
        ),
        (
            Service,
            "readinessprobe startupprobe ready readiness",
            Write(
                "start = { ready = { http = \"http://127.0.0.1:8080/healthz\" } }",
                " (or tcp, exec, log, notify)",
            ),
        ),
        (
            Service,
            "watchdogsec watchdog",
            Write(
                "liveness = { http = \"http://127.0.0.1:8080/healthz\" }",
                " (or tcp, exec)",
            ),
        ),
        (
            Service,
            "startsecs startperiod timeoutstartsec starttimeout listentimeout minuptime",
            Write(
                "start = { timeout = \"60s\" }",
                "; recovery.reset_after is the duration of a run that resets the pause",
            ),
        ),
        (
            Service,
            "timeout timeouts",
            Say(
                "`start` has `timeout`, `stop` has `graceful`, and `liveness` has a `timeout` for \
                 its probe",
            ),
        ),
        (
            Service,
            "delayedautostart",
            Say("a delayed start is not supported yet"),
        ),
        // Stop.
        (
            Service,
            "stopsignal killsignal",
            Write("stop = { signal = \"TERM\" }", ""),
        ),
        (
            Service,
            "timeoutstopsec timeoutsec stopgraceperiod stopwaitsecs stoptimeout killtimeout \
             graceful terminationgraceperiodseconds exittimeout",
            Write("stop = { graceful = \"30s\" }", ""),
        ),
        (
            Service,
            "killmode treekill stopasgroup killasgroup sendsigkill stopparentprocessfirst",
            Write(
                "stop = { scope = \"main\" }",
                " to ask only the main process to stop; a kill always takes every process of a \
                 service",
            ),
        ),
        // Restart.
        (
            Service,
            "restart autorestart keepalive restartpolicy onfailure respawn appexit \
             recoveryaction",
            Write(
                "recovery = { policy = \"restart\" }",
                " (or \"strict\", \"never\")",
            ),
        ),
        (
            Service,
            "restartsec restartdelay backoff throttleinterval apprestartdelay appthrottle \
             exponentialbackoffrestartdelay",
            Write("recovery = { delay = \"100ms\", max_delay = \"30s\" }", ""),
        ),
        (
            Service,
            "startlimitburst startlimitinterval startlimitintervalsec startretries maxrestarts \
             retries maxrestartattempts",
            Write(
                "recovery = { limit = { restarts = 5, window = \"1m\" } }",
                "",
            ),
        ),
        (
            Service,
            "successexitstatus restartpreventexitstatus restartforceexitstatus stopexitcodes \
             exitcodes",
            Write("recovery = { codes = { 143 = \"stop\" } }", ""),
        ),
        (
            Service,
            "maxmemoryrestart memorymax memorylimit memlimit mem memory cpuquota cpulimit \
             tasksmax pidslimit",
            Say("limits of memory, processor time and tasks are not supported yet"),
        ),
        (
            Service,
            "cpuschedulingpolicy ioschedulingclass oomscoreadjust oomscoreadj ioweight cpuweight \
             cpushares",
            Say("`priority` is the only weight that is supported so far"),
        ),
        // Privileges and resources.
        (
            Service,
            "limitnofile limitnproc limitcore limitmemlock ulimits ulimit rlimit minfds \
             softresourcelimits hardresourcelimits",
            Write(
                "limits = { open_files = 65536 }",
                " (also processes, core_size, locked_memory)",
            ),
        ),
        (
            Service,
            "nice processtype",
            Write("priority = \"low\"", " (to \"high\")"),
        ),
        (
            Service,
            "cpuaffinity cpuset allowedcpus",
            Write("cpus = [0, 1]", ""),
        ),
        (
            Service,
            "ambientcapabilities capabilityboundingset capadd capdrop capabilities securityopt",
            Write(
                "sandbox = { capabilities = [\"CAP_NET_BIND_SERVICE\"] }",
                "",
            ),
        ),
        (
            Service,
            "readwritepaths readwritedirectories statedirectory cachedirectory logsdirectory \
             runtimedirectory",
            Write(
                "sandbox = { writable = [\"/path\"] }",
                " for directories other than its own (MAINSTAY_DATA_DIR)",
            ),
        ),
        (
            Service,
            "protectsystem protecthome privatetmp privatedevices nonewprivileges readonly \
             protectkerneltunables protectcontrolgroups restrictaddressfamilies systemcallfilter \
             memorydenywriteexecute",
            Say(
                "remove it: an installed service is sandboxed unless `mainstay install \
                 --no-sandbox` is used; `sandbox` lists its exceptions",
            ),
        ),
        (
            Service,
            "loadcredential credentials credential secrets",
            Write(
                "env_file = \"/path\"",
                ", with mode 0600, for secrets; credentials are not supported yet",
            ),
        ),
        (
            Service,
            "shell",
            Write(
                "command = [\"/bin/sh\", \"-c\", \"first | second\"]",
                " where a shell is needed",
            ),
        ),
        (
            Service,
            "port bind host",
            Write(
                "listen = [\"127.0.0.1:8080\"]",
                " for a program that receives its socket from its manager; otherwise pass the \
                 port in `command` or `env`",
            ),
        ),
        (
            Service,
            "tty stdinopen stdin interactive",
            Say("remove it: a service has no terminal and no standard input"),
        ),
        (
            Service,
            "labels annotations tags",
            Say("remove it: labels are not supported yet; use `description` for text"),
        ),
        (
            Service,
            "profiles profile",
            Say(
                "profiles are not supported yet; `mainstay run FILE NAME` runs the named services \
                 and those that they need",
            ),
        ),
        (
            Service,
            "extends template inherits",
            Say("templates are not supported yet; write each service in full"),
        ),
        // Output.
        (
            Service,
            "stdout stderr standardoutput standarderror stdoutlogfile stderrlogfile outfile \
             errorfile logfile logpath standardoutpath standarderrorpath appstdout appstderr \
             stdoutpath stderrpath standarderrpath standardout logging redirectstderr \
             syslogidentifier",
            Say(
                "output goes to the service's own log: `mainstay logs NAME`; `log` has its \
                 settings",
            ),
        ),
        (
            Service,
            "stdoutlogfilemaxbytes stderrlogfilemaxbytes logfilemaxbytes approtatebytes \
             approtatefiles sizethreshold logmode",
            Write("log = { rotate = \"10MB\" }", ""),
        ),
        (
            Service,
            "stdoutlogfilebackups stderrlogfilebackups logfilebackups keepfiles",
            Write("log = { keep = 8 }", ""),
        ),
        (Service, "loglevel", Write("log = { level = \"warn\" }", "")),
        (
            Service,
            "alert alerts onalerts notify webhook",
            Write(
                "on_alert = [\"/path/to/program\"]",
                ", or a table with `webhook`",
            ),
        ),
        // Keys of the service's tables.
        (
            Start,
            "timeoutsec timeoutstartsec startsecs startperiod",
            Key("timeout", ""),
        ),
        (
            Start,
            "readiness probe http tcp exec notify log file unix",
            Write(
                "ready = { tcp = \"127.0.0.1:8080\" }",
                ": a probe goes under `ready`",
            ),
        ),
        (Liveness, "interval period periodseconds", Key("every", "")),
        (
            Liveness,
            "retries failurethreshold threshold",
            Key("misses", ""),
        ),
        (
            Liveness,
            "test cmd command",
            Write("exec = [\"/path/to/program\"]", ""),
        ),
        (
            Stop,
            "timeout graceperiod stopgraceperiod timeoutstopsec wait stopwaitsecs killtimeout",
            Key("graceful", ""),
        ),
        (Stop, "killsignal stopsignal", Key("signal", "")),
        (
            Stop,
            "exec command execstop",
            Say("a command that stops a service is not supported yet"),
        ),
        (
            Stop,
            "killmode kill",
            Write("scope = \"tree\"", " (or \"main\")"),
        ),
        (
            Recovery,
            "restart autorestart mode",
            Write("policy = \"restart\"", " (or \"strict\", \"never\")"),
        ),
        (
            Recovery,
            "restartsec restartdelay backoff wait",
            Key("delay", ""),
        ),
        (
            Recovery,
            "maxrestarts startlimitburst retries startretries attempts restarts",
            Write("limit = { restarts = 5, window = \"1m\" }", ""),
        ),
        (Limits, "nofile limitnofile fds", Key("open_files", "")),
        (
            Limits,
            "nproc limitnproc tasks pids",
            Key(
                "processes",
                ", which counts all processes of its user; a limit of tasks per service is not \
                 supported yet",
            ),
        ),
        (Limits, "core limitcore", Key("core_size", "")),
        (Limits, "memlock limitmemlock", Key("locked_memory", "")),
        (
            Limits,
            "memory mem memorymax cpu cpus cpuquota",
            Say("limits of memory and processor time are not supported yet"),
        ),
        (
            Log,
            "path file stdout stderr outfile errorfile logfile",
            Write(
                "sinks = [\"journald\"]",
                " to send output there as well; `mainstay logs NAME` reads the service's own log",
            ),
        ),
        (
            Log,
            "maxsize maxbytes size maxfilesize",
            Write("rotate = \"10MB\"", ""),
        ),
        (
            Log,
            "backups maxfile maxfiles keepfiles maxbackups",
            Write("keep = 8", ""),
        ),
        (
            Log,
            "driver options",
            Write(
                "sinks = [\"journald\"]",
                " (or \"syslog\", \"syslog+tls://HOST:PORT\")",
            ),
        ),
    ]
};

/// Values of systemd's `Type`, in lower case.
pub(super) const TYPES: &[(&str, Advice)] = {
    use Advice::{Say, Write};
    &[
        (
            "notify notify-reload",
            Write("start = { ready = { notify = true } }", ""),
        ),
        (
            "forking",
            Say("remove it, and keep the program in the foreground: it is supervised as a process"),
        ),
        (
            "oneshot",
            Say(
                "remove it: a program that exits with 0 is not restarted; one-shot tasks are not \
                 supported yet",
            ),
        ),
        (
            "simple exec idle dbus",
            Say("remove it: a service is ready when its program runs, unless `start` has `ready`"),
        ),
    ]
};

/// The kind of value, as in [`FromText::WHAT`](crate::manifest::decode::FromText::WHAT), the
/// foreign values (lower case), and the value to write.
pub(super) const VALUES: &[(&str, &str, &str)] = &[
    (
        "a recovery policy",
        "always on-failure on-abnormal on-abort on-watchdog unless-stopped unexpected yes true",
        "restart",
    ),
    ("a recovery policy", "no none false", "never"),
    ("a log level", "warning notice", "warn"),
    (
        "a log level",
        "err crit critical fatal alert emerg blather",
        "error",
    ),
    ("a log level", "information informational", "info"),
    ("a log level", "verbose", "debug"),
    ("a log format", "plain none default", "raw"),
    ("a compression", "gz true yes", "gzip"),
    ("a compression", "zst", "zstd"),
    ("a compression", "false no off", "none"),
    ("an environment", "prod live", "production"),
    ("an environment", "stage test testing qa", "staging"),
    ("an environment", "dev local", "development"),
    ("a priority", "idle belownormal background", "low"),
    ("a priority", "abovenormal interactive", "above-normal"),
    ("a priority", "realtime", "high"),
    (
        "a stop scope",
        "control-group process-group group mixed",
        "tree",
    ),
    ("a stop scope", "process", "main"),
];
