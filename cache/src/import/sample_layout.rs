//! Which grid the tokens of a sample have, and how many views of it, by the shape of their array.

/// Grids of pictures are not wider than this many times their height: a wider array of two axes is a list of views.
const ASPECT_MAX: usize = 4;

/// Height and width of a grid, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SampleLayout {
    pub(super) grid: (u32, u32),
    pub(super) views: u32,
}

impl SampleLayout {
    /// Of an array of `shape`. Axes of one element do not count; then
    ///
    /// - `[H * W]` is a square grid;
    /// - `[S, S]` is a square grid;
    /// - `[views, H * W]` are square grids, where it cannot be one wide grid;
    /// - `[views, H, W]` are grids, where the last axis cannot be a grid of its own.
    ///
    /// # Errors
    /// What to give instead, where the shape may mean several things, or none of these.
    pub(super) fn of(shape: &[usize]) -> Result<SampleLayout, String> {
        let sides: Vec<usize> = shape.iter().copied().filter(|side| *side != 1).collect();
        match *sides.as_slice() {
            [] => Ok(layout(1, 1, 1)),
            [tokens] => match root(tokens) {
                Some(side) => Ok(layout(side, side, 1)),
                None => Err("a square number of tokens: else give --grid HxW".to_owned()),
            },
            [height, width] if height == width => Ok(layout(height, width, 1)),
            [views, tokens] => match root(tokens) {
                Some(side) if is_list(views, tokens) => Ok(layout(side, side, views)),
                Some(side) => Err(format!(
                    "--grid {side}x{side} if these are {views} views, --grid {views}x{tokens} if this is one grid"
                )),
                None => Err(format!("--grid {views}x{tokens} if this is one grid, else --grid HxW, that of one view")),
            },
            [views, height, width] if !is_list(height, width) => Ok(layout(height, width, views)),
            _ => Err("--grid HxW, that of one view".to_owned()),
        }
    }

    /// The same, of an image's own array: one with two axes, the last of which cannot be a grid, is a grid of these sides.
    pub(super) fn of_image(shape: &[usize]) -> Result<SampleLayout, String> {
        let sides: Vec<usize> = shape.iter().copied().filter(|side| *side != 1).collect();
        match *sides.as_slice() {
            [height, width] if root(width).is_none() => Ok(layout(height, width, 1)),
            _ => SampleLayout::of(shape),
        }
    }

    /// The same, where the number of views is known: also `[H, W]` and `[views, H, W]` of any grid.
    pub(super) fn of_views(shape: &[usize], views: usize) -> Option<SampleLayout> {
        let tokens: usize = shape.iter().product();
        if views == 0 || !tokens.is_multiple_of(views) {
            return None;
        }
        let sides: Vec<usize> = shape.iter().copied().filter(|side| *side != 1).collect();
        match *sides.as_slice() {
            [height, width] if views == 1 => Some(layout(height, width, 1)),
            [first, height, width] if first == views => Some(layout(height, width, views)),
            _ => root(tokens / views).map(|side| layout(side, side, views)),
        }
    }
}

fn layout(height: usize, width: usize, views: usize) -> SampleLayout {
    let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    SampleLayout { grid: (short(height), short(width)), views: short(views) }
}

/// Whether so many rows of tokens are too wide for a grid.
fn is_list(rows: usize, tokens: usize) -> bool {
    root(tokens).is_some() && tokens > ASPECT_MAX * rows
}

fn root(tokens: usize) -> Option<usize> {
    let side = tokens.isqrt();
    (tokens > 0 && side * side == tokens).then_some(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_say_what_they_are_or_that_they_do_not() {
        for (shape, height, width, views) in [
            (&[256][..], 16, 16, 1),
            (&[1, 256], 16, 16, 1),
            (&[16, 16], 16, 16, 1),
            (&[10, 256], 16, 16, 10),
            (&[1, 10, 256], 16, 16, 10),
            (&[2, 16], 4, 4, 2),
            (&[2, 1, 16], 4, 4, 2),
            (&[10, 16, 16], 16, 16, 10),
            (&[10, 9, 16], 9, 16, 10),
            (&[1, 1], 1, 1, 1),
        ] {
            assert_eq!(SampleLayout::of(shape), Ok(layout(height, width, views)), "{shape:?}");
        }
        assert_eq!(SampleLayout::of_image(&[5, 3]), Ok(layout(5, 3, 1)));
        assert!(SampleLayout::of_image(&[9, 16]).is_err());
        for (shape, words) in [
            (&[15][..], "a square"),
            (&[9, 16], "--grid 4x4 if these are 9 views, --grid 9x16 if this is one grid"),
            (&[10, 15], "--grid 10x15 if this is one grid"),
            (&[3, 2, 256], "that of one view"),
            (&[2, 2, 2, 2], "that of one view"),
        ] {
            let message = SampleLayout::of(shape).unwrap_err();
            assert!(message.contains(words), "{shape:?}: {message}");
        }
    }

    #[test]
    fn with_the_number_of_views_more_shapes_say_it() {
        assert_eq!(SampleLayout::of_views(&[9, 16], 9), Some(layout(4, 4, 9)));
        assert_eq!(SampleLayout::of_views(&[9, 16], 1), Some(layout(9, 16, 1)));
        assert_eq!(SampleLayout::of_views(&[3, 2, 256], 3), Some(layout(2, 256, 3)));
        assert_eq!(SampleLayout::of_views(&[32], 2), Some(layout(4, 4, 2)));
        assert_eq!(SampleLayout::of_views(&[32], 3), None);
        assert_eq!(SampleLayout::of_views(&[30], 2), None);
    }
}
