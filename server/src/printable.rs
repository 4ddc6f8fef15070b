use std::fmt::{self, Display, Formatter, Write as _};

/// Text from elsewhere, safe to show: one line, no terminal commands, no reordering of what stands beside it.
///
/// What is not safe is shown as `\n`, `\u{1b}` and the like; all else, backslashes included, stays as it is.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, unsafe_char)) = rest.char_indices().find(|(_, c)| !is_safe(*c)) {
            f.write_str(&rest[..at])?;
            unsafe_char.escape_debug().try_for_each(|c| f.write_char(c))?;
            rest = &rest[at + unsafe_char.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// A line of JSON, safe to show and still the same JSON: what [`Printable`] would escape is escaped as JSON does.
pub(crate) struct PrintableJson<'a>(pub(crate) &'a str);

impl Display for PrintableJson<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut units = [0; 2];
        self.0.chars().try_for_each(|c| match is_safe(c) {
            true => f.write_char(c),
            false => c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(f, "\\u{unit:04x}")),
        })
    }
}

fn is_safe(c: char) -> bool {
    !c.is_control() && !INVISIBLE.iter().any(|range| range.contains(&c))
}

/// Characters that show nothing and change how their neighbours are shown: zero-width ones, direction marks and
/// overrides, separators, tags.
const INVISIBLE: [std::ops::RangeInclusive<char>; 9] = [
    '\u{ad}'..='\u{ad}',
    '\u{61c}'..='\u{61c}',
    '\u{180e}'..='\u{180e}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{feff}'..='\u{feff}',
    '\u{fff9}'..='\u{fffb}',
    '\u{e0000}'..='\u{e007f}',
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_and_what_moves_the_cursor_does_not() {
        let shown = |text: &str| Printable(text).to_string();
        assert_eq!(shown("plain \"text\" \\ 'ok'"), "plain \"text\" \\ 'ok'");
        assert_eq!(shown("Grüße ✅ 世界 e\u{301}"), "Grüße ✅ 世界 e\u{301}");
        assert_eq!(shown("a\nb\r\tc\0"), "a\\nb\\r\\tc\\0");
        assert_eq!(shown("\u{1b}[2J\u{7}\u{9b}"), "\\u{1b}[2J\\u{7}\\u{9b}");
        assert_eq!(shown("\u{202e}evil\u{2066}\u{200f}"), "\\u{202e}evil\\u{2066}\\u{200f}");
        assert_eq!(shown("\u{2028}\u{2029}\u{feff}\u{85}"), "\\u{2028}\\u{2029}\\u{feff}\\u{85}");
        assert_eq!(shown(""), "");
    }
    #[test]
    fn json_stays_the_same_json() {
        let text = "a\u{9b}\u{202e}b\u{7f} ✅ \u{e0041}\n\"";
        let line = serde_json::to_string(text).unwrap();
        let shown = PrintableJson(&line).to_string();
        assert!(shown.chars().all(is_safe), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }
}
