//! Where the wanted fields lie in a JSON document, one strict pass, with Python's `json.loads` as the judge.
//! What the fields mean is not known here.
//!
//! As `json.loads` of bytes: the last of two equal names wins, `NaN`, `Infinity` and `-Infinity` are numbers, any
//! surrogate passes (escaped, or as three bytes), a UTF-8 byte order mark is skipped, control characters in strings are
//! refused, and so are integers of more than 4300 digits. Other than it: UTF-16 and UTF-32 are refused, and nesting is
//! too deep past [`DEPTH_MAX`], where Python's limit depends on its version and its own stack.

use std::ops::Range;

/// Lists and objects within each other. Near what CPython up to 3.11 reads, whose recursion limit is 1000.
pub const DEPTH_MAX: usize = 1000;

/// CPython's `sys.int_info.default_max_str_digits`.
const INTEGER_DIGITS_MAX: usize = 4300;

/// Finds fields by their paths. Made once; a pass over a document allocates nothing, unless a buffer has to grow.
pub struct Fields {
    /// The paths as a tree, parents before their children; the first is the document.
    nodes: Vec<Node>,
    /// What each node was found to be.
    found: Vec<Found>,
    /// A name with its escapes decoded.
    name: Vec<u8>,
    /// Whether the last document was UTF-8 without surrogates.
    utf8: bool,
}

/// A step of a path. Its children begin right after it; each child's `end` is where the next begins.
struct Node {
    name: Box<[u8]>,
    /// One past the last node below this.
    end: usize,
}

const MISSING: Found = Found {
    kind: Kind::Missing,
    start: 0,
    end: 0,
};

/// The node of all that nobody wants.
const UNWANTED: usize = usize::MAX;

/// What a field is, and where its text lies in the document.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub kind: Kind,
    /// Of a number all of it, of a string what is between its quotes, else no matter.
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)] // So `Found` has no padding, and is copied in whole words.
pub enum Kind {
    Missing,
    Null,
    True,
    False,
    Integer,
    /// A number with a fraction or an exponent.
    Float,
    /// `NaN` or an infinity.
    NotFinite,
    String,
    /// A string with escapes in it.
    Escaped,
    List,
    Object,
}

/// Why a document is not JSON, as the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(usize)] // As `Kind`, for `Result<Found, NotJson>`.
pub enum NotJson {
    #[error("it is not UTF-8")]
    Encoding,
    #[error("it ends too early")]
    End,
    #[error("more follows its end")]
    Trailing,
    #[error("it is nested too deep")]
    Depth,
    #[error("no value where one belongs")]
    Value,
    #[error("no name in double quotes in an object")]
    Name,
    #[error("no colon after a name")]
    Colon,
    #[error("no comma or }} after a value")]
    ObjectEnd,
    #[error("no comma or ] after a value")]
    ListEnd,
    #[error("a string has no end")]
    StringEnd,
    #[error("a string has a control character")]
    Control,
    #[error("a string has an escape that is none")]
    Escape,
    #[error("an integer has more than 4300 digits")]
    LongInteger,
}

impl Fields {
    /// The slot of the document itself.
    pub const DOCUMENT: usize = 0;

    /// Wants the fields at these paths, each a list of names from the top level down.
    #[must_use]
    pub fn new(mut paths: Vec<&[String]>) -> Self {
        paths.sort_unstable();
        let mut nodes = vec![Node {
            name: Box::default(),
            end: 0,
        }];
        add_children(&mut nodes, &paths, 0);
        nodes[0].end = nodes.len();
        Self {
            found: vec![MISSING; nodes.len()],
            nodes,
            name: Vec::new(),
            utf8: false,
        }
    }

    /// The slot of a path given to [`Fields::new`].
    ///
    /// # Panics
    /// When it was not given.
    #[must_use]
    pub fn slot(&self, path: &[String]) -> usize {
        let slot = path.iter().fold(Self::DOCUMENT, |slot, name| {
            child(&self.nodes, slot + 1..self.nodes[slot].end, name.as_bytes())
        });
        assert_ne!(slot, UNWANTED, "the path was given to Fields::new");
        slot
    }

    /// What the last document read has there.
    #[must_use]
    #[inline]
    pub fn found(&self, slot: usize) -> Found {
        self.found[slot]
    }

    /// The UTF-8 of the string there, with its escapes decoded into `buffer` if it has any; `None` when it has a lone
    /// surrogate, and so is no Unicode text. `json` is the document that was read.
    #[inline]
    pub fn text<'a>(
        &self,
        slot: usize,
        json: &'a [u8],
        buffer: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let found = self.found[slot];
        let mut text = found.raw(json);
        if found.kind == Kind::Escaped {
            buffer.clear();
            unescape(text, buffer);
            text = buffer;
        }
        let checked = self.utf8 && found.kind == Kind::String;
        (checked || std::str::from_utf8(text).is_ok()).then_some(text)
    }

    /// Reads one document to its end.
    ///
    /// # Errors
    /// Why it is not JSON; then no slot means anything.
    pub fn read(&mut self, json: &[u8]) -> Result<(), NotJson> {
        self.utf8 = is_ascii(json) || std::str::from_utf8(json).is_ok();
        if !self.utf8 && !is_utf8_with_surrogates(json) {
            return Err(NotJson::Encoding);
        }
        let Self {
            nodes, found, name, ..
        } = self;
        found
            .iter_mut()
            .for_each(|found| found.kind = Kind::Missing);
        let mut pass = Pass {
            json,
            nodes,
            found,
            name,
        };
        let start = if json.starts_with("\u{feff}".as_bytes()) {
            3
        } else {
            0
        };
        let end = pass.value(space(json, start), Self::DOCUMENT, 0)?;
        if space(json, end) == json.len() {
            Ok(())
        } else {
            Err(NotJson::Trailing)
        }
    }
}

/// One pass over a document. Places are bytes from its start; a method that reads something answers where it ends.
struct Pass<'a> {
    json: &'a [u8],
    nodes: &'a [Node],
    found: &'a mut [Found],
    name: &'a mut Vec<u8>,
}

impl Pass<'_> {
    /// Reads the value at `at`, which is wanted as `node` and lies in `depth` lists and objects.
    #[inline(always)]
    fn value(&mut self, at: usize, node: usize, depth: usize) -> Result<usize, NotJson> {
        let json = self.json;
        if byte(json, at) != b'"' {
            return self.other_value(at, node, depth);
        }
        let found = string(json, at + 1)?;
        self.set(node, found);
        Ok(found.end + 1)
    }

    #[inline(never)]
    fn other_value(&mut self, at: usize, node: usize, depth: usize) -> Result<usize, NotJson> {
        let json = self.json;
        let found = match byte(json, at) {
            b'-' | b'0'..=b'9' => number(json, at)?,
            b'{' => Found {
                kind: Kind::Object,
                start: at,
                end: at + 1,
            },
            b'[' => Found {
                kind: Kind::List,
                start: at,
                end: at + 1,
            },
            _ => literal(json, at)?,
        };
        self.set(node, found);
        match found.kind {
            Kind::Object | Kind::List if depth == DEPTH_MAX => Err(NotJson::Depth),
            Kind::Object => self.object(found.end, node, depth + 1),
            Kind::List => self.list(found.end, depth + 1),
            _ => Ok(found.end),
        }
    }

    #[inline(never)]
    fn object(&mut self, at: usize, node: usize, depth: usize) -> Result<usize, NotJson> {
        let json = self.json;
        let children = self
            .nodes
            .get(node)
            .map_or(0..0, |parent| node + 1..parent.end);
        let mut at = space(json, at);
        if byte(json, at) == b'}' {
            return Ok(at + 1);
        }
        loop {
            if byte(json, at) != b'"' {
                return Err(NotJson::Name);
            }
            let name = string(json, at + 1)?;
            at = after(json, name.end + 1, b':').ok_or(NotJson::Colon)?;
            let child = if children.is_empty() {
                UNWANTED
            } else {
                self.child(children.clone(), name)
            };
            at = self.value(at, child, depth)?;
            match after(json, at, b',') {
                Some(next) => at = next,
                None => return after_space(json, at, b'}').ok_or(NotJson::ObjectEnd),
            }
        }
    }

    fn list(&mut self, at: usize, depth: usize) -> Result<usize, NotJson> {
        let json = self.json;
        let mut at = space(json, at);
        if byte(json, at) == b']' {
            return Ok(at + 1);
        }
        loop {
            at = self.value(at, UNWANTED, depth)?;
            match after(json, at, b',') {
                Some(next) => at = next,
                None => return after_space(json, at, b']').ok_or(NotJson::ListEnd),
            }
        }
    }

    /// The node of that name below a node.
    #[inline]
    fn child(&mut self, children: Range<usize>, name: Found) -> usize {
        if name.kind == Kind::Escaped {
            self.name.clear();
            unescape(name.raw(self.json), self.name);
            child(self.nodes, children, self.name)
        } else {
            child(self.nodes, children, name.raw(self.json))
        }
    }

    /// A later value replaces an earlier one of the same name, with all that was in it.
    #[inline]
    fn set(&mut self, node: usize, found: Found) {
        if node == UNWANTED {
            return;
        }
        self.found[node] = found;
        for below in &mut self.found[node + 1..self.nodes[node].end] {
            below.kind = Kind::Missing;
        }
    }
}

#[cold]
fn literal(json: &[u8], start: usize) -> Result<Found, NotJson> {
    for (name, kind) in [
        ("true", Kind::True),
        ("false", Kind::False),
        ("null", Kind::Null),
        ("NaN", Kind::NotFinite),
        ("Infinity", Kind::NotFinite),
        ("-Infinity", Kind::NotFinite),
    ] {
        if json
            .get(start..)
            .is_some_and(|rest| rest.starts_with(name.as_bytes()))
        {
            return Ok(Found {
                kind,
                start,
                end: start + name.len(),
            });
        }
    }
    Err(if start >= json.len() {
        NotJson::End
    } else {
        NotJson::Value
    })
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`; what follows is judged by the caller, as in `01` and `1.`.
#[inline]
fn number(json: &[u8], start: usize) -> Result<Found, NotJson> {
    let first = start + usize::from(byte(json, start) == b'-');
    let mut end = if byte(json, first) == b'0' {
        first + 1
    } else {
        digits(json, first)
    };
    if end == first {
        return literal(json, start);
    }
    let whole_digits = end - first;
    let mut kind = Kind::Integer;
    if byte(json, end) == b'.' {
        let after = digits(json, end + 1);
        if after > end + 1 {
            (end, kind) = (after, Kind::Float);
        }
    }
    if matches!(byte(json, end), b'e' | b'E') {
        let power = end + 1 + usize::from(matches!(byte(json, end + 1), b'+' | b'-'));
        let after = digits(json, power);
        if after > power {
            (end, kind) = (after, Kind::Float);
        }
    }
    if kind == Kind::Integer && whole_digits > INTEGER_DIGITS_MAX {
        return Err(NotJson::LongInteger);
    }
    Ok(Found { kind, start, end })
}

/// The string that begins at `start`, after its quote.
#[inline]
fn string(json: &[u8], start: usize) -> Result<Found, NotJson> {
    let end = plain_end(json, start);
    if byte(json, end) == b'"' {
        Ok(Found {
            kind: Kind::String,
            start,
            end,
        })
    } else {
        odd_string(json, start, end)
    }
}

/// A string whose first mark, at `at`, is not its end.
#[cold]
fn odd_string(json: &[u8], start: usize, mut at: usize) -> Result<Found, NotJson> {
    loop {
        match json.get(at) {
            Some(b'"') => {
                return Ok(Found {
                    kind: Kind::Escaped,
                    start,
                    end: at,
                });
            }
            Some(b'\\') => match byte(json, at + 1) {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                    at = plain_end(json, at + 2)
                }
                b'u' if hex4(json, at + 2).is_some() => at = plain_end(json, at + 6),
                _ => return Err(NotJson::Escape),
            },
            Some(_) => return Err(NotJson::Control),
            None => return Err(NotJson::StringEnd),
        }
    }
}

/// The byte at `at`; zero past the end, which is no byte of JSON's grammar.
#[inline]
fn byte(json: &[u8], at: usize) -> u8 {
    json.get(at).copied().unwrap_or(0)
}

/// The first byte from `at` that is no white space.
#[inline]
fn space(json: &[u8], mut at: usize) -> usize {
    while let b' ' | b'\n' | b'\r' | b'\t' = byte(json, at) {
        at += 1;
    }
    at
}

/// The first quote, backslash or control character from `at`, or the end.
#[inline]
fn plain_end(json: &[u8], at: usize) -> usize {
    // A byte below n has its top bit set in `word - n` and not in `word`; a borrow reaches only bytes above a hit.
    // With 0x02 flipped, the quote 0x22 is next to the control characters, and they stay among themselves.
    let below = |word: u64, n: u64| word.wrapping_sub(n * EACH);
    first_hit(json, at, |word| {
        (below(word ^ (0x02 * EACH), 0x21) | below(word ^ (u64::from(b'\\') * EACH), 1))
            & !word
            & TOP
    })
}

/// The first byte from `at` that is no digit, or the end.
#[inline]
fn digits(json: &[u8], at: usize) -> usize {
    first_hit(json, at, |word| {
        // Digits become 0 to 9, which alone stay below 0x80 with 0x76 added.
        let word = word ^ (0x30 * EACH);
        (((word & !TOP) + 0x76 * EACH) | word) & TOP
    })
}

/// The first byte from `at` whose top bit `hits` sets in a word of eight bytes, the first lowest; or the end, as zeros
/// stand past it and must be hits. Eight at once and no vectors: safe Rust cannot name their instructions.
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

/// One, and the top bit, of each byte of a word.
const EACH: u64 = 0x0101_0101_0101_0101;
const TOP: u64 = 0x80 * EACH;

/// Past `mark` at `at`, and past white space before and after it.
#[inline]
fn after(json: &[u8], at: usize, mark: u8) -> Option<usize> {
    match json.get(at..).and_then(<[u8]>::first_chunk) {
        Some(&[first, second, third]) if [first, second] == [mark, b' '] && third > b' ' => {
            Some(at + 2)
        }
        Some(&[first, second, _]) if first == mark && second > b' ' => Some(at + 1),
        _ => after_space(json, at, mark),
    }
}

fn after_space(json: &[u8], at: usize, mark: u8) -> Option<usize> {
    let at = space(json, at);
    (byte(json, at) == mark).then(|| space(json, at + 1))
}

/// The node of that name below a node.
#[inline]
fn child(nodes: &[Node], children: Range<usize>, name: &[u8]) -> usize {
    let mut child = children.start;
    while child < children.end {
        let node = &nodes[child];
        if *node.name == *name {
            return child;
        }
        child = node.end;
    }
    UNWANTED
}

/// Adds the nodes below `depth` names, which all of the sorted `paths` share.
fn add_children(nodes: &mut Vec<Node>, paths: &[&[String]], depth: usize) {
    let longer = &paths[paths.partition_point(|path| path.len() == depth)..];
    for paths in longer.chunk_by(|a, b| a[depth] == b[depth]) {
        let node = nodes.len();
        nodes.push(Node {
            name: paths[0][depth].as_bytes().into(),
            end: 0,
        });
        add_children(nodes, paths, depth + 1);
        nodes[node].end = nodes.len();
    }
}

impl Found {
    /// The text of a number, or what lies between a string's quotes; `json` is the document that was read.
    #[must_use]
    #[inline]
    pub fn raw(self, json: &[u8]) -> &[u8] {
        &json[self.start..self.end]
    }
}

/// Decodes the escapes of a string that [`string`] took. A lone surrogate becomes the three bytes that UTF-8 would have.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
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

fn hex4(json: &[u8], at: usize) -> Option<u32> {
    json.get(at..at + 4)?
        .iter()
        .try_fold(0, |code, &b| Some(code << 4 | char::from(b).to_digit(16)?))
}

/// UTF-8 in which the three bytes of a surrogate pass as a character: Python decodes with `surrogatepass`.
#[cold]
fn is_utf8_with_surrogates(mut rest: &[u8]) -> bool {
    while let Err(error) = std::str::from_utf8(rest) {
        match rest[error.valid_up_to()..] {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => rest = &rest[error.valid_up_to() + 3..],
            _ => return false,
        }
    }
    true
}

/// Whether all bytes are ASCII; for a short document quicker than the standard library's.
fn is_ascii(json: &[u8]) -> bool {
    match json.last_chunk() {
        Some(last) => {
            let words = json.as_chunks().0.iter().chain([last]);
            words.fold(0, |all, word| all | u64::from_ne_bytes(*word)) & TOP == 0
        }
        None => json.is_ascii(),
    }
}
