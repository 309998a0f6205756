//! Loss curves as PNG.

use crate::TrainError;
use crate::run::read_metrics;
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;
use std::sync::Once;
use tokengrid_model::{FONT, Picture};

const FAMILY: &str = "sans-serif";

/// One line of a plot.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What it is called in the legend.
    pub name: String,
    /// (step, value), in the order of the steps.
    pub points: Vec<(f64, f64)>,
}

/// The values of `key` in a run's metrics.jsonl, by step.
///
/// # Errors
/// The file cannot be read, or has no such values.
pub fn curve(metrics: &Path, key: &str, name: &str) -> Result<Curve, TrainError> {
    let rows = read_metrics(metrics)?;
    let points: Vec<(f64, f64)> =
        rows.iter().filter_map(|row| Some((row.get("step")?.as_f64()?, row.get(key)?.as_f64()?))).collect();
    if points.is_empty() {
        let what = format!("{} has no values of `{key}`", metrics.display());
        return Err(TrainError::Plot { path: metrics.into(), what });
    }
    Ok(Curve { name: name.into(), points })
}

impl Curve {
    /// The smoothed curve: locally weighted linear regression. At every point, the value of the least-squares line in which a
    /// point `n` places away has the weight `weight^n`; `weight` from 0 (no smoothing) to below 1. Unlike a moving average it
    /// neither lags behind a falling curve nor bends a straight line, at the ends either.
    pub(crate) fn smoothed(&self, weight: f64) -> Curve {
        let values: Vec<f64> = self.points.iter().map(|point| point.1).collect();
        let before = Moments::of(values.iter().copied(), weight);
        let mut after = Moments::of(values.iter().rev().copied(), weight);
        after.reverse();
        let both = before.iter().zip(&after).zip(&values);
        let fitted = both.map(|((before, after), value)| before.joined(after, *value).line_at_0());
        let points = self.points.iter().zip(fitted).map(|(point, value)| (point.0, value)).collect();
        Curve { name: self.name.clone(), points }
    }
}

/// Weighted sums over values `y` at distances `d` from one of them: of 1, d, d^2, y and d y.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    one: f64,
    d: f64,
    dd: f64,
    y: f64,
    dy: f64,
}

impl Moments {
    /// Those over each value and all before it, whose distances are negative.
    fn of(values: impl Iterator<Item = f64>, weight: f64) -> Vec<Moments> {
        let next = |sums: &mut Moments, value: f64| {
            let Moments { one, d, dd, y, dy } = *sums;
            // From one point to the next, every distance falls by one.
            *sums = Moments {
                one: weight * one + 1.0,
                d: weight * (d - one),
                dd: weight * (dd - 2.0 * d + one),
                y: weight * y + value,
                dy: weight * (dy - y),
            };
            Some(*sums)
        };
        values.scan(Moments::default(), next).collect()
    }

    /// With those over the values behind, seen from there; the value itself is in both.
    fn joined(&self, after: &Moments, value: f64) -> Moments {
        Moments {
            one: self.one + after.one - 1.0,
            d: self.d - after.d,
            dd: self.dd + after.dd,
            y: self.y + after.y - value,
            dy: self.dy - after.dy,
        }
    }

    /// The fitted line at distance 0; the mean where there is one value only.
    fn line_at_0(&self) -> f64 {
        let determinant = self.one * self.dd - self.d * self.d;
        if determinant > 0.0 { (self.dd * self.y - self.d * self.dy) / determinant } else { self.y / self.one }
    }
}

/// What a plot looks like.
#[derive(Debug, Clone, Copy)]
pub struct Style<'a> {
    /// Above the plot.
    pub title: &'a str,
    /// The vertical axis, with its unit.
    pub label: &'a str,
    /// Weight of the smoothing, 0 (none) to below 1; above 0 the values themselves are drawn faintly behind the curve.
    pub smooth: f64,
}

/// Draws curves over steps to a PNG of 960 x 540 pixels.
///
/// # Errors
/// No curve, or a file that cannot be written.
pub fn plot(curves: &[Curve], style: &Style, path: &Path) -> Result<(), TrainError> {
    register_font();
    let refuse = |what: String| TrainError::Plot { path: path.into(), what };
    if curves.iter().all(|curve| curve.points.is_empty()) {
        return Err(refuse("there is nothing to draw".into()));
    }
    let smoothed: Vec<Curve> = curves.iter().map(|curve| curve.smoothed(style.smooth)).collect();
    let behind = if style.smooth > 0.0 { curves } else { &[] };
    draw(behind, &smoothed, style, path).map_err(|e| refuse(e.to_string()))
}

/// The range of all values, with a margin.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let margin = ((high - low) * 0.05).max(1e-9);
    low - margin..high + margin
}

/// The values without the highest and lowest hundredth: a single spike must not flatten everything else.
fn without_extremes(curve: &Curve) -> impl Iterator<Item = f64> {
    let mut values: Vec<f64> = curve.points.iter().map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 100;
    values.truncate(values.len() - cut);
    values.into_iter().skip(cut)
}

fn draw(behind: &[Curve], curves: &[Curve], style: &Style, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let x = range(curves.iter().flat_map(|curve| &curve.points).map(|point| point.0));
    let front = curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    let y = range(front.chain(behind.iter().flat_map(without_extremes)));
    let mut rgb = vec![0u8; WIDTH as usize * HEIGHT as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut rgb, (WIDTH, HEIGHT)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(style.title, (FAMILY, 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y.clone())?;
        chart
            .configure_mesh()
            .x_desc("step")
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_desc(style.label)
            .label_style((FAMILY, 15))
            .axis_desc_style((FAMILY, 16))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .draw()?;
        for (i, curve) in behind.iter().enumerate() {
            let faint = COLORS[i % COLORS.len()].mix(0.25);
            // A spike is cut off at the frame.
            let points = curve.points.iter().map(|point| (point.0, point.1.clamp(y.start, y.end)));
            chart.draw_series(LineSeries::new(points, faint))?;
        }
        for (i, curve) in curves.iter().enumerate() {
            let color = COLORS[i % COLORS.len()];
            let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
            chart
                .draw_series(line)?
                .label(curve.name.as_str())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], color.stroke_width(2)));
        }
        if curves.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.85))
                .border_style(RGBColor(225, 225, 225))
                .label_font((FAMILY, 15))
                .draw()?;
        }
        area.present()?;
    }
    save(path, &rgb)
}

const WIDTH: u32 = 960;
const HEIGHT: u32 = 540;

/// Dark enough on white, and apart for the colour-blind.
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 90, 160),
    RGBColor(213, 94, 0),
    RGBColor(0, 130, 90),
    RGBColor(160, 60, 140),
    RGBColor(90, 90, 90),
    RGBColor(140, 110, 0),
    RGBColor(60, 170, 220),
    RGBColor(120, 20, 20),
];

/// Makes the font of this program known to `plotters`, as `sans-serif`.
pub fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = plotters::style::register_font(FAMILY, FontStyle::Normal, FONT);
    });
}

fn save(path: &Path, rgb: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let picture = Picture::new(WIDTH as usize, HEIGHT as usize, rgb.to_vec());
    Ok(tokengrid_cache::write_atomically(path, &picture.to_png())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plot of a falling, noisy loss, and how many of its pixels are the first curve's colour.
    fn ink(smooth: f64) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        let noise = |i: u32| f64::from(i.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
        let points = (0..500).map(|i| (f64::from(i), 10.0 - f64::from(i) * 0.01 + noise(i))).collect();
        let style = Style { title: "training", label: "nats", smooth };
        plot(&[Curve { name: "loss".into(), points }], &style, &path).unwrap();
        let mut reader =
            png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).unwrap())).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb).unwrap();
        rgb.chunks_exact(3).filter(|p| **p == [0, 90, 160]).count()
    }

    #[test]
    fn a_curve_is_drawn_in_its_colour_and_a_smooth_one_with_fewer_pixels() {
        let (raw, smooth) = (ink(0.0), ink(0.95));
        assert!(smooth > 600 && raw > 3 * smooth, "{raw} and {smooth} pixels");
    }

    fn curve_of(values: impl IntoIterator<Item = f64>) -> Curve {
        let points = values.into_iter().enumerate().map(|(i, value)| (i as f64, value)).collect();
        Curve { name: String::new(), points }
    }

    #[test]
    fn smoothing_leaves_straight_lines_where_they_are() {
        for weight in [0.0, 0.5, 0.9, 0.999] {
            for (slope, length) in [(0.0, 3), (-0.01, 400), (2.5, 2), (1.0, 1)] {
                let line = curve_of((0..length).map(|i| 7.0 + slope * f64::from(i)));
                for (smooth, value) in line.smoothed(weight).points.iter().zip(&line.points) {
                    assert!((smooth.1 - value.1).abs() < 1e-9, "{weight} {slope}: {} {}", smooth.1, value.1);
                }
            }
        }
        let rough = curve_of([4.0, 1.0, 9.0]);
        assert_eq!(rough.smoothed(0.0).points, rough.points);
    }

    #[test]
    fn a_smoothed_loss_lies_in_the_middle_of_its_noise() {
        let mut rng = tokengrid_model::rng::CounterRng::new(&[3]);
        let falling = |i: f64| 8.0 + 4.0 * (-i / 60.0).exp();
        let noisy = curve_of((0..600).map(|i| falling(f64::from(i)) + rng.uniform() - 0.5));
        let smooth = noisy.smoothed(0.9);
        let above: Vec<f64> = smooth.points.iter().map(|point| point.1 - falling(point.0)).collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        // A mean of the past would lie 0.3 above at the beginning.
        assert!(mean(&above[10..60]).abs() < 0.08, "{}", mean(&above[10..60]));
        assert!(mean(&above).abs() < 0.02, "{}", mean(&above));
        let largest = above.iter().fold(0.0f64, |largest, above| largest.max(above.abs()));
        assert!(largest < 0.35, "{largest}: less than the noise");
    }

    #[test]
    fn an_outlier_does_not_flatten_the_rest() {
        let mut points: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), 5.0)).collect();
        points[700].1 = 1e6;
        let curve = Curve { name: String::new(), points };
        assert!(without_extremes(&curve).all(|value| value == 5.0));
    }
}
