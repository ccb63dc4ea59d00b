//! What a race came to: medians, the table, and the lines with the ratios.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::contender::Who;
use super::workload::Workload;

/// One of the figures of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Operations a second (of a listing, names).
    Rate,
    /// The median of the latencies, in microseconds.
    P50,
    /// The 99th percentile of the latencies, in microseconds.
    P99,
    /// The server's processor time for an operation (of a listing, for a name), in microseconds.
    Cpu,
    /// Milliseconds until a listing's first page.
    FirstPage,
    /// Milliseconds for a whole listing.
    Whole,
    /// KiB of memory.
    Memory,
}

impl Metric {
    /// Its word in the lines of ratios, where it has one there.
    pub const fn word(self) -> &'static str {
        match self {
            Metric::Rate => "rate",
            Metric::P50 => "p50",
            Metric::P99 => "p99",
            Metric::Cpu => "cpu",
            Metric::FirstPage => "first-page",
            Metric::Whole => "whole",
            Metric::Memory => "memory",
        }
    }

    /// Whether it is a latency of single operations.
    const fn is_latency(self) -> bool {
        matches!(self, Metric::P50 | Metric::P99)
    }

    /// A figure with its unit.
    pub fn with_unit(self, value: f64) -> String {
        let unit = match self {
            Metric::Rate => "/s",
            Metric::P50 | Metric::P99 | Metric::Cpu => "µs",
            Metric::FirstPage | Metric::Whole => "ms",
            Metric::Memory => "KiB",
        };
        format!("{} {unit}", figure(value))
    }

    /// Which figures a workload's line of ratios has, and its row of the table.
    pub const fn of(workload: Workload) -> &'static [Metric] {
        match workload {
            Workload::List => &[Metric::Rate, Metric::Cpu, Metric::FirstPage, Metric::Whole],
            Workload::EchoBehindList => &[Metric::P99],
            Workload::MemoryIdle | Workload::MemoryPerConnection => &[Metric::Memory],
            _ => &[Metric::Rate, Metric::P50, Metric::P99, Metric::Cpu],
        }
    }
}

/// The figures of one turn.
pub type Sample = BTreeMap<Metric, f64>;

/// A workload on a file system.
#[derive(Clone, Debug)]
pub struct Row {
    /// Where the files lay.
    pub file_system: String,
    /// What was done.
    pub workload: Workload,
    /// Each turn's figures.
    pub turns: BTreeMap<Who, Vec<Sample>>,
}

impl Row {
    /// The median of a figure over the turns.
    pub fn median(&self, who: Who, metric: Metric) -> Option<f64> {
        let mut values: Vec<f64> =
            self.turns.get(&who)?.iter().filter_map(|sample| sample.get(&metric).copied()).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            length if length % 2 == 1 => Some(values[middle]),
            _ => Some((values[middle - 1] + values[middle]) / 2.0),
        }
    }

    /// Shoal's figure divided by the other's.
    pub fn ratio(&self, other: Who, metric: Metric) -> Option<f64> {
        let (ours, theirs) = (self.median(Who::Shoal, metric)?, self.median(other, metric)?);
        (theirs > 0.0).then_some(ours / theirs)
    }
}

/// A whole race.
pub struct Results {
    /// The names of those who raced.
    pub names: BTreeMap<Who, String>,
    /// What they did.
    pub rows: Vec<Row>,
    /// The machine, the versions and the command, a line each.
    pub circumstances: Vec<(String, String)>,
}

impl Results {
    /// The file systems, in the order in which they were raced on.
    pub fn file_systems(&self) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !found.contains(&row.file_system.as_str()) {
                found.push(&row.file_system);
            }
        }
        found
    }

    /// What was done on one of them.
    pub fn on(&self, file_system: &str) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.file_system == file_system)
    }

    /// The table, for a terminal.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut file_system = "";
        for row in &self.rows {
            if row.file_system != file_system {
                file_system = &row.file_system;
                let _ = writeln!(out, "\n{file_system}");
                let _ = write!(out, "  {:22}", "");
                for name in self.names.values() {
                    let _ = write!(out, " | {name:^39}");
                }
                let _ = write!(out, "\n  {:22}", "workload");
                for _ in &self.names {
                    let _ =
                        write!(out, " | {:>11} {:>8} {:>9} {:>8}", "rate /s", "p50 us", "p99 us", "cpu us");
                }
                out.push('\n');
            }
            let _ = write!(out, "  {:22}", row.workload.name());
            for who in self.names.keys() {
                let figures: Vec<String> = match row.workload {
                    Workload::MemoryIdle | Workload::MemoryPerConnection => {
                        vec![cell(row.median(*who, Metric::Memory), " KiB")]
                    }
                    _ => [Metric::Rate, Metric::P50, Metric::P99, Metric::Cpu]
                        .map(|metric| cell(row.median(*who, metric), ""))
                        .to_vec(),
                };
                match &figures[..] {
                    [memory] => {
                        let _ = write!(out, " | {memory:>39}");
                    }
                    figures => {
                        let widths = [11, 8, 9, 8];
                        let cells = figures.iter().zip(widths).map(|(text, width)| format!("{text:>width$}"));
                        let _ = write!(out, " | {}", cells.collect::<Vec<_>>().join(" "));
                    }
                }
            }
            out.push('\n');
            if row.workload == Workload::List {
                for metric in [Metric::FirstPage, Metric::Whole] {
                    let _ = write!(out, "    {:20}", metric.word());
                    for who in self.names.keys() {
                        let _ = write!(out, " | {:>39}", cell(row.median(*who, metric), " ms"));
                    }
                    out.push('\n');
                }
            }
        }
        out
    }

    /// One line for each workload, file system and opponent.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for row in &self.rows {
            for (who, name) in &self.names {
                let metrics: &[Metric] = match who {
                    Who::Shoal => continue,
                    // The floor is no server to be quicker than, nor one to need less memory than.
                    Who::Floor if Metric::of(row.workload).contains(&Metric::Cpu) => &[Metric::Cpu],
                    Who::Floor => continue,
                    Who::Rival => Metric::of(row.workload),
                };
                let figures: Vec<String> = metrics
                    .iter()
                    .filter(|metric| row.workload == Workload::EchoBehindList || !metric.is_latency())
                    .filter_map(|metric| Some((metric, row.ratio(*who, *metric)?)))
                    .map(|(metric, ratio)| format!("{} {}", metric.word(), significant(ratio)))
                    .collect();
                if !figures.is_empty() {
                    let workload = row.workload.name();
                    lines.push(format!(
                        "ratio {} {workload} {} of {name}",
                        row.file_system,
                        figures.join(" ")
                    ));
                }
            }
        }
        lines
    }
}

fn cell(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{}{unit}", figure(value)))
}

/// A figure as the table has it: whole numbers from 100 on, one decimal below, two below 10.
pub fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A ratio with two significant digits, and no rounding to a whole number of them from 10 on.
pub fn significant(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 10.0 => format!("{ratio:.0}"),
        ratio if ratio >= 1.0 => format!("{ratio:.2}"),
        ratio if ratio >= 0.1 => format!("{ratio:.2}"),
        ratio if ratio >= 0.01 => format!("{ratio:.3}"),
        ratio => format!("{ratio:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let sample = |rate: f64, cpu: f64| Sample::from([(Metric::Rate, rate), (Metric::Cpu, cpu)]);
        Row {
            file_system: "tmpfs".to_owned(),
            workload: Workload::CreateClose,
            turns: BTreeMap::from([
                (Who::Shoal, vec![sample(3100.0, 90.0), sample(9.0, 120.0), sample(9000.0, 150.0)]),
                (Who::Rival, vec![sample(1000.0, 1000.0); 3]),
                (Who::Floor, vec![sample(1.0, 80.0), sample(1.0, 100.0)]),
            ]),
        }
    }

    #[test]
    fn lines_have_the_medians_ratios() {
        let names = BTreeMap::from([
            (Who::Shoal, "shoal".to_owned()),
            (Who::Rival, "samba".to_owned()),
            (Who::Floor, "floor".to_owned()),
        ]);
        let results = Results { names, rows: vec![row()], circumstances: Vec::new() };
        assert_eq!(
            results.lines(),
            [
                "ratio tmpfs create+close rate 3.10 cpu 0.12 of samba",
                "ratio tmpfs create+close cpu 1.33 of floor",
            ]
        );
        let table = results.table();
        assert!(table.lines().any(|line| line.contains("create+close") && line.contains("3100")), "{table}");
    }

    #[test]
    fn a_figure_that_nobody_has_is_left_out() {
        let mut row = row();
        row.turns.remove(&Who::Floor);
        assert_eq!(row.ratio(Who::Floor, Metric::Cpu), None);
        assert_eq!(row.ratio(Who::Rival, Metric::P99), None);
        assert_eq!(row.median(Who::Shoal, Metric::Rate), Some(3100.0));
    }
}
