//! However a pipe's bytes are cut, what is written is the same; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_core::log::redact::RedactionKey;
use mainstay_core::log::Stream;
use mainstay_core::log::refine::{Origin, Refiner, Unfinished};
use mainstay_core::manifest::{Format, parse};
use mainstay_core::spec::redact::Class;

fuzz_target!(|input: (u32, u8, Vec<u16>, &[u8])| {
    let (classes, options, chunks, bytes) = input;
    let format = ["raw", "text", "json"][usize::from(options & 3) % 3];
    let with = ["label", "hash"][usize::from(options >> 2 & 1)];
    let filter = options & 8 != 0;
    let mut redact: Vec<String> = Class::ALL
        .into_iter()
        .filter(|class| classes >> (*class as u32) & 1 == 1)
        .map(|class| format!("'{}'", class.name()))
        .collect();
    if options & 16 != 0 {
        redact.push("'$.a', '$.b[*].c'".to_owned());
    }
    if options & 32 != 0 {
        redact.push("{ regex = '[a-c]+\\d', name = 'own' }".to_owned());
    }
    let redact = redact.join(",");
    let text = format!(
        "[service.a]\ncommand = ['a']\nlog = {{ format = '{format}', redact_with = '{with}', filter = {filter}, redact = [{redact}] }}"
    );
    let specs = parse(&text, Format::Toml).expect("it is a good manifest");
    // Long lines, without a long input.
    let bytes = match options & 64 {
        0 => bytes.to_vec(),
        _ => bytes.repeat(1 + 70_000 / bytes.len().max(1)),
    };
    let key = RedactionKey::new([1; 32]);
    let run = |chunks: &[u16]| {
        let mut refiner = Refiner::new(specs[0].log(), &key, true).expect("records are wanted");
        let origin = Origin {
            service: "a",
            time: 1,
            stream: Some(Stream::Stderr),
            pid: 1,
            restart: 0,
        };
        let (mut out, mut records) = (Vec::new(), Vec::new());
        let (mut from, mut to) = (0, 0);
        for chunk in chunks.iter().map(Some).chain([None]) {
            to = chunk.map_or(bytes.len(), |len| bytes.len().min(to + usize::from(*len)));
            let mut note = |record: &mainstay_core::log::refine::Record<'_>| {
                records.push((record.level, record.partial, record.message.to_vec()));
            };
            from += refiner.refine(
                &bytes[from..to],
                match chunk {
                    Some(_) => Unfinished::Leave,
                    None => Unfinished::Take,
                },
                &origin,
                &mut out,
                &mut note,
            );
            assert!(from <= to);
        }
        assert_eq!(from, bytes.len());
        (out, records)
    };
    let whole = run(&[]);
    assert_eq!(whole, run(&chunks));
    if format == "json" {
        for line in whole
            .0
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
        {
            assert!(line.starts_with(b"{\"time\":") && line.ends_with(b"}"));
            assert!(std::str::from_utf8(line).is_ok());
        }
    }
});
