//! The plot of the demo: training time with a cache, and without, when every image is encoded each time it is read.

use crate::files::write_whole;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 300);
const ENCODE: RGBColor = RGBColor(213, 94, 0);
const TRAIN: RGBColor = RGBColor(0, 90, 160);

/// Measured times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Seconds of encoding the data set once.
    pub encode_seconds: f64,
    /// Views in the cache.
    pub views: u64,
    /// Seconds of training from the cache.
    pub train_seconds: f64,
    /// Views that the training read, with repetitions.
    pub views_read: u64,
}

impl Measured {
    /// Seconds of encoding if the training encoded each view that it reads.
    pub(super) fn encode_every_time(&self) -> f64 {
        self.encode_seconds * self.views_read as f64 / self.views.max(1) as f64
    }

    /// Seconds of tokenizing once and training from the cache.
    pub(super) fn once(&self) -> f64 {
        self.encode_seconds + self.train_seconds
    }

    /// Seconds of a training that encodes each view that it reads.
    pub(super) fn every_time(&self) -> f64 {
        self.encode_every_time() + self.train_seconds
    }
}

/// Draws two bars to a PNG file: encoding once, and encoding every time.
pub(super) fn draw(measured: &Measured, path: &Path) -> anyhow::Result<()> {
    let mut rgb = vec![0u8; SIZE.0 as usize * SIZE.1 as usize * 3];
    bars(measured, &mut rgb).map_err(|error| anyhow::anyhow!("cannot draw: {error}"))?;
    let picture = tokengrid_model::Picture::new(SIZE.0 as usize, SIZE.1 as usize, rgb);
    write_whole(path, &picture.to_png())
}

fn bars(measured: &Measured, rgb: &mut [u8]) -> Result<(), Box<dyn std::error::Error>> {
    tokengrid_train::plot::register_font();
    let area = BitMapBackend::with_buffer(rgb, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title = "One training, measured: encoded once, and what it costs to encode every time";
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(16)
        .build_cartesian_2d(0.0..measured.every_time() * 1.05, 0.0..2.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc("seconds")
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()?;
    let rows = [
        (1.0, measured.encode_seconds, measured.once(), "from the cache"),
        (0.0, measured.encode_every_time(), measured.every_time(), "encoding every image anew (computed)"),
    ];
    for (low, encode, whole, name) in rows {
        let (bottom, top) = (low + 0.12, low + 0.62);
        let bar = |from: f64, to: f64, color: RGBColor| Rectangle::new([(from, bottom), (to, top)], color.filled());
        chart.draw_series([bar(0.0, encode, ENCODE), bar(encode, whole, TRAIN)])?;
        let text = format!("{name}: {encode:.0} s tokenizer + {:.0} s model = {whole:.0} s", measured.train_seconds);
        chart.draw_series([Text::new(text, (0.0, low + 0.85), ("sans-serif", 16))])?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_every_time_takes_one_encoding_for_each_view_that_is_read() {
        let measured = Measured { encode_seconds: 10.0, views: 100, train_seconds: 60.0, views_read: 3000 };
        assert_eq!((measured.once(), measured.encode_every_time(), measured.every_time()), (70.0, 300.0, 360.0));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("once.png");
        draw(&measured, &path).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
    }
}
