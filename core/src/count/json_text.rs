//! The bytes of a JSON text: where a piece of it ends, and what an escape means.
//! What the pieces make up is not known here; `json` reads whole values with these functions.
//!
//! Example, in the text `"a\u0062" , 17}`: from the byte after the first quote, [`plain_end`] finds
//! the backslash, [`hex4`] reads `0062` two bytes later, and [`unescape`] makes `ab` of the string.
//! [`after`] goes past the comma and the white space around it, and [`digits_end`] finds the `}`.

/// The byte at `at`, or zero past the end. Zero has no meaning in JSON, so it ends every piece.
#[inline]
pub(super) fn byte(json: &[u8], at: usize) -> u8 {
    json.get(at).copied().unwrap_or(0)
}

/// Where the first byte from `at` on lies that is not white space.
#[inline]
pub(super) fn space(json: &[u8], mut at: usize) -> usize {
    while let b' ' | b'\n' | b'\r' | b'\t' = byte(json, at) {
        at += 1;
    }
    at
}

/// Where the first quote, backslash or control character from `at` on lies, or the end.
#[inline]
pub(super) fn plain_end(json: &[u8], at: usize) -> usize {
    // A byte below n has its top bit set in `word - n` and not in `word`. A borrow reaches only the
    // bytes above a hit. With 0x02 flipped, the quote 0x22 becomes 0x20, next to the control
    // characters, which change places only among themselves. So one comparison finds both.
    let below = |word: u64, n: u64| word.wrapping_sub(n * EACH);
    first_hit(json, at, |word| {
        (below(word ^ (0x02 * EACH), 0x21) | below(word ^ (u64::from(b'\\') * EACH), 1))
            & !word
            & TOP
    })
}

/// Where the first byte from `at` on lies that is not a digit, or the end.
#[inline]
pub(super) fn digits_end(json: &[u8], at: usize) -> usize {
    first_hit(json, at, |word| {
        // Digits become 0 to 9. They alone stay below 0x80 when 0x76 is added.
        let word = word ^ (0x30 * EACH);
        (((word & !TOP) + 0x76 * EACH) | word) & TOP
    })
}

/// Where the first hit from `at` on lies, or the end. `hits` is given eight bytes as a word, the
/// first one lowest, and sets the top bit of each byte that is a hit. Zeros stand past the end, so
/// zero must be a hit. Eight bytes are taken at once, without vectors, because safe Rust cannot
/// name their instructions.
#[inline]
fn first_hit(json: &[u8], at: usize, hits: impl Fn(u64) -> u64) -> usize {
    let mut rest = &json[at.min(json.len())..];
    let mut at = at;
    while let Some((word, more)) = rest.split_first_chunk() {
        let hits = hits(u64::from_le_bytes(*word));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        (rest, at) = (more, at + 8);
    }
    let word = match json.last_chunk() {
        Some(last) if !rest.is_empty() => u64::from_le_bytes(*last) >> (64 - 8 * rest.len()),
        _ => rest
            .iter()
            .rev()
            .fold(0, |word, b| word << 8 | u64::from(*b)),
    };
    at + hits(word).trailing_zeros() as usize / 8
}

/// A word in which each byte is one.
const EACH: u64 = 0x0101_0101_0101_0101;
/// A word in which each byte has only its top bit set.
const TOP: u64 = 0x80 * EACH;

/// The place after the byte `mark` and after the white space around it, starting at `at`; `None`
/// when another byte stands there. The two usual cases, no white space and one space after the
/// mark, are decided first.
#[inline]
pub(super) fn after(json: &[u8], at: usize, mark: u8) -> Option<usize> {
    match json.get(at..).and_then(<[u8]>::first_chunk) {
        Some(&[first, second, third]) if [first, second] == [mark, b' '] && third > b' ' => {
            Some(at + 2)
        }
        Some(&[first, second, _]) if first == mark && second > b' ' => Some(at + 1),
        _ => after_space(json, at, mark),
    }
}

/// The same as [`after`], for any white space.
pub(super) fn after_space(json: &[u8], at: usize, mark: u8) -> Option<usize> {
    let at = space(json, at);
    (byte(json, at) == mark).then(|| space(json, at + 1))
}

/// Appends the string `raw` to `out` with its escapes decoded. `raw` is what stands between the
/// quotes of a string that was read without an error. A lone surrogate becomes the three bytes that
/// UTF-8 would have for it.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&b| b == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let code = match rest[at + 1] {
            b'u' => hex4(rest, at + 2).expect("escapes were checked"),
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            other => u32::from(other),
        };
        rest = &rest[at + if rest[at + 1] == b'u' { 6 } else { 2 }..];
        let low = if rest.starts_with(b"\\u") {
            hex4(rest, 2)
        } else {
            None
        };
        let code = match (code, low) {
            (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                rest = &rest[6..];
                0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00)
            }
            _ => code,
        };
        match char::from_u32(code) {
            Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => out.extend(
                [
                    0xe0 | code >> 12,
                    0x80 | code >> 6 & 0x3f,
                    0x80 | code & 0x3f,
                ]
                .map(|b| b as u8),
            ),
        }
    }
    out.extend_from_slice(rest);
}

/// The number that four hexadecimal digits at `at` give; `None` when they are not there.
pub(super) fn hex4(json: &[u8], at: usize) -> Option<u32> {
    json.get(at..at + 4)?
        .iter()
        .try_fold(0, |code, &b| Some(code << 4 | char::from(b).to_digit(16)?))
}

/// Whether `rest` is UTF-8 in which the three bytes of a surrogate pass as a character. Python
/// decodes with `surrogatepass`, which takes them.
#[cold]
pub(super) fn is_utf8_with_surrogates(mut rest: &[u8]) -> bool {
    while let Err(error) = std::str::from_utf8(rest) {
        match rest[error.valid_up_to()..] {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => rest = &rest[error.valid_up_to() + 3..],
            _ => return false,
        }
    }
    true
}

/// Whether all bytes are ASCII. For a short document this is faster than the standard library.
#[inline]
pub(super) fn is_ascii(json: &[u8]) -> bool {
    match json.last_chunk() {
        Some(last) => {
            let words = json.as_chunks().0.iter().chain([last]);
            words.fold(0, |all, word| all | u64::from_ne_bytes(*word)) & TOP == 0
        }
        None => json.is_ascii(),
    }
}
