//! `{000..099}` and `{a,b}` in a path: the names of many files in one.

use std::path::{Path, PathBuf};

/// Files that one pattern may name.
const MAX_FILES: usize = 100_000;

/// The paths that a pattern stands for, in its order: the last braces change fastest. `None` where the path has no braces
/// of the kind, `Err` says what is wrong with them.
pub(super) fn expand(path: &Path) -> Option<Result<Vec<PathBuf>, String>> {
    let text = path.to_str()?;
    let (open, close) = find_braces(text)?;
    let parts = alternatives(&text[open + 1..close])?;
    Some(expand_all(text, parts, (open, close)).map(|names| names.into_iter().map(PathBuf::from).collect()))
}

fn expand_all(text: &str, parts: Result<Vec<String>, String>, at: (usize, usize)) -> Result<Vec<String>, String> {
    let (front, mut rest) = (&text[..at.0], &text[at.1 + 1..]);
    let mut names: Vec<String> = parts?.into_iter().map(|part| format!("{front}{part}")).collect();
    while let Some((open, close)) = find_braces(rest) {
        let between = &rest[..open];
        let Some(parts) = alternatives(&rest[open + 1..close]) else { break };
        let parts = parts?;
        if names.len().saturating_mul(parts.len()) > MAX_FILES {
            return Err(format!("stands for more than {MAX_FILES} files"));
        }
        names = names.iter().flat_map(|name| parts.iter().map(move |part| format!("{name}{between}{part}"))).collect();
        rest = &rest[close + 1..];
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

/// The first `{` and the `}` that follows it.
fn find_braces(text: &str) -> Option<(usize, usize)> {
    let open = text.find('{')?;
    Some((open, open + text[open..].find('}')?))
}

/// What braces offer: numbers from one to another, as wide as the wider is written, or words between commas.
fn alternatives(inside: &str) -> Option<Result<Vec<String>, String>> {
    if let Some((first, last)) = inside.split_once("..") {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        let (Some(from), Some(to)) = (number(first), number(last)) else {
            return Some(Err(format!("'{{{inside}}}' is not two numbers with '..' between them")));
        };
        if to < from || to - from >= MAX_FILES as u64 {
            return Some(Err(format!("'{{{inside}}}' stands for none, or for more than {MAX_FILES} files")));
        }
        // A width only where zeros are written in front, as in a shell.
        let padded = first.starts_with('0') && first.len() > 1 || last.starts_with('0') && last.len() > 1;
        let width = if padded { first.len().max(last.len()) } else { 0 };
        return Some(Ok((from..=to).map(|number| format!("{number:0width$}")).collect()));
    }
    inside.contains(',').then(|| Ok(inside.split(',').map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str) -> Vec<String> {
        let paths = expand(Path::new(pattern)).expect("a pattern").expect("a good pattern");
        paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn braces_expand_as_in_a_shell() {
        assert_eq!(names("a/{008..010}.tar"), ["a/008.tar", "a/009.tar", "a/010.tar"]);
        assert_eq!(names("{9..10}.tar"), ["9.tar", "10.tar"]);
        assert_eq!(names("x{a,b}-{0..1}.tar"), ["xa-0.tar", "xa-1.tar", "xb-0.tar", "xb-1.tar"]);
        assert_eq!(names("t-{00000..00001}-of-00002.parquet")[1], "t-00001-of-00002.parquet");
    }

    #[test]
    fn other_paths_are_not_patterns_and_bad_patterns_are_errors() {
        assert!(expand(Path::new("a/b.tar")).is_none());
        assert!(expand(Path::new("a/{b}.tar")).is_none());
        for bad in ["{9..1}.tar", "{0..99999999}.tar", "{a..b}.tar", "{1..100000}{1..100000}", "{0..999}{0..999}"] {
            assert!(expand(Path::new(bad)).expect(bad).is_err(), "{bad}");
        }
    }
}
