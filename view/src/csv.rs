//! Lists as comma-separated values for spreadsheets, RFC 4180.

use serde_json::Value;

/// Objects as lines of their fields `columns`, below a line with these names where `has_heading`: also where there is no object.
pub(crate) fn lines(items: &[Value], columns: &[&str], has_heading: bool) -> Vec<u8> {
    let mut text = String::new();
    let mut line = |cells: Vec<String>| {
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    };
    if has_heading {
        line(columns.iter().map(|name| quoted(name)).collect());
    }
    for item in items {
        line(columns.iter().map(|name| cell(&item[*name])).collect());
    }
    text.into_bytes()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    }
}

/// A text that a spreadsheet would take for a formula gets an apostrophe, which makes it a text. Control characters, which a
/// terminal would obey, are replaced; line ends are part of the format.
fn quoted(text: &str) -> String {
    let is_number = text.parse::<f64>().is_ok();
    let guard = if !is_number && text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    let must_be_quoted = text.contains([',', '"', '\n', '\r']);
    let is_obeyed = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    let text = text.replace(is_obeyed, "\u{fffd}");
    if must_be_quoted { format!("\"{guard}{}\"", text.replace('"', "\"\"")) } else { format!("{guard}{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_becomes_a_table_that_no_spreadsheet_or_terminal_executes() {
        let items = [
            json!({"key": "a,\"b\"", "rows": -3, "note": null}),
            json!({"key": "=1+1", "rows": 2, "note": "\u{1b}[2J\u{9b}x"}),
        ];
        let columns = ["key", "note", "rows"];
        let expected = "key,note,rows\r\n\"a,\"\"b\"\"\",,-3\r\n'=1+1,\u{fffd}[2J\u{fffd}x,2\r\n";
        assert_eq!(String::from_utf8(lines(&items, &columns, true)).unwrap(), expected);
        assert_eq!(lines(&items[..1], &columns, false), b"\"a,\"\"b\"\"\",,-3\r\n");
        assert_eq!(lines(&[], &columns, true), b"key,note,rows\r\n");
    }
}
