//! The plots of `cache stats --plot` and `cache classes --plot`.

use crate::files::write_whole;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;
use tokengrid_cache::{CacheStats, ClassRows};
use tokengrid_ingest::{PngSize, write_png};

/// DejaVu Sans, reduced to ASCII: plots have text on machines without fonts, too.
static FONT: &[u8] = include_bytes!("../../../model/assets/DejaVuSans-ascii.ttf");

const SIZE: (u32, u32) = (960, 900);
const BLUE_GRAY: RGBColor = RGBColor(70, 110, 160);

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

type DrawError = Box<dyn std::error::Error>;

/// Draws code use, bit balance and class sizes, one below the other.
pub(super) fn stats(stats: &CacheStats, path: &Path) -> anyhow::Result<()> {
    save(path, &|rgb| draw_stats(stats, rgb))
}

/// Draws the classes' numbers of rows and entropies, in the given order.
pub(super) fn classes(classes: &[ClassRows], path: &Path) -> anyhow::Result<()> {
    save(path, &|rgb| draw_classes(classes, rgb))
}

fn save(path: &Path, draw: &dyn Fn(&mut [u8]) -> Result<(), DrawError>) -> anyhow::Result<()> {
    // It fails only if the font is registered already.
    let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, FONT);
    let mut rgb = vec![0u8; SIZE.0 as usize * SIZE.1 as usize * 3];
    draw(&mut rgb).map_err(|error| anyhow::anyhow!("cannot draw: {error}"))?;
    let mut file = Vec::new();
    write_png(&rgb, [SIZE.0, SIZE.1], PngSize::Small, &[("Software", "tokengrid")], &mut file)?;
    write_whole(path, &file)
}

fn draw_classes(classes: &[ClassRows], rgb: &mut [u8]) -> Result<(), DrawError> {
    let root = BitMapBackend::with_buffer(rgb, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((2, 1));
    let rows: Vec<f64> = classes.iter().map(|class| class.rows as f64).collect();
    let entropies: Vec<f64> = classes.iter().map(|class| class.code_entropy_bits).collect();
    let label = |bar: usize| classes.get(bar).map_or(String::new(), |class| class.label.to_string());
    bars(&panels[0], "rows per class", "class", &rows, None, &label)?;
    bars(&panels[1], "entropy of the codes in a class, in bits per token", "class", &entropies, None, &label)?;
    root.present()?;
    Ok(())
}

fn draw_stats(stats: &CacheStats, rgb: &mut [u8]) -> Result<(), DrawError> {
    let root = BitMapBackend::with_buffer(rgb, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((3, 1));
    let used = format!("{} of {} codes are used; number of codes by occurrences", stats.distinct_codes, stats.codebook_size);
    let codes: Vec<f64> = stats.code_histogram.iter().skip(1).map(|count| *count as f64).collect();
    bars(&panels[0], &used, "tokens of a code", &codes, None, &occurrences)?;
    let dead = match stats.dead_bits.len() {
        0 => "no bit is dead".to_owned(),
        _ => format!("dead bits: {:?}", stats.dead_bits),
    };
    bars(&panels[1], &format!("share of ones, bit by bit; {dead}"), "bit", &stats.bit_balance, Some(1.0), &number)?;
    let rows: Vec<f64> = stats.classes.iter().map(|class| class.rows as f64).collect();
    bars(
        &panels[2],
        &format!("rows per class; {} rows without one", stats.unlabelled_rows),
        "class",
        &rows,
        None,
        &number,
    )?;
    root.present()?;
    Ok(())
}

fn number(bar: usize) -> String {
    bar.to_string()
}

/// Range of occurrences of a bar: 1, 2-3, 4-7, ...: each bar is twice as wide as the one before.
fn occurrences(bar: usize) -> String {
    match 1u64 << bar.min(62) {
        1 => "1".into(),
        from => format!("{from}-{}", 2 * from - 1),
    }
}

/// A bar chart with one bar per value.
fn bars(
    area: &Area,
    title: &str,
    what: &str,
    values: &[f64],
    top: Option<f64>,
    name: &dyn Fn(usize) -> String,
) -> Result<(), DrawError> {
    let highest = values.iter().copied().fold(0.0, f64::max);
    let top = top.unwrap_or(highest * 1.05).max(1e-9);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(-0.5..values.len().max(1) as f64 - 0.5, 0.0..top)?;
    let label = |x: &f64| name(x.round().max(0.0) as usize);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc(what)
        .x_labels(values.len().clamp(2, 18))
        .x_label_formatter(&label)
        .draw()?;
    let bar = |(i, value): (usize, &f64)| {
        let (left, right) = (i as f64 - 0.4, i as f64 + 0.4);
        Rectangle::new([(left, 0.0), (right, *value)], BLUE_GRAY.filled())
    };
    chart.draw_series(values.iter().enumerate().map(bar))?;
    Ok(())
}
