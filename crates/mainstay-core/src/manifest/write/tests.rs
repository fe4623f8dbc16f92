use proptest::prelude::*;

use super::specs::specs;
use crate::manifest::{Format, parse, write};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_is_read_as_the_same(specs in specs()) {
        for format in Format::ALL {
            let text = write(&specs, format);
            let read = parse(&text, format);
            prop_assert_eq!(read.as_ref(), Ok(&specs), "{}:\n{}", format, text);
            // The text is canonical: the same again.
            prop_assert_eq!(write(&specs, format), text);
        }
    }
}

#[test]
fn defaults_are_left_out() {
    let short = "[service.a]\ncommand = [\"a\"]\n";
    let long = "environment = \"production\"\n[service.a]\ncommand = [\"a\"]\n\
        start = { timeout = \"60s\" }\nstop = { graceful = \"30s\", signal = \"TERM\" }\n\
        recovery = { policy = \"restart\", limit = { restarts = 20, window = \"15m\" } }\n\
        log = { level = \"warn\", keep = 8 }\nlimits = {}\n";
    let specs = parse(long, Format::Toml).expect("a manifest");
    assert_eq!(write(&specs, Format::Toml), short);
    let json = "{\n  \"service\": {\n    \"a\": {\n      \"command\": [\"a\"]\n    }\n  }\n}\n";
    assert_eq!(write(&specs, Format::Json), json);
}
