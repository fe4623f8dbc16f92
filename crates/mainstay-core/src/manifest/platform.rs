//! Rules that hold on one kind of operating system only. They apply to a valid manifest, where it
//! is used.

use super::diagnostic::{Code, Diagnostic};
use super::exit_codes::exit_code;
use super::tree::Value;
use super::{Findings, Format, diagnose, read};
use crate::spec::{Argv, Encoding, Spec};
use crate::windows::text;

/// A kind of operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Linux, macOS and the BSDs.
    Unix,
    /// Windows.
    Windows,
}

/// Returns errors in a manifest that [`parse`](super::parse) accepts and that cannot be used on
/// this platform, in the order of the text.
pub fn unusable(text: &str, format: Format, specs: &[Spec], platform: Platform) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = match platform {
        Platform::Unix => specs
            .iter()
            .flat_map(|spec| {
                exit_codes(text, format, spec)
                    .into_iter()
                    .chain(oem(text, format, spec))
            })
            .collect(),
        Platform::Windows => specs
            .iter()
            .flat_map(|spec| command_lines(text, format, spec))
            .collect(),
    };
    found.sort_by_key(|diagnostic| diagnostic.span.start);
    found
}

/// Finds exit codes that no process can have on Unix, where `wait` reports the low 8 bits.
fn exit_codes(text: &str, format: Format, spec: &Spec) -> Vec<Diagnostic> {
    let is_beyond = |code: i32| u8::try_from(code).is_err();
    if !spec.recovery().codes().keys().any(|code| is_beyond(*code)) {
        return Vec::new();
    }
    let path = ["service", spec.name().as_str(), "recovery", "codes"];
    keys(text, format, &path)
        .iter()
        .filter(|key| exit_code(key).is_some_and(is_beyond))
        .map(|key| {
            let path = [&path[..], &[&**key]].concat();
            let message = format!("`{key}` is an exit code of Windows only");
            let help = "on Unix, exit codes are 0 to 255; remove it, or use a manifest for Windows";
            diagnose(text, format, &path, Code::Number, &message, Some(help))
        })
        .collect()
}

/// Finds the encoding that only Windows defines.
fn oem(text: &str, format: Format, spec: &Spec) -> Option<Diagnostic> {
    if spec.log().encoding() != Encoding::Oem {
        return None;
    }
    let path = ["service", spec.name().as_str(), "log", "encoding"];
    let message = "`oem` is the code page of a Windows installation, which Unix does not have";
    let help = "name the code page: \"cp437\", \"cp850\" or another";
    let code = Code::UnknownValue;
    Some(diagnose(text, format, &path, code, message, Some(help)))
}

/// Finds commands that Windows cannot pass to their program.
fn command_lines(text: &str, format: Format, spec: &Spec) -> Vec<Diagnostic> {
    let refused = spec.commands().filter_map(|(key, argv)| {
        let why = command_line(argv).err()?;
        let path = ["service", spec.name().as_str(), key];
        let message = format!("Windows cannot start this command: {why}");
        let help = match why {
            text::Unusable::TooLong { .. } => "pass long values in a file or in `env`",
            _ => "start the program directly, not through a batch file",
        };
        let code = Code::CommandLine;
        Some(diagnose(text, format, &path, code, &message, Some(help)))
    });
    refused.collect()
}

/// Creates the command line as far as it is known before the program is looked up.
fn command_line(argv: &Argv) -> Result<(), text::Unusable> {
    let wide = |word: &str| word.encode_utf16().collect::<Vec<u16>>();
    let program = wide(argv.program());
    let args: Vec<_> = argv.args().iter().map(|word| wide(word)).collect();
    if text::is_batch(&program) {
        text::batch_command_line(&program, &args).map(drop)
    } else {
        text::command_line(&[vec![program], args].concat()).map(drop)
    }
}

/// Returns the keys of the table at `path`, as written.
fn keys(text: &str, format: Format, path: &[&str]) -> Vec<String> {
    let tree = read(text, format, &mut Findings::default());
    let node = path
        .iter()
        .try_fold(tree.as_ref(), |node, key| Some(node?.at(key)));
    match node.flatten().map(|node| &node.value) {
        Some(Value::Table(entries)) => entries
            .iter()
            .map(|entry| entry.key.value.to_string())
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::parse;

    /// Returns the code and the path of each error, and the message of the first.
    fn check(service: &str, platform: Platform) -> (Vec<(Code, String)>, String) {
        let text = format!("[service.a]\n{service}");
        let specs = parse(&text, Format::Toml).unwrap();
        let found = unusable(&text, Format::Toml, &specs, platform);
        let message = found.first().map_or(String::new(), |it| it.message.clone());
        (
            found.into_iter().map(|it| (it.code, it.path)).collect(),
            message,
        )
    }

    #[test]
    fn exit_codes_of_windows_are_refused_on_unix() {
        let service = "command = ['a']\nrecovery = { codes = { 255 = 'stop', 3010 = 'stop', \
                       -1 = 'halt', STATUS_ACCESS_VIOLATION = 'halt' } }";
        let path = |key: &str| (Code::Number, format!("service.a.recovery.codes.{key}"));
        let (found, message) = check(service, Platform::Unix);
        assert_eq!(found, ["3010", "-1", "STATUS_ACCESS_VIOLATION"].map(path));
        assert_eq!(message, "`3010` is an exit code of Windows only");
        assert_eq!(check(service, Platform::Windows).0, []);
    }

    #[test]
    fn command_lines_that_windows_refuses() {
        let long = "x".repeat(33_000);
        let service = format!(
            "command = ['a.exe', '{long}']\non_alert = ['b']\nliveness = {{ exec = ['c.bat', '%X%'] }}"
        );
        let (found, message) = check(&service, Platform::Windows);
        let path = |key: &str| (Code::CommandLine, format!("service.a.{key}"));
        assert_eq!(found, ["command", "liveness"].map(path));
        assert_eq!(
            message,
            "Windows cannot start this command: the command line has 33007 UTF-16 units, and \
             Windows accepts at most 32767"
        );
        assert_eq!(check(&service, Platform::Unix).0, []);
    }

    #[test]
    fn the_oem_code_page_is_that_of_windows() {
        let service = "command = ['a']\nlog = { encoding = 'oem', format = 'text' }";
        let path = (Code::UnknownValue, "service.a.log.encoding".to_owned());
        assert_eq!(check(service, Platform::Unix).0, [path]);
        assert_eq!(check(service, Platform::Windows).0, []);
    }
}
