//! The figures of all rounds, in a table.

use std::fmt;

use super::run::Side;
use super::scenarios::{Goal, Row, Scenario};
use crate::Result;

/// All measurements so far, in the order of the table.
#[derive(Default)]
pub(crate) struct Results {
    rows: Vec<Figures>,
    failures: Vec<String>,
}

struct Figures {
    row: &'static Row,
    bound: Vec<f64>,
    mainstay: Vec<f64>,
}

impl Results {
    /// Adds the outcome of one round of one side.
    pub(crate) fn add(
        &mut self,
        scenario: &'static Scenario,
        side: Side,
        outcome: Result<Vec<f64>>,
    ) {
        let is_new = |row: &&Row| !self.rows.iter().any(|known| std::ptr::eq(known.row, *row));
        let new: Vec<_> = scenario.rows.iter().filter(is_new).collect();
        self.rows.extend(new.into_iter().map(|row| Figures {
            row,
            bound: Vec::new(),
            mainstay: Vec::new(),
        }));
        match outcome {
            Err(error) => self
                .failures
                .push(format!("{} {side:?}: {error}", scenario.name)),
            Ok(values) => {
                for (row, value) in scenario.rows.iter().zip(values) {
                    let figures = self
                        .rows
                        .iter_mut()
                        .filter(|known| std::ptr::eq(known.row, row));
                    figures.for_each(|figures| match side {
                        Side::Mainstay => figures.mainstay.push(value),
                        Side::Bare | Side::Cat | Side::S6 | Side::Kardianos => {
                            figures.bound.push(value)
                        }
                    });
                }
            }
        }
    }

    /// Returns whether a measurement failed.
    pub(crate) fn failed(&self) -> bool {
        !self.failures.is_empty()
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "what",
            "bound",
            "mainstay: min / median / max",
            "ratio",
            "goal",
            "met",
        ];
        let rows = self.rows.iter().map(Figures::cells);
        let rows: Vec<_> = std::iter::once(header.map(str::to_owned))
            .chain(rows)
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        for (index, row) in rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                write!(f, "| {cell:<0$} ", width(column).unwrap_or(0))?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                writeln!(f, "{}|", "|---".repeat(row.len()))?;
            }
        }
        for failure in &self.failures {
            writeln!(f, "not measured: {failure}")?;
        }
        Ok(())
    }
}

impl Figures {
    fn cells(&self) -> [String; 6] {
        let Row { what, unit, goal } = self.row;
        let bound = median(&self.bound);
        let mainstay = median(&self.mainstay);
        let ratio = bound.zip(mainstay).filter(|(bound, _)| *bound > 0.0);
        let ratio = ratio.map(|(bound, mainstay)| mainstay / bound);
        let met = match goal {
            Goal::Max(limit) => mainstay.map(|value| value <= *limit),
            Goal::Min(limit) => mainstay.map(|value| value >= *limit),
            Goal::MaxRatio(limit) => ratio.map(|ratio| ratio <= *limit),
            Goal::MinRatio(limit) => ratio.map(|ratio| ratio >= *limit),
        };
        let goal = match goal {
            Goal::Max(limit) if *limit == 0.0 => "0".to_owned(),
            Goal::Max(limit) => format!("≤ {limit} {unit}"),
            Goal::Min(limit) => format!("≥ {limit} {unit}"),
            Goal::MaxRatio(limit) => format!("≤ {limit} ×"),
            Goal::MinRatio(limit) => format!("≥ {limit} ×"),
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        let all = mainstay.map(|middle| {
            let low = self.mainstay.iter().copied().fold(f64::INFINITY, f64::min);
            let high = self
                .mainstay
                .iter()
                .copied()
                .fold(f64::NEG_INFINITY, f64::max);
            format!(
                "{} / {} / {} {unit}",
                short(low),
                short(middle),
                short(high)
            )
        });
        [
            (*what).to_owned(),
            or_dash(bound.map(|value| format!("{} {unit}", short(value)))),
            or_dash(all),
            or_dash(ratio.map(|ratio| format!("{ratio:.2}"))),
            goal,
            or_dash(met.map(|met| if met { "yes" } else { "NO" }.to_owned())),
        ]
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Formats a value with three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
