//! Numbers as a table for people and as lines of JSON for programs.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::{fs, path::Path};

/// What was measured of one case.
pub struct Row {
    name: String,
    /// How the frame is restored.
    note: String,
    /// Nanoseconds a packet, one number a run, in ascending order.
    nanoseconds: Vec<f64>,
}

impl Row {
    /// From the numbers of all runs.
    pub fn new(name: &str, note: &str, mut nanoseconds: Vec<f64>) -> Self {
        nanoseconds.sort_by(f64::total_cmp);
        Self { name: name.into(), note: note.into(), nanoseconds }
    }

    fn median(&self) -> f64 {
        median(&self.nanoseconds)
    }

    fn least(&self) -> f64 {
        self.nanoseconds.first().copied().unwrap_or_default()
    }
}

/// The middle one of numbers in ascending order.
pub fn median(numbers: &[f64]) -> f64 {
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// Prints the rows; ratios are to the first.
pub fn print(rows: &[Row]) {
    let floor = rows.first().map_or(0.0, Row::median);
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    println!("{:width$}  {:>6}  {:>6}  {:>6}   frame", "ns a packet", "median", "min", "ratio");
    for row in rows {
        let (median, least) = (row.median(), row.least());
        println!("{:width$}  {median:6.1}  {least:6.1}  {:6.1}   {}", row.name, median / floor, row.note);
    }
}

/// Writes the rows to a file, one JSON object a line.
pub fn write(rows: &[Row], path: &Path) -> Result<()> {
    let floor = rows.first().map_or(0.0, Row::median);
    let rounded = |number: f64| (number * 100.0).round() / 100.0;
    let mut text = String::new();
    for row in rows {
        let line = json!({
            "case": row.name,
            "ns_median": rounded(row.median()),
            "ns_min": rounded(row.least()),
            "ratio_to_pass": rounded(row.median() / floor),
        });
        text.push_str(&line.to_string());
        text.push('\n');
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
