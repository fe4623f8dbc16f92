//! Diagnostics of manifests. Each example has the error that it is about, and no other.

use super::Advice;
use crate::manifest::Code;

/// The code, the cause, the action and the example of each diagnostic.
const TABLE: &[(Code, &str, &str, &str)] = &[
    (
        Code::Syntax,
        "A quote, a bracket or an equals sign is missing before or at the marked place.",
        "Correct the text there. In TOML, strings need quotes.",
        "[service.web]\ncommand = [web]",
    ),
    (
        Code::TooDeep,
        "Tables or lists are nested in each other more than 32 times.",
        "Remove levels. A manifest needs six at most.",
        "a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    ),
    (
        Code::YamlFeature,
        "Only plain YAML is read: another feature would make the text mean more than it shows.",
        "Write the value out where it is used.",
        "service:\n  web: { command: &words [web] }",
    ),
    (
        Code::DuplicateKey,
        "The same key occurs twice in a table, or the same service twice in the file.",
        "Keep one of them.",
        "[service.web]\ncommand = ['web']\ncommand = ['web', '-v']",
    ),
    (
        Code::UnknownKey,
        "The key is misspelt, belongs to another table, or is that of another tool.",
        "Write the key that the help suggests; `mainstay schema` has all of them.",
        "[service.web]\ncommand = ['web']\nworkdir = '/srv/web'",
    ),
    (
        Code::MissingKey,
        "The table cannot be understood without the key.",
        "Add the key that the message names.",
        "[service.web]\ndescription = 'the site'",
    ),
    (
        Code::WrongType,
        "A list was expected and a string was found, or the like.",
        "Write a value of the expected type. A command is a list: one string for each argument.",
        "[service.web]\ncommand = 'web --port 8080'",
    ),
    (
        Code::UnknownValue,
        "The word is misspelt, or belongs to another key.",
        "Write one of the words that the help lists.",
        "[service.web]\ncommand = ['web']\nrecovery = { policy = 'always' }",
    ),
    (
        Code::OneOf,
        "None of the keys is there, or more than one. Only one of them can apply.",
        "Keep exactly one of the keys that the message lists.",
        "[service.web]\ncommand = ['web']\nstart = { ready = { tcp = 'localhost:80', file = '/run/web' } }",
    ),
    (
        Code::Conflict,
        "One key makes the other meaningless.",
        "Remove one of them.",
        "[service.web]\ncommand = ['web']\nwait_for = [{ tcp = 'db:5432', strategy = 'fixed', factor = 2 }]",
    ),
    (
        Code::Duration,
        "The unit is missing or unknown, or the time is not allowed here.",
        "Write whole numbers with a unit: d, h, m, s, ms or us.",
        "[service.web]\ncommand = ['web']\nstart = { timeout = '60' }",
    ),
    (
        Code::Size,
        "The unit is unknown, or the size is zero or too large.",
        "Write a whole number with a unit: B, kB, MB, GB, KiB, MiB or GiB.",
        "[service.web]\ncommand = ['web']\nlog = { rotate = '10 megs' }",
    ),
    (
        Code::Number,
        "The number is below or above the range of the key.",
        "Write a number of the range in the message.",
        "[service.web]\ncommand = ['web']\nliveness = { tcp = 'localhost:80', misses = 0 }",
    ),
    (
        Code::Text,
        "A title or description is shown on one line, so it cannot be empty or have several lines.",
        "Shorten the text to one line.",
        "[service.web]\ncommand = ['web']\ndescription = ''",
    ),
    (
        Code::Command,
        "The list is empty, its first word is empty, or a word contains a NUL character.",
        "Begin the list with the program.",
        "[service.web]\ncommand = []",
    ),
    (
        Code::CommandLine,
        "On Windows, a program gets its arguments as one text, which has a limit and, in batch files, characters with a meaning.",
        "Start the program directly, not through a batch file; pass long values in a file or in `env`.",
        "[service.web]\ncommand = ['web.cmd', '50%']",
    ),
    (
        Code::UnusablePath,
        "The path is longer than Windows allows for a program, or `cmd.exe` would have to run in a directory on a server.",
        "Move the program or its working directory to a shorter path on this machine.",
        "[service.web]\ncommand = ['C:\\web\\web.cmd']\nworking_dir = '\\\\server\\share'",
    ),
    (
        Code::EnvName,
        "The name of a variable is empty, or contains `=` or a NUL character.",
        "Write the name alone; the value follows the equals sign.",
        "[service.web]\ncommand = ['web']\nenv = { 'A=B' = 'c' }",
    ),
    (
        Code::Account,
        "A name alone is ambiguous, because some accounts have names of their own.",
        "Write `user:NAME` for a user, or one of the accounts of docs/manifest.md.",
        "[service.web]\ncommand = ['web']\naccount = 'www-data'",
    ),
    (
        Code::Address,
        "The host or the port is missing, or the port is not a number from 1 to 65535.",
        "Write both: `localhost:8080`, or `[::1]:8080` for IPv6.",
        "[service.web]\ncommand = ['web']\nstart = { ready = { tcp = '8080' } }",
    ),
    (
        Code::Url,
        "The scheme is missing or unknown, or the URL contains a password or leads to another machine without TLS.",
        "Write the whole URL: `http://localhost:8080/healthz`.",
        "[service.web]\ncommand = ['web']\nstart = { ready = { http = 'localhost:8080' } }",
    ),
    (
        Code::Regex,
        "A bracket is not closed, or the expression uses a feature that is not supported, such as look-around.",
        "Correct it where the message shows. Literal brackets need a backslash.",
        "[service.web]\ncommand = ['web']\nstart = { ready = { log = 'started (' } }",
    ),
    (
        Code::FieldPath,
        "The path of a field begins with `$`, followed by keys after dots and `[*]` for all items.",
        "Write a path like `$.user.email`.",
        "[service.web]\ncommand = ['web']\nlog = { redact = ['$user.email'] }",
    ),
    (
        Code::ServiceName,
        "Names become parts of paths and names of units, so they have 1 to 63 characters of a-z, 0-9 and -.",
        "Use small letters, digits and hyphens; `display_name` can be any text.",
        "[service.Web_App]\ncommand = ['web']",
    ),
    (
        Code::ReservedName,
        "Windows has no file or directory of that name, and a manifest may be used there.",
        "Add a word to the name.",
        "[service.con]\ncommand = ['web']",
    ),
    (
        Code::NoService,
        "The table `service` is empty: there is no `[service.NAME]`.",
        "Add one, with a `command`; `mainstay init` writes a first manifest.",
        "[service]",
    ),
    (
        Code::UnknownNeed,
        "The name is misspelt, or the service is not in this manifest.",
        "Correct the name. A service of the operating system is `os:NAME`.",
        "[service.web]\ncommand = ['web']\nneeds = ['postgresql']",
    ),
    (
        Code::ManagerNameTaken,
        "`manager_name` of one service is the name of another. The comparison ignores case.",
        "Give one of them another name.",
        "[service.web]\ncommand = ['web']\n[service.site]\ncommand = ['site']\nmanager_name = 'web'",
    ),
    (
        Code::SelfNeed,
        "A service cannot wait for itself.",
        "Remove the name from `needs`.",
        "[service.web]\ncommand = ['web']\nneeds = ['web']",
    ),
    (
        Code::DuplicateNeed,
        "The same name occurs twice in the list.",
        "Remove one of them.",
        "[service.db]\ncommand = ['db']\n[service.web]\ncommand = ['web']\nneeds = ['db', 'db']",
    ),
    (
        Code::NeedsCycle,
        "Each service of the cycle waits for the next one, so none could start.",
        "Remove one of the needs; let that program retry its connection, or use `wait_for`.",
        "[service.a]\ncommand = ['a']\nneeds = ['b']\n[service.b]\ncommand = ['b']\nneeds = ['a']",
    ),
    (
        Code::Order,
        "The largest value is below the smallest.",
        "Raise the maximum, or lower the minimum.",
        "[service.web]\ncommand = ['web']\nrecovery = { delay = '10s', max_delay = '1s' }",
    ),
    (
        Code::NoProbe,
        "Liveness repeats the probe of `start.ready`, but `log` and `notify` cannot be repeated, or there is none.",
        "Add a probe to `liveness` or to `start.ready`.",
        "[service.web]\ncommand = ['web']\nliveness = { every = '10s' }",
    ),
    (
        Code::RelativePath,
        "The path is used where no directory is known to which it could be relative.",
        "Write the path from the root.",
        "[service.web]\ncommand = ['web']\nsnapshot = { paths = ['data'] }",
    ),
    (
        Code::PortRange,
        "Ports below 1024 need privileges, and 65535 and 0 are not usable.",
        "Choose a port from 1024 to 65534, or set `environment = \"development\"` for one below.",
        "[service.web]\ncommand = ['web']\nhttp = { port = 80 }",
    ),
    (
        Code::PortTaken,
        "Only one process can listen on a port.",
        "Give each service a port of its own.",
        "[service.a]\ncommand = ['a']\nhttp = { port = 9100 }\n[service.b]\ncommand = ['b']\nhttp = { port = 9100 }",
    ),
    (
        Code::GracefulTooShort,
        "A program that is killed before it has finished its work may lose data. One that stops sooner is not waited for.",
        "Allow 30 s or more, or set `environment = \"development\"`.",
        "[service.web]\ncommand = ['web']\nstop = { graceful = '5s' }",
    ),
    (
        Code::LogTooVerbose,
        "Debug output fills disks and tends to contain personal data. Production allows `warn` and `error`, staging also `info`.",
        "Raise the level, or set `environment`.",
        "[service.web]\ncommand = ['web']\nlog = { level = 'debug' }",
    ),
    (
        Code::WorldWritable,
        "The service runs as root, and the program, its directory or a file that it needs can be changed by another account, which would gain root's rights.",
        "Make the path writable by root alone, or run the service as a user.",
        "[service.web]\ncommand = ['/tmp/web']\naccount = 'local-system'",
    ),
    (
        Code::UnreachableLimit,
        "With these pauses, fewer restarts fit into the window than the limit allows, so the service never counts as crash-looping.",
        "Allow fewer restarts, lengthen `window`, or shorten `max_delay`.",
        "[service.web]\ncommand = ['web']\nrecovery = { delay = '5m', max_delay = '5m', limit = { restarts = 20, window = '15m' } }",
    ),
];

/// Returns the advice about a diagnostic.
pub(super) fn advice(code: Code) -> Option<Advice> {
    let found = TABLE.iter().find(|(it, ..)| *it == code);
    found.map(|(_, cause, action, example)| Advice {
        cause,
        action,
        example,
    })
}
