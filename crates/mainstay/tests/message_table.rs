//! The texts of events in a Windows program that links the library, read as Event Viewer reads
//! them: they are those of docs/event-log.md.
#![cfg(all(windows, feature = "message-table"))]

use std::collections::BTreeMap;
use std::process::ExitCode;

use mainstay::{Context, Exit};

/// RT_MESSAGETABLE.
const MESSAGE_TABLE: u32 = 11;

/// A service, so that the linker includes everything that a service uses.
fn service() -> ExitCode {
    mainstay::service("texts").run(|_: Context| Ok::<(), Exit>(()))
}

#[test]
fn the_program_has_the_documented_texts() {
    std::hint::black_box(service as fn() -> ExitCode);
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(messages(&program), documented());
}

/// The rows `| 1 | `0x60000001` | … | `text` |`.
fn documented() -> BTreeMap<u32, String> {
    let documentation = include_str!("../../../docs/event-log.md");
    let rows = documentation.lines().filter_map(|line| {
        let cells: Vec<_> = line
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let id = u32::from_str_radix(cells.get(2)?.strip_prefix("0x")?, 16).ok()?;
        Some((id, format!("{}\r\n", cells.get(5)?)))
    });
    rows.collect()
}

/// All of a program's messages, by id.
fn messages(program: &[u8]) -> BTreeMap<u32, String> {
    let (resources, address) = section(program, b".rsrc\0\0\0");
    let leaf = [MESSAGE_TABLE, 1, 0]
        .into_iter()
        .fold(0, |directory, id| child(resources, directory, id));
    let start = (u32_at(resources, leaf) - address) as usize;
    let table = &resources[start..][..u32_at(resources, leaf + 4) as usize];
    let mut messages = BTreeMap::new();
    for block in 0..u32_at(table, 0) as usize {
        let [low, high, mut place] = [4, 8, 12].map(|at| u32_at(table, block * 12 + at));
        for id in low..=high {
            let entry = &table[place as usize..][..u16_at(table, place as usize).into()];
            assert_eq!(u16_at(entry, 2), 0, "not Unicode");
            let text = String::from_utf8(entry[4..].to_vec()).unwrap();
            messages.insert(id, text.trim_end_matches('\0').to_owned());
            place += u32::from(u16_at(table, place as usize));
        }
    }
    messages
}

/// The place of what a directory has under this id.
fn child(resources: &[u8], directory: usize, id: u32) -> usize {
    let named = usize::from(u16_at(resources, directory + 12));
    let numbered = usize::from(u16_at(resources, directory + 14));
    let entry = (0..named + numbered)
        .map(|index| directory + 16 + index * 8)
        .find(|entry| u32_at(resources, *entry) == id);
    (u32_at(resources, entry.unwrap() + 4) & 0x7FFF_FFFF) as usize
}

/// A section's bytes, and where it is in memory.
fn section<'a>(program: &'a [u8], name: &[u8; 8]) -> (&'a [u8], u32) {
    let header = u32_at(program, 0x3C) as usize;
    assert_eq!(&program[header..][..4], b"PE\0\0");
    let first = header + 24 + usize::from(u16_at(program, header + 20));
    let head = (0..u16_at(program, header + 6).into())
        .map(|index| &program[first + index * 40..])
        .find(|head| head.starts_with(name))
        .unwrap();
    let [address, size, place] = [12, 16, 20].map(|at| u32_at(head, at));
    (&program[place as usize..][..size as usize], address)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
