//! Services that share a process.

use std::collections::BTreeMap;

use crate::{Account, Definition, Error, ErrorKind, ServiceSid};

/// Refuses services of one process that differ in what the process has only once.
pub(super) fn refuse_differences(definitions: &[Definition]) -> Result<(), Error> {
    let mut programs: BTreeMap<&str, Vec<&Definition>> = BTreeMap::new();
    for definition in definitions {
        if let Some(program) = &definition.shared_process {
            programs.entry(program).or_default().push(definition);
        }
    }
    let wrong: Vec<String> = programs.values().flat_map(|all| differences(all)).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let what = format!(
        "these services cannot share a process: {}",
        wrong.join("; ")
    );
    let error = Error::new(ErrorKind::Invalid, what);
    Err(error.with_cure("give all of them the same account, such as LocalService, and settings"))
}

/// Returns the mistakes in the services of a program.
fn differences(services: &[&Definition]) -> Vec<String> {
    let mut wrong = Vec::new();
    let [first, others @ ..] = services else {
        return wrong;
    };
    // Two virtual accounts are two accounts.
    if first.account == Account::Virtual {
        wrong.push("each of them has an account of its own".to_owned());
    }
    let is_restricted = |it: &Definition| it.windows.sid == ServiceSid::Restricted;
    for other in others {
        let differs = [
            ("account", other.account != first.account),
            ("program", other.executable != first.executable),
            ("environment", other.env != first.env),
            ("working directory", other.working_dir != first.working_dir),
            ("log directory", other.log_dir != first.log_dir),
            ("SID type", is_restricted(other) != is_restricted(first)),
        ];
        let (name, of) = (&other.name, &first.name);
        let differs = differs.into_iter().filter(|(_, differs)| *differs);
        wrong.extend(differs.map(|(what, _)| format!("{name} and {of} differ in the {what}")));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Program, service};

    #[test]
    fn services_of_one_process_have_one_account_and_one_environment() {
        let check = |services: [Definition; 2], expected: &str| {
            let start = Program::new("shop");
            let add = |program: Program, it| program.service(it, |_| Ok(()));
            let program = services.into_iter().fold(start, add);
            let done = refuse_differences(&program.definitions());
            let said = done.map_err(|error| error.to_string()).err();
            assert_eq!(said.unwrap_or_default(), expected);
        };
        let local = |name: &str| service(name).account(Account::LocalService);
        check([local("a"), local("b")], "");
        check(
            [service("a"), service("b")],
            "these services cannot share a process: each of them has an account of its own",
        );
        let other = service("b")
            .account(Account::LocalSystem)
            .env("A", "secret")
            .windows(|windows| windows.sid(ServiceSid::Restricted));
        check(
            [local("a"), other],
            "these services cannot share a process: b and a differ in the account; b and a differ in the environment; b and a differ in the SID type",
        );
        assert!(refuse_differences(&[service("a"), service("b")]).is_ok());
    }
}
