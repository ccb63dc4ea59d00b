//! What a race came to, for people: one HTML file that needs nothing else, pictures, and a table for a README.
//!
//! The pictures are SVG with both a light and a dark set of colours, chosen by whoever shows them.

use std::fmt::Write;

use crate::compare::{Metric, Results, Row, Who, Workload, figure, significant};

const WIDTH: f64 = 760.0;
/// Where the bars begin: the workloads' names stand before.
const LEFT: f64 = 170.0;
/// Where they end at most: the values stand behind.
const RIGHT: f64 = 690.0;
const BAR: f64 = 9.0;
const GAP: f64 = 12.0;
const TOP: f64 = 64.0;

/// The colours, light and dark; both in a page and in a picture on its own.
const COLOURS: &str = "\
.chart{font:12px system-ui,sans-serif}
.chart .ground{fill:#fff}.chart text{fill:#1f2328}.chart .faint{fill:#59636e}.chart .grid{stroke:#d1d9e0}
.shoal{fill:#0969da}.rival{fill:#bc4c00}.floor{fill:#afb8c1}.turn{fill:#1f2328}
@media (prefers-color-scheme:dark){
.chart .ground{fill:#0d1117}.chart text{fill:#f0f6fc}.chart .faint{fill:#9198a1}.chart .grid{stroke:#3d444d}
.shoal{fill:#4493f8}.rival{fill:#db6d28}.floor{fill:#656c76}.turn{fill:#f0f6fc}}
";

/// How a page looks.
const PAGE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;background:#fff;color:#1f2328}
h1{font-size:1.6rem}h2{margin-top:2.5rem}svg{max-width:100%;height:auto;margin:.5rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #d1d9e0;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead tr:first-child th{text-align:center}
pre{padding:.8rem;background:#f6f8fa;overflow-x:auto;font-size:13px}.faint{color:#59636e}.behind{color:#cf222e}
@media (prefers-color-scheme:dark){body{background:#0d1117;color:#f0f6fc}th,td{border-color:#3d444d}
pre{background:#151b23}.faint{color:#9198a1}.behind{color:#f85149}}
";

/// A bar and the turns that it is the median of.
struct Bar {
    class: &'static str,
    median: f64,
    turns: Vec<f64>,
}

/// The whole report as one HTML page.
pub fn html(results: &Results) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    out.push_str("<meta name=\"color-scheme\" content=\"light dark\">");
    let rival = results.names.get(&Who::Rival).map_or("nobody", String::as_str);
    let _ =
        write!(out, "<title>Shoal and {0}</title><style>{PAGE}{COLOURS}</style></head><body>", escape(rival));
    let _ = write!(out, "<h1>Shoal and {}</h1>", escape(rival));
    out.push_str(
        "<p>The servers serve one directory of one file system in turns, to the same client: one connection, the next \
         request when the answer has come. Each figure is the median of the turns; processor time is the server's own, \
         of all its processes. <i>floor</i> is a program that does the socket, file and MAC calls of each operation and \
         nothing else.</p><table><tbody>",
    );
    for (what, is) in &results.circumstances {
        let _ = write!(
            out,
            "<tr><td>{}</td><td style=\"text-align:left\">{}</td></tr>",
            escape(what),
            escape(is)
        );
    }
    out.push_str("</tbody></table>");
    for file_system in results.file_systems() {
        let _ = write!(out, "<h2>{}</h2>", escape(file_system));
        html_table(&mut out, results, file_system);
        for picture in [rates(results, file_system), costs(results, file_system)] {
            out.push_str(&picture);
        }
    }
    out.push_str("<h2>Ratios</h2><pre>");
    for line in results.lines() {
        let _ = writeln!(out, "{}", escape(&line));
    }
    out.push_str("</pre></body></html>\n");
    out
}

/// The pictures as files of their own: name and content.
pub fn pictures(results: &Results) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for file_system in results.file_systems() {
        for (name, picture) in [("rate", rates(results, file_system)), ("cpu", costs(results, file_system))] {
            let style = format!("><style>{COLOURS}</style>");
            // The first closing bracket is the one of the opening tag.
            files.push((format!("race-{file_system}-{name}.svg"), picture.replacen('>', &style, 1)));
        }
    }
    files
}

/// The tables in Markdown, with the machine and the command below.
pub fn markdown(results: &Results) -> String {
    let mut out = String::new();
    let name = |who| results.names.get(&who).map_or("", String::as_str);
    let rival = name(Who::Rival);
    for file_system in results.file_systems() {
        let _ = writeln!(
            out,
            "| {file_system} | Shoal /s | {rival} /s | ratio | p99 µs | {rival} | CPU µs | {rival} | ratio | floor | ratio |"
        );
        out.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
        for row in results.on(file_system).filter(|row| has_rate(row)) {
            let _ = write!(out, "| {}", row.workload.name());
            for text in cells(row) {
                let _ = write!(out, " | {text}");
            }
            out.push_str(" |\n");
        }
        out.push('\n');
    }
    out.push_str(&format!("| | Shoal | {rival} | ratio |\n|---|--:|--:|--:|\n"));
    for row in &results.rows {
        for (what, metric) in others(row) {
            let (Some(ours), Some(theirs)) = (row.median(Who::Shoal, metric), row.median(Who::Rival, metric))
            else {
                continue;
            };
            let ratio = row.ratio(Who::Rival, metric).map(significant).unwrap_or_default();
            let _ = writeln!(
                out,
                "| {what}, {} | {} | {} | {ratio} |",
                row.file_system,
                metric.with_unit(ours),
                metric.with_unit(theirs)
            );
        }
    }
    out.push('\n');
    let circumstances: Vec<String> =
        results.circumstances.iter().map(|(what, is)| format!("{what}: {is}")).collect();
    let _ = writeln!(out, "{}", circumstances.join("; "));
    out
}

/// Whether a row belongs into the table of rates.
fn has_rate(row: &Row) -> bool {
    !row.workload.is_memory() && row.workload != Workload::EchoBehindList
}

/// The figures of a row that are not in the table of rates, with their descriptions.
fn others(row: &Row) -> Vec<(&'static str, Metric)> {
    match row.workload {
        Workload::List => {
            vec![("first page of 100,000 names", Metric::FirstPage), ("all 100,000 names", Metric::Whole)]
        }
        Workload::EchoBehindList => vec![("p99 of ECHO behind that listing", Metric::P99)],
        Workload::MemoryIdle => vec![("memory, idle", Metric::Memory)],
        Workload::MemoryPerConnection => vec![("memory for each idle connection", Metric::Memory)],
        _ => Vec::new(),
    }
}

/// Rates and their ratio, p99 of both, processor time of both and their ratio, and that of the floor.
fn cells(row: &Row) -> [String; 10] {
    let median = |who, metric| row.median(who, metric).map_or_else(|| "-".to_owned(), figure);
    let ratio = |who, metric| row.ratio(who, metric).map_or_else(|| "-".to_owned(), significant);
    [
        median(Who::Shoal, Metric::Rate),
        median(Who::Rival, Metric::Rate),
        ratio(Who::Rival, Metric::Rate),
        median(Who::Shoal, Metric::P99),
        median(Who::Rival, Metric::P99),
        median(Who::Shoal, Metric::Cpu),
        median(Who::Rival, Metric::Cpu),
        ratio(Who::Rival, Metric::Cpu),
        median(Who::Floor, Metric::Cpu),
        ratio(Who::Floor, Metric::Cpu),
    ]
}

fn html_table(out: &mut String, results: &Results, file_system: &str) {
    let rival = escape(results.names.get(&Who::Rival).map_or("-", String::as_str));
    let _ = write!(
        out,
        "<table><thead><tr><th></th><th colspan=3>operations a second</th><th colspan=2>p99, µs</th>\
         <th colspan=5>server CPU for one, µs</th></tr><tr><th></th><th>shoal</th><th>{rival}</th><th>ratio</th>\
         <th>shoal</th><th>{rival}</th><th>shoal</th><th>{rival}</th><th>ratio</th><th>floor</th><th>ratio</th></tr>\
         </thead><tbody>"
    );
    for row in results.on(file_system).filter(|row| has_rate(row)) {
        let _ = write!(out, "<tr><td>{}</td>", row.workload.name());
        let slower = row.ratio(Who::Rival, Metric::Rate).is_some_and(|ratio| ratio < 1.0);
        let dearer = row.ratio(Who::Rival, Metric::Cpu).is_some_and(|ratio| ratio > 1.0);
        for (number, text) in cells(row).iter().enumerate() {
            let behind = (number == 2 && slower) || (number == 7 && dearer);
            let _ = write!(out, "<td{}>{text}</td>", if behind { " class=behind" } else { "" });
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    let rows: Vec<(&Row, &str, Metric)> = results
        .on(file_system)
        .flat_map(|row| others(row).into_iter().map(move |(what, metric)| (row, what, metric)))
        .collect();
    if rows.is_empty() {
        return;
    }
    out.push_str("<table><thead><tr><th></th>");
    for name in results.names.values() {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out.push_str("<th>ratio</th></tr></thead><tbody>");
    for (row, what, metric) in rows {
        let _ = write!(out, "<tr><td>{what}</td>");
        for who in results.names.keys() {
            let text =
                row.median(*who, metric).map_or_else(|| "-".to_owned(), |value| metric.with_unit(value));
            let _ = write!(out, "<td>{text}</td>");
        }
        let ratio = row.ratio(Who::Rival, metric);
        let behind = if ratio.is_some_and(|ratio| ratio > 1.0) { " class=behind" } else { "" };
        let _ = write!(out, "<td{behind}>{}</td></tr>", ratio.map_or_else(|| "-".to_owned(), significant));
    }
    out.push_str("</tbody></table>");
}

fn rates(results: &Results, file_system: &str) -> String {
    chart(results, file_system, "Operations a second", "one connection; more is better", Metric::Rate)
}

fn costs(results: &Results, file_system: &str) -> String {
    let what = "the server's processor time for one, in µs; less is better";
    chart(results, file_system, "What an operation costs", what, Metric::Cpu)
}

/// Bars on a logarithmic axis: a group for each workload, a bar for each server, a dot for each turn.
fn chart(results: &Results, file_system: &str, title: &str, what: &str, metric: Metric) -> String {
    let groups: Vec<(&str, Vec<Bar>)> = results
        .on(file_system)
        .filter(|row| has_rate(row))
        .map(|row| (row.workload.name(), bars(row, metric)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let values = || groups.iter().flat_map(|(_, bars)| bars).flat_map(|bar| bar.turns.iter().copied());
    let least = values().fold(f64::INFINITY, f64::min);
    let most = values().fold(0.0, f64::max);
    if !(least > 0.0 && most.is_finite()) {
        return String::new();
    }
    let (low, high) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
    let at = |value: f64| LEFT + (value.log10() - low) / (high - low) * (RIGHT - LEFT);
    let height: f64 = TOP + groups.iter().map(|(_, bars)| bars.len() as f64 * BAR + GAP).sum::<f64>() + 22.0;
    let mut out = format!(
        "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"{title}, {file_system}\">\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\
         <text x=\"8\" y=\"20\" font-weight=\"600\" font-size=\"14\">{title}, {}</text>\
         <text class=\"faint\" x=\"8\" y=\"37\">{what}</text>",
        escape(file_system)
    );
    let mut x = LEFT;
    for (who, name) in &results.names {
        let _ = write!(
            out,
            "<rect class=\"{}\" x=\"{x:.0}\" y=\"45\" width=\"10\" height=\"10\"/><text x=\"{:.0}\" y=\"54\">{}</text>",
            class(*who),
            x + 14.0,
            escape(name)
        );
        x += 40.0 + 7.0 * name.chars().count() as f64;
    }
    for decade in low as i32..=high as i32 {
        let x = at(10f64.powi(decade));
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"faint\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            height - 20.0,
            height - 6.0,
            power_of_ten(decade)
        );
    }
    let mut y = TOP + GAP / 2.0;
    for (name, bars) in &groups {
        let middle = y + bars.len() as f64 * BAR / 2.0 + 4.0;
        let _ =
            write!(out, "<text text-anchor=\"end\" x=\"{:.0}\" y=\"{middle:.1}\">{name}</text>", LEFT - 8.0);
        for bar in bars {
            let end = at(bar.median);
            let _ = write!(
                out,
                "<rect class=\"{}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                bar.class,
                y + 0.5,
                (end - LEFT).max(0.5),
                BAR - 1.0
            );
            for turn in &bar.turns {
                let _ = write!(
                    out,
                    "<circle class=\"turn\" opacity=\".55\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"1.4\"/>",
                    at(*turn),
                    y + BAR / 2.0
                );
            }
            let last = bar.turns.iter().copied().fold(bar.median, f64::max);
            let _ = write!(
                out,
                "<text font-size=\"9\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                at(last) + 5.0,
                y + BAR - 1.5,
                figure(bar.median)
            );
            y += BAR;
        }
        y += GAP;
    }
    out.push_str("</svg>");
    out
}

fn bars(row: &Row, metric: Metric) -> Vec<Bar> {
    let bar = |who: &Who| {
        let median = row.median(*who, metric).filter(|median| *median > 0.0)?;
        let turns = row.turns.get(who)?.iter().filter_map(|sample| sample.get(&metric).copied());
        Some(Bar { class: class(*who), median, turns: turns.filter(|value| *value > 0.0).collect() })
    };
    row.turns.keys().filter_map(bar).collect()
}

const fn class(who: Who) -> &'static str {
    match who {
        Who::Shoal => "shoal",
        Who::Rival => "rival",
        Who::Floor => "floor",
    }
}

fn power_of_ten(decade: i32) -> String {
    match decade {
        0..=5 => format!("{}", 10u32.pow(decade as u32)),
        6.. => format!("1e{decade}"),
        _ => format!("{}", 10f64.powi(decade)),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Sample;
    use std::collections::BTreeMap;

    fn results() -> Results {
        let sample = |rate: f64, cpu: f64| {
            Sample::from([(Metric::Rate, rate), (Metric::P99, 90.0), (Metric::Cpu, cpu)])
        };
        let names = [(Who::Shoal, "shoal"), (Who::Rival, "a<b"), (Who::Floor, "floor")];
        let memory = |kib| vec![Sample::from([(Metric::Memory, kib)])];
        Results {
            names: names.map(|(who, name)| (who, name.to_owned())).into(),
            rows: vec![
                Row {
                    file_system: "tmpfs".to_owned(),
                    workload: Workload::CreateClose,
                    turns: BTreeMap::from([
                        (Who::Shoal, vec![sample(5000.0, 40.0), sample(6000.0, 50.0), sample(7000.0, 45.0)]),
                        (Who::Rival, vec![sample(8000.0, 900.0)]),
                        (Who::Floor, vec![sample(9000.0, 30.0)]),
                    ]),
                },
                Row {
                    file_system: "tmpfs".to_owned(),
                    workload: Workload::MemoryIdle,
                    turns: BTreeMap::from([(Who::Shoal, memory(5000.0)), (Who::Rival, memory(10_000.0))]),
                },
            ],
            circumstances: vec![("processor".to_owned(), "A & B".to_owned())],
        }
    }

    #[test]
    fn a_page_needs_nothing_else_and_is_well_formed() {
        let page = html(&results());
        for resource in ["src=", "href=", "@import", "url(", "<script"] {
            assert!(!page.contains(resource), "{resource}");
        }
        assert!(page.contains("a&lt;b") && page.contains("A &amp; B") && !page.contains("a<b"));
        // 6000 against 8000 is behind, 45 against 900 is not.
        assert_eq!(page.matches("class=behind").count(), 1);
        assert!(page.contains("<td class=behind>0.75</td>"), "{page}");
        assert_eq!(page.matches("<svg").count(), 2);
        for tag in ["svg", "table", "tr", "td", "th", "pre", "text"] {
            let count = |text: String| page.matches(&text).count();
            let opened = count(format!("<{tag}>")) + count(format!("<{tag} "));
            assert_eq!(count(format!("</{tag}>")), opened, "{tag}");
        }
    }

    #[test]
    fn a_picture_has_its_colours_and_a_dot_for_each_turn() {
        let pictures = pictures(&results());
        let names: Vec<&str> = pictures.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["race-tmpfs-rate.svg", "race-tmpfs-cpu.svg"]);
        for (_, picture) in &pictures {
            assert!(picture.starts_with("<svg ") && picture.contains("prefers-color-scheme"));
            assert_eq!(picture.matches("<circle").count(), 5);
        }
    }

    #[test]
    fn the_markdown_has_all_figures() {
        let text = markdown(&results());
        let line = "| create+close | 6000 | 8000 | 0.75 | 90.0 | 90.0 | 45.0 | 900 | 0.050 | 30.0 | 1.50 |";
        assert!(text.lines().any(|found| found == line), "{text}");
        assert!(text.contains("| memory, idle, tmpfs | 5000 KiB | 10000 KiB | 0.50 |"), "{text}");
    }
}
