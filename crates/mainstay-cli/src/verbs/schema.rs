//! `mainstay schema`

use mainstay_core::manifest;

use crate::failure::Failure;
use crate::output;

pub(crate) fn run() -> Result<(), Failure> {
    output::to_stdout(&format!("{:#}", manifest::schema()))
}
