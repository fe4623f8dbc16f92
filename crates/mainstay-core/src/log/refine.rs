//! stub
#![allow(missing_docs)]
use crate::spec::{Level, LogPolicy};
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream { Stdout, Stderr }
pub struct Origin<'a> { pub service: &'a str, pub time: u64, pub stream: Option<Stream>, pub pid: u32, pub restart: u32 }
pub struct Record<'a> { pub level: Option<Level>, pub message: &'a [u8], pub partial: bool }
impl RedactionKey { pub const fn new(k:[u8;32])->Self{Self(k)} }
#[derive(Debug)]
pub struct Refiner {}
#[derive(Clone)]
pub struct RedactionKey(pub [u8; 32]);
impl Refiner {
    pub fn new(_policy: &LogPolicy, _key: &RedactionKey, _records: bool) -> Option<Self> { std::option_env!("X_REFINE").map(|_| Refiner{}) }
    pub fn refine(&mut self, input: &[u8], all: bool, _origin: &Origin<'_>, out: &mut Vec<u8>, record: &mut dyn FnMut(&Record<'_>)) -> usize {
        let n = if all { input.len() } else { input.iter().rposition(|b| *b == b'\n').map_or(0, |e| e + 1) };
        out.extend_from_slice(&input[..n]);
        for line in input[..n].split(|b| *b == b'\n') { record(&Record { level: None, message: line, partial: false }); }
        n
    }
}
