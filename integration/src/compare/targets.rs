//! The figures that Shoal holds itself to, and whether a race kept them.

use super::contender::Who;
use super::results::{Metric, Results, Row, figure, significant};
use super::workload::Workload;

/// The file system that the parts of processor time are promised on: a disk's own time would hide the server's.
const IN_MEMORY: &str = "tmpfs";

/// What a figure of Shoal's may be at most.
enum Bound {
    /// So many times the other's; of processor time on tmpfs.
    Times(Who, Metric, f64),
    /// So much, whatever the others have.
    Most(Metric, f64),
    /// At least the rival's rate.
    AsFast,
}

fn bounds(workload: Workload) -> Vec<Bound> {
    let (floor, rival) = (
        |times| Bound::Times(Who::Floor, Metric::Cpu, times),
        |times| Bound::Times(Who::Rival, Metric::Cpu, times),
    );
    match workload {
        Workload::CreateClose => vec![floor(1.5), rival(0.2)],
        Workload::OpenClose => vec![floor(1.5), rival(0.4)],
        Workload::OpenAbsent => vec![floor(1.5), rival(0.1)],
        // Whatever the directory's size.
        Workload::OpenAbsentLarge => vec![floor(1.5), rival(0.1), Bound::Most(Metric::Cpu, 20.0)],
        Workload::Rename => vec![floor(1.5), rival(0.03)],
        Workload::Unlink => vec![floor(1.5), rival(0.25)],
        Workload::Echo => vec![floor(1.5), rival(1.1)],
        Workload::Read4k => vec![floor(1.5), rival(0.7)],
        Workload::Write4k => vec![floor(1.5)],
        Workload::Read1mSigned | Workload::Write1mSigned => vec![floor(1.25), rival(0.9), Bound::AsFast],
        Workload::Read1mPlain
        | Workload::Read1mEncrypted
        | Workload::Write1mPlain
        | Workload::Write1mEncrypted => vec![floor(1.25), rival(1.0), Bound::AsFast],
        Workload::List => vec![
            rival(0.33),
            Bound::Most(Metric::Cpu, 4.0),
            Bound::Most(Metric::FirstPage, 5.0),
            Bound::Times(Who::Rival, Metric::Whole, 1.0 / 3.0),
        ],
        Workload::EchoBehindList => vec![Bound::Most(Metric::P99, 5_000.0)],
        Workload::MemoryIdle => vec![Bound::Most(Metric::Memory, 8.0 * 1024.0)],
        Workload::MemoryPerConnection => vec![Bound::Most(Metric::Memory, 8.0)],
    }
}

/// One line for each figure that was measured: what it is, what it may be, and whether it is kept.
pub fn lines(results: &Results) -> Vec<String> {
    results
        .rows
        .iter()
        .flat_map(|row| bounds(row.workload).into_iter().filter_map(|bound| line(results, row, &bound)))
        .collect()
}

fn line(results: &Results, row: &Row, bound: &Bound) -> Option<String> {
    let name = |who| results.names.get(&who).map_or("", String::as_str);
    let (kept, what) = match *bound {
        Bound::Times(who, metric, most) => {
            if metric == Metric::Cpu && row.file_system != IN_MEMORY {
                return None;
            }
            // The parts are parts of Samba's. Of another server nobody has promised any.
            if who == Who::Rival && name(who) != "samba" {
                return None;
            }
            let ratio = row.ratio(who, metric)?;
            let what = format!("{} {} of {}", metric.word(), significant(ratio), name(who));
            (ratio <= most, format!("{what}, at most {}", significant(most)))
        }
        Bound::Most(metric, most) => {
            let value = row.median(Who::Shoal, metric)?;
            let what = format!("{} {}", metric.word(), metric.with_unit(value));
            (value <= most, format!("{what}, at most {}", figure(most)))
        }
        Bound::AsFast => {
            let ratio = row.ratio(Who::Rival, Metric::Rate)?;
            let what = format!("rate {} of {}", significant(ratio), name(Who::Rival));
            (ratio >= 1.0, format!("{what}, at least 1"))
        }
    };
    let kept = if kept { "kept  " } else { "MISSED" };
    Some(format!("{kept} {} {} {what}", row.file_system, row.workload.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Sample;
    use std::collections::BTreeMap;

    fn results(rival: &str, shoal: f64) -> Results {
        let sample = |rate: f64, cpu: f64| vec![Sample::from([(Metric::Rate, rate), (Metric::Cpu, cpu)])];
        let names = [(Who::Shoal, "shoal"), (Who::Rival, rival), (Who::Floor, "floor")];
        Results {
            names: names.map(|(who, name)| (who, name.to_owned())).into(),
            rows: vec![Row {
                file_system: "tmpfs".to_owned(),
                workload: Workload::Read1mSigned,
                turns: BTreeMap::from([
                    (Who::Shoal, sample(900.0, shoal)),
                    (Who::Rival, sample(1000.0, 500.0)),
                    (Who::Floor, sample(950.0, 300.0)),
                ]),
            }],
            circumstances: Vec::new(),
        }
    }

    #[test]
    fn what_is_kept_and_what_is_missed_is_told() {
        assert_eq!(
            lines(&results("samba", 376.0)),
            [
                "MISSED tmpfs read-1m-signed cpu 1.25 of floor, at most 1.25",
                "kept   tmpfs read-1m-signed cpu 0.75 of samba, at most 0.90",
                "MISSED tmpfs read-1m-signed rate 0.90 of samba, at least 1",
            ]
        );
        assert!(lines(&results("samba", 375.0))[0].starts_with("kept"));
    }

    #[test]
    fn on_a_disk_only_the_rate_is_held_against_us() {
        let mut results = results("samba", 376.0);
        results.rows[0].file_system = "disk".to_owned();
        assert_eq!(lines(&results), ["MISSED disk read-1m-signed rate 0.90 of samba, at least 1"]);
    }

    #[test]
    fn of_other_servers_only_the_rate_is_held_against_us() {
        let lines = lines(&results("10.0.0.1:445", 376.0));
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| !line.contains("cpu") || line.contains("floor")), "{lines:?}");
    }

    #[test]
    fn every_workload_has_a_bound() {
        assert!(Workload::ALL.iter().all(|workload| !bounds(*workload).is_empty()));
    }
}
