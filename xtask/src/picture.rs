//! `cargo xtask picture`: draws what `mainstay run` shows on a terminal as the picture of the
//! README.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use mainstay_testkit::{Terminal, wait_until};

use crate::{Result, cargo, root, target_dir};

/// The place of the picture.
const PATH: &str = "docs/run.svg";
const ROWS: u16 = 13;
const COLUMNS: u16 = 84;
/// The size of a cell in pixels.
const CELL: (u16, u16) = (9, 19);
/// The event after which the picture is taken, two seconds later.
const LAST: &str = "started again";
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn draw() -> Result<ExitCode> {
    let built = cargo().args(["build", "-p", "mainstay-cli"]).status()?;
    if !built.success() {
        return Err("the command cannot be built".into());
    }
    let state = tempfile::tempdir()?;
    let mut command = Command::new(target_dir()?.join("debug/mainstay"));
    command
        .current_dir(root())
        .args(["run", "examples/hello/mainstay.toml", "--color", "always"])
        .env("MAINSTAY_STATE_DIR", state.path())
        .env("TERM", "xterm");
    let terminal = Terminal::start(command);
    terminal.resize(ROWS, COLUMNS);
    wait_until(LAST, LIMIT, || {
        terminal.shown().contains(LAST).then_some(())
    });
    thread::sleep(Duration::from_secs(2));
    let mut screen = vt100::Parser::new(ROWS, COLUMNS, 0);
    // The terminal passes on newlines as they are.
    screen.process(terminal.shown().replace('\n', "\r\n").as_bytes());
    terminal.interrupt();
    terminal.finish();
    fs::write(root().join(PATH), svg(screen.screen()))?;
    println!("{PATH}");
    Ok(ExitCode::SUCCESS)
}

/// Returns a screen as an image, one text element for each run of cells with the same attributes.
fn svg(screen: &vt100::Screen) -> String {
    let (width, height) = CELL;
    let (all_width, all_height) = (width * (COLUMNS + 2), height * (ROWS + 1));
    let mut image = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all_width} {all_height}\" \
         font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"15\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1e1e2e\"/>\n"
    );
    for row in 0..ROWS {
        let mut column = 0;
        while column < COLUMNS {
            let (start, style) = (column, style(screen, row, column));
            let mut text = String::new();
            while column < COLUMNS && self::style(screen, row, column) == style {
                let cell = screen.cell(row, column).map(vt100::Cell::contents);
                text.push_str(cell.filter(|it| !it.is_empty()).unwrap_or(" "));
                column += 1;
            }
            let indent = text.len() - text.trim_start().len();
            let text = text.trim().replace('&', "&amp;").replace('<', "&lt;");
            if !text.is_empty() {
                let x = width * (start + u16::try_from(indent).unwrap_or(0) + 1);
                let y = height * (row + 1) + 2;
                // A write to a string does not fail.
                let _ = writeln!(
                    image,
                    "<text x=\"{x}\" y=\"{y}\" xml:space=\"preserve\" {style}>{text}</text>"
                );
            }
        }
    }
    image + "</svg>\n"
}

/// Returns the attributes of a cell as those of SVG.
fn style(screen: &vt100::Screen, row: u16, column: u16) -> String {
    let Some(cell) = screen.cell(row, column) else {
        return String::new();
    };
    let colour = match cell.fgcolor() {
        vt100::Color::Idx(1 | 9) => "#f38ba8",
        vt100::Color::Idx(2 | 10) => "#a6e3a1",
        vt100::Color::Idx(3 | 11) => "#f9e2af",
        _ => "#cdd6f4",
    };
    let weight = if cell.bold() {
        " font-weight=\"bold\""
    } else {
        ""
    };
    let opacity = if cell.dim() { " opacity=\"0.6\"" } else { "" };
    format!("fill=\"{colour}\"{weight}{opacity}")
}
