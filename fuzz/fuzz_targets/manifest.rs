//! No text makes the parser of manifests panic, in any format. Every diagnostic has a position in
//! the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_core::manifest::{Format, parse};

fuzz_target!(|input: (u8, &str)| {
    let (format, text) = input;
    let format = Format::ALL[usize::from(format) % 3];
    for found in parse(text, format).err().unwrap_or_default() {
        assert!(found.span.start <= found.span.end && found.span.end <= text.len());
        assert!(found.excerpt.text.get(found.excerpt.marked).is_some());
        assert!(found.line >= 1 && found.column >= 1);
    }
});
