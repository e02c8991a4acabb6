//! Where the wanted fields lie in a JSON document, one strict pass, with Python's `json.loads` as the judge.
//! What the fields mean is not known here.
//!
//! As `json.loads` of bytes: the last of two equal names wins, `NaN`, `Infinity` and `-Infinity` are numbers, any
//! surrogate passes (escaped, or as three bytes), a UTF-8 byte order mark is skipped, control characters in strings are
//! refused, and so are integers of more than 4300 digits. Other than it: UTF-16 and UTF-32 are refused, and nesting is
//! too deep past [`DEPTH_MAX`], where Python's limit depends on its version and its own stack.

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
    /// See [`mark`].
    marks: Vec<u64>,
    /// A name with its escapes decoded.
    name: Vec<u8>,
}

/// A step of a path. Its children begin right after it; each child's `end` is where the next begins.
struct Node {
    name: Box<[u8]>,
    /// One past the last node below this.
    end: usize,
}

const MISSING: Found = Found { kind: Kind::Missing, start: 0, end: 0 };

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
        let mut nodes = vec![Node { name: Box::default(), end: 0 }];
        add_children(&mut nodes, &paths, 0);
        nodes[0].end = nodes.len();
        Self { found: vec![MISSING; nodes.len()], nodes, marks: Vec::new(), name: Vec::new() }
    }

    /// The slot of a path given to [`Fields::new`].
    ///
    /// # Panics
    /// When it was not given.
    #[must_use]
    pub fn slot(&self, path: &[String]) -> usize {
        let slot = path.iter().fold(Self::DOCUMENT, |slot, name| child(&self.nodes, slot, name.as_bytes()));
        assert_ne!(slot, UNWANTED, "the path was given to Fields::new");
        slot
    }

    /// What the last document read has there.
    #[must_use]
    #[inline]
    pub fn found(&self, slot: usize) -> Found {
        self.found[slot]
    }

    /// Reads one document to its end.
    ///
    /// # Errors
    /// Why it is not JSON; then no slot means anything.
    pub fn read(&mut self, json: &[u8]) -> Result<(), NotJson> {
        if !mark(json, &mut self.marks) && !is_utf8_with_surrogates(json) {
            return Err(NotJson::Encoding);
        }
        self.found.fill(MISSING);
        let Self { nodes, found, marks, name } = self;
        let mut pass = Pass { json, nodes, found, marks, name };
        let start = if json.starts_with("\u{feff}".as_bytes()) { 3 } else { 0 };
        let end = pass.value(pass.space(start), Self::DOCUMENT, 0)?;
        if pass.space(end) == json.len() { Ok(()) } else { Err(NotJson::Trailing) }
    }
}

/// One pass over a document. Places are bytes from its start; a method that reads something answers where it ends.
struct Pass<'a> {
    json: &'a [u8],
    nodes: &'a [Node],
    found: &'a mut [Found],
    marks: &'a [u64],
    name: &'a mut Vec<u8>,
}

impl Pass<'_> {
    /// Reads the value at `at`, which is wanted as `node` and lies in `depth` lists and objects.
    #[inline(always)]
    fn value(&mut self, at: usize, node: usize, depth: usize) -> Result<usize, NotJson> {
        if self.byte(at) != b'"' {
            return self.other_value(at, node, depth);
        }
        let found = self.string(at + 1)?;
        self.set(node, found);
        Ok(found.end + 1)
    }

    #[inline(never)]
    fn other_value(&mut self, at: usize, node: usize, depth: usize) -> Result<usize, NotJson> {
        let found = match self.byte(at) {
            b'-' | b'0'..=b'9' => self.number(at)?,
            b'{' => Found { kind: Kind::Object, start: at, end: at + 1 },
            b'[' => Found { kind: Kind::List, start: at, end: at + 1 },
            _ => self.literal(at)?,
        };
        self.set(node, found);
        match found.kind {
            Kind::Object | Kind::List if depth == DEPTH_MAX => Err(NotJson::Depth),
            Kind::Object => self.object(found.end, node, depth + 1),
            Kind::List => self.list(found.end, depth + 1),
            _ => Ok(found.end),
        }
    }

    fn object(&mut self, at: usize, node: usize, depth: usize) -> Result<usize, NotJson> {
        let mut at = self.space(at);
        if self.byte(at) == b'}' {
            return Ok(at + 1);
        }
        loop {
            if self.byte(at) != b'"' {
                return Err(NotJson::Name);
            }
            let name = self.string(at + 1)?;
            at = self.space(name.end + 1);
            if self.byte(at) != b':' {
                return Err(NotJson::Colon);
            }
            let child = if node == UNWANTED { UNWANTED } else { self.child(node, name) };
            at = self.value(self.space(at + 1), child, depth)?;
            at = self.space(at);
            match self.byte(at) {
                b',' => at = self.space(at + 1),
                b'}' => return Ok(at + 1),
                _ => return Err(NotJson::ObjectEnd),
            }
        }
    }

    fn list(&mut self, at: usize, depth: usize) -> Result<usize, NotJson> {
        let mut at = self.space(at);
        if self.byte(at) == b']' {
            return Ok(at + 1);
        }
        loop {
            at = self.value(at, UNWANTED, depth)?;
            at = self.space(at);
            match self.byte(at) {
                b',' => at = self.space(at + 1),
                b']' => return Ok(at + 1),
                _ => return Err(NotJson::ListEnd),
            }
        }
    }

    /// The node of that name below a node.
    #[inline]
    fn child(&mut self, node: usize, name: Found) -> usize {
        if name.kind == Kind::Escaped {
            self.name.clear();
            unescape(name.raw(self.json), self.name);
            child(self.nodes, node, self.name)
        } else {
            child(self.nodes, node, name.raw(self.json))
        }
    }

    /// A later value replaces an earlier one of the same name, with all that was in it.
    #[inline]
    fn set(&mut self, node: usize, found: Found) {
        if node == UNWANTED {
            return;
        }
        self.found[node] = found;
        let end = self.nodes[node].end;
        if end > node + 1 {
            self.found[node + 1..end].fill(MISSING);
        }
    }

    #[cold]
    fn literal(&self, start: usize) -> Result<Found, NotJson> {
        for (name, kind) in [
            ("true", Kind::True),
            ("false", Kind::False),
            ("null", Kind::Null),
            ("NaN", Kind::NotFinite),
            ("Infinity", Kind::NotFinite),
            ("-Infinity", Kind::NotFinite),
        ] {
            if self.json.get(start..).is_some_and(|rest| rest.starts_with(name.as_bytes())) {
                return Ok(Found { kind, start, end: start + name.len() });
            }
        }
        Err(if start >= self.json.len() { NotJson::End } else { NotJson::Value })
    }

    /// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`; what follows is judged by the caller, as in `01` and `1.`.
    #[inline]
    fn number(&self, start: usize) -> Result<Found, NotJson> {
        let first = start + usize::from(self.byte(start) == b'-');
        let mut end = if self.byte(first) == b'0' { first + 1 } else { self.digits(first) };
        if end == first {
            return self.literal(start);
        }
        let whole_digits = end - first;
        let mut kind = Kind::Integer;
        if self.byte(end) == b'.' {
            let after = self.digits(end + 1);
            if after > end + 1 {
                (end, kind) = (after, Kind::Float);
            }
        }
        if matches!(self.byte(end), b'e' | b'E') {
            let power = end + 1 + usize::from(matches!(self.byte(end + 1), b'+' | b'-'));
            let after = self.digits(power);
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
    fn string(&self, start: usize) -> Result<Found, NotJson> {
        let end = self.next_mark(start);
        if self.byte(end) == b'"' {
            Ok(Found { kind: Kind::String, start, end })
        } else {
            self.odd_string(start, end)
        }
    }

    /// A string whose first mark, at `at`, is not its end.
    #[cold]
    fn odd_string(&self, start: usize, mut at: usize) -> Result<Found, NotJson> {
        loop {
            match self.json.get(at) {
                Some(b'"') => return Ok(Found { kind: Kind::Escaped, start, end: at }),
                Some(b'\\') => match self.byte(at + 1) {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at = self.next_mark(at + 2),
                    b'u' if hex4(self.json, at + 2).is_some() => at = self.next_mark(at + 6),
                    _ => return Err(NotJson::Escape),
                },
                Some(_) => return Err(NotJson::Control),
                None => return Err(NotJson::StringEnd),
            }
        }
    }

    /// The byte at `at`; zero past the end, which is no byte of JSON's grammar.
    #[inline]
    fn byte(&self, at: usize) -> u8 {
        self.json.get(at).copied().unwrap_or(0)
    }

    /// The first byte from `at` that is no white space.
    #[inline]
    fn space(&self, mut at: usize) -> usize {
        while let b' ' | b'\n' | b'\r' | b'\t' = self.byte(at) {
            at += 1;
        }
        at
    }

    /// The first mark from `at`, which is at most the document's length; past its end if there is none.
    #[inline]
    fn next_mark(&self, at: usize) -> usize {
        let mut block = at / 64;
        let mut bits = self.marks[block] & u64::MAX << (at % 64);
        while bits == 0 {
            block += 1;
            bits = self.marks[block];
        }
        block * 64 + bits.trailing_zeros() as usize
    }

    /// The first byte from `at` that is no digit, or the end.
    #[inline]
    fn digits(&self, mut at: usize) -> usize {
        while self.byte(at).is_ascii_digit() {
            at += 1;
        }
        at
    }
}

/// The node of that name below a node.
#[inline]
fn child(nodes: &[Node], node: usize, name: &[u8]) -> usize {
    let mut child = node + 1;
    while child < nodes[node].end {
        if *nodes[child].name == *name {
            return child;
        }
        child = nodes[child].end;
    }
    UNWANTED
}

/// Adds the nodes below `depth` names, which all of the sorted `paths` share.
fn add_children(nodes: &mut Vec<Node>, paths: &[&[String]], depth: usize) {
    let longer = &paths[paths.partition_point(|path| path.len() == depth)..];
    for paths in longer.chunk_by(|a, b| a[depth] == b[depth]) {
        let node = nodes.len();
        nodes.push(Node { name: paths[0][depth].as_bytes().into(), end: 0 });
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

    /// The string, with its escapes decoded into `buffer` if it has any; `None` when it has a lone surrogate, and
    /// so is no Unicode text.
    #[inline]
    pub fn text<'a>(self, json: &'a [u8], buffer: &'a mut Vec<u8>) -> Option<&'a str> {
        if self.kind == Kind::String {
            return std::str::from_utf8(self.raw(json)).ok();
        }
        buffer.clear();
        unescape(self.raw(json), buffer);
        std::str::from_utf8(buffer).ok()
    }
}

/// Decodes the escapes of a string that [`string`] took. A lone surrogate becomes its three bytes, as UTF-8 would write it.
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
        let low = if rest.starts_with(b"\\u") { hex4(rest, 2) } else { None };
        let code = match (code, low) {
            (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                rest = &rest[6..];
                0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00)
            }
            _ => code,
        };
        match char::from_u32(code) {
            Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => out.extend([0xe0 | code >> 12, 0x80 | code >> 6 & 0x3f, 0x80 | code & 0x3f].map(|b| b as u8)),
        }
    }
    out.extend_from_slice(rest);
}

fn hex4(json: &[u8], at: usize) -> Option<u32> {
    json.get(at..at + 4)?.iter().try_fold(0, |code, &b| Some(code << 4 | char::from(b).to_digit(16)?))
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

/// Marks a document's quotes, backslashes and control characters: a bit for each byte, the first lowest.
/// What follows its end is marked, so that every search ends there. Answers whether the document is ASCII.
fn mark(json: &[u8], marks: &mut Vec<u64>) -> bool {
    marks.clear();
    let mut top = [0; 16];
    let (blocks, rest) = json.as_chunks::<64>();
    marks.extend(blocks.iter().map(|block| marks_of_64(block, &mut top)));
    let last = match json.last_chunk::<64>() {
        Some(last) if !rest.is_empty() => marks_of_64(last, &mut top) >> (64 - rest.len()),
        _ => {
            let mut last = [0; 64];
            last[..rest.len()].copy_from_slice(rest);
            marks_of_64(&last, &mut top)
        }
    };
    marks.extend([last | u64::MAX << rest.len(), u64::MAX]);
    u128::from_ne_bytes(top) & (u128::MAX / 0xff * 0x80) == 0
}

/// Written so that compilers find vector instructions for the loop. All bytes are or-ed into `top`.
#[inline]
fn marks_of_64(bytes: &[u8; 64], top: &mut [u8; 16]) -> u64 {
    let mut marks = [0; 16];
    for (k, bytes) in bytes.as_chunks::<16>().0.iter().enumerate() {
        for (j, &b) in bytes.iter().enumerate() {
            let marked = b < 0x20 || b == b'"' || b == b'\\';
            marks[j] |= if marked { 1 << (2 * k + j / 8) } else { 0 };
            top[j] |= b;
        }
    }
    // Bit k of byte j is byte 8k + j of the document: swap rows and columns (Hacker's Delight, 7-3).
    let both = u128::from_le_bytes(marks);
    let mut m = both as u64 | (both >> 64) as u64;
    for (shift, mask) in [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)] {
        let swap = (m ^ m >> shift) & mask;
        m ^= swap ^ swap << shift;
    }
    m
}
