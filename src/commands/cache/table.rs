//! Text tables that fit the terminal.

/// Width in characters of a table that is not printed to a terminal: nothing is cut.
const UNBOUNDED: usize = usize::MAX;

/// Separator of columns.
const GAP: &str = "  ";

/// Rows of text under a heading.
pub(crate) struct Table {
    heading: Vec<&'static str>,
    /// Whether each column holds numbers, which are right-aligned.
    is_number: Vec<bool>,
    rows: Vec<Vec<String>>,
    /// Widths of the columns, once a part was printed.
    widths: Vec<usize>,
}

impl Table {
    /// An empty table; a heading that begins with `#` is of a column of numbers.
    pub(crate) fn new(heading: &[&'static str]) -> Table {
        Table {
            is_number: heading.iter().map(|name| name.starts_with('#')).collect(),
            heading: heading.iter().map(|name| name.trim_start_matches('#')).collect(),
            rows: Vec::new(),
            widths: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Prints the table, at most as wide as the terminal: the widest column is shortened, in the middle of its texts.
    pub(crate) fn print(&self) {
        self.lines(terminal_columns()).iter().for_each(|line| println!("{line}"));
    }

    /// Prints the rows so far and removes them, so that any number of rows can be printed. The first rows set the widths of
    /// the columns; a longer text later makes its line longer.
    pub(crate) fn print_part(&mut self) {
        let heading = self.widths.is_empty();
        if heading {
            self.widths = self.fitting_widths(terminal_columns());
            println!("{}", self.line(&self.heading_texts(), &self.widths));
        }
        // Without a terminal nothing is cut.
        let cut = terminal_columns() != UNBOUNDED;
        for row in std::mem::take(&mut self.rows) {
            let width = |(column, text): (usize, &String)| {
                let least = self.widths[column];
                if cut { least } else { least.max(text.chars().count()) }
            };
            let widths: Vec<usize> = row.iter().enumerate().map(width).collect();
            println!("{}", self.line(&row, &widths));
        }
    }

    fn heading_texts(&self) -> Vec<String> {
        self.heading.iter().map(|name| (*name).to_owned()).collect()
    }

    fn lines(&self, columns: usize) -> Vec<String> {
        let widths = self.fitting_widths(columns);
        std::iter::once(&self.heading_texts()).chain(&self.rows).map(|row| self.line(row, &widths)).collect()
    }

    fn fitting_widths(&self, columns: usize) -> Vec<usize> {
        let heading = self.heading_texts();
        let all = || std::iter::once(&heading).chain(&self.rows);
        let widest = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..heading.len()).map(widest).collect();
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > columns {
            match widths.iter_mut().max() {
                Some(width) if *width > 4 => *width -= 1,
                _ => break,
            }
        }
        widths
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let cell = |(column, text): (usize, &String)| {
            let (text, width) = (shortened(text, widths[column]), widths[column]);
            if self.is_number[column] { format!("{text:>width$}") } else { format!("{text:<width$}") }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    }
}

/// Two different texts in at most `width` characters each: from a little before the first place where they differ.
pub(crate) fn shortened_apart(a: &str, b: &str, width: usize) -> [String; 2] {
    let characters = |text: &str| text.chars().count();
    if characters(a).max(characters(b)) <= width {
        return [a.to_owned(), b.to_owned()];
    }
    let equal = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let skipped = equal.saturating_sub(width / 4);
    let cut = |text: &str| {
        let before = if skipped > 0 { "…" } else { "" };
        let rest: String = text.chars().skip(skipped).take(width).collect();
        let after = if skipped + width < characters(text) { "…" } else { "" };
        format!("{before}{rest}{after}")
    };
    [cut(a), cut(b)]
}

/// `text` in at most `width` characters: the beginning and the end of it.
fn shortened(text: &str, width: usize) -> String {
    // A key may hold any characters, line breaks too.
    let characters: Vec<char> = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if characters.len() <= width {
        return characters.into_iter().collect();
    }
    let (start, end) = ((width - 1) / 2, width - 1 - (width - 1) / 2);
    let left = characters[..start].iter();
    left.chain(&['…']).chain(&characters[characters.len() - end..]).collect()
}

/// Width in characters of the terminal on stdout, if it is one.
pub(crate) fn terminal_columns() -> usize {
    terminal_size::terminal_size_of(std::io::stdout()).map_or(UNBOUNDED, |(width, _)| usize::from(width.0).max(20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_differ_look_different() {
        let names: Vec<String> = (0..1000).map(|class| format!("n{class:08}")).collect();
        let mut others = names.clone();
        others[900] = "tench".into();
        let [a, b] = [format!("{names:?}"), format!("{others:?}")];
        let [short_a, short_b] = shortened_apart(&a, &b, 80);
        assert!(short_a.contains("n00000900") && short_b.contains("tench"), "{short_a} | {short_b}");
        assert!(short_a.chars().count() <= 82);
        assert_eq!(shortened_apart("a", "b", 80), ["a", "b"]);
    }

    #[test]
    fn a_table_fits_and_keeps_its_numbers() {
        let mut table = Table::new(&["#row", "key", "label"]);
        table.push(vec!["0".into(), "n01440764/n01440764_10026.JPEG".into(), "0 (tench)".into()]);
        table.push(vec!["1281166".into(), "a\nb".into(), "-1".into()]);
        for columns in [20, 30, 40, 79, usize::MAX] {
            let lines = table.lines(columns);
            assert_eq!(lines.len(), 3);
            assert!(lines.iter().all(|line| line.chars().count() <= columns && !line.contains('\n')), "{lines:?}");
            assert!(columns < 30 || lines[2].starts_with("1281166  a\u{fffd}b"), "{lines:?}");
        }
        assert_eq!(table.lines(40)[1], "      0  n01440764…10026.JPEG  0 (tench)");
    }
}
