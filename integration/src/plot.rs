//! Pictures for the README and the reports, as SVG: lines over an axis, and bars in groups.
//!
//! They have no background, and colours that can be read on a light page and on a dark one.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width and height of a picture.
const SIZE: (u32, u32) = (820, 440);
/// Room for the legend above the plot.
const LEGEND: i32 = 26;
/// Text and axes.
const INK: RGBColor = RGBColor(0x7A, 0x83, 0x8D);
/// The lines and bars, in order.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x3B, 0x82, 0xF6),
    RGBColor(0xF0, 0x7C, 0x1E),
    RGBColor(0x2D, 0xA4, 0x4E),
    RGBColor(0xA3, 0x71, 0xF7),
    RGBColor(0xE5, 0x53, 0x4B),
    RGBColor(0x1B, 0xA8, 0xA0),
];

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// Equal steps are equal factors: for values above zero.
    pub logarithmic: bool,
}

impl Axis {
    /// An axis whose equal steps are equal differences.
    pub fn linear(label: &str) -> Axis {
        Axis { label: label.to_owned(), logarithmic: false }
    }

    /// An axis whose equal steps are equal factors.
    pub fn logarithmic(label: &str) -> Axis {
        Axis { label: label.to_owned(), logarithmic: true }
    }

    /// Where on the axis a value stands.
    fn place(&self, value: f64) -> f64 {
        if self.logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }

    /// From where to where the axis goes, so that all these values are on it, and in how many steps it is marked.
    fn range(&self, values: impl Iterator<Item = f64>) -> (f64, f64, usize) {
        let values = values.filter(|value| value.is_finite() && (!self.logarithmic || *value > 0.0));
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        if least > most {
            return (0.0, 1.0, 2);
        }
        if self.logarithmic {
            let from = least.log10().floor();
            let to = (most.log10().ceil()).max(from + 1.0);
            return (from, to, (to - from) as usize + 1);
        }
        let to = if most > 0.0 { most * 1.06 } else { 1.0 };
        (least.min(0.0), to, 8)
    }

    /// A mark's text.
    fn mark(&self, place: f64) -> String {
        let value = if self.logarithmic { 10f64.powf(place) } else { place };
        match value.abs() {
            large if large >= 1e6 => format!("{}M", short(value / 1e6)),
            large if large >= 1e4 => format!("{}k", short(value / 1e3)),
            _ => short(value),
        }
    }
}

/// A number with no more decimals than it needs.
fn short(value: f64) -> String {
    let text = match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, in order.
    pub points: Vec<(f64, f64)>,
}

/// Lines with a mark at each point.
pub fn lines(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> Result<String, String> {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let (x_from, x_to, x_marks) = x.range(points().map(|point| point.0));
    let (y_from, y_to, y_marks) = y.range(points().map(|point| point.1));
    picture(title, &names(lines.iter().map(|line| &line.name)), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_top(6)
            .x_label_area_size(48)
            .y_label_area_size(70)
            .build_cartesian_2d(x_from..x_to, y_from..y_to)?;
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(INK.mix(0.3))
            .light_line_style(TRANSPARENT)
            .label_style(text(13))
            .x_desc(&x.label)
            .y_desc(&y.label)
            .x_labels(x_marks)
            .y_labels(y_marks)
            .x_label_formatter(&|place| x.mark(*place))
            .y_label_formatter(&|place| y.mark(*place))
            .draw()?;
        for (number, line) in lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let places: Vec<(f64, f64)> =
                line.points.iter().map(|&(a, b)| (x.place(a), y.place(b))).collect();
            chart.draw_series(LineSeries::new(places.iter().copied(), colour.stroke_width(2)))?;
            chart.draw_series(places.iter().map(|&place| Circle::new(place, 3, colour.filled())))?;
        }
        Ok(())
    })
}

/// The bars of one contender, one for each group.
#[derive(Clone, Debug)]
pub struct Bars {
    /// Its name in the legend.
    pub name: String,
    /// A value for each group; `None` leaves its place empty.
    pub values: Vec<Option<f64>>,
}

/// Bars in groups, each with its value above it.
pub fn grouped_bars(title: &str, y: &Axis, groups: &[String], bars: &[Bars]) -> Result<String, String> {
    let values = bars.iter().flat_map(|bars| bars.values.iter().copied().flatten());
    let (y_from, y_to, y_marks) = y.range(values);
    let count = groups.len().max(1) as f64;
    picture(title, &names(bars.iter().map(|bars| &bars.name)), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_top(14)
            .x_label_area_size(34)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..count, y_from..y_to)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(INK)
            .bold_line_style(INK.mix(0.3))
            .light_line_style(TRANSPARENT)
            .label_style(text(13))
            .y_desc(&y.label)
            .x_labels(0)
            .y_labels(y_marks)
            .y_label_formatter(&|place| y.mark(*place))
            .draw()?;
        let width = 0.8 / bars.len().max(1) as f64;
        for (number, bars) in bars.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            for (group, value) in bars.values.iter().enumerate().take(groups.len()) {
                let Some(value) = value.filter(|value| value.is_finite()) else { continue };
                let left = group as f64 + 0.1 + number as f64 * width;
                let (top, right) = (y.place(value).max(y_from), left + width * 0.92);
                chart.draw_series([Rectangle::new([(left, y_from), (right, top)], colour.filled())])?;
                let at = chart.backend_coord(&((left + right) / 2.0, top));
                let style = text(11).pos(Pos::new(HPos::Center, VPos::Bottom));
                area.draw_text(&short(value), &style, relative(area, (at.0, at.1 - 2)))?;
            }
        }
        for (group, name) in groups.iter().enumerate() {
            let at = chart.backend_coord(&(group as f64 + 0.5, y_from));
            let style = text(13).pos(Pos::new(HPos::Center, VPos::Top));
            area.draw_text(name, &style, relative(area, (at.0, at.1 + 8)))?;
        }
        Ok(())
    })
}

fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    all.map(String::as_str).collect()
}

fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// Where in the area a point of the picture is.
fn relative(area: &Area<'_>, (x, y): (i32, i32)) -> (i32, i32) {
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}

/// Title and legend, and below them what `draw` makes.
fn picture(
    title: &str,
    legend: &[&str],
    draw: impl for<'a> FnOnce(&Area<'a>) -> Drawn<'a>,
) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let told = |e: DrawingAreaErrorKind<_>| format!("cannot draw \"{title}\": {e}");
        let style = text(17).pos(Pos::new(HPos::Center, VPos::Top));
        root.draw_text(title, &style, (SIZE.0 as i32 / 2, 8)).map_err(told)?;
        let (head, body) = root.split_vertically(32 + LEGEND);
        let mut left = 70;
        for (number, name) in legend.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            head.draw(&Rectangle::new([(left, 38), (left + 14, 50)], colour.filled())).map_err(told)?;
            head.draw_text(name, &text(13), (left + 20, 37)).map_err(told)?;
            // No font is at hand to measure with: letters of this size are some 7 wide.
            left += 44 + 7 * name.chars().count() as i32;
        }
        draw(&body).map_err(told)?;
        root.present().map_err(told)?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_its_values() {
        let linear = Axis::linear("x");
        let (from, to, _) = linear.range([3.0, 512.0].into_iter());
        assert!(from == 0.0 && to > 512.0);
        let logarithmic = Axis::logarithmic("x");
        assert_eq!(logarithmic.range([3.0, 512.0, 0.0].into_iter()), (0.0, 3.0, 4));
        assert_eq!(logarithmic.place(100.0), 2.0);
        assert_eq!([0.0, 1.0, 4.0, 6.0].map(|place| logarithmic.mark(place)), ["1", "10", "10k", "1M"]);
        assert_eq!(linear.range(std::iter::empty()), (0.0, 1.0, 2));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [512.0, 3.1, 3.0, 0.25, 100.4, 200.0].map(short),
            ["512", "3.1", "3", "0.25", "100", "200"]
        );
    }

    #[test]
    fn pictures_have_all_that_was_given() {
        let line =
            |name: &str, points: &[(f64, f64)]| Line { name: name.to_owned(), points: points.to_vec() };
        let svg = lines(
            "Many at once",
            &Axis::logarithmic("requests"),
            &Axis::logarithmic("delays"),
            &[
                line("claims", &[(1.0, 2.0), (256.0, 3.0)]),
                line("directory lock", &[(1.0, 2.0), (256.0, 512.0)]),
            ],
        )
        .expect("draws");
        for word in ["Many at once", "requests", "delays", "claims", "directory lock", "<circle"] {
            assert!(svg.contains(word), "{word}");
        }
        let groups = ["create".to_owned(), "rename".to_owned()];
        let bars = [Bars { name: "Shoal".to_owned(), values: vec![Some(37.5), None] }];
        let svg = grouped_bars("CPU", &Axis::linear("us"), &groups, &bars).expect("draws");
        for word in ["CPU", "Shoal", "create", "rename", "37.5"] {
            assert!(svg.contains(word), "{word}");
        }
    }
}
