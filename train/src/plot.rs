//! Loss curves as PNG.

use crate::TrainError;
use crate::run::read_metrics;
use plotters::prelude::*;
use std::path::Path;
use std::sync::Once;

/// The reader of a picture needs letters on machines without fonts, too: DejaVu Sans, reduced to ASCII.
static FONT: &[u8] = include_bytes!("../assets/DejaVuSans-ascii.ttf");
const FAMILY: &str = "sans-serif";

/// One line of a plot.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What it is called in the legend.
    pub name: String,
    /// (step, value).
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

/// Draws curves over steps to a PNG of 960 x 540 pixels. `label` is the vertical axis, with its unit.
///
/// # Errors
/// No curve, or a file that cannot be written.
pub fn plot(curves: &[Curve], title: &str, label: &str, path: &Path) -> Result<(), TrainError> {
    register_font();
    let refuse = |what: String| TrainError::Plot { path: path.into(), what };
    let points = || curves.iter().flat_map(|curve| &curve.points);
    if points().next().is_none() {
        return Err(refuse("there is nothing to draw".into()));
    }
    let range = |pick: fn(&(f64, f64)) -> f64| {
        let (low, high) = points().map(pick).fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
        let margin = ((high - low) * 0.05).max(1e-9);
        low - margin..high + margin
    };
    draw(curves, title, label, path, range(|p| p.0), range(|p| p.1)).map_err(|e| refuse(e.to_string()))
}

fn draw(
    curves: &[Curve],
    title: &str,
    label: &str,
    path: &Path,
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut rgb = vec![0u8; WIDTH as usize * HEIGHT as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut rgb, (WIDTH, HEIGHT)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FAMILY, 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc("step")
            .y_desc(label)
            .label_style((FAMILY, 15))
            .axis_desc_style((FAMILY, 16))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .draw()?;
        for (i, curve) in curves.iter().enumerate() {
            let color = COLORS[i % COLORS.len()];
            let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
            chart
                .draw_series(line)?
                .label(curve.name.as_str())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], color.stroke_width(2)));
        }
        if curves.len() > 1 {
            chart.configure_series_labels().background_style(WHITE).label_font((FAMILY, 15)).draw()?;
        }
        area.present()?;
    }
    save(path, &rgb)
}

const WIDTH: u32 = 960;
const HEIGHT: u32 = 540;

/// Dark enough on white, and apart for the colour-blind.
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 90, 160), RGBColor(213, 94, 0), RGBColor(0, 130, 90), RGBColor(160, 60, 140)];

fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = plotters::style::register_font(FAMILY, FontStyle::Normal, FONT);
    });
}

fn save(path: &Path, rgb: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let temporary = path.with_extension("png.tmp");
    let file = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
    let mut encoder = png::Encoder::new(file, WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(rgb)?;
    std::fs::rename(&temporary, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_leaves_ink_in_its_colour() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        let points = (0..50).map(|i| (f64::from(i), 10.0 - f64::from(i) * 0.1)).collect();
        plot(&[Curve { name: "loss".into(), points }], "training", "nats", &path).unwrap();
        let mut reader =
            png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).unwrap())).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb).unwrap();
        let ink = rgb.chunks_exact(3).filter(|p| **p == [0, 90, 160]).count();
        assert!(ink > 300, "{ink} pixels of the curve's colour");
    }
}
