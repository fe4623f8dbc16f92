//! The table of services that `run`, `status` and `list` show.
//!
//! On a terminal, the table is as wide as the terminal: columns that do not fit are left out, the
//! least important ones first, and longer cells are cut. Elsewhere nothing is cut.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};

use mainstay_core::engine::{HumanSeconds, StateName};
use mainstay_core::report::{ServiceReport, StatusReport};

use crate::output::{Painted, one_line};
use crate::text::{cut, width, wrap};

/// A column, without its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Service,
    State,
    Pid,
    Ready,
    Restarts,
    Cpu,
    Memory,
    Since,
    Why,
}

/// The columns from left to right.
const COLUMNS: [Column; 9] = [
    Column::Service,
    Column::State,
    Column::Pid,
    Column::Ready,
    Column::Restarts,
    Column::Cpu,
    Column::Memory,
    Column::Since,
    Column::Why,
];

/// The columns that a narrow terminal lacks, the least important one first. Without the column of
/// reasons, they are shown below the table.
const LEFT_OUT: [Column; 7] = [
    Column::Ready,
    Column::Why,
    Column::Pid,
    Column::Memory,
    Column::Cpu,
    Column::Restarts,
    Column::Since,
];

/// The space between two columns.
const GAP: &str = "  ";
/// The width of a column of reasons below which it is left out.
const LEAST_WHY: usize = 40;
/// The width of the names, if even the most important columns do not fit.
const LEAST_NAME: usize = 8;
/// The number of lines for a remark below the table that `run` draws again and again.
const REMARK_LINES: usize = 2;

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Service => "SERVICE",
            Self::State => "STATE",
            Self::Pid => "PID",
            Self::Ready => "READY",
            Self::Restarts => "RESTARTS",
            Self::Cpu => "CPU",
            Self::Memory => "MEMORY",
            Self::Since => "SINCE",
            Self::Why => "WHY",
        }
    }

    /// Returns the width of usual cells, so that columns seldom move when numbers grow.
    fn usual_width(self) -> usize {
        match self {
            Self::Cpu | Self::Since => 6,
            Self::Memory => 8,
            _ => width(self.title()),
        }
    }

    /// Numbers are right-aligned.
    fn is_right_aligned(self) -> bool {
        matches!(
            self,
            Self::Pid | Self::Restarts | Self::Cpu | Self::Memory | Self::Since
        )
    }

    fn cell(self, service: &ServiceReport, usage: &Usage, medium: Medium) -> String {
        let cell = match self {
            Self::Service => Some(service.name.clone()),
            Self::State => Some(service.state.to_string()),
            Self::Pid => service.pid.map(|pid| pid.to_string()),
            Self::Ready => Some(if service.ready { "yes" } else { "no" }.to_owned()),
            // Nobody counts the restarts of a service that no supervisor reports.
            Self::Restarts if service.last_event.is_some() && service.restarts == 0 => None,
            Self::Restarts => Some(service.restarts.to_string()),
            Self::Cpu => usage.percent(service).map(percentage),
            Self::Memory => service.memory_bytes.map(size),
            Self::Since => service
                .since_seconds
                .map(|seconds| HumanSeconds(seconds).to_string()),
            Self::Why => Some(why(service).unwrap_or_default()),
        };
        let cell = cell.unwrap_or_else(|| "-".to_owned());
        medium.line(&cell).into_owned()
    }
}

/// The place where the table is shown.
#[derive(Clone, Copy)]
enum Medium {
    Terminal {
        columns: usize,
    },
    /// A file, a pipe, or a terminal of unknown width.
    File,
}

impl Medium {
    fn new(columns: Option<usize>) -> Self {
        columns.map_or(Self::File, |columns| Self::Terminal { columns })
    }

    fn columns(self) -> usize {
        match self {
            Self::Terminal { columns } => columns,
            Self::File => usize::MAX,
        }
    }

    /// Returns a text from other programs as a part of a line.
    fn line(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Terminal { .. } => Cow::Owned(one_line(text).replace('\t', " ")),
            Self::File if text.contains('\n') => Cow::Owned(text.replace('\n', "\\n")),
            Self::File => Cow::Borrowed(text),
        }
    }
}

/// The CPU time that services had used when they were last looked at.
#[derive(Debug, Default)]
pub(crate) struct Usage(HashMap<String, Used>);

#[derive(Clone, Copy, Debug)]
struct Used {
    pid: u32,
    cpu_ms: u64,
    run_ms: u64,
    /// The usage between the last two measurements.
    percent: f64,
}

impl Usage {
    /// The time between two measurements. A shorter one would tell of a moment only.
    const INTERVAL_MS: u64 = 900;

    /// Measures the usage since the last measurement.
    pub(crate) fn update(&mut self, report: &StatusReport) {
        let mut current = HashMap::with_capacity(report.services.len());
        for service in &report.services {
            let (Some(pid), Some((cpu_ms, run_ms))) = (service.pid, times(service)) else {
                continue;
            };
            let last = self.0.get(&service.name).filter(|last| last.pid == pid);
            let (cpu_before, run_before) = last.map_or((0, 0), |last| (last.cpu_ms, last.run_ms));
            let used = match last {
                Some(last) if run_ms.saturating_sub(last.run_ms) < Self::INTERVAL_MS => *last,
                _ => Used {
                    pid,
                    cpu_ms,
                    run_ms,
                    percent: share(
                        cpu_ms.saturating_sub(cpu_before),
                        run_ms.saturating_sub(run_before),
                    ),
                },
            };
            current.insert(service.name.clone(), used);
        }
        self.0 = current;
    }

    /// Returns the share of one processor that the service used since the last measurement, or
    /// since its start if there is none.
    fn percent(&self, service: &ServiceReport) -> Option<f64> {
        let (cpu_ms, run_ms) = times(service)?;
        let measured = self.0.get(&service.name);
        Some(measured.map_or_else(|| share(cpu_ms, run_ms), |used| used.percent))
    }
}

fn times(service: &ServiceReport) -> Option<(u64, u64)> {
    service.cpu_ms.zip(service.run_ms)
}

fn share(cpu_ms: u64, run_ms: u64) -> f64 {
    100.0 * cpu_ms as f64 / run_ms.max(1) as f64
}

/// Returns the table for a terminal of this many columns, or for a file or pipe: one row per
/// service, followed by the remarks that the table has no room for. Ends with a newline.
pub fn status(report: &StatusReport, columns: Option<usize>) -> Painted {
    let table = Table::new(report, &Usage::default(), Medium::new(columns));
    let mut picture = Painted::default();
    picture.append(&table.head());
    table
        .rows
        .iter()
        .for_each(|row| picture.append(&table.row(row)));
    for line in table.remarks(|_| true, usize::MAX) {
        picture.push(&format!("{line}\n"));
    }
    picture
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Returns the table that `run` draws, with recent events below. It fits the terminal, whose last
/// row stays free for the cursor.
///
/// If not all services fit, those that need attention come first, with their reasons, and a line
/// counts the others.
pub(crate) fn live(
    report: &StatusReport,
    usage: &Usage,
    recent: &VecDeque<String>,
    Size { rows, columns }: Size,
) -> Painted {
    let medium = Medium::new(Some(columns));
    let mut table = Table::new(report, usage, medium);
    let room = rows.saturating_sub(1);
    // A quarter of the terminal is for events.
    let for_table = room - recent.len().min(room / 4);
    let reasons = table.remarks(needs_attention, REMARK_LINES).len();
    let for_reasons = reasons.min(for_table / 2);
    let mut shown = table.rows.len();
    let is_whole = 1 + shown + for_reasons <= for_table;
    if !is_whole {
        table.sort_by_urgency();
        let urgent = table.rows.iter().filter(|(it, _)| needs_attention(it));
        let for_services = for_table.saturating_sub(2);
        shown = shown
            .min(for_services.saturating_sub(for_reasons))
            .max(urgent.count().min(for_services));
        // The line that counts one service has room for it.
        shown += usize::from(shown + 1 == table.rows.len());
    }
    let mut lines = vec![table.head()];
    let (first, others) = table.rows.split_at(shown);
    lines.extend(first.iter().map(|row| table.row(row)));
    let mut texts = Vec::new();
    texts.extend((!others.is_empty()).then(|| hidden(others)));
    let for_remarks = for_table.saturating_sub(lines.len() + texts.len());
    let mut remarks = table.remarks(|_| true, REMARK_LINES);
    if remarks.len() > for_remarks {
        let more = remarks.split_off(for_remarks.saturating_sub(1)).len();
        remarks
            .extend((for_remarks > 0).then(|| format!("  … {more} more lines: mainstay status")));
    }
    texts.extend(remarks);
    let for_events = room.saturating_sub(lines.len() + texts.len());
    let events = recent.iter().skip(recent.len().saturating_sub(for_events));
    texts.extend(events.map(|event| medium.line(event).into_owned()));
    lines.extend(
        texts
            .iter()
            .map(|text| Painted::from(cut(text, columns).into_owned() + "\n")),
    );
    let mut picture = Painted::default();
    lines
        .iter()
        .take(room)
        .for_each(|line| picture.append(line));
    picture
}

/// Returns the rank of a service among those that an operator looks at.
fn urgency(service: &ServiceReport) -> u8 {
    match service.state {
        StateName::Halted => 0,
        _ if service.crash_looping => 1,
        StateName::BackingOff | StateName::Unknown => 1,
        StateName::StartPending | StateName::StopPending | StateName::Waiting => 2,
        StateName::PausePending | StateName::ContinuePending => 2,
        StateName::Stopped | StateName::Paused => 3,
        StateName::Running => 4,
    }
}

/// Returns whether a service is in a state that it should not stay in.
fn needs_attention(service: &ServiceReport) -> bool {
    urgency(service) <= 2
}

/// Returns the line for services that the table has no room for: `… 40 more: 2 stopped, 38
/// running`.
fn hidden(rows: &[Row<'_>]) -> String {
    let mut counts: BTreeMap<(u8, &str), usize> = BTreeMap::new();
    for (service, _) in rows {
        let state = (urgency(service), service.state.label());
        *counts.entry(state).or_default() += 1;
    }
    let counts = counts.iter();
    let counts: Vec<_> = counts
        .map(|((_, state), count)| format!("{count} {state}"))
        .collect();
    format!("… {} more: {}", rows.len(), counts.join(", "))
}

/// The reason for the state of a service, unless it runs.
fn why(service: &ServiceReport) -> Option<String> {
    match service.state {
        StateName::Running | StateName::Paused => None,
        _ => service.remark(),
    }
}

/// A service with its cells, in the order of [`COLUMNS`].
type Row<'a> = (&'a ServiceReport, Vec<String>);

/// A table that fits its medium.
struct Table<'a> {
    report: &'a StatusReport,
    medium: Medium,
    /// The columns that are shown, and their widths.
    columns: Vec<(Column, usize)>,
    rows: Vec<Row<'a>>,
}

impl<'a> Table<'a> {
    fn new(report: &'a StatusReport, usage: &Usage, medium: Medium) -> Self {
        let cells = |service| COLUMNS.map(|it| it.cell(service, usage, medium)).into();
        let services = report.services.iter();
        let rows: Vec<Row<'a>> = services.map(|service| (service, cells(service))).collect();
        let mut columns: Vec<_> = COLUMNS.map(|it| (it, it.usual_width())).into();
        for (_, cells) in &rows {
            for ((_, most), cell) in columns.iter_mut().zip(cells) {
                *most = (*most).max(width(cell));
            }
        }
        let why = |(_, cells): &Row<'_>| !cells[Column::Why as usize].is_empty();
        if !rows.iter().any(why) {
            columns.retain(|(column, _)| *column != Column::Why);
        }
        fit(&mut columns, medium.columns());
        Self {
            report,
            medium,
            columns,
            rows,
        }
    }

    /// Moves the services that need attention to the top.
    fn sort_by_urgency(&mut self) {
        self.rows.sort_by_key(|(service, _)| urgency(service));
    }

    fn head(&self) -> Painted {
        self.line(|column| column.title(), None)
    }

    fn row(&self, (service, cells): &Row<'_>) -> Painted {
        self.line(|column| &cells[column as usize], Some(colour(service)))
    }

    fn line<'t>(&self, cell: impl Fn(Column) -> &'t str, colour: Option<&'static str>) -> Painted {
        let mut line = Painted::default();
        for (i, &(column, columns)) in self.columns.iter().enumerate() {
            let cell = cut(cell(column), columns);
            let padding = " ".repeat(columns - width(&cell));
            let padded = if column.is_right_aligned() {
                format!("{padding}{cell}")
            } else {
                format!("{cell}{padding}")
            };
            line.push(if i > 0 { GAP } else { "" });
            match colour {
                Some(colour) if column == Column::State => line.paint(colour, &padded),
                _ => line.push(&padded),
            }
        }
        line.trim_end();
        line.push("\n");
        line
    }

    /// Returns the lines below the table about some services, and about the supervisor: problems,
    /// drift, replaced programs, and the reasons that the table does not show as a whole. Each has
    /// at most `most` lines.
    fn remarks(&self, about: impl Fn(&ServiceReport) -> bool, most: usize) -> Vec<String> {
        let supervisor = self.report.supervisor.as_ref();
        let mut lines = Vec::new();
        let problems = supervisor.iter().flat_map(|it| [&it.problem, &it.replaced]);
        for text in problems.flatten() {
            self.remark(&mut lines, "supervisor", text, most);
        }
        let why_width = self.columns.iter().find(|(it, _)| *it == Column::Why);
        for (service, cells) in self.rows.iter().filter(|(service, _)| about(service)) {
            let is_in_table = why_width.is_some_and(|(column, columns)| {
                let cell = &cells[*column as usize];
                !cell.is_empty() && width(cell) <= *columns
            });
            let drift = service.drift.iter().flatten();
            let drift = drift.map(|it| format!("differs from its registered definition: {it}"));
            let remark = service.remark().filter(|_| !is_in_table);
            let problems = service.log_problem.iter().chain(&service.state_problem);
            let others = problems.chain(&service.replaced).cloned();
            for text in drift.chain(remark).chain(others) {
                self.remark(&mut lines, &service.name, &text, most);
            }
        }
        lines
    }

    fn remark(&self, lines: &mut Vec<String>, about: &str, text: &str, most: usize) {
        let text = self.medium.line(text);
        let columns = self.medium.columns();
        let text = format!("{about}: {text}");
        let mut wrapped = wrap(&text, columns.saturating_sub(4)).peekable();
        for number in 1.. {
            let Some(line) = wrapped.next() else { break };
            let indent = if number == 1 { "  " } else { "    " };
            if number == most && wrapped.peek().is_some() {
                lines.push(cut(&format!("{indent}{line}…"), columns).into_owned());
                break;
            }
            lines.push(format!("{indent}{line}"));
        }
    }
}

/// Leaves out columns until the rest fits, and narrows what is left.
fn fit(columns: &mut Vec<(Column, usize)>, room: usize) {
    let gaps = |columns: &[(Column, usize)]| GAP.len() * columns.len().saturating_sub(1);
    let needed = |columns: &[(Column, usize)]| {
        let widths = columns.iter().map(|&(column, width)| match column {
            Column::Why => width.min(LEAST_WHY),
            _ => width,
        });
        widths.sum::<usize>() + gaps(columns)
    };
    for column in LEFT_OUT {
        if needed(columns) <= room {
            break;
        }
        columns.retain(|(it, _)| *it != column);
    }
    let all: usize = columns.iter().map(|(_, width)| width).sum();
    let mut excess = (all + gaps(columns)).saturating_sub(room);
    // The reasons give way first. Without them, the names do, and then the states.
    let least = |column| match column {
        Column::Service => LEAST_NAME,
        Column::Why => LEAST_WHY,
        _ => 1,
    };
    let mut why = columns.pop_if(|(it, _)| *it == Column::Why);
    for (column, width) in why.iter_mut().chain(columns.iter_mut()) {
        let given = excess.min(width.saturating_sub(least(*column)));
        *width -= given;
        excess -= given;
    }
    columns.extend(why);
}

fn colour(service: &ServiceReport) -> &'static str {
    match service.state {
        StateName::Running => "\x1b[32m",
        StateName::Halted => "\x1b[1;31m",
        StateName::Stopped => "\x1b[2m",
        _ => "\x1b[33m",
    }
}

fn percentage(percent: f64) -> String {
    match percent {
        ..9.95 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// Formats a size in binary units. A unit is used from 10 of it on.
fn size(bytes: u64) -> String {
    let mut value = bytes;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024 * 10 {
            break;
        }
        value /= 1024;
        unit = next;
    }
    format!("{value} {unit}")
}

#[cfg(test)]
mod tests;
