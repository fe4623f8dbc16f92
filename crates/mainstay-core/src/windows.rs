//! Rules and formats of Windows that decisions depend on, testable on every system.

pub mod paths;
pub mod status;
pub mod text;

/// Returns whether Windows takes a file of this name, in any directory and with any extension, for
/// a device ("Naming Files, Paths, and Namespaces", Microsoft Learn).
pub fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end();
    let stem = stem.to_ascii_lowercase();
    let port = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"));
    matches!(&*stem, "con" | "prn" | "aux" | "nul" | "conin$" | "conout$")
        || matches!(port.map(str::as_bytes), Some([b'1'..=b'9']))
        || matches!(port, Some("¹" | "²" | "³"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        for name in [
            "con", "CON", "prn", "aux", "nul", "com1", "com9", "lpt1", "lpt9", "COM²", "nul.txt",
            "aux .log", "conout$",
        ] {
            assert!(is_device(name), "{name}");
        }
        for name in [
            "", "con1", "console", "com", "com0", "com10", "lpt", "lpt-1", "null", "x.con", "a",
        ] {
            assert!(!is_device(name), "{name}");
        }
    }
}
