//! Hints for keeping common daemons in the foreground, for services that fork into the background.

/// Programs that can fork into the background, and the way to prevent it. A name that ends in `*`
/// is a prefix.
const SWITCHES: [(&str, &str); 31] = [
    ("nginx*", "nginx -g 'daemon off;'"),
    ("openresty", "openresty -g 'daemon off;'"),
    ("redis-server", "redis-server --daemonize no"),
    ("redis-sentinel", "redis-sentinel --daemonize no"),
    ("valkey-server", "valkey-server --daemonize no"),
    ("sshd", "sshd -D"),
    ("pg_ctl", "run postgres -D DIR instead of pg_ctl"),
    (
        "pg_ctlcluster",
        "pg_ctlcluster --foreground VERSION CLUSTER start",
    ),
    ("apachectl", "apachectl -D FOREGROUND"),
    ("apache2ctl", "apache2ctl -D FOREGROUND"),
    ("apache2", "apache2 -D FOREGROUND"),
    ("httpd", "httpd -D FOREGROUND"),
    ("mysqld*", "run mysqld without --daemonize"),
    ("mariadbd*", "run mariadbd without --daemonize"),
    ("mongod", "mongod without --fork"),
    ("php-fpm*", "php-fpm --nodaemonize"),
    ("haproxy", "haproxy -W -db"),
    ("postfix", "postfix start-fg"),
    ("dovecot", "dovecot -F"),
    ("exim*", "exim -bdf"),
    ("memcached", "memcached without -d"),
    ("lighttpd", "lighttpd -D"),
    ("squid*", "squid --foreground"),
    ("named", "named -f"),
    ("unbound", "unbound -d"),
    ("dnsmasq", "dnsmasq --keep-in-foreground"),
    ("chronyd", "chronyd -d"),
    ("ntpd", "ntpd -n"),
    ("rsyslogd", "rsyslogd -n"),
    ("cron*", "cron -f"),
    ("vsftpd", "vsftpd -obackground=NO"),
];

/// Returns the hint for this program.
pub(super) fn hint(program: &str) -> String {
    let name = program.rsplit(['/', '\\']).next().unwrap_or(program);
    let is_it = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    let known = SWITCHES.iter().find(|(pattern, _)| is_it(pattern));
    match known {
        Some((_, switch)) => format!("hint: keep it in the foreground: {switch}"),
        None => "hint: keep it in the foreground; most programs have an option such as \
                 --foreground, --nodaemon or -f"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn programs_are_known_by_their_names() {
        for (program, part) in [
            ("/usr/sbin/nginx", "daemon off;"),
            ("redis-server", "--daemonize no"),
            ("/usr/sbin/sshd", "sshd -D"),
            ("/usr/lib/postgresql/15/bin/pg_ctl", "postgres -D"),
            ("/usr/sbin/apache2", "-D FOREGROUND"),
            ("mysqld_safe", "--daemonize"),
            ("/usr/sbin/php-fpm8.2", "--nodaemonize"),
            ("haproxy", "-db"),
            ("postfix", "start-fg"),
            ("C:\\x\\httpd", "FOREGROUND"),
            ("/opt/my-nginx-wrapper", "--foreground"),
            ("sh", "--nodaemon"),
        ] {
            assert!(hint(program).contains(part), "{program}: {}", hint(program));
        }
    }
}
